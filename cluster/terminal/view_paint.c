/* The picture of a run, and its line in a log: from facts to text, nothing else. */
#include "cluster/terminal/view.h"

#include "engine/base/text_page.h"

#include <math.h>
#include <string.h>

#define WIDTH_MAX 100  /* wider is harder to read, not better */
#define HEIGHT_MAX 100 /* as many lines always fit into the canvas */
#define CURVE_WIDTH 18 /* columns of a small curve */
/* In the table of workers: where a name ends, of worker-4095 at most, and where the bar
 * of its share begins, behind the mark of one that is gone. */
#define NAME_END 11
#define SHARE_AT 13

static double share_done(const struct view_facts *facts)
{
    const struct gapless_stats *stats = &facts->stats;

    return stats->gradients_total > 0
               ? (double)stats->gradients / (double)stats->gradients_total
               : 0.0;
}

static double epochs_done(const struct view_facts *facts)
{
    return facts->epoch_gradients > 0.0
               ? (double)facts->stats.gradients / facts->epoch_gradients
               : 0.0;
}

double view_seconds_left(const struct view_facts *facts)
{
    const struct gapless_stats *stats = &facts->stats;

    if (stats->gradients == 0 || stats->seconds <= 0.0 || stats->gradients_total == 0 ||
        stats->gradients > stats->gradients_total)
        return (double)NAN;
    return stats->seconds * (double)(stats->gradients_total - stats->gradients) /
           (double)stats->gradients;
}

double view_loss(const struct gapless_stats *stats)
{
    return stats->updates > 0 ? stats->loss : (double)NAN;
}

static const char *state_text(const struct view_facts *facts)
{
    if (facts->stopping)
        return "stopping";
    switch (facts->stats.state) {
    case GAPLESS_RUN_WAITING:
        return "waiting for workers";
    case GAPLESS_RUN_GOING:
        return "";
    default:
        return "done";
    }
}

static void paint_title(struct canvas *canvas, const struct view_facts *facts)
{
    canvas_put(canvas, STYLE_STRONG, " gapless  ");
    canvas_put(canvas, STYLE_ACCENT, "%s", facts->rule);
    if (facts->rule[0] != '\0')
        canvas_dot(canvas);
    canvas_put(canvas, STYLE_PLAIN, "%u worker%s", facts->workers,
               facts->workers == 1 ? "" : "s");
    canvas_dot(canvas);
    if (facts->data != NULL) {
        canvas_put(canvas, STYLE_PLAIN, "%s", facts->data);
        canvas_dot(canvas);
    }
    canvas_put(canvas, STYLE_PLAIN, "%s, %s parameters", facts->model,
               word_count(facts->parameters).text);
    canvas_line(canvas);
}

static void paint_progress(struct canvas *canvas, const struct view_facts *facts,
                           unsigned width)
{
    const char *state = state_text(facts);
    unsigned words = (unsigned)strlen(state) > 9 ? (unsigned)strlen(state) - 9 : 0;
    unsigned bar = width > 62 + words ? width - 48 - words : 14;

    canvas_put(canvas, STYLE_PLAIN, " ");
    if (facts->stats.gradients_total > 0 ||
        !facts->unmeasured) { /* else no end is set */
        canvas_bar(canvas, STYLE_GOOD, bar, share_done(facts), true);
        canvas_right(canvas, bar + 8, STYLE_STRONG, "%.0f %%",
                     floor(100.0 * share_done(facts)));
    }
    if (facts->epoch_gradients > 0.0 && facts->stats.gradients_total > 0)
        canvas_put(canvas, STYLE_PLAIN, "   epoch %.2f of %g", epochs_done(facts),
                   facts->epochs);
    else if (facts->epoch_gradients > 0.0)
        canvas_put(canvas, STYLE_PLAIN, "   epoch %.2f", epochs_done(facts));
    else
        canvas_put(canvas, STYLE_PLAIN, "   gradient %s",
                   word_count(facts->stats.gradients).text);
    if (state[0] != '\0')
        canvas_put(canvas, facts->stopping ? STYLE_WARN : STYLE_ACCENT, "   %s", state);
    else if (facts->stats.gradients_total > 0 || !facts->unmeasured)
        canvas_put(canvas, STYLE_PLAIN, "   %s left",
                   word_seconds(view_seconds_left(facts)).text);
    canvas_line(canvas);
}

/* Accuracy, loss, rates: two facts a line, at columns 0 and `half`. */
static void paint_learning(struct canvas *canvas, const struct view_facts *facts,
                           unsigned half)
{
    const struct gapless_stats *stats = &facts->stats;

    if (!facts->unmeasured) {
        canvas_put(canvas, STYLE_FAINT, " test accuracy");
        canvas_right(canvas, 24, STYLE_STRONG, "%s",
                     word_real(100.0 * facts->accuracy, 2).text);
        canvas_put(canvas, STYLE_PLAIN, " %% ");
        canvas_curve(canvas, STYLE_GOOD, half - 28, facts->accuracies.value,
                     facts->accuracies.count);
    }
    canvas_to(canvas, half);
    canvas_put(canvas, STYLE_FAINT, " training loss");
    canvas_right(canvas, half + 26, STYLE_STRONG, "%s",
                 word_real(view_loss(stats), 4).text);
    canvas_put(canvas, STYLE_PLAIN, "  ");
    canvas_curve(canvas, STYLE_ACCENT, half - 28, facts->losses.value,
                 facts->losses.count);
    canvas_line(canvas);

    canvas_put(canvas, STYLE_FAINT, " updates");
    canvas_right(canvas, 24, STYLE_PLAIN, "%s", word_count(stats->updates).text);
    canvas_put(canvas, STYLE_PLAIN, "   %s/s",
               word_count((uint64_t)(facts->updates_per_second + 0.5)).text);
    canvas_to(canvas, half);
    canvas_put(canvas, STYLE_FAINT, " learning rate");
    canvas_right(canvas, half + 26, STYLE_PLAIN, "%s", word_small(stats->rate).text);
    canvas_line(canvas);
}

static void paint_staleness(struct canvas *canvas, const struct view_facts *facts,
                            unsigned half)
{
    const struct gapless_stats *stats = &facts->stats;
    bool lag = stats->lag.count > 0, gap = stats->gap_rms.count > 0;

    canvas_put(canvas, STYLE_FAINT, " lag, mean");
    canvas_right(canvas, 24, STYLE_PLAIN, "%s",
                 word_real(lag ? stats->lag.mean : (double)NAN, 2).text);
    canvas_put(canvas, STYLE_FAINT, "  p99 ");
    canvas_put(canvas, STYLE_PLAIN, "%s",
               word_real(lag ? stats->lag.p99 : (double)NAN, 0).text);
    canvas_to(canvas, half);
    canvas_put(canvas, STYLE_FAINT, " dropped (bad or late)");
    canvas_right(canvas, half + 26, stats->dropped > 0 ? STYLE_BAD : STYLE_PLAIN, "%s",
                 word_count(stats->dropped).text);
    canvas_line(canvas);

    canvas_put(canvas, STYLE_FAINT, " gap, mean");
    canvas_right(canvas, 24, STYLE_PLAIN, "%s",
                 word_small(gap ? stats->gap_rms.mean : (double)NAN).text);
    canvas_put(canvas, STYLE_FAINT, "  p99 ");
    canvas_put(canvas, STYLE_PLAIN, "%s",
               word_small(gap ? stats->gap_rms.p99 : (double)NAN).text);
    canvas_to(canvas, half);
    canvas_put(canvas, STYLE_FAINT, " workers lost");
    canvas_right(canvas, half + 26, stats->workers_lost > 0 ? STYLE_BAD : STYLE_PLAIN,
                 "%u", stats->workers_lost);
    canvas_line(canvas);
}

static double worker_lag(const struct gapless_worker_stats *worker)
{
    return worker->lag_count > 0 ? worker->lag_sum / (double)worker->lag_count
                                 : (double)NAN;
}

static double worker_gap(const struct gapless_worker_stats *worker)
{
    return worker->gap_count > 0 ? worker->gap_sum / (double)worker->gap_count
                                 : (double)NAN;
}

/* A slot that has, or had, a worker in it. */
static bool worker_known(const struct gapless_worker_stats *worker)
{
    return worker->state != 0 || worker->gradients > 0;
}

/* Where the columns of the table of workers are, in a terminal of this width. */
struct columns {
    unsigned share, small;      /* widths of the bars; small 0: only numbers */
    unsigned updates, lag, gap; /* right ends of the numbers */
};

static struct columns columns_for(unsigned width)
{
    unsigned bars = width > 54 ? width - 33 - SHARE_AT : 8;
    struct columns at;

    at.small = width >= 70 ? bars * 3 / 10 : 0;
    at.share = bars - 2 * at.small;
    at.updates = SHARE_AT + at.share + 9;
    at.lag = at.updates + 2 + at.small + 7;
    at.gap = at.lag + 2 + at.small + 10;
    return at;
}

struct most { /* of all workers: a full bar */
    uint64_t gradients;
    double lag, gap;
};

static void small_bar(struct canvas *canvas, enum canvas_style style, unsigned width,
                      double value, double most)
{
    canvas_put(canvas, STYLE_PLAIN, "  ");
    canvas_bar(canvas, style, width, most > 0.0 ? value / most : 0.0, false);
}

static void paint_worker(struct canvas *canvas,
                         const struct gapless_worker_stats *worker, uint32_t number,
                         const struct most *most, unsigned width, bool over)
{
    struct columns at = columns_for(width);
    bool gone = worker->state == 0 && !over; /* at the end all go */
    double lag = worker_lag(worker), gap = worker_gap(worker);

    canvas_right(canvas, NAME_END, gone ? STYLE_FAINT : STYLE_PLAIN, WORKER_NAME,
                 number);
    if (gone)
        canvas_put(canvas, STYLE_BAD, "%s", canvas->utf8 ? " ✕" : " x");
    canvas_to(canvas, SHARE_AT);
    canvas_bar(canvas, gone ? STYLE_FAINT : STYLE_GOOD, at.share,
               most->gradients > 0 ? (double)worker->gradients / (double)most->gradients
                                   : 0.0,
               false);
    canvas_right(canvas, at.updates, STYLE_PLAIN, "%s",
                 word_count(worker->gradients).text);
    small_bar(canvas, gone ? STYLE_FAINT : STYLE_ACCENT, at.small, lag, most->lag);
    canvas_right(canvas, at.lag, STYLE_PLAIN, "%s", word_real(lag, 2).text);
    small_bar(canvas, gone ? STYLE_FAINT : STYLE_WARN, at.small, gap, most->gap);
    canvas_right(canvas, at.gap, STYLE_PLAIN, "%s", word_small(gap).text);
    canvas_line(canvas);
}

/* One line for the workers that do not fit. */
static void paint_others(struct canvas *canvas, const struct view_facts *facts,
                         uint32_t from, uint32_t many)
{
    uint64_t least = UINT64_MAX, most = 0, sum = 0;

    for (uint32_t i = from; i < facts->worker_count; i++) {
        uint64_t count = facts->worker[i].gradients;

        if (!worker_known(&facts->worker[i]))
            continue;
        sum += count;
        least = count < least ? count : least;
        most = count > most ? count : most;
    }
    canvas_put(canvas, STYLE_FAINT, "         and %u more: %s updates, %s to %s each",
               many, word_count(sum).text, word_count(least).text,
               word_count(most).text);
    canvas_line(canvas);
}

uint32_t view_workers_known(const struct view_facts *facts)
{
    uint32_t known = 0;

    for (uint32_t i = 0; i < facts->worker_count; i++)
        known += worker_known(&facts->worker[i]);
    return known;
}

/* How many workers there are, and their largest numbers. */
static uint32_t count_workers(const struct view_facts *facts, struct most *ret)
{
    uint32_t known = 0;

    *ret = (struct most){0, 0.0, 0.0};
    for (uint32_t i = 0; i < facts->worker_count; i++) {
        const struct gapless_worker_stats *worker = &facts->worker[i];

        known += worker_known(worker);
        if (worker->gradients > ret->gradients)
            ret->gradients = worker->gradients;
        ret->lag = fmax(ret->lag, worker_lag(worker)); /* fmax passes over NaN */
        ret->gap = fmax(ret->gap, worker_gap(worker));
    }
    return known;
}

static void paint_heading(struct canvas *canvas, unsigned width)
{
    struct columns at = columns_for(width);

    canvas_put(canvas, STYLE_FAINT, "   worker");
    canvas_to(canvas, SHARE_AT);
    canvas_put(canvas, STYLE_FAINT, "%s", at.share >= 9 ? "its share" : "");
    canvas_right(canvas, at.updates, STYLE_FAINT, "updates");
    canvas_right(canvas, at.lag, STYLE_FAINT, "lag");
    canvas_right(canvas, at.gap, STYLE_FAINT, "gap");
    canvas_line(canvas);
}

static void paint_workers(struct canvas *canvas, const struct view_facts *facts,
                          unsigned width, unsigned room)
{
    struct most most;
    uint32_t known = count_workers(facts, &most), shown = 0;

    if (known == 0 || room < 3)
        return;
    canvas_line(canvas);
    paint_heading(canvas, width);
    room -= 2;
    for (uint32_t i = 0; i < facts->worker_count; i++) {
        if (!worker_known(&facts->worker[i]))
            continue;
        if (shown + 1 == room && known > room) {
            paint_others(canvas, facts, i, known - shown);
            return;
        }
        paint_worker(canvas, &facts->worker[i], i, &most, width,
                     facts->stats.state >= GAPLESS_RUN_ENDING);
        shown++;
    }
}

void view_paint(struct canvas *canvas, const struct view_facts *facts, unsigned width,
                unsigned height, bool utf8, bool color)
{
    unsigned used = width < WIDTH_MAX ? width : WIDTH_MAX;
    unsigned half = used > 92 ? 46 : used / 2 > 34 ? used / 2 : 34;

    if (height > HEIGHT_MAX)
        height = HEIGHT_MAX;
    canvas_begin(canvas, width > 1 ? width - 1 : 1, utf8, color);
    if (height >= 10) {
        paint_title(canvas, facts);
        canvas_line(canvas);
    }
    paint_progress(canvas, facts, used);
    if (height >= 10)
        canvas_line(canvas);
    if (height >= 4)
        paint_learning(canvas, facts, half);
    if (height >= 7)
        paint_staleness(canvas, facts, half);
    if (height > canvas->lines + 1)
        paint_workers(canvas, facts, used, height - canvas->lines - 1);
}

/* Where the run is, and what was measured, each where it is known. */
static void line_progress(struct text_page *page, const struct view_facts *facts)
{
    text_add(page, "%6.1f s  ", facts->elapsed);
    if (facts->epoch_gradients > 0.0)
        text_add(page, "epoch %.2f", epochs_done(facts));
    if (facts->epoch_gradients > 0.0 && facts->stats.gradients_total > 0)
        text_add(page, "/%g", facts->epochs);
    if (facts->epoch_gradients > 0.0)
        text_add(page, "  ");
    text_add(page, "updates %s (%.0f/s)  loss %s  ",
             word_count(facts->stats.updates).text, facts->updates_per_second,
             word_real(view_loss(&facts->stats), 4).text);
    if (!facts->unmeasured)
        text_add(page, "accuracy %s %%  ", word_real(100.0 * facts->accuracy, 2).text);
}

void view_line(const struct view_facts *facts, char *ret, size_t max)
{
    const struct gapless_stats *stats = &facts->stats;
    const char *state = state_text(facts);
    struct text_page page = text_page(ret, max);

    line_progress(&page, facts);
    text_add(
        &page, "rate %s  lag %s  gap %s  workers %u", word_small(stats->rate).text,
        word_real(stats->lag.count > 0 ? stats->lag.mean : (double)NAN, 2).text,
        word_small(stats->gap_rms.count > 0 ? stats->gap_rms.mean : (double)NAN).text,
        stats->workers_active);
    if (stats->dropped > 0)
        text_add(&page, "  dropped %s", word_count(stats->dropped).text);
    if (state[0] != '\0')
        text_add(&page, "  %s", state);
    else if (stats->gradients_total > 0)
        text_add(&page, "  %s left", word_seconds(view_seconds_left(facts)).text);
}
