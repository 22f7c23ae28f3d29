/* Every slot that a rule reads, in double. */
#include "tests/property/slots_cases.h"

extern const struct compute compute_cpu_generic; /* the double build has one */

int main(void)
{
    return slots_cases(&compute_cpu_generic);
}
