/* The processes of a run: started as children of this one, watched, and never left
 * behind.
 *
 * A child is this program again, or another, in a process group of its own (so that Ctrl-C
 * reaches only the parent). This program gets its stderr into a file of the log folder, and
 * SIGTERM when the parent dies, however that happens; another program gets the descriptors
 * that it is given, SIGKILL when the parent dies, and when it ends, what it has started
 * and left in its group is killed. Every wait has a bound.
 */
#ifndef CLUSTER_LAUNCH_H
#define CLUSTER_LAUNCH_H

#include <gapless/gapless.h>

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LAUNCH_PATH_MAX 1024

struct child {
    pid_t pid; /* 0: never started */
    bool ended;
    int status;    /* as wait gives it, when ended */
    bool seen;     /* for the caller: its end was noticed */
    bool group;    /* signals go to all of its group */
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

/* For a launcher that waits for its signals (sigtimedwait) in place of being interrupted:
 * blocks those that it minds and puts them into *ret; a log without a reader ends nothing. */
void launch_block_signals(sigset_t *ret);
/* An address for the master of a new run: "shm:WHAT-PID-CHANCE". */
void launch_address(const char *what, char *ret, size_t max);

/* Starts `argv` (argv[0] is what it is called; the program is this one). The log's
 * folder must exist. */
int launch_child(const char *name, const char *log_folder, char *const *argv,
                 struct child *ret, struct gapless_error *error);
/* Another program. */
struct launch_program {
    const char *file;      /* as in PATH, or with a slash in it */
    char *const *argv;     /* ends with NULL */
    char *const *settings; /* "NAME=VALUE", of its environment, beside what this process
                              has; ends with NULL */
    int out, err;          /* its stdout and stderr; its stdin is empty */
};
/* It has no log: its last words are to be found by the reader of `err`. To be called by the thread that
 * lives as long as the child shall. */
int launch_program(const char *name, const struct launch_program *program,
                   struct child *ret, struct gapless_error *error);
/* Finds a program as the shell does. False: there is none that may be run. */
bool launch_find(const char *file, char ret[LAUNCH_PATH_MAX]);
/* Raises the limit on open files to `need`, as far as it goes; what it is then. */
uint64_t launch_descriptors(uint64_t need);
/* The same for a master of `workers` workers: what is generous, and GAPLESS_SYSTEM where the
 * limit leaves less than they take at least. */
int launch_room(uint32_t workers, struct gapless_error *error);
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
