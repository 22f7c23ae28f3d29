/* The subcommands of the program, and what they share. Each gets argv from its own name
 * on, prints for itself and returns the exit code: 0 done, 1 failed, 2 misuse; of a
 * worker also 3, the master was lost and did not come back. */
#ifndef CLUSTER_PROGRAM_H
#define CLUSTER_PROGRAM_H

#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>

enum {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_MISUSE = 2,
    EXIT_LOST = 3
};

int cmd_train(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_master(int argc, char **argv);
int cmd_worker(int argc, char **argv);
int cmd_simulate(int argc, char **argv);
int cmd_study(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_observe(int argc, char **argv);
int cmd_evaluate(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_rules(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_bench_rules(int argc, char **argv);
int cmd_bench_update(int argc, char **argv);
int cmd_bench_transport(int argc, char **argv);
int cmd_bench_gpu(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_completion(int argc, char **argv);
int cmd_version(int argc, char **argv);

/* For main: the command of `gapless train ...` or `gapless bench rules ...`, and how many
 * words its name has. NULL: there is none; it was printed. */
struct option_command_row;
const struct option_command_row *command_find(int argc, char **argv, int *ret_words);
/* The list of commands, on stderr. */
void command_list(void);

/* The commit that the program was built from, with "-dirty" behind it where the sources
 * differ from it; "" from a tarball. main() sets it to what the build wrote into
 * program_commit_built, so that tests are not linked again for each commit. */
extern const char *program_commit;
extern const char program_commit_built[];

/* The file of this program, to start it again by its name; /proc/self/exe where that file
 * was replaced. */
void program_file(char *ret, size_t max);
/* Python programs that this one starts find the package `gapless`: where it is beside the build,
 * its folder becomes the last of PYTHONPATH. Before any thread is started. */
void program_python_path(void);

/* Did all that was printed find room? If not, says so. */
bool program_printed(const char *command);
/* "gapless train: ..." on stderr. */
void report_failure(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Says what an error says. Returns the exit code: 2 for GAPLESS_INVALID, which is
 * misuse, 1 for the rest. */
int report_error(const char *command, const struct gapless_error *error);
/* Says that a run diverged, if it did, and what to try; then the exit code is EXIT_FAILED. */
bool report_diverged(const char *command, const struct gapless_stats *stats);

#endif
