/* A generated classification task, the same bits everywhere for the same name.
 *
 * Each class is two clouds of normal noise, far enough apart that half of a class is
 * nearer to others than to its other half: a linear model cannot do well, a small
 * network can, and overlap keeps it from being perfect. Difficulty hardly depends on
 * the number of features, as the distance between centres is fixed in units of the
 * noise.
 */
#include "cluster/workloads/data_image.h"
#include "engine/base/rng.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    COUNT_DEFAULT = 12000,
    FEATURES_DEFAULT = 64,
    CLASSES_DEFAULT = 10,
    FEATURES_MAX = 1 << 16, /* bounds the memory of the centres */
    TEST_SHARE = 5,         /* one test sample for this many training samples */
    CLOUDS = 2,             /* a class */
    FRACTION = 1024,        /* pixels are computed in parts of this before rounding */
    NOISE_FACTOR = 160      /* of byte_noise, whose deviation is 209: 32.7 pixels */
};

static const double noise_pixels = 32.7; /* 209.02 * NOISE_FACTOR / FRACTION */
static const double distance = 5.0;      /* between centres, in noise deviations */

enum {
    STREAM_CENTRES,
    STREAM_TRAIN,
    STREAM_TEST
};

/* Close to normal, from one draw: the sum of eight uniform bytes, minus its mean. */
static int32_t byte_noise(struct rng *r)
{
    const uint64_t low = UINT64_C(0x00ff00ff00ff00ff);
    uint64_t x = rng_u64(r);
    uint64_t pairs = (x & low) + ((x >> 8) & low); /* four sums of two, 16 bits each */

    return (int32_t)((pairs * UINT64_C(0x0001000100010001)) >> 48) - 1020;
}

static uint8_t pixel_of(int32_t fraction)
{
    int32_t pixel = (128 * FRACTION + fraction) / FRACTION;

    return (uint8_t)(pixel < 0 ? 0 : pixel > 255 ? 255 : pixel);
}

static void fill(const struct data_shape *s, const int32_t *centres, struct rng *r,
                 uint32_t count, uint8_t *ret_x, uint8_t *ret_y)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t label = i % s->classes; /* balanced */
        uint32_t cloud = (uint32_t)rng_below(r, CLOUDS);
        const int32_t *centre =
            centres + ((size_t)label * CLOUDS + cloud) * s->features;
        uint8_t *row = ret_x + (size_t)i * s->features;

        for (uint32_t j = 0; j < s->features; j++)
            row[j] = pixel_of(centre[j] + byte_noise(r) * NOISE_FACTOR);
        ret_y[i] = (uint8_t)label;
    }
}

/* Fills ret with the centres of all clouds, in parts of a pixel from the middle. */
static void place(const struct data_shape *s, uint64_t seed, int32_t *ret)
{
    struct rng r = rng_seed(seed, STREAM_CENTRES);
    /* two centres with deviation d a feature are d * sqrt(2 * features) apart */
    double deviation = distance * noise_pixels * FRACTION / sqrt(2.0 * s->features);
    size_t count = (size_t)s->classes * CLOUDS * s->features;

    for (size_t i = 0; i < count; i++)
        ret[i] = (int32_t)(deviation * rng_normal(&r)); /* |normal| < 9: below 2^21 */
}

/* Reads a decimal number within bounds and moves on to what follows it. */
static bool parse(const char **at, uint64_t min, uint64_t max, uint64_t *ret)
{
    char *end;
    unsigned long long value;

    if (**at < '0' || **at > '9')
        return false;
    errno = 0;
    value = strtoull(*at, &end, 10);
    if (errno != 0 || value < min || value > max)
        return false;
    *at = end;
    *ret = value;
    return true;
}

static bool parse_name(const char *name, struct data_shape *ret, uint64_t *ret_seed)
{
    uint64_t count = COUNT_DEFAULT, features = FEATURES_DEFAULT;
    uint64_t classes = CLASSES_DEFAULT, seed = 1;
    const char *at = name + strlen("synthetic");

    if (strlen(name) >= DATA_NAME_MAX)
        return false;
    if (*at != '\0') {
        at++; /* the colon */
        if (!parse(&at, 1, UINT32_MAX, &count) || *at++ != 'x' ||
            !parse(&at, 1, FEATURES_MAX, &features) || *at++ != 'x' ||
            !parse(&at, 2, DATA_CLASSES_MAX, &classes))
            return false;
        if (*at == ':') {
            at++;
            if (!parse(&at, 0, UINT64_MAX, &seed))
                return false;
        }
        if (*at != '\0')
            return false;
    }
    *ret = (struct data_shape){.train_count = (uint32_t)count,
                               .test_count = (uint32_t)((count - 1) / TEST_SHARE + 1),
                               .features = (uint32_t)features,
                               .classes = (uint32_t)classes};
    *ret_seed = seed;
    return true;
}

int data_make_synthetic(const struct data_from *from, struct data **ret,
                        struct gapless_error *error)
{
    const char *name = from->name;
    struct data_from generated = {.name = name, .dir = "generated", .as = from->as};
    struct data_shape shape;
    struct data_image image;
    struct rng train, test;
    int32_t *centres;
    uint64_t seed;
    int status;

    if (!parse_name(name, &shape, &seed))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "\"%.60s\" is not synthetic:COUNTxFEATURESxCLASSES"
                                 "[:SEED], such as synthetic:12000x64x10:1; features "
                                 "to %d, classes 2 to %d",
                                 name, FEATURES_MAX, DATA_CLASSES_MAX);
    status = data_image_new(&generated, &shape, &image, error);
    if (status != GAPLESS_OK)
        return status;
    centres = calloc((size_t)shape.classes * CLOUDS * shape.features, sizeof *centres);
    if (centres == NULL) {
        data_image_drop(&image);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for %s", name);
    }
    place(&shape, seed, centres);
    train = rng_seed(seed, STREAM_TRAIN);
    test = rng_seed(seed, STREAM_TEST);
    fill(&shape, centres, &train, shape.train_count, image.train_x, image.train_y);
    fill(&shape, centres, &test, shape.test_count, image.test_x, image.test_y);
    free(centres);
    return data_image_finish(&image, ret, error);
}
