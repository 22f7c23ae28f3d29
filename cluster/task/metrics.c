/* Answers Prometheus. */
#include "cluster/task/metrics.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PEER_S 2.0
#define QUEUE 16 /* connections that the kernel keeps */

/* ---- the text ------------------------------------------------------------ */

static void head(FILE *out, const char *name, const char *kind, const char *help)
{
    (void)fprintf(out, "# HELP gapless_%s %s\n# TYPE gapless_%s %s\n", name, help, name,
                  kind);
}

/* As the format has it: NaN, +Inf, -Inf, or digits enough to read it back. */
static void value(FILE *out, double number)
{
    if (isnan(number))
        (void)fputs("NaN\n", out);
    else if (isinf(number))
        (void)fputs(number > 0 ? "+Inf\n" : "-Inf\n", out);
    else
        (void)fprintf(out, "%.17g\n", number);
}

static void one(FILE *out, const char *name, const char *kind, const char *help,
                double number)
{
    head(out, name, kind, help);
    (void)fprintf(out, "gapless_%s ", name);
    value(out, number);
}

static void run_text(FILE *out, const struct metrics_facts *facts)
{
    const struct gapless_stats *s = facts->stats;
    const struct {
        const char *name, *kind, *help;
        double number;
    } rows[] = {
        {"run_state", "gauge", "0 waiting for workers, 1 going, 2 ending, 3 done.",
         s->state},
        {"updates_total", "counter", "Updates of the parameters.", (double)s->updates},
        {"gradients_total", "counter", "Gradients consumed: applied and dropped.",
         (double)s->gradients},
        {"gradients_planned", "gauge", "Gradients of the whole run; 0: no end is set.",
         (double)s->gradients_total},
        {"gradients_partial_total", "counter",
         "Gradients of which only some ranges arrived.", (double)s->partial},
        {"workers", "gauge", "Workers that take part.", s->workers_active},
        {"workers_joined_total", "counter", "Workers that have joined.",
         s->workers_joined},
        {"workers_lost_total", "counter", "Workers that went away before the end.",
         s->workers_lost},
        {"learning_rate", "gauge", "Rate of the last update.", s->rate},
        {"loss", "gauge", "Mean of what workers report, over about 100 gradients.",
         s->loss},
        {"gate", "gauge", "Mean factor of loss-gap-aware rules, lately.", s->gate},
        {"lag_mean", "gauge", "Mean lag of a gradient, in updates.",
         s->lag.count > 0 ? s->lag.mean : (double)NAN},
        {"gap_rms_mean", "gauge", "Mean gap of a parameter, root mean square.",
         s->gap_rms.count > 0 ? s->gap_rms.mean : (double)NAN},
        {"run_seconds", "gauge", "Seconds since the first update.", s->seconds},
        {"pass_seconds_total", "counter", "Seconds in passes over the parameters.",
         1e-9 * (double)s->pass_ns},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        one(out, rows[i].name, rows[i].kind, rows[i].help, rows[i].number);
    if (facts->refused_known)
        one(out, "peers_refused_total", "counter", "Peers that were not let in.",
            (double)facts->refused);
}

static bool taken(const struct gapless_worker_stats *worker)
{
    return worker->state != 0 || worker->gradients > 0 || worker->dropped > 0;
}

/* Since its last gradient; of one that has handed in none, NaN. */
static double silence(const struct gapless_worker_stats *worker, uint64_t now_ns)
{
    if (worker->seen_ns == 0)
        return (double)NAN;
    return worker->seen_ns < now_ns ? 1e-9 * (double)(now_ns - worker->seen_ns) : 0.0;
}

enum column {
    GRADIENTS,
    DROPPED,
    ACTIVE,
    SILENCE,
    LOSS,
    COLUMNS
};

static double column_of(const struct gapless_worker_stats *worker, enum column column,
                        uint64_t now_ns)
{
    switch (column) {
    case GRADIENTS:
        return (double)worker->gradients;
    case DROPPED:
        return (double)worker->dropped;
    case ACTIVE:
        return worker->state == 2;
    case SILENCE:
        return silence(worker, now_ns);
    case LOSS:
        return worker->loss;
    case COLUMNS:
        break;
    }
    return (double)NAN;
}

static void columns_text(FILE *out, const struct metrics_facts *facts, uint64_t now_ns)
{
    static const struct {
        const char *name, *kind, *help;
    } names[COLUMNS] = {
        {"worker_gradients_total", "counter", "Gradients applied."},
        {"worker_dropped_total", "counter", "Gradients not finite, or late."},
        {"worker_active", "gauge", "1 while the worker takes part."},
        {"worker_silence_seconds", "gauge", "Seconds since its last gradient."},
        {"worker_loss", "gauge", "Loss as it last reported."},
    };

    for (int c = 0; c < COLUMNS; c++) {
        head(out, names[c].name, names[c].kind, names[c].help);
        for (uint32_t i = 0; i < facts->worker_count; i++)
            if (taken(&facts->worker[i])) {
                (void)fprintf(out, "gapless_%s{worker=\"%u\"} ", names[c].name, i);
                value(out, column_of(&facts->worker[i], (enum column)c, now_ns));
            }
    }
}

/* Buckets say how many are at most `le`; a bin ends where the next one begins. Lags are
 * whole numbers, so that a bin's last one is below the next bin's first. */
static void histogram(FILE *out, const char *name, uint32_t worker,
                      const uint32_t *bins, double (*edge)(unsigned), bool whole,
                      double sum)
{
    unsigned long long below = 0;

    for (unsigned b = 0; b < GAPLESS_BINS; b++) {
        below += bins[b];
        (void)fprintf(out, "gapless_%s_bucket{worker=\"%u\",le=\"", name, worker);
        if (b + 1 == GAPLESS_BINS)
            (void)fputs("+Inf", out);
        else
            (void)fprintf(out, "%.9g", whole ? ceil(edge(b + 1)) - 1.0 : edge(b + 1));
        (void)fprintf(out, "\"} %llu\n", below);
    }
    (void)fprintf(out, "gapless_%s_sum{worker=\"%u\"} ", name, worker);
    value(out, sum);
    (void)fprintf(out, "gapless_%s_count{worker=\"%u\"} %llu\n", name, worker, below);
}

static void histograms_text(FILE *out, const struct metrics_facts *facts)
{
    head(out, "worker_lag", "histogram", "Lag of a worker's gradients, in updates.");
    for (uint32_t i = 0; i < facts->worker_count; i++)
        if (taken(&facts->worker[i]))
            histogram(out, "worker_lag", i, facts->worker[i].lag_bins, gapless_lag_edge,
                      true, facts->worker[i].lag_sum);
    head(out, "worker_gap_rms", "histogram", "Gap of a worker's gradients.");
    for (uint32_t i = 0; i < facts->worker_count; i++)
        if (taken(&facts->worker[i]))
            histogram(out, "worker_gap_rms", i, facts->worker[i].gap_bins,
                      gapless_gap_edge, false, facts->worker[i].gap_sum);
}

char *metrics_text(const struct metrics_facts *facts, uint64_t now_ns,
                   size_t *ret_bytes)
{
    char *ret = NULL;
    FILE *out = open_memstream(&ret, ret_bytes);

    if (out == NULL)
        return NULL;
    run_text(out, facts);
    columns_text(out, facts, now_ns);
    histograms_text(out, facts);
    if (fclose(out) == 0)
        return ret;
    free(ret);
    return NULL;
}

/* ---- the server ---------------------------------------------------------- */

/* "127.0.0.1:9464", "[::1]:9464" into its parts. */
static bool parts(const char *address, char host[128], char port[16])
{
    const char *colon = strrchr(address, ':');
    size_t bytes = colon != NULL ? (size_t)(colon - address) : 0;

    if (bytes > 1 && address[0] == '[' && address[bytes - 1] == ']') {
        address++;
        bytes -= 2;
    }
    return bytes > 0 && snprintf(host, 128, "%.*s", (int)bytes, address) < 128 &&
           snprintf(port, 16, "%s", colon + 1) < 16 && port[0] != '\0';
}

static int listen_at(const struct addrinfo *at)
{
    int yes = 1,
        fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, QUEUE) == 0)
        return fd;
    yes = errno;
    (void)close(fd);
    errno = yes;
    return -1;
}

int metrics_open(const char *address, struct metrics *ret, struct gapless_error *error)
{
    struct addrinfo wish = {.ai_socktype = SOCK_STREAM,
                            .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *found = NULL;
    char host[128], port[16];
    int os;

    if (address == NULL)
        return GAPLESS_OK;
    if (!parts(address, host, port) || getaddrinfo(host, port, &wish, &found) != 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--metrics must be ADDRESS:PORT in numbers, as "
                                 "127.0.0.1:9464 or [::1]:9464, not '%.60s'",
                                 address);
    *ret = (struct metrics){.open = true, .fd = listen_at(found)};
    os = errno;
    freeaddrinfo(found);
    for (unsigned i = 0; i < METRICS_PEERS; i++)
        ret->peer[i].fd = -1;
    if (ret->fd >= 0)
        return GAPLESS_OK;
    ret->open = false;
    return gapless_error_set(error, GAPLESS_SYSTEM, os, "cannot serve metrics at %.60s",
                             address);
}

static void end_peer(struct metrics_peer *peer)
{
    (void)close(peer->fd);
    free(peer->answer);
    *peer = (struct metrics_peer){.fd = -1};
}

__attribute__((format(printf, 3, 4))) static void
answer(struct metrics_peer *peer, const char *status, const char *format, ...)
{
    char *body = NULL;
    va_list list;
    int bytes;

    va_start(list, format);
    bytes = vasprintf(&body, format, list);
    va_end(list);
    if (bytes < 0)
        return;
    bytes =
        asprintf(&peer->answer,
                 "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; "
                 "charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
                 status, bytes, body);
    free(body);
    if (bytes < 0)
        peer->answer = NULL;
    peer->bytes = bytes > 0 ? (size_t)bytes : 0;
}

static void decide(struct metrics_peer *peer, const struct metrics_facts *facts)
{
    size_t bytes = 0;
    char *text;

    if (strncmp(peer->request, "GET ", 4) != 0) {
        answer(peer, "405 Method Not Allowed", "GET /metrics\n");
    } else if (strncmp(peer->request, "GET /metrics ", 13) != 0 &&
               strncmp(peer->request, "GET / ", 6) != 0) {
        answer(peer, "404 Not Found", "there is /metrics\n");
    } else {
        text = metrics_text(facts, clock_ns(), &bytes);
        if (text != NULL)
            answer(peer, "200 OK", "%s", text);
        free(text);
    }
}

/* Reads what has come. False: the peer is gone, or what it sends is no request. */
static bool hear(struct metrics_peer *peer, const struct metrics_facts *facts)
{
    ssize_t got = recv(peer->fd, peer->request + peer->used,
                       sizeof peer->request - 1 - peer->used, MSG_DONTWAIT);

    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    peer->used += (size_t)got;
    peer->request[peer->used] = '\0';
    if (strstr(peer->request, "\r\n\r\n") != NULL)
        decide(peer, facts);
    else if (peer->used + 1 == sizeof peer->request)
        answer(peer, "431 Request Header Fields Too Large", "too long\n");
    return true;
}

/* False: all of it was sent, or it cannot be. */
static bool speak(struct metrics_peer *peer)
{
    ssize_t sent = send(peer->fd, peer->answer + peer->sent, peer->bytes - peer->sent,
                        MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent < 0)
        return errno == EAGAIN || errno == EINTR;
    peer->sent += (size_t)sent;
    if (peer->sent < peer->bytes)
        return true;
    (void)shutdown(peer->fd, SHUT_WR);
    return false;
}

static void serve_peer(struct metrics_peer *peer, const struct metrics_facts *facts)
{
    bool stays = clock_seconds() < peer->until;

    if (stays && peer->answer == NULL)
        stays = hear(peer, facts);
    if (stays && peer->answer != NULL)
        stays = speak(peer);
    if (!stays)
        end_peer(peer);
}

void metrics_serve(struct metrics *metrics, const struct metrics_facts *facts)
{
    if (!metrics->open)
        return;
    for (unsigned i = 0; i < METRICS_PEERS; i++) {
        struct metrics_peer *peer = &metrics->peer[i];

        if (peer->fd < 0) {
            peer->fd = accept4(metrics->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            peer->until = clock_seconds() + PEER_S;
        }
        if (peer->fd >= 0)
            serve_peer(peer, facts);
    }
}

void metrics_close(struct metrics *metrics)
{
    if (!metrics->open)
        return;
    for (unsigned i = 0; i < METRICS_PEERS; i++)
        if (metrics->peer[i].fd >= 0)
            end_peer(&metrics->peer[i]);
    (void)close(metrics->fd);
    metrics->open = false;
}
