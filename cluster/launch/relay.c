/* The thread that reads what ranks print. */
#include "cluster/launch/relay.h"

#include "cluster/launch/launch.h"
#include "engine/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 16384u /* a longer line is handed on in pieces */
#define PREFIX_BYTES 16u
#define LOOK_MS 100
#define CUT_S 1.0
#define STREAMS 2u /* of a rank: stdout, stderr */

struct stream {
    int fd; /* -1: at its end */
    size_t used;
    char line[LINE_BYTES]; /* what came of the line that is not whole */
};

struct relayed {
    struct stream stream[STREAMS];
    int log;  /* -1: none yet */
    bool cut; /* its pipes are not read any more, whatever holds them open */
    char words[RELAY_WORDS_MAX];
};

struct relay {
    uint32_t ranks;
    bool shown;
    char folder[LAUNCH_PATH_MAX];
    pthread_t thread;
    pthread_mutex_t
        lock; /* of all below, but the streams' lines, which are the thread's */
    pthread_cond_t ended; /* a stream is at its end */
    int wake[2];          /* a byte: there is a new pipe, or the end */
    bool stop;
    struct relayed *rank;
    struct pollfd *polled; /* 0: wake; then two of each rank */
};

/* ---- handing on ---------------------------------------------------------- */

/* All of it, however long the reader takes. */
static void put_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t done = write(fd, bytes, count);

        if (done < 0 && errno == EAGAIN) {
            struct pollfd room = {fd, POLLOUT, 0};

            (void)poll(&room, 1, LOOK_MS);
        } else if (done < 0 && errno != EINTR) {
            return; /* there is no reader any more */
        } else if (done > 0) {
            bytes += done;
            count -= (size_t)done;
        }
    }
}

/* The last line that is not empty: of a text without a line's end. */
static void keep_words(struct relayed *rank, const char *line, size_t bytes)
{
    while (bytes > 0 && (line[bytes - 1] == ' ' || line[bytes - 1] == '\r'))
        bytes--;
    if (bytes > 0)
        (void)snprintf(rank->words, sizeof rank->words, "%.*s", (int)bytes, line);
}

/* What is left of a line that was drawn over. */
static void drawn_last(const char **line, size_t *bytes)
{
    size_t end = *bytes, begin;

    while (end > 0 && (*line)[end - 1] == '\r')
        end--;
    for (begin = end; begin > 0 && (*line)[begin - 1] != '\r'; begin--)
        ;
    *line += begin;
    *bytes = end - begin;
}

static void hand_on_line(struct relay *relay, uint32_t number, unsigned which,
                         const char *line, size_t bytes)
{
    struct relayed *rank = &relay->rank[number];
    char text[PREFIX_BYTES + LINE_BYTES + 1];
    int prefix;

    drawn_last(&line, &bytes);
    if (which == 1) {
        (void)pthread_mutex_lock(&relay->lock);
        keep_words(rank, line, bytes);
        (void)pthread_mutex_unlock(&relay->lock);
    }
    if (!relay->shown || relay->ranks == 1)
        return;
    prefix = snprintf(text, sizeof text, "[%u] ", number);
    memcpy(text + prefix, line, bytes);
    text[(size_t)prefix + bytes] = '\n';
    put_all((int)which + 1, text, (size_t)prefix + bytes + 1);
}

static void take_bytes(struct relay *relay, uint32_t number, unsigned which,
                       const char *bytes, size_t count)
{
    struct stream *stream = &relay->rank[number].stream[which];

    for (size_t i = 0; i < count; i++) {
        bool whole = bytes[i] == '\n';

        if (!whole)
            stream->line[stream->used++] = bytes[i];
        if (!whole && stream->used < sizeof stream->line)
            continue;
        hand_on_line(relay, number, which, stream->line, stream->used);
        stream->used = 0;
    }
}

/* ---- the thread ---------------------------------------------------------- */

static void end_stream(struct relay *relay, uint32_t number, unsigned which)
{
    struct stream *stream = &relay->rank[number].stream[which];

    if (stream->used > 0)
        hand_on_line(relay, number, which, stream->line, stream->used);
    stream->used = 0;
    (void)pthread_mutex_lock(&relay->lock);
    (void)close(stream->fd);
    stream->fd = -1;
    (void)pthread_cond_broadcast(&relay->ended);
    (void)pthread_mutex_unlock(&relay->lock);
}

static void read_stream(struct relay *relay, uint32_t number, unsigned which, int fd)
{
    char bytes[65536];
    ssize_t got = read(fd, bytes, sizeof bytes);

    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got <= 0) {
        end_stream(relay, number, which);
        return;
    }
    if (relay->rank[number].log >= 0)
        put_all(relay->rank[number].log, bytes, (size_t)got);
    if (relay->shown && relay->ranks == 1)
        put_all((int)which + 1, bytes, (size_t)got);
    take_bytes(relay, number, which, bytes, (size_t)got);
}

/* With the lock: what holds the pipes of a rank that has ended is not waited for. */
static void cut(struct relay *relay, struct relayed *rank)
{
    for (unsigned k = 0; k < STREAMS; k++) {
        if (rank->stream[k].fd >= 0)
            (void)close(rank->stream[k].fd);
        rank->stream[k].fd = -1;
        rank->stream[k].used = 0;
    }
    (void)pthread_cond_broadcast(&relay->ended);
}

/* What to wait for. False: the end. */
static bool set_polled(struct relay *relay)
{
    bool go;

    (void)pthread_mutex_lock(&relay->lock);
    go = !relay->stop;
    relay->polled[0] = (struct pollfd){relay->wake[0], POLLIN, 0};
    for (uint32_t i = 0; i < relay->ranks; i++) {
        if (relay->rank[i].cut)
            cut(relay, &relay->rank[i]);
        for (unsigned k = 0; k < STREAMS; k++)
            relay->polled[1 + STREAMS * i + k] =
                (struct pollfd){relay->rank[i].stream[k].fd, POLLIN, 0};
    }
    (void)pthread_mutex_unlock(&relay->lock);
    return go;
}

static void *pass_on(void *context)
{
    struct relay *relay = context;
    char bytes[64];

    while (set_polled(relay)) {
        if (poll(relay->polled, 1 + (nfds_t)STREAMS * relay->ranks, -1) < 0)
            continue;
        if (relay->polled[0].revents != 0)
            (void)!read(relay->wake[0], bytes, sizeof bytes);
        for (uint32_t i = 0; i < STREAMS * relay->ranks; i++)
            if (relay->polled[1 + i].fd >= 0 && relay->polled[1 + i].revents != 0)
                read_stream(relay, i / STREAMS, i % STREAMS, relay->polled[1 + i].fd);
    }
    return NULL;
}

/* ---- for the caller ------------------------------------------------------ */

static void wake_up(const struct relay *relay)
{
    (void)!write(relay->wake[1], "", 1);
}

static void free_all(struct relay *relay)
{
    for (uint32_t i = 0; relay->rank != NULL && i < relay->ranks; i++) {
        for (unsigned k = 0; k < STREAMS; k++)
            if (relay->rank[i].stream[k].fd >= 0)
                (void)close(relay->rank[i].stream[k].fd);
        if (relay->rank[i].log >= 0)
            (void)close(relay->rank[i].log);
    }
    for (unsigned k = 0; k < 2; k++)
        if (relay->wake[k] >= 0)
            (void)close(relay->wake[k]);
    free(relay->rank);
    free(relay->polled);
    free(relay);
}

static int start_thread(struct relay *relay)
{
    sigset_t all, before;
    int code;

    (void)pthread_mutex_init(&relay->lock, NULL);
    (void)pthread_cond_init(&relay->ended, NULL);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    code = pthread_create(&relay->thread, NULL, pass_on, relay);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

int relay_open(uint32_t ranks, const char *folder, bool shown, struct relay **ret,
               struct gapless_error *error)
{
    struct relay *relay = calloc(1, sizeof *relay);
    int code;

    if (relay == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    relay->wake[0] = relay->wake[1] = -1;
    relay->ranks = ranks;
    relay->shown = shown;
    (void)snprintf(relay->folder, sizeof relay->folder, "%s", folder);
    relay->rank = calloc(ranks, sizeof *relay->rank);
    relay->polled = calloc(1 + (size_t)STREAMS * ranks, sizeof *relay->polled);
    for (uint32_t i = 0; relay->rank != NULL && i < ranks; i++)
        relay->rank[i].log = relay->rank[i].stream[0].fd = relay->rank[i].stream[1].fd =
            -1;
    if (relay->rank == NULL || relay->polled == NULL) {
        free_all(relay);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the output of %u ranks", ranks);
    }
    code =
        pipe2(relay->wake, O_CLOEXEC | O_NONBLOCK) == 0 ? start_thread(relay) : errno;
    if (code == 0) {
        *ret = relay;
        return GAPLESS_OK;
    }
    free_all(relay);
    return gapless_error_set(error, GAPLESS_SYSTEM, code,
                             "cannot start a thread that reads what ranks print");
}

static int open_log(struct relay *relay, uint32_t rank, struct gapless_error *error)
{
    char path[LAUNCH_PATH_MAX + 32];

    if (relay->rank[rank].log >= 0)
        return GAPLESS_OK;
    (void)snprintf(path, sizeof path, "%s/" RELAY_LOG_NAME, relay->folder, rank);
    relay->rank[rank].log =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    return relay->rank[rank].log >= 0 ? GAPLESS_OK
                                      : gapless_error_set(error, GAPLESS_IO, errno,
                                                          "cannot write %.150s", path);
}

/* With the lock. */
static bool at_end(const struct relay *relay, uint32_t rank)
{
    return relay->rank[rank].stream[0].fd < 0 && relay->rank[rank].stream[1].fd < 0;
}

/* `seconds` from now, by the clock of pthread_cond_timedwait. */
static struct timespec until(double seconds)
{
    struct timespec ret;

    (void)clock_gettime(CLOCK_REALTIME, &ret);
    ret.tv_sec += (time_t)seconds;
    ret.tv_nsec += (long)((seconds - (double)(time_t)seconds) * CLOCK_SECOND_NS);
    if (ret.tv_nsec >= CLOCK_SECOND_NS) {
        ret.tv_nsec -= CLOCK_SECOND_NS;
        ret.tv_sec++;
    }
    return ret;
}

/* With the lock. False: it took longer. */
static bool wait_for_end(struct relay *relay, uint32_t rank, double seconds)
{
    struct timespec end = until(seconds);
    int code = 0;

    while (!at_end(relay, rank) && code == 0)
        code = pthread_cond_timedwait(&relay->ended, &relay->lock, &end);
    return at_end(relay, rank);
}

/* At once where all was read, or cut; but the thread may wait for a reader. */
static bool is_free(struct relay *relay, uint32_t rank)
{
    bool ended;

    (void)pthread_mutex_lock(&relay->lock);
    ended = wait_for_end(relay, rank, CUT_S);
    (void)pthread_mutex_unlock(&relay->lock);
    return ended;
}

int relay_rank(struct relay *relay, uint32_t rank, int *ret_out, int *ret_err,
               struct gapless_error *error)
{
    int out[2], err[2], os;
    int status = open_log(relay, rank, error);

    if (status != GAPLESS_OK)
        return status;
    if (!is_free(relay, rank))
        return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                                 "what rank %u has printed is not read by whom it is "
                                 "for: it is not started again",
                                 rank);
    if (pipe2(out, O_CLOEXEC) != 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno, "cannot make a pipe");
    if (pipe2(err, O_CLOEXEC) != 0) {
        os = errno;
        (void)close(out[0]);
        (void)close(out[1]);
        return gapless_error_set(error, GAPLESS_SYSTEM, os, "cannot make a pipe");
    }
    (void)pthread_mutex_lock(&relay->lock);
    relay->rank[rank].cut = false;
    relay->rank[rank].stream[0].fd = out[0];
    relay->rank[rank].stream[1].fd = err[0];
    relay->rank[rank].words[0] = '\0';
    (void)pthread_mutex_unlock(&relay->lock);
    wake_up(relay);
    *ret_out = out[1];
    *ret_err = err[1];
    return GAPLESS_OK;
}

void relay_ended(struct relay *relay, uint32_t rank, double seconds,
                 char ret_words[RELAY_WORDS_MAX])
{
    (void)pthread_mutex_lock(&relay->lock);
    relay->rank[rank].cut = !wait_for_end(relay, rank, seconds);
    memcpy(ret_words, relay->rank[rank].words, RELAY_WORDS_MAX);
    (void)pthread_mutex_unlock(&relay->lock);
    wake_up(relay);
}

static void remove_empty_logs(const struct relay *relay)
{
    for (uint32_t i = 0; i < relay->ranks; i++) {
        char path[LAUNCH_PATH_MAX + 32];

        if (relay->rank[i].log < 0 || lseek(relay->rank[i].log, 0, SEEK_END) != 0)
            continue;
        (void)snprintf(path, sizeof path, "%s/" RELAY_LOG_NAME, relay->folder, i);
        (void)unlink(path);
    }
}

void relay_close(struct relay *relay, double seconds)
{
    struct timespec end = until(seconds);

    if (relay == NULL)
        return;
    (void)pthread_mutex_lock(&relay->lock);
    relay->stop = true;
    (void)pthread_mutex_unlock(&relay->lock);
    wake_up(relay);
    remove_empty_logs(relay);
    if (pthread_timedjoin_np(relay->thread, NULL, &end) != 0)
        return; /* it waits for a reader, and ends with the process */
    (void)pthread_cond_destroy(&relay->ended);
    (void)pthread_mutex_destroy(&relay->lock);
    free_all(relay);
}
