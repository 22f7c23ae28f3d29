/* What an update rule may see: one element of every array, and the scalars of this update.
 *
 * A rule is written once, for one `real`, and compiled in three forms:
 *
 *   CPU      a vector of floats as wide as the instruction set: 4 lanes (SSE2, NEON),
 *            8 (AVX2) or 16 (AVX-512). Written so, and not as a loop over floats that
 *            the compiler is asked to vectorise, because a loop that it silently does
 *            not vectorise is 15 times slower
 *   double   GAPLESS_REAL_DOUBLE: the test build that checks the formulas
 *   CUDA     one float; also where a C++ compiler stands in for nvcc, in tests
 *
 * Rules use only + - * /, real_abs, real_sqrt and real_of. A scalar of the update may stand
 * beside a real in + - * /: k->rate * e->grad. Where a real alone is wanted it is
 * real_of(k->rate), every element the same. All of these are exactly rounded by
 * IEEE 754 and nothing is contracted to fused multiply-adds (-ffp-contract=off,
 * --fmad=false), so every form of float gives the same bits on every machine.
 */
#ifndef GAPLESS_ELEMENT_H
#define GAPLESS_ELEMENT_H

#if defined(__cplusplus)

#include <math.h>

#if defined(__CUDACC__)
#define RULE_FN static __host__ __device__ __forceinline__
#else
#define RULE_FN static inline
#endif
typedef float scalar;
typedef float real;

RULE_FN real real_zero(void)
{
    return 0.0f;
}

RULE_FN real real_abs(real x)
{
    return fabsf(x);
}

RULE_FN real real_sqrt(real x)
{
    return sqrtf(x);
}

RULE_FN real real_of(scalar x)
{
    return x;
}

#else

#define RULE_FN static inline __attribute__((always_inline))

#if defined(GAPLESS_REAL_DOUBLE)

typedef double scalar;
typedef double real;
enum {
    REAL_BYTES = 8
};

RULE_FN real real_zero(void)
{
    return 0.0;
}

RULE_FN real real_abs(real x)
{
    return __builtin_fabs(x);
}

RULE_FN real real_sqrt(real x)
{
    return __builtin_sqrt(x);
}

RULE_FN real real_of(scalar x)
{
    return x;
}

#else

typedef float scalar;

/* Only the intrinsics of the width in use: <immintrin.h> is slow to read. */
#if defined(__AVX512F__)
#include <immintrin.h>
enum {
    REAL_BYTES = 64
};
typedef float real __attribute__((vector_size(64), may_alias));
typedef int real_bits __attribute__((vector_size(64), may_alias));
#elif defined(__AVX__)
#include <immintrin.h>
enum {
    REAL_BYTES = 32
};
typedef float real __attribute__((vector_size(32), may_alias));
typedef int real_bits __attribute__((vector_size(32), may_alias));
#else
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif
enum {
    REAL_BYTES = 16
};
typedef float real __attribute__((vector_size(16), may_alias));
typedef int real_bits __attribute__((vector_size(16), may_alias));
#endif

RULE_FN real real_zero(void)
{
    return (real){0};
}

RULE_FN real real_abs(real x)
{
    return (real)((real_bits)x & 0x7fffffff);
}

RULE_FN real real_sqrt(real x)
{
#if defined(__AVX512F__)
    return (real)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX__)
    return (real)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
    return (real)_mm_sqrt_ps((__m128)x);
#else
    real root = x;
    for (int i = 0; i < 4; i++)
        root[i] = __builtin_sqrtf(x[i]);
    return root;
#endif
}

RULE_FN real real_of(scalar x)
{
    return x - (real){0}; /* not x + 0, which makes 0 of -0 */
}

#endif /* double or float */

_Static_assert(sizeof(real) == REAL_BYTES, "a rule must be compiled for whole vectors");

#endif /* CUDA or C */

/* One element of every array (a vector of neighbours on the CPU). Arrays that the rule
 * does not read hold 0 here, and what it does not write is not stored. Beside each field
 * its letter in the papers: DANA's, for worker i, where no other is named. */
struct element {
    real theta; /* theta, theta^0     the parameters (DC-ASGD: w) */
    real own;   /* v^i                this worker's velocity */
    real all;   /* v, v^0 = sum v^i   the one velocity, or the sum of all `own` */
    real stat;  /* MeanSquare         DC-ASGD-a: running mean of g^2; Gap-Aware: of the
                                      steps, of which its C is made; delayed Nesterov: b,
                                      gradients that are not in v yet */
    real sent;  /* theta^i            what this worker was last given (DC-ASGD: w_bak);
                                      becomes what it is given next */
    real grad;  /* g^i                what it computed there; a correction changes it */
    real square; /* v                 Adam: running mean of the squared gradients */

    /* Between the parts of a rule; never in memory. */
    real ahead; /* eta gamma v^i      its own part of the look-ahead, or 0; see gap() */
    real gate;  /* f                  RULE_BLOCK: the factor of this element's block */
    real step;  /* u                  the vector that was multiplied by the rate */
    real raw;   /* g^i                the gradient as it came, before the correction */
    real decay; /* lambda             RULE_ADAM: of this element; 0 where its tensor has
                                      one dimension */

    /* RULE_MATRIX, of a matrix. */
    real mean;   /* m^i               muon_dana: this worker's mean of the gradients */
    real turned; /* m, then NS(m)     what the products work on; of one update */
};

/* The scalars of one update: computed in double by rules_step_scalars, rounded once. */
struct step_scalars {
    /* any momentum */
    scalar rate;          /* eta                of this update */
    scalar momentum;      /* gamma */
    scalar rate_momentum; /* eta gamma */
    scalar rate_horizon;  /* eta T              lwp */
    scalar share;         /* gamma/N            shared */
    scalar keep;          /* 1 - (1 - gamma)/N  shared */
    scalar rate_share;    /* eta gamma/N        shared */
    scalar elastic;       /* alpha              elastic */
    scalar together;      /* n                  delayed_nesterov: gradients that go into
                                                the momentum together */
    scalar rate_part;     /* eta/n */

    /* corrections */
    scalar freshness;        /* 1/tau             staleness: 1/max(1, lag) */
    scalar lambda;           /* lambda            delay_comp */
    scalar lambda_zero;      /* lambda_0          delay_comp_adaptive */
    scalar mean_square;      /* m                 delay_comp_adaptive */
    scalar mean_square_rest; /* 1 - m */
    scalar rate_max;         /* eta_max           gap_aware: the largest step is
                                                  rate_max*sqrt(...) */
    scalar bias;             /* 1/(1 - rho^n)     gap_aware */
    scalar rho;              /* rho               gap_aware */
    scalar rho_rest;         /* 1 - rho */
    scalar penalty;          /* 1/G               gap_aware_global */
    double kappa;            /* kappa             loss_gap, per nat */

    /* Adam's momenta (engine/rules/adam.h): each keep and add are weights of a running
     * mean that are 1 together, corrected for its beginning */
    scalar square_keep, square_add; /* of g^2, by beta2 for each update */
    scalar round_keep, round_add;   /* ... by beta2^(1/N): beta2 for a round of all */
    scalar one_keep, one_add;       /* of g: by the updates of all */
    scalar own_keep, own_add;       /* ... by this worker's own */
    scalar share_keep, share_add;   /* adam_shared: this worker's next m */
    scalar mean_keep, mean_add;     /* ... and the mean of all workers' m */
    scalar epsilon;                 /* eps */
    scalar decay;                   /* lambda          where the element has any */
    scalar last_momentum;           /* eta beta1       with the last update's rate */
    scalar rate_round;              /* eta beta1 N     adam_shared */
    scalar rate_reach;              /* eta L           adam_horizon: L steps of beta1 */

    /* Muon's momenta, of a matrix; all before is then of the rest */
    scalar mu, mu_rest;     /* mu, 1 - mu */
    scalar matrix_rate;     /* eta */
    scalar matrix_momentum; /* eta beta1 */
    scalar matrix_last;     /* eta beta1          with the last update's rate */
    scalar spread;          /* 0.2 sqrt(max(R, C)) of this matrix: matrix_spread */

    scalar average; /* a              of a running average, which no rule moves: see
                                                  compute->average */

    scalar gate; /* f                 where it is not measured: of the whole
                                                  vector, or 1 */

    int penalised; /* gap_aware: there is a sample to measure steps by; else G = 1 */
    int lagging;   /* loss_gap: every block has a gate that is measured; else all have
                      `gate` */
    int turn;      /* delayed_nesterov: this gradient is the n-th */
    int alone;     /* one worker is active: the sum of all `own` is its `own` */
    int gap_ref;   /* enum gap_ref */
};

/* How far the parameters are from where the gradient was computed. `ahead` is 0 unless
 * the reference is the worker's own look-ahead, or the correction always asks for it.
 */
RULE_FN real gap(const struct element *e)
{
    return (e->theta - e->ahead) - e->sent;
}

#endif
