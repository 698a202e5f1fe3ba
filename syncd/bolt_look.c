#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "restore/image_reader.h"
#include "snapshot/bolt_copy.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/inspect.h"
#include "syncd/inspect_bolt.h"
#include "syncd/report.h"
#include "syncd/show.h"
#include "syncd/signals.h"

#define PIECE_BYTES 65536u
#define LOOK_EVERY 1024u              /* items */
#define JSON_BYTES_MAX (64u << 20)    /* of keys or of a value, about */
#define LIVE_TRIES_US (10 * US_PER_S) /* an owner that commits faster is told of */

/* ---- the answer ---- */

void bolt_put_raw(struct bolt_look *b, const void *p, size_t n)
{
    if (b->answer && n)
        fwrite(p, 1, n, b->answer);
    else
        report_write(b->i->report, p, n);
}

void bolt_put_bytes(struct bolt_look *b, const uint8_t *p, size_t n)
{
    OWN_BUF struct buf shown = BUF_INIT;
    if (b->hex)
        show_hex(p, n, &shown);
    else if (b->to_terminal)
        show_safe_bytes(p, n, &shown);
    if (shown.data || n == 0)
        p = shown.data, n = shown.len;
    bolt_put_raw(b, p, n);
}

void bolt_put_line(struct bolt_look *b, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    bolt_put_raw(b, line, strlen(line));
    bolt_put_raw(b, "\n", 1);
}

json_t *bolt_json_bytes(const struct bolt_look *b, const uint8_t *p, size_t n)
{
    OWN_BUF struct buf hex = BUF_INIT;
    if (!b->hex)
        return report_json_bytes(p, n);
    show_hex(p, n, &hex);
    return buf_cstr(&hex) ? json_string(buf_cstr(&hex)) : NULL;
}

int bolt_count_json(struct bolt_look *b, size_t n, struct err *e)
{
    b->json_bytes += n + 64;
    if (!report_is_json(b->i->report) || b->json_bytes <= JSON_BYTES_MAX)
        return 0;
    err_set(e, ERR_LIMIT, b->i->name, "the answer is too large for --json");
    return err_hint(e, "Without --json it is printed as it comes.");
}

/* ---- whether to go on ---- */

int bolt_look_on(void *arg, struct err *e)
{
    struct bolt_look *b = arg;
    struct bolt_meta now;
    int rc = signals_check(e);
    if (rc || !b->live)
        return rc;
    rc = bolt_read_meta(b->reader, &now, e);
    return rc || bolt_meta_same(&now, &b->meta)
               ? rc
               : err_set(e, ERR_CHANGED, b->i->name, "its owner committed while it was read");
}

int bolt_look_sometimes(struct bolt_look *b, struct err *e)
{
    return ++b->items % LOOK_EVERY == 0 ? bolt_look_on(b, e) : 0;
}

/* ---- stored and live ---- */

static int image_input_read(void *arg, uint64_t offset, void *p, size_t n, struct err *e)
{
    return image_reader_read(arg, offset, p, n, e);
}

/* Prints what was gathered of a live file, and sets the keys for --json. */
static int give(struct bolt_look *b, struct err *e)
{
    OWN_MEM uint8_t *piece = malloc(PIECE_BYTES);
    const char *key;
    json_t *value;
    size_t n;
    if (!piece)
        return err_nomem(e);
    if (b->answer && (fflush(b->answer) != 0 || ferror(b->answer)))
        return err_sys(e, errno, NULL, "cannot write the temporary file of the answer");
    if (b->answer)
        rewind(b->answer);
    while (b->answer && (n = fread(piece, 1, PIECE_BYTES, b->answer)) > 0)
        report_write(b->i->report, piece, n);
    json_object_foreach(b->json, key, value) report_set(b->i->report, key, json_incref(value));
    return 0;
}

static int try_once(struct bolt_look *b, const struct bolt_input *input, bolt_question *question,
                    struct err *e)
{
    OWN_BOLT struct bolt_reader *reader = NULL;
    struct err changed = ERR_INIT;
    int rc = bolt_open(input, &reader, e);
    b->reader = reader;
    if (rc == 0)
        rc = bolt_read_meta(reader, &b->meta, e);
    if (rc)
        return rc;
    rc = question(b, e);
    if (b->live && (rc == 0 || rc == ERR_DAMAGED || rc == ERR_NOT_FOUND) &&
        bolt_look_on(b, &changed)) {
        *e = changed;
        return e->code;
    }
    return rc;
}

static int begin(struct bolt_look *b, struct err *e)
{
    b->hex = args_flag(b->i->args, "hex");
    b->to_terminal = isatty(STDOUT_FILENO);
    b->json = json_object();
    if (b->live && !(b->answer = tmpfile()))
        return err_sys(e, errno, NULL, "cannot make a temporary file for the answer");
    return b->json ? 0 : err_nomem(e);
}

static void end(struct bolt_look *b)
{
    if (b->answer)
        fclose(b->answer);
    json_decref(b->json);
}

/* ERR_DAMAGED may come with an answer: what `check` found. */
static int ask_input(struct bolt_look *b, const struct bolt_input *input, bolt_question *question,
                     struct err *e)
{
    struct err ignored = ERR_INIT;
    int rc = begin(b, e);
    if (rc == 0)
        rc = try_once(b, input, question, e);
    if (rc == 0)
        rc = give(b, e);
    else if (rc == ERR_DAMAGED)
        give(b, &ignored);
    end(b);
    return rc;
}

static int ask_stored(const struct inspected *i, bolt_question *question, struct err *e)
{
    struct bolt_look b = {.i = i};
    struct bolt_input input = {.read = image_input_read,
                               .arg = i->image,
                               .size_bytes = image_reader_size(i->image),
                               .name = i->name};
    return ask_input(&b, &input, question, e);
}

static int too_busy(const struct inspected *i, struct err *e)
{
    err_set(e, ERR_BUSY, i->name, "%s: its owner commits faster than this can be read", i->name);
    return err_hint(e, "Ask a snapshot of it: `syncd inspect latest %s ...`.", i->name);
}

static int ask_live(const struct inspected *i, bolt_question *question, struct err *e)
{
    int64_t until = clock_mono_us() + LIVE_TRIES_US;
    OWN_FD int fd = io_open(i->name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return err_sys(e, errno, i->name, "cannot open %s", i->name);
    for (;;) {
        struct bolt_look b = {.i = i, .live = true};
        struct bolt_local file = {.fd = fd, .path = i->name};
        struct bolt_input input;
        int rc = bolt_local_input(&file, &input, e);
        if (rc == 0)
            rc = ask_input(&b, &input, question, e);
        if (rc != ERR_CHANGED)
            return rc;
        if (clock_mono_us() > until)
            return too_busy(i, e);
    }
}

int bolt_look_ask(const struct inspected *i, bolt_question *question, struct err *e)
{
    return i->image ? ask_stored(i, question, e) : ask_live(i, question, e);
}
