/* gapless plan: what a master can do for this many workers, by arithmetic, and which of
 * its terms were measured. */
#include "cluster/plan/plan.h"
#include "cluster/program/program.h"

#include <stdio.h>

int cmd_plan(int argc, char **argv)
{
    static struct plan_options options; /* tables of speeds: too large for a stack */
    struct settings settings;

    switch (options_read(FOR_PLAN, argc, argv, &settings)) {
    case OPTIONS_HELPED:
        return EXIT_DONE;
    case OPTIONS_WRONG:
        return EXIT_MISUSE;
    case OPTIONS_GO:
        break;
    }
    if (!plan_options_of(&settings, &options))
        return EXIT_MISUSE;
    if (options.json) {
        if (!plan_json(&options)) {
            report_failure("plan", "no memory");
            return EXIT_FAILED;
        }
    } else if (options.rule_all) {
        plan_show_rules(&options);
    } else if (options.parameters > 0) {
        plan_show_one(&options);
    } else {
        plan_show_table(&options);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        report_failure("plan", "cannot write");
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
