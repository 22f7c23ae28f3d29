/* Tensors to blocks and ranges: hand cases, then every property over random models. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/run/layout.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void test_flagship_is_one_range(void **state)
{
    const struct gapless_tensor t[] = {{.name = "w1", .dims = 2, .dim = {784, 64}},
                                       {.name = "b1", .dims = 1, .dim = {64}},
                                       {.name = "w2", .dims = 2, .dim = {64, 10}},
                                       {.name = "b2", .dims = 1, .dim = {10}}};
    const struct gapless_model model = {t, 4};
    struct layout l;

    (void)state;
    assert_int_equal(layout_init(&l, &model, 0, 0, false, NULL), GAPLESS_OK);
    assert_int_equal(l.count, 50890);
    assert_int_equal(l.padded, 50896);
    assert_int_equal(l.ranges_count, 1);
    assert_int_equal(l.blocks_count, 6); /* w1 in three pieces of 16 Ki and more */
    assert_int_equal(l.block_ends[2], 50176);
    assert_int_equal(l.block_ends[3], 50240);
    assert_int_equal(l.block_ends[5], 50890);
    assert_true(l.block_ends[0] >= LAYOUT_BLOCK_DEFAULT);
    layout_free(&l);
}

static void refused(const struct gapless_tensor *t, uint32_t count, const char *word)
{
    const struct gapless_model model = {t, count};
    struct gapless_error e = {0};
    struct layout l;

    assert_int_equal(layout_init(&l, &model, 0, 0, false, &e), GAPLESS_INVALID);
    assert_non_null(strstr(e.text, word));
}

static void test_bad_models(void **state)
{
    const struct gapless_tensor
        none[] = {{.dims = 1, .dim = {4}}},
        quote[] = {{.name = "a\"b", .dims = 1, .dim = {4}}},
        flat[] = {{.name = "a", .dims = 0, .dim = {4}}},
        deep[] = {{.name = "a", .dims = 5, .dim = {4}}},
        zero[] = {{.name = "a", .dims = 2, .dim = {4, 0}}},
        huge[] = {{.name = "a",
                   .dims = 2,
                   .dim = {UINT64_C(1) << 40, UINT64_C(1) << 40}}},
        flags[] = {{.name = "a", .dims = 1, .dim = {4}, .flags = 2}},
        sum[] = {{.name = "a", .dims = 1, .dim = {GAPLESS_ELEMENTS_MAX}},
                 {.name = "b", .dims = 1, .dim = {1}}};

    (void)state;
    refused(none, 1, "tensor 0");
    refused(quote, 1, "tensor 0");
    refused(flat, 1, "'a'");
    refused(deep, 1, "'a'");
    refused(zero, 1, "dimension 1");
    refused(huge, 1, "'a'");
    refused(sum, 2, "parameters");
    refused(flags, 1, "flags 0x2");
    refused(NULL, 0, "0");
}

/* What a tensor has of its own: each field that cannot be, by itself. */
static void test_bad_own(void **state)
{
    static const struct {
        double rate, decay, average;
        const char *word;
    } bad[] = {
        {-1, 0, 0, "rate"},         {NAN, 0, 0, "rate"},      {INFINITY, 0, 0, "rate"},
        {0, -2, 0, "decay"},        {0, -0.5, 0, "decay"},    {0, NAN, 0, "decay"},
        {0, INFINITY, 0, "decay"},  {0, 0, -0.1, "average"},  {0, 0, 1.01, "average"},
        {0, 0, NAN, "average"},     {0.5, 0, 0.1, "average"}, {0, 0.1, 0.1, "average"},
        {0, 0, INFINITY, "average"}};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const struct gapless_tensor t = {.name = "a",
                                         .dims = 1,
                                         .dim = {4},
                                         .rate = bad[i].rate,
                                         .decay = bad[i].decay,
                                         .average = bad[i].average};

        refused(&t, 1, bad[i].word);
    }
}

static uint64_t draw(uint64_t *random, uint64_t below)
{
    *random = *random * 6364136223846793005ull + 1442695040888963407ull;
    return (*random >> 33) % below;
}

static void check(const struct layout *l, uint64_t range_elements)
{
    uint32_t r, b;
    uint64_t begin, end;

    assert_int_equal(l->range_start[0], 0);
    assert_int_equal(l->range_start[l->ranges_count], l->padded);
    assert_int_equal(l->block_first[l->ranges_count], l->blocks_count);
    for (r = 0; r < l->ranges_count; r++) {
        begin = l->range_start[r];
        end = l->range_start[r + 1];
        assert_true(begin % LAYOUT_LANES == 0 && end > begin);
        assert_true(r + 1 == l->ranges_count || end - begin >= range_elements);
        assert_true(l->block_first[r + 1] > l->block_first[r]);
        for (b = l->block_first[r]; b < l->block_first[r + 1]; b++)
            assert_true(l->block_ends[b] >
                        (b == l->block_first[r] ? 0 : l->block_ends[b - 1]));
        if (r + 1 < l->ranges_count)
            assert_int_equal(begin + l->block_ends[b - 1], end);
        else
            assert_int_equal(begin + l->block_ends[b - 1], l->count);
        assert_int_equal(l->units[r].from, begin);
        assert_int_equal(l->units[r].elements, end - begin);
        assert_int_equal(l->units[r].block, l->block_first[r]);
    }
    assert_int_equal(l->units_count,
                     l->ranges_count); /* nobody has anything of its own */
    assert_false(l->seams);
    assert_int_equal(l->moved, l->count);
}

/* A piece is never shorter than asked for, unless it is its whole tensor; and a tensor
 * that has room for two pieces is not left whole. */
static void check_blocks(const struct layout *l, uint64_t least)
{
    uint64_t at = 0, begin, end = 0, elements;
    uint32_t i, b = 0, r = 0;

    for (i = 0; i < l->tensors_count; i++, at += elements) {
        elements = l->tensors[i].dim[0];
        uint32_t pieces = 0;
        for (begin = at; begin < at + elements; begin = end, b++, pieces++) {
            if (b == l->block_first[r + 1])
                r++;
            end = l->range_start[r] + l->block_ends[b];
            assert_true(end > begin && end <= at + elements);
            assert_true(end - begin >= least || (begin == at && end == at + elements));
            assert_true(end == at + elements || end % LAYOUT_LANES == 0);
        }
        assert_true(pieces > 1 || elements < 2 * (least + LAYOUT_LANES));
        for (uint32_t piece = 1; piece <= pieces; piece++)
            assert_int_equal(l->block_pieces[b - piece], pieces);
    }
    assert_int_equal(b, l->blocks_count);
}

static void test_random_models(void **state)
{
    static const uint64_t least[] = {0, 16, 17, 1000, 16384, 60000, UINT64_MAX};
    struct gapless_tensor t[40];
    char names[40][8];
    uint64_t random = 1, seed, i, count, range, hash = 0, blocks, n;
    struct layout l;

    (void)state;
    for (seed = 0; seed < 500; seed++) {
        count = 1 + draw(&random, 40);
        for (i = 0; i < count; i++) {
            (void)snprintf(names[i], sizeof names[i], "t%u", (unsigned)i);
            t[i] = (struct gapless_tensor){
                .name = names[i],
                .dims = 1,
                .dim = {1 + draw(&random, draw(&random, 3) == 0 ? 200000 : 100)}};
        }
        range = 1 + draw(&random, 100000);
        const struct gapless_model model = {t, (uint32_t)count};
        blocks = least[seed % (sizeof least / sizeof *least)];
        assert_int_equal(layout_init(&l, &model, range, blocks, false, NULL),
                         GAPLESS_OK);
        check(&l, range);
        if (blocks < UINT64_MAX)
            check_blocks(&l, blocks == 0 ? LAYOUT_BLOCK_DEFAULT : blocks);
        else
            assert_int_equal(l.blocks_count, count);
        assert_int_equal(layout_measure(&model, &n, &hash, NULL), GAPLESS_OK);
        assert_int_equal(l.hash, hash); /* ranges and blocks are not the model */
        layout_free(&l);
    }
}

/* ---- what tensors have of their own -------------------------------------- */

/* Which tensor an element is of. */
static const struct gapless_tensor *owner(const struct layout *l, uint64_t element)
{
    const struct gapless_tensor *t = l->tensors;

    for (; element >= layout_elements(t); t++)
        element -= layout_elements(t);
    return t;
}

/* Does the chunk of 16 elements from here on have tensors that are not alike? */
static bool mixed(const struct layout *l, uint64_t chunk)
{
    uint64_t end = chunk + LAYOUT_LANES < l->count ? chunk + LAYOUT_LANES : l->count, i;

    for (i = chunk + 1; i < end; i++)
        if (!layout_alike(owner(l, chunk), owner(l, i)))
            return true;
    return false;
}

/* The units are the whole vector, in order, and what each has is alike. */
static void check_units(const struct layout *l)
{
    uint64_t at = 0, moved = 0, i;
    uint32_t u, b = 0;

    for (u = 0; u < l->units_count; u++) {
        const struct layout_unit *unit = &l->units[u];
        uint32_t r = unit->range;
        bool last = u + 1 == l->unit_first[r + 1];
        uint64_t end = unit->from + unit->elements;

        assert_in_range(u, l->unit_first[r], l->unit_first[r + 1] - 1);
        assert_int_equal(unit->from, at);
        assert_int_equal(unit->from == l->range_start[r], u == l->unit_first[r]);
        assert_int_equal(unit->block, b);
        assert_ptr_equal(owner(l, at), &l->tensors[l->block_tensor[b]]);
        assert_int_equal(unit->piece, mixed(l, at / LAYOUT_LANES * LAYOUT_LANES));
        if (!unit->piece)
            assert_true(last && end == l->range_start[r + 1]);
        if (unit->piece)
            assert_true(unit->elements < LAYOUT_LANES &&
                        l->range_start[r + 1] - l->range_start[r] == LAYOUT_LANES);
        for (i = at; i < end && i < l->count; i++)
            assert_true(layout_alike(owner(l, i), &l->tensors[unit->tensor]));
        b = unit->piece ? b + 1 : l->block_first[r + 1];
        at = last ? l->range_start[r + 1] : end;
        assert_true(at - end < LAYOUT_LANES && (at == end || u + 1 == l->units_count));
    }
    assert_int_equal(at, l->padded);
    assert_int_equal(b, l->blocks_count);
    for (i = 0; i < l->tensors_count; i++)
        moved += l->tensors[i].average > 0 ? 0 : layout_elements(&l->tensors[i]);
    assert_int_equal(l->moved, moved);
}

/* Each block is of one tensor, and goes into it as often as it says, nearly. */
static void check_times(const struct layout *l)
{
    uint32_t r, b;

    for (r = 0; r < l->ranges_count; r++)
        for (b = l->block_first[r]; b < l->block_first[r + 1]; b++) {
            uint64_t begin = b == l->block_first[r] ? 0 : l->block_ends[b - 1];
            double size = (double)(l->block_ends[b] - begin);
            double all = (double)l->tensors[l->block_tensor[b]].dim[0];

            assert_ptr_equal(owner(l, l->range_start[r] + begin),
                             &l->tensors[l->block_tensor[b]]);
            assert_ptr_equal(owner(l, l->range_start[r] + l->block_ends[b] - 1),
                             &l->tensors[l->block_tensor[b]]);
            assert_true(l->block_pieces[b] >= 1 &&
                        fabs(l->block_pieces[b] - all / size) <=
                            0.5 + 0.1 * (all / size));
        }
}

static void test_random_own(void **state)
{
    struct gapless_tensor t[30];
    char names[30][8];
    uint64_t random = 5;
    struct layout l;
    uint32_t seams = 0;

    (void)state;
    for (int seed = 0; seed < 400; seed++) {
        const struct gapless_model model = {t, 1 + (uint32_t)draw(&random, 30)};
        uint64_t most = seed % 2 ? 40 : 400;

        for (uint32_t i = 0; i < model.tensors_count; i++) {
            (void)snprintf(names[i], sizeof names[i], "t%u", i);
            t[i] = (struct gapless_tensor){
                .name = names[i], .dims = 1, .dim = {1 + draw(&random, most)}};
            t[i].average = draw(&random, 4) == 0 ? 0.1 : 0;
            t[i].rate = draw(&random, 2) == 0 ? 1 : 0;
            if (!(t[i].average > 0) && draw(&random, 4) == 0)
                t[i].rate = 0.5;
            if (!(t[i].average > 0) && draw(&random, 4) == 0)
                t[i].decay = draw(&random, 2) == 0 ? GAPLESS_NO_DECAY : 0.1;
        }
        assert_int_equal(
            layout_init(&l, &model, 1 + draw(&random, 500), 64, false, NULL),
            GAPLESS_OK);
        check_units(&l);
        check_times(&l);
        seams += l.seams;
        layout_free(&l);
    }
    assert_in_range(seams, 300, 399);
}

/* A matrix that a seam would cut is refused; what stands between helps. */
static void test_seams_cut_no_matrix(void **state)
{
    struct gapless_tensor t[] = {
        {.name = "b", .dims = 1, .dim = {20}},
        {.name = "w", .dims = 2, .dim = {5, 5}, .rate = 0.5},
        {.name = "c", .dims = 1, .dim = {12}, .rate = 0.5},
        {.name = "v", .dims = 2, .dim = {5, 5}},
    };
    const struct gapless_model model = {t, 4};
    struct gapless_error error = {0};
    uint16_t decays[8] = {0};
    struct layout l;

    (void)state;
    assert_int_equal(layout_init(&l, &model, 0, 0, true, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "'w' is a matrix"));
    t[0].dim[0] = 16;
    assert_int_equal(layout_init(&l, &model, 0, 0, true, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "'v' is a matrix")); /* from 53 on: 48 to 63 */
    t[2].dim[0] = 7;
    assert_int_equal(layout_init(&l, &model, 0, 0, true, &error), GAPLESS_OK);
    check_units(&l);
    layout_free(&l);
    t[2].dim[0] = 12;
    t[1].flags = t[3].flags = GAPLESS_TENSOR_NOT_MATRIX;
    t[2].decay = 0.1, t[3].decay = GAPLESS_NO_DECAY, t[0].average = 0.1;
    assert_int_equal(layout_init(&l, &model, 0, 0, true, &error), GAPLESS_OK);
    layout_decays(&l, false, decays);
    assert_int_equal(decays[0], 0);      /* b: an average */
    assert_int_equal(decays[1], 0xffff); /* w: of two dimensions */
    assert_int_equal(decays[2], 0xffff); /* w, c: it has a decay */
    assert_int_equal(decays[3], 0x001f); /* c; v has none */
    layout_decays(&l, true, decays);
    assert_int_equal(decays[0], 0);
    assert_int_equal(decays[3], 0x001f);
    layout_free(&l);
}

static void test_size_of_blocks(void **state)
{
    const struct gapless_tensor t[] = {{.name = "w", .dims = 2, .dim = {100, 1000}},
                                       {.name = "b", .dims = 1, .dim = {10}}};
    const struct gapless_model model = {t, 2};
    struct gapless_error e = {0};
    struct layout l;

    (void)state;
    assert_int_equal(layout_init(&l, &model, 0, 100000, false, NULL), GAPLESS_OK);
    assert_int_equal(l.blocks_count, 2);
    layout_free(&l);
    assert_int_equal(layout_init(&l, &model, 0, 40000, false, NULL), GAPLESS_OK);
    assert_int_equal(l.blocks_count, 3);
    assert_int_equal(l.block_ends[0], 50000);
    layout_free(&l);
    assert_int_equal(layout_init(&l, &model, 0, 16, false, NULL), GAPLESS_OK);
    assert_int_equal(l.blocks_count, 100000 / 32 + 1);
    layout_free(&l);
    assert_int_equal(layout_init(&l, &model, 0, 15, false, &e), GAPLESS_INVALID);
    assert_non_null(strstr(e.text, "16 is the least"));
}

/* More elements than a range may have, in one block that cannot be cut. */
static void test_a_block_that_fits_no_range(void **state)
{
    const struct gapless_tensor t[] = {
        {.name = "w", .dims = 1, .dim = {UINT64_C(1) << 33}}};
    const struct gapless_model model = {t, 1};
    struct gapless_error e = {0};
    struct layout l;

    (void)state;
    assert_int_equal(layout_init(&l, &model, 1u << 30, UINT64_MAX, false, &e),
                     GAPLESS_CAPACITY);
    assert_non_null(strstr(e.text, "smaller blocks"));
    assert_int_equal(layout_init(&l, &model, 1u << 30, 0, false, &e), GAPLESS_OK);
    layout_free(&l);
}

/* What is a matrix is neither cut by a range nor into blocks, where a rule asks for that;
 * what is marked is none. The hash, by which a worker's model is known, is the same. */
static void test_whole_matrices(void **state)
{
    const struct gapless_tensor t[] = {
        {.name = "e",
         .dims = 2,
         .dim = {100, 1000},
         .flags = GAPLESS_TENSOR_NOT_MATRIX},
        {.name = "w", .dims = 3, .dim = {1000, 10, 10}},
        {.name = "row", .dims = 2, .dim = {1, 100000}},
        {.name = "column", .dims = 2, .dim = {100000, 1}},
        {.name = "b", .dims = 1, .dim = {10}}};
    const uint32_t whole[] = {6, 1, 6, 6, 1}; /* blocks */
    const struct gapless_model model = {t, 5};
    uint64_t rows = 0, cols = 0;
    struct layout a, b;
    uint32_t i = 0, tensor, p;

    (void)state;
    assert_int_equal(layout_init(&a, &model, 2000, 0, false, NULL), GAPLESS_OK);
    assert_int_equal(layout_init(&b, &model, 2000, 0, true, NULL), GAPLESS_OK);
    assert_true(a.hash == b.hash);
    assert_int_equal(a.blocks_count, 25);
    assert_int_equal(b.blocks_count, 20);
    for (tensor = 0; tensor < 5; tensor++)
        for (p = 0; p < whole[tensor]; p++, i++) {
            assert_int_equal(b.block_tensor[i], tensor);
            assert_int_equal(b.block_pieces[i], whole[tensor]);
        }
    check(&b, 2000);
    for (tensor = 0; tensor < 5; tensor++)
        assert_true(layout_is_matrix(&t[tensor], &rows, &cols) == (tensor == 1));
    assert_true(rows == 1000 && cols == 100);
    layout_free(&a);
    layout_free(&b);
}

static void test_hash_tells_models_apart(void **state)
{
    const struct gapless_tensor a[] = {{.name = "a", .dims = 2, .dim = {4, 6}}},
                                b[] = {{.name = "a", .dims = 2, .dim = {6, 4}}},
                                c[] = {{.name = "b", .dims = 2, .dim = {4, 6}}};
    uint64_t n, ha, hb, hc;

    (void)state;
    assert_int_equal(layout_measure(&(struct gapless_model){a, 1}, &n, &ha, NULL), 0);
    assert_int_equal(layout_measure(&(struct gapless_model){b, 1}, &n, &hb, NULL), 0);
    assert_int_equal(layout_measure(&(struct gapless_model){c, 1}, &n, &hc, NULL), 0);
    assert_true(ha != hb && hb != hc && ha != hc);
}

/* A bit for each element of a tensor of two dimensions or more, whatever its place. */
static void test_where_weight_decay_applies(void **state)
{
    const struct gapless_tensor t[] = {{.name = "w", .dims = 2, .dim = {3, 7}},
                                       {.name = "b", .dims = 1, .dim = {5}},
                                       {.name = "k", .dims = 4, .dim = {2, 2, 1, 1}},
                                       {.name = "one", .dims = 2, .dim = {1, 1}},
                                       {.name = "c", .dims = 1, .dim = {40}},
                                       {.name = "v", .dims = 3, .dim = {2, 3, 4}}};
    const uint32_t sizes[] = {21, 5, 4, 1, 40, 24};
    const struct gapless_model model = {t, 6};
    uint16_t bits[6];
    uint32_t at = 0;
    struct layout l;

    (void)state;
    assert_int_equal(layout_init(&l, &model, 0, 0, false, NULL), GAPLESS_OK);
    assert_int_equal(l.padded, 96);
    assert_int_equal(layout_matrices(&l), 4);
    memset(bits, 0xa5, sizeof bits);
    layout_decays(&l, false, bits);
    for (uint32_t i = 0; i < 6; i++)
        for (uint32_t end = at + sizes[i]; at < end; at++)
            assert_int_equal(bits[at / 16] >> at % 16 & 1, t[i].dims > 1);
    for (; at < 96; at++)
        assert_int_equal(bits[at / 16] >> at % 16 & 1, 0);
    layout_decays(&l, true, bits);
    for (at = 0; at < 96; at++)
        assert_int_equal(bits[at / 16] >> at % 16 & 1, at < l.count);
    layout_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flagship_is_one_range),
        cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_bad_own),
        cmocka_unit_test(test_where_weight_decay_applies),
        cmocka_unit_test(test_random_models),
        cmocka_unit_test(test_random_own),
        cmocka_unit_test(test_seams_cut_no_matrix),
        cmocka_unit_test(test_size_of_blocks),
        cmocka_unit_test(test_whole_matrices),
        cmocka_unit_test(test_a_block_that_fits_no_range),
        cmocka_unit_test(test_hash_tells_models_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
