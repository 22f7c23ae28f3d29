/* A worker: open, pull, push. */
#include "engine/worker/worker.h"

#include "engine/base/process.h"
#include "engine/run/layout.h"
#include "engine/run/network.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_NS 60000000000ll
/* Look at the clock so often while waiting. */
#define SLICE_NS 100000000ll

static void on_note(void *user, uint32_t note)
{
    fetch_note(user, note);
}

static void fill_hello(const struct gapless_worker_config *config,
                       struct wire_hello *ret)
{
    char host[32] = "host";

    (void)gethostname(host, sizeof host - 1);
    *ret = (struct wire_hello){
        .head = wire_head(WIRE_HELLO), .role = WIRE_WORKER, .pid = (uint32_t)getpid()};
    (void)snprintf(ret->version, sizeof ret->version, "%s", gapless_version());
    ret->wish = config->wish > 0 ? config->wish - 1 : 0;
    ret->ahead = config->ahead ? 1 : 0;
    if (config->name != NULL)
        (void)snprintf(ret->name, sizeof ret->name, "%s", config->name);
    else
        (void)snprintf(ret->name, sizeof ret->name, "%ld@%s", (long)getpid(), host);
}

int gapless_worker_open(const struct gapless_worker_config *config,
                        struct gapless_worker **ret, struct gapless_error *error)
{
    struct wire_hello hello;
    struct worker_buffers buffers = {0};
    struct gapless_worker *w;
    int status;

    status = buffers_look(config, &buffers, error);
    if (status != GAPLESS_OK)
        return status;
    fill_hello(config, &hello);
    if (config->model.tensors != NULL) {
        status = layout_measure(&config->model, &hello.count, &hello.model_hash, error);
        if (status != GAPLESS_OK)
            return status;
    }
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a worker");
    w->compute = compute_cpu();
    w->by_range = config->by_range;
    w->ahead = config->ahead;
    w->scratch = config->scratch_params;
    w->factor = 1;
    w->buffers = buffers;
    w->wait_ns = config->wait_ns > 0 ? config->wait_ns : WAIT_NS;
    status = client_open(&w->client,
                         &(struct client_wishes){.address = config->address,
                                                 .hello = &hello,
                                                 .connect_ns = config->connect_ns,
                                                 .spin_ns = config->spin_ns,
                                                 .net = &config->net,
                                                 .on_note = on_note,
                                                 .user = w},
                         error);
    if (status == GAPLESS_OK)
        status = worker_map(w, error);
    if (status == GAPLESS_OK)
        status = buffers_open(w, config, error);
    if (status != GAPLESS_OK) {
        gapless_worker_close(w);
        return status;
    }
    *ret = w;
    return GAPLESS_OK;
}

const float *gapless_worker_params(const struct gapless_worker *w)
{
    return w->buffers.params != NULL ? w->buffers.params : w->params;
}

float *gapless_worker_grad(struct gapless_worker *w)
{
    return w->buffers.grad != NULL ? w->buffers.grad : w->grad;
}

uint64_t gapless_worker_count(const struct gapless_worker *w)
{
    return w->client.welcome.count;
}

uint32_t gapless_worker_steps(const struct gapless_worker *w)
{
    return w->steps;
}

uint64_t gapless_worker_next(const struct gapless_worker *w)
{
    return w->ahead && w->has_params ? w->next : GAPLESS_NO_BATCH;
}

uint32_t gapless_worker_number(const struct gapless_worker *w)
{
    return w->client.welcome.number;
}

const char *gapless_worker_job(const struct gapless_worker *w)
{
    return w->client.welcome.job;
}

void gapless_worker_round_trip(const struct gapless_worker *w,
                               struct gapless_round_trip *ret)
{
    *ret = (struct gapless_round_trip){w->norm_ns, w->head->check_ns, w->head->pass_ns};
}

/* GAPLESS_INVALID in a process that was forked since. */
static int check_process(const struct gapless_worker *w, struct gapless_error *error)
{
    return process_check(w->client.owner, "this worker", error);
}

static int64_t left_of(const struct gapless_worker *w, uint64_t began_ns)
{
    return w->wait_ns - (int64_t)(w->client.transport->now_ns(w->client.tp) - began_ns);
}

static int too_late(const struct gapless_worker *w, struct gapless_error *error)
{
    return gapless_error_set(
        error, GAPLESS_TIMEOUT, 0,
        "the master at %s gave " WORKER_NAME " no parameters within %.1f s: it "
        "may be stopped, or waiting for others (a synchronous rule waits "
        "for the slowest)",
        w->client.address, w->client.welcome.number, 1e-9 * (double)w->wait_ns);
}

static int wait_some(struct gapless_worker *w, uint64_t began_ns,
                     struct gapless_error *error)
{
    int64_t left = left_of(w, began_ns);

    if (left <= 0)
        return too_late(w, error);
    return client_poll(&w->client, left < SLICE_NS ? left : SLICE_NS, error);
}

/* RULE_PUBLISHED: what tells the master where this gradient was computed. */
static void report_dots(struct gapless_worker *w)
{
    const uint32_t *first = shared_stats_blocks(w->client.shared_stats);
    const uint32_t *ends = first + w->client.welcome.ranges + 1;
    uint32_t r;

    for (r = 0; r < w->client.welcome.ranges; r++) {
        const struct blocks blocks = {.ends = ends + first[r],
                                      .count = first[r + 1] - first[r]};
        size_t from = (size_t)w->starts[r];

        w->compute->dots(w->grad + from, w->copy + from, &blocks,
                         (size_t)w->starts[r + 1] - from, w->dots + first[r]);
    }
}

/* EASGD: the worker's half of an exchange, or where it starts from. */
static void meet(struct gapless_worker *w)
{
    size_t bytes = w->padded * sizeof(float);

    if (w->fresh) {
        memcpy(w->own, w->given, bytes);
        if (w->velocity != NULL)
            memset(w->velocity, 0, bytes);
    } else if (w->exchanged) {
        w->compute->approach(w->own, w->given, (float)w->client.welcome.alpha,
                             w->padded);
    }
    w->fresh = w->exchanged = false;
}

/* The parameters in the slot are the caller's to write into, as they are now. */
static int make_scratch(struct gapless_worker *w, struct gapless_error *error)
{
    if (!w->scratch || w->params != w->given || w->buffers.kind != BUFFERS_OWN)
        return GAPLESS_OK;
    return w->client.transport->scratch(w->client.tp, &w->slot,
                                        (size_t)w->client.welcome.sent_at,
                                        w->padded * sizeof(float), error);
}

int gapless_worker_pull(struct gapless_worker *w, uint64_t *ret_batch,
                        struct gapless_error *error)
{
    uint64_t began = w->client.transport->now_ns(w->client.tp);
    int status = check_process(w, error);

    if (status != GAPLESS_OK)
        return status;
    if (w->has_params)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "pull before the gradient of the last pull was pushed");
    status = buffers_sound(&w->buffers, error);
    while (status == GAPLESS_OK) {
        status = fetch_ahead(w, error);
        if (status != GAPLESS_OK || fetch_done(w))
            break;
        status = wait_some(w, began, error);
    }
    if (status == GAPLESS_OK && !w->over)
        status = fetch_mapped(w, error);
    /* That the run is over is the master's last word; it may be gone by now. */
    if (status != GAPLESS_OK && !(status == GAPLESS_PEER_LOST && w->over))
        return status;
    if (w->over || w->head->stop != 0)
        return gapless_error_set(error, GAPLESS_STOPPED, 0, "the run is over");
    status = fetch_published(w, began + (uint64_t)w->wait_ns, error);
    if (status != GAPLESS_OK)
        return status;
    fetch_again(w);
    early_again(w);
    w->rate = w->head->rate;
    if (w->own != NULL)
        meet(w);
    status = buffers_fill(w, error);
    if (status == GAPLESS_OK)
        status = make_scratch(w, error);
    if (status != GAPLESS_OK)
        return status;
    w->has_params = true;
    w->steps = w->head->steps < UINT32_MAX ? (uint32_t)w->head->steps : UINT32_MAX;
    w->next = w->head->next;
    *ret_batch = w->batch = w->head->ticket;
    return GAPLESS_OK;
}

int gapless_worker_poll(struct gapless_worker *w, int64_t timeout_ns,
                        struct gapless_error *error)
{
    uint64_t began = w->client.transport->now_ns(w->client.tp);
    bool ready = false;
    int status = check_process(w, error);

    if (status == GAPLESS_OK)
        status = worker_look(w, &ready, error);
    while (status == GAPLESS_OK && !ready) {
        int64_t left =
            timeout_ns - (int64_t)(w->client.transport->now_ns(w->client.tp) - began);

        if (left <= 0 || w->has_params)
            return GAPLESS_AGAIN;
        status = client_poll(&w->client, left < SLICE_NS ? left : SLICE_NS, error);
        if (status == GAPLESS_OK)
            status = worker_look(w, &ready, error);
    }
    return status == GAPLESS_PEER_LOST && w->over ? GAPLESS_OK : status;
}

size_t worker_norm_cut(const struct gapless_worker *w)
{
    return w->padded > WIRE_WARMUP_ABOVE ? w->padded - WIRE_WARMUP_REST : 0;
}

/* The sum of squares of the gradient; tells the master when it is nearly there. */
static double norm_sq(struct gapless_worker *w)
{
    size_t most = worker_norm_cut(w);
    double sum = 0;

    if (most > 0) {
        sum = w->compute->norm_sq(w->grad, most);
        if (w->client.transport->mapped)
            (void)client_put(&w->client, &w->slot, 0, 0, NOTE(NOTE_WARMUP, 0), NULL);
    }
    return sum + w->compute->norm_sq(w->grad + most, w->padded - most);
}

/* The same where parts are treated differently. */
static int prepare_parts(struct gapless_worker *w, double *ret_norm)
{
    int status = parts_prepare(w, parts_pass, ret_norm, NULL);

    if (status == GAPLESS_OK && w->copy != NULL)
        report_dots(w);
    return status;
}

/* Norm, clipping, decay: what is a function of the worker's own vectors alone.
 * GAPLESS_NOT_FINITE, without a text. */
static int prepare(struct gapless_worker *w, double *ret_norm)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    double norm;

    if (w->parts != NULL)
        return prepare_parts(w, ret_norm);
    norm = sqrt(norm_sq(w));
    if (!isfinite(norm))
        return GAPLESS_NOT_FINITE;
    if (welcome->clip_norm > 0 && norm > welcome->clip_norm) {
        w->compute->scale(w->grad, (float)(welcome->clip_norm / norm), w->padded);
        norm = welcome->clip_norm;
    }
    if (welcome->weight_decay > 0)
        norm = sqrt(w->compute->decay(w->grad, w->params, (float)welcome->weight_decay,
                                      w->padded));
    if (!isfinite(norm))
        return GAPLESS_NOT_FINITE;
    if (w->copy != NULL)
        report_dots(w);
    if (welcome->slim != 0)
        w->compute->slim(w->grad, w->velocity, (float)welcome->momentum, w->padded);
    *ret_norm = norm;
    return GAPLESS_OK;
}

/* EASGD: one step of the worker's own; at the end of a period the parameters take the
 * gradient's place and are what is pushed. GAPLESS_NOT_FINITE: it led to what is not
 * finite, and the worker will start again from what it is given. */
static int step(struct gapless_worker *w)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    struct part_pass parts = {
        .kind = PART_LOCAL, .factor = welcome->momentum, .rate = w->rate * w->factor};
    bool bad;

    if (w->parts != NULL)
        (void)parts_pass(w, &parts, NULL);
    bad = w->parts != NULL
              ? parts.bad
              : !w->compute->local(
                    w->own, w->grad,
                    welcome->elastic == WIRE_ELASTIC_NESTEROV ? w->velocity : NULL,
                    (float)parts.rate, (float)welcome->momentum, w->padded);
    if (bad) {
        w->fresh = true;
        return GAPLESS_NOT_FINITE;
    }
    w->exchanged = ++w->used % welcome->period == 0;
    if (w->exchanged)
        memcpy(w->grad, w->own, w->padded * sizeof(float));
    return GAPLESS_OK;
}

int worker_put(struct gapless_worker *w, uint64_t at, uint64_t bytes, uint32_t note,
               struct gapless_error *error)
{
    const struct transport *t = w->client.transport;
    uint64_t began = t->now_ns(w->client.tp);
    int status;

    for (;;) {
        status =
            client_put(&w->client, &w->slot, (size_t)at, (size_t)bytes, note, error);
        if (status == GAPLESS_PEER_LOST && w->over)
            return GAPLESS_OK; /* too late, as the next pull will say */
        if (status != GAPLESS_AGAIN)
            return status;
        if ((int64_t)(t->now_ns(w->client.tp) - began) > w->wait_ns)
            return gapless_error_set(
                error, GAPLESS_TIMEOUT, 0,
                "the master at %s did not take " WORKER_NAME "'s gradient "
                "within %.1f s: it may be stopped",
                w->client.address, w->client.welcome.number, 1e-9 * (double)w->wait_ns);
        status = client_poll(&w->client, SLICE_NS, error);
        if (status == GAPLESS_OK)
            status = fetch_ahead(w, error);
        if (status != GAPLESS_OK)
            return status;
    }
}

/* Range by range, so that the wire and the master's arithmetic overlap; where nothing
 * is moved, at once. The first put brings what is reported beside the gradient, too. */
static int put_ranges(struct gapless_worker *w, struct gapless_error *error)
{
    bool mapped = w->client.transport->mapped;
    uint64_t base = w->client.welcome.grad_at, from = mapped ? base : w->reported_from,
             to;
    uint32_t r;
    int status;

    if (mapped && !w->by_range)
        return worker_put(w, base, w->padded * sizeof(float),
                          NOTE(NOTE_PUSH, NOTE_ALL_RANGES), error);
    for (r = 0; r < w->client.welcome.ranges; r++) {
        to = base + w->starts[r + 1] * sizeof(float);
        status = worker_put(w, from, to - from, NOTE(NOTE_PUSH, r), error);
        if (status != GAPLESS_OK)
            return status;
        from = to;
    }
    return GAPLESS_OK;
}

/* What is done to a gradient at the worker. GAPLESS_NOT_FINITE, without a text: it is
 * dropped. Otherwise a failure of the caller's GPU. */
static int finish_gradient(struct gapless_worker *w, double *ret_norm,
                           struct gapless_error *error)
{
    int status = buffers_take(w, error);

    if (status == GAPLESS_OK && w->buffers.kind == BUFFERS_DIRECT)
        return direct_prepare(w, ret_norm, error);
    if (status == GAPLESS_OK)
        status = prepare(w, ret_norm);
    if (status == GAPLESS_OK && w->own != NULL)
        status = step(w);
    return status;
}

static int put_bad(struct gapless_worker *w, struct gapless_error *error)
{
    int status = worker_put(w, w->client.welcome.push_at, sizeof *w->push,
                            NOTE(NOTE_BAD, 0), error);

    if (status != GAPLESS_OK)
        return status;
    return gapless_error_set(error, GAPLESS_NOT_FINITE, 0,
                             WORKER_NAME
                             ": the gradient of batch %llu is not finite; it was "
                             "dropped and reported, the run goes on",
                             w->client.welcome.number, (unsigned long long)w->batch);
}

int gapless_worker_push(struct gapless_worker *w, double loss,
                        struct gapless_error *error)
{
    uint64_t began = w->client.transport->now_ns(w->client.tp);
    double norm = 0;
    int status = check_process(w, error);

    if (status != GAPLESS_OK)
        return status;
    if (!w->has_params)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "push without a pull before it");
    w->has_params = false;
    if (w->early.puts > 0)
        return early_finish(w, loss, error);
    status = finish_gradient(w, &norm, error);
    if (status != GAPLESS_OK && status != GAPLESS_NOT_FINITE)
        return status;
    w->norm_ns = w->client.transport->now_ns(w->client.tp) - began;
    w->push->loss = loss;
    w->push->norm = norm;
    w->push->rate = w->factor;
    if (status == GAPLESS_NOT_FINITE)
        return put_bad(w, error);
    if (w->own != NULL && !w->exchanged)
        return worker_put(w, w->client.welcome.push_at, sizeof *w->push,
                          NOTE(NOTE_LOCAL, 0), error);
    return put_ranges(w, error);
}

int gapless_worker_set_rate(struct gapless_worker *w, double factor)
{
    if (!isfinite(factor) || factor < 0 || check_process(w, NULL) != GAPLESS_OK)
        return GAPLESS_INVALID;
    w->factor = factor;
    return GAPLESS_OK;
}

void worker_lend(struct gapless_worker *w, float *grad)
{
    w->grad = grad;
}

void worker_lend_sent(struct gapless_worker *w, const float *sent)
{
    if (w->given == NULL)
        return; /* it reads what is published for all */
    if (w->params == w->given)
        w->params = sent;
    w->given = sent;
}

int worker_look(struct gapless_worker *w, bool *ret_ready, struct gapless_error *error)
{
    int status = client_poll(&w->client, 0, error);

    if (status == GAPLESS_OK)
        status = fetch_ahead(w, error);
    if (status == GAPLESS_OK)
        *ret_ready = !w->has_params && fetch_done(w);
    return status;
}

uint64_t worker_bytes(const struct gapless_worker *w)
{
    uint64_t vectors = (w->velocity != NULL ? 1u : 0u) + (w->own != NULL ? 1u : 0u) +
                       (w->copy != NULL ? 1u : 0u);

    return sizeof *w + vectors * w->padded * sizeof(float);
}

void worker_abandon(struct gapless_worker *w)
{
    if (w == NULL)
        return;
    if (process_is(w->client.owner)) /* a GPU is the parent's */
        buffers_close(w);
    client_close(&w->client);
    free(w->velocity);
    free(w->own);
    free(w->copy);
    free(w->listed);
    free(w->begun);
    free(w->parts);
    early_close(w);
    free(w);
}

void gapless_worker_close(struct gapless_worker *w)
{
    struct wire_head bye = wire_head(WIRE_BYE);

    if (w == NULL)
        return;
    if (w->client.connected && process_is(w->client.owner))
        (void)w->client.transport->send_control(w->client.tp, w->client.peer, &bye,
                                                sizeof bye, NULL);
    worker_abandon(w);
}

void gapless_worker_device(const struct gapless_worker *w, char *ret, size_t bytes)
{
    buffers_describe(w, ret, bytes);
}

void gapless_worker_traffic(const struct gapless_worker *w, struct gapless_traffic *ret)
{
    network_traffic(w->client.transport, w->client.tp, ret);
}

void gapless_worker_link(const struct gapless_worker *w, char *ret, size_t bytes)
{
    network_link(w->client.transport, w->client.tp, w->client.peer, ret, bytes);
}
