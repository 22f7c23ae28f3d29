/* The simulated transport: endpoints of one process, a virtual clock, a modelled link.
 *
 *   client ---- latency ----> | inbound -->  port of the  | --> one pass after another
 *   client <--- latency ----- | <-- outbound server       |
 *
 * All endpoints that listen on or connect to one address belong to a world: one clock
 * (which only sim_advance and waiting polls move), one queue of deliveries in order of
 * time and, at the same time, in the order they were sent. Nothing is random, so a run
 * repeats itself to the bit.
 *
 * What takes time, by default nothing:
 *   put      its bytes go through the inbound side of the port, one put after another,
 *            then latency_ns; if it has bytes the server then is busy for pass_ns and
 *            what pass_bytes_per_ns makes of them, and takes the next only after that
 *   notify   leaves when the pass of what the server took last is over; latency_ns
 *   get      latency_ns, its bytes through the outbound side, latency_ns; like every
 *            mapped transport sim gives no TP_DONE: sim_gets_done_ns says when it is there
 *
 * Connecting, say, grant and drop take no time: they are not what a run consists of.
 *
 * Two tables. `sim` maps: a window is the server's own memory. `simnet` does not: a
 * client has memory of its own, puts and gets copy, and TP_DONE says when.
 *
 *   simnet put   bytes there and latency_ns back: TP_DONE; at most 64 bytes go with the
 *                request and give none. They are copied when the note or the TP_DONE is
 *                delivered, whichever is first: a source changed before is seen
 *   simnet get   copied when its TP_DONE is delivered
 *
 * A client of one finds no server of the other.
 *
 * Beside the table of transport.h there are the functions below, for the code that drives the
 * clock (engine/simulator/simulator.c).
 */
#ifndef GAPLESS_SIM_H
#define GAPLESS_SIM_H

#include "transport/transport.h"

struct sim_world;

struct sim_link {
    uint64_t latency_ns; /* each way */
    double bytes_per_ns; /* of the server's port, each way on its own; 0: no limit */
    uint64_t pass_ns;    /* of the server, for a put that has bytes */
    double pass_bytes_per_ns; /* of the server, beside pass_ns; 0: no limit */
};

/* The world of an endpoint; NULL before listen or connect. It lives as long as one of
 * its endpoints. */
struct sim_world *sim_world_of(const struct tp *tp);
void sim_link_set(struct sim_world *world, const struct sim_link *link);
/* Called by a client's poll or window that finds nothing delivered: lets the server
 * work, so that an exchange of messages goes through within one call of the client. It
 * must not be called from within itself. NULL: none. */
void sim_pump_set(struct sim_world *world, void (*pump)(void *user), void *user);

uint64_t sim_now_ns(const struct sim_world *world);
/* The earliest delivery that waits, and for whom. False: none. */
bool sim_next(const struct sim_world *world, uint64_t *ret_ns, struct tp **ret_tp);
/* Moves the clock; a time in the past leaves it where it is. */
void sim_advance(struct sim_world *world, uint64_t now_ns);

/* When all that this client has asked for by get is there. */
uint64_t sim_gets_done_ns(const struct tp *tp);
/* Something of the caller's, by endpoint. */
void sim_user_set(struct tp *tp, void *user);
void *sim_user(const struct tp *tp);

#endif
