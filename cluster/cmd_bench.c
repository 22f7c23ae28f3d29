/* gapless bench: hands over to the benchmark that was named. */
#include "bench/bench.h"
#include "cluster/task/network.h"
#include "cluster/program/program.h"

#include <stdio.h>
#include <string.h>

_Static_assert(ADDRESS_MAX == BENCH_ADDRESS_MAX && NETWORK_TOKEN_MAX == BENCH_TOKEN_MAX,
               "both sides of struct bench_network have the same room");

static void usage(FILE *out)
{
    (void)fprintf(out,
                  "usage: gapless bench rules|update|transport|gpu [OPTION...]\n\n"
                  "  rules      each rule's pass over memory, beside a plain stream\n"
                  "  update     a worker's round trip: push to pulled\n"
                  "  transport  bandwidth and latency of shm or RDMA, and an update "
                  "over it\n"
                  "  gpu        the rules on a GPU, and all that new hardware has to "
                  "pass\n\n"
                  "'gapless bench rules --help' says more.\n");
}

static int bench_address(const char *transport, const char *text, char *ret,
                         struct gapless_error *error)
{
    struct parse_error reason;

    if (text == NULL)
        return network_find(ret, error);
    if (address_transport(text) == NULL ? address_join(transport, text, ret, &reason)
                                        : address_check(text, &reason)) {
        if (address_transport(text) == NULL)
            return GAPLESS_OK;
        if (strcmp(address_transport(text), transport) == 0) {
            (void)snprintf(ret, ADDRESS_MAX, "%s", text);
            return GAPLESS_OK;
        }
        (void)snprintf(reason.text, sizeof reason.text,
                       "is no address of --transport %s", transport);
    }
    return gapless_error_set(error, GAPLESS_INVALID, 0, "the address '%.100s' %s", text,
                             reason.text);
}

int cmd_bench(int argc, char **argv)
{
    static const struct bench_network network = {bench_address, network_token};

    if (argc >= 2 && strcmp(argv[1], "rules") == 0)
        return bench_rules(argc - 1, argv + 1);
    if (argc >= 2 && strcmp(argv[1], "update") == 0)
        return bench_update(argc - 1, argv + 1);
    if (argc >= 2 && strcmp(argv[1], "transport") == 0)
        return bench_transport(argc - 1, argv + 1, &network);
    if (argc >= 2 && strcmp(argv[1], "gpu") == 0)
        return bench_gpu(argc - 1, argv + 1, &network);
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        usage(stdout);
        return EXIT_DONE;
    }
    if (argc >= 2)
        report_failure("bench", "there is no benchmark '%s'", argv[1]);
    usage(stderr);
    return EXIT_MISUSE;
}
