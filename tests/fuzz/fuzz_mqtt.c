/* Anything that a broker can hand the daemon, in any order: what Home Assistant's birth topic says,
 * refusals, a queue that is full, the end of the connection. Only "online" asks for anything, and
 * then for all that is retained, once.
 *
 * libmosquitto is this file: its calls follow the bytes. */
#include <errno.h>
#include <mosquitto.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/log.h"
#include "syncd/mqtt.h"

#define TOPICS 3
#define ALIVE "alive"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const topics[TOPICS] = {"a", "b", "c"};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ready; /* the outbox is filled */
    bool over;  /* the bytes are used up, or the connection is */
    const uint8_t *at, *end;
    void (*connected)(struct mosquitto *, void *, int);
    void (*said)(struct mosquitto *, void *, const struct mosquitto_message *);
    void *arg;
    bool told, stopping;
    unsigned refusals;                  /* so many publications fail now */
    bool owed[TOPICS], refused[TOPICS]; /* to be sent; tried since the last loop, in vain */
} broker = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static uint8_t next(void)
{
    return broker.at < broker.end ? *broker.at++ : 0;
}

static void set(bool *what)
{
    pthread_mutex_lock(&broker.lock);
    *what = true;
    pthread_cond_broadcast(&broker.changed);
    pthread_mutex_unlock(&broker.lock);
}

static void wait_for(const bool *what)
{
    pthread_mutex_lock(&broker.lock);
    while (!*what)
        pthread_cond_wait(&broker.changed, &broker.lock);
    pthread_mutex_unlock(&broker.lock);
}

static void owe_all(void)
{
    memset(broker.owed, true, sizeof broker.owed);
}

/* A copy of exactly its size, so that the sanitizer sees a read past it. */
static void say(const void *text, size_t n)
{
    struct mosquitto_message m = {.topic = (char[]){"birth"}, .payloadlen = (int)n};
    m.payload = n ? malloc(n) : NULL;
    if (n && !m.payload)
        abort();
    if (n)
        memcpy(m.payload, text, n);
    if (n == strlen("online") && memcmp(text, "online", n) == 0)
        owe_all();
    broker.said((struct mosquitto *)&broker, broker.arg, &m);
    free(m.payload);
}

static void check_sent(void)
{
    for (size_t i = 0; i < TOPICS; i++) {
        if (broker.told && broker.owed[i] && !broker.refused[i])
            abort(); /* it was asked for and was not sent */
        broker.refused[i] = false;
    }
}

/* ---- libmosquitto ---- */

int mosquitto_loop(struct mosquitto *client, int timeout, int max_packets)
{
    (void)timeout;
    (void)max_packets;
    if (broker.stopping) /* mqtt_stop is about to say so */
        return MOSQ_ERR_SUCCESS;
    check_sent();
    if (!broker.told) {
        int refusal = next() % 8;
        broker.told = refusal == 0;
        if (broker.told)
            owe_all();
        broker.connected(client, broker.arg, refusal);
        return MOSQ_ERR_SUCCESS;
    }
    if (broker.at == broker.end) {
        set(&broker.over);
        wait_for(&broker.stopping);
        return MOSQ_ERR_SUCCESS;
    }
    uint8_t what = next();
    size_t left = (size_t)(broker.end - broker.at), n = what / 4 < left ? what / 4 : left;
    switch (what % 4) {
    case 0:
        say("online", strlen("online"));
        break;
    case 1:
        broker.refusals = n % 8;
        break;
    case 2:
        if (what > 128)
            return MOSQ_ERR_CONN_LOST;
        break;
    default:
        broker.at += n;
        say(broker.at - n, n);
    }
    return MOSQ_ERR_SUCCESS;
}

int mosquitto_publish(struct mosquitto *client, int *id, const char *topic, int n,
                      const void *payload, int qos, bool retain)
{
    (void)client;
    (void)qos;
    if (id)
        *id = 0;
    if (broker.stopping || strcmp(topic, ALIVE) == 0)
        return MOSQ_ERR_SUCCESS;
    size_t i = 0;
    while (i < TOPICS && strcmp(topic, topics[i]) != 0)
        i++;
    if (i == TOPICS || !retain || n != 1 || memcmp(payload, topics[i], 1) != 0 || !broker.owed[i])
        abort(); /* unknown, changed, or sent for nothing */
    broker.refused[i] = broker.refusals > 0;
    if (broker.refused[i]) {
        broker.refusals--;
        return MOSQ_ERR_NOMEM;
    }
    broker.owed[i] = false;
    return MOSQ_ERR_SUCCESS;
}

struct mosquitto *mosquitto_new(const char *id, bool clean, void *arg)
{
    (void)id;
    (void)clean;
    broker.arg = arg;
    return (struct mosquitto *)&broker;
}

int mosquitto_connect(struct mosquitto *client, const char *host, int port, int keepalive)
{
    (void)client;
    (void)host;
    (void)port;
    (void)keepalive;
    wait_for(&broker.ready);
    return next() % 16 == 15 ? MOSQ_ERR_ERRNO : MOSQ_ERR_SUCCESS;
}

/* Nothing more comes: the next try would be half a second later. */
void mosquitto_destroy(struct mosquitto *client)
{
    (void)client;
    set(&broker.over);
}

void mosquitto_connect_callback_set(struct mosquitto *client,
                                    void (*f)(struct mosquitto *, void *, int))
{
    (void)client;
    broker.connected = f;
}

void mosquitto_message_callback_set(struct mosquitto *client,
                                    void (*f)(struct mosquitto *, void *,
                                              const struct mosquitto_message *))
{
    (void)client;
    broker.said = f;
}

void mosquitto_publish_callback_set(struct mosquitto *client,
                                    void (*f)(struct mosquitto *, void *, int))
{
    (void)client;
    (void)f;
}

void mosquitto_user_data_set(struct mosquitto *client, void *arg)
{
    (void)client;
    (void)arg;
}

int mosquitto_threaded_set(struct mosquitto *client, bool threaded)
{
    (void)client;
    (void)threaded;
    return MOSQ_ERR_SUCCESS;
}

int mosquitto_will_set(struct mosquitto *client, const char *topic, int n, const void *payload,
                       int qos, bool retain)
{
    (void)client;
    (void)topic;
    (void)n;
    (void)payload;
    (void)qos;
    (void)retain;
    return MOSQ_ERR_SUCCESS;
}

int mosquitto_subscribe(struct mosquitto *client, int *id, const char *pattern, int qos)
{
    (void)client;
    (void)id;
    (void)pattern;
    (void)qos;
    return MOSQ_ERR_SUCCESS;
}

int mosquitto_disconnect(struct mosquitto *client)
{
    (void)client;
    return MOSQ_ERR_NO_CONN;
}

/* ---- the target ---- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mqtt_options o = {.host = "h",
                             .port = 1883,
                             .client_id = "c",
                             .alive_topic = ALIVE,
                             .alive = "online",
                             .will = "offline",
                             .goodbye = "offline",
                             .birth_topic = "birth"};
    struct mqtt *m = NULL;
    struct err e = ERR_INIT;
    log_set_level(LOG_LEVEL_ERROR);
    broker.ready = broker.over = broker.told = broker.stopping = false;
    broker.refusals = 0;
    memset(broker.owed, 0, sizeof broker.owed);
    memset(broker.refused, 0, sizeof broker.refused);
    broker.at = data;
    broker.end = size ? data + size : data;
    if (mqtt_start(&o, &m, &e))
        abort();
    for (size_t i = 0; i < TOPICS; i++)
        if (mqtt_publish(m, topics[i], topics[i], &e))
            abort();
    set(&broker.ready);
    wait_for(&broker.over);
    set(&broker.stopping);
    mqtt_stop(m);
    return 0;
}
