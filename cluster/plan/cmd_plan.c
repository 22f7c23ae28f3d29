/* gapless plan: what a master can do for so many workers, by arithmetic, and which of
 * its terms were measured. */
#include "cluster/plan/plan.h"
#include "cluster/program/program.h"

#include <stdio.h>

int cmd_plan(int argc, char **argv)
{
    static struct plan_options options; /* tables of speeds: too large for a stack */

    switch (plan_options_read(argc, argv, &options)) {
    case PLAN_HELPED:
        return EXIT_DONE;
    case PLAN_WRONG:
        return EXIT_MISUSE;
    case PLAN_GO:
        break;
    }
    if (options.rule_all && options.parameters == 0 && !options.json) {
        report_failure("plan", "--rule all needs --parameters or --model (or --json)");
        return EXIT_MISUSE;
    }
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
