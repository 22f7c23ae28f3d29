/* The benchmarks of the `gapless bench` command. Each takes its own arguments, argv[0]
 * being its name, prints a table and returns an exit status. */
#ifndef GAPLESS_BENCH_H
#define GAPLESS_BENCH_H

#include <stddef.h>

/* The update rules against a stream with the same traffic and against separate
 * passes. */
int bench_rules(int argc, char **argv);
/* The round trip from push to pulled parameters over a transport. */
int bench_update(int argc, char **argv);

/* What `bench transport` asks its caller for: how addresses and tokens are written is
 * the program's business. */
struct gapless_error;
struct bench_network {
    /* A whole address of "ADDR[:PORT]" or a name; text NULL: of this machine's one
     * RDMA-capable interface. ret has room for BENCH_ADDRESS_MAX. */
    int (*address)(const char *transport, const char *text, char *ret,
                   struct gapless_error *error);
    /* The token in a file. ret has room for BENCH_TOKEN_MAX. */
    int (*token)(const char *path, void *ret, size_t *ret_bytes,
                 struct gapless_error *error);
};
#define BENCH_ADDRESS_MAX 512
#define BENCH_TOKEN_MAX 4096
/* Bandwidth and latency of a transport, and of a whole update over it. */
int bench_transport(int argc, char **argv, const struct bench_network *network);

/* The rules' passes on a GPU, and with --accept everything that has to hold on new
 * hardware. */
int bench_gpu(int argc, char **argv, const struct bench_network *network);
/* Bytes that a pass of a rule moves to and from memory for a parameter; 0: there is no
 * such rule. */
unsigned bench_rule_bytes(const char *rule);

/* Adds to a JSON object (of jansson) what the figures were measured on: version, date,
 * CPU, compiler. */
struct json_t;
void bench_machine(struct json_t *root);

#endif
