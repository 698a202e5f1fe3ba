/* Being a quiet guest on the leader: its databases' writers come first. */
#ifndef SYNCD_MANNERS_H
#define SYNCD_MANNERS_H

/* Lowers this process, and the threads that it starts from now on, to nice 10 and idle-class disk
 * I/O. One that runs at a lower priority already is left there; failure is of no consequence. */
void manners_be_quiet(void);

/* Gives this process's session the niceness that the process has, when the session is its own:
 * where the kernel shares the processors out among sessions first (autogroup, as Debian's does),
 * niceness counts for nothing against the threads of another. A session that belongs to others, a
 * shell's say, is left as it is. To be called before the process changes its user. */
void manners_quiet_session(void);

#endif
