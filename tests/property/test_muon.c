/* The rules of the Muon family, in float. */
#include "tests/property/muon_cases.h"

int main(void)
{
    return muon_cases(compute_cpu());
}
