/* Workers that misbehave on purpose, for tests: GAPLESS_FAULT=nan:K, slow:MS or exit:K,
 * with @N only worker N. */
#ifndef CLUSTER_FAULT_H
#define CLUSTER_FAULT_H

#include <gapless/gapless.h>

#include <stdint.h>

enum fault_kind {
    FAULT_NONE,
    FAULT_NAN,
    FAULT_SLOW,
    FAULT_EXIT
};

struct fault {
    enum fault_kind kind;
    uint64_t amount;
    int64_t worker; /* -1: all */
};

/* NULL and "": none. GAPLESS_INVALID: the text names the choices. */
int fault_parse(const char *text, struct fault *ret, struct gapless_error *error);
/* Before the push of gradient number `gradient`, the first being 1, of worker `number`.
 * May not return. */
void fault_strike(const struct fault *fault, uint32_t number, uint64_t gradient,
                  float *grad);

#endif
