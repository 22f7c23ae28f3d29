/* Puts the picture on the terminal, over the last one; or a line into the log when it
 * is time. */
#include "cluster/terminal/view.h"

#include "cluster/options/options.h"
#include "engine/base/text_page.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define LINE_FIRST_S 1.0
#define LINE_EVERY_S 5.0
#define LEAVE_MS 500 /* for who reads a log */

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
    view->line_every = LINE_EVERY_S;
    view->line_fd = STDOUT_FILENO;
}

/* Puts the cursor where the picture on the screen begins; on a clean screen where it has
 * another size, since one drawn over the other would leave parts of itself behind. */
static void begin_frame(const struct view *view, bool resized, struct text_page *frame)
{
    if (resized)
        text_add(frame, "\033[H\033[2J");
    else if (view->drawn && view->drawn_lines > 0)
        text_add(frame, "\r\033[%uA", view->drawn_lines);
}

static void draw(struct view *view, const struct view_facts *facts)
{
    struct text_page frame = text_page(view->frame, sizeof view->frame);
    bool hide = !view->drawn || !terminal_cursor_hidden(), resized;
    unsigned width, height;

    terminal_size(&view->terminal, &width, &height);
    resized = view->drawn && (width != view->width || height != view->height);
    view_paint(&view->canvas, facts, width, height, view->terminal.utf8,
               view->terminal.color);
    if (hide)
        terminal_guard_cursor();
    if (hide)
        text_add(&frame, TERMINAL_HIDE);
    begin_frame(view, resized, &frame);
    text_add(&frame, "%s\033[J", view->canvas.text);
    if (!terminal_write(view->frame, strlen(view->frame)))
        return;
    view->drawn = true;
    view->drawn_lines = view->canvas.lines;
    view->width = width;
    view->height = height;
}

/* A line of a log. */
static void print_line(struct outlet *outlet, int fd, const char *text)
{
    char line[1100];
    int bytes = snprintf(line, sizeof line, "%.1000s\n", text);

    outlet_open(outlet, fd);
    (void)outlet_add(outlet, line, (size_t)bytes); /* without room it is lost */
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
    view->line_due = facts->elapsed + view->line_every;
    view_line(facts, line, sizeof line);
    print_line(&view->out, view->line_fd, line);
}

void view_last(struct view *view, const struct view_facts *facts)
{
    if (!view->drawn)
        return;
    terminal_flush();
    view_show(view, facts);
}

void view_note(struct view *view, const char *format, ...)
{
    char text[1024], above[1100];
    struct text_page frame = text_page(above, sizeof above);
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (!view->drawn) {
        print_line(&view->err, STDERR_FILENO, text);
        return;
    }
    begin_frame(view, false, &frame);
    text_add(&frame, "\033[J%s\n", text);
    terminal_add(above, strlen(above));
    view->drawn_lines = 0;
}

void view_leave(struct view *view)
{
    if (view->drawn)
        terminal_show_cursor();
    (void)outlet_flush(&view->out, LEAVE_MS);
    (void)outlet_flush(&view->err, LEAVE_MS);
    view->drawn = false;
    view->drawn_lines = 0;
}
