/* A server and clients of the verbs transport over the fake network. */
#include "tests/verbs/bed.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

static const struct transport *const t = &transport_verbs;

struct tp_config bed_config(uint32_t peers, const char *token)
{
    return (struct tp_config){
        .peers_max = peers,
        .net = {.token = token,
                .token_bytes = token != NULL ? strlen(token) : 0,
                .insecure = token == NULL,
                .ack_timeout = 8},
    };
}

uint64_t bed_clock_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

int bed_open(struct bed_end *ret, const struct tp_config *config,
             struct gapless_error *error)
{
    *ret = (struct bed_end){0};
    return t->open(config, &ret->tp, error);
}

void bed_close(struct bed_end *end)
{
    t->close(end->tp);
    *end = (struct bed_end){0};
}

/* ---- events -------------------------------------------------------------- */

/* True: `ret` is set. Negative statuses of poll end it. */
static int look(struct bed_end *end, int64_t ns, struct tp_event *ret)
{
    if (end->next == end->count) {
        int count = t->poll(end->tp, end->events, 64, ns);

        end->next = 0;
        end->count = count > 0 ? count : 0;
        if (count <= 0)
            return count;
    }
    *ret = end->events[end->next++];
    return 1;
}

int bed_event(struct bed_end *end, enum tp_event_kind kind, struct tp_event *ret,
              int64_t timeout_ns)
{
    uint64_t bound = bed_clock_ns() + (uint64_t)timeout_ns;

    for (;;) {
        int found = look(end, 10 * MS, ret);

        if (found < 0 || (found > 0 && ret->kind == kind))
            return found < 0 ? found : GAPLESS_OK;
        if (found > 0 && ret->kind == TP_DOWN)
            return GAPLESS_PEER_LOST;
        if (found == 0 && bed_clock_ns() >= bound)
            return GAPLESS_TIMEOUT;
    }
}

struct tp_event must_event(struct bed_end *end, enum tp_event_kind kind)
{
    struct tp_event it = {0};

    assert_int_equal(bed_event(end, kind, &it, LONG_NS), GAPLESS_OK);
    return it;
}

/* ---- closing ------------------------------------------------------------- */

struct closing {
    struct bed_end *end;
    atomic_bool done;
};

static void *close_end(void *context)
{
    struct closing *it = context;

    bed_close(it->end);
    atomic_store(&it->done, true);
    return NULL;
}

void bed_close_both(struct bed_end *server, struct bed_end *client)
{
    struct closing it = {.end = client};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, close_end, &it), 0);
    while (!atomic_load(&it.done)) {
        struct timespec nap = {.tv_nsec = 100000};

        if (server->tp != NULL)
            (void)t->poll(server->tp, server->events, 64, 0);
        (void)nanosleep(&nap, NULL);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    bed_close(server);
}

/* ---- connecting ---------------------------------------------------------- */

struct joining {
    struct bed_end *client;
    const char *address;
    int64_t timeout_ns;
    struct gapless_error *error;
    tp_peer *ret;
    int status;
    atomic_bool done;
};

static void *join(void *context)
{
    struct joining *it = context;

    it->status =
        t->connect(it->client->tp, it->address, it->timeout_ns, it->ret, it->error);
    atomic_store(&it->done, true);
    return NULL;
}

int bed_join(struct bed_end *server, struct bed_end *client, const char *address,
             int64_t timeout_ns, tp_peer *ret, tp_peer *ret_server,
             struct gapless_error *error)
{
    struct joining it = {.client = client,
                         .address = address,
                         .timeout_ns = timeout_ns,
                         .error = error,
                         .ret = ret};
    struct tp_event event;
    pthread_t thread;
    bool up = false;
    int status = 0;

    assert_int_equal(pthread_create(&thread, NULL, join, &it), 0);
    while (!atomic_load(&it.done)) {
        struct timespec nap = {.tv_nsec = 100000};

        status = look(server, 0, &event);
        if (status > 0 && event.kind == TP_UP) {
            *ret_server = event.peer;
            up = true;
        } else if (status <= 0)
            (void)nanosleep(&nap, NULL);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (it.status != GAPLESS_OK || up)
        return it.status;
    status = bed_event(server, TP_UP, &event, pace_most_ns(500 * MS));
    if (status == GAPLESS_OK)
        *ret_server = event.peer;
    return status;
}

void bed_request_mac(struct rdma_cm_id *id, const char *token, uint8_t ret[16])
{
    static const char what[] = "gapless request";
    const struct sockaddr *ends[2] = {rdma_get_local_addr(id), rdma_get_peer_addr(id)};
    uint8_t all[sizeof what + 2 * 18] = {0}, key[32];

    memcpy(all, what, sizeof what);
    for (int i = 0; i < 2; i++) {
        const struct sockaddr_in *it =
            (const struct sockaddr_in *)(const void *)ends[i];
        uint8_t *at = all + sizeof what + (size_t)18 * (size_t)i;
        uint16_t port = ntohs(it->sin_port);

        memset(at + 10, 0xff, 2);
        memcpy(at + 12, &it->sin_addr, 4);
        memcpy(at + 16, &port, 2);
    }
    (void)crypto_generichash(key, sizeof key, (const uint8_t *)token, strlen(token),
                             NULL, 0);
    (void)crypto_generichash(ret, 16, all, sizeof all, key, sizeof key);
}

void must_open(struct bed_end *ret, const struct tp_config *config)
{
    struct gapless_error error = {0};

    if (bed_open(ret, config, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
}

void must_join(struct bed *bed, struct bed_end *client, const char *address,
               tp_peer *ret, tp_peer *ret_server, struct tp_region *ret_window)
{
    struct gapless_error error = {0};
    int status =
        bed_join(&bed->server, client, address, LONG_NS, ret, ret_server, &error);

    if (status == GAPLESS_OK)
        status =
            t->grant(bed->server.tp, *ret_server, &bed->region, 0, TP_SPLIT, &error);
    if (status == GAPLESS_OK)
        status = t->window(client->tp, *ret, 0, LONG_NS, ret_window, &error);
    if (status != GAPLESS_OK)
        fail_msg("status %d: %s", status, error.text);
}

void must_bed(struct bed *ret, const char *address, size_t bytes)
{
    struct tp_config config = bed_config(4, "a token of this run");
    struct gapless_error error = {0};

    *ret = (struct bed){0};
    must_open(&ret->server, &config);
    config.peers_max = 1;
    must_open(&ret->client, &config);
    if (t->region_new(ret->server.tp, bytes, &ret->region, &error) != GAPLESS_OK ||
        t->listen(ret->server.tp, address, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    ret->region.split = bytes / 2;
    must_join(ret, &ret->client, address, &ret->to_server, &ret->to_client,
              &ret->window);
}

void must_work(struct bed_end *server, tp_peer to_client, struct bed_end *client,
               tp_peer to_server, struct tp_region *window, struct tp_region *region)
{
    static uint32_t turn;
    size_t half = region->split;
    uint32_t mark = ++turn;
    struct tp_event event;
    int status;

    memset((char *)region->base, (int)(mark & 127), half);
    memset((char *)window->base + half, (int)(mark & 127) + 1, half);
    status = t->put(client->tp, to_server, window, half, half, mark);
    assert_true(status == GAPLESS_OK || status == 1);
    do
        event = must_event(server, TP_NOTE);
    while (event.peer != to_client);
    assert_int_equal(event.note, mark);
    assert_memory_equal((char *)region->base + half, (char *)window->base + half, half);
    status = t->get(client->tp, to_server, window, 0, half, mark + 7);
    assert_int_equal(status, 1);
    do
        event = must_event(client, TP_DONE);
    while (event.note != mark + 7);
    assert_memory_equal(region->base, window->base, half);
}

void must_be_clean(void)
{
    if (fake_live(NULL) != 0 || fake_faults() != 0) {
        (void)fake_end();
        fail_msg("%s", fake_fault_text());
    }
}

void bed_end(struct bed *bed)
{
    bed_close_both(&bed->server, &bed->client);
    must_be_clean();
}
