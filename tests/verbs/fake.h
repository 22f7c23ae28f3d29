/* A network of three RDMA devices inside one process. The test programs define the
 * functions of libibverbs and librdmacm themselves (fake_*.c), so what is linked to
 * them (transport/verbs*.c) talks to this network and not to a kernel.
 *
 *   fake0  10.1.1.1  fd10::1   like RoCE: immediate data, memory windows of type 2B,
 *   fake1  10.1.2.1  fd11::1     220 bytes inline, messages of at most 1 MiB, 4 reads
 *   fake2  10.2.1.1  fd12::1   like iWARP: none of these, 80 bytes inline; what it
 *                                does not know, post_send refuses with -EINVAL
 *
 *      rdma_connect ──> CONNECT_REQUEST          one mutex for everything; event and
 *      ESTABLISHED <─── rdma_accept              completion channels are eventfds; the
 *      post_send ─────> memory, completions      events of connecting are never waited
 *      fake_vanish, fake_cut, fake_fatal ...     for inside a call
 *
 * Only reliable connections: over rdma_cm, and of a queue pair to itself. What one side
 * may touch of the other's memory is checked as by hardware: key, bounds, access,
 * protection domain, bound queue pair. Misuse that hardware would punish with a hang, a
 * leak or silence (a completion queue that overflows, objects destroyed in the wrong
 * order, an id destroyed with events not acknowledged) is a fault: it is printed,
 * counted, and fails the program at its end.
 *
 * Deviations that are meant: nothing takes time (a peer that does not answer is lost at
 * once, receiver-not-ready tries are used up at once unless they are infinite), fields
 * of failed completions that mean nothing are filled with rubbish, key numbers are not
 * soon used again. */
#ifndef GAPLESS_TESTS_VERBS_FAKE_H
#define GAPLESS_TESTS_VERBS_FAKE_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A new network. What is alive from before is a fault. The first use of any function
 * makes one too. */
void fake_begin(void);
/* Faults since fake_begin, objects still alive among them; tells stderr which. */
unsigned fake_end(void);
/* Faults so far, and the text of the last one. */
unsigned fake_faults(void);
const char *fake_fault_text(void);
/* Forgets the faults so far: for tests of the fake itself. */
void fake_forgive(void);

/* What is alive: asked for by the program and not given back. */
struct fake_live {
    unsigned lists, contexts, domains, regions, windows, channels, queues, pairs;
    unsigned cm_channels, ids, unacknowledged;
};
/* Returns the sum; ret may be NULL. */
unsigned fake_live(struct fake_live *ret);

/* The n-th call (from 0) that can fail from now on fails, and, if `forever`, all after
 * it too. Negative: none. What counts: every call that can fail, if it has something to
 * do (looking for events where there are none does not count; of the receives that are
 * posted before there is a connection two count), and after it every outcome that comes
 * later (an address not resolved, a peer that does not answer). */
void fake_fail_at(long n, bool forever);
/* Calls that could have failed since then. */
long fake_fallible(void);
/* What failed first, "" if nothing did. */
const char *fake_failed(void);

/* When posted work is done. */
enum fake_pace {
    FAKE_AT_POST,  /* inside the post; the default */
    FAKE_BY_HAND,  /* by fake_pump */
    FAKE_BY_THREAD /* by a thread, one request of a queue pair at a time */
};
void fake_pace(enum fake_pace pace);
/* Does at most `most` requests, in order within a queue pair. Returns how many. Each
 * call is one try for those that wait for a receive. */
int fake_pump(int most);
/* The same, of one queue pair. */
int fake_pump_one(struct ibv_qp *pair, int most);

/* Rules of the network. */
struct fake_rules {
    bool no_devices;    /* there are none */
    bool no_windows;    /* memory windows cannot be had on any device */
    bool no_immediates; /* post_send refuses them on every device, with -EINVAL */
    bool no_answer;     /* requests to connect vanish */
    bool unresolvable;  /* addresses: an event with an error */
    bool no_route;      /* routes: the same */
    bool stale;         /* completions of a queue pair outlive it, as with rxe */
    bool port_down;     /* ports are not active */
    size_t memory_most; /* bytes that can be registered; 0: no limit */
    bool no_dmabuf;     /* no device takes memory as DMA-BUF */
    bool peermem;       /* memory of accelerators can be registered by its address */
};
extern struct fake_rules fake_rules; /* fake_begin clears them */

/* Connections are numbered from 0 in the order in which they were asked for. */
enum fake_side {
    FAKE_ACTIVE, /* that called rdma_connect */
    FAKE_PASSIVE
};
unsigned fake_connections(void);
/* NULL if there is none (any more). */
struct ibv_qp *fake_pair(unsigned connection, enum fake_side side);
struct rdma_cm_id *fake_id(unsigned connection, enum fake_side side);

/* Nothing gets from one side to the other any more, and nobody is told. */
void fake_vanish(unsigned connection);
/* Both sides are told DISCONNECTED although nobody asked for it. */
void fake_cut(unsigned connection);
/* The event comes to the side, with the status. */
void fake_tell(unsigned connection, enum fake_side side, enum rdma_cm_event_type event,
               int status);
/* From now on a passive side finds its ESTABLISHED only after this number of looks for events. */
void fake_late(unsigned looks);
/* How many of them are left. */
unsigned fake_late_left(void);
/* Asynchronous event of the device; all its queue pairs end with errors. */
void fake_fatal(const char *device);
/* Asynchronous event of port 1 of the device; nothing else happens. */
void fake_port_event(const char *device, enum ibv_event_type event);
/* The same, and every id on the device is told DEVICE_REMOVAL; nothing works on it any
 * more. */
void fake_remove(const char *device);

/* At [base, base + bytes) of this process there is memory of an accelerator, which the
 * file `fd` holds (from its start) and this process may not touch (PROT_NONE). It can
 * be registered with `fd` as DMA-BUF, or, if the rules say so, by its address; a card
 * reaches it by a mapping of its own. Forgotten by fake_begin. */
void fake_card(void *base, size_t bytes, int fd);
/* What the device reaches of accelerators' memory from now on is some other page: an
 * IOMMU that is set up wrongly. */
void fake_misroute(const char *device, bool wrong);

/* The keys that let a peer touch memory now. */
struct fake_key {
    uint32_t rkey;
    uint64_t base;
    uint64_t bytes;
    unsigned access; /* IBV_ACCESS_REMOTE_* */
    uint32_t pair;   /* windows: the queue pair's number; 0: all of the domain */
    const struct ibv_pd *pd;
};
/* Writes at most `most` of them in the order of their making; returns how many there
 * are. */
size_t fake_keys(struct fake_key *ret, size_t most);

/* What has been done since fake_begin. */
struct fake_counters {
    unsigned long posts;                                   /* calls of post_send */
    unsigned long sends, writes, writes_imm, reads, binds; /* requests done well */
    unsigned long empty_writes;  /* of the writes: those of 0 bytes */
    unsigned long longest;       /* bytes of the longest of them */
    unsigned long not_ready;     /* times a receive was missing */
    unsigned long refused;       /* keys that did not permit */
    unsigned long most_in_queue; /* entries of a completion queue at one time */
};
void fake_count(struct fake_counters *ret);

#endif
