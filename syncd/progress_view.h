/* How progress.h's display looks: pure text, apart from threads and terminals. */
#ifndef SYNCD_PROGRESS_VIEW_H
#define SYNCD_PROGRESS_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "syncd/progress.h"

struct buf;

#define PROGRESS_TEXT 96

struct progress_view {
    char title[PROGRESS_TEXT], step[PROGRESS_TEXT]; /* safe to print */
    uint64_t done_bytes, total_bytes;               /* total 0: unknown */
    uint64_t rate;                                  /* bytes per second, of the last seconds */
    int64_t elapsed_us;
    size_t worker_count;
    struct {
        char name[PROGRESS_TEXT], text[PROGRESS_TEXT];
        uint64_t sent_bytes, rate;
    } workers[PROGRESS_WORKERS_MAX];
};

/* Appends the lines, separated by \n, none wider than `columns`; `utf8` chooses the bar. */
void progress_view_lines(const struct progress_view *v, size_t columns, bool utf8, struct buf *ret);

/* The same for what stays at the end. */
void progress_view_summary(const struct progress_view *v, const char *outcome, size_t columns,
                           struct buf *ret);

/* The bytes per second over the last eight seconds of a growing count. */
#define RATE_SAMPLES 32
struct rate {
    struct {
        int64_t at_us;
        uint64_t bytes;
    } samples[RATE_SAMPLES];
    size_t count;
};
void rate_note(struct rate *r, int64_t now_us, uint64_t bytes);
uint64_t rate_get(const struct rate *r, int64_t now_us, uint64_t bytes);

#endif
