/* Equivalences between rules, in float. */
#include "tests/property/equivalence_cases.h"

int main(void)
{
    return equivalence_cases(compute_cpu());
}
