/* Takes better kernels of OpenBLAS than it takes by itself. */
#include "cluster/workloads/blas_core.h"

#include "cluster/workloads/model_ops.h"
#include "engine/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Set for the program that it becomes, which reads and removes it: the core before. */
#define BEFORE_VARIABLE "GAPLESS_BLAS_CORE_BEFORE"

/* Only OpenBLAS has these; with another CBLAS their address is NULL. */
extern char *openblas_get_corename(void) __attribute__((weak));
extern int openblas_get_num_threads(void) __attribute__((weak));
extern void openblas_set_num_threads(int) __attribute__((weak));

static char note[320];

const char *blas_core_note(void)
{
    return note;
}

const char *blas_core_name(void)
{
    return openblas_get_corename != NULL ? openblas_get_corename() : NULL;
}

bool blas_core_is_old(const char *core)
{
    static const char *const old[] = {"Prescott", "Core2",   "Penryn", "Dunnington",
                                      "Atom",     "Nehalem", "Generic"};

    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++)
        if (strcasecmp(core, old[i]) == 0)
            return true;
    return false;
}

static bool given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

enum blas_core_action blas_core_decide(const struct blas_core_facts *facts)
{
    if (facts->reported == NULL)
        return BLAS_CORE_KEEP;
    if (given(facts->before) && strcasecmp(facts->before, BLAS_CORE_BETTER) != 0) {
        if (strcasecmp(facts->reported, BLAS_CORE_BETTER) == 0)
            return facts->agrees ? BLAS_CORE_TAKEN : BLAS_CORE_RETURN;
        return given(facts->wanted) && strcasecmp(facts->wanted, BLAS_CORE_BETTER) != 0
                   ? BLAS_CORE_RETURNED
                   : BLAS_CORE_IGNORED;
    }
    if (given(facts->wanted) || !facts->runs_better ||
        !blas_core_is_old(facts->reported))
        return BLAS_CORE_KEEP;
    return BLAS_CORE_TAKE;
}

/* ---- the self-check ------------------------------------------------------ */

/* No multiple of a vector in any size, and one of each: kernels have special cases for
 * the rest. */
static const struct layer_size sizes[] = {{32, 96, 64}, {5, 17, 9}, {33, 130, 10}};
enum {
    INPUTS_MAX = 130,
    OUTPUTS_MAX = 64,
    BATCH_MAX = 33,
    MATRIX_MAX = INPUTS_MAX * OUTPUTS_MAX
};

struct products {
    float a[BATCH_MAX * INPUTS_MAX], w[MATRIX_MAX], dz[BATCH_MAX * OUTPUTS_MAX];
    float blas[MATRIX_MAX], plain[MATRIX_MAX];
};

/* Sums of numbers between -1 and 1: what rounding can do to them is far below this, and
 * a kernel that is wrong is wrong by a whole summand. False for NaN, too. */
static bool agree(const struct products *p, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(p->blas[i] - p->plain[i]) < 1e-3F))
            return false;
    return true;
}

static void fill(struct rng *rng, float *ret, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ret[i] = (float)(2.0 * rng_unit(rng) - 1.0);
}

static bool agree_on(struct products *p, struct layer_size n)
{
    size_t outputs = (size_t)n.batch * n.outputs;
    bool same;

    memcpy(p->blas, p->dz, outputs * sizeof *p->blas);
    memcpy(p->plain, p->dz, outputs * sizeof *p->plain);
    layer_ops_blas.forward(n, p->a, p->w, p->blas);
    layer_ops_ref.forward(n, p->a, p->w, p->plain);
    same = agree(p, outputs);
    layer_ops_blas.weight(n, p->dz, p->a, p->blas);
    layer_ops_ref.weight(n, p->dz, p->a, p->plain);
    same = agree(p, (size_t)n.inputs * n.outputs) && same;
    layer_ops_blas.input(n, p->dz, p->w, p->blas);
    layer_ops_ref.input(n, p->dz, p->w, p->plain);
    return agree(p, (size_t)n.batch * n.inputs) && same;
}

bool blas_core_agrees(void)
{
    struct products *p = malloc(sizeof *p);
    int threads = openblas_get_num_threads != NULL ? openblas_get_num_threads() : 1;
    struct rng rng = rng_seed(1, 0);
    bool same = true;

    if (p == NULL)
        return true; /* a program without memory has other troubles */
    if (openblas_set_num_threads != NULL)
        openblas_set_num_threads(1); /* as in training */
    fill(&rng, p->a, sizeof p->a / sizeof *p->a);
    fill(&rng, p->w, sizeof p->w / sizeof *p->w);
    fill(&rng, p->dz, sizeof p->dz / sizeof *p->dz);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        same = agree_on(p, sizes[i]) && same;
    if (openblas_set_num_threads != NULL)
        openblas_set_num_threads(threads);
    free(p);
    return same;
}

/* ---- doing it ------------------------------------------------------------ */

bool blas_core_better_runs(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

static void note_outcome(enum blas_core_action action, const char *before)
{
    switch (action) {
    case BLAS_CORE_TAKEN:
        (void)snprintf(note, sizeof note,
                       "OpenBLAS took its %.20s kernels, which are slow on this "
                       "processor; using its " BLAS_CORE_BETTER " kernels instead "
                       "(" BLAS_CORE_VARIABLE "=" BLAS_CORE_BETTER ")",
                       before);
        return;
    case BLAS_CORE_RETURNED:
        (void)snprintf(note, sizeof note,
                       "OpenBLAS's " BLAS_CORE_BETTER " kernels compute wrong products "
                       "here: it stays with %.20s, which is slow; install another "
                       "version of OpenBLAS",
                       before);
        return;
    case BLAS_CORE_IGNORED:
        (void)snprintf(note, sizeof note,
                       "OpenBLAS stays with its %.20s kernels, which are slow, "
                       "although " BLAS_CORE_VARIABLE "=" BLAS_CORE_BETTER " is set",
                       before);
        return;
    case BLAS_CORE_KEEP:
    case BLAS_CORE_TAKE:
    case BLAS_CORE_RETURN:
        return;
    }
}

/* Does not return where it succeeds. */
static void restart(const char *file, char **argv, const char *core, const char *before)
{
    if (setenv(BLAS_CORE_VARIABLE, core, 1) == 0 &&
        setenv(BEFORE_VARIABLE, before, 1) == 0)
        (void)execv(file, argv);
    (void)unsetenv(BEFORE_VARIABLE);
    (void)unsetenv(BLAS_CORE_VARIABLE);
    (void)snprintf(note, sizeof note,
                   "OpenBLAS took its %.20s kernels, which are slow on this processor, "
                   "and %.60s cannot be started again: set " BLAS_CORE_VARIABLE
                   "=" BLAS_CORE_BETTER,
                   before, file);
}

void blas_core_choose(const char *file, char **argv)
{
    const char *variable = getenv(BEFORE_VARIABLE);
    char before[32] = "";
    struct blas_core_facts facts = {
        .reported = blas_core_name(),
        .wanted = getenv(BLAS_CORE_VARIABLE),
        .before = before,
        .runs_better = blas_core_better_runs(),
    };
    enum blas_core_action action;

    if (variable != NULL) {
        (void)snprintf(before, sizeof before, "%s", variable);
        (void)unsetenv(BEFORE_VARIABLE); /* children are not started again */
        facts.agrees = blas_core_agrees();
    }
    action = blas_core_decide(&facts);
    note_outcome(action, before);
    if (action == BLAS_CORE_TAKE)
        restart(file, argv, BLAS_CORE_BETTER, facts.reported);
    else if (action == BLAS_CORE_RETURN)
        restart(file, argv, before, before);
}
