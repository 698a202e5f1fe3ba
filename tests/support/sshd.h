/* A real sshd for tests: on a free port of 127.0.0.1, with its own keys, in its own folder under
 * /tmp, running as the user that runs the test. Nothing of the machine's own sshd is touched.
 *
 * These functions end the test with a message when something that must work does not. */
#ifndef SYNCD_TEST_SSHD_H
#define SYNCD_TEST_SSHD_H

#include <stdint.h>
#include <sys/types.h>

struct sshd {
    char folder[64];      /* everything is in here; removed by sshd_stop */
    char key[96];         /* a private ed25519 key that may log in; its public half is key.pub */
    char known_hosts[96]; /* holds the ed25519 host key */
    uint16_t port;
    pid_t pid;
};

/* Starts it; `config` is put before the other lines of sshd_config (the first of a kind counts) and
 * may be NULL. Without a Subsystem line in it there is internal-sftp. */
void sshd_start(struct sshd *s, const char *config);

/* Starts it again on the same port with the same keys, after sshd_kill. */
void sshd_restart(struct sshd *s);

/* Ends it and all its connections at once, as a power cut would. */
void sshd_kill(struct sshd *s);

/* Sends a signal to the processes that serve its connections (SIGSTOP: they fall silent). */
void sshd_signal_sessions(struct sshd *s, int signal_number);

/* sshd_kill, and removes the folder. */
void sshd_stop(struct sshd *s);

/* Runs a program to its end; its exit status. */
int test_run(const char *const argv[]);

/* Starts a program; stdout and stderr go to the end of the file `log` unless that is NULL. The
 * caller ends it by its pid and waits for it. */
pid_t test_spawn(const char *const argv[], const char *log);

/* Waits until the server `pid` sends something to those who connect (as SSH servers do); -1 when it
 * has ended or 10 s have passed. */
int test_wait_port(uint16_t port, pid_t pid);

/* A port of 127.0.0.1 that nobody listens on just now. */
uint16_t test_free_port(void);

/* Removes a folder and all that is in it. */
void test_remove_tree(const char *path);

/* A relay on a new port of 127.0.0.1 that passes everything to `port`, each byte delay_us later in
 * both directions; ended by relay_stop. */
struct relay {
    uint16_t port;
    pid_t pid;
};
void relay_start(struct relay *r, uint16_t port, int64_t delay_us);
void relay_stop(struct relay *r);

#endif
