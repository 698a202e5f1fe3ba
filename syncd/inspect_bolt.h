/* Shared by inspect_bolt.c (the questions) and bolt_look.c (a state of a stored or live database
 * that they are put to, and the answer). */
#ifndef SYNCD_INSPECT_BOLT_H
#define SYNCD_INSPECT_BOLT_H

#include <jansson.h>
#include <stdio.h>

#include "snapshot/bolt_file.h"

struct err;
struct inspected;

struct bolt_look {
    const struct inspected *i;
    struct bolt_reader *reader;
    struct bolt_meta meta; /* the state that is looked at */
    bool live;             /* the file may be written by its owner */
    bool hex, to_terminal;
    FILE *answer; /* of a live file, till it is known to count; NULL: printed at once */
    json_t *json; /* keys of the report's object */
    size_t json_bytes;
    uint64_t items;
};

typedef int bolt_question(struct bolt_look *b, struct err *e);

/* Puts the question to the database. A live one is read without its lock: the answer is given when
 * the newest state is still the one that was looked at, else the question is put again, for 10 s at
 * most (ERR_BUSY). Damage in a state that somebody was writing over is none. */
int bolt_look_ask(const struct inspected *i, bolt_question *question, struct err *e);

/* For questions: whether to go on. ERR_CANCELLED after a signal; ERR_CHANGED: the live state is
 * not the newest any more. `arg` is a struct bolt_look. look_sometimes asks only now and then. */
int bolt_look_on(void *arg, struct err *e);
int bolt_look_sometimes(struct bolt_look *b, struct err *e);

void bolt_put_raw(struct bolt_look *b, const void *p, size_t n);
void bolt_put_line(struct bolt_look *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Bytes of a key or a value: as they are, which is how bbolt prints them; made safe for a terminal;
 * in hex with --hex. */
void bolt_put_bytes(struct bolt_look *b, const uint8_t *p, size_t n);
json_t *bolt_json_bytes(const struct bolt_look *b, const uint8_t *p, size_t n);

/* What --json holds in memory has a limit: ERR_LIMIT. */
int bolt_count_json(struct bolt_look *b, size_t n, struct err *e);

#endif
