/* The SFTP back end: a repository on a worker that runs nothing but sshd. */
#ifndef SYNCD_TRANSPORT_SFTP_H
#define SYNCD_TRANSPORT_SFTP_H

struct err;
struct store;
struct store_options;

/* store_open_url for an sftp: URL. */
int sftp_open(const struct store_options *o, struct store **ret, struct err *e);

#endif
