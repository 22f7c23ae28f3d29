/* gapless bench ...: fills the benchmarks' settings from the options. */
#include "bench/bench.h"
#include "cluster/options/options.h"
#include "cluster/program/program_options.h"
#include "cluster/task/network.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

_Static_assert(ADDRESS_MAX == BENCH_ADDRESS_MAX && NETWORK_TOKEN_MAX == BENCH_TOKEN_MAX,
               "both sides have the same room");

static struct bench_sizes sizes_of(const struct settings *settings)
{
    return (struct bench_sizes){settings->sizes.count, settings->sizes.at};
}

int cmd_bench_rules(int argc, char **argv)
{
    struct settings settings;
    int code;

    if (!program_options(FOR_BENCH_RULES, argc, argv, &settings, &code))
        return code;
    return bench_rules(&(struct bench_rules_config){.rules = settings.rules,
                                                    .sizes = sizes_of(&settings),
                                                    .rounds = settings.rounds,
                                                    .seconds = settings.seconds,
                                                    .json = settings.json_file,
                                                    .check = settings.check});
}

int cmd_bench_update(int argc, char **argv)
{
    struct settings settings;
    int code;

    if (!program_options(FOR_BENCH_UPDATE, argc, argv, &settings, &code))
        return code;
    return bench_update(&(struct bench_update_config){.transport = settings.transport,
                                                      .rule = settings.rule,
                                                      .sizes = sizes_of(&settings),
                                                      .reps = settings.reps,
                                                      .sleep = settings.sleep,
                                                      .json = settings.json_file});
}

/* A whole address of "ADDR[:PORT]" or a name; NULL: of this machine's one RDMA-capable interface. */
static int address_of(const char *transport, const char *text, char ret[ADDRESS_MAX],
                      struct gapless_error *error)
{
    const char *own = text != NULL ? address_transport(text) : NULL;
    struct parse_error reason;

    if (text == NULL)
        return network_find(ret, error);
    if (own != NULL && strcmp(own, transport) != 0)
        (void)snprintf(reason.text, sizeof reason.text,
                       "is no address of --transport %s", transport);
    else if (address_join(transport, own != NULL ? strchr(text, ':') + 1 : text, ret,
                          &reason))
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_INVALID, 0, "the address '%.100s' %s", text,
                             reason.text);
}

/* --server makes a client of it; what was given more strongly counts. */
static int role_of(const struct settings *settings, enum bench_role *ret,
                   const char **ret_text, struct gapless_error *error)
{
    enum option_source server = options_source(settings, "server");
    bool listens =
        settings->listen != NULL && options_source(settings, "listen") >= server;
    bool serves =
        settings->only_server && options_source(settings, "only-server") >= server;

    *ret = settings->only_server ? BENCH_SERVER : BENCH_BOTH;
    *ret_text = settings->listen;
    if (settings->server == NULL)
        return GAPLESS_OK;
    *ret = BENCH_CLIENT;
    *ret_text = settings->server;
    if (!listens && !serves)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "--server is for the client, --listen and --only-server "
                             "are for the server: say one of "
                             "them");
}

int cmd_bench_transport(int argc, char **argv)
{
    static struct settings settings;
    static struct network network;
    struct bench_transport_config config = {0};
    struct gapless_error error = {0};
    char address[ADDRESS_MAX], name[32];
    const char *text;
    int code, status;

    if (!program_options(FOR_BENCH_TRANSPORT, argc, argv, &settings, &code))
        return code;
    status = role_of(&settings, &config.role, &text, &error);
    if (text == NULL && strcmp(settings.transport, "shm") == 0) {
        (void)snprintf(name, sizeof name, "bench-%ld", (long)getpid());
        text = name;
    }
    if (status == GAPLESS_OK)
        status = address_of(settings.transport, text, address, &error);
    if (status == GAPLESS_OK)
        status = network_open(&settings, &network, &error);
    if (status != GAPLESS_OK)
        return report_error("bench transport", &error);
    config.transport = settings.transport;
    config.address = address;
    config.ops = settings.ops;
    config.sizes = sizes_of(&settings);
    config.seconds = settings.seconds;
    config.sleep = settings.sleep;
    config.json = settings.json;
    config.net = network.net;
    code = bench_transport(&config);
    network_close(&network);
    return code;
}

/* What no single option can know. */
static bool gpu_consistent(const struct settings *settings)
{
    static const char *const accept_only[] = {"only", "quick", "rdma"};

    for (size_t i = 0; i < sizeof accept_only / sizeof accept_only[0]; i++)
        if (!settings->accept &&
            options_source(settings, accept_only[i]) == OPTION_FLAG) {
            report_failure("bench gpu", "--%s is for --accept", accept_only[i]);
            return false;
        }
    if (settings->accept && (options_source(settings, "json-file") == OPTION_FLAG ||
                             options_source(settings, "json") == OPTION_FLAG)) {
        report_failure("bench gpu", "--accept writes DIR/gpu-acceptance.json: leave "
                                    "--json-file out, or --accept");
        return false;
    }
    return true;
}

int cmd_bench_gpu(int argc, char **argv)
{
    static const uint64_t usual[] = {11200000, 25600000}, small[] = {4096};
    struct settings settings;
    struct bench_gpu_config config;
    struct gapless_error error = {0};
    char rdma[ADDRESS_MAX];
    int code;

    if (!program_options(FOR_BENCH_GPU, argc, argv, &settings, &code))
        return code;
    if (!gpu_consistent(&settings))
        return EXIT_MISUSE;
    config =
        (struct bench_gpu_config){.accept = settings.accept,
                                  .quick = settings.accept && settings.quick,
                                  .bytes_only = settings.bytes,
                                  .checks = settings.checks,
                                  .rules = settings.rules,
                                  .sizes = sizes_of(&settings),
                                  .device = settings.device,
                                  .out = settings.out,
                                  .json = settings.accept ? NULL : settings.json_file,
                                  .seconds = settings.seconds,
                                  .rdma_given = settings.rdma != NULL,
                                  .rdma_error = error.text};
    if (config.sizes.count == 0 && config.quick)
        config.sizes = (struct bench_sizes){1, small};
    else if (config.sizes.count == 0)
        config.sizes = (struct bench_sizes){2, usual};
    if (config.quick && options_source(&settings, "seconds") == OPTION_DEFAULT)
        config.seconds = 1.0;
    if (config.accept && address_of("verbs", settings.rdma, rdma, &error) == GAPLESS_OK)
        config.rdma = rdma;
    else if (config.rdma_given && config.accept)
        return report_error("bench gpu", &error);
    return bench_gpu(&config);
}

static const char *benchmark_at(const void *context, unsigned index)
{
    static const char *const names[] = {"rules", "update", "transport", "gpu", NULL};

    (void)context;
    return names[index];
}

/* Without a benchmark's name, or with one that there is not: main starts the others. */
int cmd_bench(int argc, char **argv)
{
    struct settings settings;
    const char *near;
    int code;

    if (argc < 2) {
        options_basics(FOR_BENCH, stderr);
        return EXIT_MISUSE;
    }
    if (argv[1][0] == '-')
        return program_options(FOR_BENCH, argc, argv, &settings, &code) ? EXIT_MISUSE
                                                                        : code;
    near = parse_nearest(argv[1], benchmark_at, NULL);
    report_failure("bench", "there is no benchmark '%s'%s%s%s", argv[1],
                   near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                   near != NULL ? "'?" : "");
    (void)fprintf(stderr, "'gapless help bench' lists them.\n");
    return EXIT_MISUSE;
}
