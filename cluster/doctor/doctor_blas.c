/* gapless doctor: the library that multiplies matrices. */
#include "cluster/doctor/doctor.h"
#include "cluster/workloads/blas_core.h"

#include <stdio.h>
#include <stdlib.h>

/* OpenBLAS has these; another BLAS need not. */
__attribute__((weak)) extern char *openblas_get_config(void);
__attribute__((weak)) extern int openblas_get_num_threads(void);

/* The kernels in use, and who has chosen them: OpenBLAS, this program or the user. */
static void tell_core(const char *core)
{
    const char *wanted = getenv(BLAS_CORE_VARIABLE);
    bool slow = blas_core_is_old(core) && blas_core_better_runs();

    doctor_tell(slow ? LACKING : FOUND, "BLAS core", "%s%s", core,
                slow ? ": slow on this processor, which could do better" : "");
    if (blas_core_note()[0] != '\0') {
        doctor_tell(NOTED, "", "%s", blas_core_note());
        return;
    }
    if (wanted == NULL || wanted[0] == '\0')
        return;
    doctor_tell(NOTED, "", BLAS_CORE_VARIABLE "=%s was set before: left as it is",
                wanted);
    if (slow)
        doctor_remedy("unset " BLAS_CORE_VARIABLE
                      ": without it gapless sees to better kernels");
}

static void tell_products(void)
{
    bool agree = blas_core_agrees();

    doctor_tell(agree ? FOUND : MISSING, "BLAS products", "%s",
                agree ? "agree with plain C" : "differ from plain C: they are wrong");
    if (!agree)
        doctor_remedy("install another version of OpenBLAS, or choose other kernels: "
                      "export " BLAS_CORE_VARIABLE "=" BLAS_CORE_BETTER);
}

void doctor_blas(void)
{
    const char *threads = getenv("OPENBLAS_NUM_THREADS");

    (void)printf("\narithmetic\n");
    if (openblas_get_config != NULL && blas_core_name() != NULL) {
        doctor_tell(FOUND, "BLAS", "%s", openblas_get_config());
        tell_core(blas_core_name());
    } else {
        doctor_tell(NOTED, "BLAS",
                    "not OpenBLAS: keep it to one thread a process yourself");
    }
    tell_products();
    if (openblas_get_num_threads != NULL)
        doctor_tell(NOTED, "BLAS threads",
                    "%d here%s; gapless train gives each worker one",
                    openblas_get_num_threads(),
                    threads != NULL ? " (OPENBLAS_NUM_THREADS)" : "");
}
