/* What the recipe's components do, for the scalar reference (tests/property/oracle.h, which
 * includes this in the copy that test_recipe.sh makes): scalar, in double. */
#ifndef GAPLESS_TESTS_RECIPE_REFERENCE_H
#define GAPLESS_TESTS_RECIPE_REFERENCE_H

static void recipe_damped(struct oracle *o, int w, double *g, double rate)
{
    for (int j = 0; j < o->k; j++) {
        double ahead = o->own_lookahead && o->momentum->ahead
                           ? o->momentum->ahead(o, w, j, rate)
                           : 0.0;
        g[j] /= 1.0 + fabs(o->theta[j] - ahead - o->sent[w][j]);
    }
}

static double recipe_size(const struct oracle *o, int j)
{
    return 1.0 + sqrt(o->s[j] + o->square[j]);
}

static double recipe_every_slot(struct oracle *o, int w, int j, double g)
{
    o->own[w][j] = o->gamma * o->own[w][j] + g;
    o->s[j] = o->m * o->s[j] + (1.0 - o->m) * g * g;
    o->square[j] = o->m * o->square[j] + (1.0 - o->m) * pow(o->own[w][j], 2);
    return o->own[w][j] / recipe_size(o, j) + (o->theta[j] - o->sent[w][j]) / 8.0;
}

static double recipe_every_slot_ahead(const struct oracle *o, int w, int j, double rate)
{
    return rate * o->gamma * o->own[w][j] / recipe_size(o, j);
}

static double recipe_every_slot_given(const struct oracle *o, int w, int j, double rate)
{
    double sum = o->own[w][j];
    for (int i = 0; i < o->workers; i++)
        sum += o->own[i][j];
    return o->theta[j] - rate * o->gamma * sum / recipe_size(o, j);
}

static double recipe_mean_square(struct oracle *o, int w, int j, double g)
{
    (void)w;
    o->v[j] = o->gamma * o->v[j] + g;
    o->s[j] = o->m * o->s[j] + (1.0 - o->m) * g * g;
    return o->v[j] / recipe_size(o, j);
}

static double recipe_mean_square_ahead(const struct oracle *o, int w, int j,
                                       double rate)
{
    (void)w;
    return rate * o->gamma * o->v[j] / recipe_size(o, j);
}

static double recipe_mean_square_given(const struct oracle *o, int w, int j,
                                       double rate)
{
    return o->theta[j] - recipe_mean_square_ahead(o, w, j, rate);
}

#endif
