/* gapless bench: hands over to the benchmark that was named. */
#include "bench/bench.h"
#include "program.h"

#include <stdio.h>
#include <string.h>

static void usage(FILE *out)
{
    (void)fprintf(out, "usage: gapless bench rules|update [OPTION...]\n\n"
                       "  rules   each rule's pass over memory, beside a plain stream\n"
                       "  update  a worker's round trip: push to pulled\n\n"
                       "'gapless bench rules --help' says more.\n");
}

int cmd_bench(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "rules") == 0)
        return bench_rules(argc - 1, argv + 1);
    if (argc >= 2 && strcmp(argv[1], "update") == 0)
        return bench_update(argc - 1, argv + 1);
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        usage(stdout);
        return EXIT_DONE;
    }
    if (argc >= 2)
        say("bench", "there is no benchmark '%s'", argv[1]);
    usage(stderr);
    return EXIT_MISUSE;
}
