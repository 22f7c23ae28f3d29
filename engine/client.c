/* Hello and welcome from the client's side. */
#include "client.h"

#include <stdio.h>
#include <string.h>

#define CLIENT_EVENTS 32

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
    return gapless_error_set(
        error, GAPLESS_PEER_LOST, 0,
        "the master at %s is gone: look at its last messages, start "
        "it again, then the workers",
        c->address);
}

int client_poll(struct client *c, int64_t timeout_ns,
                void (*on_note)(void *user, uint32_t note), void *user,
                struct gapless_error *error)
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
            on_note(user, events[i].note);
        else if (events[i].kind == TP_DONE)
            c->done++;
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

static int wait_for_welcome(struct client *c, int64_t bound_ns,
                            void (*on_note)(void *user, uint32_t note), void *user,
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
        status = client_poll(c, left, on_note, user, error);
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

int client_open(struct client *ret, const char *address, const struct wire_hello *hello,
                int64_t connect_ns, int64_t spin_ns, uint32_t notes_max,
                void (*on_note)(void *user, uint32_t note), void *user,
                struct gapless_error *error)
{
    struct tp_config config = {.notes_max = notes_max,
                               .windows_max = WIRE_WINDOWS,
                               .spin_ns = (uint64_t)spin_ns};
    int64_t bound = connect_ns > 0 ? connect_ns : CLIENT_CONNECT_NS;
    const char *place;
    int status;

    *ret = (struct client){0};
    status = backend_find(address, &ret->transport, &place, error);
    if (status != GAPLESS_OK)
        return status;
    (void)snprintf(ret->address, sizeof ret->address, "%s", address);
    status = ret->transport->open(&config, &ret->tp, error);
    if (status == GAPLESS_OK)
        status = ret->transport->connect(ret->tp, place, bound, &ret->peer, error);
    if (status == GAPLESS_OK) {
        ret->connected = true;
        status = ret->transport->say(ret->tp, ret->peer, hello, sizeof *hello, error);
    }
    if (status == GAPLESS_OK)
        status = wait_for_welcome(ret, bound, on_note, user, error);
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

int client_board(struct client *c, struct gapless_error *error)
{
    struct tp_region region;
    const struct board *b;
    uint64_t last;
    int status = client_window(c, WIRE_BOARD, sizeof(struct board), &region, error);

    if (status != GAPLESS_OK)
        return status;
    b = region.base;
    if (b->head.magic != WIRE_MAGIC || b->ranges != c->welcome.ranges ||
        b->count != c->welcome.count || b->bytes > region.bytes ||
        b->workers_max > GAPLESS_WORKERS_MAX || b->starts_at > b->bytes ||
        (b->bytes - b->starts_at) / sizeof(uint64_t) < b->ranges + 1ull ||
        b->versions_at > b->bytes ||
        (b->bytes - b->versions_at) / sizeof(uint64_t) < b->ranges ||
        b->workers_at > b->bytes ||
        (b->bytes - b->workers_at) / sizeof(struct gapless_worker_stats) <
            b->workers_max)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the board of the master at %s makes no sense",
                                 c->address);
    last = board_starts(b)[b->ranges];
    if (last < b->count || last - b->count >= 16)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the ranges of the master at %s do not fit its model",
                                 c->address);
    c->board = b;
    return GAPLESS_OK;
}

void client_close(struct client *c)
{
    if (c->tp != NULL)
        c->transport->close(c->tp);
    *c = (struct client){0};
}
