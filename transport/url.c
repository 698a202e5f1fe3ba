#include "transport/url.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"

static int refuse(struct err *e, const char *text, const char *why)
{
    int rc = err_set(e, ERR_CONFIG, text, "the URL \"%s\" cannot be used: %s", text, why);
    err_hint(e, "expected sftp://[user@]host[:port]/path, sftp://[user@]host/~/path for a "
                "path under the login's home, or file:///path");
    return rc;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes n bytes of percent-encoded text; false when it does not fit, is malformed, or holds a
 * control character (a NUL would cut the name, a newline would forge a line of known_hosts). */
static bool percent_decode(const char *s, size_t n, char *ret, size_t size)
{
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        int c = (unsigned char)s[i];
        if (c == '%') {
            if (n - i < 3 || hex_value(s[i + 1]) < 0 || hex_value(s[i + 2]) < 0)
                return false;
            c = hex_value(s[i + 1]) << 4 | hex_value(s[i + 2]);
            i += 2;
        }
        if (c < 0x20 || c == 0x7f || out + 1 >= size)
            return false;
        ret[out++] = (char)c;
    }
    ret[out] = '\0';
    return true;
}

/* Host names, IPv4 and IPv6 addresses (with a zone), and nothing that known_hosts or a message
 * could misread. A leading '-' is no host name and has fooled programs that pass it on. */
static bool host_is_plain(const char *host, bool bracketed)
{
    if (host[0] == '\0' || host[0] == '-')
        return false;
    for (const char *p = host; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr(bracketed ? ":.%_-" : "._-", *p))
            return false;
    return true;
}

static bool parse_port(const char *s, size_t n, uint16_t *ret)
{
    uint32_t port = 0;
    if (n == 0 || n > 5)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        port = port * 10 + (uint32_t)(s[i] - '0');
    }
    *ret = (uint16_t)port;
    return port >= 1 && port <= 65535;
}

/* [user@]host[:port] in the n bytes at s; NULL or why not. */
static const char *parse_authority(const char *s, size_t n, struct url *u)
{
    const char *at = memrchr(s, '@', n);
    if (at) {
        size_t user_len = (size_t)(at - s);
        if (memchr(s, ':', user_len))
            return "it holds a password, which would show up in logs and process lists (use "
                   "password_file)";
        if (user_len == 0 || !percent_decode(s, user_len, u->user, sizeof u->user))
            return "its user is empty, too long or malformed";
        n -= user_len + 1;
        s = at + 1;
    }
    const char *end = s + n, *host = s, *host_end, *rest;
    bool bracketed = n > 0 && *s == '[';
    if (bracketed) {
        host = s + 1;
        host_end = memchr(host, ']', (size_t)(end - host));
        if (!host_end)
            return "the ']' after its IPv6 address is missing";
        rest = host_end + 1;
    } else {
        host_end = memchr(s, ':', n);
        if (!host_end)
            host_end = end;
        rest = host_end;
    }
    if (!percent_decode(host, (size_t)(host_end - host), u->host, sizeof u->host) ||
        !host_is_plain(u->host, bracketed))
        return "its host is missing, too long or malformed";
    /* Names are the same in any case, and known_hosts has them in lower case. */
    for (char *p = u->host; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    if (rest == end)
        return NULL;
    if (*rest != ':' || !parse_port(rest + 1, (size_t)(end - rest - 1), &u->port))
        return "its port is not a number from 1 to 65535";
    return NULL;
}

/* "." and ".." would make one repository known by several names, and ".." lead out of it. */
static bool path_is_plain(const char *path)
{
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.') || n > 255)
            return false;
        p += n;
        while (*p == '/')
            p++;
    }
    return true;
}

static const char *parse_path(const char *s, struct url *u)
{
    char path[sizeof u->path];
    if (!percent_decode(s, strlen(s), path, sizeof path))
        return "its path is too long or malformed (a '%' is followed by two hex digits)";
    const char *from = path;
    if (u->scheme == URL_SFTP && from[0] == '/' && from[1] == '~' &&
        (from[2] == '/' || from[2] == '\0')) {
        u->under_home = true;
        for (from += 2; *from == '/';)
            from++;
    }
    size_t out = 0;
    for (; *from; from++) /* a//b and a/b are one folder */
        if (*from != '/' || from[1] != '/')
            u->path[out++] = *from;
    while (out > 0 && u->path[out - 1] == '/')
        out--;
    u->path[out] = '\0';
    return path_is_plain(u->path) ? NULL : "its path holds \".\", \"..\" or a name over 255 bytes";
}

int url_parse(const char *text, struct url *ret, struct err *e)
{
    struct url u = {.port = 22};
    const char *rest, *why;
    if (strncasecmp(text, "sftp://", 7) == 0) {
        rest = text + 7;
        size_t n = strcspn(rest, "/");
        why = parse_authority(rest, n, &u);
        rest += n;
    } else if (strncasecmp(text, "file://", 7) == 0) {
        u.scheme = URL_FILE;
        u.port = 0;
        rest = text + 7;
        why = *rest == '/' ? NULL : "a file URL has three slashes and an absolute path";
    } else {
        return refuse(e, text, "it begins with neither sftp:// nor file://");
    }
    if (!why)
        why = parse_path(rest, &u);
    if (!why && u.scheme == URL_FILE && u.path[0] == '\0')
        why = "the root folder cannot be a repository";
    if (why)
        return refuse(e, text, why);
    *ret = u;
    return 0;
}
