/* The charts whose points are whole runs: accuracy over workers and over the learning
 * rate, time to a target, what the master costs, updates a second; and the means. */
#include "cluster/report/charts.h"

#include <math.h>
#include <string.h>

/* ---- quantities of a run ------------------------------------------------- */

typedef double run_value(const struct set *set, const struct run *run);

static double accuracy(const struct set *set, const struct run *run)
{
    return run_number(set, run, "final_accuracy");
}

static double loss(const struct set *set, const struct run *run)
{
    return run_number(set, run, "final_loss");
}

static double target_time(const struct set *set, const struct run *run)
{
    return run_number(set, run, "time_to_target");
}

static double update_us(const struct set *set, const struct run *run)
{
    return run_number(set, run, "master_us_per_update");
}

static double master_bytes(const struct set *set, const struct run *run)
{
    return run_number(set, run, "master_bytes");
}

static double virtual_rate(const struct set *set, const struct run *run)
{
    return run_number(set, run, "updates") / run_number(set, run, "virtual_seconds");
}

static double real_rate(const struct set *set, const struct run *run)
{
    double seconds = run_number(set, run, "real_seconds");

    return run_number(set, run, "updates") /
           (isfinite(seconds) ? seconds : run->seconds);
}

/* ---- charts -------------------------------------------------------------- */

struct plot {
    run_value *of;
    const char *title; /* of the panel, behind what tells panels apart; "": none */
    struct axis axis;
};

static const struct kind {
    const char *id, *title, *note;
    const char *x;      /* an option, the x axis where it varies within a grid */
    const char *extra;  /* an option that makes panels */
    const char *choice; /* an option of whose values the best is taken, or NULL */
    bool bars;          /* where x does not vary: a bar a line */
    bool never;         /* a run without the number counts: it did not get there */
    run_value *instead; /* only for a study that asks for it, or whose runs lack this */
    struct plot plot[2];
} kinds[] = {
    {.id = "accuracy-workers",
     .title = "Test accuracy by number of workers",
     .x = "workers",
     .choice = "lr",
     .plot = {{accuracy, "", {"final test accuracy", "linear", true, 1}}}},
    {.id = "loss-workers",
     .title = "Test loss by number of workers",
     .x = "workers",
     .choice = "lr",
     .instead = accuracy,
     .plot = {{loss, "", {"final test loss", "linear", false, -1}}}},
    {.id = "accuracy-lr",
     .title = "Test accuracy by learning rate",
     .x = "lr",
     .extra = "workers",
     .plot = {{accuracy, "", {"final test accuracy", "linear", true, 1}}}},
    {.id = "time-to-target",
     .note =
         "Seconds of the run's own clock until the test accuracy was first measured "
         "at the target or above. never: no run got there; 2 of 3: only two of three "
         "runs did.",
     .x = "workers",
     .choice = "lr",
     .bars = true,
     .never = true,
     .plot = {{target_time, "", {"seconds", "log", false, -1}}}},
    {.id = "scale",
     .title = "What the master costs",
     .note = "Real time of the machine the study ran on.",
     .x = "workers",
     .choice = "lr",
     .plot = {{update_us, "time of an update", {"microseconds", "log", false, -1}},
              {master_bytes, "memory of the master", {"bytes", "log", false, -1}}}},
    {.id = "updates-per-second",
     .title = "Updates a second",
     .note = "In virtual time: of the modelled workers; in real time: of this machine, "
             "gradients included.",
     .x = "workers",
     .choice = "lr",
     .bars = true,
     .plot = {{virtual_rate, "in virtual time", {"updates/s", "log", false, 1}},
              {real_rate, "in real time", {"updates/s", "log", false, 1}}}},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

static bool any_number(const struct view *view, run_value *of)
{
    for (size_t i = 0; i < view->runs; i++)
        if (isfinite(of(view->set, view->run[i])))
            return true;
    return false;
}

/* The panels of one quantity of one grid. */
static bool plot_add(json_t *chart, const struct view *view, const struct kind *kind,
                     const struct plot *plot, bool over)
{
    struct samples samples = {
        .arena = view->arena, .better = plot->axis.better, .named = kind->choice};
    bool choose = kind->choice != NULL && view_varies(view, kind->choice);
    struct axis x = {strcmp(kind->x, "lr") == 0 ? "learning rate" : kind->x, "log",
                     false, 0};

    if (!over)
        x = (struct axis){"", "linear", false, 0};
    for (size_t i = 0; i < view->runs && any_number(view, plot->of); i++) {
        const struct run *run = view->run[i];
        const char *place = view_panel(view, run);
        double value = plot->of(view->set, run);

        if (kind->never ? !isfinite(accuracy(view->set, run))
                        : !isfinite(value) && run_status(view->set, run) == RUN_DONE)
            continue;
        if (plot->title[0] != '\0')
            place = arena_format(view->arena, "%s%s%s", place,
                                 place[0] != '\0' ? ", " : "", plot->title);
        samples_add(&samples, place, view_name(view, run),
                    &(struct sample){
                        .choice = choose ? run_field(view->set, run, kind->choice) : "",
                        .seed = run_field(view->set, run, "seed"),
                        .x = over ? run_number(view->set, run, kind->x) : 0,
                        .value = value,
                        .percent = plot->axis.percent,
                        .status = run_status(view->set, run)});
    }
    samples_panels(&samples, chart, x, plot->axis);
    return samples.chosen;
}

static size_t points_most(const json_t *chart, const char *key)
{
    const json_t *panels = json_object_get(chart, "panels"), *panel, *line, *point;
    size_t p, l, k, ret = 0;

    json_array_foreach(panels, p, panel)
        json_array_foreach(json_object_get(panel, "lines"), l, line)
            json_array_foreach(json_object_get(line, "points"), k, point)
    {
        size_t own = (size_t)json_integer_value(json_object_get(point, key));

        ret = own > ret ? own : ret;
    }
    return ret;
}

/* Does any line have two points to draw a line between? */
static bool any_line(const json_t *chart)
{
    const json_t *panels = json_object_get(chart, "panels"), *panel, *line;
    size_t p, l;

    json_array_foreach(panels, p, panel) json_array_foreach(
        json_object_get(panel, "lines"), l,
        line) if (json_array_size(json_object_get(line, "points")) > 1) return true;
    return false;
}

static void note_write(struct arena *arena, json_t *chart, const struct kind *kind,
                       bool chosen)
{
    size_t seeds = points_most(chart, "seeds"), runs = points_most(chart, "n");
    const char *note = kind->note != NULL ? kind->note : "";

    if (runs < 2)
        note = arena_format(arena, "%s One run a point.", note);
    else if (seeds < 2)
        note = arena_format(arena,
                            "%s Means over up to %zu repeats of one seed; bars "
                            "reach from the least to the most.",
                            note, runs);
    else
        note = arena_format(arena,
                            "%s Means over up to %zu seeds; bars reach from the "
                            "least to the most.",
                            note, seeds);
    if (runs > 1)
        note = arena_format(arena,
                            "%s Where runs of one cell are too far apart for a "
                            "mean, only the bar is drawn.",
                            note);
    if (chosen)
        note = arena_format(arena,
                            "%s Of each rule the best of the learning rates that "
                            "were tried.",
                            note);
    if (points_most(chart, "out") > 0)
        note = arena_format(arena,
                            "%s A cross: runs that diverged or were stopped; "
                            "they count in no mean.",
                            note);
    (void)json_object_set_new(chart, "note", json_string(note + (note[0] == ' ')));
}

static void kind_make(struct arena *arena, const struct set *set, json_t *charts,
                      const struct kind *kind)
{
    static const char *const tuned[] = {"lr", NULL};
    const char *title = kind->title;
    struct view *view;
    size_t views = views_find(arena, set, kind->x, &view);
    bool over = false, chosen = false;
    json_t *chart;

    for (size_t i = 0; i < views; i++) {
        over = over || view_varies(&view[i], kind->x);
        if (kind->instead != NULL && any_number(&view[i], kind->instead) &&
            (set->chart == NULL || strcmp(set->chart, kind->id) != 0))
            return;
    }
    if (!over && (!kind->bars || view[0].runs < 2))
        return; /* one number makes no chart; it is in the table */
    if (kind->never)
        title = arena_format(arena, "Time to %.4g %% test accuracy", 100 * set->target);
    chart = chart_add(arena, charts, over ? "lines" : "bars", kind->id, title);
    for (size_t k = 0; k < 2 && kind->plot[k].of != NULL; k++)
        for (size_t i = 0; i < views; i++) {
            if (over && !view_varies(&view[i], kind->x))
                continue;
            if (!over) /* of runs of several lengths the longest */
                view_keep_most(&view[i], "epochs");
            view_settle(&view[i], over ? kind->x : "",
                        kind->choice != NULL ? tuned : NULL, kind->extra);
            if (plot_add(chart, &view[i], kind, &kind->plot[k], over))
                chosen = true;
        }
    note_write(arena, chart, kind, chosen);
    if (over && !any_line(chart)) /* plain runs that have nothing in common */
        (void)json_array_clear(json_object_get(chart, "panels"));
    charts_drop_empty(charts);
}

/* ---- means --------------------------------------------------------------- */

static const struct measure {
    const char *column, *label;
    int better;
    bool percent;
    bool brief; /* on a terminal, too, where there is less room */
} measures[] = {
    {"final_accuracy", "accuracy", 1, true, true},
    {"final_loss", "test loss", -1, false, true},
    {"training_loss", "train loss", -1, false, false},
    {"time_to_target", "to target, s", -1, false, true},
    {"virtual_seconds", "virtual s", 0, false, false},
    {"lag_mean", "lag", 0, false, true},
    {"gap_mean", "gap", 0, false, true},
    {"gate_mean", "mean gate", 0, false, false},
    {"grad_norm_sq_min", "least |g|²", -1, false, true},
    {"real_seconds", "real s", 0, false, false},
};
#define MEASURES (sizeof measures / sizeof measures[0])

static json_t *columns_json(const bool *used)
{
    json_t *ret = json_array();

    for (size_t m = 0; m < MEASURES; m++)
        if (used[m])
            (void)json_array_append_new(
                ret, json_pack("{s:i, s:s, s:b, s:i, s:b}", "x", (int)m, "label",
                               measures[m].label, "percent",
                               measures[m].percent ? 1 : 0, "better",
                               measures[m].better, "brief", measures[m].brief ? 1 : 0));
    return ret;
}

/* Has the run this number, or could it have got there? */
static bool measured(const struct set *set, const struct run *run,
                     const struct measure *measure)
{
    return isfinite(run_number(set, run, measure->column)) ||
           run_status(set, run) != RUN_DONE ||
           (strcmp(measure->column, "time_to_target") == 0 &&
            isfinite(accuracy(set, run)));
}

static const char *state_of(const json_t *point)
{
    return json_string_value(json_object_get(point, "state"));
}

/* Where all that a line has is of runs that diverged, were stopped or failed, says so once:
 * "mark" of the line, and the texts of its points are their numbers alone. */
static void mark_line(json_t *line)
{
    const json_t *points = json_object_get(line, "points");
    const char *state = state_of(json_array_get(points, 0));
    size_t bytes = state != NULL ? strlen(state) : 0, i;
    bool out = false;
    json_t *point;

    for (enum run_status s = RUN_DIVERGED; state != NULL && s <= RUN_FAILED; s++)
        out = out || strcmp(state, run_status_name(s)) == 0;
    json_array_foreach(points, i, point) out =
        out && strcmp(state_of(point), state) == 0;
    if (!out)
        return;
    (void)json_object_set_new(line, "mark", json_string(state));
    json_array_foreach(points, i, point)
    {
        const char *text = json_string_value(json_object_get(point, "text"));

        if (strncmp(text, state, bytes) != 0)
            continue;
        text += bytes + strspn(text + bytes, ": ");
        (void)json_object_set_new(point, "text", json_string(text));
    }
}

/* A table a place, a row a name, a column a measure. */
void charts_means(struct arena *arena, const struct set *set, json_t *charts)
{
    static const char *const every[] = {"table", "time-to-target", "gap-course"};
    static const struct axis none = {"", "linear", false, 0};
    struct samples samples = {.arena = arena};
    bool used[MEASURES] = {false}, all = false;
    const char *title = "Means by rule";
    struct view view;
    json_t *chart, *panel, *line;
    size_t p, l;

    for (size_t i = 0; i < sizeof every / sizeof every[0]; i++)
        all = all || (set->chart != NULL && strcmp(set->chart, every[i]) == 0);
    view_fill(&view, arena, set, NULL);
    if (set->study && !all && view_varies(&view, "workers")) {
        title =
            arena_format(arena, "%s, %g workers", title, view_most(&view, "workers"));
        view_keep_most(&view, "workers");
    }
    view_settle(&view, "", NULL, "workers");
    if (!set->study)
        title = "Results";
    for (size_t m = 0; m < MEASURES; m++)
        for (size_t i = 0; i < view.runs; i++)
            used[m] =
                used[m] || isfinite(run_number(set, view.run[i], measures[m].column));
    for (size_t i = 0; i < view.runs; i++) {
        const struct run *run = view.run[i];
        const char *place = set->study ? view_panel(&view, run) : "";
        const char *name =
            set->study ? view_name(&view, run) : run_field(set, run, "cell");

        for (size_t m = 0; m < MEASURES; m++)
            if (used[m] && measured(set, run, &measures[m]))
                samples_add(
                    &samples, place, name,
                    &(struct sample){.choice = "",
                                     .seed = run_field(set, run, "seed"),
                                     .x = (double)m,
                                     .value = run_number(set, run, measures[m].column),
                                     .percent = measures[m].percent,
                                     .status = run_status(set, run)});
    }
    chart = chart_add(arena, charts, "table", "means", title);
    samples_panels(&samples, chart, none, none);
    json_array_foreach(json_object_get(chart, "panels"), p, panel)
    {
        (void)json_object_set_new(panel, "columns", columns_json(used));
        json_array_foreach(json_object_get(panel, "lines"), l, line) mark_line(line);
    }
    (void)json_object_set_new(
        chart, "note",
        json_string(set->study ? "Over the seeds, with the least and the most of them. "
                                 "Runs that diverged or were stopped count in no mean."
                               : "By the end of each run."));
    charts_drop_empty(charts);
}

/* ---- all charts of a set ------------------------------------------------- */

void charts_make(struct report *report, const struct set *set, json_t *charts,
                 json_t *runs)
{
    struct arena *arena = &report->arena;
    size_t begin = json_array_size(charts);

    if (!set->study) {
        charts_means(arena, set, charts);
        charts_course(arena, set, charts, runs);
    }
    for (size_t i = 0; i < KINDS; i++)
        kind_make(arena, set, charts, &kinds[i]);
    charts_convergence(arena, set, charts);
    if (set->study)
        charts_course(arena, set, charts, runs);
    charts_histograms(arena, set, charts);
    charts_workers(arena, set, charts);
    if (set->study)
        charts_means(arena, set, charts);
    for (size_t i = begin; i < json_array_size(charts) && set->chart != NULL; i++) {
        json_t *chart = json_array_get(charts, i);
        const char *id = json_string_value(json_object_get(chart, "id"));
        const char *wanted = strcmp(set->chart, "table") == 0 ? "means" : set->chart;

        if (strncmp(id, wanted, strlen(wanted)) != 0)
            continue;
        (void)json_incref(chart); /* to the front: what the study asks for */
        (void)json_array_remove(charts, i);
        (void)json_array_insert_new(charts, begin, chart);
        break;
    }
}
