/* The client of bench transport: puts and gets, many at a time for bandwidth and one at
 * a time for latency. Where a window is mapped put and get move nothing, so the bytes
 * are copied here: into the window before a put, out of it after a get. */
#include "bench/transport/bench_transport.h"

#include "engine/base/clock.h"
#include "engine/run/backends.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define EVENTS_MAX 64
#define CONNECT_S 20.0
#define TRY_NS 1000000000ll
#define WAIT_NS 10000000ll /* of one poll while something is awaited */
#define ROOM_NS 50000ll    /* of one poll while a queue is full, if no thread polls */
#define ROUNDS_MAX 64
#define ROUNDS_STABLE 5
#define SPREAD 0.03 /* of the rounds that make a figure stable */
#define LATENCY_MIN 200
#define WARM_UP 50

/* ---- a connection -------------------------------------------------------- */

static int gone(struct bt_client *c, struct gapless_error *error)
{
    struct gapless_error reason = {0};

    c->t->last_error(c->tp, c->peer, &reason);
    return gapless_error_set(error, GAPLESS_PEER_LOST, 0, "the server is gone%s%.300s",
                             reason.text[0] != '\0' ? ": " : "", reason.text);
}

int bt_client_poll(struct bt_client *c, int64_t timeout_ns, struct gapless_error *error)
{
    struct tp_event events[EVENTS_MAX];
    int count = c->t->poll(c->tp, events, EVENTS_MAX, timeout_ns);

    if (count < 0)
        return gapless_error_set(error, count, 0, "the client cannot poll: %s",
                                 gapless_strerror(count));
    for (int i = 0; i < count; i++) {
        const struct tp_event *event = &events[i];

        if (event->kind == TP_DONE && c->under_way > 0)
            c->under_way--;
        else if (event->kind == TP_NOTE)
            c->echoes++;
        else if (event->kind == TP_DOWN)
            c->down = true;
        else if (event->kind == TP_TEXT)
            (void)snprintf(c->text, sizeof c->text, "%.*s", (int)event->bytes,
                           (const char *)event->data);
    }
    return c->down ? gone(c, error) : GAPLESS_OK;
}

static int too_late(const char *what, struct gapless_error *error)
{
    return gapless_error_set(error, GAPLESS_TIMEOUT, 0, "%s took more than %g s", what,
                             BT_BOUND_S);
}

int bt_client_send_control(struct bt_client *c, const char *text,
                           struct gapless_error *error)
{
    double end = clock_seconds() + BT_BOUND_S;
    int status;

    while ((status = c->t->send_control(c->tp, c->peer, text, (uint32_t)strlen(text),
                                        error)) == GAPLESS_AGAIN) {
        status = bt_client_poll(c, WAIT_NS, error);
        if (status != GAPLESS_OK)
            return status;
        if (clock_seconds() > end)
            return too_late("a control message", error);
    }
    return status;
}

int bt_client_hear(struct bt_client *c, struct gapless_error *error)
{
    double end = clock_seconds() + BT_BOUND_S;
    int status = GAPLESS_OK;

    c->text[0] = '\0';
    while (status == GAPLESS_OK && c->text[0] == '\0') {
        status = bt_client_poll(c, WAIT_NS, error);
        if (status == GAPLESS_OK && clock_seconds() > end)
            status = too_late("the server's answer", error);
    }
    return status;
}

/* Tries until the server is there; it may be about to be started, or have failed. */
static int connect_to(struct bt_client *c, const char *rest, pid_t server,
                      struct gapless_error *error)
{
    double end = clock_seconds() + CONNECT_S;
    int status;

    do {
        siginfo_t info = {0};

        status = c->t->connect(c->tp, rest, TRY_NS, &c->peer, error);
        if (status == GAPLESS_OK || status == GAPLESS_REFUSED ||
            status == GAPLESS_VERSION || status == GAPLESS_INVALID)
            return status;
        if (server > 0 &&
            waitid(P_PID, (id_t)server, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid == server)
            return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                     "the server did not start");
    } while (clock_seconds() < end);
    return status;
}

static size_t region_bytes(const struct bt_options *o)
{
    uint64_t most = 8u << 20;

    for (uint32_t i = 0; i < o->sizes.count; i++)
        if (o->sizes.at[i] > most)
            most = o->sizes.at[i];
    return 2 * most > BT_REGION_MIN ? (size_t)(2 * most) : BT_REGION_MIN;
}

static int open_window(struct bt_client *c, struct gapless_error *error)
{
    double end = clock_seconds() + BT_BOUND_S;
    size_t bytes = region_bytes(c->o);
    char text[64];
    int status;

    (void)snprintf(text, sizeof text, "region %zu", bytes);
    status = bt_client_send_control(c, text, error);
    if (status != GAPLESS_OK)
        return status;
    while ((status = c->t->window(c->tp, c->peer, 0, TRY_NS, &c->window, error)) ==
               GAPLESS_AGAIN ||
           status == GAPLESS_TIMEOUT) {
        if (clock_seconds() > end)
            return too_late("the grant of the server's memory", error);
        status = bt_client_poll(c, 0, error);
        if (status != GAPLESS_OK)
            return status;
    }
    if (status == GAPLESS_OK && c->window.bytes < bytes)
        status = gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                   "the server granted %zu bytes instead of %zu",
                                   c->window.bytes, bytes);
    return status;
}

int bt_client_open(const struct bt_options *o, pid_t server, struct bt_client *ret,
                   struct gapless_error *error)
{
    struct tp_config config = {
        .notes_max = BT_NOTES,
        .spin_ns = o->sleep ? 1 : BT_SPIN_NS,
        .net = {.token = o->net.token,
                .token_bytes = o->net.token_bytes,
                .insecure = o->net.insecure,
                .devices = o->net.devices,
                .channels = o->net.channels,
                .exact = true},
    };
    const char *rest;
    int status;

    *ret = (struct bt_client){.o = o};
    status = backend_find(o->address, &ret->t, &rest, error);
    if (status == GAPLESS_OK)
        status = ret->t->open(&config, &ret->tp, error);
    if (status == GAPLESS_OK)
        status = connect_to(ret, rest, server, error);
    if (status == GAPLESS_OK)
        status = open_window(ret, error);
    if (status != GAPLESS_OK)
        return status;
    (void)ret->t->describe(ret->tp, ret->peer, ret->link, sizeof ret->link);
    ret->local = malloc(ret->window.bytes);
    if (ret->local == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %zu bytes; measure smaller --sizes",
                                 ret->window.bytes);
    memset(ret->local, 1, ret->window.bytes);
    if (!ret->t->mapped)
        memset(ret->window.base, 2, ret->window.bytes);
    return GAPLESS_OK;
}

void bt_client_close(struct bt_client *c)
{
    if (c->t != NULL)
        c->t->close(c->tp);
    free(c->local);
    c->local = NULL;
    c->tp = NULL;
}

/* ---- one operation ------------------------------------------------------- */

static size_t place(const struct bt_client *c, uint64_t bytes, uint64_t i)
{
    return (size_t)(i % (c->window.bytes / bytes) * bytes);
}

/* Starts one, as soon as there is room for it. */
static int start(struct bt_client *c, enum bt_op op, uint64_t bytes, uint64_t i,
                 uint32_t note, struct gapless_error *error)
{
    bool get = op == BT_READ || op == BT_READ_LAT;
    size_t at = place(c, bytes, i);
    unsigned char *remote = (unsigned char *)c->window.base + at;
    double end = 0.0;
    int status;

    if (c->t->mapped && !get)
        memcpy(remote, c->local + at, bytes);
    for (;;) {
        status = get ? c->t->get(c->tp, c->peer, &c->window, at, bytes, note)
                     : c->t->put(c->tp, c->peer, &c->window, at, bytes, note);
        if (status != GAPLESS_AGAIN)
            break;
        if (end <= 0.0)
            end = clock_seconds() + BT_BOUND_S;
        else if (clock_seconds() > end)
            return too_late("room in the queue", error);
        /* That there is room again is no event, so this must not wait for one. */
        status = bt_client_poll(c, c->o->sleep ? ROOM_NS : 0, error);
        if (status != GAPLESS_OK)
            return status;
        (void)sched_yield();
    }
    if (c->t->mapped && get)
        memcpy(c->local + at, remote, bytes);
    if (status == 1)
        c->under_way++;
    else if (status == GAPLESS_PEER_LOST)
        return gone(c, error);
    else if (status != GAPLESS_OK)
        return gapless_error_set(error, status, 0, "%s of %llu bytes: %s",
                                 bt_op_names[op], (unsigned long long)bytes,
                                 gapless_strerror(status));
    return GAPLESS_OK;
}

static int finish(struct bt_client *c, struct gapless_error *error)
{
    uint64_t before = c->under_way;
    double end = 0.0;
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && c->under_way > 0) {
        status = bt_client_poll(c, WAIT_NS, error);
        if (c->under_way < before || end <= 0.0) {
            before = c->under_way;
            end = clock_seconds() + BT_BOUND_S;
        } else if (clock_seconds() > end) {
            return too_late("a completion", error);
        }
    }
    return status;
}

/* ---- bandwidth ----------------------------------------------------------- */

static int round_of(struct bt_client *c, enum bt_op op, uint64_t bytes, uint64_t count,
                    double *ret_seconds, struct gapless_error *error)
{
    double began = clock_seconds();
    int status = GAPLESS_OK;

    for (uint64_t i = 0; i < count && status == GAPLESS_OK; i++)
        status = start(c, op, bytes, i, (uint32_t)(i & 0xffffu), error);
    if (status == GAPLESS_OK)
        status = finish(c, error);
    *ret_seconds = clock_seconds() - began;
    return status;
}

static double median_of(const double *value, int count)
{
    double sorted[ROUNDS_MAX];

    memcpy(sorted, value, (size_t)count * sizeof *sorted);
    bench_sort(sorted, (size_t)count);
    return sorted[count / 2];
}

/* Do the last rounds agree? */
static bool settled(const double *rate, int count)
{
    double low = INFINITY, high = 0.0;

    if (count < ROUNDS_STABLE)
        return false;
    for (int i = count - ROUNDS_STABLE; i < count; i++) {
        low = fmin(low, rate[i]);
        high = fmax(high, rate[i]);
    }
    return high - low <= SPREAD * high;
}

/* What the processor does by itself: the same copies without a transport. */
static double copy_rate(struct bt_client *c, uint64_t bytes, double seconds)
{
    double best = 0.0, end = clock_seconds() + seconds;
    uint64_t each = c->window.bytes / bytes; /* all of it, as the operations do */

    do {
        double began = clock_seconds();

        for (uint64_t i = 0; i < each; i++) {
            size_t at = place(c, bytes, i);

            memcpy((unsigned char *)c->window.base + at, c->local + at, bytes);
        }
        best = fmax(best, (double)(each * bytes) / (clock_seconds() - began));
    } while (clock_seconds() < end);
    return best * 1e-9;
}

static void count_per_op(const struct bt_client *c, const struct tp_counters *from,
                         uint64_t ops, struct bt_counts *ret)
{
    struct tp_counters to;
    double n = (double)ops;

    c->t->count(c->tp, &to);
    ret->requests = (double)(to.requests - from->requests) / n;
    ret->doorbells = (double)(to.doorbells - from->doorbells) / n;
    ret->completions = (double)(to.completions - from->completions) / n;
    ret->wakeups = (double)(to.wakeups - from->wakeups) / n;
}

int bt_bandwidth(struct bt_client *c, enum bt_op op, uint64_t bytes,
                 struct bt_figure *ret, struct gapless_error *error)
{
    struct bt_figure figure = bt_figure_of(op, bytes);
    double target = c->o->seconds / 16.0, seconds = 0.0, rate[ROUNDS_MAX];
    uint64_t count = 1;
    struct tp_counters from;
    int rounds = 0, status;

    /* Warms up, and finds how many make a round. */
    while ((status = round_of(c, op, bytes, count, &seconds, error)) == GAPLESS_OK &&
           seconds < target && count < (1ull << 40))
        count *= seconds < target / 16.0 ? 8 : 2;
    c->t->count(c->tp, &from);
    while (status == GAPLESS_OK && rounds < ROUNDS_MAX && !figure.stable &&
           (figure.seconds < c->o->seconds || rounds < 3)) {
        status = round_of(c, op, bytes, count, &seconds, error);
        rate[rounds++] = 1e-9 * (double)(count * bytes) / seconds;
        figure.seconds += seconds;
        figure.ops += count;
        figure.stable = settled(rate, rounds);
    }
    if (status != GAPLESS_OK)
        return status;
    count_per_op(c, &from, figure.ops, &figure.client);
    figure.gb_s = median_of(rate, rounds);
    for (int i = 0; i < rounds; i++)
        figure.gb_s_best = fmax(figure.gb_s_best, rate[i]); /* the first replaces NaN */
    figure.mean_us = 1e6 * figure.seconds / (double)figure.ops;
    if (c->t->mapped)
        figure.ceiling_gb_s = copy_rate(c, bytes, c->o->seconds / 8.0);
    *ret = figure;
    return GAPLESS_OK;
}

/* ---- latency ------------------------------------------------------------- */

static int wait_echo(struct bt_client *c, uint64_t upto, struct gapless_error *error)
{
    double end = 0.0;
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && c->echoes < upto) {
        status = bt_client_poll(c, WAIT_NS, error);
        if (c->echoes < upto && end <= 0.0)
            end = clock_seconds() + BT_BOUND_S;
        else if (c->echoes < upto && clock_seconds() > end)
            return too_late("an echo", error);
    }
    return status;
}

/* One operation from its start to its end, in ticks. */
static int once(struct bt_client *c, enum bt_op op, uint64_t bytes, double *ret_ticks,
                struct gapless_error *error)
{
    uint64_t upto = c->echoes + 1;
    uint64_t began = bt_ticks(), ended;
    int status = start(c, op, bytes, 0, op == BT_WRITE_LAT ? BT_ECHO : 1u, error);

    if (status == GAPLESS_OK)
        status = op == BT_WRITE_LAT ? wait_echo(c, upto, error) : finish(c, error);
    ended = bt_ticks();
    *ret_ticks = ended > began ? (double)(ended - began) : 0.0;
    if (status == GAPLESS_OK && op == BT_WRITE_LAT)
        status = finish(c, error); /* of the put itself; it has arrived already */
    return status;
}

int bt_latency(struct bt_client *c, enum bt_op op, uint64_t bytes,
               struct bt_figure *ret, struct gapless_error *error)
{
    struct bt_figure figure = bt_figure_of(op, bytes), half = figure;
    double *sample = malloc(BT_SAMPLES_MAX * sizeof *sample), scale, ignored = 0.0;
    struct bt_scale clock;
    struct tp_counters from;
    double end;
    int status = GAPLESS_OK;

    if (sample == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for samples");
    for (int i = 0; i < WARM_UP && status == GAPLESS_OK; i++)
        status = once(c, op, bytes, &ignored, error);
    c->t->count(c->tp, &from);
    clock = bt_scale_start();
    end = clock.seconds + c->o->seconds;
    for (uint64_t i = 0; status == GAPLESS_OK && i < BT_SAMPLES_MAX; i++) {
        /* The clock is looked at now and then, for it may be slow. */
        if (i % 16 == 0 && clock_seconds() > end &&
            (i >= LATENCY_MIN || clock_seconds() > end + BT_BOUND_S))
            break;
        status = once(c, op, bytes, &sample[i], error);
        figure.ops = i + 1;
    }
    if (status == GAPLESS_OK) {
        scale = 1e6 * bt_scale_end(&clock) * (op == BT_WRITE_LAT ? 0.5 : 1.0);
        figure.seconds = clock_seconds() - clock.seconds;
        count_per_op(c, &from, figure.ops, &figure.client);
        bt_quantiles(sample, figure.ops / 2, scale, &half);
        bt_quantiles(sample, figure.ops, scale, &figure);
        figure.stable = fabs(half.p50_us - figure.p50_us) <= 0.05 * figure.p50_us;
        *ret = figure;
    }
    free(sample);
    return status;
}
