/* Faults on demand. */
#include "cluster/run/fault.h"

#include "cluster/options/parse.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXIT_FAULT 3

int fault_parse(const char *text, struct fault *ret, struct gapless_error *error)
{
    static const char *const kinds[] = {
        [FAULT_NAN] = "nan:", [FAULT_SLOW] = "slow:", [FAULT_EXIT] = "exit:"};
    struct fault fault = {FAULT_NONE, 0, -1};
    struct parse_error reason;
    uint64_t worker;
    char copy[64], *at;

    if (text == NULL || text[0] == '\0') {
        *ret = fault;
        return GAPLESS_OK;
    }
    (void)snprintf(copy, sizeof copy, "%s", text);
    at = strchr(copy, '@');
    if (at != NULL) {
        *at++ = '\0';
        if (!parse_count(at, 0, GAPLESS_WORKERS_MAX, &worker, &reason))
            goto refuse;
        fault.worker = (int64_t)worker;
    }
    for (int kind = FAULT_NAN; kind <= FAULT_EXIT; kind++)
        if (strncmp(copy, kinds[kind], strlen(kinds[kind])) == 0 &&
            parse_count(copy + strlen(kinds[kind]), 1, 1000000000, &fault.amount,
                        &reason)) {
            fault.kind = (enum fault_kind)kind;
            *ret = fault;
            return GAPLESS_OK;
        }
refuse:
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "GAPLESS_FAULT must be nan:K, slow:MS or exit:K, with "
                             "@N behind it for one worker, not '%.60s'",
                             text);
}

void fault_strike(const struct fault *fault, uint32_t number, uint64_t gradient,
                  float *grad)
{
    struct timespec pause = {(time_t)(fault->amount / 1000),
                             (long)(fault->amount % 1000) * 1000000};

    if (fault->worker >= 0 && (uint32_t)fault->worker != number)
        return;
    switch (fault->kind) {
    case FAULT_NONE:
        return;
    case FAULT_NAN:
        if (gradient == fault->amount)
            grad[0] = (float)NAN;
        return;
    case FAULT_SLOW:
        (void)nanosleep(&pause, NULL);
        return;
    case FAULT_EXIT:
        if (gradient == fault->amount)
            _exit(EXIT_FAULT);
        return;
    }
}
