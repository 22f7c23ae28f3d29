/* A model and data of one's own, with nothing of Gapless in it: points of a square, two
 * classes (inside a ring, or not), and a network of one hidden layer that learns which. */
#ifndef RINGS_H
#define RINGS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* Parameters in one vector: for each hidden unit two weights, a bias and the weight of its
 * output; the bias of the output comes last. */
enum {
    HIDDEN = 24,
    COUNT = 4 * HIDDEN + 1,
    BATCH = 64
};

/* Number `index` of an endless random sequence, in [-1, 1). */
static inline float rings_random(uint64_t index)
{
    uint64_t z = (index + 1) * 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    return (float)((z ^ (z >> 27)) >> 40) / (float)(1 << 23) - 1.0f;
}

/* Point `index` of an endless sequence, and its class, 0 or 1. */
static inline int rings_point(uint64_t index, float at[2])
{
    at[0] = rings_random(2 * index);
    at[1] = rings_random(2 * index + 1);
    return fabsf(hypotf(at[0], at[1]) - 0.6f) < 0.25f;
}

/* The probability of class 1, and what the hidden units gave. */
static inline float rings_forward(const float *p, const float at[2],
                                  float hidden[HIDDEN])
{
    float sum = p[COUNT - 1];

    for (int h = 0; h < HIDDEN; h++, p += 4) {
        hidden[h] = tanhf(p[0] * at[0] + p[1] * at[1] + p[2]);
        sum += p[3] * hidden[h];
    }
    return 1.0f / (1.0f + expf(-sum));
}

/* Backward: the mean gradient of batch number `batch`; returns the mean loss. */
static inline double rings_gradient(const float *params, uint64_t batch, float *grad)
{
    double loss = 0.0;

    for (int i = 0; i < COUNT; i++)
        grad[i] = 0.0f;
    for (uint64_t n = 0; n < BATCH; n++) {
        float at[2], hidden[HIDDEN];
        float truth = (float)rings_point(batch * BATCH + n, at);
        float share = rings_forward(params, at, hidden);
        float slope = (share - truth) / BATCH;

        loss -= log(truth > 0.0f ? share + 1e-12f : 1.0f - share + 1e-12f) / BATCH;
        for (int h = 0; h < HIDDEN; h++) {
            float back = slope * params[4 * h + 3] * (1.0f - hidden[h] * hidden[h]);

            grad[4 * h] += back * at[0];
            grad[4 * h + 1] += back * at[1];
            grad[4 * h + 2] += back;
            grad[4 * h + 3] += slope * hidden[h];
        }
        grad[COUNT - 1] += slope;
    }
    return loss;
}

/* Per cent of points right, of points that no batch has. */
static inline double rings_accuracy(const float *params)
{
    enum {
        POINTS = 10000
    };
    float at[2], hidden[HIDDEN];
    int right = 0;

    for (uint64_t i = 0; i < POINTS; i++) {
        int truth = rings_point((1ull << 40) + i, at);

        right += (rings_forward(params, at, hidden) > 0.5f) == truth;
    }
    return 100.0 * right / POINTS;
}

#endif
