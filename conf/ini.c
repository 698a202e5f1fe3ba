#include "conf/ini.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"

/* Without the blanks around it, in place. */
static char *trim(char *s)
{
    s += strspn(s, " \t\r");
    size_t n = strlen(s);
    while (n > 0 && strchr(" \t\r", s[n - 1]))
        s[--n] = '\0';
    return s;
}

static char *clean_value(char *s)
{
    s = trim(s);
    char *end = *s == '"' || *s == '\'' ? strchr(s + 1, *s) : NULL;
    if (end) {
        *end = '\0';
        return s + 1;
    }
    for (char *p = s; *p; p++)
        if ((*p == '#' || *p == ';') && (p == s || isblank((unsigned char)p[-1]))) {
            *p = '\0';
            break;
        }
    return trim(s);
}

/* Whether the line begins a section; then `ret_in` says whether it is the one. */
static bool is_section(char *line, const char *section, bool *ret_in)
{
    char *end = *line == '[' ? strchr(line, ']') : NULL;
    if (!end)
        return false;
    *end = '\0';
    *ret_in = strcmp(trim(line + 1), section) == 0;
    return true;
}

int ini_each(const char *text, const char *section, ini_one_fn *one, void *arg, struct err *e)
{
    OWN_MEM char *copy = strdup(text);
    char *rest = copy, *line;
    bool in = *section == '\0';
    int rc = 0;
    if (!copy)
        return err_nomem(e);
    while (rc == 0 && (line = strsep(&rest, "\n"))) {
        line = trim(line);
        if (*line == '#' || *line == ';' || is_section(line, section, &in) || !in)
            continue;
        char *value = strchr(line, '=');
        if (!value)
            continue;
        *value++ = '\0';
        rc = one(arg, trim(line), clean_value(value), e);
    }
    return rc;
}

struct search {
    const char *key;
    char *value;
};

static int take_value(void *arg, const char *key, const char *value, struct err *e)
{
    struct search *s = arg;
    if (strcmp(key, s->key) != 0)
        return 0;
    free(s->value);
    s->value = strdup(value);
    return s->value ? 0 : err_nomem(e);
}

int ini_get(const char *text, const char *section, const char *key, char **ret, struct err *e)
{
    struct search s = {.key = key};
    int rc = ini_each(text, section, take_value, &s, e);
    if (rc == 0)
        *ret = TAKE_PTR(s.value);
    free(s.value);
    return rc;
}
