/* The local back end: a repository in a folder of this machine (a USB stick, a NAS mount). */
#ifndef SYNCD_TRANSPORT_LOCAL_H
#define SYNCD_TRANSPORT_LOCAL_H

struct err;
struct store;
struct store_options;

/* Opens the folder of a file: URL; touches nothing yet. */
int local_open(const struct store_options *o, struct store **ret, struct err *e);

#endif
