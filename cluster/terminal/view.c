/* Puts the picture on the terminal, over the last one; or a line into the log when it
 * is time. */
#include "cluster/terminal/view.h"

#include "cluster/options/options.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#define LINE_FIRST_S 1.0
#define LINE_EVERY_S 5.0

void history_add(struct history *history, double value)
{
    if (history->stride == 0)
        history->stride = 1;
    if (++history->skip < history->stride)
        return;
    history->skip = 0;
    if (history->count == HISTORY_MAX) {
        for (unsigned i = 0; i < HISTORY_MAX / 2; i++)
            history->value[i] = history->value[2 * i + 1];
        history->count = HISTORY_MAX / 2;
        history->stride *= 2;
    }
    history->value[history->count++] = value;
}

struct view_facts view_facts_of(const struct settings *settings, uint64_t parameters,
                                double epoch_gradients,
                                const struct gapless_worker_stats *workers,
                                uint32_t worker_count)
{
    return (struct view_facts){
        .rule = settings->rule,
        .data = settings->data,
        .model = settings->model,
        .workers = settings->workers,
        .parameters = parameters,
        .epochs = settings->epochs,
        .epoch_gradients = epoch_gradients,
        .accuracy = (double)NAN,
        .worker = workers,
        .worker_count = worker_count,
    };
}

void view_open(struct view *view, bool quiet, bool no_color)
{
    view->terminal = terminal_find(no_color);
    view->quiet = quiet;
    view->drawn = false;
    view->drawn_lines = 0;
    view->line_due = LINE_FIRST_S;
}

/* Puts the cursor where the picture on the screen begins. */
static void go_up(struct view *view)
{
    char up[32];
    int bytes;

    if (!view->drawn || view->drawn_lines == 0)
        return;
    bytes = snprintf(up, sizeof up, "\r\033[%uA", view->drawn_lines);
    terminal_write(&view->terminal, up, (unsigned long)bytes);
}

/* A picture of another size would leave parts of itself behind: starts on a clean
 * screen. */
static void clear_if_resized(struct view *view, unsigned width, unsigned height)
{
    if (view->drawn && (width != view->width || height != view->height)) {
        terminal_write(&view->terminal, "\033[H\033[2J", 7);
        view->drawn_lines = 0;
    }
    view->width = width;
    view->height = height;
}

static void draw(struct view *view, const struct view_facts *facts)
{
    unsigned width, height;

    terminal_size(&view->terminal, &width, &height);
    clear_if_resized(view, width, height);
    view_paint(&view->canvas, facts, width, height, view->terminal.utf8,
               view->terminal.color);
    if (!view->drawn || !terminal_cursor_hidden())
        terminal_hide_cursor(&view->terminal);
    go_up(view);
    terminal_write(&view->terminal, view->canvas.text, view->canvas.used);
    terminal_write(&view->terminal, "\033[J", 3);
    view->drawn = true;
    view->drawn_lines = view->canvas.lines;
}

void view_show(struct view *view, const struct view_facts *facts)
{
    char line[512];

    if (view->quiet)
        return;
    if (view->terminal.fd >= 0) {
        draw(view, facts);
        return;
    }
    if (facts->elapsed < view->line_due)
        return;
    view->line_due = facts->elapsed + LINE_EVERY_S;
    view_line(facts, line, sizeof line);
    (void)printf("%s\n", line);
    (void)fflush(stdout);
}

void view_note(struct view *view, const char *format, ...)
{
    char text[1024];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (view->drawn) {
        go_up(view);
        terminal_write(&view->terminal, "\033[J", 3);
        terminal_write(&view->terminal, text, strlen(text));
        terminal_write(&view->terminal, "\n", 1);
        view->drawn_lines = 0;
        return;
    }
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s\n", text);
    (void)fflush(stderr);
}

void view_leave(struct view *view)
{
    if (view->drawn)
        terminal_show_cursor();
    view->drawn = false;
    view->drawn_lines = 0;
}
