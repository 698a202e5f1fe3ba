/* A repository's own files: who it is (syncd.repo), who may write (epoch/<n>), and what lies in a
 * source's folder. FORMAT.md 1, DESIGN's fencing. Blocks as the store does. */
#ifndef SYNCD_SNAPSHOT_REPOSITORY_H
#define SYNCD_SNAPSHOT_REPOSITORY_H

#include "snapshot/part.h"

struct err;
struct store;

#define TOKEN_SIZE 16
#define EPOCH_SOURCES_MAX 256
#define REPOSITORY_FORMAT                                                                          \
    1 /* of the folder and its small files; parts have a version of their own */

struct repository {
    uint8_t id[REPO_ID_SIZE];
    uint8_t seed[SEED_SIZE];
    char leader[SOURCE_NAME_SIZE];
    int64_t created_us;
};

/* A new one with random id and seed. */
void repository_new(const char *leader, struct repository *ret);

/* The JSON of syncd.repo, also kept in state_dir. decode: ERR_DAMAGED, ERR_VERSION; `where` is for
 * messages. */
int repository_encode(const struct repository *r, struct buf *to, struct err *e);
int repository_decode(const void *p, size_t n, const char *where, struct repository *ret,
                      struct err *e);

/* Reads syncd.repo. ERR_NOT_FOUND, with the hint, when there is no repository. */
int repository_read(struct store *s, struct repository *ret, struct err *e);

/* Makes folder, syncd.repo, README.txt, epoch/ and tmp/; what is there already is left alone, but
 * another repository's syncd.repo is ERR_FOREIGN. */
int repository_create(struct store *s, const struct repository *r, struct err *e);

/* The rule of one leader, from epoch/<number> on. */
struct epoch {
    uint32_t number; /* 0: there is none yet */
    uint8_t token[TOKEN_SIZE];
    size_t source_count; /* what it continues from */
    struct epoch_source {
        char name[SOURCE_NAME_SIZE];
        uint32_t epoch;
        uint64_t sequence;
    } sources[EPOCH_SOURCES_MAX];
};

/* The ruling epoch: the highest that holds a token. ret->number is 0 when there is none;
 * *ret_highest the highest number that is taken, for the next one. */
int epoch_read(struct store *s, struct epoch *ret, uint32_t *ret_highest, struct err *e);

/* The highest number that is taken, 0: none. Cheap: only names are asked for. */
int epoch_highest(struct store *s, uint32_t *ret, struct err *e);

/* Makes epoch/<ep->number>. ERR_EXISTS when somebody else has it. */
int epoch_claim(struct store *s, const struct epoch *ep, struct err *e);

/* The part is ordinary history under this ruler: of its own epoch, or of an earlier one up to what
 * it continues from. Otherwise it is from an overruled leader. True when `ruler` is NULL or has no
 * number: nobody rules. */
bool epoch_has(const struct epoch *ruler, const char *source, const struct part_ref *ref);

/* An epoch with its number as one line of JSON, for the leader's own record. decode: ERR_DAMAGED;
 * `where` is for messages. */
int epoch_encode(const struct epoch *ep, struct buf *to, struct err *e);
int epoch_decode(const void *p, size_t n, const char *where, struct epoch *ret, struct err *e);

/* What lies in a source's folder on one worker. */
struct listed_part {
    struct part_ref ref; /* with the size that the listing shows */
    enum part_mark mark;
    int64_t mtime_us;
};

struct listing {
    size_t count, cap;
    struct listed_part *parts; /* ascending by (epoch, sequence), then id */
};

void listing_free(struct listing *l);
#define OWN_LISTING __attribute__((cleanup(listing_free)))

/* Names that are no parts are passed over; a missing folder is an empty listing. */
int listing_read(struct store *s, const char *source, struct listing *ret, struct err *e);

/* The part with this identity, or NULL. When it is there under two marks, the better one. */
const struct listed_part *listing_find(const struct listing *l, const struct part_ref *ref);

/* It is there, under a mark that may be read, with the size that ref names. */
bool listing_holds(const struct listing *l, const struct part_ref *ref);
bool listing_holds_all(const struct listing *l, const struct part_ref *refs, size_t count);

#endif
