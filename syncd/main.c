#include <malloc.h>

#include "syncd/command.h"
#include "syncd/program.h"

int main(int argc, char *argv[])
{
    /* Threads that free what others need would cost up to 4 MiB more at the peak. */
    mallopt(M_ARENA_MAX, 1);
    return program_run(command_table, argc, argv);
}
