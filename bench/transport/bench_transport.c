/* gapless bench transport: what a transport gives, and what an update over it costs.
 *
 *   write       put, many under way      GB/s       as ib_write_bw, a note with each
 *   read        get, many under way      GB/s       as ib_read_bw
 *   write-lat   put, answered by notify  half of it as ib_write_lat
 *   read-lat    get, one at a time                  as ib_read_lat
 *   update      push to pulled, 16 MiB in ranges of 1 MiB and unsplit
 *
 * A child is the server; --only-server and --server make them two machines. Every wait
 * is bounded and the child is reaped, also when something fails.
 */
#include "bench/transport/bench_transport.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REAP_S 5.0
#define RANGE_ELEMENTS (256u << 10) /* 1 MiB */
#define TOKEN_BYTES 32

static void usage(FILE *to)
{
    (void)fprintf(
        to,
        "usage: gapless bench transport [OPTION...]\n\n"
        "Bandwidth and latency of a transport, and of a whole update over it. Starts "
        "a\n"
        "server of its own; for two machines, --only-server on one and --server on "
        "the\n"
        "other.\n\n"
        "  --transport NAME    shm (default) or verbs\n"
        "  --listen ADDR:PORT  where the server listens; verbs needs the port after "
        "it,\n"
        "                      too (default: of the RDMA-capable interface, 7471)\n"
        "  --only-server       serve one client from another machine, then end\n"
        "  --server ADDR:PORT  only the client\n"
        "  --ops LIST          of write,read,write-lat,read-lat,update (default: all)\n"
        "  --sizes LIST        bytes; K and M allowed (default: write and read\n"
        "                      8,4K,64K,1M,8M; write-lat 8; read-lat 4K)\n"
        "  --seconds S         for each figure, about (default 1)\n"
        "  --sleep             sleep at once while waiting, instead of polling\n"
        "  --json              print one JSON object instead of a table\n"
        "  --token-file FILE, --insecure, --device LIST, --channels N\n"
        "                      as for gapless master; one machine needs no token\n"
        "  --help\n\n"
        "Write and read are GB/s (1e9 bytes) of rounds with as much under way as the\n"
        "transport takes; 'of copy' is their share of memcpy in the same run, where\n"
        "memory is shared. write-lat is half of a put and the server's notify.\n");
}

/* ---- options ------------------------------------------------------------- */

static int wrong(const char *option, const char *text, const char *what)
{
    (void)fprintf(stderr, "gapless bench transport: --%s %s: %s\n", option, text, what);
    return -1;
}

static int parse_ops(const char *text, struct bt_options *o)
{
    char copy[128];
    char *rest = copy;

    memset(o->op, 0, sizeof o->op);
    (void)snprintf(copy, sizeof copy, "%s", text);
    while (rest != NULL) {
        const char *word = strsep(&rest, ",");
        int op = 0;

        while (op < BT_OPS && strcmp(word, bt_op_names[op]) != 0)
            op++;
        if (op == BT_OPS)
            return wrong("ops", text, "of write, read, write-lat, read-lat, update");
        o->op[op] = true;
    }
    return 0;
}

static int parse_sizes(const char *text, struct bt_options *o)
{
    char copy[256];
    char *rest = copy, *end;

    o->sizes = 0;
    (void)snprintf(copy, sizeof copy, "%s", text);
    while (rest != NULL) {
        const char *word = strsep(&rest, ",");
        unsigned long long value = strtoull(word, &end, 10);
        int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 0;

        end += shift > 0;
        if (word[0] < '0' || word[0] > '9' || *end != '\0' || value == 0 ||
            value > (1ull << 30) >> shift || o->sizes == BT_SIZES_MAX)
            return wrong("sizes", text, "1 to 1024M bytes each, at most 16 of them");
        o->size[o->sizes++] = value << shift;
    }
    return 0;
}

static int parse_number(const char *option, const char *text, double low, double high,
                        double *ret)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= low) || !(value <= high)) {
        char what[64];

        (void)snprintf(what, sizeof what, "a number from %g to %g", low, high);
        return wrong(option, text, what);
    }
    *ret = value;
    return 0;
}

struct words {
    const char *listen, *server, *token_file;
};

static const struct option longs[] = {{"transport", required_argument, NULL, 't'},
                                      {"listen", required_argument, NULL, 'l'},
                                      {"only-server", no_argument, NULL, 'O'},
                                      {"server", required_argument, NULL, 'c'},
                                      {"ops", required_argument, NULL, 'o'},
                                      {"sizes", required_argument, NULL, 's'},
                                      {"seconds", required_argument, NULL, 'n'},
                                      {"sleep", no_argument, NULL, 'S'},
                                      {"json", no_argument, NULL, 'j'},
                                      {"token-file", required_argument, NULL, 'k'},
                                      {"insecure", no_argument, NULL, 'i'},
                                      {"device", required_argument, NULL, 'd'},
                                      {"channels", required_argument, NULL, 'L'},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

/* One option. Negative: wrong, and it was said. */
static int parse_one(int c, struct bt_options *o, struct words *w)
{
    double channels = 0.0;

    switch (c) {
    case 't':
        if (strcmp(optarg, "shm") != 0 && strcmp(optarg, "verbs") != 0)
            return wrong("transport", optarg, "shm or verbs");
        (void)snprintf(o->transport, sizeof o->transport, "%s", optarg);
        return 0;
    case 'l':
        w->listen = optarg;
        return 0;
    case 'O':
        o->role = BT_SERVER;
        return 0;
    case 'c':
        w->server = optarg;
        return 0;
    case 'o':
        return parse_ops(optarg, o);
    case 's':
        return parse_sizes(optarg, o);
    case 'n':
        return parse_number("seconds", optarg, 0.01, 600.0, &o->seconds);
    case 'S':
        o->sleep = true;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'k':
        w->token_file = optarg;
        return 0;
    case 'i':
        o->net.insecure = true;
        return 0;
    case 'd':
        o->net.devices = optarg;
        return 0;
    case 'L':
        if (parse_number("channels", optarg, 1.0, 16.0, &channels) != 0)
            return -1;
        o->net.channels = (uint32_t)channels;
        return 0;
    default:
        (void)fprintf(stderr, "gapless bench transport: try --help\n");
        return -1;
    }
}

/* ---- addresses and tokens ------------------------------------------------ */

/* The next port, or another name: where the master of an update listens. */
static int second_address(struct bt_options *o, struct gapless_error *error)
{
    char copy[BENCH_ADDRESS_MAX];
    char *rest = copy;
    size_t used = 0;

    if (strcmp(o->transport, "verbs") != 0) {
        (void)snprintf(o->update_address, sizeof o->update_address, "%.500s-update",
                       o->address);
        return GAPLESS_OK;
    }
    memcpy(copy, o->address, sizeof copy);
    while (rest != NULL) {
        char *word = strsep(&rest, ",");
        char *colon = strrchr(word, ':');
        unsigned long port = colon != NULL ? strtoul(colon + 1, NULL, 10) : 0;

        if (port == 0 || port >= 65535)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "%.100s: an update needs the next port, too; "
                                     "choose one below 65535",
                                     o->address);
        *colon = '\0';
        used +=
            (size_t)snprintf(o->update_address + used, sizeof o->update_address - used,
                             "%s%s:%lu", used > 0 ? "," : "", word, port + 1);
        if (used >= sizeof o->update_address)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "the address is too long");
    }
    return GAPLESS_OK;
}

static int resolve_address(struct bt_options *o, const struct words *w,
                           const struct bench_network *network,
                           struct gapless_error *error)
{
    const char *text = w->server != NULL ? w->server : w->listen;
    char name[32];
    int status;

    if (w->server != NULL && (w->listen != NULL || o->role == BT_SERVER))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--server is for the client, --listen and "
                                 "--only-server are for the server: say one of them");
    if (w->server != NULL)
        o->role = BT_CLIENT;
    if (text == NULL && strcmp(o->transport, "shm") == 0) {
        (void)snprintf(name, sizeof name, "bench-%ld", (long)getpid());
        text = name;
    }
    status = network->address(o->transport, text, o->address, error);
    return status == GAPLESS_OK ? second_address(o, error) : status;
}

/* Of the file, or where both are here, made up. */
static int resolve_token(struct bt_options *o, const struct words *w,
                         const struct bench_network *network,
                         struct gapless_error *error)
{
    int status = GAPLESS_OK;

    if (w->token_file != NULL)
        status = network->token(w->token_file, o->token, &o->net.token_bytes, error);
    else if (o->role == BT_BOTH && getrandom(o->token, TOKEN_BYTES, 0) == TOKEN_BYTES)
        o->net.token_bytes = TOKEN_BYTES;
    o->net.token = o->net.token_bytes > 0 ? o->token : NULL;
    return status;
}

/* ---- measuring ----------------------------------------------------------- */

static int keep(const struct bt_options *o, const struct bt_figure *figure,
                json_t *rows)
{
    if (!o->json)
        bt_row(figure);
    return json_array_append_new(rows, bt_json(figure)) == 0 ? GAPLESS_OK
                                                             : GAPLESS_NO_MEMORY;
}

static int measure_op(struct bt_client *c, enum bt_op op, json_t *rows,
                      struct gapless_error *error)
{
    static const uint64_t usual[BT_UPDATE][5] = {
        [BT_WRITE] = {8, 4096, 65536, 1u << 20, 8u << 20},
        [BT_READ] = {8, 4096, 65536, 1u << 20, 8u << 20},
        [BT_WRITE_LAT] = {8},
        [BT_READ_LAT] = {4096},
    };
    const uint64_t *size = c->o->sizes > 0 ? c->o->size : usual[op];
    int sizes = c->o->sizes > 0 ? c->o->sizes : op == BT_WRITE || op == BT_READ ? 5 : 1;
    int status = GAPLESS_OK;

    for (int i = 0; i < sizes && status == GAPLESS_OK; i++) {
        struct bt_figure figure;

        status = op == BT_WRITE || op == BT_READ
                     ? bt_bandwidth(c, op, size[i], &figure, error)
                     : bt_latency(c, op, size[i], &figure, error);
        if (status == GAPLESS_OK)
            status = keep(c->o, &figure, rows);
    }
    return status;
}

static int measure(struct bt_client *c, json_t *rows, struct gapless_error *error)
{
    static const uint64_t ranges[] = {RANGE_ELEMENTS, BT_UPDATE_BYTES / sizeof(float)};
    int status = GAPLESS_OK;

    for (int op = 0; op < BT_UPDATE && status == GAPLESS_OK; op++)
        if (c->o->op[op])
            status = measure_op(c, (enum bt_op)op, rows, error);
    for (int i = 0; i < 2 && status == GAPLESS_OK && c->o->op[BT_UPDATE]; i++) {
        struct bt_figure figure;

        status = bt_update(c, ranges[i], &figure, error);
        if (status == GAPLESS_OK)
            status = keep(c->o, &figure, rows);
    }
    if (status == GAPLESS_OK)
        status = bt_client_send_control(c, "bye", error);
    return status;
}

static int print_json(const struct bt_options *o, const struct bt_client *c,
                      json_t *rows)
{
    json_t *root =
        json_pack("{s:s,s:s,s:s,s:s,s:b,s:f,s:O}", "benchmark", "transport",
                  "transport", o->transport, "address", o->address, "link", c->link,
                  "sleep", o->sleep, "seconds_each", o->seconds, "figures", rows);
    int failed;

    bench_machine(root);
    failed = json_dumpf(root, stdout, JSON_INDENT(1)) != 0 || puts("") < 0;
    json_decref(root);
    return failed;
}

static int run_client(const struct bt_options *o, pid_t server)
{
    struct bt_client client;
    struct gapless_error error = {0};
    json_t *rows = json_array();
    int status = bt_client_open(o, server, &client, &error), code;

    if (status == GAPLESS_OK) {
        if (!o->json)
            bt_head(o, &client);
        status = measure(&client, rows, &error);
    }
    code = status == GAPLESS_OK ? 0 : 1;
    if (code == 0 && o->json)
        code = print_json(o, &client, rows);
    if (status != GAPLESS_OK)
        (void)fprintf(stderr, "gapless bench transport: %s\n",
                      error.text[0] != '\0' ? error.text : gapless_strerror(status));
    bt_client_close(&client);
    json_decref(rows);
    return code;
}

/* Waits for the server to end by itself, then ends it. */
static int reap(pid_t server)
{
    static const struct timespec pause = {0, 5000000};
    double end = bt_now() + REAP_S;
    int state = 0;

    while (waitpid(server, &state, WNOHANG) == 0) {
        if (bt_now() > end) {
            (void)kill(server, SIGKILL);
            (void)waitpid(server, &state, 0);
            break;
        }
        (void)nanosleep(&pause, NULL);
    }
    return WIFEXITED(state) ? WEXITSTATUS(state) : 1;
}

static int run_both(const struct bt_options *o)
{
    pid_t parent = getpid(), server;
    int code, other;

    (void)fflush(NULL);
    server = fork();
    if (server < 0) {
        (void)fprintf(stderr, "gapless bench transport: cannot start a server: %s\n",
                      strerror(errno));
        return 1;
    }
    if (server == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == parent ? bt_serve(o) : 1);
    }
    code = run_client(o, server);
    if (code != 0)
        (void)kill(server, SIGTERM);
    other = reap(server);
    return code != 0 ? code : other;
}

int bench_transport(int argc, char **argv, const struct bench_network *network)
{
    static struct bt_options o;
    struct words words = {NULL, NULL, NULL};
    struct gapless_error error = {0};
    int c, status;

    o = (struct bt_options){.transport = "shm", .seconds = 1.0};
    for (int op = 0; op < BT_OPS; op++)
        o.op[op] = true;
    optind = 1;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == 'h') {
            usage(stdout);
            return 0;
        }
        if (parse_one(c, &o, &words) != 0)
            return 2;
    }
    if (optind < argc) {
        (void)fprintf(stderr, "gapless bench transport: '%s' is not an option\n",
                      argv[optind]);
        return 2;
    }
    status = resolve_address(&o, &words, network, &error);
    if (status == GAPLESS_OK)
        status = resolve_token(&o, &words, network, &error);
    if (status != GAPLESS_OK) {
        (void)fprintf(stderr, "gapless bench transport: %s\n", error.text);
        return status == GAPLESS_INVALID ? 2 : 1;
    }
    if (o.role == BT_SERVER)
        return bt_serve(&o);
    return o.role == BT_CLIENT ? run_client(&o, 0) : run_both(&o);
}
