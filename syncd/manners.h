/* Being a quiet guest on the leader: its databases' writers come first. */
#ifndef SYNCD_MANNERS_H
#define SYNCD_MANNERS_H

/* Lowers this process, and the threads that it starts from now on, to nice 10 and idle-class disk
 * I/O. One that runs at a lower priority already is left there; failure is of no consequence. */
void manners_be_quiet(void);

#endif
