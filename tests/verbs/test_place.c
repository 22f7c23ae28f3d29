/* Memory of accelerators in the place of a region's own, over verbs: puts and gets into
 * what this process cannot touch, cut where it begins and ends; how it is registered,
 * and when; what a card says of it by itself. */
#include "tests/verbs/placed.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static const struct transport *const t = &transport_verbs;

static struct fake_counters counted(void)
{
    struct fake_counters count;

    fake_count(&count);
    return count;
}

/* ---- puts and gets ------------------------------------------------------- */

static void a_slot_on_a_gpu(void **state)
{
    struct fake_counters before, after;
    struct slot slot;

    (void)state;
    fake_begin();
    placed_open(&slot, ROCE, true);
    before = counted();
    placed_works(&slot, 3);
    after = counted();
    /* Cut in two both ways, with one note. */
    assert_int_equal(after.writes - before.writes, 2);
    assert_int_equal(after.writes_imm - before.writes_imm, 1);
    assert_int_equal(after.reads - before.reads, 2);
    assert_int_equal(after.binds, 0); /* none can be in a DMA-BUF */
    placed_works(&slot, 4);
    placed_end(&slot);
}

/* Nothing beside the bytes of a put is touched, and few bytes go as many do. */
static void a_few_bytes(void **state)
{
    struct slot slot;
    struct bed *bed = &slot.bed;

    (void)state;
    fake_begin();
    placed_open(&slot, ROCE, true);
    memset(slot.gpu[1].look, 0x55, GRAD_BYTES);
    memset(bed->region.base, 0x66, SLOT_BYTES);
    for (size_t from = GRAD_AT - 3; from < GRAD_AT + 2; from++) {
        uint32_t note = (uint32_t)from;

        memset(bed->window.base, 0x77, SLOT_BYTES);
        placed_move(&bed->client,
                    t->put(bed->client.tp, bed->to_server, &bed->window, from, 3, note),
                    note);
        assert_int_equal(must_event(&bed->server, TP_NOTE).note, note);
    }
    assert_int_equal(((char *)bed->region.base)[GRAD_AT - 4], 0x66);
    assert_int_equal(((char *)bed->region.base)[GRAD_AT - 1], 0x77);
    assert_int_equal(((char *)bed->region.base)[GRAD_AT], 0x66);
    assert_int_equal(slot.gpu[1].look[3], 0x77);
    assert_int_equal(slot.gpu[1].look[4], 0x55);
    placed_end(&slot);
}

/* A model over 16 GPUs: more parts than one frame holds, on either side of the
 * split. */
static void many_gpus(void **state)
{
    enum {
        GPUS = 16,
        PIECE = 2 * PAGE + 8,
        HALF = PAGE + GPUS * PIECE
    };
    struct tp_config config = bed_config(4, "a token of this run");
    struct gapless_error error = {0};
    struct fake_counters before;
    struct bed bed = {0};
    struct accel gpu[GPUS];
    char *window;

    (void)state;
    fake_begin();
    must_open(&bed.server, &config);
    assert_int_equal(t->region_new(bed.server.tp, 2 * HALF, &bed.region, &error), 0);
    bed.region.split = HALF;
    assert_int_equal(t->listen(bed.server.tp, ROCE, &error), GAPLESS_OK);
    for (size_t i = 0; i < 2 * GPUS; i++) {
        size_t half = i % 2, g = i / 2;
        struct tp_memory memory;
        const char *how;

        if (half == 0)
            accel_take(&gpu[g], 6 * PAGE);
        memory = accel_memory(&gpu[g], half * 3 * PAGE, PIECE);
        if (t->bind_memory(bed.server.tp, &bed.region, half * HALF + PAGE + g * PIECE,
                           &memory, &how, &error) != GAPLESS_OK)
            fail_msg("%s", error.text);
        assert_string_equal(how, "DMA-BUF");
    }
    config.peers_max = 1;
    must_open(&bed.client, &config);
    must_join(&bed, &bed.client, ROCE, &bed.to_server, &bed.to_client, &bed.window);
    window = bed.window.base;
    placed_fill(window + HALF, HALF, 5);
    for (size_t g = 0; g < GPUS; g++)
        placed_fill(gpu[g].look, PIECE, (unsigned)g);
    before = counted();
    placed_move(&bed.client,
                t->put(bed.client.tp, bed.to_server, &bed.window, HALF, HALF, 1), 1);
    assert_int_equal(must_event(&bed.server, TP_NOTE).note, 1);
    assert_int_equal(counted().writes - before.writes, GPUS + 1);
    placed_move(&bed.client,
                t->get(bed.client.tp, bed.to_server, &bed.window, 0, HALF, 2), 2);
    for (size_t g = 0; g < GPUS; g++) {
        assert_memory_equal(gpu[g].look + 3 * PAGE, window + HALF + PAGE + g * PIECE,
                            PIECE);
        assert_true(placed_filled(window + PAGE + g * PIECE, PIECE, (unsigned)g));
    }
    bed_end(&bed);
    for (size_t g = 0; g < GPUS; g++)
        accel_give(&gpu[g]);
}

static unsigned descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return count;
}

/* What is read and what is written are in one piece of memory; nothing else is in the
 * region. */
static void a_split_within_a_gpu(void **state)
{
    static const char *const where[] = {ROCE, IWARP};
    struct tp_config config = bed_config(1, "a token of this run");
    struct gapless_error error = {0};
    struct tp_memory memory;
    unsigned open = 0;
    struct accel gpu;
    struct bed bed;
    const char *how;

    (void)state;
    for (int i = 0; i < 4; i++) {
        bed = (struct bed){0};
        fake_begin();
        fake_rules.peermem = i % 2 == 1;
        if (i == 2)
            open = descriptors();
        accel_take(&gpu, 8 * PAGE);
        memory = accel_memory(&gpu, PAGE, 6 * PAGE);
        must_open(&bed.server, &config);
        assert_int_equal(t->region_new(bed.server.tp, 6 * PAGE, &bed.region, &error),
                         GAPLESS_OK);
        bed.region.split = 2 * PAGE + 8;
        assert_int_equal(t->listen(bed.server.tp, where[i % 2], &error), GAPLESS_OK);
        assert_int_equal(
            t->bind_memory(bed.server.tp, &bed.region, 0, &memory, &how, &error),
            GAPLESS_OK);
        must_open(&bed.client, &config);
        must_join(&bed, &bed.client, where[i % 2], &bed.to_server, &bed.to_client,
                  &bed.window);
        placed_fill(gpu.look, 8 * PAGE, 1);
        placed_fill(bed.window.base, 6 * PAGE, 2);
        placed_move(&bed.client,
                    t->put(bed.client.tp, bed.to_server, &bed.window, bed.region.split,
                           6 * PAGE - bed.region.split, 1),
                    1);
        assert_int_equal(must_event(&bed.server, TP_NOTE).note, 1);
        placed_move(
            &bed.client,
            t->get(bed.client.tp, bed.to_server, &bed.window, 0, bed.region.split, 2),
            2);
        assert_memory_equal(gpu.look + PAGE, bed.window.base, 6 * PAGE);
        assert_true(placed_filled(gpu.look, 3 * PAGE + 8, 1));
        bed_end(&bed);
        accel_give(&gpu);
    }
    fake_begin();
    (void)fake_end();
    assert_int_equal(descriptors(), open);
}

/* Both sides are on GPUs, cut at other places; and on several cards. */
static void gpus_at_both_ends(const char *address)
{
    struct gapless_error error = {0};
    struct fake_counters before, after;
    struct accel mine;
    struct tp_memory memory;
    struct slot slot;
    struct bed *bed = &slot.bed;
    const char *how;

    fake_begin();
    placed_open(&slot, address, true);
    accel_take(&mine, 4 * PAGE);
    memory = accel_memory(&mine, PAGE, 2 * PAGE);
    if (t->bind_memory(bed->client.tp, &bed->window, GRAD_AT + PAGE, &memory, &how,
                       &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    assert_string_equal(how, "DMA-BUF");
    placed_fill(bed->window.base, SLOT_BYTES, 8);
    placed_fill(mine.look, 4 * PAGE, 9);
    before = counted();
    for (uint32_t i = 0; i < 4; i++) {
        placed_move(&bed->client,
                    t->put(bed->client.tp, bed->to_server, &bed->window, GRAD_AT - 8,
                           4 * PAGE, i),
                    i);
        assert_int_equal(must_event(&bed->server, TP_NOTE).note, i);
    }
    after = counted();
    assert_int_equal(after.writes - before.writes, 4 * 4);
    assert_memory_equal(slot.gpu[1].look, (char *)bed->window.base + GRAD_AT, PAGE);
    assert_memory_equal(slot.gpu[1].look + PAGE, mine.look + PAGE, 2 * PAGE);
    assert_memory_equal(slot.gpu[1].look + 3 * PAGE,
                        (char *)bed->window.base + GRAD_AT + 3 * PAGE, PAGE - 8);
    /* 8 bytes alone do not go inline: no processor can read them there. */
    assert_int_equal(
        t->put(bed->client.tp, bed->to_server, &bed->window, GRAD_AT + 2 * PAGE, 8, 50),
        1);
    assert_int_equal(must_event(&bed->server, TP_NOTE).note, 50);
    bed_close_both(&bed->server, &bed->client);
    must_be_clean();
    accel_give(&mine);
    accel_give(&slot.gpu[0]);
    accel_give(&slot.gpu[1]);
}

static void both_ends(void **state)
{
    (void)state;
    gpus_at_both_ends(ROCE);
    gpus_at_both_ends(TWO);
}

static void over_two_cards_at_once(void **state)
{
    struct slot slot;

    (void)state;
    fake_begin();
    placed_open(&slot, TWO, true);
    assert_int_equal(fake_connections(), 2);
    fake_pace(FAKE_BY_THREAD);
    for (unsigned i = 1; i < 20; i++)
        placed_works(&slot, i);
    fake_pace(FAKE_AT_POST);
    placed_end(&slot);
}

/* Where there is no DMA-BUF, or no windows at all: by its address. */
static void by_its_address(void **state)
{
    static const char *const where[] = {ROCE, IWARP, TWO};
    struct slot slot;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        fake_begin();
        fake_rules.peermem = fake_rules.no_dmabuf = true;
        placed_open(&slot, where[i], true);
        placed_works(&slot, 3);
        placed_works(&slot, 4);
        placed_end(&slot);
    }
}

/* ---- registering --------------------------------------------------------- */

struct lone {
    struct bed_end server;
    struct tp_region region;
    struct accel gpu;
};

static void lone_open(struct lone *ret, const char *listen)
{
    struct tp_config config = bed_config(2, "a token of this run");
    struct gapless_error error = {0};

    fake_begin();
    accel_take(&ret->gpu, 8 * PAGE);
    must_open(&ret->server, &config);
    assert_int_equal(t->region_new(ret->server.tp, 8 * PAGE, &ret->region, &error), 0);
    if (listen != NULL)
        assert_int_equal(t->listen(ret->server.tp, listen, &error), GAPLESS_OK);
}

static void lone_close(struct lone *it)
{
    bed_close(&it->server);
    must_be_clean();
    accel_give(&it->gpu);
}

static int lone_place(struct lone *it, size_t offset, const struct tp_memory *memory,
                      const char **how, struct gapless_error *error)
{
    return t->bind_memory(it->server.tp, &it->region, offset, memory, how, error);
}

static void how_it_was_registered(void **state)
{
    static _Alignas(4096) char host[PAGE];
    struct tp_memory memory;
    struct gapless_error error = {0};
    struct tp_counters count;
    const char *how = NULL;
    struct lone it;

    (void)state;
    lone_open(&it, ROCE);
    memory = accel_memory(&it.gpu, 0, PAGE);
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_OK);
    assert_string_equal(how, "DMA-BUF");
    fake_rules.no_dmabuf = fake_rules.peermem = true;
    memory = accel_memory(&it.gpu, PAGE, PAGE);
    assert_int_equal(lone_place(&it, PAGE, &memory, &how, &error), GAPLESS_OK);
    assert_string_equal(how, "nvidia-peermem");
    memory = (struct tp_memory){
        .base = it.gpu.base + 2 * PAGE, .bytes = PAGE, .dmabuf = -1, .gpu = true};
    assert_int_equal(lone_place(&it, 2 * PAGE, &memory, &how, &error), GAPLESS_OK);
    assert_string_equal(how, "nvidia-peermem");
    memory = (struct tp_memory){.base = host, .bytes = PAGE, .dmabuf = -1};
    assert_int_equal(lone_place(&it, 3 * PAGE, &memory, &how, &error), GAPLESS_OK);
    assert_string_equal(how, "host");
    t->count(it.server.tp, &count);
    assert_int_equal(count.regions, 4);
    lone_close(&it);
}

/* Every way fails: it is said what was tried, and all is as it was. */
static void it_cannot_be_registered(void **state)
{
    struct gapless_error error = {0};
    struct tp_memory memory;
    struct fake_live live;
    const char *how = "as before";
    struct lone it;

    (void)state;
    lone_open(&it, ROCE);
    memory = accel_memory(&it.gpu, 0, PAGE);
    fake_rules.no_dmabuf = true;
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "fake0"));
    assert_non_null(strstr(error.text, "nvidia-peermem"));
    assert_non_null(strstr(error.text, "DMA-BUF"));
    assert_non_null(strstr(error.text, "Operation not supported"));
    memory.dmabuf = -1;
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "no DMA-BUF"));
    fake_rules.no_dmabuf = false;
    memory.dmabuf = 999; /* none */
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_SYSTEM);
    memory = accel_memory(&it.gpu, 4, PAGE); /* not where its address says */
    memory.base = it.gpu.base;
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "12 bits"));
    memory = accel_memory(&it.gpu, 0, PAGE);
    fake_rules.memory_most = 1;
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "BAR1"));
    fake_rules.memory_most = 0;
    assert_string_equal(how, "as before");
    (void)fake_live(&live);
    assert_int_equal(live.regions, 0);
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_OK);
    lone_close(&it);
}

static void places_that_make_no_sense(void **state)
{
    struct gapless_error error = {0};
    struct tp_memory memory;
    const char *how;
    struct lone it;

    (void)state;
    lone_open(&it, ROCE);
    memory = accel_memory(&it.gpu, PAGE, 2 * PAGE);
    assert_int_equal(lone_place(&it, 2 * PAGE, &memory, &how, &error), GAPLESS_OK);
    /* Over what is there, from either side, inside, around; and the same memory. */
    memory = accel_memory(&it.gpu, 4 * PAGE, 2 * PAGE);
    for (size_t at = PAGE; at <= 3 * PAGE; at += PAGE)
        assert_int_equal(lone_place(&it, at, &memory, &how, &error), GAPLESS_INVALID);
    memory = accel_memory(&it.gpu, 4 * PAGE, 4 * PAGE);
    assert_int_equal(lone_place(&it, PAGE, &memory, &how, &error), GAPLESS_INVALID);
    memory = accel_memory(&it.gpu, 2 * PAGE, PAGE);
    assert_int_equal(lone_place(&it, 5 * PAGE, &memory, &how, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "same memory"));
    /* Outside. */
    memory = accel_memory(&it.gpu, 4 * PAGE, PAGE);
    assert_int_equal(lone_place(&it, 7 * PAGE + 1, &memory, &how, &error),
                     GAPLESS_INVALID);
    assert_int_equal(lone_place(&it, 8 * PAGE, &memory, &how, &error), GAPLESS_INVALID);
    assert_int_equal(lone_place(&it, SIZE_MAX, &memory, &how, &error), GAPLESS_INVALID);
    memory.bytes = 0;
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_INVALID);
    memory = (struct tp_memory){.bytes = PAGE, .dmabuf = -1};
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_INVALID);
    assert_int_equal(t->bind_memory(it.server.tp, &(struct tp_region){.id = 99}, 0,
                                    &memory, &how, &error),
                     GAPLESS_INVALID);
    /* At its very ends, and right beside what is there, is fine. */
    memory = accel_memory(&it.gpu, 4 * PAGE, 2 * PAGE);
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_OK);
    memory = accel_memory(&it.gpu, 6 * PAGE, PAGE);
    assert_int_equal(lone_place(&it, 7 * PAGE, &memory, &how, &error), GAPLESS_OK);
    lone_close(&it);
}

static void too_many_parts(void **state)
{
    struct gapless_error error = {0};
    struct tp_memory memory;
    int status = GAPLESS_OK;
    const char *how;
    struct lone it;
    size_t i;

    (void)state;
    lone_open(&it, ROCE);
    for (i = 0; status == GAPLESS_OK && i < 100; i++) {
        memory = accel_memory(&it.gpu, i * 200, 100);
        status = lone_place(&it, i * 200, &memory, &how, &error);
    }
    assert_int_equal(status, GAPLESS_CAPACITY);
    assert_in_range(i, 32, 40);
    lone_close(&it);
}

/* ---- when ---------------------------------------------------------------- */

static void before_listening(void **state)
{
    struct gapless_error error = {0};
    struct tp_memory memory;
    const char *how;
    char host[8] = "";
    struct lone it;

    (void)state;
    lone_open(&it, NULL);
    memory = accel_memory(&it.gpu, 0, PAGE);
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_OK);
    assert_string_equal(how, "not registered yet");
    assert_int_equal(t->loopback(it.server.tp, &it.region, 0, host, 8, TP_INTO, &error),
                     GAPLESS_AGAIN);
    fake_rules.no_dmabuf = true;
    assert_int_equal(t->listen(it.server.tp, ROCE, &error), GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "DMA-BUF"));
    fake_rules.no_dmabuf = false;
    assert_int_equal(t->listen(it.server.tp, ROCE, &error), GAPLESS_OK);
    assert_int_equal(t->loopback(it.server.tp, &it.region, 0, host, 8, TP_INTO, &error),
                     GAPLESS_OK);
    lone_close(&it);
}

/* No card is known until somebody comes; what cannot be had then ends the peer. */
static void at_every_address(void **state)
{
    struct gapless_error error = {0}, reason = {0};
    struct tp_config config = bed_config(1, "a token of this run");
    struct bed_end client;
    struct tp_memory memory;
    const char *how;
    tp_peer peer, number;
    struct lone it;

    (void)state;
    lone_open(&it, "0.0.0.0:7471");
    memory = accel_memory(&it.gpu, 0, PAGE);
    assert_int_equal(lone_place(&it, 0, &memory, &how, &error), GAPLESS_OK);
    assert_string_equal(how, "not registered yet");
    must_open(&client, &config);
    assert_int_equal(
        bed_join(&it.server, &client, ROCE, LONG_NS, &peer, &number, &error),
        GAPLESS_OK);
    fake_rules.no_dmabuf = true;
    assert_true(t->grant(it.server.tp, number, &it.region, 0, TP_READ, &error) < 0);
    assert_non_null(strstr(error.text, "DMA-BUF"));
    assert_int_equal(must_event(&it.server, TP_DOWN).peer, number);
    t->last_error(it.server.tp, number, &reason);
    assert_string_equal(reason.text, error.text);
    bed_close(&client);
    fake_rules.no_dmabuf = false;
    must_open(&client, &config);
    assert_int_equal(
        bed_join(&it.server, &client, ROCE, LONG_NS, &peer, &number, &error),
        GAPLESS_OK);
    assert_int_equal(t->grant(it.server.tp, number, &it.region, 0, TP_READ, &error),
                     GAPLESS_OK);
    bed_close_both(&it.server, &client);
    must_be_clean();
    accel_give(&it.gpu);
}

/* Granted, put or got: too late. A peer that has windows came too early. */
static void too_late(void **state)
{
    static _Alignas(4096) char host[PAGE];
    struct gapless_error error = {0};
    struct tp_memory memory = {.base = host, .bytes = PAGE, .dmabuf = -1};
    struct tp_region other;
    const char *how;
    struct accel gpu;
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, 4 * PAGE);
    assert_int_equal(
        t->bind_memory(bed.server.tp, &bed.region, 0, &memory, &how, &error),
        GAPLESS_INVALID);
    assert_int_equal(
        t->bind_memory(bed.client.tp, &bed.window, 0, &memory, &how, &error),
        GAPLESS_OK);
    placed_fill(bed.region.base, PAGE, 3);
    placed_move(&bed.client,
                t->get(bed.client.tp, bed.to_server, &bed.window, 0, PAGE, 1), 1);
    assert_true(placed_filled(host, PAGE, 3));
    memory.base = host + 1;
    memory.bytes = 8;
    assert_int_equal(
        t->bind_memory(bed.client.tp, &bed.window, 2 * PAGE, &memory, &how, &error),
        GAPLESS_INVALID);
    accel_take(&gpu, PAGE);
    memory = accel_memory(&gpu, 0, PAGE);
    assert_int_equal(t->region_new(bed.server.tp, PAGE, &other, &error), GAPLESS_OK);
    assert_int_equal(t->bind_memory(bed.server.tp, &other, 0, &memory, &how, &error),
                     GAPLESS_OK);
    assert_int_equal(t->grant(bed.server.tp, bed.to_client, &other, 1, TP_READ, &error),
                     GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "before memory of a GPU was placed"));
    bed_end(&bed);
    accel_give(&gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slot_on_a_gpu),
        cmocka_unit_test(a_few_bytes),
        cmocka_unit_test(many_gpus),
        cmocka_unit_test(a_split_within_a_gpu),
        cmocka_unit_test(both_ends),
        cmocka_unit_test(over_two_cards_at_once),
        cmocka_unit_test(by_its_address),
        cmocka_unit_test(how_it_was_registered),
        cmocka_unit_test(it_cannot_be_registered),
        cmocka_unit_test(places_that_make_no_sense),
        cmocka_unit_test(too_many_parts),
        cmocka_unit_test(before_listening),
        cmocka_unit_test(at_every_address),
        cmocka_unit_test(too_late),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
