#include "syncd/host_pin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "syncd/ask.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "transport/open.h"

#define KNOWN_HOSTS_LIMIT (4u << 20)
#define PREFIX "SHA256:"
#define DIGEST_CHARS 43 /* 32 bytes as base64, without padding */

/* "SHA256:" and 43 digits of base64; one '=' more is what some tools show. */
static bool is_fingerprint(const char *s)
{
    if (strncmp(s, PREFIX, strlen(PREFIX)) != 0)
        return false;
    s += strlen(PREFIX);
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    return n == DIGEST_CHARS && (s[n] == '\0' || strcmp(s + n, "=") == 0);
}

static bool is_host(const char *host, size_t len, const struct url *url)
{
    char with_port[2][sizeof url->host + 16];
    snprintf(with_port[0], sizeof with_port[0], "%s:%u", url->host, (unsigned)url->port);
    snprintf(with_port[1], sizeof with_port[1], "[%s]:%u", url->host, (unsigned)url->port);
    const char *names[] = {url->host, with_port[0], with_port[1]};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i]) == len && strncasecmp(names[i], host, len) == 0)
            return true;
    return false;
}

int host_pin_given(const struct command_args *args, const struct url *url, const char **ret,
                   struct err *e)
{
    const char *found = NULL;
    bool for_host = false;
    for (const char *const *v = args_values(args, "host-key"); *v; v++) {
        const char *equals = strncmp(*v, PREFIX, strlen(PREFIX)) == 0 ? NULL : strchr(*v, '=');
        const char *digest = equals ? equals + 1 : *v;
        if (!is_fingerprint(digest)) {
            err_set(e, ERR_USAGE, *v, "--host-key: found \"%s\", expected [HOST=]SHA256:...", *v);
            return err_hint(e, "\"ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\" on the worker "
                               "shows it.");
        }
        bool named = equals && is_host(*v, (size_t)(equals - *v), url);
        if (named || (!equals && !for_host))
            found = digest;
        for_host = for_host || named;
    }
    *ret = found;
    return 0;
}

static bool same(const char *given, const char *shown)
{
    return strncmp(given, shown, strlen(PREFIX) + DIGEST_CHARS) == 0;
}

static const char *host_key_file(const struct host_key *shown)
{
    return strstr(shown->type, "ed25519") ? "ed25519"
           : strstr(shown->type, "ecdsa") ? "ecdsa"
                                          : "rsa";
}

int host_pin_confirm(const struct host_key *shown, const struct url *url, const char *given,
                     struct err *e)
{
    char question[768], command[96];
    if (given && !same(given, shown->sha256)) {
        err_set(e, ERR_HOST_KEY, url->host,
                "%s shows the host key %s (%s), not %s, which --host-key gives; nothing was sent",
                url->host, shown->sha256, shown->type, given);
        return err_hint(e,
                        "Is it the right machine, and the right kind of key? On it, \"ssh-keygen "
                        "-lf /etc/ssh/ssh_host_%s_key.pub\" shows the key's SHA-256.",
                        host_key_file(shown));
    }
    if (given || shown->known)
        return 0;
    snprintf(command, sizeof command, "ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub",
             host_key_file(shown));
    snprintf(question, sizeof question,
             "%s shows the host key %s (%s). Is it the one that \"%s\" shows on that machine?",
             url->host, shown->sha256, shown->type, command);
    int rc = ask_yes(question, "--host-key", false, e);
    if (rc == ERR_REFUSED) {
        err_set(e, ERR_REFUSED, url->host,
                "the host key of %s was not confirmed; nothing was sent and nothing was written",
                url->host);
    } else if (rc == ERR_USAGE) {
        err_set(e, ERR_USAGE, url->host,
                "the host key of %s is not known: it shows %s (%s), and there is no terminal to "
                "ask whether that is right",
                url->host, shown->sha256, shown->type);
        err_hint(e,
                 "Compare it with what \"%s\" shows on that machine; if it is the same, add "
                 "--host-key %s",
                 command, shown->sha256);
    }
    return rc;
}

/* The file behind a link stays where it is. */
static char *real_path(const char *path)
{
    char *real = realpath(path, NULL);
    return real ? real : strdup(path);
}

int host_pin_write(const char *known_hosts, const char *line, struct err *e)
{
    OWN_MEM char *path = real_path(known_hosts);
    OWN_BUF struct buf text = BUF_INIT;
    struct stat st;
    if (!path)
        return err_nomem(e);
    int rc = io_read_file(path, KNOWN_HOSTS_LIMIT, &text, e);
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    if (rc || stat(path, &st) < 0)
        st = (struct stat){.st_mode = 0644, .st_uid = (uid_t)-1, .st_gid = (gid_t)-1};
    if (text.len && text.data[text.len - 1] != '\n')
        buf_put_u8(&text, '\n');
    buf_put_str(&text, line);
    buf_put_u8(&text, '\n');
    if (text.bad)
        return err_nomem(e);
    return io_replace_file_like(path, text.data, text.len, &st, e);
}
