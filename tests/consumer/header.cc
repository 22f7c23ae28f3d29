// The public header means the same to C++.
#include <gapless/gapless.h>

#include <cstdio>

int main()
{
    gapless_error error = {};
    gapless_rule rule;
    gapless_master_config config = {};

    config.gap_ref = GAPLESS_GAP_OWN_LOOKAHEAD;
    if (config.gap_ref == GAPLESS_GAP_SENT ||
        gapless_rule_find("dana-ga", &rule, &error) != GAPLESS_OK)
        return 1;
    std::printf("gapless %s from C++: %s\n", gapless_version(), rule.name);
    return 0;
}
