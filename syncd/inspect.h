/* Shared by cmd_inspect.c (which database, which question) and inspect_*.c (one kind each). */
#ifndef SYNCD_INSPECT_H
#define SYNCD_INSPECT_H

#include <stddef.h>

struct command_args;
struct entry;
struct err;
struct image_reader;
struct report;

/* What is looked into: a stored image or dump, or a live file. */
struct inspected {
    const struct command_args *args;
    struct report *report;
    const char *name;           /* for messages */
    struct image_reader *image; /* NULL: the live file `name`, or: */
    const struct entry *dump;   /* of PostgreSQL */
    const char *verb;
    const char *const *words; /* after the verb */
    size_t word_count;
};

/* One question that can be put to databases of a kind. */
struct inspect_verb {
    const char *name;
    size_t min_words, max_words;
    const char *usage; /* of the words */
    int (*run)(const struct inspected *i, struct err *e);
};

/* Each ends with a NULL name. */
extern const struct inspect_verb inspect_sqlite_verbs[];   /* inspect_sqlite.c */
extern const struct inspect_verb inspect_bolt_verbs[];     /* inspect_bolt.c */
extern const struct inspect_verb inspect_postgres_verbs[]; /* inspect_postgres.c */

#endif
