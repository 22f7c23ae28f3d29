/* What the options of a command mean for its exit code. */
#include "cluster/program/program_options.h"

bool program_options(enum option_command command, int argc, char **argv,
                     struct settings *ret, int *ret_code)
{
    enum options_outcome outcome = options_read(command, argc, argv, ret);

    *ret_code = outcome == OPTIONS_WRONG ? EXIT_MISUSE : EXIT_DONE;
    if (outcome == OPTIONS_HELPED && !program_printed(options_command_name(command)))
        *ret_code = EXIT_FAILED;
    return outcome == OPTIONS_GO;
}
