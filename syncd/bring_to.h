/* restore --to: a dump into a PostgreSQL database. */
#ifndef SYNCD_BRING_TO_H
#define SYNCD_BRING_TO_H

struct bringing;
struct err;

/* The chosen snapshot's dump to --to, by --path, --overwrite and --dry-run; says what came back. */
int bring_to(struct bringing *b, struct err *e);

#endif
