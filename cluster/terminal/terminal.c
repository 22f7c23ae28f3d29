/* Finds the terminal, and gives the cursor back on every way out. */
#include "cluster/terminal/terminal.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WRITE_WAIT_MS                                                                  \
    200 /* a terminal that is stopped (Ctrl-S) must not hold up the run */

static volatile sig_atomic_t hidden_on = -1; /* the descriptor of a hidden cursor */

struct terminal terminal_find(bool no_color)
{
    struct terminal ret = {-1, false, false};
    const char *term = getenv("TERM");
    const char *forbid = getenv("NO_COLOR");

    if (term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0)
        return ret;
    if (isatty(STDOUT_FILENO))
        ret.fd = STDOUT_FILENO;
    else if (isatty(STDERR_FILENO))
        ret.fd = STDERR_FILENO;
    ret.color = !no_color && (forbid == NULL || forbid[0] == '\0');
    (void)setlocale(LC_CTYPE, ""); /* not LC_NUMERIC: numbers keep their point */
    ret.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    return ret;
}

void terminal_size(const struct terminal *terminal, unsigned *ret_width,
                   unsigned *ret_height)
{
    struct winsize size;

    *ret_width = 80;
    *ret_height = 24;
    if (ioctl(terminal->fd, TIOCGWINSZ, &size) != 0)
        return;
    if (size.ws_col > 0)
        *ret_width = size.ws_col;
    if (size.ws_row > 0)
        *ret_height = size.ws_row;
}

void terminal_write(const struct terminal *terminal, const char *text,
                    unsigned long bytes)
{
    while (bytes > 0) {
        struct pollfd ready = {terminal->fd, POLLOUT, 0};
        ssize_t done;

        if (poll(&ready, 1, WRITE_WAIT_MS) <= 0)
            return;
        done = write(terminal->fd, text, bytes < 4096 ? bytes : 4096);
        if (done < 0 && errno != EINTR && errno != EAGAIN)
            return;
        if (done > 0) {
            text += done;
            bytes -= (unsigned long)done;
        }
    }
}

static void restore(void)
{
    static const char show[] = "\033[0m\033[?25h";
    int fd = hidden_on;

    hidden_on = -1;
    if (fd >= 0 && write(fd, show, sizeof show - 1) < 0)
        return; /* nothing is left to be done about it */
}

static void deadly(int number)
{
    restore();
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* Ctrl-Z: the next picture after SIGCONT hides the cursor again. */
static void suspended(int number)
{
    (void)number;
    restore();
    (void)raise(SIGSTOP);
}

void terminal_hide_cursor(const struct terminal *terminal)
{
    static const int signals[] = {SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,  SIGABRT,
                                  SIGQUIT, SIGTERM, SIGHUP,  SIGINT,  SIGPIPE,
                                  SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ};
    static bool prepared;

    if (!prepared) {
        struct sigaction action = {.sa_handler = deadly};
        struct sigaction suspend = {.sa_handler = suspended, .sa_flags = SA_RESTART};
        struct sigaction usual;

        (void)atexit(restore);
        if (sigaction(SIGTSTP, NULL, &usual) == 0 && usual.sa_handler == SIG_DFL)
            (void)sigaction(SIGTSTP, &suspend, NULL);
        for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++) {
            struct sigaction before;

            if (sigaction(signals[i], NULL, &before) == 0 &&
                before.sa_handler == SIG_DFL)
                (void)sigaction(signals[i], &action, NULL);
        }
        prepared = true;
    }
    hidden_on = terminal->fd;
    terminal_write(terminal, "\033[?25l", 6);
}

bool terminal_cursor_hidden(void)
{
    return hidden_on >= 0;
}

void terminal_show_cursor(void)
{
    restore();
}
