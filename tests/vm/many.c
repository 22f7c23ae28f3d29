/* A program for the lab: many connections at once to one server, each of which says a
 * note, is answered, and goes.
 *
 *     many IP N
 *
 * Of few connections signs of life are asked for, as in every run: where the kernel keeps
 * a departure to itself (siw has, once in some hundred runs), they find it.
 */
#include "tests/pace.h"
#include "transport/transport.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 4
#define BOUND_NS INT64_C(60000000000)

static const struct transport *const t = &transport_verbs;
static char address[80];
static int each;   /* connections of a thread */
static bool exact; /* ask nobody for a sign of life */
static int ended;  /* threads of clients that have closed all of theirs */

static struct tp *end_open(uint32_t peers)
{
    struct tp_config config = {
        .peers_max = peers, .net.insecure = true, .net.exact = exact};
    struct gapless_error error = {0};
    struct tp *tp = NULL;

    if (t->open(&config, &tp, &error) != GAPLESS_OK) {
        (void)printf("%s\n", error.text);
        exit(1);
    }
    return tp;
}

static bool client_run(struct tp *tp, uint32_t note, struct gapless_error *error)
{
    struct tp_event event = {.kind = TP_DONE};
    tp_peer peer;
    int n;

    if (t->connect(tp, address, BOUND_NS, &peer, error) != GAPLESS_OK)
        return false;
    if (t->notify(tp, peer, note) != GAPLESS_OK)
        return false;
    for (int i = 0; i < 60; i++) {
        n = t->poll(tp, &event, 1, 1000000000);
        if (n != 0)
            break;
    }
    return n == 1 && event.kind == TP_NOTE && event.note == note;
}

/* All of a thread's connections stay until the last of them is made. */
static void *clients_run(void *argument)
{
    struct tp **tp = calloc((size_t)each, sizeof *tp);
    uint32_t first = (uint32_t)(size_t)argument * (uint32_t)each;
    struct gapless_error error = {0};
    size_t good = 0;

    for (int i = 0; tp != NULL && i < each; i++) {
        tp[i] = end_open(1);
        good += client_run(tp[i], first + (uint32_t)i, &error) ? 1 : 0;
    }
    if (good < (size_t)each)
        (void)printf("a connection failed: %s\n", error.text);
    for (int i = 0; tp != NULL && i < each; i++)
        t->close(tp[i]);
    free(tp);
    __atomic_add_fetch(&ended, 1, __ATOMIC_RELEASE);
    return (void *)good;
}

/* Every peer comes, is answered, and goes. What has not gone AFTER_S seconds after the last
 * client has closed its end never will. */
#define AFTER_S 60
static bool serve(struct tp *server, int peers)
{
    int up = 0, noted = 0, down = 0, most = 0, silent = 0;
    struct tp_event event;

    while (down < peers && silent < AFTER_S) {
        int n = t->poll(server, &event, 1, 1000000000);

        if (n < 0)
            return false;
        silent = n == 0 && __atomic_load_n(&ended, __ATOMIC_ACQUIRE) == THREADS
                     ? silent + 1
                     : 0;
        if (n == 0)
            continue;
        up += event.kind == TP_UP ? 1 : 0;
        down += event.kind == TP_DOWN ? 1 : 0;
        most = up - down > most ? up - down : most;
        if (event.kind == TP_NOTE && ++noted > 0 &&
            t->notify(server, event.peer, event.note) != GAPLESS_OK)
            return false;
    }
    (void)printf("%d came, %d at once, %d notes, %d went\n", up, most, noted, down);
    return up == peers && noted == peers && down == peers;
}

int main(int argc, char **argv)
{
    pthread_t thread[THREADS];
    struct gapless_error error = {0};
    struct tp *server;
    size_t good = 0;
    bool served;

    if (argc != 3 || strtol(argv[2], NULL, 10) < THREADS)
        return 2;
    pace_alarm(150);
    each = (int)(strtol(argv[2], NULL, 10) / THREADS);
    exact = each * THREADS > 64;
    server = end_open((uint32_t)(each * THREADS));
    (void)snprintf(address, sizeof address, "%s:%d", argv[1], 7600 + getpid() % 400);
    if (t->listen(server, address, &error) != GAPLESS_OK) {
        (void)printf("%s\n", error.text);
        return 1;
    }
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, clients_run, (void *)i) != 0)
            return 1;
    served = serve(server, each * THREADS);
    for (size_t i = 0; i < THREADS; i++) {
        void *count = NULL;

        (void)pthread_join(thread[i], &count);
        good += (size_t)count;
    }
    t->close(server);
    return served && good == (size_t)(each * THREADS) ? 0 : 1;
}
