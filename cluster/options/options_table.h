/* Private to the options: what a row of the table says. */
#ifndef CLUSTER_OPTIONS_TABLE_H
#define CLUSTER_OPTIONS_TABLE_H

#include "cluster/options/options.h"
#include "engine/base/text_page.h"

enum option_kind {
    KIND_FLAG,       /* bool; takes no value on the command line */
    KIND_TEXT,       /* const char * */
    KIND_COUNT32,    /* uint32_t in low..high */
    KIND_COUNT64,    /* uint64_t in low..high */
    KIND_INT,        /* int in low..high */
    KIND_REAL,       /* double within the bounds; 0 for the word in `choices` */
    KIND_SPAN,       /* struct span */
    KIND_STEPS,      /* struct milestones */
    KIND_SCHEDULE,   /* constant, cosine, cosine:TO */
    KIND_RULE,       /* const char *, a rule of the engine, or one of `choices` */
    KIND_RULES,      /* uint64_t: bit i, row i of the engine's table; or "all" */
    KIND_CHOICE,     /* const char *, one of `choices` */
    KIND_CHOICES,    /* uint64_t: bit i, choices[i]; or "all" */
    KIND_COUNTS,     /* struct counts, each in low..high; 4k is 4000 */
    KIND_SIZES,      /* struct counts of bytes, each in low..high; 4K is 4096 */
    KIND_FILES,      /* struct files; may be given again */
    KIND_PARAMETERS, /* uint64_t: 25.6M */
    KIND_LINK,       /* double, bytes a second: 400Gb; shm: 0; measured: -1 */
    KIND_BYTES,      /* double: 80GB */
    KIND_TIME,       /* double, seconds, within the bounds: 120ms; 0.12 */
    KIND_ADDRESS     /* const char *, a transport and a name; without one, see
                      options_network */
};

enum option_group {
    GROUP_TASK,
    GROUP_RULE,
    GROUP_RUN,
    GROUP_NETWORK,
    GROUP_GPU,
    GROUP_SIMULATION,
    GROUP_PLAN,
    GROUP_BENCH,
    GROUP_OUTPUT,
    GROUPS
};

struct option_row {
    const char *name;  /* without the dashes */
    char letter;       /* '\0': none */
    bool hidden;       /* not in the help */
    unsigned commands; /* enum option_command, or'ed */
    enum option_kind kind;
    enum option_group group;
    const char *argument;      /* how the value is called in the help */
    const char *fallback;      /* default; NULL: none */
    size_t offset;             /* in struct settings */
    struct real_bounds bounds; /* counts use low and high */
    /* Words that a value may be, ending with NULL; of a KIND_TEXT, those that the shell
     * completes. NULL: none. */
    const char *const *choices;
    const char *help;
};

/* Commands whose first word without a dash ends their options: what follows is another
 * program's. */
#define OPTIONS_FIRST FOR_RUN

extern const struct option_row options_table[];
extern const unsigned options_count;
extern const char *const options_group_titles[GROUPS];

/* GAPLESS_WORKERS_MAX for workers-max. */
void options_variable(const struct option_row *row, char *ret, size_t max);
/* Whether an option can be set so. */
bool options_from_environment(const struct option_row *row);
/* Warns of variables GAPLESS_... that nothing reads, and takes them out of the
 * environment: once for this process and those that it starts. */
void options_warn_unknown(enum option_command command);
/* The rules and choices that are values of an option; NULL past the end. `row` is a
 * struct option_row (as parse_nearest wants it). */
const char *options_value_at(const void *row, unsigned index);
/* Reads a value into its place of *ret; one of KIND_FILES is added to those there. */
bool options_value_set(const struct option_row *row, const char *text,
                       struct settings *ret, struct parse_error *reason);
/* What the help and the man page say of an option: with its choices and its default. */
#define OPTIONS_TEXT_MAX 600
void options_text_of(const struct option_row *row, char *ret, size_t max);

/* Variables of the environment that are no options. */
struct option_variable {
    const char *name;
    bool prefix;      /* of names: any that begin so */
    const char *help; /* NULL: for builds and tests, not in the man page */
};
extern const struct option_variable options_variables[];
extern const unsigned options_variables_count;

/* A command; see cluster/program/commands.c. */
struct option_command_row {
    enum option_command command; /* FOR_NOTHING: it has no options */
    const char *name;            /* "train", "bench rules" */
    const char *summary;
    const char *words;  /* what follows the name in the usage, with a blank before it */
    const char *more;   /* paragraphs, a line each; NULL: nothing */
    const char *basics; /* the options that -h shows, at most ten */
    const char *example;               /* a command line; NULL: none */
    int (*run)(int argc, char **argv); /* gets argv from the last word of its name on */
};
extern const struct option_command_row options_commands[];
extern const unsigned options_commands_count;
/* Row of a command, NULL: there is none. */
const struct option_command_row *options_command(enum option_command command);
/* All about a command; also of one without options. */
void options_help_of(const struct option_command_row *about, FILE *out);

/* Resolves what --transport, --listen, --address and --master mean together: the address
 * gets its transport, and --reconnect its default. False: the mistake was printed to
 * stderr. */
bool options_network(enum option_command command, struct settings *ret);

#endif
