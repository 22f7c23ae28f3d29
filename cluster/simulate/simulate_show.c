/* How a simulation looks while it goes: a line on a terminal, drawn over again; in a
 * log one every few seconds.
 *
 *     dana-ga · 8 workers  ████████▌·······  46 %  4,331 of 9,375  virtual 2:18 ...
 */
#include "cluster/simulate/simulate.h"

#include <math.h>
#include <string.h>

#define DRAW_EVERY_S 0.1
#define LINE_FIRST_S 1.0
#define LINE_EVERY_S 5.0
#define LEFT_AFTER_S 0.5 /* before that it is unknown how long it takes */
#define WIDE_COLUMNS 108 /* for all there is to say */
#define NARROW_COLUMNS 70

void progress_open(struct progress *progress, bool quiet, bool no_color)
{
    progress->terminal = terminal_find(no_color);
    progress->quiet = quiet;
    progress->drawn = false;
    progress->due = progress->terminal.fd >= 0 ? DRAW_EVERY_S : LINE_FIRST_S;
}

static double share_of(const struct progress_facts *facts)
{
    return facts->total > 0 ? (double)facts->gradients / (double)facts->total : 0.0;
}

static struct word left_of(const struct progress_facts *facts)
{
    double share = share_of(facts);

    if (facts->real_s < LEFT_AFTER_S || !(share > 0.0) || share > 1.0)
        return word_seconds((double)NAN);
    return word_seconds(facts->real_s * (1.0 - share) / share);
}

void progress_paint(struct canvas *canvas, const struct progress_facts *facts,
                    unsigned width, bool utf8, bool color)
{
    double share = share_of(facts);
    bool wide = width >= WIDE_COLUMNS;

    canvas_begin(canvas, width, utf8, color);
    canvas_put(canvas, STYLE_STRONG, "%s", facts->rule);
    canvas_dot(canvas);
    canvas_put(canvas, STYLE_PLAIN, "%u worker%s  ", facts->workers,
               facts->workers == 1 ? "" : "s");
    if (width >= NARROW_COLUMNS)
        canvas_bar(canvas, STYLE_ACCENT, wide ? 24 : 8, share, true);
    canvas_put(canvas, STYLE_STRONG, " %3.0f %%", 100.0 * share);
    canvas_put(canvas, STYLE_PLAIN, "  %s of %s", word_count(facts->gradients).text,
               word_count(facts->total).text);
    if (wide)
        canvas_put(canvas, STYLE_FAINT, "  virtual %s",
                   word_seconds(facts->virtual_s).text);
    canvas_put(canvas, STYLE_PLAIN, "  %s left", left_of(facts).text);
    if (isfinite(facts->accuracy))
        canvas_put(canvas, STYLE_GOOD, "  %.2f %%", 100.0 * facts->accuracy);
    else if (isfinite(facts->loss))
        canvas_put(canvas, STYLE_PLAIN, "  loss %s", word_small(facts->loss).text);
}

void progress_line(const struct progress_facts *facts, char *ret, size_t max)
{
    char measured[64] = "";

    if (isfinite(facts->accuracy))
        (void)snprintf(measured, sizeof measured, ", accuracy %.2f %%",
                       100.0 * facts->accuracy);
    (void)snprintf(ret, max,
                   "%3.0f %%  %s of %s gradients, virtual time %s, loss %s%s, %s left",
                   100.0 * share_of(facts), word_count(facts->gradients).text,
                   word_count(facts->total).text, word_seconds(facts->virtual_s).text,
                   isfinite(facts->loss) ? word_small(facts->loss).text : "--",
                   measured, left_of(facts).text);
}

static void draw(struct progress *progress, const struct progress_facts *facts)
{
    unsigned width, height;

    terminal_size(&progress->terminal, &width, &height);
    progress_paint(&progress->canvas, facts, width > 1 ? width - 1 : 1,
                   progress->terminal.utf8, progress->terminal.color);
    if (terminal_write_over(progress->canvas.text))
        progress->drawn = true;
}

void progress_show(struct progress *progress, const struct progress_facts *facts)
{
    char line[256];

    if (progress->quiet || facts->real_s < progress->due)
        return;
    if (progress->terminal.fd >= 0) {
        draw(progress, facts);
        progress->due = facts->real_s + DRAW_EVERY_S;
        return;
    }
    progress_line(facts, line, sizeof line);
    (void)printf("%s\n", line);
    (void)fflush(stdout);
    progress->due = facts->real_s + LINE_EVERY_S;
}

void progress_leave(struct progress *progress)
{
    if (progress->drawn)
        terminal_add("\n", 1);
    terminal_flush();
    progress->drawn = false;
}
