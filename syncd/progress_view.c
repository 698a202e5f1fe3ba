#include "syncd/progress_view.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "syncd/show.h"

#define BAR_MIN 8
#define BAR_MAX 30
#define SAMPLE_EVERY_US (250 * US_PER_MS)
#define LINE_BYTES 512
#define PERCENT_WIDTH 7

void rate_note(struct rate *r, int64_t now_us, uint64_t bytes)
{
    if (r->count && now_us - r->samples[(r->count - 1) % RATE_SAMPLES].at_us < SAMPLE_EVERY_US)
        return;
    r->samples[r->count % RATE_SAMPLES].at_us = now_us;
    r->samples[r->count % RATE_SAMPLES].bytes = bytes;
    r->count++;
}

uint64_t rate_get(const struct rate *r, int64_t now_us, uint64_t bytes)
{
    if (!r->count)
        return 0;
    size_t oldest = r->count > RATE_SAMPLES ? r->count % RATE_SAMPLES : 0;
    int64_t span_us = now_us - r->samples[oldest].at_us;
    if (span_us < SAMPLE_EVERY_US || bytes < r->samples[oldest].bytes)
        return 0;
    return (uint64_t)((double)(bytes - r->samples[oldest].bytes) * (double)US_PER_S /
                      (double)span_us);
}

/* A line under construction; a piece that does not fit any more is left out. */
struct line {
    char text[LINE_BYTES];
    size_t len, width, columns;
};

/* Adds a piece when it fits; the first piece is cut to what fits. */
static bool line_add(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool line_add(struct line *l, const char *fmt, ...)
{
    char piece[LINE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(piece, sizeof piece, fmt, ap);
    va_end(ap);
    size_t width = show_width(piece);
    if (l->width && l->width + width > l->columns)
        return false;
    while (width > l->columns) {
        size_t len = strlen(piece) - 1;
        while (len && ((unsigned char)piece[len] & 0xc0) == 0x80)
            len--;
        piece[len] = '\0';
        width = show_width(piece);
    }
    size_t len = strlen(piece);
    if (l->len + len + 1 > sizeof l->text)
        return false;
    memcpy(l->text + l->len, piece, len + 1);
    l->len += len;
    l->width += width;
    return true;
}

static void line_bar(struct line *l, size_t width, double share, bool utf8)
{
    size_t full = (size_t)(share * (double)width);
    line_add(l, utf8 ? "  " : "  [");
    for (size_t i = 0; i < width; i++)
        line_add(l, "%s", i < full ? (utf8 ? "█" : "#") : (utf8 ? "░" : "-"));
    if (!utf8)
        line_add(l, "]");
}

static const char *size_text(uint64_t bytes, char ret[static SHOW_SIZE])
{
    show_size(bytes, ret);
    return ret;
}

/* "backup of piri, pass 2  [###---]   45 %   231 MiB of 525 MiB   170 MiB/s  2 min left". When that
 * is too wide: no bar, no step, and then the numbers go from the right. */
static void work_line(const struct progress_view *v, bool utf8, struct line *ret)
{
    char done[SHOW_SIZE], total[SHOW_SIZE], rate[SHOW_SIZE], left[SHOW_SIZE] = "";
    bool known = v->total_bytes > 0;
    uint64_t shown = known ? MIN(v->done_bytes, v->total_bytes) : v->done_bytes;
    double share = known ? (double)shown / (double)v->total_bytes : 0;
    if (known && v->rate && shown < v->total_bytes)
        show_duration((int64_t)((double)(v->total_bytes - shown) / (double)v->rate * US_PER_S),
                      left);
    line_add(ret, "%s", v->title);
    struct line numbers = {.columns = ret->columns - ret->width};
    if (numbers.columns < PERCENT_WIDTH)
        return;
    if (known)
        line_add(&numbers, "  %3d %%", (int)(share * 100));
    line_add(&numbers, "  %8s", size_text(v->done_bytes, done));
    if (known)
        line_add(&numbers, " of %s", size_text(v->total_bytes, total));
    line_add(&numbers, "  %8s/s", size_text(v->rate, rate));
    if (*left)
        line_add(&numbers, "  %s left", left);
    if (*v->step && ret->width + show_width(v->step) + 2 + numbers.width <= ret->columns)
        line_add(ret, ", %s", v->step);
    size_t used = ret->width + numbers.width + 4;
    if (known && used + BAR_MIN <= ret->columns)
        line_bar(ret, MIN(ret->columns - used, BAR_MAX), share, utf8);
    line_add(ret, "%s", numbers.text);
}

static size_t name_width(const struct progress_view *v)
{
    size_t widest = 0;
    for (size_t i = 0; i < v->worker_count; i++)
        widest = MAX(widest, show_width(v->workers[i].name));
    return widest;
}

static void worker_line(const struct progress_view *v, size_t i, bool with_rate, struct line *ret)
{
    char sent[SHOW_SIZE], rate[SHOW_SIZE];
    line_add(ret, "  %s%*s", v->workers[i].name,
             (int)(name_width(v) - show_width(v->workers[i].name)), "");
    line_add(ret, "  %8s sent", size_text(v->workers[i].sent_bytes, sent));
    if (with_rate)
        line_add(ret, "  %8s/s", size_text(v->workers[i].rate, rate));
    if (*v->workers[i].text)
        line_add(ret, "  %s", v->workers[i].text);
}

void progress_view_lines(const struct progress_view *v, size_t columns, bool utf8, struct buf *ret)
{
    struct line line = {.columns = columns};
    work_line(v, utf8, &line);
    buf_put(ret, line.text, line.len);
    for (size_t i = 0; i < v->worker_count; i++) {
        line = (struct line){.columns = columns};
        worker_line(v, i, true, &line);
        buf_put_u8(ret, '\n');
        buf_put(ret, line.text, line.len);
    }
}

void progress_view_summary(const struct progress_view *v, const char *outcome, size_t columns,
                           struct buf *ret)
{
    char done[SHOW_SIZE], took[SHOW_SIZE], rate[SHOW_SIZE];
    double seconds = (double)MAX(v->elapsed_us, US_PER_MS) / (double)US_PER_S;
    show_duration(v->elapsed_us, took);
    show_size((uint64_t)((double)v->done_bytes / seconds), rate);
    struct line line = {.columns = columns};
    line_add(&line, "%s: %s", v->title, outcome);
    line_add(&line, ", %s in %s", size_text(v->done_bytes, done), took);
    line_add(&line, " (%s/s)", rate);
    buf_put(ret, line.text, line.len);
    buf_put_u8(ret, '\n');
    for (size_t i = 0; i < v->worker_count; i++) {
        line = (struct line){.columns = columns};
        worker_line(v, i, false, &line);
        buf_put(ret, line.text, line.len);
        buf_put_u8(ret, '\n');
    }
}
