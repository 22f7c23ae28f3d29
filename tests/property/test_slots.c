/* Every slot that a rule reads, in float, on every instruction set of this machine. */
#include "tests/property/slots_cases.h"

int main(void)
{
    int failed = 0;

    for (int i = 0; compute_cpu_all()[i]; i++)
        failed += slots_cases(compute_cpu_all()[i]);
    return failed;
}
