/* The terminal a person looks at: is there one, how large is it, and leaving it as it
 * was, whatever happens. */
#ifndef CLUSTER_TERMINAL_H
#define CLUSTER_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

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
/* What hides the cursor. From terminal_guard_cursor on it is shown again at exit, and when
 * a signal kills the process (but SIGKILL). */
#define TERMINAL_HIDE "\033[?25l"
void terminal_guard_cursor(void);
/* Waits a little for what was written before. */
void terminal_show_cursor(void);
/* False also after the process was stopped, and goes on. */
bool terminal_cursor_hidden(void);
/* A picture, written without waiting for the terminal: all of it, or false where an earlier
 * one still waits for it. The next one is drawn over the last that was taken. */
bool terminal_write(const char *text, size_t bytes);
/* A line without its end, over the last one: as terminal_write. */
bool terminal_write_over(const char *line);
/* A line, behind what waits. */
void terminal_add(const char *text, size_t bytes);
/* Waits a little for the terminal to take what was written. */
void terminal_flush(void);

#endif
