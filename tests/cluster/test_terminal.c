/* The live view, on a pseudo-terminal: it shows what it should, fits when the size
 * changes, and gives the cursor back on every way out. */
#include "tests/cluster/run.h"
#include "tests/pace.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

#define SCREEN_BYTES (4u << 20)
#define HIDE "\033[?25l"
#define SHOW "\033[?25h"

struct screen {
    int fd, held; /* held: the end of the program, as a shell has it; -1: not kept */
    pid_t pid;
    char *text;
    size_t used;
};

/* Starts the program with the words of a line on a new terminal, whose other end is kept
 * in screen.held. */
static struct screen start_held(const char *term, bool no_color, const char *line)
{
    struct winsize size = {24, 90, 0, 0};
    struct screen screen = {.text = calloc(1, SCREEN_BYTES)};

    char words[256], *argv[20] = {NULL}, *rest = words;

    assert_non_null(screen.text);
    (void)snprintf(words, sizeof words, "gapless %s", line);
    for (int i = 0; rest != NULL && i < 19; i++)
        argv[i] = strsep(&rest, " ");
    (void)fflush(NULL);
    assert_int_equal(openpty(&screen.fd, &screen.held, NULL, NULL, &size), 0);
    screen.pid = fork();
    assert_true(screen.pid >= 0);
    if (screen.pid == 0) {
        (void)close(screen.fd);
        if (login_tty(screen.held) != 0)
            _exit(125);
        run_signals_as_usual();
        (void)setenv("TERM", term, 1);
        (void)setenv("ASAN_OPTIONS", "handle_segv=0:handle_abort=0", 1);
        (void)setenv("LC_ALL", "C.UTF-8", 1);
        (void)setenv("NO_COLOR", no_color ? "1" : "", 1);
        (void)execv(run_program(), argv);
        _exit(126);
    }
    return screen;
}

static struct screen start_line(const char *term, bool no_color, const char *line)
{
    struct screen screen = start_held(term, no_color, line);

    (void)close(screen.held); /* so that its end is seen */
    screen.held = -1;
    return screen;
}

/* A long run. */
static struct screen start(const char *term, bool no_color)
{
    char line[160];

    (void)snprintf(line, sizeof line,
                   "train --data synthetic --workers 3 --epochs 100000 --address "
                   "shm:%s/socket --out %s",
                   run_dir, run_dir);
    return start_line(term, no_color, line);
}

/* Reads what is there; false at the end. */
static bool read_more(struct screen *screen, int timeout_ms)
{
    struct pollfd ready = {screen->fd, POLLIN, 0};
    ssize_t bytes;

    if (poll(&ready, 1, timeout_ms) <= 0)
        return true;
    assert_true(screen->used < SCREEN_BYTES - 1);
    bytes =
        read(screen->fd, screen->text + screen->used, SCREEN_BYTES - 1 - screen->used);
    if (bytes <= 0)
        return false;
    screen->used += (size_t)bytes;
    screen->text[screen->used] = '\0';
    return true;
}

static void expect(struct screen *screen, size_t from, const char *text)
{
    struct pace_bound bound = pace_begin(20000000000);

    while (strstr(screen->text + from, text) == NULL)
        if (!read_more(screen, 50) || pace_over(&bound)) {
            (void)kill(screen->pid, SIGKILL);
            fail_msg("the terminal never showed '%s', but:\n%s", text,
                     screen->text + from);
        }
}

/* Reads to the end and returns how it ended. */
static int finish(struct screen *screen)
{
    struct pace_bound bound = pace_begin(30000000000);
    int status = 0;

    while (read_more(screen, 100))
        if (pace_over(&bound)) {
            (void)kill(screen->pid, SIGKILL);
            fail_msg("it did not end");
        }
    assert_int_equal(waitpid(screen->pid, &status, 0), screen->pid);
    (void)close(screen->fd);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* To the end of both, so that neither waits for its terminal. */
static void read_both(struct screen *one, struct screen *other)
{
    struct pace_bound bound = pace_begin(240000000000);
    bool more[2] = {true, true};

    while ((more[0] || more[1]) && !pace_over(&bound)) {
        more[0] = more[0] && read_more(one, 20);
        more[1] = more[1] && read_more(other, 20);
    }
    /* To wait for one of them alone would let the other wait for its terminal for ever. */
    if (more[0] || more[1])
        fail_msg("they did not end within four minutes of an idle machine");
}

static const char *last(const char *text, const char *what)
{
    const char *ret = NULL;

    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        ret = at;
    return ret;
}

static void check_cursor(const struct screen *screen)
{
    const char *hide = last(screen->text, HIDE), *show = last(screen->text, SHOW);

    assert_non_null(hide);
    assert_non_null(show);
    assert_true(show > hide);
}

static void test_picture(void **state)
{
    static const char *const words[] = {
        "dana-ga", "3 workers",     "synthetic",     "mlp:64",   "epoch",
        "of 1",    "test accuracy", "training loss", "updates",  "/s",
        "lag",     "gap",           "p99",           "dropped",  "learning rate",
        "left",    "workers lost",  "\xe2\x96\x88",  "\033[32m", "\033[K"};
    struct winsize small = {12, 50, 0, 0};
    struct screen screen = start("xterm-256color", false);
    size_t before;

    (void)state;
    expect(&screen, 0, HIDE);
    expect(&screen, 0, "left");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        expect(&screen, 0, words[i]);
    before = screen.used;
    assert_int_equal(ioctl(screen.fd, TIOCSWINSZ, &small), 0);
    expect(&screen, before, "\033[H\033[2J"); /* starts on a clean screen */
    expect(&screen, before, "epoch");
    /* Ctrl-C as it is typed: it reaches the launcher only. */
    assert_int_equal(write(screen.fd, "\003", 1), 1);
    assert_int_equal(finish(&screen), 128 + SIGINT);
    check_cursor(&screen);
    assert_non_null(strstr(last(screen.text, SHOW), "test accuracy"));
    assert_non_null(strstr(last(screen.text, SHOW), "model.safetensors"));
    free(screen.text);
}

static void test_ways_out(void **state)
{
    static const int signals[] = {SIGTERM, SIGHUP, SIGSEGV, SIGABRT, SIGQUIT};

    (void)state;
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct screen screen = start("xterm", true);
        int code;

        expect(&screen, 0, "left");
        assert_int_equal(kill(screen.pid, signals[i]), 0);
        code = finish(&screen);
        if (code != -signals[i] && code != 128 + signals[i])
            fail_msg("ended with %d", code);
        check_cursor(&screen);
        assert_null(strstr(screen.text, "\033[32m")); /* NO_COLOR */
        free(screen.text);
        run_none_left(run_dir);
    }
}

/* Waits for all processes of the run to be stopped, or for none to be. */
static void expect_stopped(bool stopped)
{
    struct pace_bound bound = pace_begin(10000000000);
    pid_t pids[8];

    for (unsigned i = 0, count = run_processes(run_dir, pids, 8); i < count;) {
        char path[40], line[128] = "";
        const char *name_end;
        FILE *file;

        (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pids[i]);
        file = fopen(path, "re");
        assert_non_null(file);
        assert_non_null(fgets(line, sizeof line, file));
        (void)fclose(file);
        name_end = strrchr(line, ')');
        assert_non_null(name_end);
        if ((name_end[2] == 'T') == stopped)
            i++;
        else if (pace_over(&bound))
            fail_msg("process %d %s", (int)pids[i], stopped ? "goes on" : "is stopped");
        else
            run_sleep(0.01);
    }
}

static void test_suspended(void **state)
{
    struct screen screen = start("xterm", false);
    size_t before;
    int status;

    (void)state;
    expect(&screen, 0, "left");
    before = screen.used;
    assert_int_equal(write(screen.fd, "\032", 1), 1); /* Ctrl-Z */
    expect(&screen, before, SHOW);
    assert_int_equal(waitpid(screen.pid, &status, WUNTRACED), screen.pid);
    assert_true(WIFSTOPPED(status));
    expect_stopped(true);
    while (screen.used > before) { /* until it is quiet */
        before = screen.used;
        (void)read_more(&screen, 300);
    }
    assert_int_equal(kill(screen.pid, SIGCONT), 0);
    expect(&screen, before, HIDE);
    expect(&screen, before, "left");
    expect_stopped(false);
    assert_int_equal(kill(screen.pid, SIGINT), 0);
    assert_int_equal(finish(&screen), 128 + SIGINT);
    check_cursor(&screen);
    free(screen.text);
}

/* A terminal that can do nothing gets plain lines. */
static void test_dumb(void **state)
{
    struct screen screen = start("dumb", false);

    (void)state;
    expect(&screen, 0, " s  epoch ");
    assert_int_equal(kill(screen.pid, SIGINT), 0);
    assert_int_equal(finish(&screen), 128 + SIGINT);
    assert_null(strstr(screen.text, "\033"));
    free(screen.text);
}

/* An observer, and a master that was started by itself, show the same picture, and give
 * the cursor back. */
static void test_others(void **state)
{
    static const char *const words[] = {"dana-ga",   "1 worker", "synthetic",
                                        "mlp:64",    "of 4",     "test accuracy",
                                        "worker-02", "100 %",    "done"};
    char line[160];
    struct screen master, observer;
    struct run worker;

    (void)state;
    (void)snprintf(line, sizeof line,
                   "master --data synthetic --epochs 4 --address shm:%s/socket --out "
                   "%s/out",
                   run_dir, run_dir);
    master = start_line("xterm", false, line);
    expect(&master, 0, "waiting for workers");
    (void)snprintf(line, sizeof line, "observe --master shm:%s/socket", run_dir);
    observer = start_line("xterm", false, line);
    expect(&observer, 0, "waiting for workers");
    (void)snprintf(line, sizeof line, "worker --number 2 --master shm:%s/socket",
                   run_dir);
    worker = run_start(NULL, 0, line);
    read_both(&observer, &master);
    assert_int_equal(finish(&observer), 0);
    assert_int_equal(finish(&master), 0);
    assert_int_equal(run_wait(&worker, 20.0), 0);
    run_close(&worker);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_non_null(strstr(observer.text, words[i]));
        assert_non_null(strstr(master.text, words[i]));
    }
    check_cursor(&observer);
    check_cursor(&master);
    assert_non_null(strstr(last(master.text, SHOW), "result.json"));
    free(observer.text);
    free(master.text);
}

static void wait_for_file(const char *name)
{
    struct pace_bound bound = pace_begin(120000000000);
    char path[128];

    (void)snprintf(path, sizeof path, "%s/out/%s", run_dir, name);
    while (access(path, F_OK) != 0) {
        if (pace_over(&bound))
            fail_msg("there is no %s: does it wait for its terminal?", path);
        run_sleep(0.05);
    }
}

/* Is the terminal in the mode that it was found in? */
static void check_mode(const struct screen *screen, const struct termios *before)
{
    struct termios now;

    assert_int_equal(fcntl(screen->held, F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(tcgetattr(screen->held, &now), 0);
    assert_int_equal(now.c_lflag, before->c_lflag);
    assert_int_equal(now.c_oflag, before->c_oflag);
    assert_int_equal(now.c_iflag, before->c_iflag);
}

/* A terminal that is not read, by a stuck ssh, holds up neither the run nor its end: what it
 * writes is there before the first byte is read. Then the terminal gets the end of it. */
static void check_unread(const char *command, unsigned epochs, bool stopped)
{
    struct termios before;
    struct screen screen;
    struct run worker = {.ended = true};
    char line[200];

    (void)snprintf(
        line, sizeof line,
        "%s --data synthetic --workers 1 --epochs %u --address shm:%s/socket "
        "--out %s/out",
        command, epochs, run_dir, run_dir);
    screen = start_held("xterm", false, line);
    assert_int_equal(tcgetattr(screen.held, &before), 0);
    if (strcmp(command, "master") == 0) {
        (void)snprintf(line, sizeof line,
                       "worker --connect-timeout 60 --master shm:%s/socket", run_dir);
        worker = run_start(NULL, 0, line);
    }
    if (stopped) {
        wait_for_file("metrics.jsonl"); /* and long enough for many pictures */
        run_sleep(4.0);
        check_mode(&screen, &before);
        assert_int_equal(kill(screen.pid, SIGINT), 0);
    }
    wait_for_file("result.json");
    check_mode(&screen, &before);
    (void)close(screen.held);
    assert_int_equal(finish(&screen), stopped ? 128 + SIGINT : 0);
    check_cursor(&screen);
    if (!worker.ended)
        assert_int_equal(run_wait(&worker, 60.0), 0);
    if (worker.pid != 0)
        run_close(&worker);
    free(screen.text);
}

static void test_unread(void **state)
{
    (void)state;
    check_unread("train", 100000, true);
}

/* And its one process is that which serves: the worker is done in spite of it. */
static void test_unread_master(void **state)
{
    (void)state;
    check_unread("master", 150, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_picture, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_ways_out, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_suspended, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_dumb, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_others, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_unread, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_unread_master, run_set_up, run_tear_down),
    };

    (void)run_program();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
