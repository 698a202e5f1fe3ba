/* A worker's URL: sftp://[user@]host[:port]/path, /~/path for a path under the login's home, or
 * file:///path. Percent-encoding (RFC 3986 section 2.1) is decoded; IPv6 hosts stand in []. */
#ifndef SYNCD_TRANSPORT_URL_H
#define SYNCD_TRANSPORT_URL_H

#include <stdbool.h>
#include <stdint.h>

struct err;

enum url_scheme { URL_SFTP, URL_FILE };

struct url {
    enum url_scheme scheme;
    char user[65];   /* "" when not given */
    char host[256];  /* "" for file */
    uint16_t port;   /* 22 when not given */
    bool under_home; /* path is relative to the login's home folder */
    char
        path[1024]; /* absolute, or relative when under_home; no trailing '/'; "" when none given */
};

/* ERR_CONFIG with what was found and what was expected. A password in the URL is refused: it would
 * show up in logs. */
int url_parse(const char *text, struct url *ret, struct err *e);

#endif
