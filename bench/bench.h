/* The benchmarks of `gapless bench ...`. Each takes plain settings, prints a table and returns an exit code: 0 done, 1
 * failed, 2 misuse. How options, addresses and tokens are written is the program's business (cluster/program). */
#ifndef GAPLESS_BENCH_H
#define GAPLESS_BENCH_H

#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_SIZES_MAX 16
#define BENCH_ADDRESS_MAX 512
#define BENCH_TOKEN_MAX 4096

struct bench_sizes {
    uint32_t count;
    const uint64_t *at;
};

/* Is number i in a set of bits? */
static inline bool bench_has(uint64_t set, int i)
{
    return (set >> i & 1u) != 0;
}

/* The update rules against a stream with the same traffic and against separate passes. */
struct bench_rules_config {
    uint64_t rules;           /* bit i: row i of the engine's table */
    struct bench_sizes sizes; /* elements of the vector */
    uint32_t rounds;          /* of each, at most 64 */
    double seconds;           /* of all, about */
    const char *json;         /* a file, "-" for standard output; NULL: none */
    bool check;               /* fail if a rule falls below its floor */
};
int bench_rules(const struct bench_rules_config *config);

/* The round trip from push to pulled parameters over a transport. */
struct bench_update_config {
    const char *transport, *rule;
    struct bench_sizes sizes; /* bytes of the parameters */
    uint32_t reps;            /* round trips a size, at most 5000; 0: by the size */
    bool sleep;               /* at once while waiting, instead of polling */
    const char *json;         /* a file, "-" for standard output; NULL: none */
    double bound_s;           /* on the round trips of one size; 0: 60 */
};
int bench_update(const struct bench_update_config *config);

/* Bandwidth and latency of a transport, and of a whole update over it. */
enum bench_role {
    BENCH_BOTH,
    BENCH_SERVER,
    BENCH_CLIENT
};
struct bench_transport_config {
    enum bench_role role;
    const char *transport, *address;
    uint64_t ops;             /* bits: write, read, write-lat, read-lat, update */
    struct bench_sizes sizes; /* bytes; none: each operation's own */
    double seconds;           /* for each figure, about */
    bool sleep, json;         /* json: printed */
    struct gapless_net net;   /* without a token both on one machine make one */
};
int bench_transport(const struct bench_transport_config *config);

/* The rules' passes on a GPU, and with `accept` everything that has to hold on new hardware. */
struct bench_gpu_config {
    bool accept, quick, bytes_only;
    uint64_t
        checks; /* bits: bits, sanitizer, bandwidth, gpudirect, soak, latency, runs, kill */
    uint64_t rules;           /* as above */
    struct bench_sizes sizes; /* elements */
    const char *device, *out, *json;
    double seconds;
    /* "verbs:HOST:PORT" for the checks over RDMA; NULL: none, and rdma_error says why.
     * rdma_given: by the user, and then the runs that are killed use it, too. */
    const char *rdma, *rdma_error;
    bool rdma_given;
};
int bench_gpu(const struct bench_gpu_config *config);
/* Bytes that a pass of a rule moves to and from memory for a parameter; 0: there is no such rule. */
unsigned bench_rule_bytes(const char *rule);

/* Sorts: the least first. */
void bench_sort(double *values, size_t count);
/* Sorts, and gives the one in the middle, or the mean of the two there. `count` is at least 1. */
double bench_median(double *values, size_t count);
/* Scalars of an update that may be repeated: every number stays finite, every gate open. */
struct rule;
struct step_scalars;
void bench_scalars(const struct rule *rule, struct step_scalars *ret);
/* Adds to a JSON object (of jansson) what the figures were measured on: version, date, CPU, compiler. */
struct json_t;
void bench_machine(struct json_t *root);
/* Writes the object to a file, or to standard output for "-", and consumes it. False: that
 * failed, and was printed as of `gapless COMMAND`. */
bool bench_write_json(const char *command, const char *path, struct json_t *root);

#endif
