/* Finds the terminal, and gives the cursor back on every way out. */
#include "cluster/terminal/terminal.h"

#include "cluster/terminal/outlet.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LINE_BYTES 8192 /* some 1,000 columns, with their styles */
#define WAIT_MS 500     /* at the end, for a terminal that is stopped or slow */

static struct outlet picture; /* a process has one terminal */
static volatile sig_atomic_t hidden;

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
    if (ret.fd >= 0)
        outlet_open(&picture, ret.fd);
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

bool terminal_write(const char *text, size_t bytes)
{
    return outlet_write(&picture, text, bytes);
}

bool terminal_write_over(const char *line)
{
    char text[LINE_BYTES];
    int bytes = snprintf(text, sizeof text, "\r%.*s\033[K", LINE_BYTES - 8, line);

    return terminal_write(text, (size_t)bytes);
}

void terminal_add(const char *text, size_t bytes)
{
    (void)outlet_add(&picture, text, bytes); /* without room it is lost */
}

void terminal_flush(void)
{
    (void)outlet_flush(&picture, WAIT_MS);
}

/* Where the terminal takes nothing the cursor stays hidden, until the exit tries again. */
static void restore(void)
{
    static const char show[] = "\033[0m\033[?25h";
    struct pollfd room = {picture.fd, POLLOUT, 0};

    if (!hidden)
        return;
    if (outlet_now(&picture, show, sizeof show - 1) < 0 && errno == EAGAIN &&
        (poll(&room, 1, WAIT_MS) <= 0 ||
         outlet_now(&picture, show, sizeof show - 1) < 0))
        return;
    hidden = 0;
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

void terminal_guard_cursor(void)
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
    hidden = 1;
}

bool terminal_cursor_hidden(void)
{
    return hidden != 0;
}

void terminal_show_cursor(void)
{
    terminal_flush();
    restore();
}
