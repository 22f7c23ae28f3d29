/* gapless help and gapless version, and finding a command by its name. */
#include "cluster/options/options_table.h"
#include "cluster/program/manual.h"
#include "cluster/program/program.h"

#include <stdio.h>
#include <string.h>

static const char *name_at(const void *context, unsigned index)
{
    (void)context;
    return index < options_commands_count ? options_commands[index].name : NULL;
}

/* By the name with one word, or with two. */
static const struct option_command_row *find(const char *first, const char *second)
{
    char name[64];

    (void)snprintf(name, sizeof name, "%.30s%s%.30s", first, second != NULL ? " " : "",
                   second != NULL ? second : "");
    for (unsigned i = 0; i < options_commands_count; i++)
        if (strcmp(options_commands[i].name, name) == 0)
            return &options_commands[i];
    return NULL;
}

static void list(FILE *out)
{
    (void)fprintf(out, "usage: gapless COMMAND [OPTION...]\n\n");
    for (unsigned i = 0; i < options_commands_count; i++)
        if (strchr(options_commands[i].name, ' ') == NULL)
            (void)fprintf(out, "  %-11s %s\n", options_commands[i].name,
                          options_commands[i].summary);
    (void)fprintf(out,
                  "\n'gapless COMMAND -h' says what one needs to begin with, --help "
                  "all. To begin: gapless train\n");
}

void command_list(void)
{
    list(stderr);
}

/* Commands that may be written as options. */
static const struct {
    const char *option, *letter, *command;
} spellings[] = {{"--help", "-h", "help"}, {"--version", "-V", "version"}};
#define SPELLINGS (sizeof spellings / sizeof spellings[0])

static const char *spelling_at(const void *context, unsigned index)
{
    (void)context;
    return index < SPELLINGS ? spellings[index].option : NULL;
}

/* Says that there is no such command, or option in its place. */
static void unknown(const char *text)
{
    bool option = text[0] == '-';
    const char *near = parse_nearest(text, option ? spelling_at : name_at, NULL);

    (void)fprintf(stderr, "gapless: there is no %s '%s'", option ? "option" : "command",
                  text);
    if (near != NULL)
        (void)fprintf(stderr, "; did you mean '%s'?", near);
    else if (option)
        (void)fprintf(stderr, "; those of a command go behind its name, as in "
                              "'gapless train -h'");
    (void)fprintf(stderr, "\n'gapless help' lists the commands.\n");
}

const struct option_command_row *command_find(int argc, char **argv, int *ret_words)
{
    const struct option_command_row *found = NULL;
    const char *first = argv[1];

    for (size_t i = 0; i < SPELLINGS; i++)
        if (strcmp(first, spellings[i].option) == 0 ||
            strcmp(first, spellings[i].letter) == 0)
            first = spellings[i].command;
    if (argc > 2)
        found = find(first, argv[2]);
    *ret_words = found != NULL ? 2 : 1;
    if (found == NULL)
        found = find(first, NULL);
    if (found == NULL)
        unknown(first);
    return found;
}

int cmd_help(int argc, char **argv)
{
    const struct option_command_row *about;
    int words;

    if (argc < 2) {
        list(stdout);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--man") == 0) {
        if (argc == 3)
            return manual_write(argv[2]) ? EXIT_DONE : EXIT_FAILED;
        report_failure("help", "--man wants the folder that the man pages go to");
        return EXIT_MISUSE;
    }
    about = command_find(argc, argv, &words);
    if (about == NULL)
        return EXIT_MISUSE;
    if (argc - 1 > words) {
        report_failure("help",
                       "there is no command '%.30s %.60s'; see gapless help %.30s",
                       about->name, argv[words + 1], about->name);
        return EXIT_MISUSE;
    }
    options_help_of(about, stdout);
    return EXIT_DONE;
}

const char *program_commit = "";

int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    (void)printf("gapless %s", gapless_version());
    if (program_commit[0] != '\0')
        (void)printf(" (commit %s)", program_commit);
    (void)printf("\n");
    return EXIT_DONE;
}
