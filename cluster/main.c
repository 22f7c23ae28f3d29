/* The program `gapless`: finds the command in the table (cluster/program/commands.c) and
 * starts it. */
#include "cluster/options/options_table.h"
#include "cluster/program/program.h"
#include "cluster/workloads/blas_core.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/* Commands that multiply matrices. */
#define MULTIPLY                                                                       \
    (FOR_TRAIN | FOR_RUN | FOR_MASTER | FOR_WORKER | FOR_OBSERVE | FOR_EVALUATE |      \
     FOR_SIMULATE | FOR_STUDY | FOR_DOCTOR)

/* Of those: may start the program again, with better kernels of OpenBLAS, and says so.
 * The doctor says more itself. */
static void choose_kernels(const struct option_command_row *command, char **argv)
{
    char file[PATH_MAX];

    if ((command->command & MULTIPLY) == 0)
        return;
    program_file(file, sizeof file);
    blas_core_choose(file, argv);
    if (blas_core_note()[0] != '\0' && command->command != FOR_DOCTOR)
        report_failure(command->name, "%s", blas_core_note());
}

/* Commands whose product is what they print; of the others it is files, or an update. */
#define PRINT_NONE                                                                     \
    (FOR_TRAIN | FOR_RUN | FOR_MASTER | FOR_WORKER | FOR_SIMULATE | FOR_STUDY)

/* What was printed and found no room is a failure of a command that prints. */
static int written(const struct option_command_row *command, int code)
{
    if (code != EXIT_DONE || (command->command & PRINT_NONE) != 0 ||
        program_printed(command->name))
        return code;
    return EXIT_FAILED;
}

/* Closed standard descriptors would be given to the next files that are opened, and what
 * is printed would go into those: into the memory of a run, too. Read-only, so that
 * printing still fails. */
static void hold_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0) /* the lowest free one: open returns fd */
            (void)open("/dev/null", O_RDONLY); // NOLINT(android-cloexec-open)
}

int main(int argc, char **argv)
{
    const struct option_command_row *command;
    int words = 0;

    hold_standard();
    program_commit = program_commit_built;
    (void)signal(SIGXFSZ, SIG_IGN); /* a file that gets too large is an error, no end */
    if (argc < 2) {
        command_list();
        return EXIT_MISUSE;
    }
    command = command_find(argc, argv, &words);
    if (command == NULL)
        return EXIT_MISUSE;
    choose_kernels(command, argv);
    return written(command, command->run(argc - words, argv + words));
}
