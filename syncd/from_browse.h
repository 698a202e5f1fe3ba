/* Looking for repositories under a login's home. */
#ifndef SYNCD_FROM_BROWSE_H
#define SYNCD_FROM_BROWSE_H

#include <stddef.h>

struct err;
struct store;

#define BROWSE_MAX 64

/* Paths below the home, each the caller's to free, of folders that hold a syncd.repo: at most two
 * levels down, at most BROWSE_MAX; hidden folders are not looked into, nor those that may not be.
 */
struct browsed {
    size_t count;
    char *paths[BROWSE_MAX];
};

/* `home` is a store whose folder is the login's home. Errors of its listing. */
int browse_home(struct store *home, struct browsed *ret, struct err *e);
void browsed_free(struct browsed *b);

#endif
