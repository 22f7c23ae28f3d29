/* Private to the options: what a row of the table says. */
#ifndef CLUSTER_OPTIONS_TABLE_H
#define CLUSTER_OPTIONS_TABLE_H

#include "cluster/options/options.h"

enum option_kind {
    KIND_FLAG,     /* bool; takes no value on the command line */
    KIND_TEXT,     /* const char * */
    KIND_COUNT32,  /* uint32_t in low..high */
    KIND_COUNT64,  /* uint64_t in low..high */
    KIND_INT,      /* int in low..high */
    KIND_REAL,     /* double within the bounds */
    KIND_SPAN,     /* struct span */
    KIND_STEPS,    /* struct milestones */
    KIND_SCHEDULE, /* constant, cosine, cosine:TO */
    KIND_RULE,     /* const char *, a rule of the engine */
    KIND_CHOICE,   /* const char *, one of `choices` */
    KIND_ADDRESS   /* const char *, a transport and a name; without one, see
                      options_network */
};

enum option_group {
    GROUP_TASK,
    GROUP_RULE,
    GROUP_RUN,
    GROUP_NETWORK,
    GROUP_GPU,
    GROUP_SIMULATION,
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
    const char *choices;       /* "a, b, c" */
    const char *help;
};

extern const struct option_row options_table[];
extern const unsigned options_count;

/* GAPLESS_WORKERS_MAX for workers-max. */
void options_variable(const struct option_row *row, char *ret, size_t max);

/* One command's place in the help: "gapless train: ..." */
struct option_command_row {
    enum option_command command;
    const char *name, *summary, *usage, *more;
};
extern const struct option_command_row options_commands[];
extern const unsigned options_commands_count;

/* Settles what --transport, --listen, --address and --master mean together: the address
 * gets its transport, and --reconnect its default. False: the mistake was printed to
 * stderr. */
bool options_network(enum option_command command, struct settings *ret);

#endif
