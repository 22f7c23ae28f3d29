/* The token's file, and the settings of a network transport. */
#include "cluster/task/network.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOW_TO_MAKE "head -c 32 /dev/urandom | base64 > FILE; chmod 600 FILE"

/* Who may read the file decides whether it is a secret: asked of what was opened, so
 * that nothing can be put in its place in between. */
static int check_file(int fd, const char *path, struct gapless_error *error)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        return gapless_error_set(error, GAPLESS_INVALID, errno, "--token-file %.150s",
                                 path);
    if (!S_ISREG(info.st_mode))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "--token-file %.150s is no regular file: make one by: " HOW_TO_MAKE, path);
    if (info.st_uid != geteuid() && info.st_uid != 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--token-file %.120s belongs to user %u, who could "
                                 "change it; make your own copy: install -m 600 %.120s "
                                 "MINE",
                                 path, (unsigned)info.st_uid, path);
    if ((info.st_mode & 0177) != 0)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "--token-file %.120s has mode %04o, so others may know "
            "the token: chmod 600 %.120s",
            path, (unsigned)(info.st_mode & 07777), path);
    return GAPLESS_OK;
}

static int read_file(int fd, const char *path, unsigned char *ret, size_t max,
                     size_t *ret_bytes, struct gapless_error *error)
{
    size_t used = 0;

    while (used < max) {
        ssize_t got = read(fd, ret + used, max - used);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return gapless_error_set(error, GAPLESS_INVALID, errno,
                                     "cannot read --token-file %.150s", path);
        if (got == 0)
            break;
        used += (size_t)got;
    }
    *ret_bytes = used;
    return GAPLESS_OK;
}

/* How often what is repeated appears: bits of a text of that many letters, of which each
 * is as likely as it is frequent here. Letters are bytes, or steps from byte to byte. */
static double bits_of(const unsigned char *text, size_t bytes, bool steps)
{
    size_t count[256] = {0}, all = steps ? bytes - 1 : bytes;
    double bits = 0;

    for (size_t i = 0; i < all; i++)
        count[(unsigned char)(steps ? text[i + 1] - text[i] : text[i])]++;
    for (size_t i = 0; i < 256; i++)
        if (count[i] > 0)
            bits -= (double)count[i] * log2((double)count[i] / (double)all);
    return bits;
}

/* Of "passwordpassword" one half counts, of "1234567812345678" next to nothing. Words of a
 * dictionary are not looked for. */
static bool is_guessable(const unsigned char *token, size_t bytes)
{
    size_t period = 1;

    while (period < bytes && memcmp(token, token + period, bytes - period) != 0)
        period++;
    return period < 2 || fmin(bits_of(token, period, false),
                              bits_of(token, period, true)) < NETWORK_TOKEN_BITS;
}

int network_token(const char *path, void *ret, size_t *ret_bytes,
                  struct gapless_error *error)
{
    unsigned char text[NETWORK_TOKEN_MAX + 3]; /* the end of a line, and one too many */
    size_t bytes = 0;
    int status;
    /* Not to wait for a writer into a pipe. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "cannot open --token-file %.150s: %.60s; make one by: " HOW_TO_MAKE
            ", and take it to every machine of the run",
            path, strerror(errno));
    status = check_file(fd, path, error);
    if (status == GAPLESS_OK)
        status = read_file(fd, path, text, sizeof text, &bytes, error);
    (void)close(fd);
    if (status == GAPLESS_OK) {
        if (bytes > 0 && text[bytes - 1] == '\n') {
            bytes--;
            bytes -= bytes > 0 && text[bytes - 1] == '\r'; /* as on other systems */
        }
        if (bytes < NETWORK_TOKEN_MIN || bytes > NETWORK_TOKEN_MAX)
            status = gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "--token-file %.120s holds %s%zu bytes; a token has %d to "
                "%d: " HOW_TO_MAKE,
                path, bytes > NETWORK_TOKEN_MAX ? "more than " : "",
                bytes > NETWORK_TOKEN_MAX ? (size_t)NETWORK_TOKEN_MAX : bytes,
                NETWORK_TOKEN_MIN, NETWORK_TOKEN_MAX);
        else if (is_guessable(text, bytes))
            status = gapless_error_set(error, GAPLESS_INVALID, 0,
                                       "--token-file %.120s holds a token that can be "
                                       "guessed; make one by: " HOW_TO_MAKE,
                                       path);
    }
    if (status == GAPLESS_OK) {
        memcpy(ret, text, bytes);
        *ret_bytes = bytes;
    }
    explicit_bzero(text, sizeof text);
    return status;
}

int network_token_new(int *ret_fd, struct gapless_error *error)
{
    unsigned char token[32] = {0};
    /* No MFD_CLOEXEC: the children open it by its number. */
    int fd = memfd_create("gapless-token", 0);
    bool good;

    if (fd < 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "no memory for a token; give one: --token-file");
    good = fchmod(fd, 0600) == 0 &&
           getrandom(token, sizeof token, 0) == (ssize_t)sizeof token;
    /* A newline at the end would be taken for the end of a line. */
    token[sizeof token - 1] |= 0x80;
    good = good && write(fd, token, sizeof token) == (ssize_t)sizeof token;
    explicit_bzero(token, sizeof token);
    if (!good) {
        (void)close(fd);
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "cannot make a token; give one: --token-file");
    }
    *ret_fd = fd;
    return GAPLESS_OK;
}

int network_open(const struct settings *settings, struct network *ret,
                 struct gapless_error *error)
{
    size_t bytes = 0;
    int status = GAPLESS_OK;

    ret->net = (struct gapless_net){
        .insecure = settings->insecure,
        .devices = settings->rdma_device,
        .channels = settings->channels,
        .retries = settings->retries,
        .ack_timeout = settings->ack_timeout,
    };
    if (settings->token_file != NULL)
        status = network_token(settings->token_file, ret->token, &bytes, error);
    if (status == GAPLESS_OK && bytes > 0) {
        ret->net.token = ret->token;
        ret->net.token_bytes = bytes;
    }
    return status;
}

void network_close(struct network *network)
{
    explicit_bzero(network->token, sizeof network->token);
    network->net.token = NULL;
    network->net.token_bytes = 0;
}

int network_listen(const struct settings *settings, char ret[ADDRESS_MAX],
                   const char **ret_address, struct gapless_error *error)
{
    int status;

    if (settings->address != NULL || settings->transport == NULL ||
        strcmp(settings->transport, "verbs") != 0) {
        *ret_address = settings->address;
        return GAPLESS_OK;
    }
    status = network_find(ret, error);
    if (status == GAPLESS_OK)
        *ret_address = ret;
    return status;
}
