/* For programs that are the tests of tests/conformance over the fake network: the
 * including file says where (CONFORM_AT). Work is done by a thread, and completions
 * outlive their queue pairs: both as with rxe. */
#ifndef GAPLESS_TESTS_VERBS_CONFORM_H
#define GAPLESS_TESTS_VERBS_CONFORM_H

#include "tests/verbs/fake.h"

#include <stdlib.h>

__attribute__((constructor)) static void conform(void)
{
    fake_begin();
    fake_rules.stale = true;
    fake_pace(FAKE_BY_THREAD);
    (void)setenv("GAPLESS_TEST_VERBS", CONFORM_AT, 1);
}

#endif
