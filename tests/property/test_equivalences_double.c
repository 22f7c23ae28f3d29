/* Equivalences between rules, in double. */
#include "tests/property/equivalence_cases.h"

extern const struct compute compute_cpu_generic; /* the double build has one */

int main(void)
{
    return equivalence_cases(&compute_cpu_generic);
}
