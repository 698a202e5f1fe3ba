/* Host keys that a person has looked at: --host-key, and setup's question. --yes answers neither.
 */
#ifndef SYNCD_HOST_PIN_H
#define SYNCD_HOST_PIN_H

struct command_args;
struct err;
struct host_key;
struct url;

/* What --host-key [HOST=]SHA256:... says of this URL's host (HOST may have its port, host:port):
 * the "SHA256:..." in *ret, which is argv's, or NULL when it says nothing. A value without HOST is
 * for every host. ERR_USAGE for a value that is none. */
int host_pin_given(const struct command_args *args, const struct url *url, const char **ret,
                   struct err *e);

/* Whether the key that the server shows may be trusted: `given` (of --host-key, or NULL) must be
 * the same; a key that known_hosts has is fine then; else the person is asked. ERR_HOST_KEY: not
 * the one that was given; ERR_REFUSED: the answer was no; ERR_USAGE: nobody to ask. */
int host_pin_confirm(const struct host_key *shown, const struct url *url, const char *given,
                     struct err *e);

/* Appends the line to the known_hosts file, making it (0644) when it is missing. */
int host_pin_write(const char *known_hosts, const char *line, struct err *e);

#endif
