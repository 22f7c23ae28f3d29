/* What a command takes, for people: all of it (--help), or what a beginner needs (-h).
 * Two columns, the right one wrapped. */
#include "cluster/options/options_table.h"

#include <string.h>

#define LEFT_COLUMNS 33 /* where what an option means begins */
#define PAGE_COLUMNS 96

const char *const options_group_titles[GROUPS] = {
    "What is trained", "How it moves", "The run",         "The network", "GPUs",
    "The simulation",  "The plan",     "The measurement", "Output"};

const struct option_command_row *options_command(enum option_command command)
{
    for (unsigned i = 0; i < options_commands_count; i++)
        if (options_commands[i].command == command)
            return &options_commands[i];
    return NULL;
}

const char *options_command_name(enum option_command command)
{
    const struct option_command_row *row = options_command(command);

    return row != NULL ? row->name : "";
}

/* Prints words from `column` on; where a line is full, or ends, goes on at `start`. */
static void print_wrapped(const char *text, size_t column, size_t start, FILE *out)
{
    bool first = true;

    while (*text != '\0') {
        size_t bytes = strcspn(text, " \n");

        if (!first && column + 1 + bytes > PAGE_COLUMNS) {
            (void)fprintf(out, "\n%*s", (int)start, "");
            column = start;
        } else if (!first) {
            (void)fputc(' ', out);
            column++;
        }
        (void)fwrite(text, 1, bytes, out);
        column += bytes;
        text += bytes;
        first = *text == '\n';
        if (first) {
            (void)fprintf(out, "\n%*s", (int)start, "");
            column = start;
        }
        text += strspn(text, " \n");
    }
    (void)fputc('\n', out);
}

void options_text_of(const struct option_row *row, char *ret, size_t max)
{
    struct text_page page = text_page(ret, max);
    bool listed = row->kind == KIND_CHOICE || row->kind == KIND_CHOICES;

    text_add(&page, "%s", row->help);
    for (unsigned i = 0; listed && row->choices[i] != NULL; i++)
        text_add(&page, "%s%s", i == 0 ? ": " : ", ", row->choices[i]);
    if (row->fallback != NULL)
        text_add(&page, " [%s]", row->fallback);
}

static void print_option(const struct option_row *row, FILE *out)
{
    char left[64], right[OPTIONS_TEXT_MAX];
    bool letter = row->letter != '\0';

    (void)snprintf(left, sizeof left, "%s%c%s --%s%s%s", letter ? "-" : " ",
                   letter ? row->letter : ' ', letter ? "," : " ", row->name,
                   row->argument != NULL ? " " : "",
                   row->argument != NULL ? row->argument : "");
    options_text_of(row, right, sizeof right);
    (void)fprintf(out, "  %-*s ", LEFT_COLUMNS - 3, left);
    print_wrapped(right, LEFT_COLUMNS, LEFT_COLUMNS, out);
}

static bool shown(const struct option_row *row, enum option_command command)
{
    return (row->commands & command) != 0 && !row->hidden;
}

static void print_head(const struct option_command_row *about, FILE *out)
{
    bool first = (about->command & OPTIONS_FIRST) != 0;
    const char *options = about->command != FOR_NOTHING ? " [OPTION...]" : "";

    (void)fprintf(out, "usage: gapless %s%s%s\n\n%s\n", about->name,
                  first ? options : about->words, first ? about->words : options,
                  about->summary);
}

/* Commands whose names begin with this one's: the benchmarks of "bench". */
static void print_below(const struct option_command_row *about, FILE *out)
{
    size_t bytes = strlen(about->name);
    bool any = false;

    for (unsigned i = 0; i < options_commands_count; i++) {
        const struct option_command_row *row = &options_commands[i];

        if (strncmp(row->name, about->name, bytes) != 0 || row->name[bytes] != ' ')
            continue;
        (void)fprintf(out, "%s  %-17s %s\n", any ? "" : "\n", row->name, row->summary);
        any = true;
    }
}

void options_help_of(const struct option_command_row *about, FILE *out)
{
    print_head(about, out);
    if (about->more != NULL) {
        (void)fputc('\n', out);
        print_wrapped(about->more, 0, 0, out);
    }
    print_below(about, out);
    for (int group = 0; group < GROUPS; group++) {
        bool titled = false;

        for (unsigned i = 0; i < options_count; i++) {
            const struct option_row *row = &options_table[i];

            if (!shown(row, about->command) || row->group != (enum option_group)group)
                continue;
            if (!titled)
                (void)fprintf(out, "\n%s\n", options_group_titles[group]);
            titled = true;
            print_option(row, out);
        }
    }
    if (about->command != FOR_NOTHING)
        (void)fprintf(out,
                      "\nDefaults are in [brackets]. Each option can be set in the "
                      "environment: GAPLESS_OUT for --out,\nand so on; the command "
                      "line wins.\n");
    if (about->example != NULL)
        (void)fprintf(out, "\nexample: %s\n", about->example);
}

void options_help(enum option_command command, FILE *out)
{
    options_help_of(options_command(command), out);
}

void options_basics(enum option_command command, FILE *out)
{
    const struct option_command_row *about = options_command(command);
    unsigned all = 0;

    print_head(about, out);
    print_below(about, out);
    if (about->basics[0] != '\0')
        (void)fputc('\n', out);
    for (const char *at = about->basics; *at != '\0'; at += strspn(at, " ")) {
        size_t bytes = strcspn(at, " ");

        for (unsigned i = 0; i < options_count; i++)
            if (shown(&options_table[i], command) &&
                strncmp(options_table[i].name, at, bytes) == 0 &&
                options_table[i].name[bytes] == '\0')
                print_option(&options_table[i], out);
        at += bytes;
    }
    for (unsigned i = 0; i < options_count; i++)
        all += shown(&options_table[i], command);
    (void)fprintf(out, "\nexample: %s\n", about->example);
    (void)fprintf(out, "'gapless %s --help' says more", about->name);
    (void)fprintf(out, all > 1 ? ", and lists all %u options.\n" : ".\n", all);
}
