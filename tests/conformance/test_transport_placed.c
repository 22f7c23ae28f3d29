/* Memory of the caller's in the place of a region's own. A transport without cards says
 * that it cannot, and all is as before; over cards memory of the host, which is
 * registered by its address, does everything that a region's own does. */
#include "tests/conformance/side.h"

#include <stdlib.h>
#include <string.h>

#define BYTES (40u * PAGE)
#define HALF (BYTES / 2)
#define PARTS 12u

/* A region, or a window, of which some bytes are elsewhere. */
struct mixed {
    struct tp_region region;
    char *host; /* BYTES; of them those of the parts are used */
    size_t from[PARTS], bytes[PARTS];
    uint32_t parts;
};

/* Where the byte really is. */
static char *byte_at(const struct mixed *m, size_t at)
{
    for (uint32_t i = 0; i < m->parts; i++)
        if (at - m->from[i] < m->bytes[i])
            return m->host + at;
    return (char *)m->region.base + at;
}

static void mixed_fill(struct mixed *m, size_t from, size_t to, unsigned seed)
{
    for (size_t i = from; i < to; i++)
        *byte_at(m, i) = (char)(unsigned char)(seed + i * 7 + i / 251);
}

/* The offset of the first byte of [from, to) that is not as filled; to: none. */
static size_t mixed_differs(const struct mixed *m, size_t from, size_t to,
                            unsigned seed)
{
    while (from < to &&
           *byte_at(m, from) == (char)(unsigned char)(seed + from * 7 + from / 251))
        from++;
    return from;
}

/* As if it were a GPU's, which nvidia-peermem answers for: it is registered the same
 * way, but peers get no memory windows in it. */
static bool as_gpu;

static int place(struct side *side, struct mixed *m, size_t from, size_t bytes,
                 const char **how)
{
    struct tp_memory memory = {
        .base = m->host + from, .bytes = bytes, .dmabuf = -1, .gpu = as_gpu};
    int status =
        side->t->bind_memory(side->tp, &m->region, from, &memory, how, &side_error);

    if (status == GAPLESS_OK) {
        m->from[m->parts] = from;
        m->bytes[m->parts++] = bytes;
    }
    return status;
}

static void must_place(struct side *side, struct mixed *m, size_t from, size_t bytes)
{
    const char *how = NULL;

    if (place(side, m, from, bytes, &how) != GAPLESS_OK)
        fail_msg("%s", side_error.text);
    assert_non_null(how);
}

static void mixed_open(struct mixed *ret)
{
    ret->host = aligned_alloc(PAGE, BYTES);
    assert_non_null(ret->host);
    memset(ret->host, 0x3c, BYTES);
}

static bool has_cards(const void *transport)
{
    return strcmp(((const struct transport *)transport)->name, "verbs") == 0;
}

/* ---- without cards ------------------------------------------------------- */

static void test_cannot(void **state)
{
    struct mixed m = {0};
    struct pair pair;
    const char *how = "as before";
    char byte = 7;

    if (has_cards(*state))
        return;
    mixed_open(&m);
    pair_open(&pair, *state, NULL);
    must_region_new(&pair.server, BYTES, &m.region);
    side_error = (struct gapless_error){0};
    assert_int_equal(place(&pair.server, &m, PAGE, PAGE, &how), GAPLESS_UNSUPPORTED);
    assert_true(side_error.text[0] != '\0');
    assert_string_equal(how, "as before");
    side_error = (struct gapless_error){0};
    assert_int_equal(pair.server.t->loopback(pair.server.tp, &m.region, PAGE, &byte, 1,
                                             TP_OUT_OF, &side_error),
                     GAPLESS_UNSUPPORTED);
    assert_true(side_error.text[0] != '\0');
    assert_int_equal(byte, 7);
    for (size_t i = 0; i < BYTES; i++)
        assert_int_equal(m.host[i], 0x3c);
    must_grant(&pair.server, pair.to_client, &m.region, 1, TP_READ_WRITE);
    must_window(&pair.client, pair.to_server, 1, &pair.window);
    memset(pair.window.base, 5, BYTES);
    must_put(&pair.client, pair.to_server, &pair.window, 3);
    (void)want_note(&pair.server, 3);
    assert_int_equal(((char *)m.region.base)[BYTES - 1], 5);
    pair_close(&pair);
    free(m.host);
}

/* ---- over cards ---------------------------------------------------------- */

struct both {
    struct side server, client;
    tp_peer to_client, to_server;
    struct mixed here, there; /* the server's region, the client's window */
};

enum cut {
    CUT_SERVER = 1,
    CUT_CLIENT = 2
};

static void both_open(struct both *ret, void *state, enum tp_access access, int cut)
{
    *ret = (struct both){0};
    mixed_open(&ret->here);
    mixed_open(&ret->there);
    side_open(&ret->server, state, NULL);
    side_open(&ret->client, state, NULL);
    must_region_new(&ret->server, BYTES, &ret->here.region);
    ret->here.region.split = HALF;
    must_listen(&ret->server);
    if (cut & CUT_SERVER) {
        must_place(&ret->server, &ret->here, 100, 2 * PAGE + 1);
        must_place(&ret->server, &ret->here, HALF - PAGE, 2 * PAGE + 200);
        must_place(&ret->server, &ret->here, BYTES - PAGE, PAGE);
        must_place(&ret->server, &ret->here, HALF + 8 * PAGE, 4 * PAGE);
    }
    ret->to_client = side_join(&ret->server, &ret->client, &ret->to_server);
    must_grant(&ret->server, ret->to_client, &ret->here.region, 0, access);
    must_window(&ret->client, ret->to_server, 0, &ret->there.region);
    if (cut & CUT_CLIENT) {
        must_place(&ret->client, &ret->there, 0, 3 * PAGE);
        must_place(&ret->client, &ret->there, HALF + 3 * PAGE, 3);
        must_place(&ret->client, &ret->there, HALF + 9 * PAGE, PAGE);
    }
}

static void both_close(struct both *both)
{
    side_close(&both->client);
    side_close(&both->server);
    free(both->here.host);
    free(both->there.host);
}

/* No request of 24 bytes or less crosses a page: siw, up to Linux 6.12 at least, mixes
 * up their halves (siw_try_1seg). */
static void exchange(struct both *b, unsigned seed)
{
    const size_t at[] = {HALF, HALF + PAGE - 1, BYTES - 3, HALF + 8 * PAGE - 2};
    const size_t bytes[] = {HALF, 300, 3, 4 * PAGE + 4};
    struct side *client = &b->client;

    for (uint32_t i = 0; i < 4; i++) {
        mixed_fill(&b->here, HALF, BYTES, seed);
        mixed_fill(&b->there, HALF, BYTES, seed + 1);
        must_put_at(client, b->to_server, &b->there.region, at[i], bytes[i], i);
        (void)want_note(&b->server, i);
        assert_int_equal(mixed_differs(&b->here, HALF, at[i], seed), at[i]);
        assert_int_equal(mixed_differs(&b->here, at[i], at[i] + bytes[i], seed + 1),
                         at[i] + bytes[i]);
        assert_int_equal(mixed_differs(&b->here, at[i] + bytes[i], BYTES, seed), BYTES);
        side_drain(client);
    }
    for (uint32_t i = 0; i < 4; i++) {
        size_t from = at[i] - HALF, to = from + bytes[i];

        mixed_fill(&b->here, 0, HALF, seed + 2);
        mixed_fill(&b->there, 0, HALF, seed + 3);
        must_get(client, b->to_server, &b->there.region, from, bytes[i]);
        assert_int_equal(mixed_differs(&b->there, 0, from, seed + 3), from);
        assert_int_equal(mixed_differs(&b->there, from, to, seed + 2), to);
        assert_int_equal(mixed_differs(&b->there, to, HALF, seed + 3), HALF);
    }
}

static void all_cuts(void *state)
{
    struct both b;

    for (int cut = 0; cut <= (CUT_SERVER | CUT_CLIENT); cut++) {
        both_open(&b, state, TP_SPLIT, cut);
        for (unsigned seed = 1; seed < 4; seed++)
            exchange(&b, seed);
        both_close(&b);
        side_address_next();
    }
}

static void test_bytes(void **state)
{
    if (has_cards(*state))
        all_cuts(*state);
}

static void test_bytes_as_gpu(void **state)
{
    as_gpu = true;
    if (has_cards(*state))
        all_cuts(*state);
    as_gpu = false;
}

/* Everything may be read; everything may be written. */
static void test_one_access(void **state)
{
    struct both b;

    if (!has_cards(*state))
        return;
    both_open(&b, *state, TP_READ, CUT_SERVER | CUT_CLIENT);
    mixed_fill(&b.here, 0, BYTES, 3);
    must_get(&b.client, b.to_server, &b.there.region, 0, BYTES);
    assert_int_equal(mixed_differs(&b.there, 0, BYTES, 3), BYTES);
    both_close(&b);
    side_address_next();
    both_open(&b, *state, TP_READ_WRITE, CUT_SERVER | CUT_CLIENT);
    mixed_fill(&b.there, 0, BYTES, 4);
    must_put_at(&b.client, b.to_server, &b.there.region, 0, BYTES, 1);
    (void)want_note(&b.server, 1);
    assert_int_equal(mixed_differs(&b.here, 0, BYTES, 4), BYTES);
    side_drain(&b.client);
    mixed_fill(&b.here, 0, BYTES, 5);
    must_get(&b.client, b.to_server, &b.there.region, 1, BYTES - 2);
    assert_int_equal(mixed_differs(&b.there, 1, BYTES - 1, 5), BYTES - 1);
    both_close(&b);
}

/* More parts than a frame of the protocol tells of. */
static void test_many_parts(void **state)
{
    struct both b;

    if (!has_cards(*state))
        return;
    b = (struct both){0};
    mixed_open(&b.here);
    mixed_open(&b.there);
    side_open(&b.server, *state, NULL);
    side_open(&b.client, *state, NULL);
    must_region_new(&b.server, BYTES, &b.here.region);
    b.here.region.split = HALF;
    must_listen(&b.server);
    for (size_t i = 0; i < PARTS; i++)
        must_place(&b.server, &b.here, 3 * i * PAGE + 64, PAGE + 640);
    b.to_client = side_join(&b.server, &b.client, &b.to_server);
    must_grant(&b.server, b.to_client, &b.here.region, 0, TP_SPLIT);
    must_window(&b.client, b.to_server, 0, &b.there.region);
    exchange(&b, 1);
    both_close(&b);
}

/* What may be read may not be written, nor the other way round, in any part. */
static void test_rights(void **state)
{
    struct side *client;
    struct both b;

    if (!has_cards(*state))
        return;
    both_open(&b, *state, TP_SPLIT, CUT_SERVER);
    client = &b.client;
    assert_int_equal(side_put(client, b.to_server, &b.there.region, 100, 8, 1),
                     GAPLESS_INVALID);
    assert_int_equal(side_put(client, b.to_server, &b.there.region, HALF - 1, 8, 1),
                     GAPLESS_INVALID);
    assert_int_equal(side_get(client, b.to_server, &b.there.region, HALF - 7, 8, 1),
                     GAPLESS_INVALID);
    assert_int_equal(side_get(client, b.to_server, &b.there.region, BYTES - 8, 8, 1),
                     GAPLESS_INVALID);
    exchange(&b, 2);
    both_close(&b);
}

/* A card's own way: it works, or the transport says that this one has none. */
static void test_loop(void **state)
{
    char sent[TP_LOOPBACK_MAX], seen[TP_LOOPBACK_MAX] = {0};
    const size_t at = HALF + 8 * PAGE + 5;
    struct mixed m = {0};
    struct side server;
    int status;

    if (!has_cards(*state))
        return;
    mixed_open(&m);
    side_open(&server, *state, NULL);
    must_region_new(&server, BYTES, &m.region);
    must_listen(&server);
    must_place(&server, &m, HALF, HALF);
    for (unsigned i = 0; i < 3; i++) {
        memset(sent, (int)i + 1, sizeof sent);
        status = server.t->loopback(server.tp, &m.region, at, sent, sizeof sent,
                                    TP_INTO, &side_error);
        if (status == GAPLESS_UNSUPPORTED)
            break;
        if (status != GAPLESS_OK)
            fail_msg("%s", side_error.text);
        assert_memory_equal(m.host + at, sent, sizeof sent);
        assert_int_equal(m.host[at - 1], 0x3c);
        assert_int_equal(m.host[at + sizeof sent], 0x3c);
        memset(m.host + at, 0x77, sizeof sent);
        status = server.t->loopback(server.tp, &m.region, at, seen, sizeof seen,
                                    TP_OUT_OF, &side_error);
        if (status != GAPLESS_OK)
            fail_msg("%s", side_error.text);
        assert_memory_equal(m.host + at, seen, sizeof seen);
        memset(m.host, 0x3c, BYTES);
    }
    print_message("loop: %s\n", status == GAPLESS_OK ? "works" : side_error.text);
    side_close(&server);
    free(m.host);
}

#define TEST(name)                                                                     \
    {                                                                                  \
#name, name                                                                    \
    }
static const struct side_test tests[] = {
    TEST(test_cannot),     TEST(test_bytes),      TEST(test_bytes_as_gpu),
    TEST(test_one_access), TEST(test_many_parts), TEST(test_rights),
    TEST(test_loop),
};

int main(void)
{
    return side_run(tests, sizeof tests / sizeof tests[0]);
}
