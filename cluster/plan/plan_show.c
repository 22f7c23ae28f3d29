/* A plan as text, within 100 columns. */
#include "cluster/plan/plan.h"

#include <math.h>
#include <stdio.h>
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

#define OF_WIRE (1u << TERM_WIRE_SHARE | 1u << TERM_LATENCY)
#define OF_PASS (1u << TERM_CHECK | 1u << TERM_PASS)
#define OF_RANGES (1u << TERM_NOTE | 1u << TERM_LAUNCH | 1u << TERM_SEEN)
#define OF_ALL (OF_WIRE | OF_PASS | OF_RANGES)

/* ---- one plan ------------------------------------------------------------ */

struct columns {
    unsigned count;
    struct plan_case at[2];
    const char *title[2];
};

/* A line: what it is, and for each master a value with the mark of its terms (0:
 * none). */
static void line(const char *name, const struct columns *c, unsigned terms,
                 char (*value)[TEXT_MAX])
{
    (void)printf("  %-30s", name);
    for (unsigned i = 0; i < c->count; i++)
        (void)printf("%16s %-2s", value[i],
                     terms != 0 ? mark_of(&c->at[i].terms, terms) : "");
    (void)printf("\n");
}

typedef double get_number(const struct plan_result *result);
typedef const char *put_number(double value, char *text);

static void numbers(const char *name, const struct columns *c, unsigned terms,
                    get_number *get, put_number *put)
{
    char text[2][TEXT_MAX];

    for (unsigned i = 0; i < c->count; i++)
        (void)put(get(&c->at[i].result), text[i]);
    line(name, c, terms, text);
}

#define GETTER(name, expression)                                                       \
    static double name(const struct plan_result *r)                                    \
    {                                                                                  \
        return expression;                                                             \
    }
GETTER(get_wire, r->wire_s)
GETTER(get_passes, r->check_s + r->pass_s)
GETTER(get_ranges, r->ranges_s)
GETTER(get_alone, r->alone_s)
GETTER(get_apart, r->apart_s)
GETTER(get_wire_rate, r->wire_rate)
GETTER(get_pass_rate, r->pass_rate)
GETTER(get_demand, r->demand)
GETTER(get_rate, r->rate)
GETTER(get_saturates, ceil(r->saturates_at))
GETTER(get_round_trip, r->trip_s)
GETTER(get_lag, r->lag)
GETTER(get_shared, r->shared)
GETTER(get_vectors, r->vectors)
GETTER(get_landing, r->landing)
GETTER(get_total, r->total)
GETTER(get_busy, 100 * r->busy)

static const char *percent_text(double value, char *text)
{
    (void)snprintf(text, TEXT_MAX, "%.0f %%", value);
    return text;
}

static void show_update(const struct columns *c)
{
    char name[TEXT_MAX], count[TEXT_MAX];

    (void)printf("one update, no other worker there\n");
    numbers("gradient in, by wire", c, OF_WIRE, get_wire, time_text);
    numbers("check and pass over memory", c, OF_PASS, get_passes, time_text);
    (void)snprintf(name, sizeof name, "launches, notes of %s range%s",
                   count_text(c->at[0].result.ranges, count),
                   c->at[0].result.ranges == 1 ? "" : "s");
    numbers(name, c, OF_RANGES, get_ranges, time_text);
    numbers("parameters out, by wire", c, OF_WIRE, get_wire, time_text);
    numbers("all of it", c, OF_ALL, get_apart, time_text);
    numbers("ranges following each other", c, OF_ALL, get_alone, time_text);
}

static void show_crowd(const struct columns *c)
{
    char text[2][TEXT_MAX];

    (void)printf("updates a second\n");
    numbers("the wire can do", c, OF_WIRE, get_wire_rate, count_text);
    numbers("the passes can do", c, OF_PASS | OF_RANGES, get_pass_rate, count_text);
    numbers("the workers ask for", c, OF_ALL, get_demand, count_text);
    numbers("what comes of it", c, OF_ALL, get_rate, count_text);
    for (unsigned i = 0; i < c->count; i++)
        (void)snprintf(text[i], TEXT_MAX, "%s", plan_bound_name(c->at[i].result.bound));
    line("bounded by", c, 0, text);
    numbers("saturates at, workers", c, OF_ALL, get_saturates, count_text);
    numbers("push to pulled", c, OF_ALL, get_round_trip, time_text);
    numbers("a worker computes", c, OF_ALL, get_busy, percent_text);
    numbers("mean lag, updates", c, 0, get_lag, count_text);
    for (unsigned i = 0; i < c->count; i++)
        (void)shards_text(c->at[i].result.shards_for_speed, text[i]);
    line("masters for all that is asked", c, OF_ALL, text);
}

static void show_memory(const struct columns *c)
{
    const struct gapless_rule *rule = &c->at[0].input.rule;
    char name[TEXT_MAX], text[2][TEXT_MAX];
    bool known = false;

    (void)printf("memory of a master\n");
    (void)snprintf(name, sizeof name, "parameters and %u shared", rule->vectors_shared);
    numbers(name, c, 0, get_shared, bytes_text);
    (void)snprintf(name, sizeof name, "%u a worker", rule->vectors_per_worker);
    numbers(name, c, 0, get_vectors, bytes_text);
    numbers("gradients that land", c, 0, get_landing, bytes_text);
    numbers("together", c, 0, get_total, bytes_text);
    for (unsigned i = 0; i < c->count; i++) {
        double memory = c->at[i].input.memory;

        known = known || memory > 0;
        (void)snprintf(text[i], TEXT_MAX, "%s", "");
        if (memory > 0 && c->at[i].result.total > memory)
            (void)snprintf(text[i], TEXT_MAX, "no: %.0f GB", 1e-9 * memory);
        else if (memory > 0)
            (void)snprintf(text[i], TEXT_MAX, "yes: %.0f GB", 1e-9 * memory);
    }
    if (!known)
        return;
    line("fits", c, 0, text);
    for (unsigned i = 0; i < c->count; i++)
        (void)shards_text(c->at[i].result.shards_for_memory, text[i]);
    line("masters for the memory", c, 0, text);
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
    show_update(&c);
    show_crowd(&c);
    show_memory(&c);
    for (unsigned i = 0; i < c.count; i++)
        show_terms(c.title[i], &c.at[i]);
    if (c.at[0].result.shards_for_speed != 1 || c.at[0].result.shards_for_memory != 1)
        (void)printf(
            "\nMore than one master, each with a part of the ranges and a port "
            "of its own, is not in this\nversion; several GPUs in one master "
            "(--device cuda:0,1) share memory and passes, not the port.\n");
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
        if (strcmp(rule.name, "ssgd") == 0)
            continue;
        plan_case_of(o, &rule, o->parameters, o->link, o->has_gpu, &c);
        (void)printf(
            "%-16s %6u %8s %s %8s %10s %10.4g  %-11s %8s %9s\n", rule.name,
            rule.bytes_per_parameter, time_text(c.result.check_s + c.result.pass_s, a),
            mark_of(&c.terms, OF_PASS), time_text(c.result.alone_s, b),
            count_text(c.result.can_rate, d), c.result.rate,
            plan_bound_name(c.result.bound), count_text(ceil(c.result.saturates_at), e),
            bytes_text(c.result.total, f));
    }
    (void)printf("\nbytes    read and written for a parameter in an update\n"
                 "pass     with the check, over all parameters; m measured, a assumed\n"
                 "alone    an update while no other worker is there\n"
                 "full at  workers from which on the master is the bound\n"
                 "ssgd waits for all workers: gapless simulate --rule ssgd\n");
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
                 time_text(gpu.result.check_s + gpu.result.pass_s, b),
                 time_text(gpu.result.alone_s, c), count_text(gpu.result.can_rate, d),
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
