/* Equivalences between rules, in float. */
#include "equivalence_cases.h"

int main(void)
{
    return equivalence_cases(compute_cpu());
}
