/* The environment: the name of an option's variable, those that are no options, and a
 * warning of one that nothing reads. */
#include "cluster/options/options_table.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "GAPLESS_"

const struct option_variable options_variables[] = {
    {"GAPLESS_DATA", false,
     "a folder with data sets, if there is a / in it; else as --data"},
    {"GAPLESS_ISA", false,
     "generic, avx2 or avx512: the instruction set of the passes over memory"},
    {"GAPLESS_CUDA_PLUGIN", false,
     "the file of the CUDA plugin, if not beside Gapless"},
    {"GAPLESS_NCCL", false, "the file of NCCL, libnccl.so.2"},
    {"GAPLESS_CUBLAS", false, "the file of cuBLAS, libcublas.so"},
    {"GAPLESS_GROUP_TIMEOUT", false,
     "seconds after which a GPU that does not keep up ends its group (60)"},
    {"GAPLESS_RUN_DIR", false,
     "set by gapless run for its ranks: the folder of the run"},
    {"GAPLESS_OFFER", false,
     "set by gapless run for its ranks: the file that the model is offered in"},
    {"GAPLESS_LIBRARY", false, "the file of the library, for the Python package"},
    {"GAPLESS_FAULT", false, "makes a worker misbehave, for tests: see gapless-worker"},
    {"GAPLESS_BLAS_CORE", true, NULL}, /* of this program, for itself */
    {"GAPLESS_LAB", true, NULL},
    {"GAPLESS_TEST", true, NULL},
    {"GAPLESS_PROGRAM", false, NULL},
    {"GAPLESS_BIN", false, NULL},
    {"GAPLESS_TRIAL", false, NULL},
    {"GAPLESS_SOURCE_DIR", false, NULL},
    {"GAPLESS_BUILD_DIR", false, NULL},
    {"GAPLESS_CUDA", true, NULL}, /* also GAPLESS_CUDA_FAKE, _ARCHITECTURES */
    {"GAPLESS_SANITIZE", false, NULL},
    {"GAPLESS_WERROR", false, NULL},
    {"GAPLESS_TESTS", false, NULL},
    {"GAPLESS_VERBS", false, NULL},
    {"GAPLESS_CHARTJS", false, NULL},
};
const unsigned options_variables_count =
    sizeof options_variables / sizeof options_variables[0];

void options_variable(const struct option_row *row, char *ret, size_t max)
{
    size_t used = (size_t)snprintf(ret, max, PREFIX "%s", row->name);

    for (size_t i = strlen(PREFIX); i < used && i < max; i++) {
        if (ret[i] == '-')
            ret[i] = '_';
        else if (ret[i] >= 'a' && ret[i] <= 'z')
            ret[i] = (char)(ret[i] - 'a' + 'A');
    }
}

bool options_from_environment(const struct option_row *row)
{
    return !row->hidden && row->letter != 'h';
}

/* The names that mean something: of the options, then of options_variables. */
#define NAME_MAX_BYTES 64
struct names {
    char option[OPTIONS_MAX][NAME_MAX_BYTES];
    unsigned count;
};

static void names_of_options(struct names *ret)
{
    ret->count = 0;
    for (unsigned i = 0; i < options_count; i++)
        if (options_from_environment(&options_table[i]))
            options_variable(&options_table[i], ret->option[ret->count++],
                             NAME_MAX_BYTES);
}

/* For parse_nearest: what stands behind GAPLESS_, which all have in common. */
static const char *name_at(const void *context, unsigned index)
{
    const struct names *names = context;

    if (index < names->count)
        return names->option[index] + strlen(PREFIX);
    index -= names->count;
    for (unsigned i = 0; i < options_variables_count; i++)
        if (options_variables[i].help != NULL && index-- == 0)
            return options_variables[i].name + strlen(PREFIX);
    return NULL;
}

static bool known(const struct names *names, const char *name)
{
    for (unsigned i = 0; i < names->count; i++)
        if (strcmp(names->option[i], name) == 0)
            return true;
    for (unsigned i = 0; i < options_variables_count; i++) {
        const struct option_variable *variable = &options_variables[i];
        size_t bytes = strlen(variable->name);

        if (strncmp(variable->name, name, bytes) == 0 &&
            (variable->prefix || name[bytes] == '\0'))
            return true;
    }
    return false;
}

/* The first variable that nothing reads. False: there is none. */
static bool unknown(const struct names *names, char ret[NAME_MAX_BYTES])
{
    for (char **at = environ; at != NULL && *at != NULL; at++) {
        if (strncmp(*at, PREFIX, strlen(PREFIX)) != 0)
            continue;
        (void)snprintf(ret, NAME_MAX_BYTES, "%.*s", (int)strcspn(*at, "="), *at);
        if (strlen(ret) + 1 < NAME_MAX_BYTES && !known(names, ret))
            return true;
    }
    return false;
}

void options_warn_unknown(enum option_command command)
{
    static struct names names;
    char name[NAME_MAX_BYTES];

    names_of_options(&names);
    while (unknown(&names, name)) {
        const char *near = parse_nearest(name + strlen(PREFIX), name_at, &names);

        (void)fprintf(stderr,
                      "gapless %s: warning: nothing reads %s in the environment",
                      options_command_name(command), name);
        if (near != NULL)
            (void)fprintf(stderr, "; did you mean " PREFIX "%s?", near);
        (void)fprintf(stderr, "\n");
        /* The processes that this one starts have nothing to say about it. */
        if (unsetenv(name) != 0)
            return;
    }
}
