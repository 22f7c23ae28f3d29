/* A whole update over a transport: the real worker hands in a gradient of 16 MiB and
 * pulls its next parameters, the real master applies it. In ranges of 1 MiB the wire
 * in, the pass and the wire out overlap; unsplit, they follow each other. */
#include "bench/transport/bench_transport.h"

#include "engine/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLICE_NS 200000000ll
#define JOIN_NS 20000000000ll
#define TRIPS_MAX 20000
#define TRIPS_MIN 5
#define WARM_UP 3
#define BOUND_S 120.0 /* of one figure; slow virtual machines need a while */

/* ---- the master's side --------------------------------------------------- */

struct watch {
    struct gapless_stats stats;
    struct gapless_traffic from; /* at the first look after an update */
    uint64_t from_updates;
};

/* Runs until its worker has come and gone. */
static int run(struct gapless_master *master, struct watch *ret,
               struct gapless_error *error)
{
    double end = clock_seconds() + BT_BOUND_S;
    uint64_t before = 0;
    int status = GAPLESS_OK;

    *ret = (struct watch){.from_updates = 0};
    while (status == GAPLESS_OK && clock_seconds() < end) {
        status = gapless_master_run(master, SLICE_NS, error);
        gapless_master_stats(master, &ret->stats);
        if (ret->stats.workers_joined > 0 && ret->stats.workers_active == 0)
            return GAPLESS_OK;
        if (ret->stats.updates == before)
            continue;
        if (ret->from_updates == 0) {
            gapless_master_traffic(master, &ret->from);
            ret->from_updates = ret->stats.updates;
        }
        before = ret->stats.updates;
        end = clock_seconds() + BT_BOUND_S;
    }
    if (status != GAPLESS_OK)
        return status;
    return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                             "the worker did nothing for %g s", BT_BOUND_S);
}

static void tell_counts(const struct gapless_master *master, const struct watch *watch,
                        char *ret, size_t max)
{
    struct gapless_traffic to;
    uint64_t updates = watch->stats.updates - watch->from_updates;
    /* Where all were over before the first look there is nothing to count between. */
    double n = updates > 0 ? (double)updates : (double)NAN;

    gapless_master_traffic(master, &to);
    (void)snprintf(ret, max, "closed %.6g %.6g %.6g %.6g",
                   (double)(to.requests - watch->from.requests) / n,
                   (double)(to.doorbells - watch->from.doorbells) / n,
                   (double)(to.completions - watch->from.completions) / n,
                   (double)(to.wakeups - watch->from.wakeups) / n);
}

static int open_master(const struct bt_options *o, const char *text,
                       struct gapless_master **ret, struct gapless_error *error)
{
    unsigned long long bytes = 0, range = 0;
    struct gapless_tensor tensor = {.name = "w", .dims = 1, .dim = {0}};
    struct gapless_master_config config = {
        .address = o->update_address,
        .model = {&tensor, 1},
        .rule = "asgd",
        .schedule = {.rate = 1e-6},
        .workers_max = 1,
        .spin_ns = o->sleep ? 1 : 0,
        .net = o->net,
    };
    char *rest;

    bytes = strtoull(text, &rest, 10);
    range = strtoull(rest, NULL, 10);
    if (bytes < 64 || bytes > (1ull << 32) || range < 16 || range > (1ull << 30))
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the client asked for an update of '%.60s'", text);
    tensor.dim[0] = bytes / sizeof(float);
    config.range_elements = range;
    return gapless_master_open(&config, ret, error);
}

static int say(const struct transport *t, struct tp *tp, tp_peer peer, const char *text,
               struct gapless_error *error)
{
    return t->send_control(tp, peer, text, (uint32_t)strlen(text), error);
}

int bt_update_serve(const struct bt_options *o, const struct transport *t,
                    struct tp *tp, tp_peer peer, const char *text,
                    struct gapless_error *error)
{
    struct gapless_master *master = NULL;
    struct gapless_error reason = {0};
    struct watch watch;
    char answer[256];
    int status = open_master(o, text, &master, &reason);

    if (status != GAPLESS_OK) {
        (void)snprintf(answer, sizeof answer, "failed %.240s", reason.text);
        return say(t, tp, peer, answer, error);
    }
    status = say(t, tp, peer, "open", error);
    if (status == GAPLESS_OK)
        status = run(master, &watch, error);
    if (status == GAPLESS_OK)
        tell_counts(master, &watch, answer, sizeof answer);
    gapless_master_close(master);
    return status == GAPLESS_OK ? say(t, tp, peer, answer, error) : status;
}

/* ---- the worker's side --------------------------------------------------- */

static int round_trips(struct gapless_worker *worker, double seconds, double *sample,
                       struct bt_figure *ret, struct gapless_error *error)
{
    struct gapless_traffic from = {0}, to;
    struct bt_scale clock = bt_scale_start();
    uint64_t batch, n = 0, began = 0;
    double end = 0.0, bound = clock.seconds + BOUND_S;
    int status = gapless_worker_pull(worker, &batch, error);

    while (status == GAPLESS_OK && n < TRIPS_MAX + WARM_UP) {
        double now = clock_seconds();

        if (n == WARM_UP) {
            gapless_worker_traffic(worker, &from);
            clock = bt_scale_start();
            end = now + seconds;
        }
        if (now > bound || (n >= WARM_UP + TRIPS_MIN && now > end))
            break;
        began = bt_ticks();
        status = gapless_worker_push(worker, 0.0, error);
        if (status == GAPLESS_OK)
            status = gapless_worker_pull(worker, &batch, error);
        if (n >= WARM_UP)
            sample[n - WARM_UP] = (double)(bt_ticks() - began);
        n++;
    }
    if (status != GAPLESS_OK)
        return status;
    if (n <= WARM_UP)
        return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                                 "%u updates took more than %g s", WARM_UP, BOUND_S);
    ret->ops = n - WARM_UP;
    ret->seconds = clock_seconds() - clock.seconds;
    gapless_worker_traffic(worker, &to);
    ret->client = (struct bt_counts){
        (double)(to.requests - from.requests) / (double)ret->ops,
        (double)(to.doorbells - from.doorbells) / (double)ret->ops,
        (double)(to.completions - from.completions) / (double)ret->ops,
        (double)(to.wakeups - from.wakeups) / (double)ret->ops};
    bt_quantiles(sample, ret->ops, 1e6 * bt_scale_end(&clock), ret);
    return GAPLESS_OK;
}

static int work(const struct bt_options *o, struct bt_figure *ret,
                struct gapless_error *error)
{
    struct gapless_worker_config config = {
        .address = o->update_address,
        .connect_ns = JOIN_NS,
        .wait_ns = (int64_t)(BT_BOUND_S * 1e9),
        .spin_ns = o->sleep ? 1 : 0,
        .net = o->net,
    };
    double *sample = malloc(TRIPS_MAX * sizeof *sample);
    struct gapless_worker *worker = NULL;
    int status;

    if (sample == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for samples");
    status = gapless_worker_open(&config, &worker, error);
    if (status == GAPLESS_OK) {
        for (uint64_t i = 0; i < gapless_worker_count(worker); i++)
            gapless_worker_grad(worker)[i] = 1e-6f * (float)(i % 97);
        status = round_trips(worker, o->seconds, sample, ret, error);
    }
    gapless_worker_close(worker);
    free(sample);
    return status;
}

static void read_counts(const char *text, struct bt_counts *ret)
{
    double value[4] = {(double)NAN, (double)NAN, (double)NAN, (double)NAN};
    char *rest;

    for (int i = 0; i < 4; i++, text = rest) {
        double got = strtod(text, &rest);

        if (rest == text)
            break;
        value[i] = got;
    }
    *ret = (struct bt_counts){value[0], value[1], value[2], value[3]};
}

int bt_update(struct bt_client *c, uint64_t range, struct bt_figure *ret,
              struct gapless_error *error)
{
    struct bt_figure figure = bt_figure_of(BT_UPDATE, BT_UPDATE_BYTES);
    uint64_t elements = BT_UPDATE_BYTES / sizeof(float);
    char text[80];
    int status;

    figure.ranges = (uint32_t)((elements + range - 1) / range);
    (void)snprintf(text, sizeof text, "update %llu %llu",
                   (unsigned long long)BT_UPDATE_BYTES, (unsigned long long)range);
    status = bt_client_send_control(c, text, error);
    if (status == GAPLESS_OK)
        status = bt_client_hear(c, error);
    if (status == GAPLESS_OK && strcmp(c->text, "open") != 0)
        status = gapless_error_set(error, GAPLESS_REFUSED, 0,
                                   "the server cannot start a master: %.240s", c->text);
    if (status == GAPLESS_OK)
        status = work(c->o, &figure, error);
    if (status == GAPLESS_OK)
        status = bt_client_hear(c, error);
    if (status != GAPLESS_OK)
        return status;
    if (strncmp(c->text, "closed ", 7) == 0)
        read_counts(c->text + 7, &figure.server);
    /* Gradient and parameters: each way as many bytes. */
    figure.gb_s = 2e-3 * (double)figure.bytes / figure.p50_us;
    figure.stable = figure.p99_us <= 2.0 * figure.p50_us;
    *ret = figure;
    return GAPLESS_OK;
}
