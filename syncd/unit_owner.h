/* Giving what syncd needs to the owner of the data, who runs it (DESIGN 9): state_dir, keys and
 * secrets, and systemd's unit, by a drop-in. For `setup` that root has started; nothing otherwise.
 */
#ifndef SYNCD_UNIT_OWNER_H
#define SYNCD_UNIT_OWNER_H

struct conf;
struct err;
struct report;

/* Gives state_dir, with all that is in it, to the owner of the sources when root or the package's
 * user has it, and so keys and secrets that lie beside the config or in state_dir. ERR_CONFIG when
 * the sources have two owners; ERR_REFUSED when state_dir is a third one's. Nothing while no source
 * can be looked at. */
int unit_owner_give(const struct conf *c, struct report *report, struct err *e);

/* Writes the drop-in (owner.conf in $SYNCD_UNIT_DIR/syncd.service.d, for the default config in
 * /etc/systemd/system): the owner, and the folders that SQLite, and workers that are folders, write
 * to. An equal one is left alone. */
int unit_owner_write(const struct conf *c, struct report *report, struct err *e);

#endif
