#include "conf/text.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "conf/conf.h"
#include "conf/keys.h"
#include "conf/preset.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

/* Enough of a value to know it again in the file. */
#define SHOWN "\"%.100s\""

bool conf_name_is_valid(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_-";
    size_t len = strlen(name);
    if (len == 0 || len > CONF_NAME_MAX || strspn(name, letters) != len)
        return false;
    if (name[0] == '_' || name[0] == '-')
        return false;
    return strcmp(name, "tmp") != 0 && strcmp(name, "epoch") != 0;
}

int text_check_name(const char *s, struct err *e)
{
    if (conf_name_is_valid(s))
        return 0;
    return err_set(e, ERR_CONFIG, NULL,
                   "found " SHOWN ", expected 1 to %d of a-z 0-9 _ -, beginning with a letter or "
                   "digit, and not tmp or epoch",
                   s, CONF_NAME_MAX);
}

static bool has_dot_parts(const char *s)
{
    for (const char *p = s; *p;) {
        p += strspn(p, "/");
        size_t n = strcspn(p, "/");
        if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return true;
        p += n;
    }
    return false;
}

int text_check_path(const char *s, struct err *e)
{
    if (s[0] == '~')
        return err_set(e, ERR_CONFIG, NULL,
                       "found " SHOWN ", expected the whole path (~ is not replaced here)", s);
    if (s[0] != '/')
        return err_set(e, ERR_CONFIG, NULL,
                       "found " SHOWN ", expected an absolute path, beginning with /", s);
    if (has_dot_parts(s))
        return err_set(e, ERR_CONFIG, NULL,
                       "found " SHOWN ", expected a path without . and .. in it", s);
    if (strlen(s) >= 4096)
        return err_set(e, ERR_CONFIG, NULL, "found " SHOWN "..., expected less than 4096 bytes", s);
    return 0;
}

void text_tidy_path(char *s)
{
    char *to = s;
    for (const char *from = s; *from; from++)
        if (*from != '/' || to == s || to[-1] != '/')
            *to++ = *from;
    if (to > s + 1 && to[-1] == '/')
        to--;
    *to = '\0';
}

static bool is_port(const char *s, size_t len)
{
    unsigned long port = 0;
    if (len == 0 || len > 5 || strspn(s, "0123456789") < len)
        return false;
    for (size_t i = 0; i < len; i++)
        port = port * 10 + (unsigned long)(s[i] - '0');
    return port >= 1 && port <= 65535;
}

/* host, host:port, [v6] or [v6]:port, `len` bytes long. */
static int check_host_and_port(const char *s, size_t len, const char *url, struct err *e)
{
    size_t host_len;
    if (s[0] == '[') {
        const char *close = memchr(s, ']', len);
        host_len = close ? (size_t)(close - s) + 1 : 0;
        if (host_len <= 2)
            return err_set(e, ERR_CONFIG, NULL, "found " SHOWN ", expected [address] of IPv6", url);
    } else {
        const char *colon = memchr(s, ':', len);
        host_len = colon ? (size_t)(colon - s) : len;
        if (host_len == 0)
            return err_set(e, ERR_CONFIG, NULL,
                           "found " SHOWN " without a host, expected sftp://[user@]host/path", url);
    }
    if (host_len < len && (s[host_len] != ':' || !is_port(s + host_len + 1, len - host_len - 1)))
        return err_set(e, ERR_CONFIG, NULL,
                       "found " SHOWN ", expected a port from 1 to 65535 after the host's : and "
                       "then /path",
                       url);
    return 0;
}

static int check_sftp_url(const char *url, const char *rest, struct err *e)
{
    size_t len = strcspn(rest, "/");
    const char *path = rest + len;
    const char *at = NULL;
    for (size_t i = 0; i < len; i++)
        if (rest[i] == '@')
            at = rest + i;
    if (at && memchr(rest, ':', (size_t)(at - rest)))
        return err_set(
            e, ERR_CONFIG, NULL,
            "found a password in the URL, expected sftp://user@host/path and the password "
            "in a file named by password_file");
    if (at == rest)
        return err_set(e, ERR_CONFIG, NULL, "found " SHOWN " without a user before @", url);
    const char *host = at ? at + 1 : rest;
    int rc = check_host_and_port(host, (size_t)(path - host), url, e);
    if (rc)
        return rc;
    const char *folder = strncmp(path, "/~/", 3) == 0 ? path + 3 : path;
    if (folder[strspn(folder, "/")] == '\0')
        return err_set(e, ERR_CONFIG, NULL,
                       "found " SHOWN " without a folder, expected one for the repository alone, "
                       "such as sftp://user@host/~/syncd",
                       url);
    return 0;
}

int text_check_url(const char *s, struct err *e)
{
    if (strlen(s) > 1024)
        return err_set(e, ERR_CONFIG, NULL, "found " SHOWN "..., expected at most 1024 bytes", s);
    if (strpbrk(s, " \t"))
        return err_set(e, ERR_CONFIG, NULL, "found a blank in " SHOWN ", expected %%20 for it", s);
    if (strncmp(s, "sftp://", 7) == 0)
        return check_sftp_url(s, s + 7, e);
    if (strncmp(s, "file:///", 8) == 0 && s[8 + strspn(s + 8, "/")] != '\0')
        return 0;
    if (strncmp(s, "file:", 5) == 0)
        return err_set(e, ERR_CONFIG, NULL, "found " SHOWN ", expected file:///folder", s);
    return err_set(e, ERR_CONFIG, NULL,
                   "found " SHOWN ", expected sftp://[user@]host[:port]/path or file:///path", s);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* `password` or `sslpassword`, as keyword = value or as a parameter of a URI. */
static bool has_password(const char *s)
{
    for (const char *p = strcasestr(s, "password"); p; p = strcasestr(p + 1, "password")) {
        const char *begin = p - s >= 3 && strncasecmp(p - 3, "ssl", 3) == 0 ? p - 3 : p;
        bool word_begins =
            begin == s || is_blank(begin[-1]) || begin[-1] == '?' || begin[-1] == '&';
        const char *after = p + strlen("password");
        if (word_begins && after[strspn(after, " \t")] == '=')
            return true;
    }
    const char *authority = strstr(s, "://");
    if (!authority)
        return false;
    authority += 3;
    size_t len = strcspn(authority, "/?");
    const char *at = memchr(authority, '@', len);
    return at && memchr(authority, ':', (size_t)(at - authority));
}

int text_check_conninfo(const char *s, struct err *e)
{
    bool is_uri = strncmp(s, "postgres://", 11) == 0 || strncmp(s, "postgresql://", 13) == 0;
    if (has_password(s))
        return err_set(
            e, ERR_CONFIG, NULL,
            "found a password, expected passfile=/path to a file that only its owner may "
            "read (see .pgpass in PostgreSQL's manual)");
    if (!is_uri && !strchr(s, '='))
        return err_set(e, ERR_CONFIG, NULL,
                       "found " SHOWN ", expected keyword=value pairs such as "
                       "\"host=/run/postgresql dbname=%.40s\"",
                       s, strpbrk(s, " \t") ? "piri" : s);
    return 0;
}

static bool is_among(const char *s, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(s, *words) == 0)
            return true;
    return false;
}

int text_check_preset(const char *s, struct err *e)
{
    if (preset_find(s))
        return 0;
    return err_set(e, ERR_CONFIG, NULL, "found " SHOWN ", expected %s", s,
                   conf_type_expected(CONF_TYPE_PRESET));
}

int text_check_log_level(const char *s, struct err *e)
{
    static const char *const levels[] = {"error", "warning", "notice", "info", "debug", NULL};
    if (is_among(s, levels))
        return 0;
    return err_set(e, ERR_CONFIG, NULL,
                   "found " SHOWN ", expected \"error\", \"warning\", \"notice\", \"info\" or "
                   "\"debug\"",
                   s);
}

int text_check_topic(const char *s, struct err *e)
{
    size_t len = strlen(s);
    bool slashes = s[0] == '/' || s[len - 1] == '/' || strstr(s, "//");
    if (strpbrk(s, "+# \t") || s[0] == '$' || slashes || len > 200)
        return err_set(e, ERR_CONFIG, NULL,
                       "found " SHOWN ", expected a topic without + # blanks, a $ in front, or "
                       "empty levels, such as \"syncd\"",
                       s);
    return 0;
}

int text_check_word(const char *s, struct err *e)
{
    if (!strpbrk(s, " \t"))
        return 0;
    return err_set(e, ERR_CONFIG, NULL, "found " SHOWN ", expected no blanks", s);
}

int text_check_schema(const char *s, struct err *e)
{
    if (strchr(s, '/') || s[0] == '.' || strlen(s) > 63 * 4)
        return err_set(e, ERR_CONFIG, NULL,
                       "found " SHOWN
                       ", expected the name of a schema, without / and not beginning "
                       "with a dot",
                       s);
    return 0;
}
