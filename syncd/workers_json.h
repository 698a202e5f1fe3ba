/* What sync and verify say of workers, in JSON. */
#ifndef SYNCD_WORKERS_JSON_H
#define SYNCD_WORKERS_JSON_H

#include <jansson.h>
#include <stdbool.h>

struct damage_list;

/* Appends {file, block, reason, mended} of each; `with_mended`: sync's. */
void workers_json_damaged(json_t *list, const struct damage_list *damaged, bool with_mended);

#endif
