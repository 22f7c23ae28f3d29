/* The help of a subcommand, from the table: two columns, the right one wrapped. */
#include "cluster/options/options_table.h"

#include <string.h>

#define LEFT_COLUMNS 33 /* where what an option means begins */
#define PAGE_COLUMNS 96

static const char *const group_titles[GROUPS] = {
    "What is trained", "How it moves", "The run", "The network", "GPUs",
    "The simulation",  "Output"};

const char *options_command_name(enum option_command command)
{
    for (unsigned i = 0; i < options_commands_count; i++)
        if (options_commands[i].command == command)
            return options_commands[i].name;
    return "";
}

/* Prints words from `column` on, and where a line is full goes on under its start. */
static void print_wrapped(const char *text, size_t column, FILE *out)
{
    size_t start = column;

    while (*text != '\0') {
        size_t bytes = strcspn(text, " ");

        if (column > start && column + 1 + bytes > PAGE_COLUMNS) {
            (void)fprintf(out, "\n%*s", (int)start, "");
            column = start;
        } else if (column > start) {
            (void)fputc(' ', out);
            column++;
        }
        (void)fwrite(text, 1, bytes, out);
        column += bytes;
        text += bytes;
        text += strspn(text, " ");
    }
    (void)fputc('\n', out);
}

static void help_row(const struct option_row *row, FILE *out)
{
    char left[64], right[512];

    (void)snprintf(
        left, sizeof left, "%s%c%s --%s%s%s", row->letter != '\0' ? "-" : " ",
        row->letter != '\0' ? row->letter : ' ', row->letter != '\0' ? "," : " ",
        row->name, row->argument != NULL ? " " : "",
        row->argument != NULL ? row->argument : "");
    (void)snprintf(
        right, sizeof right, "%s%s%s%s%s%s", row->help,
        row->choices != NULL ? ": " : "", row->choices != NULL ? row->choices : "",
        row->fallback != NULL ? " [" : "", row->fallback != NULL ? row->fallback : "",
        row->fallback != NULL ? "]" : "");
    (void)fprintf(out, "  %-*s ", LEFT_COLUMNS - 3, left);
    print_wrapped(right, LEFT_COLUMNS, out);
}

void options_help(enum option_command command, FILE *out)
{
    const struct option_command_row *about = options_commands;

    while (about->command != command)
        about++;
    (void)fprintf(out, "usage: %s\n\n%s\n", about->usage, about->summary);
    if (about->more != NULL)
        (void)fprintf(out, "\n%s\n", about->more);
    for (int group = 0; group < GROUPS; group++) {
        bool titled = false;

        for (unsigned i = 0; i < options_count; i++) {
            const struct option_row *row = &options_table[i];

            if ((row->commands & command) == 0 || row->hidden ||
                row->group != (enum option_group)group)
                continue;
            if (!titled)
                (void)fprintf(out, "\n%s\n", group_titles[group]);
            titled = true;
            help_row(row, out);
        }
    }
    (void)fprintf(out, "\nDefaults are in [brackets]. Each option can be set in the "
                       "environment: GAPLESS_OUT for --out,\nand so on; the command "
                       "line wins.\n");
}
