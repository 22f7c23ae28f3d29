/* The rules of the Muon family, in double. */
#include "tests/property/muon_cases.h"

extern const struct compute compute_cpu_generic; /* the double build has one */

int main(void)
{
    return muon_cases(&compute_cpu_generic);
}
