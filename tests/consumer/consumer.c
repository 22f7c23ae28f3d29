/* What a user's program sees of an installed Gapless: the header, the functions, the
 * errors. */
#include <gapless/gapless.h>

#include <stdio.h>
#include <string.h>

/* Shows every rule; false when the table cannot be walked. */
static bool rules_listed(void)
{
    struct gapless_rule rule;
    unsigned count = 0;

    while (gapless_rule_at(count, &rule) == GAPLESS_OK)
        count++;
    printf("%u rules\n", count);
    return count > 0;
}

int main(int argc, char **argv)
{
    const char *version = argc > 1 ? argv[1] : gapless_version();
    struct gapless_error error = {0};
    struct gapless_master *master = NULL;
    struct gapless_rule rule;
    struct gapless_tensor weights = {.name = "weights", .dims = 1, .dim = {10}};
    struct gapless_master_config config = {
        .address = "shm:consumer",
        .model = {.tensors = &weights, .tensors_count = 1},
        .rule = "no-such-rule",
        .schedule = {.rate = 0.1},
    };

    if (strcmp(gapless_version(), version) != 0) {
        printf("the library is %s, expected %s\n", gapless_version(), version);
        return 1;
    }
    if (!rules_listed() || gapless_rule_find("dana-ga", &rule, &error) != GAPLESS_OK) {
        printf("no dana-ga: %s\n", error.text);
        return 1;
    }
    if (gapless_master_open(&config, &master, &error) == GAPLESS_OK || master != NULL ||
        error.text[0] == '\0') {
        printf("an unknown rule was not refused\n");
        return 1;
    }
    gapless_master_close(NULL);
    printf("gapless %s: %s, %s\n", version, rule.name, gapless_strerror(GAPLESS_OK));
    return 0;
}
