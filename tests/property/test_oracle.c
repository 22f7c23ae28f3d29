/* Every rule in float, on the best instruction set of this machine (test_isa.c: the
 * others have the same bits), against the scalar double-precision master. */
#include "tests/property/oracle_cases.h"

int main(void)
{
    return oracle_cases(compute_cpu());
}
