/* Prints the names of the rules that the library offers, one a line, with what kind each is. */
#include <gapless/gapless.h>
#include <stdio.h>

int main(void)
{
    struct gapless_rule rule;

    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        (void)printf("%s (%s)%s%s%s: %s\n", rule.name, rule.source,
                     rule.synchronous ? " synchronous" : "",
                     rule.elastic ? " elastic" : "", rule.whole ? " whole" : "",
                     rule.formula);
    return 0;
}
