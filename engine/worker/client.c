/* Hello and welcome from the client's side. */
#include "engine/worker/client.h"

#include "engine/base/process.h"
#include "engine/run/network.h"

#include <stdio.h>
#include <string.h>

#define CLIENT_EVENTS 32
/* Look at the clock so often while waiting. */
#define CLIENT_SLICE_NS 100000000ll
/* For the last words of a master that has gone. */
#define CLIENT_LAST_NS 1000000000ll

static void on_text(struct client *c, const void *data, uint32_t bytes)
{
    struct wire_refused refused = {0};
    struct wire_head head = {0};

    if (bytes < sizeof head)
        return;
    memcpy(&head, data, sizeof head);
    if (head.magic != WIRE_MAGIC)
        return;
    if (head.kind == WIRE_WELCOME && bytes == sizeof c->welcome && !c->welcomed) {
        memcpy(&c->welcome, data, sizeof c->welcome);
        c->welcome.job[sizeof c->welcome.job - 1] = '\0';
        c->welcomed = true;
    } else if (head.kind == WIRE_REFUSED && bytes == sizeof refused) {
        memcpy(&refused, data, sizeof refused);
        refused.text[sizeof refused.text - 1] = '\0';
        (void)gapless_error_set(&c->refusal,
                                refused.status < 0 ? refused.status : GAPLESS_REFUSED,
                                0, "%s", refused.text);
    }
}

static int lost(const struct client *c, struct gapless_error *error)
{
    struct gapless_error reason = {0};

    c->transport->last_error(c->tp, c->peer, &reason);
    if (reason.status != GAPLESS_OK && reason.text[0] != '\0')
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "the connection to the master at %s is lost: %s",
                                 c->address, reason.text);
    return gapless_error_set(
        error, GAPLESS_PEER_LOST, 0,
        "the master at %s is gone: look at its last messages, start "
        "it again, then the workers",
        c->address);
}

int client_poll(struct client *c, int64_t timeout_ns, struct gapless_error *error)
{
    struct tp_event events[CLIENT_EVENTS];
    bool down = false;
    int n, i;

    if (!c->connected)
        return lost(c, error);
    n = c->transport->poll(c->tp, events, CLIENT_EVENTS, timeout_ns);
    if (n < 0)
        return gapless_error_set(error, n, 0,
                                 "the connection to the master at %s failed: %s",
                                 c->address, gapless_strerror(n));
    for (i = 0; i < n; i++) {
        if (events[i].kind == TP_TEXT)
            on_text(c, events[i].data, events[i].bytes);
        else if (events[i].kind == TP_NOTE)
            c->on_note(c->user, events[i].note);
        else if (events[i].kind == TP_DONE)
            c->open -= c->open > 0 ? 1 : 0;
        else if (events[i].kind == TP_DOWN)
            down = true;
    }
    if (c->refusal.status != 0) {
        if (error != NULL)
            *error = c->refusal;
        return c->refusal.status;
    }
    if (down) {
        c->connected = false;
        return lost(c, error);
    }
    return GAPLESS_OK;
}

uint64_t client_deadline(const struct client *c, int64_t timeout_ns)
{
    return c->transport->now_ns(c->tp) + (uint64_t)timeout_ns;
}

int client_lost(struct client *c, struct gapless_error *error)
{
    uint64_t deadline = client_deadline(c, CLIENT_LAST_NS);
    int status = GAPLESS_OK;

    /* What the master said before it went, or ended us, is still to be read. */
    while (status == GAPLESS_OK && c->transport->now_ns(c->tp) < deadline)
        status = client_poll(c, CLIENT_SLICE_NS, error);
    return status == GAPLESS_OK ? lost(c, error) : status;
}

static int wait_for_welcome(struct client *c, int64_t bound_ns,
                            struct gapless_error *error)
{
    uint64_t began = c->transport->now_ns(c->tp);
    int64_t left = bound_ns;
    int status;

    while (!c->welcomed) {
        if (left <= 0)
            return gapless_error_set(
                error, GAPLESS_TIMEOUT, 0,
                "the master at %s did not answer the hello within %.1f s: "
                "it may be stopped; look at it with 'gapless observe'",
                c->address, 1e-9 * (double)bound_ns);
        status = client_poll(c, left, error);
        if (status != GAPLESS_OK)
            return status;
        left = bound_ns - (int64_t)(c->transport->now_ns(c->tp) - began);
    }
    if (c->welcome.ranges == 0 || c->welcome.ranges >= GAPLESS_RANGES_MAX ||
        c->welcome.count == 0 || c->welcome.count > GAPLESS_ELEMENTS_MAX)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the welcome of the master at %s makes no sense",
                                 c->address);
    return GAPLESS_OK;
}

static int reach(struct client *c, const struct client_wishes *wishes, int64_t bound_ns,
                 struct gapless_error *error)
{
    static const struct gapless_net defaults;
    struct tp_config config = {.windows_max = WIRE_WINDOWS,
                               .spin_ns = (uint64_t)wishes->spin_ns};
    const char *place = NULL;
    int status = network_settings(wishes->net == NULL ? &defaults : wishes->net,
                                  &config.net, error);

    if (status == GAPLESS_OK)
        status = backend_find(wishes->address, &c->transport, &place, error);
    if (status != GAPLESS_OK)
        return status;
    (void)snprintf(c->address, sizeof c->address, "%s", wishes->address);
    status = c->transport->open(&config, &c->tp, error);
    if (status == GAPLESS_OK)
        status = c->transport->connect(c->tp, place, bound_ns, &c->peer, error);
    return status;
}

int client_open(struct client *ret, const struct client_wishes *wishes,
                struct gapless_error *error)
{
    int64_t bound = wishes->connect_ns > 0 ? wishes->connect_ns : CLIENT_CONNECT_NS;
    int status;

    *ret = (struct client){
        .owner = process_number(), .on_note = wishes->on_note, .user = wishes->user};
    status = reach(ret, wishes, bound, error);
    if (status == GAPLESS_OK) {
        ret->connected = true;
        status = ret->transport->send_control(ret->tp, ret->peer, wishes->hello,
                                              sizeof *wishes->hello, error);
    }
    if (status == GAPLESS_OK)
        status = wait_for_welcome(ret, bound, error);
    if (status != GAPLESS_OK)
        client_close(ret);
    return status;
}

int client_window(struct client *c, enum wire_window window, size_t bytes,
                  struct tp_region *ret, struct gapless_error *error)
{
    int status = c->transport->window(c->tp, c->peer, (uint32_t)window,
                                      CLIENT_CONNECT_NS, ret, error);

    if (status == GAPLESS_OK && ret->bytes < bytes)
        return gapless_error_set(
            error, GAPLESS_PROTOCOL, 0,
            "the master at %s granted %zu bytes where %zu are needed", c->address,
            ret->bytes, bytes);
    return status;
}

/* ---- reading and putting ------------------------------------------------- */

/* What get and put have in common. */
static int posted(struct client *c, int status, const char *what,
                  struct gapless_error *error)
{
    c->open += status == 1 ? 1 : 0;
    if (status >= 0)
        return GAPLESS_OK;
    if (status == GAPLESS_PEER_LOST)
        return client_lost(c, error);
    if (status == GAPLESS_AGAIN)
        return status;
    return gapless_error_set(error, status, 0, "%s the master at %s failed: %s", what,
                             c->address, gapless_strerror(status));
}

int client_get(struct client *c, const struct tp_region *window, size_t at,
               size_t bytes, struct gapless_error *error)
{
    return posted(c, c->transport->get(c->tp, c->peer, window, at, bytes, CLIENT_GET),
                  "reading from", error);
}

int client_put(struct client *c, const struct tp_region *window, size_t at,
               size_t bytes, uint32_t note, struct gapless_error *error)
{
    return posted(c, c->transport->put(c->tp, c->peer, window, at, bytes, note),
                  "writing to", error);
}

static int wait_until(struct client *c, uint64_t deadline_ns,
                      struct gapless_error *error)
{
    uint64_t now = c->transport->now_ns(c->tp);
    uint64_t left = now < deadline_ns ? deadline_ns - now : 0;

    if (left == 0)
        return gapless_error_set(
            error, GAPLESS_TIMEOUT, 0,
            "what was asked of the master at %s did not come in time: its machine or "
            "the network between is stopped or overloaded",
            c->address);
    return client_poll(c, left < CLIENT_SLICE_NS ? (int64_t)left : CLIENT_SLICE_NS,
                       error);
}

int client_fetch(struct client *c, const struct tp_region *window, size_t at,
                 size_t bytes, uint64_t deadline_ns, struct gapless_error *error)
{
    int status = client_get(c, window, at, bytes, error);

    while (status == GAPLESS_AGAIN) {
        status = wait_until(c, deadline_ns, error);
        if (status == GAPLESS_OK)
            status = client_get(c, window, at, bytes, error);
    }
    return status;
}

int client_drain(struct client *c, uint64_t deadline_ns, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && c->open > 0)
        status = wait_until(c, deadline_ns, error);
    return status;
}

/* ---- the shared statistics ----------------------------------------------- */

static bool shared_stats_makes_sense(const struct client *c,
                                     const struct shared_stats *b)
{
    return b->head.magic == WIRE_MAGIC && b->ranges == c->welcome.ranges &&
           b->count == c->welcome.count && b->bytes <= c->shared_stats_region.bytes &&
           b->workers_max <= GAPLESS_WORKERS_MAX && b->starts_at <= b->bytes &&
           (b->bytes - b->starts_at) / sizeof(uint64_t) >= b->ranges + 1ull &&
           b->versions_at <= b->bytes &&
           (b->bytes - b->versions_at) / sizeof(uint64_t) >= b->ranges &&
           b->workers_at <= b->bytes &&
           (b->bytes - b->workers_at) / sizeof(struct gapless_worker_stats) >=
               b->workers_max &&
           b->gates_at % sizeof(double) == 0 && b->gates_at <= b->bytes &&
           (b->bytes - b->gates_at) / sizeof(struct gate_share) >= b->gates;
}

int client_shared_stats(struct client *c, struct gapless_error *error)
{
    uint64_t deadline = client_deadline(c, CLIENT_CONNECT_NS), last;
    const struct shared_stats *b;
    int status = client_window(c, WIRE_BOARD, sizeof(struct shared_stats),
                               &c->shared_stats_region, error);

    if (status == GAPLESS_OK && !c->transport->mapped)
        status = client_fetch(c, &c->shared_stats_region, 0,
                              c->shared_stats_region.bytes, deadline, error);
    if (status == GAPLESS_OK)
        status = client_drain(c, deadline, error);
    if (status != GAPLESS_OK)
        return status;
    b = c->shared_stats_region.base;
    if (!shared_stats_makes_sense(c, b))
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the board of the master at %s makes no sense",
                                 c->address);
    last = shared_stats_starts(b)[b->ranges];
    if (last < b->count || last - b->count >= 16)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the ranges of the master at %s do not fit its model",
                                 c->address);
    c->shared_stats = b;
    return GAPLESS_OK;
}

int client_versions(struct client *c, uint64_t deadline_ns, struct gapless_error *error)
{
    int status = client_fetch(
        c, &c->shared_stats_region, (size_t)c->shared_stats->versions_at,
        c->shared_stats->ranges * sizeof(struct seq_word), deadline_ns, error);

    return status == GAPLESS_OK ? client_drain(c, deadline_ns, error) : status;
}

void client_close(struct client *c)
{
    if (c->tp != NULL)
        c->transport->close(c->tp);
    *c = (struct client){.owner = c->owner};
}
