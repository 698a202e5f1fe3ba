#include "syncd/services.h"

#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/child.h"
#include "syncd/show.h"

#define ASK_MS 10000
#define UNITS_MAX 64
#define FIRST_UNIT 2 /* in units: "systemctl", "start" */

/* The names in what list-units --plain prints: the first word of each line. */
static int take_units(char *text, struct services *ret)
{
    char *line, *rest = text;
    ret->units = mem_alloc(FIRST_UNIT + UNITS_MAX + 1, sizeof *ret->units);
    if (!ret->units || !(ret->units[0] = strdup("systemctl")) || !(ret->units[1] = strdup("start")))
        return ERR_NOMEM;
    while (ret->count < UNITS_MAX && (line = strsep(&rest, "\n"))) {
        line += strspn(line, " ");
        size_t n = strcspn(line, " \t");
        if (n == 0 || line[0] == '-')
            continue;
        char *unit = strndup(line, n);
        if (!unit)
            return ERR_NOMEM;
        ret->units[FIRST_UNIT + ret->count++] = unit;
    }
    return 0;
}

static int find_running(const char *const *patterns, struct services *ret, struct err *e)
{
    static const char *const ask[] = {"systemctl",  "list-units",
                                      "--plain",    "--no-legend",
                                      "--no-pager", "--state=active,activating,reloading",
                                      "--",         NULL};
    OWN_BUF struct buf output = BUF_INIT;
    const char *argv[ARRAY_LEN(ask) + UNITS_MAX];
    size_t n = 0;
    for (; ask[n]; n++)
        argv[n] = ask[n];
    for (size_t i = 0; patterns[i] && i < UNITS_MAX; i++)
        argv[n++] = patterns[i];
    argv[n] = NULL;
    int rc = child_run(argv, ASK_MS, &output, e);
    if (rc == ERR_NOT_FOUND || rc == ERR_IO)
        return e->code = ERR_UNSUPPORTED;
    if (rc)
        return rc;
    if (!buf_cstr(&output))
        return err_nomem(e);
    return take_units((char *)output.data, ret) ? err_nomem(e) : 0;
}

static int run(const struct services *s, const char *verb, int timeout_s, struct err *e)
{
    OWN_BUF struct buf output = BUF_INIT;
    const char *argv[FIRST_UNIT + UNITS_MAX + 1];
    for (size_t i = 0; i <= FIRST_UNIT + s->count; i++)
        argv[i] = s->units[i];
    argv[1] = verb;
    return child_run(argv, timeout_s * 1000, &output, e);
}

int services_stop(const char *const *patterns, int timeout_s, struct services *ret, struct err *e)
{
    *ret = (struct services){0};
    int rc = find_running(patterns, ret, e);
    if (rc == 0 && ret->count > 0)
        rc = run(ret, "stop", timeout_s, e);
    return rc;
}

int services_start(const struct services *s, int timeout_s, struct err *e)
{
    return s->count ? run(s, "start", timeout_s, e) : 0;
}

char *services_names(const struct services *s)
{
    OWN_BUF struct buf b = BUF_INIT;
    for (size_t i = 0; i < s->count; i++) {
        buf_put_str(&b, i ? ", " : "");
        show_safe(s->units[FIRST_UNIT + i], &b);
    }
    return buf_cstr(&b) ? strdup(buf_cstr(&b)) : NULL;
}

void services_free(struct services *s)
{
    for (char **p = s->units; p && *p; p++)
        free(*p);
    free(s->units);
    *s = (struct services){0};
}
