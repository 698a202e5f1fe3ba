/* Shared by verify.c (parts) and verify_entries.c (entry lists). */
#ifndef SYNCD_RESTORE_VERIFY_INTERNAL_H
#define SYNCD_RESTORE_VERIFY_INTERNAL_H

#include "restore/verify.h"

struct verify {
    const struct verify_params *p;
    struct verify_result *result;
    struct kept kept;
    bool *must_read; /* of each part of `kept`: damage is known or was met, on the worker at hand */
};

/* Books a failure to read from worker `at`; 0 when it is the worker's and the rest can go on. */
int verify_settle(struct verify *v, size_t at, int rc, const struct err *own, struct err *e);
int verify_cancelled(const struct verify *v, struct err *e); /* ERR_CANCELLED when it is to stop */

/* Reads the entry list of every snapshot that worker `at` holds whole, from that worker alone. Of
 * lists that share chunks each chunk is read once. */
int verify_entries(struct verify *v, size_t at, struct err *e);

#endif
