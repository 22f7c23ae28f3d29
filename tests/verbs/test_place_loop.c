/* A card's own way to placed memory and back: both ways, through every card, bounded,
 * and cheap after the first time. */
#include "tests/verbs/placed.h"

#include <string.h>

static const struct transport *const t = &transport_verbs;

static int into(struct slot *slot, size_t at, void *host, size_t bytes,
                struct gapless_error *error)
{
    return t->loopback(slot->bed.server.tp, &slot->bed.region, at, host, bytes, TP_INTO,
                       error);
}

static int out_of(struct slot *slot, size_t at, void *host, size_t bytes,
                  struct gapless_error *error)
{
    return t->loopback(slot->bed.server.tp, &slot->bed.region, at, host, bytes,
                       TP_OUT_OF, error);
}

static void works(struct slot *slot, unsigned seed)
{
    char sent[TP_LOOPBACK_MAX], seen[TP_LOOPBACK_MAX] = {0};
    struct gapless_error error = {0};
    size_t at = GRAD_AT + seed, last = SLOT_BYTES - TP_LOOPBACK_MAX;

    placed_fill(sent, sizeof sent, seed);
    memset(slot->gpu[1].look, 0, GRAD_BYTES);
    if (into(slot, at, sent, sizeof sent, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    assert_memory_equal(slot->gpu[1].look + seed, sent, sizeof sent);
    assert_int_equal(slot->gpu[1].look[seed + TP_LOOPBACK_MAX], 0);
    placed_fill(slot->gpu[1].look, GRAD_BYTES, seed + 1);
    assert_int_equal(out_of(slot, last, seen, sizeof seen, &error), GAPLESS_OK);
    assert_memory_equal(seen, slot->gpu[1].look + (last - GRAD_AT), sizeof seen);
    /* The flush: a byte, of either GPU. */
    assert_int_equal(out_of(slot, GRAD_AT, seen, 1, &error), GAPLESS_OK);
    assert_int_equal(out_of(slot, PAGE, seen, 1, &error), GAPLESS_OK);
}

static void both_ways(const char *address, bool peermem)
{
    struct slot slot;

    fake_begin();
    fake_rules.peermem = fake_rules.no_dmabuf = peermem;
    placed_open(&slot, address, false);
    works(&slot, 1); /* at start-up, before anybody has come */
    placed_join(&slot, address);
    works(&slot, 2);
    placed_works(&slot, 3);
    works(&slot, 4);
    placed_end(&slot);
}

static void in_and_out(void **state)
{
    (void)state;
    both_ways(ROCE, false);
    both_ways(ROCE, true);
    both_ways(TWO, false);
    both_ways("[fd10::1]:7471", false);
}

/* A worker's: its window. */
static void of_a_window(void **state)
{
    char sent[TP_LOOPBACK_MAX], seen[TP_LOOPBACK_MAX] = {0};
    struct gapless_error error = {0};
    struct tp_memory memory;
    struct accel gpu;
    struct slot slot;
    struct bed *bed = &slot.bed;
    const char *how;

    (void)state;
    fake_begin();
    placed_open(&slot, TWO, true);
    accel_take(&gpu, GRAD_BYTES);
    memory = accel_memory(&gpu, 0, GRAD_BYTES);
    assert_int_equal(
        t->bind_memory(bed->client.tp, &bed->window, GRAD_AT, &memory, &how, &error),
        GAPLESS_OK);
    placed_fill(sent, sizeof sent, 4);
    assert_int_equal(t->loopback(bed->client.tp, &bed->window, GRAD_AT + 5, sent,
                                 sizeof sent, TP_INTO, &error),
                     GAPLESS_OK);
    assert_memory_equal(gpu.look + 5, sent, sizeof sent);
    assert_int_equal(t->loopback(bed->client.tp, &bed->window, GRAD_AT + 5, seen,
                                 sizeof seen, TP_OUT_OF, &error),
                     GAPLESS_OK);
    assert_memory_equal(seen, sent, sizeof sent);
    placed_end(&slot);
    accel_give(&gpu);
}

static void cheap_after_the_first(void **state)
{
    struct tp_counters before, after;
    struct gapless_error error = {0};
    struct fake_live was, is;
    struct slot slot;
    long calls;
    char byte;

    (void)state;
    fake_begin();
    placed_open(&slot, ROCE, true);
    assert_int_equal(out_of(&slot, GRAD_AT, &byte, 1, &error), GAPLESS_OK);
    t->count(slot.bed.server.tp, &before);
    (void)fake_live(&was);
    fake_fail_at(-1, false);
    for (int i = 0; i < 100; i++)
        assert_int_equal(out_of(&slot, GRAD_AT, &byte, 1, &error), GAPLESS_OK);
    calls = fake_fallible();
    t->count(slot.bed.server.tp, &after);
    (void)fake_live(&is);
    assert_memory_equal(&was, &is, sizeof was);
    assert_int_equal(after.requests - before.requests, 100);
    assert_int_equal(after.doorbells - before.doorbells, 100);
    assert_int_equal(after.regions, before.regions);
    assert_int_equal(calls, 300); /* post, its answer, look */
    placed_works(&slot, 3);
    placed_end(&slot);
}

/* Beside puts of others: its completions are its own. */
static void among_others(void **state)
{
    struct gapless_error error = {0};
    struct tp_event event;
    struct slot slot;
    struct bed *bed = &slot.bed;
    uint32_t sent = 0, reported = 0;
    char byte;

    (void)state;
    fake_begin();
    placed_open(&slot, ROCE, true);
    fake_pace(FAKE_BY_THREAD);
    while (reported < 200) {
        if (sent < 200 && t->put(bed->client.tp, bed->to_server, &bed->window,
                                 SLOT_SPLIT, SLOT_BYTES - SLOT_SPLIT, sent) >= 0)
            sent++;
        assert_int_equal(out_of(&slot, GRAD_AT, &byte, 1, &error), GAPLESS_OK);
        if (bed_event(&bed->server, TP_NOTE, &event, 0) == GAPLESS_OK)
            assert_int_equal(event.note, reported++);
        (void)bed_event(&bed->client, TP_DONE, &event, 0);
    }
    fake_pace(FAKE_AT_POST);
    placed_works(&slot, 7);
    placed_end(&slot);
}

static void bounds(void **state)
{
    struct gapless_error error = {0};
    char host[TP_LOOPBACK_MAX + 1] = {0};
    struct slot slot;

    (void)state;
    fake_begin();
    placed_open(&slot, ROCE, false);
    memset(slot.gpu[1].look, 0x11, GRAD_BYTES);
    for (int way = 0; way < 2; way++) {
        int (*const loop)(struct slot *, size_t, void *, size_t,
                          struct gapless_error *) = way == 0 ? into : out_of;

        assert_int_equal(loop(&slot, GRAD_AT, host, 0, &error), GAPLESS_INVALID);
        assert_int_equal(loop(&slot, GRAD_AT, host, sizeof host, &error),
                         GAPLESS_INVALID);
        assert_int_equal(loop(&slot, GRAD_AT, NULL, 1, &error), GAPLESS_INVALID);
        assert_int_equal(loop(&slot, SLOT_BYTES, host, 1, &error), GAPLESS_INVALID);
        assert_int_equal(loop(&slot, SLOT_BYTES - 1, host, 2, &error), GAPLESS_INVALID);
        assert_int_equal(loop(&slot, SIZE_MAX, host, 2, &error), GAPLESS_INVALID);
        /* What is not placed, and over the border. */
        assert_int_equal(loop(&slot, 0, host, 1, &error), GAPLESS_INVALID);
        assert_int_equal(loop(&slot, PAGE - 1, host, 2, &error), GAPLESS_INVALID);
        assert_int_equal(loop(&slot, SLOT_SPLIT - 1, host, 2, &error), GAPLESS_INVALID);
    }
    assert_int_equal(t->loopback(slot.bed.server.tp, &(struct tp_region){.id = 99}, 0,
                                 host, 1, TP_INTO, &error),
                     GAPLESS_INVALID);
    assert_int_equal(slot.gpu[1].look[0], 0x11);
    placed_end(&slot);
}

static void not_over_iwarp(void **state)
{
    struct gapless_error error = {0};
    struct slot slot;
    char byte;

    (void)state;
    fake_begin();
    fake_rules.peermem = true;
    placed_open(&slot, IWARP, true);
    assert_int_equal(out_of(&slot, GRAD_AT, &byte, 1, &error), GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "iWARP"));
    placed_works(&slot, 3);
    placed_end(&slot);
}

/* A card that does not answer is waited for at most a second; then a fresh pair. */
static void it_is_bounded(void **state)
{
    struct gapless_error error = {0};
    struct slot slot;
    uint64_t began;
    char bytes[16] = "something";

    (void)state;
    fake_begin();
    placed_open(&slot, ROCE, true);
    fake_pace(FAKE_BY_HAND);
    began = bed_clock_ns();
    assert_int_equal(into(&slot, GRAD_AT, bytes, sizeof bytes, &error),
                     GAPLESS_TIMEOUT);
    assert_true(pace_within(bed_clock_ns() - began, 900 * MS, 5000 * MS));
    assert_non_null(strstr(error.text, "fake0"));
    (void)fake_pump(100);
    fake_pace(FAKE_AT_POST);
    assert_int_equal(slot.gpu[1].look[0], 0); /* nothing comes late */
    assert_int_equal(into(&slot, GRAD_AT, bytes, sizeof bytes, &error), GAPLESS_OK);
    assert_memory_equal(slot.gpu[1].look, bytes, sizeof bytes);
    placed_end(&slot);
}

/* Any call fails: there is an error with words, and the next try goes through. */
static void every_failure(void **state)
{
    const char *failed = "none";
    struct gapless_error error;
    struct slot slot;
    long n = 0;
    char byte = 1;

    (void)state;
    for (; failed[0] != '\0'; n++) {
        int status;

        fake_begin();
        placed_open(&slot, ROCE, false);
        fake_fail_at(n, false);
        error = (struct gapless_error){0};
        status = into(&slot, GRAD_AT, &byte, 1, &error);
        failed = fake_failed();
        fake_fail_at(-1, false);
        /* One of the table's entries that is not found is passed over. */
        if (failed[0] != '\0' && strcmp(failed, "ibv_query_gid_ex") != 0)
            assert_true(status < 0 && error.text[0] != '\0');
        else
            assert_int_equal(status, GAPLESS_OK);
        assert_int_equal(into(&slot, GRAD_AT, &byte, 1, &error), GAPLESS_OK);
        placed_end(&slot);
    }
    assert_in_range(n, 8, 100);
}

/* The mapping of one card leads elsewhere. */
static void two_cards_disagree(void **state)
{
    struct gapless_error error = {0};
    char seen[8];
    struct slot slot;

    (void)state;
    fake_begin();
    placed_open(&slot, TWO, false);
    memset(slot.gpu[1].look, 0x22, GRAD_BYTES);
    assert_int_equal(out_of(&slot, GRAD_AT, seen, 8, &error), GAPLESS_OK);
    fake_misroute("fake1", true);
    assert_int_equal(out_of(&slot, GRAD_AT, seen, 8, &error), GAPLESS_SYSTEM);
    assert_non_null(strstr(error.text, "fake1"));
    fake_misroute("fake1", false);
    assert_int_equal(out_of(&slot, GRAD_AT, seen, 8, &error), GAPLESS_OK);
    placed_end(&slot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_and_out),
        cmocka_unit_test(of_a_window),
        cmocka_unit_test(among_others),
        cmocka_unit_test(cheap_after_the_first),
        cmocka_unit_test(bounds),
        cmocka_unit_test(not_over_iwarp),
        cmocka_unit_test(it_is_bounded),
        cmocka_unit_test(every_failure),
        cmocka_unit_test(two_cards_disagree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
