/* The config that a snapshot keeps (FORMAT.md 3, type 7), so that a leader can be rebuilt from a
 * worker. Secrets are only named in it. */
#ifndef SYNCD_KEPT_CONFIG_H
#define SYNCD_KEPT_CONFIG_H

#include "conf/conf.h"
#include "snapshot/pool.h"

struct buf;
struct err;

/* Its entry, the caller's, for entry_free. ERR_NOT_FOUND: the snapshot keeps none. */
int kept_config_find(struct pool *pool, const struct snapshot *s, struct entry *ret, struct err *e);

/* Its text, appended to *ret. ERR_LIMIT when it is longer than a config may be. */
int kept_config_read(struct pool *pool, const struct snapshot *s, const struct entry *entry,
                     struct buf *ret, struct err *e);

/* The hooks of a config from elsewhere, a line each ("  source db: before: systemctl stop x"),
 * fit for a terminal. Of `only` alone when that is not NULL, and only those around a restore with
 * `restore_only`. Returns how many. */
size_t kept_config_show_hooks(const struct conf *c, const char *only, bool restore_only,
                              struct buf *ret);

#endif
