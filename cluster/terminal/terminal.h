/* The terminal a person looks at: is there one, how large is it, and leaving it as it
 * was, whatever happens. */
#ifndef CLUSTER_TERMINAL_H
#define CLUSTER_TERMINAL_H

#include <stdbool.h>

struct terminal {
    int fd; /* -1: none: progress goes to a log, line by line */
    bool utf8, color;
};

/* stdout if it is a terminal, else stderr, else none; none where TERM is unset or
 * dumb. */
struct terminal terminal_find(bool no_color);
/* Its size; 80 by 24 where it does not say. */
void terminal_size(const struct terminal *terminal, unsigned *ret_width,
                   unsigned *ret_height);
/* Hides the cursor. From here on it is shown again at exit, and when a signal kills the
 * process (but SIGKILL). */
void terminal_hide_cursor(const struct terminal *terminal);
void terminal_show_cursor(void);
/* False also after the process was stopped, and goes on. */
bool terminal_cursor_hidden(void);
/* Writes all of it; what a terminal does not take is lost. */
void terminal_write(const struct terminal *terminal, const char *text,
                    unsigned long bytes);

#endif
