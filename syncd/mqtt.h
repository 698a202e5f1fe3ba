/* A connection to an MQTT broker in a thread of its own, with an outbox that holds the last value
 * of each topic. No call waits for the broker but mqtt_stop, and that for 1.3 s at most.
 *
 * Everything in the outbox is published (retained, QoS 2) after each connect and whenever Home
 * Assistant says that it has come up. While the broker cannot be used the thread tries again after
 * growing delays of up to a minute; this is logged once as a warning, and once when it is over. */
#ifndef SYNCD_MQTT_H
#define SYNCD_MQTT_H

#include <stdint.h>

struct err;
struct mqtt;

struct mqtt_options {
    const char *host;
    uint16_t port;
    const char *username, *password_file;       /* NULL: none; the file is read at each connect */
    const char *ca_file, *cert_file, *key_file; /* NULL: none; ca_file turns TLS on */
    const char *client_id;
    /* Our own availability: set at each connect, the will, and set before a clean disconnect. */
    const char *alive_topic, *alive, *will, *goodbye;
    const char *birth_topic; /* where "online" asks for everything again; NULL: nowhere */
};

/* Starts the thread; strings are copied. ERR_NOMEM, ERR_IO. A broker that cannot be reached is no
 * error. */
int mqtt_start(const struct mqtt_options *o, struct mqtt **ret, struct err *e);

/* Keeps the topic's value and publishes it as soon as can be; the same value again is sent again
 * only with mqtt_publish_anew. NULL: the topic is no more (an empty retained message). */
int mqtt_publish(struct mqtt *m, const char *topic, const char *payload, struct err *e);
int mqtt_publish_anew(struct mqtt *m, const char *topic, const char *payload, struct err *e);

/* One message, not retained; sent with the next connection when there is none. Dropped when 64 are
 * waiting. */
void mqtt_tell(struct mqtt *m, const char *topic, const char *payload);

/* Says goodbye, disconnects and frees. A thread that is stuck in the system's connect or look-up of
 * a name is left to itself after 0.25 s; it ends with the process. NULL is fine. */
void mqtt_stop(struct mqtt *m);

#endif
