#include "syncd/key_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/child.h"

#define KEYGEN_MS 30000

static int run_keygen(const char *const argv[], struct buf *output, struct err *e)
{
    int rc = child_run(argv, KEYGEN_MS, output, e);
    if (rc == ERR_NOT_FOUND) {
        err_set(e, ERR_NOT_FOUND, argv[0], "there is no ssh-keygen on this machine");
        err_hint(e, "Install it: apt install openssh-client");
    }
    return rc;
}

static int sync_file(const char *path, struct err *e)
{
    OWN_FD int fd = io_open(path, O_RDONLY, 0);
    if (fd < 0 || io_fsync(fd) < 0)
        return err_sys(e, errno, path, "cannot write the key %s", path);
    return 0;
}

static char *with_suffix(const char *path, const char *suffix)
{
    char *text = NULL;
    return asprintf(&text, "%s%s", path, suffix) < 0 ? NULL : text;
}

/* The public half first: a private key under its final name is always a whole pair. */
static int place(const char *tmp, const char *tmp_pub, const char *path, const char *pub,
                 struct err *e)
{
    int rc = sync_file(tmp, e);
    if (rc == 0)
        rc = sync_file(tmp_pub, e);
    if (rc)
        return rc;
    if (io_rename(tmp_pub, pub) < 0 || io_rename_new(tmp, path) < 0 || io_fsync_parent(path) < 0)
        return err_sys(e, errno, path, "cannot put the key %s in place", path);
    return 0;
}

static int make(const char *path, const char *comment, struct err *e)
{
    OWN_MEM char *tmp = with_suffix(path, ".tmp");
    OWN_MEM char *tmp_pub = with_suffix(path, ".tmp.pub");
    OWN_MEM char *pub = with_suffix(path, ".pub");
    OWN_BUF struct buf output = BUF_INIT;
    if (!tmp || !tmp_pub || !pub)
        return err_nomem(e);
    /* Left by a run that was cut; ssh-keygen would ask whether to overwrite them. */
    io_unlink(tmp);
    io_unlink(tmp_pub);
    const char *const argv[] = {"ssh-keygen", "-q",    "-t", "ed25519", "-N", "",
                                "-C",         comment, "-f", tmp,       NULL};
    int rc = run_keygen(argv, &output, e);
    if (rc == 0)
        rc = place(tmp, tmp_pub, path, pub, e);
    if (rc) {
        io_unlink(tmp);
        io_unlink(tmp_pub);
        err_prefix(e, "cannot make the key %s", path);
    }
    return rc;
}

const char *key_pair_defect(enum key_kind kind)
{
    switch (kind) {
    case KEY_USABLE:
        return NULL;
    case KEY_RSA:
        return "is an RSA key: libssh2 signs with SHA-1 there, which servers refuse since OpenSSH "
               "8.8";
    case KEY_ENCRYPTED:
        return "is locked with a passphrase, which at night nobody types";
    case KEY_HARDWARE:
        return "needs a security key, which libssh2 cannot use";
    case KEY_PUBLIC:
        return "is the public half; the private key is needed";
    case KEY_UNREADABLE:
        break;
    }
    return "is no private key that can be read";
}

int key_pair_ensure(const char *path, const char *comment, bool *ret_made, struct err *e)
{
    OWN_BUF struct buf key = BUF_INIT;
    enum key_kind kind = KEY_UNREADABLE;
    struct err why = ERR_INIT;
    int rc = key_file_read(path, &key, &kind, &why);
    if (key.data)
        sodium_memzero(key.data, key.len);
    if (rc == ERR_NOT_FOUND) {
        rc = make(path, comment, e);
        if (rc == 0)
            *ret_made = true;
        return rc;
    }
    if (rc) {
        if (e)
            *e = why;
        return rc;
    }
    *ret_made = false;
    const char *defect = key_pair_defect(kind);
    if (!defect)
        return 0;
    err_set(e, ERR_AUTH, path, "the key %s %s", path, defect);
    return err_hint(e, "Name a file that does not exist yet, with --identity or as identity_file: "
                       "syncd setup makes an ed25519 key there.");
}

const char *key_pair_find_public(const char *text, size_t *ret_len)
{
    for (const char *line = text; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        size_t type = strcspn(line, " \t\r\n");
        if (line[type] != ' ' || (strncmp(line, "ssh-", 4) != 0 && strncmp(line, "ecdsa-", 6) != 0))
            continue;
        size_t key = strspn(line + type + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                             "0123456789+/=");
        if (key < 32 || !strchr(" \t\r\n", line[type + 1 + key]))
            continue;
        *ret_len = type + 1 + key;
        return line;
    }
    return NULL;
}

int key_pair_public(const char *path, struct buf *ret, struct err *e)
{
    OWN_BUF struct buf output = BUF_INIT;
    const char *const argv[] = {"ssh-keygen", "-y", "-P", "", "-f", path, NULL};
    size_t len = 0;
    int rc = run_keygen(argv, &output, e);
    if (rc)
        return err_prefix(e, "cannot read the key %s", path);
    const char *text = buf_cstr(&output);
    const char *key = text ? key_pair_find_public(text, &len) : NULL;
    if (!key)
        return text
                   ? err_set(e, ERR_IO, path, "ssh-keygen gives no public half of the key %s", path)
                   : err_nomem(e);
    buf_put(ret, key, len);
    return ret->bad ? err_nomem(e) : 0;
}

int key_pair_authorized_line(const char *path, const char *comment, struct buf *ret, struct err *e)
{
    buf_put_str(ret, "restrict,command=\"internal-sftp\" ");
    int rc = key_pair_public(path, ret, e);
    if (rc)
        return rc;
    buf_printf(ret, " %s", comment);
    return ret->bad ? err_nomem(e) : 0;
}
