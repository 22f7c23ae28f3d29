/* ctest: source=tests/conformance/side.c
 * ctest: source=tests/conformance/test_transport_peers.c
 * What every transport has to do, by verbs over the fake's RoCE. */
#define CONFORM_AT "10.1.1.1"
#include "tests/verbs/conform.h"
