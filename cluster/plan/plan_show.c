/* A plan as text, within 100 columns, or as JSON. What both say of a planned case is one
 * table, `figures`. */
#include "cluster/plan/plan.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 48

static const char *const source_marks[] = {
    [PLAN_MEASURED] = "m", [PLAN_ASSUMED] = "a", [PLAN_GIVEN] = "g"};

/* ---- numbers ------------------------------------------------------------- */

static const char *time_text(double s, char *text)
{
    if (s <= 0)
        (void)snprintf(text, TEXT_MAX, "0");
    else if (s < 1e-3)
        (void)snprintf(text, TEXT_MAX, "%.3g us", 1e6 * s);
    else if (s < 0.9995)
        (void)snprintf(text, TEXT_MAX, "%.3g ms", 1e3 * s);
    else
        (void)snprintf(text, TEXT_MAX, s < 100 ? "%.3g s" : "%.0f s", s);
    return text;
}

static const char *bytes_text(double bytes, char *text)
{
    if (bytes < 0.9995e6)
        (void)snprintf(text, TEXT_MAX, "%.3g kB", 1e-3 * bytes);
    else if (bytes < 0.9995e9)
        (void)snprintf(text, TEXT_MAX, "%.3g MB", 1e-6 * bytes);
    else if (bytes < 0.9995e12)
        (void)snprintf(text, TEXT_MAX, "%.3g GB", 1e-9 * bytes);
    else
        (void)snprintf(text, TEXT_MAX, "%.3g TB", 1e-12 * bytes);
    return text;
}

/* 25600000 as 25,600,000; below 100, three digits. */
static const char *count_text(double value, char *text)
{
    char digits[TEXT_MAX];
    size_t length, at = 0;

    if (isinf(value)) {
        (void)snprintf(text, TEXT_MAX, "no limit");
        return text;
    }
    if (value < 99.95) {
        (void)snprintf(text, TEXT_MAX, "%.3g", value);
        return text;
    }
    length = (size_t)snprintf(digits, sizeof digits, "%.0f", value);
    for (size_t i = 0; i < length && at + 2 < TEXT_MAX; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = '\0';
    return text;
}

static const char *speed_text(double bytes, char *text)
{
    char gb[TEXT_MAX];

    (void)snprintf(text, TEXT_MAX, "%s GB/s", count_text(1e-9 * bytes, gb));
    return text;
}

static const char *shards_text(uint32_t shards, char *text)
{
    if (shards == 0)
        (void)snprintf(text, TEXT_MAX, "no number");
    else
        (void)snprintf(text, TEXT_MAX, "%u", shards);
    return text;
}

static const char *link_text(double link, char *text)
{
    if (link <= 0)
        (void)snprintf(text, TEXT_MAX, "shared memory");
    else
        (void)snprintf(text, TEXT_MAX, "%.4g Gb/s", 8e-9 * link);
    return text;
}

/* The weakest source of several terms: one assumption makes it an assumption. */
static const char *mark_of(const struct plan_terms *terms, unsigned which)
{
    bool measured = false, assumed = false;

    for (unsigned i = 0; i < TERMS; i++)
        if (which >> i & 1u) {
            assumed = assumed || terms->term[i].source == PLAN_ASSUMED;
            measured = measured || terms->term[i].source == PLAN_MEASURED;
        }
    return source_marks[assumed ? PLAN_ASSUMED : measured ? PLAN_MEASURED : PLAN_GIVEN];
}

/* ---- the figures of a case ----------------------------------------------- */

#define OF_WIRE (1u << TERM_WIRE_SHARE | 1u << TERM_LATENCY)
#define OF_PASS (1u << TERM_CHECK | 1u << TERM_PASS)
#define OF_RANGES (1u << TERM_NOTE | 1u << TERM_LAUNCH | 1u << TERM_SEEN)
#define OF_ALL (OF_WIRE | OF_PASS | OF_RANGES)
#define AT(member) offsetof(struct plan_case, member)

enum unit {
    UNIT_TIME, /* s */
    UNIT_BYTES,
    UNIT_COUNT,
    UNIT_NEXT,  /* a count, rounded up in the text */
    UNIT_SHARE, /* of one */
    /* uint32_t from here on */
    UNIT_NUMBER,
    UNIT_MASTERS, /* 0: no number of them does */
    UNIT_BOUND
};

/* clang-format off */
/* In the order of the text; a title begins a section. Without a name: only JSON. */
static const struct figure {
    const char *title, *name;
    size_t number;    /* of an unsigned behind the name, and the rest of it behind that */
    const char *rest;
    const char *key;  /* "memory.total_bytes" is in an object; NULL: only text */
    size_t at;
    enum unit unit;
    unsigned terms; /* that it is computed from; 0: none of them */
} figures[] = {
    {NULL, NULL, 0, "", "ranges", AT(result.ranges), UNIT_NUMBER, 0},
    {NULL, NULL, 0, "", "masters", AT(result.shards), UNIT_NUMBER, 0},
    {NULL, NULL, 0, "", "check_s", AT(result.check_s), UNIT_TIME, 0},
    {NULL, NULL, 0, "", "pass_s", AT(result.pass_s), UNIT_TIME, 0},
    {NULL, NULL, 0, "", "link_bytes_per_update", AT(result.link_bytes), UNIT_BYTES, 0},
    {"one update, no other worker there", "gradient in, by wire", 0, "", "wire_s", AT(result.wire_s), UNIT_TIME, OF_WIRE},
    {NULL, "check and pass over memory", 0, "", NULL, AT(result.passes_s), UNIT_TIME, OF_PASS},
    {NULL, "launches, notes of ", AT(result.ranges), " range", "ranges_s", AT(result.ranges_s), UNIT_TIME, OF_RANGES},
    {NULL, "parameters out, by wire", 0, "", NULL, AT(result.wire_s), UNIT_TIME, OF_WIRE},
    {NULL, "all of it", 0, "", "update_apart_s", AT(result.apart_s), UNIT_TIME, OF_ALL},
    {NULL, "ranges following each other", 0, "", "update_alone_s", AT(result.alone_s), UNIT_TIME, OF_ALL},
    {"updates a second", "the wire can do", 0, "", "wire_updates_per_s", AT(result.wire_rate), UNIT_COUNT, OF_WIRE},
    {NULL, "the passes can do", 0, "", "pass_updates_per_s", AT(result.pass_rate), UNIT_COUNT, OF_PASS | OF_RANGES},
    {NULL, "the workers ask for", 0, "", "demand_updates_per_s", AT(result.demand), UNIT_COUNT, OF_ALL},
    {NULL, "what comes of it", 0, "", "updates_per_s", AT(result.rate), UNIT_COUNT, OF_ALL},
    {NULL, "bounded by", 0, "", "bound", AT(result.bound), UNIT_BOUND, 0},
    {NULL, "saturates at, workers", 0, "", "saturates_at_workers", AT(result.saturates_at), UNIT_NEXT, OF_ALL},
    {NULL, "push to pulled", 0, "", "push_to_pulled_s", AT(result.trip_s), UNIT_TIME, OF_ALL},
    {NULL, "a worker computes", 0, "", "worker_computes", AT(result.busy), UNIT_SHARE, OF_ALL},
    {NULL, "mean lag, updates", 0, "", "mean_lag", AT(result.lag), UNIT_COUNT, 0},
    {NULL, "masters for all that is asked", 0, "", "masters_for_demand", AT(result.shards_for_speed), UNIT_MASTERS, OF_ALL},
    {"memory of a master", "parameters and ", AT(input.rule.vectors_shared), " shared", "memory.shared_bytes", AT(result.shared), UNIT_BYTES, 0},
    {NULL, "", AT(input.rule.vectors_per_worker), " a worker", "memory.vectors_bytes", AT(result.vectors), UNIT_BYTES, 0},
    {NULL, "gradients that land", 0, "", "memory.landing_bytes", AT(result.landing), UNIT_BYTES, 0},
    {NULL, "together", 0, "", "memory.total_bytes", AT(result.total), UNIT_BYTES, 0},
    {NULL, NULL, 0, "", "memory.masters", AT(result.shards_for_memory), UNIT_NUMBER, 0},
};
/* clang-format on */
#define FIGURES (sizeof figures / sizeof figures[0])

static uint32_t number_at(const struct plan_case *c, size_t at)
{
    uint32_t ret;

    memcpy(&ret, (const char *)c + at, sizeof ret);
    return ret;
}

static double real_at(const struct plan_case *c, size_t at)
{
    double ret;

    memcpy(&ret, (const char *)c + at, sizeof ret);
    return ret;
}

static const char *figure_text(const struct figure *f, const struct plan_case *c,
                               char text[TEXT_MAX])
{
    switch (f->unit) {
    case UNIT_TIME:
        return time_text(real_at(c, f->at), text);
    case UNIT_BYTES:
        return bytes_text(real_at(c, f->at), text);
    case UNIT_COUNT:
        return count_text(real_at(c, f->at), text);
    case UNIT_NEXT:
        return count_text(ceil(real_at(c, f->at)), text);
    case UNIT_SHARE:
        (void)snprintf(text, TEXT_MAX, "%.0f %%", 100 * real_at(c, f->at));
        return text;
    case UNIT_NUMBER:
        return count_text(number_at(c, f->at), text);
    case UNIT_MASTERS:
        return shards_text(number_at(c, f->at), text);
    case UNIT_BOUND:
        return plan_bound_name((enum plan_bound)number_at(c, f->at));
    }
    return "";
}

/* ---- JSON ---------------------------------------------------------------- */

/* null where there is no limit: JSON has no infinity. */
static json_t *real_json(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *figure_json(const struct figure *f, const struct plan_case *c)
{
    if (f->unit == UNIT_BOUND)
        return json_string(plan_bound_name((enum plan_bound)number_at(c, f->at)));
    if (f->unit >= UNIT_NUMBER)
        return json_integer(number_at(c, f->at));
    return real_json(real_at(c, f->at));
}

static json_t *terms_json(const struct plan_terms *terms)
{
    static const char *const names[TERMS] = {[TERM_WIRE_SHARE] = "wire_share",
                                             [TERM_LATENCY] = "latency_s",
                                             [TERM_NOTE] = "note_s",
                                             [TERM_LAUNCH] = "launches_s",
                                             [TERM_SEEN] = "seen_s",
                                             [TERM_CHECK] = "check_s_per_parameter",
                                             [TERM_PASS] = "pass_s_per_parameter"};
    static const char *const sources[] = {[PLAN_MEASURED] = "measured",
                                          [PLAN_ASSUMED] = "assumed",
                                          [PLAN_GIVEN] = "given"};
    json_t *ret = json_object();

    for (int i = 0; i < TERMS; i++)
        (void)json_object_set_new(
            ret, names[i],
            json_pack("{s:f,s:s,s:s}", "value", terms->term[i].value, "source",
                      sources[terms->term[i].source], "where", terms->term[i].where));
    return ret;
}

static json_t *case_json(const struct plan_case *c, const char *master, double link)
{
    json_t *memory =
        json_pack("{s:o}", "has_bytes",
                  c->input.memory > 0 ? json_real(c->input.memory) : json_null());
    json_t *ret =
        json_pack("{s:s,s:s,s:I,s:I,s:f,s:I,s:o,s:o,s:o}", "master", master, "rule",
                  c->input.rule.name, "parameters", (json_int_t)c->input.parameters,
                  "workers", (json_int_t)c->input.workers, "batch_s", c->input.batch_s,
                  "bytes_per_parameter", (json_int_t)c->input.rule.bytes_per_parameter,
                  "link_bytes_per_s", real_json(link > 0 ? link : (double)INFINITY),
                  "memory", memory, "terms", terms_json(&c->terms));

    for (size_t i = 0; i < FIGURES; i++) {
        const char *key = figures[i].key, *dot = key != NULL ? strchr(key, '.') : NULL;

        if (key != NULL)
            (void)json_object_set_new(dot != NULL ? memory : ret,
                                      dot != NULL ? dot + 1 : key,
                                      figure_json(&figures[i], c));
    }
    return ret;
}

/* The GPU, if there is one to plan for, and the CPU; of the rule, or of all. */
static void cases_json(const struct plan_options *o, uint64_t parameters, double link,
                       json_t *ret)
{
    struct gapless_rule rule = o->input.rule;
    struct plan_case c;

    for (unsigned i = 0; o->rule_all ? gapless_rule_at(i, &rule) == GAPLESS_OK : i == 0;
         i++)
        for (int gpu = o->has_gpu; gpu >= 0 && !rule.synchronous; gpu--) {
            plan_case_of(o, &rule, parameters, link, gpu != 0, &c);
            (void)json_array_append_new(
                ret, case_json(&c, gpu != 0 ? o->gpu.title : "CPU", link));
        }
}

bool plan_json(const struct plan_options *o)
{
    json_t *cases = json_array(), *root;
    char *text;
    bool written;

    if (o->parameters > 0)
        cases_json(o, o->parameters, o->link, cases);
    for (size_t m = 0; o->parameters == 0 && m < PLAN_MODELS; m++)
        for (size_t l = 0; l < PLAN_LINKS; l++)
            cases_json(o, plan_models[m].parameters, plan_links[l].bytes, cases);
    root = json_pack("{s:s,s:s,s:s,s:o}", "plan", "gapless", "version",
                     gapless_version(), "note",
                     "arithmetic, and a bound; terms whose source is assumed were not "
                     "measured on anything",
                     "cases", cases);
    text = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    written = text != NULL && printf("%s\n", text) > 0;
    free(text);
    return written;
}

/* ---- one plan ------------------------------------------------------------ */

struct columns {
    unsigned count;
    struct plan_case at[2];
    const char *title[2];
};

static void show_figure(const struct figure *f, const struct columns *c)
{
    char name[2 * TEXT_MAX], number[TEXT_MAX] = "", text[TEXT_MAX];
    uint32_t count = f->number != 0 ? number_at(&c->at[0], f->number) : 0;

    if (f->title != NULL)
        (void)printf("%s\n", f->title);
    if (f->number != 0)
        (void)count_text(count, number);
    (void)snprintf(name, sizeof name, "%s%s%s%s", f->name, number, f->rest,
                   strcmp(f->rest, " range") == 0 && count != 1 ? "s" : "");
    (void)printf("  %-30s", name);
    for (unsigned i = 0; i < c->count; i++)
        (void)printf("%16s %-2s", figure_text(f, &c->at[i], text),
                     f->terms != 0 ? mark_of(&c->at[i].terms, f->terms) : "");
    (void)printf("\n");
}

/* Does it fit, and into how many masters? Not shown where no memory is known. */
static void show_fits(const struct columns *c)
{
    char text[TEXT_MAX];

    if (c->at[0].input.memory <= 0 && (c->count < 2 || c->at[1].input.memory <= 0))
        return;
    (void)printf("  %-30s", "fits");
    for (unsigned i = 0; i < c->count; i++) {
        double memory = c->at[i].input.memory;

        text[0] = '\0';
        if (memory > 0)
            (void)snprintf(text, sizeof text, "%s: %.0f GB",
                           c->at[i].result.total > memory ? "no" : "yes",
                           1e-9 * memory);
        (void)printf("%16s   ", text);
    }
    (void)printf("\n  %-30s", "masters for the memory");
    for (unsigned i = 0; i < c->count; i++)
        (void)printf("%16s   ", shards_text(c->at[i].result.shards_for_memory, text));
    (void)printf("\n");
}

static void show_term(const char *name, const char *value, const struct plan_term *term)
{
    size_t column = 31;
    const char *rest = term->where;

    (void)printf("  %s  %-14s %-11s", source_marks[term->source], name, value);
    while (*rest != '\0') { /* wrapped, under where it began */
        size_t word = strcspn(rest, " ");

        if (column + 1 + word > 98) {
            (void)printf("\n%31s", "");
            column = 31;
        }
        (void)printf(" %.*s", (int)word, rest);
        column += 1 + word;
        rest += word;
        rest += strspn(rest, " ");
    }
    (void)printf("\n");
}

static void show_terms(const char *title, const struct plan_case *c)
{
    const struct plan_term *t = c->terms.term;
    char text[TEXT_MAX];

    (void)printf("\nterms, %s (m measured, a assumed, g given)\n", title);
    if (!isinf(c->speeds.wire)) {
        show_term("wire", speed_text(c->speeds.wire, text), &t[TERM_WIRE_SHARE]);
        show_term("latency", time_text(t[TERM_LATENCY].value, text), &t[TERM_LATENCY]);
    }
    show_term("check", speed_text(4 / t[TERM_CHECK].value, text), &t[TERM_CHECK]);
    show_term("pass",
              speed_text(c->input.rule.bytes_per_parameter / t[TERM_PASS].value, text),
              &t[TERM_PASS]);
    show_term("note, a range", time_text(t[TERM_NOTE].value, text), &t[TERM_NOTE]);
    if (t[TERM_LAUNCH].value > 0) {
        show_term("launches", time_text(t[TERM_LAUNCH].value, text), &t[TERM_LAUNCH]);
        show_term("end seen", time_text(t[TERM_SEEN].value, text), &t[TERM_SEEN]);
    }
}

/* What depends on the shapes of a model, of which a plan has only the number. */
static void show_matrices(const char *rule)
{
    (void)printf(
        "\n%s also multiplies matrices, which is not counted: of r and s rows and "
        "columns,\nr the fewer, 5(4 r^2 s + 2 r^3) operations an update (gapless "
        "bench rules has their speed).\nIts master is on the CPU in this "
        "version.\n",
        rule);
}

static void show_warning(const struct plan_options *o)
{
    (void)printf(
        "\nThis is arithmetic, and a bound: what is marked a was not measured on "
        "anything.%s\n",
        o->has_gpu && o->measured.gpu_where[0] == '\0'
            ? "\nNo GPU has been measured with this version (gapless bench gpu "
              "--accept "
              "does it)."
            : "");
}

static void head(const struct plan_options *o, const struct plan_case *c)
{
    char count[TEXT_MAX], bytes[TEXT_MAX], batch[TEXT_MAX], link[TEXT_MAX],
        range[TEXT_MAX];
    double p = (double)c->input.parameters;

    (void)printf(
        "%s parameters (%s), %s (%u bytes a parameter), %u worker%s, batch %s\n"
        "%s%s; ranges of at most %s parameters",
        count_text(p, count), bytes_text(4 * p, bytes), c->input.rule.name,
        c->input.rule.bytes_per_parameter, c->input.workers,
        c->input.workers == 1 ? "" : "s", time_text(c->input.batch_s, batch),
        link_text(o->link, link), o->link > 0 ? " each way at every port" : "",
        count_text((double)c->input.range_elements, range));
    if (c->input.shards > 1)
        (void)printf("; %u masters", c->result.shards);
    if (c->input.period > 1)
        (void)printf("; a worker exchanges after %u batches", c->input.period);
    (void)printf("\n\n");
}

void plan_show_one(const struct plan_options *o)
{
    struct columns c = {0};

    if (o->has_gpu) {
        c.title[c.count] = o->gpu.title;
        plan_case_of(o, &o->input.rule, o->parameters, o->link, true, &c.at[c.count++]);
    }
    c.title[c.count] = "one CPU thread";
    if (o->cpu.bandwidth_given)
        c.title[c.count] = "CPU";
    plan_case_of(o, &o->input.rule, o->parameters, o->link, false, &c.at[c.count++]);
    head(o, &c.at[0]);
    (void)printf("%-32s", "master on");
    for (unsigned i = 0; i < c.count; i++)
        (void)printf("%16s   ", c.title[i]);
    (void)printf("\n");
    for (size_t i = 0; i < FIGURES; i++)
        if (figures[i].name != NULL)
            show_figure(&figures[i], &c);
    show_fits(&c);
    for (unsigned i = 0; i < c.count; i++)
        show_terms(c.title[i], &c.at[i]);
    if (c.at[0].result.shards_for_speed != 1 || c.at[0].result.shards_for_memory != 1)
        (void)printf(
            "\nMore than one master, each with a part of the ranges and a port "
            "of its own, is not in this\nversion; several GPUs in one master "
            "(--device cuda:0,1) share memory and passes, not the port.\n");
    if (c.at[0].input.rule.matrices)
        show_matrices(c.at[0].input.rule.name);
    show_warning(o);
}

/* ---- every rule ---------------------------------------------------------- */

void plan_show_rules(const struct plan_options *o)
{
    struct gapless_rule rule;
    struct plan_case c;
    char a[TEXT_MAX], b[TEXT_MAX], d[TEXT_MAX], e[TEXT_MAX], f[TEXT_MAX];

    (void)gapless_rule_find("asgd", &rule, NULL);
    plan_case_of(o, &rule, o->parameters, o->link, o->has_gpu, &c);
    (void)printf(
        "%s parameters, %u workers, batch %s, %s; master on %s\n\n%-16s %6s %8s %10s "
        "%10s %10s  %-11s %8s %9s\n",
        count_text((double)o->parameters, a), o->input.workers,
        time_text(o->input.batch_s, b), link_text(o->link, d),
        o->has_gpu ? o->gpu.title : "one CPU thread", "rule", "bytes", "pass", "alone",
        "can do", "updates/s", "bounded by", "full at", "memory");
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        if (rule.synchronous)
            continue;
        plan_case_of(o, &rule, o->parameters, o->link, o->has_gpu, &c);
        (void)printf("%-16s %6u %8s %s %8s %10s %10.4g  %-11s %8s %9s\n", rule.name,
                     rule.bytes_per_parameter, time_text(c.result.passes_s, a),
                     mark_of(&c.terms, OF_PASS), time_text(c.result.alone_s, b),
                     count_text(c.result.can_rate, d), c.result.rate,
                     plan_bound_name(c.result.bound),
                     count_text(ceil(c.result.saturates_at), e),
                     bytes_text(c.result.total, f));
    }
    (void)printf("\nbytes    read and written for a parameter in an update\n"
                 "pass     with the check, over all parameters; m measured, a assumed\n"
                 "alone    an update while no other worker is there\n"
                 "full at  workers from which on the master is the bound\n");
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        if (rule.synchronous)
            (void)printf("%s waits for all workers: gapless simulate --rule %s\n",
                         rule.name, rule.name);
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        if (rule.matrices)
            show_matrices(rule.name);
    (void)gapless_rule_find("dana-ga", &rule, NULL);
    plan_case_of(o, &rule, o->parameters, o->link, o->has_gpu, &c);
    show_terms(o->has_gpu ? "dana-ga on a GPU" : "dana-ga on one CPU thread", &c);
    show_warning(o);
}

/* ---- the standard table -------------------------------------------------- */

static void table_row(const struct plan_options *o, const struct plan_model *model,
                      const struct plan_link *link, bool first)
{
    struct plan_case gpu, cpu;
    char a[TEXT_MAX], b[TEXT_MAX], c[TEXT_MAX], d[TEXT_MAX], e[TEXT_MAX], f[TEXT_MAX],
        g[TEXT_MAX], h[TEXT_MAX];

    plan_case_of(o, &o->input.rule, model->parameters, link->bytes, false, &cpu);
    gpu = cpu;
    if (o->has_gpu)
        plan_case_of(o, &o->input.rule, model->parameters, link->bytes, true, &gpu);
    (void)printf("%-7s %8s %8s %8s %8s %8s %-5s %6s %6s %8s", first ? model->text : "",
                 link->text, time_text(gpu.result.wire_s, a),
                 time_text(gpu.result.passes_s, b), time_text(gpu.result.alone_s, c),
                 count_text(gpu.result.can_rate, d),
                 gpu.result.wire_rate <= gpu.result.pass_rate ? "wire" : "pass",
                 count_text(ceil(gpu.result.saturates_at), e),
                 shards_text(gpu.result.shards_for_speed, f),
                 first ? bytes_text(gpu.result.total, g) : "");
    if (o->has_gpu)
        (void)printf(" %8s %6s", count_text(cpu.result.can_rate, h),
                     count_text(ceil(cpu.result.saturates_at), g));
    (void)printf("\n");
}

void plan_show_table(const struct plan_options *o)
{
    struct plan_case c;
    char batch[TEXT_MAX];

    (void)printf("%s (%u bytes a parameter), %u workers, batch %s\nmaster on %s%s\n\n",
                 o->input.rule.name, o->input.rule.bytes_per_parameter,
                 o->input.workers, time_text(o->input.batch_s, batch),
                 o->has_gpu ? o->gpu.title : "one CPU thread",
                 o->has_gpu ? ", and on one CPU thread" : "");
    (void)printf("%-7s %8s %8s %8s %8s %8s %-5s %6s %6s %8s%s\n", "model", "link",
                 "one way", "pass", "alone", "can do", "by", "full", "for", "memory",
                 o->has_gpu ? "   CPU can   full" : "");
    (void)printf("%-7s %8s %8s %8s %8s %8s %-5s %6s %6s %8s%s\n\n", "", "", "", "", "",
                 "upd./s", "", "at", "all", "", o->has_gpu ? "    do      at" : "");
    for (size_t m = 0; m < PLAN_MODELS; m++)
        for (size_t l = 0; l < PLAN_LINKS; l++)
            table_row(o, &plan_models[m], &plan_links[l], l == 0);
    (void)printf(
        "\none way  the gradient in, or the parameters out, by wire; pass: check and "
        "pass over memory\n"
        "alone    an update while no other worker is there: wire, pass and wire "
        "overlap, "
        "range by range\n"
        "can do   updates a second of one master; full at: the workers that ask for as "
        "much\n"
        "for all  masters, each with a port of its own, that do all these workers ask "
        "for\n"
        "memory   of one master: parameters, %u shared vectors, and for each worker %u "
        "and a gradient\n",
        o->input.rule.vectors_shared, o->input.rule.vectors_per_worker);
    plan_case_of(o, &o->input.rule, plan_models[2].parameters, plan_links[2].bytes,
                 o->has_gpu, &c);
    show_terms(o->has_gpu ? o->gpu.title : "one CPU thread", &c);
    if (o->has_gpu) {
        plan_case_of(o, &o->input.rule, plan_models[2].parameters, plan_links[2].bytes,
                     false, &c);
        show_terms("one CPU thread", &c);
    }
    show_warning(o);
}
