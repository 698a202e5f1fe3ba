/* Run by the build: syncd_manual TEMPLATE | --completion */
#include <stdio.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/command.h"
#include "syncd/manual.h"

#define TEMPLATE_MAX (1u << 20)

int main(int argc, char **argv)
{
    OWN_BUF struct buf from = BUF_INIT, to = BUF_INIT;
    struct err e = ERR_INIT;
    if (argc != 2)
        return 2;
    if (strcmp(argv[1], "--completion") == 0) {
        manual_completion(command_table, &to);
    } else {
        if (io_read_file(argv[1], TEMPLATE_MAX, &from, &e)) {
            fprintf(stderr, "%s\n", e.message);
            return 1;
        }
        manual_page(buf_cstr(&from), command_table, &to);
    }
    return to.bad || fwrite(to.data, 1, to.len, stdout) != to.len || fflush(stdout) != 0;
}
