/* What holds between keys: defaults that depend on others, and combinations that make no sense. */
#ifndef SYNCD_CONF_CHECK_H
#define SYNCD_CONF_CHECK_H

struct conf;
struct conf_report;
struct err;
struct layout;

/* Before the values are filled in: what stands in a struct when its key is not given. ERR_NOMEM. */
int check_set_defaults(struct conf *c, const struct layout *l, struct err *e);

/* After: fills in what follows from other keys, and reports combinations. */
void check_combinations(struct conf *c, const struct layout *l, struct conf_report *report);

/* The first label of this machine's name, made a valid name. NULL when out of memory. */
char *check_default_name(const char *host_name);

#endif
