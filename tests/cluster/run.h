/* Starting the program from a test: with its output in a file, every wait bounded, and
 * nothing left behind. */
#ifndef TESTS_CLUSTER_RUN_H
#define TESTS_CLUSTER_RUN_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/pace.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

/* Seconds to wait, here, are those of an idle machine: see tests/pace.h. */
#define RUN_ARGUMENTS_MAX 40

struct run {
    pid_t pid;
    bool ended;
    char output[64]; /* a file: stdout and stderr */
};

/* The program under test: $GAPLESS_PROGRAM, or $GAPLESS_BIN. */
const char *run_program(void);
/* The folder of the test under way, made and removed by the two behind it, which are
 * set-up and tear-down for cmocka. No process with its name may be left at the end. */
extern char run_dir[32];
int run_set_up(void **state);
int run_tear_down(void **state);
/* A new folder under /tmp, removed by run_remove. */
void run_folder(char *ret, size_t max);
void run_remove(const char *folder);

/* In a child that is to become the program: SIGINT and SIGQUIT end it, also where the
 * tests run in the background of a shell, which has its children ignore them. */
void run_signals_as_usual(void);

/* Starts the program with the words of `line` as arguments (separated by single
 * spaces). `environment`: more words, NAME=VALUE, or NULL. `file_limit`: RLIMIT_FSIZE
 * in bytes, 0: none. */
struct run run_start(const char *environment, long file_limit, const char *line);
/* Waits until it ends, at most so long, and returns its exit code; minus the signal
 * that killed it. Fails the test when the time is up. */
int run_wait(struct run *run, double seconds);
/* Its output so far; freed by the caller. */
char *run_output(const struct run *run);
/* Waits until the output has this in it. */
void run_expect(struct run *run, const char *text, double seconds);
/* run_start, run_wait for a minute, and the output has `text` in it. */
void run_whole(const char *environment, const char *line, int code, const char *text);
/* Ends it if it still runs and removes its output. */
void run_close(struct run *run);

/* Processes that have `text` among their arguments: their ids in ret, how many there
 * are. */
unsigned run_processes(const char *text, pid_t *ret, unsigned max);
/* Waits up to 5 s for all of them to be gone; fails the test, and kills them,
 * otherwise. Also fails if a file of /dev/shm has gapless in its name. */
void run_none_left(const char *text);

/* A JSON file of a folder, checked to be valid. */
json_t *run_json(const char *folder, const char *name);
double run_number(const json_t *object, const char *key);

double run_now(void);
void run_sleep(double seconds);

#endif
