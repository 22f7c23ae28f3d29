/* Every file that a person writes and names: what is no text file is refused at once,
 * with the name of the file, and what another system's editor leaves in it is read. */
#include "tests/cluster/run.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file's name goes behind each. */
static const char *const commands[] = {
    "study --dry-run --out /nowhere ",
    "simulate --data synthetic:800x20x4 --epochs 1 --quiet --out /nowhere --clock ",
    "simulate --out /nowhere --replay ",
    "plan --measured ",
    "worker --master verbs:127.0.0.1:1 --token-file ",
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static char path[64];

static void put(const void *bytes, size_t count)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), (ssize_t)count);
    assert_int_equal(close(fd), 0);
}

/* Each command ends with 1 or 2 in good time, and says the file and `text`. */
static void refused(const char *text)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        char line[200], *got;
        struct run run;
        int code;

        if (!GAPLESS_HAVE_VERBS && strstr(commands[i], "verbs:") != NULL)
            continue;
        (void)snprintf(line, sizeof line, "%s%s", commands[i], path);
        run = run_start(NULL, 0, line);
        code = run_wait(&run, 60.0);
        got = run_output(&run);
        if (code < 1 || code > 2 || strstr(got, path) == NULL ||
            strstr(got, text) == NULL)
            fail_msg("gapless %s\nended with %d and printed:\n%s\nnot '%s'", line, code,
                     got, text);
        free(got);
        run_close(&run);
    }
    (void)unlink(path);
    (void)rmdir(path);
}

static void test_no_file(void **state)
{
    (void)state;
    (void)snprintf(path, sizeof path, "%s/file", run_dir);
    refused("cannot ");
    assert_int_equal(mkfifo(path, 0600), 0); /* no process ever writes into it */
    refused("no regular file");
    assert_int_equal(mkdir(path, 0700), 0);
    refused("no regular file");
    assert_int_equal(symlink("/dev/zero", path), 0);
    refused("no regular file");
}

static void test_no_text(void **state)
{
    static const char nul[3] = "\n\0\n"; /* in the second line */
    FILE *file;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/file", run_dir);
    put(nul, sizeof nul);
    /* Of a token any bytes may be. */
    for (size_t i = 0; i < 4; i++) {
        char line[200];

        (void)snprintf(line, sizeof line, "%s%s", commands[i], path);
        run_whole(NULL, line, i == 3 ? 2 : 1, i == 2 ? path : "there is a NUL");
    }
    file = fopen(path, "we"); /* as large as a disk, and empty */
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), 1ll << 40), 0);
    assert_int_equal(fchmod(fileno(file), 0600), 0);
    assert_int_equal(fclose(file), 0);
    refused("bytes");
}

static void test_other_editors(void **state)
{
    static const char study[] = "\xef\xbb\xbf[grid]\r\nrule = asgd ga\r\n";
    static const char clock[] = "\xef\xbb\xbf"
                                "0 0.01\r\n1 0.02 # slow\r\n2 0.01";
    static const char figures[] = "\xef\xbb\xbf{\"benchmark\": \"rules\",\r\n"
                                  "\"results\": []}\r\n";
    char line[200];

    (void)state;
    (void)snprintf(path, sizeof path, "%s/file", run_dir);
    put(study, sizeof study - 1);
    (void)snprintf(line, sizeof line, "study %s --dry-run --out %s/out", path, run_dir);
    run_whole(NULL, line, 0, "rule");
    put(clock, sizeof clock - 1);
    (void)snprintf(line, sizeof line,
                   "simulate --data synthetic:800x20x4 --workers 3 --epochs 1 --clock "
                   "%s --out %s/run",
                   path, run_dir);
    run_whole(NULL, line, 0, "accuracy");
    put(figures, sizeof figures - 1);
    (void)snprintf(line, sizeof line, "plan --measured %s", path);
    run_whole(NULL, line, 0, "updates");
    put("{", 1);
    run_whole(NULL, line, 2, "file:1: cannot be read as JSON");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_file, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_no_text, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_other_editors, run_set_up, run_tear_down),
    };

    (void)run_program();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
