#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "conf/conf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define SECRET_MAX 1023

/* The first line of what was read. */
static int take_line(const char *path, const char *text, size_t len, char **ret, struct err *e)
{
    const char *end = memchr(text, '\n', len);
    size_t n = end ? (size_t)(end - text) : len;
    if (n > 0 && text[n - 1] == '\r')
        n--;
    if (n > SECRET_MAX)
        return err_set(e, ERR_CONFIG, path, "the first line of %s is longer than %d bytes", path,
                       SECRET_MAX);
    if (n == 0)
        return err_set(e, ERR_CONFIG, path, "%s is empty, expected the secret in its first line",
                       path);
    if (memchr(text, '\0', n))
        return err_set(e, ERR_CONFIG, path, "%s is not text: there is a NUL in its first line",
                       path);
    char *line = strndup(text, n);
    if (!line)
        return err_nomem(e);
    *ret = line;
    return 0;
}

int conf_read_secret(const char *path, char **ret, struct err *e)
{
    char text[SECRET_MAX + 3]; /* with CR LF */
    struct stat st;
    /* O_NONBLOCK: a FIFO must not make us wait. */
    OWN_FD int fd = io_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return err_sys(e, errno, path, "cannot open the secret file %s", path);
    if (fstat(fd, &st) < 0)
        return err_sys(e, errno, path, "cannot look at the secret file %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_CONFIG, path, "the secret file %s is not a regular file", path);
    if (st.st_mode & 077) {
        err_set(e, ERR_PERMISSION, path,
                "the secret file %s is open to others (mode %04o), expected 0600", path,
                (unsigned)(st.st_mode & 07777));
        err_hint(e, "chmod 600 %s", path);
        return ERR_PERMISSION;
    }
    ssize_t got = io_read_full(fd, text, sizeof text);
    int rc = got < 0 ? err_sys(e, errno, path, "cannot read the secret file %s", path)
                     : take_line(path, text, (size_t)got, ret, e);
    explicit_bzero(text, sizeof text);
    return rc;
}
