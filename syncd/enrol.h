/* Making repositories on workers: the only place that does. */
#ifndef SYNCD_ENROL_H
#define SYNCD_ENROL_H

struct err;
struct report;
struct session;

/* Creates the repository on each configured worker that has none, and the first epoch. The
 * repository's identity is that of state_dir, else of the other worker; a new one only when neither
 * has one and no worker is out of reach. Workers that have it are left alone. Errors of single
 * workers go to the report; the answer is the first of them. */
int enrol_repositories(struct session *s, struct report *report, struct err *e);

#endif
