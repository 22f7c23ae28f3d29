/* Which kernels OpenBLAS takes, and taking better ones.
 *
 * OpenBLAS chooses the kernels for a processor ("core") when it is loaded. An OpenBLAS
 * that is older than the processor does not know it and takes those of the Pentium 4
 * (Prescott, SSE3), which makes training half as fast. OPENBLAS_CORETYPE names others,
 * but is read only while the library is loaded: before main. So the program sets it and
 * becomes itself again (exec):
 *
 *     loaded, core Prescott, the processor has AVX2 and FMA
 *       └─ exec with OPENBLAS_CORETYPE=Haswell ─> products agree with plain C: go on
 *                                                 └ they do not: exec with =Prescott
 *
 * Haswell's kernels need nothing but AVX2 and FMA, have been in use for longest, and
 * are as fast for the models here as those for AVX-512. Child processes inherit the
 * variable. A variable that the user has set is left alone.
 */
#ifndef CLUSTER_BLAS_CORE_H
#define CLUSTER_BLAS_CORE_H

#include <stdbool.h>
#include <stddef.h>

#define BLAS_CORE_VARIABLE "OPENBLAS_CORETYPE"
#define BLAS_CORE_BETTER "Haswell"

/* What is known when the program has been loaded. */
struct blas_core_facts {
    const char *reported; /* the core that OpenBLAS has taken; NULL: another BLAS */
    const char *wanted;   /* OPENBLAS_CORETYPE; NULL or "": not set */
    const char *before;   /* the core before this program set the variable; NULL or "":
                             it has not */
    bool runs_better;     /* the processor has what BLAS_CORE_BETTER needs */
    bool agrees; /* products are those of plain C; matters only where `before` is set */
};

enum blas_core_action {
    BLAS_CORE_KEEP,     /* as OpenBLAS, or the user, has chosen */
    BLAS_CORE_TAKE,     /* exec with BLAS_CORE_BETTER */
    BLAS_CORE_TAKEN,    /* after it: the better kernels are in use */
    BLAS_CORE_RETURN,   /* after it: they compute wrong products; exec with `before` */
    BLAS_CORE_RETURNED, /* after that: as OpenBLAS had chosen */
    BLAS_CORE_IGNORED   /* after it: OpenBLAS has not taken what was asked for */
};
/* The decision, from the facts alone. */
enum blas_core_action blas_core_decide(const struct blas_core_facts *facts);

/* Early in main, before any product: decides, and becomes the program again where that
 * helps. `file` is the program's, `argv` is main's. Returns where it goes on with the
 * kernels it has. */
void blas_core_choose(const char *file, char **argv);
/* What blas_core_choose did, in one line: "OpenBLAS took its Prescott kernels ...", or
 * "" where it had nothing to do. */
const char *blas_core_note(void);
/* The core that OpenBLAS has taken in this process; NULL: another BLAS. */
const char *blas_core_name(void);

/* Do this process's CBLAS and plain C agree on the products of a layer? */
bool blas_core_agrees(void);
/* Are these kernels older than AVX? */
bool blas_core_is_old(const char *core);
/* Has this processor what BLAS_CORE_BETTER needs? */
bool blas_core_better_runs(void);

#endif
