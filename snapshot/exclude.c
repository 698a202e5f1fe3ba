#include "snapshot/exclude.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

/* The tail of the path that has as many parts as the glob; NULL when the path has fewer. */
static const char *tail_of(const char *path, const char *glob)
{
    const char *at = path + strlen(path);
    size_t slashes = 0;
    for (const char *p = glob; *p; p++)
        slashes += *p == '/';
    while (at > path) {
        at--;
        if (*at != '/')
            continue;
        if (slashes == 0)
            return at + 1;
        slashes--;
    }
    return NULL;
}

static bool glob_matches(const char *glob, const char *path)
{
    while (strncmp(glob, "**/", 3) == 0)
        glob += 3;
    const char *against = *glob == '/' ? path : tail_of(path, glob);
    return against && fnmatch(glob, against, FNM_PATHNAME) == 0;
}

static bool folder_glob_matches(const char *glob, size_t n, const char *path)
{
    char *without = strndup(glob, n - 1);
    bool matches = without && glob_matches(without, path);
    free(without);
    return matches;
}

static bool is_our_own(const char *path)
{
    const char *last = strrchr(path, '/');
    last = last ? last + 1 : path;
    return strcmp(last, ".syncd-restore") == 0 || fnmatch(".syncd-*.tmp", last, 0) == 0;
}

bool exclude_matches(char *const *globs, const char *path, bool is_folder)
{
    if (is_our_own(path))
        return true;
    for (; globs && *globs; globs++) {
        size_t n = strlen(*globs);
        bool folders_only = n > 1 && (*globs)[n - 1] == '/';
        if (folders_only ? is_folder && folder_glob_matches(*globs, n, path)
                         : glob_matches(*globs, path))
            return true;
    }
    return false;
}
