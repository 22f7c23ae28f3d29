/* The state of a run as Prometheus reads it (text format 0.0.4), over HTTP/1.1, answered
 * between two looks of the loop that serves or observes the run: no thread, no memory
 * that grows with who asks.
 *
 *     gapless train --metrics 127.0.0.1:9464      curl http://127.0.0.1:9464/metrics
 *
 * A process that can reach the address can read the numbers, and nothing else: give one of the
 * loopback, or a network that is yours. The connection is closed behind
 * the answer; one that sends no whole request, or takes no answer, within two seconds is
 * closed without.
 */
#ifndef CLUSTER_METRICS_H
#define CLUSTER_METRICS_H

#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METRICS_PEERS 8u /* at once; others wait in the kernel's queue */
#define METRICS_REQUEST_MAX 2048u

struct metrics_facts {
    const struct gapless_stats *stats;
    const struct gapless_worker_stats
        *worker; /* by number; those never taken are left out */
    uint32_t worker_count;
    bool refused_known;
    uint64_t refused; /* peers that were not let in */
};

/* malloc'ed; NULL: no memory. `now_ns`: CLOCK_MONOTONIC. */
char *metrics_text(const struct metrics_facts *facts, uint64_t now_ns,
                   size_t *ret_bytes);

struct metrics_peer {
    int fd; /* -1: free */
    double until;
    char request[METRICS_REQUEST_MAX];
    size_t used;
    char *answer; /* NULL: the request is not whole yet */
    size_t bytes, sent;
};

/* Zero: it is not open. */
struct metrics {
    bool open;
    int fd;
    struct metrics_peer peer[METRICS_PEERS];
};

/* Listens at ADDRESS:PORT (numbers; IPv6 in brackets). NULL: nothing is served.
 * GAPLESS_INVALID: it is no such address; GAPLESS_SYSTEM: it cannot be had. */
int metrics_open(const char *address, struct metrics *ret, struct gapless_error *error);
/* Takes and answers what there is; never waits. */
void metrics_serve(struct metrics *metrics, const struct metrics_facts *facts);
void metrics_close(struct metrics *metrics);

#endif
