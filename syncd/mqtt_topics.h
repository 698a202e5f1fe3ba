/* What is published where (CONTRACT "MQTT"): topics and payloads, without any I/O. All strings and
 * objects are the caller's; NULL means out of memory. */
#ifndef SYNCD_MQTT_TOPICS_H
#define SYNCD_MQTT_TOPICS_H

#include <jansson.h>
#include <stdint.h>

struct conf;
struct conf_source;

#define MQTT_ONLINE "online"
#define MQTT_OFFLINE "offline"
#define PIOREACTOR_INIT "init"         /* at each connect, until the states are told */
#define PIOREACTOR_READY "ready"       /* backups go on by themselves */
#define PIOREACTOR_SLEEPING "sleeping" /* none of its sources has a time for its next backup */
#define PIOREACTOR_DISCONNECTED "disconnected"
#define PIOREACTOR_LOST "lost"

char *mqtt_topic_availability(const struct conf *c);
char *mqtt_topic_state(const struct conf *c, const char *source);

/* Home Assistant: where the device is announced, where it says that it has come up, and the
 * announcement of every source and worker. */
char *mqtt_topic_discovery(const struct conf *c);
char *mqtt_topic_birth(const struct conf *c);
json_t *mqtt_discovery(const struct conf *c);

/* Pioreactor: `setting` of the job "syncd" ("$state", "db/state"), and its log. */
char *pioreactor_topic(const struct conf *c, const char *setting);
char *pioreactor_topic_log(const struct conf *c, int log_level);
json_t *pioreactor_log(const char *text, int log_level, int64_t now_us);

#endif
