/* Status codes and their texts: a leaf that every layer may include.
 *
 * A function that can fail returns GAPLESS_OK (0) or one of the negative codes below,
 * for branching. Where a person may have to act it also fills a struct gapless_error:
 * the function that decides the error writes the text and the remedy, callers pass it
 * on unchanged. Library code never prints, exits or logs.
 */
#ifndef GAPLESS_STATUS_H
#define GAPLESS_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/*             symbol     value  text */
#define GAPLESS_STATUS_TABLE(X)                                                        \
    X(OK, 0, "success")                                                                \
    X(AGAIN, -1, "would block: poll, then try again")                                  \
    X(INVALID, -2, "an argument is not valid")                                         \
    X(NO_MEMORY, -3, "out of memory")                                                  \
    X(SYSTEM, -4, "the operating system refused")                                      \
    X(TIMEOUT, -5, "the wait reached its bound")                                       \
    X(PEER_LOST, -6, "the peer is gone")                                               \
    X(REFUSED, -7, "the peer refused")                                                 \
    X(VERSION, -8, "the peer speaks another protocol version")                         \
    X(MODEL, -9, "the peer trains another model")                                      \
    X(CAPACITY, -10, "a fixed capacity is used up")                                    \
    X(NOT_FINITE, -11, "a number is not finite")                                       \
    X(STOPPED, -12, "the run has ended")                                               \
    X(PROTOCOL, -13, "the peer broke the protocol")                                    \
    X(IO, -14, "reading or writing a file failed")                                     \
    X(CORRUPT, -15, "a file is truncated or corrupt")                                  \
    X(MISSING, -16, "something needed is not there")                                   \
    X(TORN, -17, "every read was torn by a concurrent update")                         \
    X(UNSUPPORTED, -18, "this build or machine does not have it")

enum gapless_status {
#define GAPLESS_STATUS_ENUM(symbol, value, text) GAPLESS_##symbol = (value),
    GAPLESS_STATUS_TABLE(GAPLESS_STATUS_ENUM)
#undef GAPLESS_STATUS_ENUM
};

/* What a person needs to know of a failure. `os` is an errno or 0. */
struct gapless_error {
    int status;
    int os;
    char text[480];
};

/* The text of a status code; never NULL. */
const char *gapless_strerror(int status);

/* Fills `ret` (which may be NULL) with a status, an errno (0: none; its text is
 * appended) and a formatted sentence that says what happened and what to do. Returns
 * `status`, so that a failing function can end with `return gapless_error_set(...)`. */
int gapless_error_set(struct gapless_error *ret, int status, int os, const char *format,
                      ...) __attribute__((format(printf, 4, 5)));

#ifdef __cplusplus
}
#endif
#endif
