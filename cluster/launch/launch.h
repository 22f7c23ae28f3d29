/* The processes of a run: started as children of this one, watched, and never left
 * behind.
 *
 * A child is this program again, in a process group of its own (so that Ctrl-C reaches
 * only the parent), with its stderr in a file of the log folder, and gets SIGTERM when
 * the parent dies, however that happens. Every wait has a bound.
 */
#ifndef CLUSTER_LAUNCH_H
#define CLUSTER_LAUNCH_H

#include <gapless/gapless.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LAUNCH_PATH_MAX 1024

struct child {
    pid_t pid; /* 0: never started */
    bool ended;
    int status;    /* as wait gives it, when ended */
    bool seen;     /* for the caller: its end was noticed */
    char name[24]; /* "master", "worker-03" */
    char log[LAUNCH_PATH_MAX];
};

/* The words a child is started with; zeroed at first. */
#define LAUNCH_ARGUMENTS_MAX 96 /* every option, and the name */
struct launch_arguments {
    char *text[LAUNCH_ARGUMENTS_MAX + 1]; /* ends with NULL */
    size_t count;
};
/* Adds one. False: no memory, or no room. */
bool launch_argument(struct launch_arguments *to, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void launch_arguments_free(struct launch_arguments *arguments);

/* Starts `argv` (argv[0] is what it is called; the program is this one). The log's
 * folder must exist. */
int launch_child(const char *name, const char *log_folder, char *const *argv,
                 struct child *ret, struct gapless_error *error);
/* Notices which children have ended; does not wait. True if one has. */
bool launch_reap(struct child *children, uint32_t count);
/* Sends a signal to those that run. */
void launch_signal(const struct child *children, uint32_t count, int signal);
/* Waits for all to end, at most so long; true if they have. */
bool launch_wait(struct child *children, uint32_t count, double seconds);
/* Ends all: asks, waits `grace` seconds, kills. After this none runs. */
void launch_end(struct child *children, uint32_t count, double abort_wait);
/* "was killed by signal 9 (Killed)", "ended with code 1". */
void launch_describe(const struct child *child, char *ret, size_t max);
/* The last line it wrote that is not empty, or "". */
void launch_last_words(const struct child *child, char *ret, size_t max);
/* Removes logs in which nothing was written, and the folder if it is empty then. */
void launch_tidy(const struct child *children, uint32_t count, const char *log_folder);

#endif
