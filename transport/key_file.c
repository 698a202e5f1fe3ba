#include "transport/key_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define KEY_FILE_LIMIT (64 * 1024)
#define OPENSSH_BEGIN "-----BEGIN OPENSSH PRIVATE KEY-----"
#define OPENSSH_END "-----END OPENSSH PRIVATE KEY-----"
#define OPENSSH_MAGIC "openssh-key-v1" /* with its NUL */

static bool holds(const char *p, size_t n, const char *text)
{
    return memmem(p, n, text, strlen(text)) != NULL;
}

/* A length and that many bytes, big-endian, as in RFC 4251 section 5. */
static const uint8_t *take_string(struct cursor *c, size_t *ret_len)
{
    const uint8_t *p = cursor_take(c, 4);
    *ret_len = p ? (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3] : 0;
    return p ? cursor_take(c, *ret_len) : NULL;
}

static bool is_text(const uint8_t *p, size_t n, const char *text)
{
    return p && n == strlen(text) && memcmp(p, text, n) == 0;
}

/* magic, cipher, key derivation and its options, count, public key (whose first string is its
 * type): the head of what stands between BEGIN and END (OpenSSH's PROTOCOL.key). */
static enum key_kind openssh_kind(const char *base64, size_t n)
{
    OWN_MEM uint8_t *bin = malloc(n + 1);
    size_t len = 0, str_len, key_len;
    if (!bin ||
        sodium_base642bin(bin, n, base64, n, " \t\r\n", &len, NULL, sodium_base64_VARIANT_ORIGINAL))
        return KEY_UNREADABLE;
    struct cursor c = cursor_of(bin, len);
    const uint8_t *magic = cursor_take(&c, sizeof OPENSSH_MAGIC);
    if (!magic || memcmp(magic, OPENSSH_MAGIC, sizeof OPENSSH_MAGIC) != 0)
        return KEY_UNREADABLE;
    const uint8_t *cipher = take_string(&c, &str_len);
    bool encrypted = !is_text(cipher, str_len, "none");
    take_string(&c, &str_len);
    take_string(&c, &str_len);
    cursor_take(&c, 4);
    const uint8_t *key = take_string(&c, &key_len);
    struct cursor k = cursor_of(key, key ? key_len : 0);
    const uint8_t *type = take_string(&k, &str_len);
    enum key_kind kind = KEY_USABLE;
    if (!type)
        kind = KEY_UNREADABLE;
    else if (str_len >= 3 && memcmp(type, "sk-", 3) == 0)
        kind = KEY_HARDWARE;
    else if (is_text(type, str_len, "ssh-rsa"))
        kind = KEY_RSA;
    else if (encrypted)
        kind = KEY_ENCRYPTED;
    sodium_memzero(bin, len);
    return kind;
}

enum key_kind key_kind_of(const void *p, size_t n)
{
    const char *text = p;
    const char *begin = memmem(text, n, OPENSSH_BEGIN, strlen(OPENSSH_BEGIN));
    if (begin) {
        begin += strlen(OPENSSH_BEGIN);
        const char *end =
            memmem(begin, n - (size_t)(begin - text), OPENSSH_END, strlen(OPENSSH_END));
        return end ? openssh_kind(begin, (size_t)(end - begin)) : KEY_UNREADABLE;
    }
    if (holds(text, n, "BEGIN RSA PRIVATE KEY"))
        return KEY_RSA;
    if (holds(text, n, "BEGIN ENCRYPTED PRIVATE KEY") || holds(text, n, "Proc-Type: 4,ENCRYPTED"))
        return KEY_ENCRYPTED;
    if (holds(text, n, "PRIVATE KEY-----"))
        return KEY_USABLE;
    if (n > 4 && (memcmp(text, "ssh-", 4) == 0 || memcmp(text, "ecds", 4) == 0))
        return KEY_PUBLIC;
    return KEY_UNREADABLE;
}

static int check_owner(int fd, const char *path, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(e, errno, path, "cannot look at the key %s", path);
    int rc = 0;
    if (!S_ISREG(st.st_mode)) {
        rc = err_set(e, ERR_IO, path, "the key %s is not a file", path);
    } else if (st.st_mode & 077) {
        rc = err_set(e, ERR_PERMISSION, path,
                     "the key %s can be read by others (mode %04o), so it is not used", path,
                     (unsigned)(st.st_mode & 07777));
        err_hint(e, "chmod 600 %s; if others may have read it, make a new key", path);
    } else if (st.st_uid != geteuid() && st.st_uid != 0 && geteuid() != 0) {
        rc = err_set(e, ERR_PERMISSION, path, "the key %s belongs to another user", path);
        err_hint(e, "use a key of the user that syncd runs as, or chown it to that user");
    }
    return rc;
}

int key_file_read(const char *path, struct buf *ret, enum key_kind *ret_kind, struct err *e)
{
    OWN_FD int fd = io_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0) {
        int rc = err_sys(e, errno, path, "cannot open the key %s", path);
        err_hint(e, "identity_file in the worker's block names it; syncd setup makes one");
        return rc;
    }
    int rc = check_owner(fd, path, e);
    if (rc)
        return rc;
    uint8_t *at = buf_extend(ret, KEY_FILE_LIMIT + 1);
    if (!at)
        return err_nomem(e);
    ssize_t n = io_read_full(fd, at, KEY_FILE_LIMIT + 1);
    ret->len -= KEY_FILE_LIMIT + 1 - (size_t)MAX(n, (ssize_t)0);
    if (n < 0)
        return err_sys(e, errno, path, "cannot read the key %s", path);
    if (n > KEY_FILE_LIMIT)
        return err_set(e, ERR_LIMIT, path, "%s is too large to be a key", path);
    at[n] = 0; /* libssh2 1.10 asks strlen where the key ends, whatever length it was given */
    *ret_kind = key_kind_of(at, (size_t)n);
    return 0;
}
