/* The parts of `syncd check`: each looks at one side and adds what it finds. */
#ifndef SYNCD_CHECK_H
#define SYNCD_CHECK_H

#include <jansson.h>
#include <stddef.h>

struct conf_source;
struct err;
struct report;
struct session;

enum check_level { CHECK_OK, CHECK_WARNING, CHECK_ERROR };

struct checking {
    struct session *s;
    struct report *report;
    json_t *list;
    size_t warnings, errors;
};

/* Adds a finding: e's object, message and hint. An error is something that would fail tonight. */
void check_add(struct checking *c, enum check_level level, const struct err *e);

/* What the config says that cannot be seen from the config alone: folders, secrets, hooks, times.
 */
void check_config(struct checking *c);

/* Paths and their owners, and whether they are databases. */
void check_sources(struct checking *c);

/* One PostgreSQL source: server, login, programs, schemas, privileges. */
void check_postgres(struct checking *c, const struct conf_source *source);

/* What the preset of a source, if it has one, takes and leaves out; whether its databases are
 * there.
 */
void check_preset(struct checking *c, const struct conf_source *s);

/* The workers of a session that was connected: keys, abilities, space, writing, clock. */
void check_workers(struct checking *c);

/* Whether the newest snapshot of the source is of a format that this syncd reads, on each worker.
 */
void check_versions(struct checking *c, const char *source);

#endif
