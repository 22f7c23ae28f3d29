/* The server of bench transport: grants memory, answers notes, and runs a master where
 * the client asks for one. */
#include "bench/transport/bench_transport.h"

#include "engine/base/clock.h"
#include "engine/run/backends.h"

#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 64
#define PEERS_MAX 8 /* the client, and its tries before */
#define SLICE_NS 100000000ll
#define FIRST_S 600.0 /* for a client on another machine to come */
#define FIRST_FORKED_S 30.0
#define REGION_MAX (4ull << 30)

struct server {
    const struct bt_options *o;
    const struct transport *t;
    struct tp *tp;
    struct tp_region region;
    bool granted, joined, over;
    tp_peer peer;
    uint64_t owed; /* echoes that found the queue full */
};

static void echo(struct server *s)
{
    while (s->owed > 0 && s->t->notify(s->tp, s->peer, BT_ECHO) == GAPLESS_OK)
        s->owed--;
}

static int give_region(struct server *s, const char *text, struct gapless_error *error)
{
    unsigned long long bytes = strtoull(text, NULL, 10);
    int status;

    if (s->granted || bytes == 0 || bytes > REGION_MAX)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the client asked for a region of '%.40s' bytes",
                                 text);
    if (s->o->place != NULL && bytes > s->region.bytes)
        return gapless_error_set(error, GAPLESS_CAPACITY, 0,
                                 "the client asked for %llu bytes of %zu", bytes,
                                 s->region.bytes);
    status = s->o->place != NULL
                 ? GAPLESS_OK
                 : s->t->region_new(s->tp, (size_t)bytes, &s->region, error);
    if (status == GAPLESS_OK)
        status = s->t->grant(s->tp, s->peer, &s->region, 0, TP_READ_WRITE, error);
    s->granted = status == GAPLESS_OK;
    return status;
}

static int obey(struct server *s, const struct tp_event *event,
                struct gapless_error *error)
{
    char text[128];

    (void)snprintf(text, sizeof text, "%.*s", (int)event->bytes,
                   (const char *)event->data);
    if (strncmp(text, "region ", 7) == 0)
        return give_region(s, text + 7, error);
    if (strncmp(text, "update ", 7) == 0)
        return bt_update_serve(s->o, s->t, s->tp, s->peer, text + 7, error);
    s->over = strcmp(text, "bye") == 0;
    return s->over ? GAPLESS_OK
                   : gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                       "the client said '%.60s': is it the same "
                                       "version of gapless?",
                                       text);
}

static int take(struct server *s, const struct tp_event *event,
                struct gapless_error *error)
{
    switch (event->kind) {
    case TP_UP: /* perhaps of a try that its client has given up already */
        break;
    case TP_DOWN:
        s->over = s->over || (s->joined && event->peer == s->peer);
        break;
    case TP_TEXT:
        if (!s->joined) { /* one client, one measurement: who speaks first */
            s->joined = true;
            s->peer = event->peer;
        }
        if (event->peer == s->peer)
            return obey(s, event, error);
        s->t->drop(s->tp, event->peer);
        break;
    case TP_NOTE:
        if (s->joined && event->peer == s->peer && (event->note & BT_ECHO) != 0) {
            s->owed++;
            echo(s);
        }
        break;
    case TP_DONE:
        break;
    }
    return GAPLESS_OK;
}

static int loop(struct server *s, struct gapless_error *error)
{
    double wait = s->o->role == BENCH_SERVER ? FIRST_S : FIRST_FORKED_S;
    double end = clock_seconds() + wait;
    struct tp_event events[EVENTS_MAX];
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && !s->over) {
        int count = s->t->poll(s->tp, events, EVENTS_MAX, SLICE_NS);

        if (count < 0)
            return gapless_error_set(error, count, 0, "the server cannot poll: %s",
                                     gapless_strerror(count));
        for (int i = 0; i < count && status == GAPLESS_OK; i++)
            status = take(s, &events[i], error);
        echo(s);
        if (!s->joined && clock_seconds() > end)
            return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                                     "no client came to %.100s within %g s",
                                     s->o->address, wait);
    }
    return status;
}

int bt_serve(const struct bt_options *o)
{
    struct server s = {.o = o};
    struct gapless_error error = {0};
    struct tp_config config = {
        .peers_max = PEERS_MAX,
        .notes_max = BT_NOTES,
        .spin_ns = o->sleep ? 1 : BT_SPIN_NS,
        .net = {.token = o->net.token,
                .token_bytes = o->net.token_bytes,
                .insecure = o->net.insecure,
                .devices = o->net.devices,
                .channels = o->net.channels,
                .exact = true},
    };
    char line[256] = "";
    const char *rest;
    int status = backend_find(o->address, &s.t, &rest, &error);

    if (status == GAPLESS_OK)
        status = s.t->open(&config, &s.tp, &error);
    if (status == GAPLESS_OK)
        status = s.t->listen(s.tp, rest, &error);
    if (status == GAPLESS_OK && o->place != NULL) {
        status = s.t->region_new(s.tp, o->place_bytes, &s.region, &error);
        if (status == GAPLESS_OK)
            status = o->place(o->place_context, s.t, s.tp, &s.region, &error);
    }
    if (status == GAPLESS_OK && o->role == BENCH_SERVER) {
        (void)s.t->describe(s.tp, TP_NOBODY, line, sizeof line);
        (void)printf("gapless bench transport: serving at %s%s%s\n", o->address,
                     line[0] != '\0' ? "; " : "", line);
        (void)fflush(stdout);
    }
    if (status == GAPLESS_OK)
        status = loop(&s, &error);
    if (s.t != NULL)
        s.t->close(s.tp);
    if (status != GAPLESS_OK)
        (void)fprintf(stderr, "gapless bench transport: server: %s\n",
                      error.text[0] != '\0' ? error.text : gapless_strerror(status));
    return status == GAPLESS_OK ? 0 : 1;
}
