/* The rules of the Adam family, in double. */
#include "tests/property/adam_cases.h"

extern const struct compute compute_cpu_generic; /* the double build has one */

int main(void)
{
    return adam_cases(&compute_cpu_generic);
}
