/* Every rule, compiled for double, against the scalar double-precision master: that the
 * formulas are those of the decisions, to rounding. */
#include "tests/property/oracle_cases.h"

extern const struct compute compute_cpu_generic; /* the double build has one */

int main(void)
{
    return oracle_cases(&compute_cpu_generic);
}
