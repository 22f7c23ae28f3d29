/* The options of a command, and its exit code where there is nothing left to do. */
#ifndef CLUSTER_PROGRAM_OPTIONS_H
#define CLUSTER_PROGRAM_OPTIONS_H

#include "cluster/options/options.h"
#include "cluster/program/program.h"

#include <stdbool.h>

/* Reads the options of a command, as options_read does. False: there is nothing left to
 * do, the help or a mistake was printed; *ret_code is the exit code. */
bool program_options(enum option_command command, int argc, char **argv,
                     struct settings *ret, int *ret_code);

#endif
