#include "syncd/workers_json.h"

#include "restore/damage.h"
#include "syncd/report.h"

void workers_json_damaged(json_t *list, const struct damage_list *damaged, bool with_mended)
{
    for (size_t i = 0; i < damaged->listed; i++) {
        const struct damage *d = &damaged->items[i];
        json_t *o = json_object();
        report_json_set(o, "file", report_json_text(d->file));
        report_json_set(o, "block",
                        d->block < 0 ? json_null() : json_integer((json_int_t)d->block));
        report_json_set(o, "reason", report_json_text(d->reason));
        if (with_mended)
            report_json_set(o, "mended", json_boolean(d->mended));
        json_array_append_new(list, o);
    }
}
