/* The program `gapless`: finds the subcommand. The table at the end says which there
 * are. */
#include "cluster/options/options_table.h"
#include "cluster/options/parse.h"
#include "cluster/plan/plan.h"
#include "cluster/program/program.h"
#include "cluster/workloads/blas_core.h"

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int cmd_help(int argc, char **argv);
static int cmd_version(int argc, char **argv);

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary; /* NULL: not listed, another spelling */
};

static const struct command commands[] = {
    {"train", cmd_train, "train a model on this machine and watch it"},
    {"master", cmd_master, "only the master: keeps the parameters, applies gradients"},
    {"worker", cmd_worker, "only a worker: computes gradients for a master"},
    {"observe", cmd_observe, "watch a running master, without slowing it"},
    {"simulate", cmd_simulate, "many workers in virtual time, repeatable to the bit"},
    {"study", cmd_study, "a grid of simulated runs, on all processors, resumable"},
    {"report", cmd_report, "a page with curves and tables of runs and studies"},
    {"rules", cmd_rules, "the update rules, their formulas and what they cost"},
    {"plan", cmd_plan,
     "updates a second, memory, masters: reckoned before they are bought"},
    {"doctor", cmd_doctor, "what this machine offers, and what to do about each lack"},
    {"bench", cmd_bench, "measure the engine: bench rules, update, transport, gpu"},
    {"help", cmd_help, "this text; help COMMAND: that of a command"},
    {"version", cmd_version, "the version"},
    {"--help", cmd_help, NULL},
    {"-h", cmd_help, NULL},
    {"--version", cmd_version, NULL},
    {"-V", cmd_version, NULL},
};
static const unsigned commands_count = sizeof commands / sizeof commands[0];

static const char *command_at(const void *context, unsigned index)
{
    (void)context;
    return index < commands_count && commands[index].summary != NULL
               ? commands[index].name
               : NULL;
}

static const struct command *command_find(const char *name)
{
    for (unsigned i = 0; i < commands_count; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void list(FILE *out)
{
    (void)fprintf(out, "usage: gapless COMMAND [OPTION...]\n\n");
    for (unsigned i = 0; i < commands_count; i++)
        if (commands[i].summary != NULL)
            (void)fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].summary);
    (void)fprintf(out,
                  "\n'gapless COMMAND --help' says more. To begin: gapless train\n");
}

static int unknown(const char *name)
{
    const char *near = parse_nearest(name, command_at, NULL);

    (void)fprintf(stderr, "gapless: there is no command '%s'", name);
    if (near != NULL)
        (void)fprintf(stderr, "; did you mean '%s'?", near);
    (void)fprintf(stderr, "\n");
    list(stderr);
    return EXIT_MISUSE;
}

static int cmd_help(int argc, char **argv)
{
    if (argc < 2) {
        list(stdout);
        return EXIT_DONE;
    }
    for (unsigned i = 0; i < options_commands_count; i++)
        if (strcmp(options_commands[i].name, argv[1]) == 0) {
            options_help(options_commands[i].command, stdout);
            return EXIT_DONE;
        }
    if (strcmp(argv[1], "bench") == 0) {
        char help[] = "--help";
        char *bench[] = {argv[1], help, NULL};

        return cmd_bench(2, bench);
    }
    if (strcmp(argv[1], "plan") == 0) {
        plan_help();
        return EXIT_DONE;
    }
    return unknown(argv[1]);
}

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    (void)printf("gapless %s\n", gapless_version());
    return EXIT_DONE;
}

/* Of commands that multiply matrices: may start the program again, with better kernels of
 * OpenBLAS, and says so. The doctor says more itself. */
static void choose_kernels(const struct command *command, char **argv)
{
    static int (*const multiply[])(int, char **) = {
        cmd_train,    cmd_master, cmd_worker, cmd_observe,
        cmd_simulate, cmd_study,  cmd_doctor};
    char file[PATH_MAX];
    bool found = false;

    for (size_t i = 0; i < sizeof multiply / sizeof multiply[0]; i++)
        found = found || command->run == multiply[i];
    if (!found)
        return;
    program_file(file, sizeof file);
    blas_core_choose(file, argv);
    if (blas_core_note()[0] != '\0' && command->run != cmd_doctor)
        report_failure(command->name, "%s", blas_core_note());
}

int main(int argc, char **argv)
{
    const struct command *command;

    (void)signal(SIGXFSZ,
                 SIG_IGN); /* a file that gets too large is an error, not an end */
    if (argc < 2) {
        list(stderr);
        return EXIT_MISUSE;
    }
    command = command_find(argv[1]);
    if (command == NULL)
        return unknown(argv[1]);
    choose_kernels(command, argv);
    return command->run(argc - 1, argv + 1);
}
