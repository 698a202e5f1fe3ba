#include "snapshot/repository.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/open.h"
#include "transport/store.h"

#define REPO_FILE "syncd.repo"
#define SMALL_FILE_MAX 65536u

static const char readme[] =
    "This folder is a backup, made by the program syncd. It holds snapshots of the data of\n"
    "another machine, the leader '%s': databases and files as they were at certain moments.\n"
    "Please change nothing here; every file is needed as it is.\n"
    "\n"
    "TO BRING EVERYTHING BACK\n"
    "\n"
    "Install syncd on the machine that replaces the leader, and run there, as root:\n"
    "\n"
    "    syncd restore --from sftp://USER@THIS-MACHINE\n"
    "\n"
    "USER is the login here to which this folder belongs, THIS-MACHINE the name or address of "
    "this\n"
    "machine. It asks for that login's password, shows what can be brought back, from when and to\n"
    "where, and asks before it changes anything. If the folder does not lie under that login's\n"
    "home, add its path: sftp://USER@THIS-MACHINE/PATH. If a second machine holds a copy, name\n"
    "both (--from URL --from URL): then damage in one of them does no harm.\n"
    "\n"
    "TO LOOK INSIDE, OR TO GET FILES OUT, WITHOUT INSTALLING ANYTHING\n"
    "\n"
    "Python 3.9 and the program zstd are enough, on this machine or on any that has a copy of "
    "this\n"
    "folder. In this folder:\n"
    "\n"
    "    python3 rescue.py .                          lists the snapshots\n"
    "    python3 rescue.py . latest:SOURCE OUTPUT     puts the newest of SOURCE into folder "
    "OUTPUT\n"
    "\n"
    "Each line of the list names its SOURCE. Nothing that is there already is overwritten, every\n"
    "byte is checked, and what is damaged is named. `python3 rescue.py --help` says more.\n"
    "\n"
    "WHAT IS WHAT\n"
    "\n"
    "    syncd.repo      which repository this is; without it nothing else can be read\n"
    "    epoch/          which machine may write here\n"
    "    tmp/            unfinished uploads, of no use\n"
    "    other folders   one for each source: .snap is a snapshot, .pack more of its data, .del "
    "may\n"
    "                    go soon but is good, .bad was found damaged\n"
    "\n"
    "The format is described in snapshot/FORMAT.md of syncd's sources. Nothing here is "
    "encrypted.\n";

void repository_new(const char *leader, struct repository *ret)
{
    *ret = (struct repository){.created_us = clock_now_us()};
    io_random(ret->id, sizeof ret->id);
    io_random(ret->seed, sizeof ret->seed);
    snprintf(ret->leader, sizeof ret->leader, "%s", leader);
}

/* Appends the object as one line. It is read again first: out of memory, jansson 2.14 leaves pieces
 * out and calls it a success, and these files are written once. */
static int put_json(const json_t *j, struct buf *to, struct err *e)
{
    OWN_MEM char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_auto_t *again = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (!again || !json_equal(j, again))
        return err_nomem(e);
    buf_put_str(to, text);
    buf_put_str(to, "\n");
    return to->bad ? err_nomem(e) : 0;
}

int repository_encode(const struct repository *r, struct buf *to, struct err *e)
{
    char id[2 * REPO_ID_SIZE + 1], seed[2 * SEED_SIZE + 1], created[CLOCK_TEXT_SIZE];
    hex_encode(r->id, REPO_ID_SIZE, id);
    hex_encode(r->seed, SEED_SIZE, seed);
    clock_rfc3339(r->created_us, created);
    json_auto_t *j =
        json_pack("{s:i, s:s, s:s, s:s, s:s}", "format", REPOSITORY_FORMAT, "repository", id,
                  "seed", seed, "leader", r->leader, "created", created);
    return put_json(j, to, e);
}

int repository_decode(const void *p, size_t n, const char *where, struct repository *ret,
                      struct err *e)
{
    json_auto_t *j = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);
    int version;
    const char *id, *seed, *leader, *created;
    struct repository r = {0};
    if (!j || json_unpack(j, "{s:i, s:s, s:s, s:s, s:s}", "format", &version, "repository", &id,
                          "seed", &seed, "leader", &leader, "created", &created) < 0)
        return err_set(e, ERR_DAMAGED, where, "%s: syncd.repo is damaged", where);
    if (version != REPOSITORY_FORMAT)
        return err_set(e, ERR_VERSION, where,
                       "%s: the repository has format version %d; this syncd reads version %d",
                       where, version, REPOSITORY_FORMAT);
    if (!hex_decode(id, r.id, REPO_ID_SIZE) || !hex_decode(seed, r.seed, SEED_SIZE) ||
        strlen(leader) >= sizeof r.leader)
        return err_set(e, ERR_DAMAGED, where, "%s: syncd.repo is damaged", where);
    snprintf(r.leader, sizeof r.leader, "%s", leader);
    clock_parse_user(created, 0, &r.created_us); /* only shown, but copied to further workers */
    *ret = r;
    return 0;
}

int repository_read(struct store *s, struct repository *ret, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    int rc = store_read_file(s, REPO_FILE, SMALL_FILE_MAX, &text, e);
    if (rc == ERR_NOT_FOUND) {
        err_set(e, ERR_NOT_FOUND, s->name, "%s has no syncd repository at this URL", s->name);
        return err_hint(e, "Is its disk mounted and the path right? If it is a new worker, run "
                           "`syncd setup`; nothing else creates a repository.");
    }
    return rc ? rc : repository_decode(text.data, text.len, s->name, ret, e);
}

static int create_file(struct store *s, const char *path, const void *p, size_t n, struct err *e)
{
    struct store_stat st;
    int rc = store_stat(s, path, &st, e);
    if (rc != ERR_NOT_FOUND)
        return rc;
    rc = store_write_file(s, path, p, n, e);
    return rc == ERR_EXISTS ? 0 : rc;
}

static int create_readme(struct store *s, const struct repository *r, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    buf_printf(&text, readme, r->leader);
    return text.bad ? err_nomem(e) : create_file(s, "README.txt", text.data, text.len, e);
}

int repository_create(struct store *s, const struct repository *r, struct err *e)
{
    static const char *const dirs[] = {"tmp", "epoch"};
    OWN_BUF struct buf text = BUF_INIT;
    struct repository there;
    int rc = store_make_root(s, e);
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(dirs); i++)
        rc = store_make_dir(s, dirs[i], e);
    if (rc == 0)
        rc = repository_encode(r, &text, e);
    if (rc == 0)
        rc = create_readme(s, r, e);
    if (rc == 0)
        rc = create_file(s, REPO_FILE, text.data, text.len, e);
    if (rc == 0)
        rc = repository_read(s, &there, e);
    if (rc == 0 && memcmp(there.id, r->id, REPO_ID_SIZE) != 0) {
        err_set(e, ERR_FOREIGN, s->name, "%s already holds the repository of another leader, '%s'",
                s->name, there.leader);
        return err_hint(e,
                        "Give this leader a path of its own in the worker's url; or, if it "
                        "replaces '%s', run `syncd restore --from URL` or `syncd adopt`.",
                        there.leader);
    }
    return rc;
}

/* ---- epochs ---- */

static int look_at_name(void *arg, const char *name, const struct store_stat *st, struct err *e)
{
    uint32_t *highest = arg;
    (void)st;
    (void)e;
    char *end;
    if (*name < '1' || *name > '9' || strlen(name) > 9)
        return 0;
    unsigned long n = strtoul(name, &end, 10);
    if (*end == '\0' && n > *highest)
        *highest = (uint32_t)n;
    return 0;
}

static int decode_epoch_sources(json_t *continues, struct epoch *ret)
{
    const char *name;
    json_t *at;
    json_object_foreach(continues, name, at)
    {
        json_int_t epoch, sequence;
        struct epoch_source *s = &ret->sources[ret->source_count];
        if (ret->source_count >= EPOCH_SOURCES_MAX || strlen(name) >= sizeof s->name ||
            json_unpack(at, "[I, I]", &epoch, &sequence) < 0 || epoch < 0 || sequence < 0 ||
            epoch > UINT32_MAX)
            return ERR_DAMAGED;
        snprintf(s->name, sizeof s->name, "%s", name);
        s->epoch = (uint32_t)epoch;
        s->sequence = (uint64_t)sequence;
        ret->source_count++;
    }
    return 0;
}

static int decode_rule(json_t *j, uint32_t number, const char *where, struct epoch *ret,
                       struct err *e)
{
    const char *token;
    json_t *continues = NULL;
    *ret = (struct epoch){.number = number};
    if (!j || json_unpack(j, "{s:s, s:o}", "token", &token, "continues", &continues) < 0 ||
        !hex_decode(token, ret->token, TOKEN_SIZE) || !json_is_object(continues) ||
        decode_epoch_sources(continues, ret))
        return err_set(e, ERR_DAMAGED, where, "%s: the record of epoch %" PRIu32 " is damaged",
                       where, number);
    return 0;
}

int epoch_decode(const void *p, size_t n, const char *where, struct epoch *ret, struct err *e)
{
    json_auto_t *j = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);
    json_int_t number = 0;
    if (!j || json_unpack(j, "{s:I}", "epoch", &number) < 0 || number < 0 || number > UINT32_MAX)
        return err_set(e, ERR_DAMAGED, where, "%s: the record of the epoch is damaged", where);
    return decode_rule(j, (uint32_t)number, where, ret, e);
}

int epoch_highest(struct store *s, uint32_t *ret, struct err *e)
{
    uint32_t n = 0;
    int rc = store_list(s, "epoch", look_at_name, &n, e);
    if (rc == 0)
        *ret = n;
    return rc;
}

int epoch_read(struct store *s, struct epoch *ret, uint32_t *ret_highest, struct err *e)
{
    uint32_t n = 0;
    int rc = epoch_highest(s, &n, e);
    *ret_highest = n;
    *ret = (struct epoch){0};
    for (; rc == 0 && n > 0; n--) {
        char path[32];
        OWN_BUF struct buf text = BUF_INIT;
        snprintf(path, sizeof path, "epoch/%" PRIu32, n);
        rc = store_read_file(s, path, SMALL_FILE_MAX, &text, e);
        if (rc == ERR_NOT_FOUND || (rc == 0 && text.len == 0)) {
            rc = 0; /* spent: its maker was cut before it wrote the token */
            continue;
        }
        if (rc)
            return rc;
        json_auto_t *j =
            json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
        return decode_rule(j, n, s->name, ret, e);
    }
    return rc;
}

/* The rule as FORMAT.md 1 gives it; NULL when out of memory. */
static json_t *rule_json(const struct epoch *ep)
{
    char token[2 * TOKEN_SIZE + 1];
    json_auto_t *continues = json_object();
    for (size_t i = 0; continues && i < ep->source_count; i++)
        json_object_set_new(continues, ep->sources[i].name,
                            json_pack("[I, I]", (json_int_t)ep->sources[i].epoch,
                                      (json_int_t)ep->sources[i].sequence));
    hex_encode(ep->token, TOKEN_SIZE, token);
    return json_pack("{s:s, s:O}", "token", token, "continues", continues);
}

int epoch_encode(const struct epoch *ep, struct buf *to, struct err *e)
{
    json_auto_t *j = rule_json(ep);
    if (j && json_object_set_new(j, "epoch", json_integer((json_int_t)ep->number)) < 0)
        return err_nomem(e);
    return put_json(j, to, e);
}

bool epoch_has(const struct epoch *ruler, const char *source, const struct part_ref *ref)
{
    if (!ruler || ruler->number == 0 || ref->epoch >= ruler->number)
        return true;
    for (size_t i = 0; i < ruler->source_count; i++) {
        const struct epoch_source *last = &ruler->sources[i];
        if (strcmp(last->name, source) == 0)
            return ref->epoch < last->epoch ||
                   (ref->epoch == last->epoch && ref->sequence <= last->sequence);
    }
    return false;
}

int epoch_claim(struct store *s, const struct epoch *ep, struct err *e)
{
    char path[32];
    OWN_BUF struct buf text = BUF_INIT;
    json_auto_t *j = rule_json(ep);
    int rc = put_json(j, &text, e);
    snprintf(path, sizeof path, "epoch/%" PRIu32, ep->number);
    return rc ? rc : store_write_file(s, path, text.data, text.len, e);
}
