/* What the tests of all transports share. */
#include "tests/conformance/side.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The transports of this build that need nothing but this machine. */
static const struct transport *const local[] = {&transport_shm, &transport_sim,
                                                &transport_simnet};
#if GAPLESS_HAVE_VERBS
static const struct transport *const network[] = {&transport_verbs};
#endif
static const char *network_ip; /* NULL: the local ones are tested */

struct gapless_error side_error;
char side_address[80];

bool side_is_slow(const struct side *side)
{
    return strcmp(side->t->name, "verbs") == 0;
}

static void ok(int status)
{
    if (status != GAPLESS_OK)
        print_error("%d: %s\n", status, side_error.text);
    assert_int_equal(status, GAPLESS_OK);
}

uint64_t side_clock_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void side_nap(int64_t ns)
{
    struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

    (void)nanosleep(&time, NULL);
}

/* ---- the table's entries ------------------------------------------------- */

void side_open(struct side *ret, void *state, const struct tp_config *config)
{
    struct tp_config own = config != NULL ? *config : (struct tp_config){0};

    *ret = (struct side){.t = state};
    /* Without a token, and without what would show up in a count of requests. */
    if (side_is_slow(ret) && own.net.token == NULL)
        own.net.insecure = own.net.exact = true;
    ok(ret->t->open(config == NULL && !side_is_slow(ret) ? NULL : &own, &ret->tp,
                    &side_error));
}

void side_close(struct side *side)
{
    side->t->close(side->tp);
    side->tp = NULL;
}

int side_region_new(struct side *side, size_t bytes, struct tp_region *ret)
{
    return side->t->region_new(side->tp, bytes, ret, &side_error);
}

void side_region_free(struct side *side, struct tp_region *region)
{
    side->t->region_free(side->tp, region);
}

int side_listen(struct side *side, const char *address)
{
    return side->t->listen(side->tp, address, &side_error);
}

int side_connect(struct side *side, const char *address, int64_t timeout_ns,
                 tp_peer *ret)
{
    return side->t->connect(side->tp, address, timeout_ns, ret, &side_error);
}

void side_drop(struct side *side, tp_peer peer)
{
    side->t->drop(side->tp, peer);
}

int side_send_control(struct side *side, tp_peer peer, const void *data, uint32_t bytes)
{
    return side->t->send_control(side->tp, peer, data, bytes, &side_error);
}

int side_grant(struct side *side, tp_peer peer, const struct tp_region *region,
               uint32_t window, enum tp_access access)
{
    return side->t->grant(side->tp, peer, region, window, access, &side_error);
}

int side_window(struct side *side, tp_peer peer, uint32_t window, int64_t timeout_ns,
                struct tp_region *ret)
{
    return side->t->window(side->tp, peer, window, timeout_ns, ret, &side_error);
}

int side_put(struct side *side, tp_peer peer, const struct tp_region *window,
             size_t offset, size_t bytes, uint32_t note)
{
    int status = side->t->put(side->tp, peer, window, offset, bytes, note);

    side->undone += status == 1 ? 1 : 0;
    return status;
}

int side_get(struct side *side, tp_peer peer, const struct tp_region *window,
             size_t offset, size_t bytes, uint32_t tag)
{
    int status = side->t->get(side->tp, peer, window, offset, bytes, tag);

    side->undone += status == 1 ? 1 : 0;
    return status;
}

int side_notify(struct side *side, tp_peer peer, uint32_t note)
{
    return side->t->notify(side->tp, peer, note);
}

int side_poll(struct side *side, struct tp_event *events, int max, int64_t timeout_ns)
{
    int count = side->t->poll(side->tp, events, max, timeout_ns);

    for (int i = 0; i < count; i++)
        if (events[i].kind == TP_DONE) {
            side->done[side->dones++ % SIDE_DONES] = events[i].note;
            assert_true(side->undone > 0);
            side->undone--;
        }
    return count;
}

/* ---- must succeed -------------------------------------------------------- */

void must_listen(struct side *side)
{
    ok(side_listen(side, side_address));
}

void must_region_new(struct side *side, size_t bytes, struct tp_region *ret)
{
    ok(side_region_new(side, bytes, ret));
}

void must_say(struct side *side, tp_peer peer, const char *text)
{
    ok(side_send_control(side, peer, text, (uint32_t)strlen(text)));
}

void must_grant(struct side *side, tp_peer peer, const struct tp_region *region,
                uint32_t number, enum tp_access access)
{
    ok(side_grant(side, peer, region, number, access));
}

void must_window(struct side *side, tp_peer peer, uint32_t number,
                 struct tp_region *ret)
{
    ok(side_window(side, peer, number, LONG_NS, ret));
}

void must_put(struct side *side, tp_peer peer, const struct tp_region *window,
              uint32_t note)
{
    must_put_at(side, peer, window, 0, window->bytes, note);
}

void must_put_at(struct side *side, tp_peer peer, const struct tp_region *window,
                 size_t offset, size_t bytes, uint32_t note)
{
    int status = side_put(side, peer, window, offset, bytes, note);

    if (status != 1)
        ok(status);
}

void must_get(struct side *side, tp_peer peer, const struct tp_region *window,
              size_t offset, size_t bytes)
{
    int status = side_get(side, peer, window, offset, bytes, 0);

    if (status != 1)
        ok(status);
    side_drain(side);
}

void must_notify(struct side *side, tp_peer peer, uint32_t note)
{
    ok(side_notify(side, peer, note));
}

/* ---- events -------------------------------------------------------------- */

bool side_next(struct side *side, struct tp_event *ret, int64_t timeout_ns)
{
    const int max = (int)(sizeof side->events / sizeof side->events[0]);
    uint64_t deadline = side_clock_ns() + (uint64_t)timeout_ns;

    for (bool last = false;; last = side_clock_ns() >= deadline) {
        uint64_t now = side_clock_ns();

        while (side->next < side->count) {
            *ret = side->events[side->next++];
            if (ret->kind != TP_DONE)
                return true;
        }
        if (last)
            return false;
        side->next = 0;
        side->count = side_poll(side, side->events, max,
                                now < deadline ? (int64_t)(deadline - now) : 0);
        assert_in_range(side->count, 0, max);
    }
}

void side_drain(struct side *side)
{
    const int max = (int)(sizeof side->events / sizeof side->events[0]);
    uint64_t deadline = side_clock_ns() + (uint64_t)LONG_NS;

    while (side->undone > 0) {
        int kept = 0;

        for (int i = side->next; i < side->count; i++) {
            assert_int_not_equal(side->events[i].kind, TP_TEXT);
            if (side->events[i].kind != TP_DONE) /* counted when it was polled */
                side->events[kept++] = side->events[i];
        }
        assert_true(kept < max && side_clock_ns() < deadline);
        side->next = 0;
        side->count = kept + side_poll(side, side->events + kept, max - kept, 10 * MS);
    }
}

uint32_t side_fill(struct side *side, tp_peer peer, const struct tp_region *window,
                   size_t bytes)
{
    uint32_t count = 0;
    struct tp_event event;
    int status = GAPLESS_OK;

    for (int tries = 0; tries < 3 && count < 5000;) {
        status = side_put(side, peer, window, 0, bytes, count);
        if (status >= 0) {
            count++;
            tries = 0;
            continue;
        }
        assert_int_equal(status, GAPLESS_AGAIN);
        assert_false(side_next(side, &event, pace_ns(5 * MS)));
        tries++;
    }
    assert_int_equal(status, GAPLESS_AGAIN);
    return count;
}

struct tp_event side_want(struct side *side, enum tp_event_kind kind)
{
    struct tp_event event = {.kind = TP_DONE};

    if (!side_next(side, &event, LONG_NS))
        fail_msg("waited in vain for event %d", kind);
    assert_int_equal(event.kind, kind);
    return event;
}

struct tp_event want_note(struct side *side, uint32_t note)
{
    struct tp_event event = side_want(side, TP_NOTE);

    assert_int_equal(event.note, note);
    return event;
}

void want_text(struct side *side, const char *text)
{
    struct tp_event event = side_want(side, TP_TEXT);

    assert_int_equal(event.bytes, strlen(text));
    assert_memory_equal(event.data, text, strlen(text));
}

void side_silent(struct side *side, int64_t timeout_ns)
{
    struct tp_event event;

    if (side_next(side, &event, timeout_ns))
        fail_msg("unexpected event %d of peer %u", event.kind, event.peer);
}

/* ---- connections --------------------------------------------------------- */

static void *connecting_run(void *argument)
{
    struct connecting *it = argument;

    it->status = it->side->t->connect(it->side->tp, side_address, it->timeout_ns,
                                      &it->peer, &it->error);
    return NULL;
}

void connecting_start(struct connecting *ret, struct side *side)
{
    *ret = (struct connecting){.side = side, .timeout_ns = LONG_NS};
    assert_int_equal(pthread_create(&ret->thread, NULL, connecting_run, ret), 0);
}

tp_peer connecting_end(struct connecting *it)
{
    assert_int_equal(pthread_join(it->thread, NULL), 0);
    if (it->status != GAPLESS_OK)
        print_error("connect: %s\n", it->error.text);
    assert_int_equal(it->status, GAPLESS_OK);
    return it->peer;
}

tp_peer side_join(struct side *server, struct side *client, tp_peer *ret_server)
{
    struct connecting it;
    struct tp_event event;

    connecting_start(&it, client);
    event = side_want(server, TP_UP);
    *ret_server = connecting_end(&it);
    return event.peer;
}

void pair_open(struct pair *ret, void *state, const struct tp_config *config)
{
    side_open(&ret->server, state, config);
    side_open(&ret->client, state, NULL);
    must_region_new(&ret->server, PAGE, &ret->region);
    must_listen(&ret->server);
    ret->to_client = side_join(&ret->server, &ret->client, &ret->to_server);
    must_grant(&ret->server, ret->to_client, &ret->region, 0, TP_READ_WRITE);
    must_window(&ret->client, ret->to_server, 0, &ret->window);
}

void pair_close(struct pair *pair)
{
    side_close(&pair->client);
    side_close(&pair->server);
}

/* ---- running ------------------------------------------------------------- */

/* An address for each test, so that one that fails leaves the others alone. */
void side_address_next(void)
{
    static int count;

    if (network_ip != NULL)
        /* Below 32768: from there on connections are given their ports. */
        (void)snprintf(side_address, sizeof side_address, "%s:%d", network_ip,
                       12000 + ((int)getpid() * 64 + count++) % 20000);
    else
        (void)snprintf(side_address, sizeof side_address, "conformance-%d-%d",
                       (int)getpid(), count++);
}

static int set_up(void **state)
{
    (void)state;
    side_address_next();
    return 0;
}

/* Which transports. NULL: none that this build has. */
static const struct transport *const *subjects(size_t *ret_count)
{
    const char *ip = getenv("GAPLESS_TEST_VERBS");

    *ret_count = sizeof local / sizeof local[0];
    if (ip == NULL || ip[0] == '\0')
        return local;
#if GAPLESS_HAVE_VERBS
    network_ip = ip;
    *ret_count = sizeof network / sizeof network[0];
    return network;
#else
    return NULL;
#endif
}

int side_run(const struct side_test *tests, size_t count)
{
    size_t subject_count;
    const struct transport *const *subject = subjects(&subject_count);
    struct CMUnitTest *all = calloc(subject_count * count, sizeof *all);
    char(*names)[64] = calloc(subject_count * count, sizeof *names);
    int failed = 1;

    if (subject == NULL) {
        (void)fprintf(stderr, "SKIP: this build has no verbs\n");
        free(names);
        free(all);
        return 77;
    }
    pace_alarm(50);
    for (size_t i = 0; all != NULL && names != NULL && i < subject_count * count; i++) {
        (void)snprintf(names[i], sizeof names[i], "%s: %s", subject[i / count]->name,
                       tests[i % count].name);
        all[i] = (struct CMUnitTest){
            .name = names[i],
            .test_func = tests[i % count].run,
            .setup_func = set_up,
            /* cmocka hands it over as it is, and no test writes to it. */
            .initial_state = (void *)(uintptr_t)subject[i / count],
        };
    }
    if (all != NULL && names != NULL)
        failed = _cmocka_run_group_tests("transport", all, subject_count * count, NULL,
                                         NULL);
    free(names);
    free(all);
    return failed;
}
