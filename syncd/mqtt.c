#include "syncd/mqtt.h"

#include <errno.h>
#include <mosquitto.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "conf/conf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"

#define KEEPALIVE_S 60
#define LOOP_MS 500
#define LOOP_UNANSWERED_MS 100
#define ANSWER_WITHIN_US (15 * US_PER_S) /* from TCP's connection to CONNACK */
#define FIRST_DELAY_US US_PER_S
#define LONGEST_DELAY_US (60 * US_PER_S)
#define STOP_WITHIN_US (1300 * US_PER_MS)
#define STOP_UNCONNECTED_WITHIN_US (250 * US_PER_MS)
#define GOODBYE_WITHIN_US (700 * US_PER_MS)
#define GOODBYE_LOOP_MS 50
#define TELL_MAX 64
#define OUTBOX_MAX 4096
#define QOS 2

struct message {
    char *topic, *payload; /* payload "": the topic is no more */
    bool unsent;
};

struct queue {
    struct message *items;
    size_t count, cap;
};

struct mqtt {
    pthread_t thread;     /* mqtt_start's and mqtt_stop's */
    pthread_mutex_t lock; /* over what follows, up to the line */
    pthread_cond_t changed;
    struct queue outbox, told;
    bool stop, abandoned, ended;
    bool connected;
    /* ---- the thread's own ---- */
    struct options {
        char *host, *username, *password_file, *ca_file, *cert_file, *key_file, *client_id;
        char *alive_topic, *alive, *will, *goodbye, *birth_topic;
        uint16_t port;
    } o;
    struct mosquitto *client;
    bool answered; /* CONNACK came, good or bad */
    bool warned;
    char why[256]; /* the last connect failed, or the connection ended */
    unsigned failures;
};

static void free_queue(struct queue *q)
{
    for (size_t i = 0; i < q->count; i++) {
        free(q->items[i].topic);
        free(q->items[i].payload);
    }
    free(q->items);
    *q = (struct queue){0};
}

static void free_mqtt(struct mqtt *m)
{
    free_queue(&m->outbox);
    free_queue(&m->told);
    char *strings[] = {m->o.host,      m->o.username, m->o.password_file, m->o.ca_file,
                       m->o.cert_file, m->o.key_file, m->o.client_id,     m->o.alive_topic,
                       m->o.alive,     m->o.will,     m->o.goodbye,       m->o.birth_topic};
    for (size_t i = 0; i < ARRAY_LEN(strings); i++)
        free(strings[i]);
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

/* ---- the queues ---- */

static int append(struct queue *q, const char *topic, const char *payload)
{
    struct message fresh = {.topic = strdup(topic), .payload = strdup(payload), .unsent = true};
    if (!fresh.topic || !fresh.payload ||
        mem_grow(&q->items, &q->cap, q->count + 1, sizeof *q->items)) {
        free(fresh.topic);
        free(fresh.payload);
        return ERR_NOMEM;
    }
    q->items[q->count++] = fresh;
    return 0;
}

static int put(struct queue *q, const char *topic, const char *payload, bool anew)
{
    for (size_t i = 0; i < q->count; i++) {
        struct message *have = &q->items[i];
        if (strcmp(have->topic, topic) != 0)
            continue;
        if (strcmp(have->payload, payload) == 0) {
            have->unsent |= anew;
            return 0;
        }
        char *copy = strdup(payload);
        if (!copy)
            return ERR_NOMEM;
        free(have->payload);
        have->payload = copy;
        have->unsent = true;
        return 0;
    }
    return q->count < OUTBOX_MAX ? append(q, topic, payload) : ERR_NOMEM;
}

static int publish(struct mqtt *m, const char *topic, const char *payload, bool anew, struct err *e)
{
    pthread_mutex_lock(&m->lock);
    int rc = put(&m->outbox, topic, payload ? payload : "", anew);
    pthread_mutex_unlock(&m->lock);
    return rc ? err_nomem(e) : 0;
}

int mqtt_publish(struct mqtt *m, const char *topic, const char *payload, struct err *e)
{
    return publish(m, topic, payload, false, e);
}

int mqtt_publish_anew(struct mqtt *m, const char *topic, const char *payload, struct err *e)
{
    return publish(m, topic, payload, true, e);
}

void mqtt_tell(struct mqtt *m, const char *topic, const char *payload)
{
    pthread_mutex_lock(&m->lock);
    if (m->told.count < TELL_MAX)
        append(&m->told, topic, payload); /* without memory it is dropped, as told */
    pthread_mutex_unlock(&m->lock);
}

/* ---- the thread: events ---- */

static void want_all_again(struct mqtt *m)
{
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->outbox.count; i++)
        m->outbox.items[i].unsent = true;
    pthread_mutex_unlock(&m->lock);
}

static void set_connected(struct mqtt *m, bool connected)
{
    pthread_mutex_lock(&m->lock);
    m->connected = connected;
    pthread_mutex_unlock(&m->lock);
}

static void on_connect(struct mosquitto *client, void *arg, int rc)
{
    struct mqtt *m = arg;
    m->answered = true;
    if (rc) {
        snprintf(m->why, sizeof m->why, "%s", mosquitto_connack_string(rc));
        return;
    }
    if (m->o.birth_topic)
        mosquitto_subscribe(client, NULL, m->o.birth_topic, 0);
    mosquitto_publish(client, NULL, m->o.alive_topic, (int)strlen(m->o.alive), m->o.alive, QOS,
                      true);
    want_all_again(m);
    set_connected(m, true);
    m->failures = 0;
    log_msg(m->warned ? LOG_LEVEL_NOTICE : LOG_LEVEL_INFO, "MQTT: connected to %s:%u%s", m->o.host,
            m->o.port, m->warned ? " again" : "");
    m->warned = false;
}

static void on_message(struct mosquitto *client, void *arg, const struct mosquitto_message *msg)
{
    static const char birth[] = "online";
    (void)client;
    if (msg->payloadlen == (int)strlen(birth) && memcmp(msg->payload, birth, strlen(birth)) == 0)
        want_all_again(arg);
}

/* ---- the thread: one connection ---- */

static int set_login(struct mqtt *m)
{
    OWN_MEM char *password = NULL;
    struct err e = ERR_INIT;
    if (m->o.password_file && conf_read_secret(m->o.password_file, &password, &e)) {
        snprintf(m->why, sizeof m->why, "%.250s", e.message);
        return ERR_AUTH;
    }
    int rc = m->o.username ? mosquitto_username_pw_set(m->client, m->o.username, password) : 0;
    if (password)
        explicit_bzero(password, strlen(password));
    return rc;
}

static int make_client(struct mqtt *m)
{
    m->client = mosquitto_new(m->o.client_id, true, m);
    if (!m->client) {
        snprintf(m->why, sizeof m->why, "%s", strerror(errno));
        return ERR_NOMEM;
    }
    mosquitto_threaded_set(m->client, true);
    mosquitto_connect_callback_set(m->client, on_connect);
    mosquitto_message_callback_set(m->client, on_message);
    int rc = mosquitto_will_set(m->client, m->o.alive_topic, (int)strlen(m->o.will), m->o.will, QOS,
                                true);
    if (rc == MOSQ_ERR_SUCCESS)
        rc = set_login(m);
    if (rc == MOSQ_ERR_SUCCESS && m->o.ca_file) {
        rc = mosquitto_tls_set(m->client, m->o.ca_file, NULL, m->o.cert_file, m->o.key_file, NULL);
        if (rc)
            snprintf(m->why, sizeof m->why, "cannot use the certificates: %s",
                     mosquitto_strerror(rc));
    }
    return rc;
}

static bool should_stop(struct mqtt *m)
{
    pthread_mutex_lock(&m->lock);
    bool stop = m->stop;
    pthread_mutex_unlock(&m->lock);
    return stop;
}

/* Hands what is unsent to the client, which has a queue of its own. */
static void send_waiting(struct mqtt *m)
{
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->outbox.count; i++) {
        struct message *x = &m->outbox.items[i];
        if (x->unsent && mosquitto_publish(m->client, NULL, x->topic, (int)strlen(x->payload),
                                           x->payload, QOS, true) == MOSQ_ERR_SUCCESS)
            x->unsent = false;
    }
    for (size_t i = 0; i < m->told.count; i++)
        mosquitto_publish(m->client, NULL, m->told.items[i].topic,
                          (int)strlen(m->told.items[i].payload), m->told.items[i].payload, QOS,
                          false);
    free_queue(&m->told);
    pthread_mutex_unlock(&m->lock);
}

static void on_published(struct mosquitto *client, void *arg, int id)
{
    (void)client;
    if (id == *(int *)arg)
        *(int *)arg = 0;
}

static void say_goodbye(struct mqtt *m)
{
    int64_t deadline_us = clock_mono_us() + GOODBYE_WITHIN_US;
    int id = 0;
    send_waiting(m);
    mosquitto_user_data_set(m->client, &id);
    mosquitto_connect_callback_set(m->client, NULL);
    mosquitto_message_callback_set(m->client, NULL);
    mosquitto_publish_callback_set(m->client, on_published);
    if (mosquitto_publish(m->client, &id, m->o.alive_topic, (int)strlen(m->o.goodbye), m->o.goodbye,
                          QOS, true))
        return;
    while (id && clock_mono_us() < deadline_us)
        if (mosquitto_loop(m->client, GOODBYE_LOOP_MS, 1))
            return;
    /* Only the loop sends it; without it the broker would publish the will. */
    if (mosquitto_disconnect(m->client) == MOSQ_ERR_SUCCESS)
        while (mosquitto_loop(m->client, GOODBYE_LOOP_MS, 1) == MOSQ_ERR_SUCCESS &&
               clock_mono_us() < deadline_us)
            continue;
}

/* Until the connection ends; says why in m->why. */
static void serve(struct mqtt *m)
{
    int64_t deadline_us = clock_mono_us() + ANSWER_WITHIN_US;
    while (!should_stop(m)) {
        int rc = mosquitto_loop(m->client, m->connected ? LOOP_MS : LOOP_UNANSWERED_MS, 1);
        if (rc) {
            if (!m->why[0])
                snprintf(m->why, sizeof m->why, "%s",
                         rc == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(rc));
            return;
        }
        if (m->connected)
            send_waiting(m);
        else if (m->why[0])
            return;
        else if (clock_mono_us() > deadline_us) {
            snprintf(m->why, sizeof m->why, "it accepts the connection and does not answer");
            return;
        }
    }
    if (m->connected)
        say_goodbye(m);
}

static void connect_once(struct mqtt *m)
{
    m->why[0] = '\0';
    if (make_client(m) == 0) {
        int rc = mosquitto_connect(m->client, m->o.host, m->o.port, KEEPALIVE_S);
        if (rc == MOSQ_ERR_SUCCESS)
            serve(m);
        else
            snprintf(m->why, sizeof m->why, "%s",
                     rc == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(rc));
    }
    set_connected(m, false);
    mosquitto_destroy(m->client);
    m->client = NULL;
}

/* ---- the thread: trying again ---- */

static int64_t next_delay_us(struct mqtt *m)
{
    uint32_t chance;
    int64_t delay_us = FIRST_DELAY_US;
    for (unsigned i = 0; i < m->failures && delay_us < LONGEST_DELAY_US; i++)
        delay_us *= 2;
    delay_us = MIN(delay_us, LONGEST_DELAY_US);
    m->failures += m->failures < 100;
    io_random(&chance, sizeof chance);
    return delay_us / 2 + (int64_t)(chance % (uint64_t)(delay_us / 2 + 1));
}

static void wait_a_while(struct mqtt *m, int64_t delay_us)
{
    int64_t until_us = clock_mono_us() + delay_us;
    struct timespec until = {.tv_sec = until_us / US_PER_S,
                             .tv_nsec = (long)(until_us % US_PER_S) * 1000};
    pthread_mutex_lock(&m->lock);
    while (!m->stop && pthread_cond_timedwait(&m->changed, &m->lock, &until) == 0)
        continue;
    pthread_mutex_unlock(&m->lock);
}

static void warn_once(struct mqtt *m)
{
    if (m->warned)
        return;
    m->warned = true;
    size_t len = strlen(m->why); /* the library's sentences end in a full stop */
    if (len && m->why[len - 1] == '.')
        m->why[len - 1] = '\0';
    log_msg(LOG_LEVEL_WARNING,
            "MQTT: the broker %s:%u cannot be used: %s. Backups go on; trying again.", m->o.host,
            m->o.port, m->why[0] ? m->why : "the connection ended");
}

static void *run(void *arg)
{
    struct mqtt *m = arg;
    while (!should_stop(m)) {
        connect_once(m);
        if (should_stop(m))
            break;
        warn_once(m);
        wait_a_while(m, next_delay_us(m));
    }
    pthread_mutex_lock(&m->lock);
    m->ended = true;
    bool abandoned = m->abandoned;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
    if (abandoned)
        free_mqtt(m);
    return NULL;
}

/* ---- start and stop ---- */

static bool copy_text(char **to, const char *text)
{
    *to = text ? strdup(text) : NULL;
    return !text || *to;
}

static bool copy_options(struct options *to, const struct mqtt_options *o)
{
    to->port = o->port;
    return copy_text(&to->host, o->host) && copy_text(&to->username, o->username) &&
           copy_text(&to->password_file, o->password_file) && copy_text(&to->ca_file, o->ca_file) &&
           copy_text(&to->cert_file, o->cert_file) && copy_text(&to->key_file, o->key_file) &&
           copy_text(&to->client_id, o->client_id) && copy_text(&to->alive_topic, o->alive_topic) &&
           copy_text(&to->alive, o->alive) && copy_text(&to->will, o->will) &&
           copy_text(&to->goodbye, o->goodbye) && copy_text(&to->birth_topic, o->birth_topic);
}

/* Signals are the main thread's. */
static int start_thread(struct mqtt *m)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&m->thread, NULL, run, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int mqtt_start(const struct mqtt_options *o, struct mqtt **ret, struct err *e)
{
    pthread_condattr_t monotonic;
    struct mqtt *m = mem_alloc(1, sizeof *m);
    if (!m)
        return err_nomem(e);
    pthread_mutex_init(&m->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&m->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    mosquitto_lib_init();
    int rc = copy_options(&m->o, o) ? 0 : err_nomem(e);
    int error = rc ? 0 : start_thread(m);
    if (error)
        rc = err_sys(e, error, o->host, "cannot start the thread for MQTT");
    if (rc)
        free_mqtt(m);
    else
        *ret = m;
    return rc;
}

void mqtt_stop(struct mqtt *m)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    int64_t until_us = clock_mono_us();
    until_us += m->connected ? STOP_WITHIN_US : STOP_UNCONNECTED_WITHIN_US;
    struct timespec until = {.tv_sec = until_us / US_PER_S,
                             .tv_nsec = (long)(until_us % US_PER_S) * 1000};
    m->stop = true;
    pthread_cond_broadcast(&m->changed);
    while (!m->ended && pthread_cond_timedwait(&m->changed, &m->lock, &until) == 0)
        continue;
    bool ended = m->ended;
    m->abandoned = !ended;
    pthread_t thread = m->thread;
    pthread_mutex_unlock(&m->lock);
    if (!ended) {
        pthread_detach(thread); /* it frees m */
        return;
    }
    pthread_join(thread, NULL); /* what libraries keep for a thread goes with its end */
    free_mqtt(m);
}
