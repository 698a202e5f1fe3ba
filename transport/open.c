#include "transport/open.h"

#include "transport/local.h"
#include "transport/sftp.h"

int store_open_url(const struct store_options *o, struct store **ret, struct err *e)
{
    return o->url.scheme == URL_FILE ? local_open(o, ret, e) : sftp_open(o, ret, e);
}
