/* Words that two threads, or two processes, share. Every atomic operation of this tree
 * is in this file, and each names the operation it pairs with, so that the memory model
 * can be checked by reading one page.
 *
 *   ring       32-bit notes, one producer, one consumer   ring_put, ring_take
 *   doorbell       "look here", and waking who sleeps         doorbell_ring, doorbell_take
 *   seq_word   a version that tells a torn read           seq_write_*, seq_read_*
 *   stat_word  a statistic that others may look at        stat_set, stat_get
 *   flag      a small number that hands memory over      flag_word_publish, flag_word_read
 *
 * The other side of a ring or of a doorbell may be a process that lies. So an index of ours
 * is kept in private memory and only ever *written* to the shared page, and an index of
 * theirs is compared before it is used.
 *
 * No fence is used but in the seqlock: sequentially consistent operations on the words
 * themselves say the same, cost the same on x86-64, and can be checked by the thread
 * sanitizer.
 */
#ifndef GAPLESS_RING_H
#define GAPLESS_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Two words that different cores write must not share one of these. */
#define RING_LINE 64

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a lock cannot be shared with a process");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a lock cannot be shared with a process");

/* ---- the ring ---------------------------------------------------------------
 *
 *    tail          head          head and tail count notes for ever, modulo 2^32; the
 *     v             v            place of a note is its count modulo the capacity, a
 *   [ ][a][b][c][d][ ][ ]        power of two. head - tail notes wait.
 */
struct ring {
    _Alignas(RING_LINE) _Atomic uint32_t head; /* written by the producer only */
    _Alignas(RING_LINE) _Atomic uint32_t tail; /* written by the consumer only */
    _Alignas(RING_LINE) _Atomic uint32_t notes[];
};

/* One side's private knowledge of a ring. */
struct ring_end {
    struct ring *ring;
    uint32_t capacity; /* a power of two */
    uint32_t own;      /* our index; the shared copy is never read back */
    uint32_t seen;     /* their index when we last looked, checked */
};

enum ring_state {
    RING_OK,
    RING_WAIT,  /* put: full; take: empty */
    RING_BROKEN /* their index is impossible: do not touch this ring again */
};

/* The bytes of a ring, a whole number of lines. Zeroed memory is an empty ring. */
static inline size_t ring_bytes(uint32_t capacity)
{
    size_t bytes = sizeof(struct ring) + sizeof(uint32_t) * (size_t)capacity;

    return (bytes + RING_LINE - 1) / RING_LINE * RING_LINE;
}

/* For either side, of an empty ring. */
static inline struct ring_end ring_end(struct ring *ring, uint32_t capacity)
{
    return (struct ring_end){.ring = ring, .capacity = capacity};
}

/* Producer. Everything written before is visible to the consumer that takes the note. */
static inline enum ring_state ring_put(struct ring_end *end, uint32_t note)
{
    struct ring *ring = end->ring;

    if (end->own - end->seen == end->capacity) {
        /* Pairs with the release in ring_take: the place is read before it is written
         * again. */
        uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);

        if (end->own - tail > end->capacity)
            return RING_BROKEN;
        end->seen = tail;
        if (end->own - tail == end->capacity)
            return RING_WAIT;
    }
    atomic_store_explicit(&ring->notes[end->own & (end->capacity - 1)], note,
                          memory_order_relaxed);
    end->own++;
    /* Pairs with the acquire in ring_take. */
    atomic_store_explicit(&ring->head, end->own, memory_order_release);
    return RING_OK;
}

/* Consumer. */
static inline enum ring_state ring_take(struct ring_end *end, uint32_t *ret)
{
    struct ring *ring = end->ring;

    if (end->own == end->seen) {
        /* Pairs with the release in ring_put: the note and all bytes before it are
         * visible. */
        uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);

        if (head - end->own > end->capacity)
            return RING_BROKEN;
        end->seen = head;
        if (head == end->own)
            return RING_WAIT;
    }
    *ret = atomic_load_explicit(&ring->notes[end->own & (end->capacity - 1)],
                                memory_order_relaxed);
    end->own++;
    /* Pairs with the acquire in ring_put. */
    atomic_store_explicit(&ring->tail, end->own, memory_order_release);
    return RING_OK;
}

/* ---- the doorbell -----------------------------------------------------------
 *
 * Every endpoint has one; its peers map it and hold one bit each. The protocol is
 * Dekker's:
 *
 *   ringer                            owner
 *   put something in a ring           asleep := 1
 *   set our attention bit             any attention bit?  yes: asleep := 0, go and look
 *   asleep?  no: done                 no: futex wait while asleep == 1, for a
 *            yes: take it, futex wake     bounded time
 *
 * All four are sequentially consistent, so at least one of the two sees the other:
 * either the owner finds the bit, or the ringer finds it asleep. `asleep` is also the
 * futex word; it is taken by exchange, so that of a hundred ringers one pays for the
 * system call. A ringer that is killed between taking it and the call leaves a sleeper
 * that no ringer wakes; therefore sleeps are short and look again.
 */
#define DOORBELL_WORDS 256
#define DOORBELL_BITS (DOORBELL_WORDS * 64)

struct doorbell {
    _Alignas(RING_LINE) _Atomic uint32_t asleep;
    _Alignas(RING_LINE) _Atomic uint64_t attention[DOORBELL_WORDS];
};

/* Owner sleeping? Then true, and the caller must futex-wake &bell->asleep. Whatever the
 * owner should see was stored sequentially consistent before (an attention bit, a
 * flag). Pairs with doorbell_sleep. */
static inline bool doorbell_wake(struct doorbell *doorbell)
{
    return atomic_load_explicit(&doorbell->asleep, memory_order_seq_cst) != 0 &&
           atomic_exchange_explicit(&doorbell->asleep, 0, memory_order_seq_cst) != 0;
}

/* Ringer: sets the bit (< BELL_BITS); then as doorbell_wake. Pairs with doorbell_take and
 * doorbell_sleep. */
static inline bool doorbell_ring(struct doorbell *doorbell, uint32_t bit)
{
    atomic_fetch_or_explicit(&doorbell->attention[bit / 64], UINT64_C(1) << (bit % 64),
                             memory_order_seq_cst);
    return doorbell_wake(doorbell);
}

/* Owner: the bits set since last asked. The exchange, which takes the line away from
 * the ringers, is done only if there are any. Pairs with doorbell_ring: what was put before
 * the bit was set is visible. */
static inline uint64_t doorbell_take(struct doorbell *doorbell, uint32_t word)
{
    if (atomic_load_explicit(&doorbell->attention[word], memory_order_seq_cst) == 0)
        return 0;
    return atomic_exchange_explicit(&doorbell->attention[word], 0,
                                    memory_order_seq_cst);
}

/* Owner: from now on ringers wake us. Look at everything once more before sleeping.
 * Pairs with doorbell_wake. */
static inline void doorbell_sleep(struct doorbell *doorbell)
{
    atomic_store_explicit(&doorbell->asleep, 1, memory_order_seq_cst);
}

/* Owner: awake again. A ringer that took the flag meanwhile only wakes us for
 * nothing. */
static inline void doorbell_awake(struct doorbell *doorbell)
{
    atomic_store_explicit(&doorbell->asleep, 0, memory_order_relaxed);
}

/* ---- the seqlock ------------------------------------------------------------
 *
 * A version beside data that one writer changes in place and any number of readers copy
 * without asking it. Odd while the writer is at work. value / 2 counts the writes, so
 * it serves as the version number too.
 *
 *   do {
 *       begin = seq_read_begin(&word);
 *       copy the data;                        possibly torn: do not use it yet
 *   } while (seq_read_retry(&word, begin));   bounded by the caller
 */
struct seq_word {
    _Atomic uint64_t value;
};

#if defined(__GNUC__) && !defined(__clang__)
/* gcc's thread sanitizer does not model fences and says so. The data are copied by
 * plain loads, which race by design; it cannot see them anyway, since writer and
 * readers map the pages at different addresses. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif

/* Before any reader is there: the number of writes so far, times 2. */
static inline void seq_set(struct seq_word *word, uint64_t value)
{
    atomic_store_explicit(&word->value, value, memory_order_release);
}

static inline void seq_write_begin(struct seq_word *word)
{
    uint64_t value = atomic_load_explicit(&word->value, memory_order_relaxed);

    atomic_store_explicit(&word->value, value + 1, memory_order_relaxed);
    /* The odd number is visible before any of the data; pairs with the fence in
     * seq_read_retry. */
    atomic_thread_fence(memory_order_release);
}

static inline void seq_write_end(struct seq_word *word)
{
    uint64_t value = atomic_load_explicit(&word->value, memory_order_relaxed);

    /* All of the data are visible before the even number; pairs with the acquire in
     * seq_read_begin. */
    atomic_store_explicit(&word->value, value + 1, memory_order_release);
}

static inline uint64_t seq_read_begin(const struct seq_word *word)
{
    /* Pairs with the release in seq_write_end. */
    return atomic_load_explicit(&word->value, memory_order_acquire);
}

/* True: what was read since seq_read_begin returned `begin` may be torn. */
static inline bool seq_read_retry(const struct seq_word *word, uint64_t begin)
{
    /* The data were read before the number is read again; pairs with the fence in
     * seq_write_begin. */
    atomic_thread_fence(memory_order_acquire);
    return (begin & 1) != 0 ||
           atomic_load_explicit(&word->value, memory_order_relaxed) != begin;
}

/* For data that the writer keeps in two places in turn: version v is in place v % 2, so
 * that it stays whole while version v + 1 is written. True: of what was read since
 * seq_read_begin returned `begin`, which is version begin / 2, some may be two versions
 * younger. Pairs as seq_read_retry does. */
static inline bool seq_read_lapped(const struct seq_word *word, uint64_t begin)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&word->value, memory_order_relaxed) >= (begin | 1) + 2;
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/* ---- statistics -------------------------------------------------------------
 *
 * One writer; a reader gets some value that was there, never half of one, and no order
 * with anything else: nothing pairs. A plain add by the writer: stat_set(&w,
 * stat_get(&w) + 1).
 */
struct stat_word {
    _Atomic uint64_t value;
};

static inline uint64_t stat_get(const struct stat_word *word)
{
    return atomic_load_explicit(&word->value, memory_order_relaxed);
}

static inline void stat_set(struct stat_word *word, uint64_t value)
{
    atomic_store_explicit(&word->value, value, memory_order_relaxed);
}

/* ---- the flag ---------------------------------------------------------------
 *
 * A state or an index by which one thread hands plain memory to another: whatever it
 * wrote before flag_word_publish is visible to who sees the new value. Sequentially
 * consistent, so that doorbell_wake may follow. Also right for a "please stop" flag, set
 * from another thread or from a signal handler.
 */
struct flag_word {
    _Atomic uint32_t value;
};

/* Pairs with flag_word_read. */
static inline void flag_word_publish(struct flag_word *flag, uint32_t value)
{
    atomic_store_explicit(&flag->value, value, memory_order_seq_cst);
}

/* Pairs with flag_word_publish. */
static inline uint32_t flag_word_read(const struct flag_word *flag)
{
    return atomic_load_explicit(&flag->value, memory_order_seq_cst);
}

#endif
