/* How far a study is: on a terminal one line with a bar, else a line now and then. */
#include "cluster/study/study.h"

#include "cluster/terminal/canvas.h"
#include "cluster/program/program.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#define LINE_EVERY_S 10.0
#define LINE_EVERY_SHARE 0.05
#define LINE_LEAST_S 3.0
#define BAR_COLUMNS 30

static void draw(struct study_show *show, const struct study_counts *counts)
{
    static struct canvas canvas;
    unsigned width, height;

    terminal_size(&show->terminal, &width, &height);
    canvas_begin(&canvas, width > 1 ? width - 1 : 1, show->terminal.utf8,
                 show->terminal.color);
    canvas_put(&canvas, STYLE_PLAIN, "  ");
    canvas_bar(&canvas, STYLE_ACCENT, width < 76 ? BAR_COLUMNS / 2 : BAR_COLUMNS,
               counts->share, true);
    canvas_put(&canvas, STYLE_STRONG, "  %zu of %zu", counts->done, counts->trials);
    if (counts->failed > 0)
        canvas_put(&canvas, STYLE_BAD, "  %zu failed", counts->failed);
    if (counts->running > 0)
        canvas_put(&canvas, STYLE_FAINT, "  %zu running  %s left", counts->running,
                   word_seconds(counts->seconds).text);
    if (terminal_write_over(canvas.text))
        show->drawn = true;
}

static void print_line(const struct study_counts *counts)
{
    (void)printf("gapless study: %zu of %zu runs done", counts->done, counts->trials);
    if (counts->failed > 0)
        (void)printf(", %zu failed", counts->failed);
    if (isfinite(counts->seconds) && counts->running > 0)
        (void)printf(", %s left", word_seconds(counts->seconds).text);
    (void)printf("\n");
    (void)fflush(stdout);
}

void show_progress(struct study_show *show, const struct study_counts *counts,
                   double now)
{
    if (show->quiet)
        return;
    if (show->terminal.fd >= 0) {
        draw(show, counts);
        return;
    }
    if (show->line_due <= 0.0) /* the first time: nothing to tell yet */
        show->line_due = now + LINE_EVERY_S;
    if (now < show->line_due && (counts->share < show->line_share + LINE_EVERY_SHARE ||
                                 now < show->line_due - LINE_EVERY_S + LINE_LEAST_S))
        return;
    show->line_due = now + LINE_EVERY_S;
    show->line_share = counts->share;
    print_line(counts);
}

void show_note(struct study_show *show, const char *format, ...)
{
    char text[1024];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (show->drawn)
        terminal_add("\r\033[K", 4);
    terminal_flush();
    show->drawn = false;
    report_failure("study", "%s", text);
}

void show_leave(struct study_show *show)
{
    if (show->drawn)
        terminal_add("\n", 1);
    terminal_flush();
    show->drawn = false;
}
