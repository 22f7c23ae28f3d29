/* A plan as JSON: every term with where it is from, every result. */
#include "cluster/plan/plan.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* null where there is no limit: JSON has no infinity. */
static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void set(json_t *object, const char *key, double value)
{
    (void)json_object_set_new(object, key, real(value));
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

    for (int i = 0; i < TERMS; i++) {
        const struct plan_term *term = &terms->term[i];

        (void)json_object_set_new(ret, names[i],
                                  json_pack("{s:f,s:s,s:s}", "value", term->value,
                                            "source", sources[term->source], "where",
                                            term->where));
    }
    return ret;
}

static json_t *memory_json(const struct plan_case *c)
{
    json_t *ret = json_object();

    set(ret, "shared_bytes", c->result.shared);
    set(ret, "vectors_bytes", c->result.vectors);
    set(ret, "landing_bytes", c->result.landing);
    set(ret, "total_bytes", c->result.total);
    (void)json_object_set_new(
        ret, "has_bytes", c->input.memory > 0 ? real(c->input.memory) : json_null());
    (void)json_object_set_new(ret, "masters",
                              json_integer(c->result.shards_for_memory));
    return ret;
}

static json_t *case_json(const struct plan_case *c, const char *master, double link)
{
    const struct plan_result *r = &c->result;
    json_t *ret =
        json_pack("{s:s,s:s,s:I,s:I,s:f,s:I,s:I,s:I,s:I}", "master", master, "rule",
                  c->input.rule.name, "parameters", (json_int_t)c->input.parameters,
                  "workers", (json_int_t)c->input.workers, "batch_s", c->input.batch_s,
                  "bytes_per_parameter", (json_int_t)c->input.rule.bytes_per_parameter,
                  "ranges", (json_int_t)r->ranges, "masters", (json_int_t)r->shards,
                  "masters_for_demand", (json_int_t)r->shards_for_speed);

    if (ret == NULL)
        return NULL;
    set(ret, "link_bytes_per_s", link > 0 ? link : (double)INFINITY);
    set(ret, "wire_s", r->wire_s);
    set(ret, "check_s", r->check_s);
    set(ret, "pass_s", r->pass_s);
    set(ret, "ranges_s", r->ranges_s);
    set(ret, "update_alone_s", r->alone_s);
    set(ret, "update_apart_s", r->apart_s);
    set(ret, "wire_updates_per_s", r->wire_rate);
    set(ret, "pass_updates_per_s", r->pass_rate);
    set(ret, "demand_updates_per_s", r->demand);
    set(ret, "updates_per_s", r->rate);
    (void)json_object_set_new(ret, "bound", json_string(plan_bound_name(r->bound)));
    set(ret, "saturates_at_workers", r->saturates_at);
    set(ret, "push_to_pulled_s", r->trip_s);
    set(ret, "worker_computes", r->busy);
    set(ret, "mean_lag", r->lag);
    set(ret, "link_bytes_per_update", r->link_bytes);
    (void)json_object_set_new(ret, "memory", memory_json(c));
    (void)json_object_set_new(ret, "terms", terms_json(&c->terms));
    return ret;
}

/* The GPU, if there is one to plan for, and the CPU. */
static void both(const struct plan_options *o, const struct gapless_rule *rule,
                 uint64_t parameters, double link, json_t *ret)
{
    struct plan_case c;

    if (o->has_gpu) {
        plan_case_of(o, rule, parameters, link, true, &c);
        (void)json_array_append_new(ret, case_json(&c, o->gpu.title, link));
    }
    plan_case_of(o, rule, parameters, link, false, &c);
    (void)json_array_append_new(ret, case_json(&c, "CPU", link));
}

static void rules_of(const struct plan_options *o, uint64_t parameters, double link,
                     json_t *ret)
{
    struct gapless_rule rule;

    if (!o->rule_all) {
        both(o, &o->input.rule, parameters, link, ret);
        return;
    }
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        if (strcmp(rule.name, "ssgd") != 0)
            both(o, &rule, parameters, link, ret);
}

bool plan_json(const struct plan_options *o)
{
    json_t *cases = json_array(), *root;
    char *text;
    bool written;

    if (o->parameters > 0)
        rules_of(o, o->parameters, o->link, cases);
    for (size_t m = 0; o->parameters == 0 && m < PLAN_MODELS; m++)
        for (size_t l = 0; l < PLAN_LINKS; l++)
            rules_of(o, plan_models[m].parameters, plan_links[l].bytes, cases);
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
