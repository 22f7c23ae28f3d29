/* The terms of a plan: what was measured, and where it was not, what is assumed and
 * why. */
#include "bench/bench.h"
#include "cluster/plan/plan.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What RoCE v2 leaves of a link with an MTU of 4,096 bytes (82 bytes of headers, gap
 * and check sums a packet: 0.98), less some slack. */
#define WIRE_SHARE 0.95
#define WIRE_SHARE_WHY                                                                 \
    "headers take 2 %, the rest is slack: no network card was at hand"
/* Port to port through one switch. */
#define LATENCY_S 2e-6
/* A look at the completion queue that finds something, and a work request posted, a
 * microsecond each. */
#define NOTE_S 2e-6
/* Two launches (check, pass) of some 2 to 3 us each. */
#define LAUNCH_S 5e-6
#define SEEN_S 2e-6
/* Of the peak of its data sheet that a streaming kernel gets from a GPU's memory. */
#define GPU_SHARE 0.85
/* The speed of a rule that was not measured, of the CPU. */
#define CPU_RULE "asgd"

static const struct plan_gpu gpus[] = {
    {"h100", "H100 SXM, 80 GB", 3350e9, 80e9},
    {"h100-pcie", "H100 PCIe, 80 GB", 2000e9, 80e9},
    {"h200", "H200, 141 GB", 4800e9, 141e9},
    {"b200", "B200, 180 GB", 8000e9, 180e9},
    {"a100", "A100 SXM, 80 GB", 2039e9, 80e9},
    {"a100-40gb", "A100, 40 GB", 1555e9, 40e9},
    {"l40s", "L40S, 48 GB", 864e9, 48e9},
};

const struct plan_gpu *plan_gpu_at(unsigned index)
{
    return index < sizeof gpus / sizeof gpus[0] ? &gpus[index] : NULL;
}

__attribute__((format(printf, 4, 5))) static void term(struct plan_term *ret,
                                                       double value,
                                                       enum plan_source source,
                                                       const char *format, ...)
{
    va_list list;

    ret->value = value;
    ret->source = source;
    va_start(list, format);
    (void)vsnprintf(ret->where, sizeof ret->where, format, list);
    va_end(list);
}

/* A speed by bandwidth: this many bytes a parameter. */
static void by_bandwidth(const struct plan_machine *machine, unsigned bytes,
                         struct plan_term *ret)
{
    if (machine->bandwidth_given)
        term(ret, bytes / machine->bandwidth, PLAN_GIVEN,
             "%u bytes a parameter at the %.4g GB/s that were given", bytes,
             1e-9 * machine->bandwidth);
    else
        term(ret, bytes / (GPU_SHARE * machine->bandwidth), PLAN_ASSUMED,
             "%u bytes a parameter at 85 %% of the data sheet's %.4g GB/s; no GPU was "
             "measured",
             bytes, 1e-9 * machine->bandwidth);
}

/* A speed that was measured at some size. False: it was not. */
static bool by_table(const struct plan_speed_table *table, const char *name,
                     uint64_t parameters, struct plan_term *ret)
{
    uint64_t elements = 0;
    double seconds = plan_measured_find(table, name, parameters, &elements);

    if (seconds <= 0)
        return false;
    term(ret, seconds, PLAN_MEASURED, "%s; at %.4g M elements", table->where,
         1e-6 * (double)elements);
    return true;
}

static void gpu_terms(const struct plan_machine *machine,
                      const struct plan_measured *measured,
                      const struct gapless_rule *rule, uint64_t parameters,
                      struct plan_terms *ret)
{
    struct plan_term *t = ret->term;

    if (machine->bandwidth_given ||
        !by_table(&measured->gpu, "", parameters, &t[TERM_CHECK]))
        by_bandwidth(machine, 4, &t[TERM_CHECK]);
    if (machine->bandwidth_given ||
        !by_table(&measured->gpu, rule->name, parameters, &t[TERM_PASS]))
        by_bandwidth(machine, bench_rule_bytes(rule->name), &t[TERM_PASS]);
    if (measured->launch_s > 0)
        term(&t[TERM_LAUNCH], 2 * measured->launch_s, PLAN_MEASURED, "%s; two launches",
             measured->gpu_where);
    else
        term(&t[TERM_LAUNCH], LAUNCH_S, PLAN_ASSUMED,
             "two launches, a rule of thumb; no GPU was measured");
    if (measured->seen_s > 0)
        term(&t[TERM_SEEN], measured->seen_s, PLAN_MEASURED, "%s", measured->gpu_where);
    else
        term(&t[TERM_SEEN], SEEN_S, PLAN_ASSUMED,
             "a rule of thumb; no GPU was measured");
}

static void cpu_pass(const struct plan_measured *measured,
                     const struct gapless_rule *rule, uint64_t parameters,
                     struct plan_term *ret)
{
    struct gapless_rule other;
    uint64_t elements = 0;
    double seconds;

    if (by_table(&measured->cpu, rule->name, parameters, ret))
        return;
    seconds = plan_measured_find(&measured->cpu, CPU_RULE, parameters, &elements);
    if (seconds > 0 && gapless_rule_find(CPU_RULE, &other, NULL) == GAPLESS_OK)
        term(ret, seconds * rule->bytes_per_parameter / other.bytes_per_parameter,
             PLAN_ASSUMED, "as many bytes a second as " CPU_RULE " in %s",
             measured->cpu.where);
    else
        term(ret, 1e-9 * rule->bytes_per_parameter / 20, PLAN_ASSUMED,
             "%u bytes a parameter at 20 GB/s, a rule of thumb",
             rule->bytes_per_parameter);
}

static void cpu_terms(const struct plan_machine *machine,
                      const struct plan_measured *measured,
                      const struct gapless_rule *rule, uint64_t parameters,
                      struct plan_terms *ret)
{
    struct plan_term *t = ret->term;

    term(&t[TERM_LAUNCH], 0, PLAN_GIVEN, "none on a CPU");
    term(&t[TERM_SEEN], 0, PLAN_GIVEN, "none on a CPU");
    if (machine->bandwidth > 0) {
        by_bandwidth(machine, 4, &t[TERM_CHECK]);
        by_bandwidth(machine, bench_rule_bytes(rule->name), &t[TERM_PASS]);
        return;
    }
    if (by_table(&measured->cpu, "", parameters, &t[TERM_CHECK]))
        (void)snprintf(t[TERM_CHECK].where, sizeof t[TERM_CHECK].where, "%s",
                       measured->note_where);
    else
        term(&t[TERM_CHECK], 0.2e-9, PLAN_ASSUMED,
             "4 bytes a parameter at 20 GB/s, a rule of thumb");
    cpu_pass(measured, rule, parameters, &t[TERM_PASS]);
}

static void wire_terms(const struct plan_machine *machine,
                       const struct plan_measured *measured, struct plan_terms *ret)
{
    struct plan_term *t = ret->term;

    if (machine->link <= 0) {
        term(&t[TERM_WIRE_SHARE], 1, PLAN_GIVEN, "memory is mapped: nothing moves");
        term(&t[TERM_LATENCY], 0, PLAN_GIVEN, "memory is mapped");
        if (measured->note_shm_s > 0)
            term(&t[TERM_NOTE], measured->note_shm_s, PLAN_MEASURED, "%s",
                 measured->note_where);
        else
            term(&t[TERM_NOTE], NOTE_S, PLAN_ASSUMED, "a rule of thumb");
        return;
    }
    if (machine->link_whole)
        term(&t[TERM_WIRE_SHARE], 1, PLAN_MEASURED, "%.4g GB/s into GPU memory: %s",
             1e-9 * machine->link, measured->gpu_where);
    else
        term(&t[TERM_WIRE_SHARE], WIRE_SHARE, PLAN_ASSUMED, "%s", WIRE_SHARE_WHY);
    term(&t[TERM_LATENCY], LATENCY_S, PLAN_ASSUMED,
         "port to port through a switch, a rule of thumb");
    term(&t[TERM_NOTE], NOTE_S, PLAN_ASSUMED,
         "a completion taken, a request posted; only soft devices were at hand");
}

void plan_terms(const struct plan_machine *machine,
                const struct plan_measured *measured, const struct gapless_rule *rule,
                uint64_t parameters, struct plan_terms *ret)
{
    memset(ret, 0, sizeof *ret);
    wire_terms(machine, measured, ret);
    if (machine->gpu)
        gpu_terms(machine, measured, rule, parameters, ret);
    else
        cpu_terms(machine, measured, rule, parameters, ret);
}

void plan_speeds(const struct plan_machine *machine, const struct plan_terms *terms,
                 struct plan_speeds *ret)
{
    const struct plan_term *t = terms->term;

    *ret = (struct plan_speeds){
        .wire = machine->link > 0 ? machine->link * t[TERM_WIRE_SHARE].value
                                  : (double)INFINITY,
        .latency_s = t[TERM_LATENCY].value,
        .range_s = t[TERM_NOTE].value + t[TERM_LAUNCH].value + t[TERM_SEEN].value,
        .check_s = t[TERM_CHECK].value,
        .pass_s = t[TERM_PASS].value,
    };
}
