#include "transport/open.h"

#include "syncd/base/err.h"
#include "transport/local.h"

int store_open_url(const struct store_options *o, struct store **ret, struct err *e)
{
    if (o->url.scheme == URL_FILE)
        return local_open(o, ret, e);
    return err_set(e, ERR_UNSUPPORTED, o->name, "%s: SFTP is not built in", o->name);
}
