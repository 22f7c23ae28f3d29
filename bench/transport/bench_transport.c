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

#include "engine/base/clock.h"

#include <errno.h>
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

/* Where both are here and none was given, one is made up. */
static void make_token(struct bt_options *o)
{
    if (o->net.token_bytes > 0 || o->role != BENCH_BOTH ||
        getrandom(o->token, TOKEN_BYTES, 0) != TOKEN_BYTES)
        return;
    o->net.token_bytes = TOKEN_BYTES;
    o->net.token = o->token;
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
    const uint64_t *size = c->o->sizes.count > 0 ? c->o->sizes.at : usual[op];
    uint32_t sizes = c->o->sizes.count > 0             ? c->o->sizes.count
                     : op == BT_WRITE || op == BT_READ ? 5
                                                       : 1;
    int status = GAPLESS_OK;

    for (uint32_t i = 0; i < sizes && status == GAPLESS_OK; i++) {
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
    double end = clock_seconds() + REAP_S;
    int state = 0;

    while (waitpid(server, &state, WNOHANG) == 0) {
        if (clock_seconds() > end) {
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

int bench_transport(const struct bench_transport_config *config)
{
    static struct bt_options o;
    struct gapless_error error = {0};

    o = (struct bt_options){.role = config->role,
                            .seconds = config->seconds,
                            .json = config->json,
                            .sleep = config->sleep,
                            .net = config->net,
                            .sizes = config->sizes};
    (void)snprintf(o.transport, sizeof o.transport, "%s", config->transport);
    (void)snprintf(o.address, sizeof o.address, "%s", config->address);
    for (int op = 0; op < BT_OPS; op++)
        o.op[op] = bench_has(config->ops, op);
    if (second_address(&o, &error) != GAPLESS_OK) {
        (void)fprintf(stderr, "gapless bench transport: %s\n", error.text);
        return 2;
    }
    make_token(&o);
    if (o.role == BENCH_SERVER)
        return bt_serve(&o);
    return o.role == BENCH_CLIENT ? run_client(&o, 0) : run_both(&o);
}
