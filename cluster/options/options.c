/* Reads options: defaults, then the environment, then the command line, all through
 * option_set. */
#include "cluster/options/options_table.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Commands that take words without a dash. */
#define TAKES_OPERANDS                                                                 \
    (FOR_STUDY | FOR_REPORT | FOR_EVALUATE | FOR_RUN | FOR_INSPECT | FOR_EXPORT)

/* "gapless train: --workers must be ..." and, for a rule, where they are listed. */
static void mistake(enum option_command command, const struct option_row *row,
                    enum option_source source, const char *variable,
                    const struct parse_error *reason)
{
    (void)fprintf(stderr, "gapless %s: %s%s %s\n", options_command_name(command),
                  source == OPTION_ENVIRONMENT ? variable : "--",
                  source == OPTION_ENVIRONMENT ? "" : row->name, reason->text);
    if (row->kind == KIND_RULE || row->kind == KIND_RULES)
        (void)fprintf(stderr, "'gapless rules' lists them.\n");
}

static bool option_set(enum option_command command, unsigned index, const char *text,
                       enum option_source source, const char *variable,
                       struct settings *ret)
{
    const struct option_row *row = &options_table[index];
    struct parse_error reason;

    /* A list of the command line is not added to one of the environment. */
    if (row->kind == KIND_FILES && ret->source[index] != source)
        memset((char *)ret + row->offset, 0, sizeof(struct files));
    if (!options_value_set(row, text, ret, &reason)) {
        mistake(command, row, source, variable, &reason);
        return false;
    }
    ret->text[index] = text;
    ret->source[index] = source;
    return true;
}

/* ---- the three sources --------------------------------------------------- */

static bool read_defaults(enum option_command command, struct settings *ret)
{
    for (unsigned i = 0; i < options_count; i++) {
        const struct option_row *row = &options_table[i];

        if ((row->commands & command) != 0 && row->fallback != NULL &&
            !option_set(command, i, row->fallback, OPTION_DEFAULT, "", ret))
            return false;
    }
    return true;
}

static bool read_environment(enum option_command command, struct settings *ret)
{
    for (unsigned i = 0; i < options_count; i++) {
        const struct option_row *row = &options_table[i];
        char variable[64];
        const char *text;

        if ((row->commands & command) == 0 || !options_from_environment(row))
            continue;
        options_variable(row, variable, sizeof variable);
        text = getenv(variable);
        /* GAPLESS_DATA may also be the folder of the data sets
         * (cluster/workloads/data.h). */
        if (text != NULL && strcmp(row->name, "data") == 0 && strchr(text, '/') != NULL)
            continue;
        if (text != NULL && text[0] != '\0' &&
            !option_set(command, i, text, OPTION_ENVIRONMENT, variable, ret))
            return false;
    }
    return true;
}

struct command_options {
    enum option_command command;
};

static const char *option_name_at(const void *context, unsigned index)
{
    const struct command_options *of = context;

    for (unsigned i = 0; i < options_count; i++) {
        const struct option_row *row = &options_table[i];

        if ((row->commands & of->command) != 0 && !row->hidden && index-- == 0)
            return row->name;
    }
    return NULL;
}

/* Names that begin so: what a shortened option may have meant. */
static unsigned begins(const struct command_options *of, const char *bare, FILE *out)
{
    const char *name;
    unsigned ret = 0;

    for (unsigned i = 0; (name = option_name_at(of, i)) != NULL; i++) {
        if (strncmp(name, bare, strlen(bare)) != 0)
            continue;
        if (out != NULL)
            (void)fprintf(out, "%s--%s", ret > 0 ? ", " : "", name);
        ret++;
    }
    return ret;
}

static void unknown_option(enum option_command command, const char *text)
{
    struct command_options of = {command};
    const char *near = NULL;
    char bare[64] = "";

    if (strncmp(text, "--", 2) == 0) {
        (void)snprintf(bare, sizeof bare, "%.*s", (int)strcspn(text + 2, "="),
                       text + 2);
        near = parse_nearest(bare, option_name_at, &of);
    }
    (void)fprintf(stderr, "gapless %s: ", options_command_name(command));
    if (bare[0] != '\0' && begins(&of, bare, NULL) > 1) {
        (void)fprintf(stderr, "'%s' is ambiguous: ", text);
        (void)begins(&of, bare, stderr);
        near = NULL;
    } else {
        (void)fprintf(stderr, "there is no option '%s'", text);
    }
    if (near != NULL)
        (void)fprintf(stderr, "; did you mean --%s?", near);
    (void)fprintf(stderr, "\n'gapless %s --help' lists the options.\n",
                  options_command_name(command));
}

/* What getopt_long wants of the rows of one command; val is the row's index + 256. */
static void getopt_tables(enum option_command command, struct option *ret_long,
                          char *ret_short)
{
    unsigned used = 0;

    if ((command & OPTIONS_FIRST) != 0)
        *ret_short++ = '+';
    *ret_short++ = ':';
    for (unsigned i = 0; i < options_count; i++) {
        const struct option_row *row = &options_table[i];
        bool takes = row->kind != KIND_FLAG;

        if ((row->commands & command) == 0)
            continue;
        ret_long[used++] = (struct option){
            row->name, takes ? required_argument : no_argument, NULL, (int)(256 + i)};
        if (row->letter != '\0')
            *ret_short++ = row->letter;
        if (row->letter != '\0' && takes)
            *ret_short++ = ':';
    }
    ret_long[used] = (struct option){0};
    *ret_short = '\0';
}

static unsigned row_of_letter(enum option_command command, int letter)
{
    for (unsigned i = 0; i < options_count; i++)
        if ((options_table[i].commands & command) != 0 &&
            options_table[i].letter == letter)
            return i;
    return 0; /* not reached: getopt knows these letters from the table */
}

static bool read_flags(enum option_command command, int argc, char **argv,
                       struct settings *ret)
{
    struct option longs[OPTIONS_MAX + 1];
    char shorts[2 * OPTIONS_MAX + 3];
    int got;

    getopt_tables(command, longs, shorts);
    opterr = 0;
    optind = 0; /* glibc: start afresh */
    while ((got = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        char letter[3] = {'-', (char)optopt, '\0'};
        unsigned row;

        if (got == ':') {
            (void)fprintf(stderr, "gapless %s: %s needs a value\n",
                          options_command_name(command), argv[optind - 1]);
            return false;
        }
        if (got == '?') {
            unknown_option(command,
                           optopt > 0 && optopt < 256 ? letter : argv[optind - 1]);
            return false;
        }
        row = got >= 256 ? (unsigned)got - 256 : row_of_letter(command, got);
        if (!option_set(command, row, optarg != NULL ? optarg : "1", OPTION_FLAG, "",
                        ret))
            return false;
    }
    if (optind < argc && (command & TAKES_OPERANDS) == 0) {
        (void)fprintf(stderr,
                      "gapless %s: '%s' is not an option; values go behind options, "
                      "as in --workers 4\n",
                      options_command_name(command), argv[optind]);
        return false;
    }
    ret->operand = argv + optind;
    ret->operands = argc - optind;
    return true;
}

/* What no single option can know. */
static bool consistent(enum option_command command, struct settings *ret)
{
    if ((command & (FOR_TRAIN | FOR_MASTER | FOR_SIMULATE | FOR_RUN)) == 0)
        return true;
    if (ret->workers_max != 0 && ret->workers > ret->workers_max) {
        (void)fprintf(stderr,
                      "gapless %s: --%s %u is more than the capacity, "
                      "--workers-max %u\n",
                      options_command_name(command),
                      command == FOR_RUN ? "ranks" : "workers", ret->workers,
                      ret->workers_max);
        return false;
    }
    if (command == FOR_SIMULATE)
        return true; /* who joins is in --events */
    if (ret->workers_max == 0)
        ret->workers_max = ret->workers + 8 < GAPLESS_WORKERS_MAX ? ret->workers + 8
                                                                  : GAPLESS_WORKERS_MAX;
    if (ret->workers_wait > ret->workers_max) {
        (void)fprintf(stderr,
                      "gapless %s: --workers-wait %u is more than the capacity, "
                      "--workers-max %u\n",
                      options_command_name(command), ret->workers_wait,
                      ret->workers_max);
        return false;
    }
    return true;
}

/* ---- public -------------------------------------------------------------- */

void options_defaults(enum option_command command, struct settings *ret)
{
    *ret = (struct settings){.data_fd = -1};
    (void)read_defaults(command, ret); /* the table's own values are valid */
}

bool options_set(enum option_command command, const char *name, const char *text,
                 struct settings *ret, struct parse_error *reason)
{
    struct command_options of = {command};
    const char *near;

    for (unsigned i = 0; i < options_count; i++) {
        if ((options_table[i].commands & command) == 0 ||
            strcmp(options_table[i].name, name) != 0)
            continue;
        if (!options_value_set(&options_table[i], text, ret, reason))
            return false;
        ret->text[i] = text;
        ret->source[i] = OPTION_FLAG;
        return true;
    }
    near = parse_nearest(name, option_name_at, &of);
    (void)snprintf(reason->text, sizeof reason->text,
                   "is no option of gapless %s%s%s%s", options_command_name(command),
                   near != NULL ? "; did you mean " : "", near != NULL ? near : "",
                   near != NULL ? "?" : "");
    return false;
}

static void help(enum option_command command, bool all)
{
    if (all)
        options_help(command, stdout);
    else
        options_basics(command, stdout);
}

/* How many of the arguments are this program's. */
static int own_arguments(enum option_command command, int argc, char **argv)
{
    struct option longs[OPTIONS_MAX + 1];
    char shorts[2 * OPTIONS_MAX + 3];

    if ((command & OPTIONS_FIRST) == 0)
        return argc;
    getopt_tables(command, longs, shorts);
    opterr = 0;
    optind = 0;
    while (getopt_long(argc, argv, shorts, longs, NULL) != -1)
        ;
    return optind;
}

enum options_outcome options_read(enum option_command command, int argc, char **argv,
                                  struct settings *ret)
{
    struct settings found = {.data_fd = -1};

    const int own = own_arguments(command, argc, argv);

    for (int i = 1; i < own && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            help(command, argv[i][1] == '-'); /* also where the environment is wrong */
            return OPTIONS_HELPED;
        }
    if ((command & OPTIONS_FIRST) == 0) /* which may read what it likes */
        options_warn_unknown(command);
    if (!read_defaults(command, &found) || !read_environment(command, &found) ||
        !read_flags(command, argc, argv, &found) || !consistent(command, &found) ||
        !options_network(command, &found))
        return OPTIONS_WRONG;
    options_derive(command, &found);
    if (found.help) { /* --hel, or -qh */
        help(command, true);
        return OPTIONS_HELPED;
    }
    *ret = found;
    if (found.address == found.address_text)
        ret->address = ret->address_text;
    return OPTIONS_GO;
}
