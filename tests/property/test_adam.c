/* The rules of the Adam family, in float. */
#include "tests/property/adam_cases.h"

int main(void)
{
    return adam_cases(compute_cpu());
}
