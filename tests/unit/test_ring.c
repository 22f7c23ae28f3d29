/* The words of transport/ring.h: the ring by itself, between threads and against a
 * liar; the doorbell; the seqlock between two processes; the flag. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/pace.h"
#include "transport/ring.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CAPACITY 8u

struct pair {
    struct ring *ring;
    struct ring_end put;
    struct ring_end take;
};

static void pair_open(struct pair *ret, uint32_t capacity)
{
    struct ring *ring = aligned_alloc(RING_LINE, ring_bytes(capacity));

    assert_non_null(ring);
    memset(ring, 0, ring_bytes(capacity));
    *ret = (struct pair){
        .ring = ring,
        .put = ring_end(ring, capacity),
        .take = ring_end(ring, capacity),
    };
}

/* As if `count` notes had passed, to get near where the counters wrap. */
static void pair_forward(struct pair *pair, uint32_t count)
{
    pair->put.own = pair->put.seen = pair->take.own = pair->take.seen = count;
    pair->ring->head = pair->ring->tail = count;
}

static void test_empty_full(void **state)
{
    struct pair pair;
    uint32_t note = 77;

    (void)state;
    pair_open(&pair, CAPACITY);
    assert_int_equal(ring_take(&pair.take, &note), RING_WAIT);
    assert_int_equal(note, 77);
    for (uint32_t i = 0; i < CAPACITY; i++)
        assert_int_equal(ring_put(&pair.put, 100 + i), RING_OK);
    assert_int_equal(ring_put(&pair.put, 999), RING_WAIT);
    assert_int_equal(ring_put(&pair.put, 999), RING_WAIT);
    for (uint32_t i = 0; i < CAPACITY; i++) {
        assert_int_equal(ring_take(&pair.take, &note), RING_OK);
        assert_int_equal(note, 100 + i);
    }
    assert_int_equal(ring_take(&pair.take, &note), RING_WAIT);
    assert_int_equal(ring_put(&pair.put, 5), RING_OK);
    assert_int_equal(ring_take(&pair.take, &note), RING_OK);
    assert_int_equal(note, 5);
    free(pair.ring);
}

/* Every filling level, over the end of the places and of the counters. */
static void test_wrap(void **state)
{
    struct pair pair;
    uint32_t next = 0;
    uint32_t want = 0;
    uint32_t note = 0;

    (void)state;
    pair_open(&pair, CAPACITY);
    pair_forward(&pair, UINT32_MAX - 3 * CAPACITY);
    for (uint32_t round = 0; round < 12 * CAPACITY; round++) {
        uint32_t level = round % (CAPACITY + 1);

        for (uint32_t i = 0; i < level; i++)
            assert_int_equal(ring_put(&pair.put, next++), RING_OK);
        if (level == CAPACITY)
            assert_int_equal(ring_put(&pair.put, 0), RING_WAIT);
        for (uint32_t i = 0; i < level; i++) {
            assert_int_equal(ring_take(&pair.take, &note), RING_OK);
            assert_int_equal(note, want++);
        }
        assert_int_equal(ring_take(&pair.take, &note), RING_WAIT);
    }
    assert_true(pair.put.own < 12 * CAPACITY * CAPACITY);
    free(pair.ring);
}

static void test_capacity_one(void **state)
{
    struct pair pair;
    uint32_t note = 0;

    (void)state;
    pair_open(&pair, 1);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(ring_put(&pair.put, i), RING_OK);
        assert_int_equal(ring_put(&pair.put, i), RING_WAIT);
        assert_int_equal(ring_take(&pair.take, &note), RING_OK);
        assert_int_equal(note, i);
    }
    free(pair.ring);
}

/* The other side writes any index: it is refused, or no more than a ring full of notes
 * is believed. What we wrote ourselves may be overwritten, and is not read back. */
static void test_liar(void **state)
{
    struct pair pair;
    uint32_t note = 0;
    uint32_t random = 12345;

    (void)state;
    pair_open(&pair, CAPACITY);
    pair.ring->head = CAPACITY + 1;
    assert_int_equal(ring_take(&pair.take, &note), RING_BROKEN);
    pair.ring->head = UINT32_MAX;
    assert_int_equal(ring_take(&pair.take, &note), RING_BROKEN);
    pair.ring->head = 1;
    assert_int_equal(ring_take(&pair.take, &note), RING_OK);
    pair.ring->head = 0; /* backwards */
    assert_int_equal(ring_take(&pair.take, &note), RING_BROKEN);
    pair.ring->tail = 4711; /* our own word */
    pair.ring->head = 2;
    assert_int_equal(ring_take(&pair.take, &note), RING_OK);

    for (uint32_t i = 0; i < 100000; i++) {
        uint32_t lie;
        uint32_t before = pair.take.own;
        uint32_t taken = 0;

        random = random * 1664525u + 1013904223u;
        lie = (i & 1) != 0 ? random : before + random % (2 * CAPACITY);
        pair.ring->head = lie;
        while (ring_take(&pair.take, &note) == RING_OK)
            taken++;
        assert_true(taken <= CAPACITY);
        assert_true(taken == 0 || taken == lie - before);
    }

    for (uint32_t i = 0; i < CAPACITY; i++)
        assert_int_equal(ring_put(&pair.put, i), RING_OK);
    pair.ring->tail = 100;
    assert_int_equal(ring_put(&pair.put, 0), RING_BROKEN);
    pair.ring->tail = CAPACITY;
    assert_int_equal(ring_put(&pair.put, 0), RING_OK);
    free(pair.ring);
}

/* ---- two threads --------------------------------------------------------- */

#define NOTES 1000000u
#define CELLS 4096u /* so many that a loaded machine, too, is done soon */

struct flow {
    struct pair pair;
    uint32_t cells[CELLS]; /* plain memory that the notes hand over */
};

static void *flow_put(void *argument)
{
    struct flow *flow = argument;

    for (uint32_t i = 0; i < NOTES; i++) {
        /* Half as many notes fit as there are cells: nobody reads this one now. */
        flow->cells[i % CELLS] = i;
        while (ring_put(&flow->pair.put, i) == RING_WAIT)
            (void)sched_yield();
    }
    return NULL;
}

static void test_threads(void **state)
{
    static struct flow flow;
    pthread_t thread;
    uint32_t wrong = 0;
    uint32_t note = 0;

    (void)state;
    pair_open(&flow.pair, CELLS / 2);
    pair_forward(&flow.pair, UINT32_MAX - NOTES / 2);
    assert_int_equal(pthread_create(&thread, NULL, flow_put, &flow), 0);
    for (uint32_t i = 0; i < NOTES; i++) {
        while (ring_take(&flow.pair.take, &note) != RING_OK)
            (void)sched_yield();
        wrong += note != i || flow.cells[i % CELLS] != i;
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(wrong, 0);
    assert_int_equal(ring_take(&flow.pair.take, &note), RING_WAIT);
    free(flow.pair.ring);
}

/* ---- the doorbell -------------------------------------------------------- */

static void test_doorbell(void **state)
{
    static struct doorbell doorbell;

    (void)state;
    assert_false(doorbell_ring(&doorbell, 0));
    assert_false(doorbell_ring(&doorbell, 63));
    assert_false(doorbell_ring(&doorbell, 64));
    assert_false(doorbell_ring(&doorbell, DOORBELL_BITS - 1));
    assert_true(doorbell_take(&doorbell, 0) == (UINT64_C(1) | UINT64_C(1) << 63));
    assert_true(doorbell_take(&doorbell, 0) == 0);
    assert_true(doorbell_take(&doorbell, 1) == 1);
    assert_true(doorbell_take(&doorbell, DOORBELL_WORDS - 1) == UINT64_C(1) << 63);
    doorbell_sleep(&doorbell);
    assert_true(doorbell_ring(&doorbell, 5)); /* this one has to wake it */
    assert_false(doorbell_ring(&doorbell, 6));
    doorbell_sleep(&doorbell);
    doorbell_awake(&doorbell);
    assert_false(doorbell_wake(&doorbell));
}

#define RINGERS 4
#define RINGS 5000

struct tower {
    struct doorbell doorbell;
    struct ring_end put[RINGERS];
    struct ring_end take[RINGERS];
    struct flag_word
        wakes[RINGERS]; /* how often a ringer was told to wake the sleeper */
};

struct ringer {
    struct tower *tower;
    uint32_t index;
};

static void *tower_ring(void *argument)
{
    struct ringer *me = argument;
    struct tower *tower = me->tower;

    for (uint32_t i = 0; i < RINGS; i++) {
        while (ring_put(&tower->put[me->index], i) == RING_WAIT)
            (void)sched_yield();
        if (doorbell_ring(&tower->doorbell, me->index * 64))
            flag_word_publish(&tower->wakes[me->index],
                              flag_word_read(&tower->wakes[me->index]) + 1);
    }
    return NULL;
}

/* The owner goes to "sleep" whenever it finds nothing, and gets up only if told to: a
 * lost wake-up hangs here. */
static void test_doorbell_threads(void **state)
{
    static struct tower tower;
    struct ringer ringers[RINGERS];
    pthread_t threads[RINGERS];
    uint32_t got[RINGERS] = {0};
    uint32_t total = 0;
    uint32_t note = 0;

    (void)state;
    for (uint32_t i = 0; i < RINGERS; i++) {
        struct pair pair;

        pair_open(&pair, 16);
        tower.put[i] = pair.put;
        tower.take[i] = pair.take;
        ringers[i] = (struct ringer){&tower, i};
        assert_int_equal(pthread_create(&threads[i], NULL, tower_ring, &ringers[i]), 0);
    }
    while (total < RINGERS * RINGS) {
        uint32_t before = total;

        doorbell_sleep(&tower.doorbell);
        for (uint32_t i = 0; i < RINGERS; i++) {
            if (doorbell_take(&tower.doorbell, i) == 0)
                continue;
            while (ring_take(&tower.take[i], &note) == RING_OK) {
                assert_int_equal(note, got[i]);
                got[i]++;
                total++;
            }
        }
        /* Asleep stays 1 until a ringer takes it, as a futex would have it. */
        while (total == before && atomic_load(&tower.doorbell.asleep) != 0)
            (void)sched_yield();
        doorbell_awake(&tower.doorbell);
    }
    for (uint32_t i = 0; i < RINGERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        free(tower.put[i].ring);
    }
}

#define DUELS 300000u

struct duel {
    struct doorbell doorbell;
    struct flag_word rung;
    struct flag_word answered;
    struct flag_word stop;
};

static void *duel_ring(void *argument)
{
    struct duel *duel = argument;

    for (uint32_t i = 1; flag_word_read(&duel->stop) == 0; i++) {
        (void)doorbell_ring(&duel->doorbell, 0);
        flag_word_publish(&duel->rung, i);
        while (flag_word_read(&duel->answered) != i && flag_word_read(&duel->stop) == 0)
            continue;
    }
    return NULL;
}

/* One ringer, who waits for each answer, while the owner falls asleep: nobody rings a
 * second time. The wake-up is lost if the ringer is done and the owner still asleep. */
static void test_doorbell_duel(void **state)
{
    static struct duel duel;
    time_t limit = time(NULL) + 2;
    uint32_t answered = 0;
    bool lost = false;
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, duel_ring, &duel), 0);
    while (answered < DUELS && !lost && time(NULL) < limit) {
        doorbell_sleep(&duel.doorbell);
        if (doorbell_take(&duel.doorbell, 0) != 0) {
            doorbell_awake(&duel.doorbell);
            flag_word_publish(&duel.answered, ++answered);
            continue;
        }
        /* Asleep. Yields now and then, in case there is one core only. */
        for (uint32_t spins = 1; atomic_load(&duel.doorbell.asleep) != 0 && !lost;
             spins++) {
            if (spins % 1000 == 0)
                (void)sched_yield();
            lost = flag_word_read(&duel.rung) == answered + 1 &&
                   atomic_load(&duel.doorbell.asleep) != 0;
        }
    }
    flag_word_publish(&duel.stop, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (lost)
        fail_msg("the wake-up of ring %u was lost", answered + 1);
    print_message("%u duels\n", answered);
}

/* ---- the seqlock --------------------------------------------------------- */

#define WORDS 1024u
/* The reader goes on until it has seen as much as this; how long that takes is up to
 * the scheduler. */
#define WRITES 4000u
#define GOOD 100u
#define TORN 3u
#define BOUND_S 15

struct page {
    struct seq_word version;
    struct flag_word ready, stop;
    struct stat_word done;
    uint64_t words[WORDS];
};

static void page_write(struct page *page)
{
    while (flag_word_read(&page->ready) == 0)
        (void)sched_yield();
    for (uint64_t i = 1; flag_word_read(&page->stop) == 0; i++) {
        seq_write_begin(&page->version);
        for (uint32_t j = 0; j < WORDS; j++) {
            page->words[j] = i;
            if (i % 64 == 0 && j == WORDS / 2)
                (void)sched_yield(); /* on one core too, somebody reads half of it */
        }
        seq_write_end(&page->version);
        stat_set(&page->done, stat_get(&page->done) + 1);
        if (i % 16 == 0)
            (void)sched_yield();
    }
}

/* The writer is another process. Copies that pass the check are whole; without the
 * check torn ones are seen, or the test has tested nothing. */
static void test_seqlock(void **state)
{
    static uint64_t copy[WORDS];
    struct page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned torn = 0;
    unsigned torn_unseen = 0;
    unsigned good = 0;
    uint64_t last = 0;
    time_t end = time(NULL) + BOUND_S;
    int status = -1;
    pid_t pid;

    (void)state;
    assert_true(page != MAP_FAILED);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        page_write(page);
        _exit(0);
    }
    flag_word_publish(&page->ready, 1);
    while ((last < WRITES || good < GOOD || torn < TORN) && time(NULL) < end) {
        uint64_t begin = seq_read_begin(&page->version);
        bool whole = true;

        memcpy(copy, page->words, sizeof copy);
        for (uint32_t j = 1; j < WORDS; j++)
            whole = whole && copy[j] == copy[0];
        if (seq_read_retry(&page->version, begin)) {
            torn += !whole;
            continue;
        }
        torn_unseen += !whole;
        good++;
        assert_true(copy[0] == begin / 2);
        assert_true(begin / 2 >= last);
        if (begin / 2 == last)
            (void)sched_yield(); /* nothing new: let the writer on */
        last = begin / 2;
    }
    flag_word_publish(&page->stop, 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    print_message("%u whole reads, %u torn ones detected\n", good, torn);
    assert_int_equal(torn_unseen, 0);
    assert_true(good >= GOOD);
    assert_true(torn >= TORN);
    assert_true(stat_get(&page->done) >= last);
    assert_int_equal(munmap(page, sizeof *page), 0);
}

static void test_seqlock_alone(void **state)
{
    struct seq_word word = {0};
    uint64_t begin = seq_read_begin(&word);

    (void)state;
    assert_false(seq_read_retry(&word, begin));
    seq_write_begin(&word);
    assert_true(seq_read_retry(&word, begin));
    begin = seq_read_begin(&word);
    assert_true(seq_read_retry(&word, begin)); /* began while writing */
    seq_write_end(&word);
    assert_true(seq_read_retry(&word, begin));
    begin = seq_read_begin(&word);
    assert_true(begin == 2);
    assert_false(seq_read_retry(&word, begin));
}

/* Data in two places in turn: a copy of version v is rejected by the writing of v + 2,
 * and by nothing before that, whether it began at rest or while v + 1 was written. */
static void test_seqlock_of_two_places(void **state)
{
    struct seq_word word = {0};
    uint64_t v, begin, writing;

    (void)state;
    for (v = 0; v < 5; v++) {
        begin = seq_read_begin(&word);
        assert_int_equal(begin / 2, v);
        assert_false(seq_read_lapped(&word, begin));
        seq_write_begin(&word); /* v + 1, in the other place */
        writing = seq_read_begin(&word);
        assert_int_equal(writing / 2, v);
        assert_false(seq_read_lapped(&word, begin));
        assert_false(seq_read_lapped(&word, writing));
        seq_write_end(&word);
        assert_false(seq_read_lapped(&word, begin));
        assert_false(seq_read_lapped(&word, writing));
        struct seq_word later = word;
        seq_write_begin(&later); /* v + 2, in the place that was read */
        assert_true(seq_read_lapped(&later, begin));
        assert_true(seq_read_lapped(&later, writing));
        seq_write_end(&later);
        assert_true(seq_read_lapped(&later, begin));
        assert_true(seq_read_lapped(&later, writing));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_full),
        cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_capacity_one),
        cmocka_unit_test(test_liar),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_doorbell),
        cmocka_unit_test(test_doorbell_threads),
        cmocka_unit_test(test_doorbell_duel),
        cmocka_unit_test(test_seqlock_alone),
        cmocka_unit_test(test_seqlock),
        cmocka_unit_test(test_seqlock_of_two_places),
    };

    pace_alarm(50);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
