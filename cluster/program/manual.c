/* gapless help --man DIR: the man pages, one a command, written from the tables of commands and options when Gapless is
 * built. */
#include "cluster/options/options_table.h"
#include "cluster/program/manual.h"
#include "cluster/program/program.h"
#include "engine/base/file_out.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_COLUMNS 76 /* of the source: mandoc likes short lines */

/* Text of a paragraph: nothing in it is a request of roff, and a dash is one that can be
 * searched for. A line feed begins another paragraph. */
static void put_within(const char *text, size_t columns, FILE *out)
{
    size_t column = 0;

    for (; *text != '\0'; text++) {
        if (column == 0 && (*text == '.' || *text == '\''))
            (void)fputs("\\&", out);
        column++;
        if (*text == '-') {
            (void)fputs("\\-", out);
        } else if (*text == '\\') {
            (void)fputs("\\e", out);
        } else if (*text == '\n') {
            (void)fputs("\n.PP\n", out);
            column = 0;
        } else if (*text == ' ' && column + strcspn(text + 1, " \n") > columns) {
            (void)fputc('\n', out);
            column = 0;
        } else {
            (void)fputc(*text, out);
        }
    }
}

static void put(const char *text, FILE *out)
{
    put_within(text, LINE_COLUMNS, out);
}

/* "gapless-bench-rules" */
static void page_name(const char *command, char *ret, size_t max)
{
    (void)snprintf(ret, max, "gapless%s%s", command[0] != '\0' ? "-" : "", command);
    for (char *at = ret; *at != '\0'; at++)
        if (*at == ' ')
            *at = '-';
}

static void head(const char *name, const char *summary, FILE *out)
{
    (void)fprintf(out, ".\\\" Written by 'gapless help --man'.\n.TH \"");
    for (const char *at = name; *at != '\0'; at++)
        (void)fprintf(out, *at == '-' ? "\\-" : "%c", toupper((unsigned char)*at));
    (void)fprintf(out, "\" 1 \"\" \"gapless %s\" \"User Commands\"\n.SH NAME\n",
                  gapless_version());
    put(name, out);
    (void)fprintf(out, " \\- ");
    put(summary, out);
    (void)fprintf(out, "\n");
}

static void option(const struct option_row *row, FILE *out)
{
    char text[OPTIONS_TEXT_MAX], variable[64];

    (void)fprintf(out, ".TP\n");
    if (row->letter != '\0')
        (void)fprintf(out, "\\fB\\-%c\\fR, ", row->letter);
    (void)fprintf(out, "\\fB\\-\\-");
    put(row->name, out);
    (void)fprintf(out, "\\fR");
    if (row->argument != NULL)
        (void)fprintf(out, " \\fI%s\\fR", row->argument);
    (void)fprintf(out, "\n");
    options_text_of(row, text, sizeof text);
    put(text, out);
    if (row->letter != 'h') {
        options_variable(row, variable, sizeof variable);
        (void)fprintf(out, "\n(environment: %s)", variable);
    }
    (void)fprintf(out, "\n");
}

static void options_of(enum option_command command, FILE *out)
{
    (void)fprintf(out, ".SH OPTIONS\n");
    for (int group = 0; group < GROUPS; group++) {
        bool titled = false;

        for (unsigned i = 0; i < options_count; i++) {
            const struct option_row *row = &options_table[i];

            if ((row->commands & command) == 0 || row->hidden ||
                row->group != (enum option_group)group)
                continue;
            if (!titled)
                (void)fprintf(out, ".SS %s\n", options_group_titles[group]);
            titled = true;
            option(row, out);
        }
    }
}

static void example(const struct option_command_row *about, FILE *out)
{
    if (about->example == NULL)
        return;
    (void)fprintf(out, ".SH EXAMPLE\n.EX\n");
    put_within(about->example, SIZE_MAX, out); /* as it is typed */
    (void)fprintf(out, "\n.EE\n");
}

static void command_page(const struct option_command_row *about, FILE *out)
{
    static const char options[] = " [\\fIOPTION\\fR...]";
    char name[64];

    page_name(about->name, name, sizeof name);
    head(name, about->summary, out);
    (void)fprintf(out, ".SH SYNOPSIS\n\\fBgapless %s\\fR", about->name);
    if ((about->command & OPTIONS_FIRST) != 0)
        (void)fprintf(out, "%s", options);
    put(about->words, out);
    if (about->command != FOR_NOTHING && (about->command & OPTIONS_FIRST) == 0)
        (void)fprintf(out, "%s", options);
    (void)fputc('\n', out);
    if (about->more != NULL) {
        (void)fprintf(out, ".SH DESCRIPTION\n");
        put(about->more, out);
        (void)fputc('\n', out);
    }
    if (about->command != FOR_NOTHING)
        options_of(about->command, out);
    example(about, out);
    (void)fprintf(out, ".SH SEE ALSO\n.BR gapless (1)\n");
}

static void main_page(FILE *out)
{
    char name[64];

    head("gapless", "asynchronous distributed training of neural networks", out);
    (void)fprintf(out,
                  ".SH SYNOPSIS\n\\fBgapless\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR...]\n"
                  ".SH DESCRIPTION\nA master keeps the parameters; workers compute "
                  "gradients and never wait for "
                  "each other. Each command has a page of its own.\n.SH COMMANDS\n");
    for (unsigned i = 0; i < options_commands_count; i++) {
        (void)fprintf(out, ".TP\n\\fB%s\\fR\n", options_commands[i].name);
        put(options_commands[i].summary, out);
        (void)fprintf(out, "\n");
    }
    (void)fprintf(out, ".SH ENVIRONMENT\nEach option can be set in the environment: "
                       "GAPLESS_OUT for \\-\\-out, "
                       "GAPLESS_DATA_DIR for \\-\\-data\\-dir, and so on; the command "
                       "line wins. Beside them:\n");
    for (unsigned i = 0; i < options_variables_count; i++) {
        if (options_variables[i].help == NULL)
            continue;
        (void)fprintf(out, ".TP\n\\fB%s\\fR\n", options_variables[i].name);
        put(options_variables[i].help, out);
        (void)fprintf(out, "\n");
    }
    (void)fprintf(out, ".SH EXAMPLE\n.EX\ngapless train\n.EE\n.SH SEE ALSO\n");
    for (unsigned i = 0; i < options_commands_count; i++) {
        page_name(options_commands[i].name, name, sizeof name);
        (void)fprintf(out, ".BR ");
        put(name, out);
        (void)fprintf(out, " (1)%s\n", i + 1 < options_commands_count ? "," : "");
    }
}

/* `about` NULL: the page of the program. */
static int page(const char *folder, const struct option_command_row *about,
                struct gapless_error *error)
{
    char name[64], path[4096], *text = NULL;
    size_t bytes = 0;
    FILE *out;
    int status;

    page_name(about != NULL ? about->name : "", name, sizeof name);
    if ((size_t)snprintf(path, sizeof path, "%s/%s.1", folder, name) >= sizeof path)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the name of the folder %.60s... is too long", folder);
    out = open_memstream(&text, &bytes);
    if (out != NULL && about != NULL)
        command_page(about, out);
    else if (out != NULL)
        main_page(out);
    if (out == NULL || fclose(out) != 0)
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a page");
    else
        status = file_out_whole(path, text, bytes, error);
    free(text);
    return status;
}

bool manual_write(const char *folder)
{
    struct gapless_error error = {0};
    int status = page(folder, NULL, &error);

    for (unsigned i = 0; status == GAPLESS_OK && i < options_commands_count; i++)
        status = page(folder, &options_commands[i], &error);
    if (status != GAPLESS_OK)
        report_failure("help", "%s; name a folder that is there", error.text);
    return status == GAPLESS_OK;
}
