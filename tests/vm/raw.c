/* A program for the lab: a client that does what none should, with requests of its own
 * on its own queue pair, against a server on the same machine and a real device.
 *
 *     raw IP      each try is a line; the exit status is the number that went wrong
 *
 * Memory that was not granted must stay as it is, the device must refuse, the server
 * must name the peer and serve the others; and what a peer wrote too late must not land
 * in a slot that another one has by then.
 */
#include "tests/pace.h"
#include "engine/base/clock.h"
#include "transport/verbs/verbs.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HALF ((size_t)8192)
#define LARGE ((size_t)16 << 20)
#define PATIENCE_NS INT64_C(20000000000)

static const struct transport *const t = &transport_verbs;
static int wrong;
static char address[80];

static void reported(const char *what, bool good, const char *reason)
{
    (void)printf("%s: %s%s%s\n", good ? "ok" : "WRONG", what,
                 reason[0] != '\0' ? ": " : "", reason);
    (void)fflush(stdout);
    wrong += good ? 0 : 1;
}

static void must(int status, const struct gapless_error *error, const char *what)
{
    if (status >= 0)
        return;
    (void)printf("WRONG: %s: %s\n", what, error->text);
    exit(99);
}

/* ---- two ends ------------------------------------------------------------ */

struct joining {
    struct tp *tp;
    tp_peer peer;
    int status;
    struct gapless_error error;
};

static void *join_run(void *argument)
{
    struct joining *it = argument;

    it->status = t->connect(it->tp, address, PATIENCE_NS, &it->peer, &it->error);
    return NULL;
}

static struct tp *end_open(uint32_t peers)
{
    struct tp_config config = {.peers_max = peers, .net.insecure = true};
    struct gapless_error error = {0};
    struct tp *tp = NULL;

    must(t->open(&config, &tp, &error), &error, "open");
    return tp;
}

/* The next event of a kind; others are passed over. False: none in time. */
static bool next(struct tp *tp, enum tp_event_kind kind, struct tp_event *ret)
{
    uint64_t end = clock_ns() + (uint64_t)PATIENCE_NS;

    while (clock_ns() < end)
        if (t->poll(tp, ret, 1, 10000000) == 1 && ret->kind == kind)
            return true;
    return false;
}

/* A client, its peer slot at the server, and its slot there. */
struct client {
    struct tp *tp;
    tp_peer to_server, at_server;
    struct tp_region window;
};

static void client_open(struct client *ret, struct tp *server,
                        const struct tp_region *slot)
{
    struct joining it = {.tp = end_open(1)};
    struct gapless_error error = {0};
    struct tp_event event = {0};
    pthread_t thread;

    if (pthread_create(&thread, NULL, join_run, &it) != 0)
        exit(98);
    if (!next(server, TP_UP, &event))
        must(GAPLESS_TIMEOUT, &it.error, "nobody came");
    (void)pthread_join(thread, NULL);
    must(it.status, &it.error, "connect");
    *ret = (struct client){.tp = it.tp, .to_server = it.peer, .at_server = event.peer};
    must(t->grant(server, event.peer, slot, 0, TP_SPLIT, &error), &error, "grant");
    must(t->window(ret->tp, it.peer, 0, PATIENCE_NS, &ret->window, &error), &error,
         "window");
}

/* ---- requests of its own ------------------------------------------------- */

struct raw {
    enum ibv_wr_opcode opcode;
    uint64_t address;
    uint32_t key;
    size_t bytes;
};

static int raw_post(struct client *c, const struct raw *raw)
{
    struct verbs_channel *channel = c->tp->peers[c->to_server].channel[0];
    struct verbs_region *own = verbs_region_find(c->tp, &c->window);
    struct ibv_sge sge = {.addr = (uint64_t)(uintptr_t)own->base,
                          .length = (uint32_t)raw->bytes,
                          .lkey = own->part->whole[channel->nic_at]->lkey};
    struct ibv_send_wr wr = {.wr_id = UINT64_MAX,
                             .opcode = raw->opcode,
                             .send_flags = IBV_SEND_SIGNALED,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .wr.rdma = {raw->address, raw->key}};
    struct ibv_send_wr *bad;

    return ibv_post_send(channel->qp, &wr, &bad);
}

/* How the request ended, by the client's own completion queue. */
static enum ibv_wc_status raw_end(struct client *c)
{
    struct verbs_channel *channel = c->tp->peers[c->to_server].channel[0];
    uint64_t end = clock_ns() + (uint64_t)PATIENCE_NS;
    struct ibv_wc wc;

    while (clock_ns() < end)
        if (ibv_poll_cq(channel->nic->cq[channel->queue], 1, &wc) == 1 &&
            wc.wr_id == UINT64_MAX)
            return wc.status;
    return IBV_WC_GENERAL_ERR;
}

static bool all_are(const struct tp_region *region, char value)
{
    const char *at = region->base;

    for (size_t i = 0; i < region->bytes; i++)
        if (at[i] != value)
            return false;
    return true;
}

/* ---- the tries ----------------------------------------------------------- */

struct scene {
    struct tp *server;
    struct tp_region slot[2]; /* the hostile one's, and an honest one's */
    struct client honest;
};

/* The honest client can still work. */
static bool honest_works(struct scene *s, uint32_t note)
{
    struct tp_event event = {0};
    int status;

    memset((char *)s->honest.window.base + HALF, 7, HALF);
    status =
        t->put(s->honest.tp, s->honest.to_server, &s->honest.window, HALF, HALF, note);
    return status >= 0 && next(s->server, TP_NOTE, &event) && event.note == note &&
           ((char *)s->slot[1].base)[HALF] == 7 && ((char *)s->slot[1].base)[0] == 5;
}

static void reach(struct scene *s, const char *what, enum ibv_wr_opcode opcode,
                  int64_t offset, size_t bytes, bool of_write, const uint32_t *key)
{
    struct gapless_error reason = {0};
    struct client hostile;
    const struct verbs_grant *grant;
    enum ibv_wc_status status;
    struct tp_event event = {0};
    bool good;

    memset(s->slot[0].base, 5, s->slot[0].bytes);
    memset(s->slot[1].base, 5, s->slot[1].bytes);
    client_open(&hostile, s->server, &s->slot[0]);
    grant = &hostile.tp->peers[hostile.to_server].channel[0]->grant[0];
    memset(hostile.window.base, 9, hostile.window.bytes);
    (void)raw_post(&hostile,
                   &(struct raw){.opcode = opcode,
                                 .address = grant->remote->address + (uint64_t)offset,
                                 .key = key != NULL ? *key
                                        : of_write  ? grant->remote->write_key
                                                    : grant->remote->read_key,
                                 .bytes = bytes});
    status = raw_end(&hostile);
    /* Over iWARP a WRITE that is sent is done; its end is the connection's. */
    good = (status != IBV_WC_SUCCESS || opcode == IBV_WR_RDMA_WRITE) &&
           next(s->server, TP_DOWN, &event) && event.peer == hostile.at_server;
    t->last_error(s->server, hostile.at_server, &reason);
    if (!good)
        (void)printf("    the request: %s\n", ibv_wc_status_str(status));
    if (!all_are(&s->slot[0], 5) || !all_are(&s->slot[1], 5)) {
        (void)printf("    memory was changed\n");
        good = false;
    }
    if (opcode == IBV_WR_RDMA_READ && memchr(hostile.window.base, 5, 64) != NULL) {
        (void)printf("    memory was read\n");
        good = false;
    }
    if (!honest_works(s, 77)) {
        (void)printf("    an honest peer cannot work\n");
        good = false;
    }
    good = good && reason.text[0] != '\0';
    reported(what, good, reason.text);
    t->close(hostile.tp);
}

/* A long write is under way when its slot is given to another. */
static void late(struct scene *s)
{
    struct gapless_error error = {0};
    struct client old, new;
    struct tp_region slot;
    const struct verbs_grant *grant;
    enum ibv_wc_status status;
    bool untouched;

    must(t->region_new(s->server, 2 * LARGE, &slot, &error), &error, "region");
    slot.split = LARGE;
    client_open(&old, s->server, &slot);
    memset(old.window.base, 9, old.window.bytes);
    grant = &old.tp->peers[old.to_server].channel[0]->grant[0];
    (void)raw_post(&old, &(struct raw){.opcode = IBV_WR_RDMA_WRITE,
                                       .address = grant->remote->address + LARGE,
                                       .key = grant->remote->write_key,
                                       .bytes = LARGE});
    while (((volatile char *)slot.base)[LARGE] != 9) /* the first of it is there */
        ;
    s->server->peers[old.at_server].dropped = true; /* as if lost: without a flush */
    verbs_peer_end(&s->server->peers[old.at_server], NULL);
    client_open(&new, s->server, &slot);
    memset(slot.base, 0, slot.bytes);
    status = raw_end(&old);
    (void)usleep(300000);
    untouched = all_are(&slot, 0);
    reported("a write that comes late to a slot that is another's does not land",
             untouched && status != IBV_WC_SUCCESS, ibv_wc_status_str(status));
    t->close(old.tp);
    t->close(new.tp);
}

int main(int argc, char **argv)
{
    struct scene s = {.server = end_open(4)};
    struct gapless_error error = {0};
    uint32_t stolen, guessed;

    if (argc != 2)
        return 2;
    pace_alarm(200);
    (void)snprintf(address, sizeof address, "%s:%d", argv[1], 7600 + getpid() % 400);
    must(t->listen(s.server, address, &error), &error, "listen");
    for (int i = 0; i < 2; i++) {
        must(t->region_new(s.server, 2 * HALF, &s.slot[i], &error), &error, "region");
        s.slot[i].split = HALF;
        memset(s.slot[i].base, 5, 2 * HALF);
    }
    client_open(&s.honest, s.server, &s.slot[1]);
    stolen =
        s.honest.tp->peers[s.honest.to_server].channel[0]->grant[0].remote->write_key;
    guessed = stolen ^ 0x100;
    reach(&s, "a write before what may be written", IBV_WR_RDMA_WRITE, HALF - 8, 8,
          true, NULL);
    reach(&s, "a write over the end", IBV_WR_RDMA_WRITE, 2 * HALF - 8, 64, true, NULL);
    reach(&s, "a write with the key for reading", IBV_WR_RDMA_WRITE, 0, 64, false,
          NULL);
    /* siw (6.1) lets a key be read with that is for writing: of the peer's own
     * memory. */
    if (!s.server->nic[0].iwarp)
        reach(&s, "a read of what may only be written", IBV_WR_RDMA_READ, HALF, 64,
              true, NULL);
    reach(&s, "a read before what was granted", IBV_WR_RDMA_READ, -64, 64, false, NULL);
    reach(&s, "a write into another's slot with its stolen key", IBV_WR_RDMA_WRITE,
          (int64_t)((char *)s.slot[1].base - (char *)s.slot[0].base) + (int64_t)HALF,
          64, true, &stolen);
    reach(&s, "a write with a guessed key", IBV_WR_RDMA_WRITE, HALF, 64, true,
          &guessed);
    late(&s);
    t->close(s.honest.tp);
    t->close(s.server);
    (void)printf("%d went wrong\n", wrong);
    return wrong;
}
