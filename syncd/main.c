#include "syncd/command.h"
#include "syncd/program.h"

int main(int argc, char *argv[])
{
    return program_run(command_table, argc, argv);
}
