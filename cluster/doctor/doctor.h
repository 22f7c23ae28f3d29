/* Private to `gapless doctor`: how a finding is printed. */
#ifndef CLUSTER_DOCTOR_H
#define CLUSTER_DOCTOR_H

#include <stdbool.h>

enum finding {
    FOUND,   /* as it should be */
    LACKING, /* something is slower or not available */
    MISSING, /* no run without it */
    NOTED    /* for information */
};

/* "  ok  name   what was found"; the name may be "" */
void doctor_tell(enum finding finding, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* What to do about the finding above. */
void doctor_remedy(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Has anything been MISSING? */
bool doctor_missing(void);

/* doctor_machine.c: processor, memory, limits, kernel */
void doctor_machine(void);
/* doctor_blas.c: which kernels multiply matrices, and whether they do it rightly */
void doctor_blas(void);
/* doctor_network.c: RDMA devices, who may use them, how much memory may be locked */
void doctor_network(void);
/* doctor_gpu.c: GPUs, and how cards reach their memory; none is no fault */
void doctor_gpu(void);

#endif
