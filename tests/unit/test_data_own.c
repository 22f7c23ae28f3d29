/* Data of one's own: tables (csv:), arrays (npy:) and IDX files (idx:), as people and
 * programs write them; and each kind of mistake is refused with what and where it is. */
#include "tests/unit/data_files.h"

#include <math.h>
#include <stdbool.h>

#define HEAD "a,b,label\n"
#define ROWS4 "1,2,x\n3,4,y\n5,6,x\n7,8,y\n"
#define ROWS5 ROWS4 "9,10,x\n"

/* A folder with a file of this text in it. */
static void write_text(const char *dir, const char *name, const char *text,
                       size_t bytes)
{
    char path[PATH_MAX];
    FILE *to;

    path_of(path, dir, name);
    to = fopen(path, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(text, 1, bytes, to), bytes);
    assert_int_equal(fclose(to), 0);
}

static struct data *table_of(const char *dir, const char *text, const char *label)
{
    char name[PATH_MAX + 64];

    write_text(dir, "t.csv", text, strlen(text));
    (void)snprintf(name, sizeof name, "csv:%s/t.csv%s%s", dir,
                   label[0] != '\0' ? ":label=" : "", label);
    return loaded(name, NULL);
}

/* ---- tables -------------------------------------------------------------- */

static void test_table(void **state)
{
    /* column a of the training rows: 1 3 5 7, so mean 4, deviation sqrt 5 */
    static const double a[] = {-3, -1, 1, 3};
    static const uint32_t all[] = {0, 1, 2, 3}, first[] = {0};
    char dir[PATH_MAX];
    float x[8];
    uint8_t y[4];
    struct data *d;

    (void)state;
    make_folder(dir, "table");
    d = table_of(dir, HEAD ROWS5, "");
    assert_int_equal(d->train_count, 4);
    assert_int_equal(d->test_count, 1);
    assert_int_equal(d->features, 2);
    assert_int_equal(d->classes, 2);
    assert_string_equal(d->class_names, "x\ny");
    assert_string_equal(d->column_names, "a\nb");
    assert_true(fabs(d->mean_each[0] - 4) < 1e-12 && fabs(d->mean_each[1] - 5) < 1e-12);
    assert_true(fabs(d->deviation_each[0] - sqrt(5)) < 1e-12);
    data_gather(d, DATA_TRAIN, all, 4, x, y);
    for (int i = 0; i < 4; i++) {
        assert_true(fabs((double)x[2 * i] - a[i] / sqrt(5)) < 1e-6);
        assert_int_equal(y[i], i % 2);
    }
    data_gather(d, DATA_TEST, first, 1, x, y);
    assert_true(fabs((double)x[0] - 5 / sqrt(5)) < 1e-6);
    assert_int_equal(y[0], 0);
    data_free(d);
}

/* The same table, as editors and spreadsheets write it. */
static void test_spellings(void **state)
{
    static const char *const texts[] = {
        "\xef\xbb\xbf" HEAD ROWS5,
        "a,b,label\r\n1,2,x\r\n3,4,y\r\n5,6,x\r\n7,8,y\r\n9,10,x\r\n\r\n",
        "a;b;label\n1;2;x\n3;4;y\n5;6;x\n7;8;y\n9;10;x\n",
        "a\tb\tlabel\n1\t2\tx\n3\t4\ty\n5\t6\tx\n7\t8\ty\n9\t10\tx",
        "\"a\",\"b\",\"label\"\n\"1\",\"2\",\"x\"\n 3 , 4 "
        ",y\n5,6,\"x\"\n7,8,y\n9,1e1,x\n",
        HEAD "1.0,+2,x\n3,4.00,y\n\n5,.6e1,x\n7,80e-1,y\n9,10,x\n\n\n",
    };
    char dir[PATH_MAX];

    (void)state;
    make_folder(dir, "spellings");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct data *d = table_of(dir, texts[i], "");

        assert_int_equal(d->train_count, 4);
        assert_string_equal(d->class_names, "x\ny");
        assert_string_equal(d->column_names, "a\nb");
        assert_true(fabs(d->mean_each[0] - 4) < 1e-12);
        assert_true(fabs(d->mean_each[1] - 5) < 1e-12);
        data_free(d);
    }
}

static void test_labels(void **state)
{
    char dir[PATH_MAX];
    struct data *d;

    (void)state;
    make_folder(dir, "labels");
    /* numbers by their size, the column anywhere, quotes within quotes */
    d = table_of(dir, "y,v\n10,1\n9,2\n-1,3\n9.0,4\n10,5\n", "y");
    assert_string_equal(d->class_names, "-1\n9\n10");
    assert_int_equal(d->train_y[0], 2);
    assert_int_equal(d->train_y[1], 1);
    assert_int_equal(d->train_y[2], 0);
    assert_int_equal(d->train_y[3], 1);
    data_free(d);
    d = table_of(dir, "v,\"the, class\"\n1,\"a \"\"b\"\"\"\n2,c\n3,c\n4,c\n5,c\n",
                 "the, class");
    assert_string_equal(d->class_names, "a \"b\"\nc");
    data_free(d);
    /* A column that never changes is only moved. */
    d = table_of(dir, "v,w,label\n1,7,a\n2,7,b\n3,7,a\n4,7,b\n5,7,a\n", "");
    assert_true(d->deviation_each[1] == 1.0 && d->mean_each[1] == 7.0);
    assert_true(d->train_numbers[1] == 0.0F);
    data_free(d);
}

static void test_two_files(void **state)
{
    char dir[PATH_MAX], name[PATH_MAX + 8];
    struct data *d;

    (void)state;
    make_folder(dir, "two");
    (void)snprintf(name, sizeof name, "csv:%s", dir);
    write_text(dir, "train.csv", HEAD ROWS5, strlen(HEAD ROWS5));
    refused(name, NULL, GAPLESS_MISSING, "test.csv", "");
    write_text(dir, "test.csv", HEAD "1,2,y\n", strlen(HEAD "1,2,y\n"));
    d = loaded(name, NULL);
    assert_int_equal(d->train_count, 5);
    assert_int_equal(d->test_count, 1);
    data_free(d);
    d = loaded("csv:/elsewhere/two", root); /* --data-dir: where it is instead */
    assert_int_equal(d->train_count, 5);
    data_free(d);
    write_text(dir, "test.csv", HEAD "1,2,z\n", strlen(HEAD "1,2,z\n"));
    refused(name, NULL, GAPLESS_CORRUPT, "test.csv:2: the label 'z' is none of",
            "x, y");
    write_text(dir, "test.csv", "b,a,label\n1,2,x\n", strlen("b,a,label\n1,2,x\n"));
    refused(name, NULL, GAPLESS_CORRUPT, "test.csv:1: other columns than", "train.csv");
}

static const struct {
    const char *text, *label, *says;
} mistakes[] = {
    {"", "", ":1: the file is empty"},
    {HEAD, "", "0 rows for training"},
    {HEAD ROWS4, "", "there must be five"},
    {HEAD "1,2\n", "", ":2: 2 values, where the first line names 3 columns"},
    {HEAD ROWS4 "1,2,x,4\n", "", ":6: 4 values"},
    {HEAD "1,two,x\n", "", ":2: column b: 'two' is no finite number"},
    {HEAD "1,,x\n", "", ":2: column b has no value ('')"},
    {HEAD "1,NaN,x\n", "", ":2: column b has no value ('NaN')"},
    {HEAD "1,inf,x\n", "", "'inf' is no finite number"},
    {HEAD "1,1e39,x\n", "", "'1e39' is no finite number"},
    {HEAD "1,0x10,x\n", "", "'0x10' is no finite number"},
    {HEAD "1,2,\n", "", ":2: there is no label"},
    {HEAD "1,2,0.5\n", "", "the label 0.5 in column label is no class"},
    {HEAD "1,\"2,x\n", "", ":2: a quote is not closed"},
    {"\"a,b,label\n1,2,x\n", "", ":1: a quote is not closed"},
    {HEAD "1,\"2\"3,x\n", "", ":2: a quote is not closed"},
    {"a;b;label\n1,5;2;x\n", "", "3 values"},
    {"1,2,3\n4,5,6\n", "", ":1: the first line has numbers"},
    {"a,b,c\n1,2,3\n", "", ":1: no column is called label: name the one"},
    {"a,b,c\n1,2,3\n", "d", ":1: no column is called d; there are a, b, c"},
    {"a,label,label\n1,2,3\n", "", ":1: more than one column is called 'label'"},
    {"x,y,x,label\n1,2,3,a\n", "", ":1: more than one column is called 'x'"},
    {"x,y,\"x\",z\n1,2,3,a\n", "z", ":1: more than one column is called 'x'"},
    {"label\nx\n", "", ":1: 1 column"},
    {HEAD "1,2,x\n3,4,x\n5,6,x\n7,8,x\n9,10,x\n", "", "every label in column label is"},
};

static void test_mistakes(void **state)
{
    char dir[PATH_MAX], name[PATH_MAX + 64];

    (void)state;
    make_folder(dir, "mistakes");
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        write_text(dir, "t.csv", mistakes[i].text, strlen(mistakes[i].text));
        (void)snprintf(name, sizeof name, "csv:%s/t.csv%s%s", dir,
                       mistakes[i].label[0] != '\0' ? ":label=" : "",
                       mistakes[i].label);
        if (mistakes[i].text[0] == 'a' && mistakes[i].text[1] == ';')
            refused(name, NULL, GAPLESS_CORRUPT, "a decimal point", "'1,5'");
        else
            refused(name, NULL, GAPLESS_CORRUPT, mistakes[i].says, "t.csv");
    }
}

/* A NUL, a line without end, no regular file, too many classes, no path. */
static void test_strange_files(void **state)
{
    char dir[PATH_MAX], path[PATH_MAX], name[PATH_MAX + 64];
    size_t bytes = 5 << 20;
    char *large = malloc(bytes);
    FILE *file;

    (void)state;
    make_folder(dir, "strange");
    (void)snprintf(name, sizeof name, "csv:%s/t.csv", dir);
    write_text(dir, "t.csv", HEAD "1,2\0,x\n", sizeof(HEAD "1,2\0,x\n") - 1);
    refused(name, NULL, GAPLESS_CORRUPT, "t.csv", "NUL");
    assert_non_null(large);
    memset(large, '1', bytes);
    write_text(dir, "t.csv", large, bytes);
    free(large);
    refused(name, NULL, GAPLESS_CORRUPT, "t.csv", "line");
    path_of(path, dir, "t.csv");
    file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs("v,label\n", file);
    for (int i = 0; i < 300; i++)
        (void)fprintf(file, "1,%d\n", i);
    assert_int_equal(fclose(file), 0);
    refused(name, NULL, GAPLESS_CORRUPT, "more than 256 different labels", "label");
    assert_int_equal(unlink(path), 0);
    refused(name, NULL, GAPLESS_MISSING, "t.csv", "");
    assert_int_equal(mkfifo(path, 0600), 0); /* must not hang */
    refused(name, NULL, GAPLESS_INVALID, "t.csv", "");
    refused("csv:", NULL, GAPLESS_INVALID, "the path is missing", "");
    refused("csv:t.csv:label=", NULL, GAPLESS_INVALID, "names no column", "label=");
    refused("npy:", NULL, GAPLESS_INVALID, "the path is missing", "");
}

/* What a model knows of its data: other values, the same standard; and its classes. */
static void test_standard(void **state)
{
    static const double mean[] = {1, 2}, deviation[] = {2, 4};
    struct data_standard as = {.count = 2,
                               .classes = 3,
                               .mean = mean,
                               .deviation = deviation,
                               .class_names = "w\nx\ny",
                               .column_names = "a\nb"};
    struct gapless_error error = {0};
    char dir[PATH_MAX], name[PATH_MAX + 64];
    struct data *d = NULL;

    (void)state;
    make_folder(dir, "standard");
    write_text(dir, "t.csv", HEAD ROWS5, strlen(HEAD ROWS5));
    (void)snprintf(name, sizeof name, "csv:%s/t.csv", dir);
    assert_int_equal(data_load_as(name, NULL, &as, &d, &error), GAPLESS_OK);
    assert_int_equal(d->classes, 3);
    assert_int_equal(d->train_y[0], 1);
    assert_true(d->train_numbers[2] == 1.0F && d->train_numbers[3] == 0.5F);
    data_free(d);
    as.class_names = "v\nw\nx";
    assert_int_equal(data_load_as(name, NULL, &as, &d, &error), GAPLESS_CORRUPT);
    assert_non_null(strstr(error.text, "the label 'y' is none of the model's classes"));
    as.class_names = "w\nx\ny";
    as.column_names = "b\na";
    assert_int_equal(data_load_as(name, NULL, &as, &d, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "other columns"));
    as.column_names = "";
    as.count = 1;
    assert_int_equal(data_load_as(name, NULL, &as, &d, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "was trained on other data"));
}

/* ---- arrays -------------------------------------------------------------- */

static void write_npy(const char *dir, const char *name, const char *type,
                      const char *shape, const void *values, size_t bytes)
{
    char path[PATH_MAX], header[128];
    uint8_t start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 118, 0};
    FILE *to;

    (void)snprintf(header, sizeof header,
                   "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", type,
                   shape);
    path_of(path, dir, name);
    to = fopen(path, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(start, 1, sizeof start, to), sizeof start);
    assert_true(fprintf(to, "%-117s\n", header) == 118);
    assert_int_equal(fwrite(values, 1, bytes, to), bytes);
    assert_int_equal(fclose(to), 0);
}

static const float values[] = {1, 2, 3, 4, 5, 6, 7, 8};
static const int64_t labels[] = {0, 2, 1, 0};
static const uint8_t pixels[] = {0, 50, 100, 150, 200, 250, 255, 3};

static void write_arrays(const char *dir)
{
    write_npy(dir, "x_train.npy", "<f4", "4, 2", values, sizeof values);
    write_npy(dir, "y_train.npy", "<i8", "4,", labels, sizeof labels);
    write_npy(dir, "x_test.npy", "<f4", "2, 2", values, sizeof values / 2);
    write_npy(dir, "y_test.npy", "<i8", "2,", labels, sizeof labels / 2);
}

static void test_arrays(void **state)
{
    static const double doubles[] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const int16_t shorts[] = {-1, 2, 3, 4, 5, 6, 7, 8};
    char dir[PATH_MAX], name[PATH_MAX + 8];
    struct data *d;

    (void)state;
    make_folder(dir, "npy");
    (void)snprintf(name, sizeof name, "npy:%s", dir);
    write_arrays(dir);
    d = loaded(name, NULL);
    assert_int_equal(d->train_count, 4);
    assert_int_equal(d->features, 2);
    assert_int_equal(d->classes, 3);
    assert_true(fabs(d->mean_each[1] - 5) < 1e-12);
    assert_true(fabs((double)d->train_numbers[0] + 3 / sqrt(5)) < 1e-6);
    assert_int_equal(d->train_y[1], 2);
    data_free(d);
    write_npy(dir, "x_train.npy", "<f8", "4, 1, 2", doubles, sizeof doubles);
    data_free(loaded(name, NULL));
    write_npy(dir, "x_train.npy", "<i2", "4, 2", shorts, sizeof shorts);
    d = loaded(name, NULL);
    assert_true(fabs(d->mean_each[0] - 3.5) < 1e-12); /* -1 3 5 7 */
    data_free(d);
    /* Bytes are pixels. */
    write_npy(dir, "x_train.npy", "|u1", "4, 2", pixels, sizeof pixels);
    write_npy(dir, "x_test.npy", "|u1", "2, 2", pixels, sizeof pixels / 2);
    d = loaded(name, NULL);
    assert_null(d->train_numbers);
    assert_memory_equal(d->train_x, pixels, sizeof pixels);
    assert_string_equal(d->class_names, "");
    data_free(d);
}

static void test_array_mistakes(void **state)
{
    static const float odd[] = {1, 2, (float)NAN, 4, 5, 6, 7, 8};
    static const int64_t wrong[] = {0, 2, -1, 0}, many[] = {0, 1, 256, 0};
    static const float half[] = {0, 1, 0.5F, 0};
    char dir[PATH_MAX], name[PATH_MAX + 8];

    (void)state;
    make_folder(dir, "npy-mistakes");
    (void)snprintf(name, sizeof name, "npy:%s", dir);
    refused(name, NULL, GAPLESS_MISSING, "x_train.npy", "");
    write_arrays(dir);
#define BAD(file, type, shape, what, bytes, says)                                      \
    write_npy(dir, file, type, shape, what, bytes);                                    \
    refused(name, NULL, GAPLESS_CORRUPT, file, says);                                  \
    write_arrays(dir)
    BAD("x_train.npy", "<f4", "4, 2", odd, sizeof odd, "number 0 of sample 1 is nan");
    BAD("x_train.npy", "<f4", "4, 3", values, sizeof values, "truncated");
    BAD("x_train.npy", "<f4", "3, 2", values, sizeof values, "longer than");
    BAD("x_train.npy", ">f4", "4, 2", values, sizeof values, "big-endian");
    BAD("x_train.npy", "<f2", "8, 2", values, sizeof values, "float32");
    BAD("x_train.npy", "|O", "4, 2", values, sizeof values, "no plain numbers");
    BAD("x_train.npy", "<f4", "4, two", values, sizeof values, "makes no sense");
    BAD("x_train.npy", "<f4", "0, 2", values, 0, "no samples");
    BAD("x_train.npy", "<f4", "1, 1, 1, 4, 2", values, sizeof values, "4 dimensions");
    BAD("y_train.npy", "<i8", "4,", wrong, sizeof wrong, "sample 2 is -1");
    BAD("y_train.npy", "<i8", "4,", many, sizeof many, "sample 2 is 256");
    BAD("y_train.npy", "<f4", "4,", half, sizeof half, "sample 2 is 0.5");
    BAD("y_train.npy", "<i8", "2, 2", labels, sizeof labels, "labels");
    BAD("y_test.npy", "<i8", "3,", labels, 24, "3 labels for 2 samples");
    BAD("x_test.npy", "|u1", "2, 2", pixels, 4, "bytes, the training part");
    write_text(dir, "x_train.npy", "hello", 5);
    refused(name, NULL, GAPLESS_CORRUPT, "does not begin as an npy file",
            "x_train.npy");
}

/* ---- idx ----------------------------------------------------------------- */

static void test_idx(void **state)
{
    char dir[PATH_MAX], name[PATH_MAX + 8];
    struct file few;
    struct data *d;

    (void)state;
    make_folder(dir, "own-idx");
    (void)snprintf(name, sizeof name, "idx:%s", dir);
    write_files(dir, idx, 4);
    d = loaded(name, NULL);
    assert_int_equal(d->classes, 10);
    data_free(d);
    few = idx[1];
    few.bytes[8] = 77; /* more classes than digits have */
    remove_file(dir, &idx[1]);
    write_file(dir, &few);
    d = loaded(name, NULL);
    assert_int_equal(d->classes, 78);
    data_free(d);
}

/* What is not there, or is something else, is said before what it should hold. */
static void test_no_such_path(void **state)
{
    char dir[PATH_MAX], name[PATH_MAX + 16];

    (void)state;
    make_folder(dir, "paths");
    refused("idx:/nowhere", NULL, GAPLESS_MISSING, "/nowhere does not exist",
            "a folder with train-images-idx3-ubyte");
    refused("npy:/nowhere", NULL, GAPLESS_MISSING, "/nowhere does not exist",
            "a folder with x_train.npy");
    refused("csv:/nowhere", NULL, GAPLESS_MISSING, "/nowhere does not exist",
            "csv:FILE is a table");
    refused("idx:/elsewhere", "/nowhere", GAPLESS_MISSING, "/nowhere does not exist",
            "");
    refused("csv:/elsewhere/t.csv", dir, GAPLESS_MISSING, "paths/t.csv does not exist",
            "");
    refused("mnist", "/nowhere", GAPLESS_MISSING, "/nowhere does not exist",
            "the files of mnist");
    write_text(dir, "t.csv", HEAD, strlen(HEAD));
    (void)snprintf(name, sizeof name, "idx:%s/t.csv", dir);
    refused(name, NULL, GAPLESS_INVALID, "t.csv is no folder", "idx:DIR is a folder");
    (void)snprintf(name, sizeof name, "npy:%s/t.csv", dir);
    refused(name, NULL, GAPLESS_INVALID, "t.csv is no folder", "npy:DIR is a folder");
    (void)snprintf(name, sizeof name, "csv:%s/t.csv/x", dir);
    refused(name, NULL, GAPLESS_MISSING, "t.csv/x does not exist", "");
    (void)snprintf(name, sizeof name, "idx:%s", dir);
    refused(name, NULL, GAPLESS_MISSING, "has none of the files",
            "train-images-idx3-ubyte");
}

static void test_absolute(void **state)
{
    char dir[PATH_MAX], was[PATH_MAX], name[DATA_NAME_MAX], wanted[PATH_MAX + 32];

    (void)state;
    make_folder(dir, "absolute");
    write_text(dir, "t.csv", HEAD, strlen(HEAD));
    assert_non_null(getcwd(was, sizeof was));
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(data_absolute("csv:t.csv:label=a b", name, NULL), GAPLESS_OK);
    (void)snprintf(wanted, sizeof wanted, "csv:%s/t.csv:label=a b", dir);
    assert_string_equal(name, wanted);
    assert_int_equal(data_absolute("idx:.", name, NULL), GAPLESS_OK);
    (void)snprintf(wanted, sizeof wanted, "idx:%s", dir);
    assert_string_equal(name, wanted);
    assert_int_equal(data_absolute("mnist", name, NULL), GAPLESS_OK);
    assert_string_equal(name, "mnist");
    assert_int_equal(data_absolute("npy:not/there", name, NULL), GAPLESS_OK);
    assert_string_equal(name, "npy:not/there");
    assert_int_equal(chdir(was), 0);
}

/* Another process gets all of it. */
static void test_shared(void **state)
{
    char dir[PATH_MAX];
    struct data *d, *again = NULL;
    int fd;

    (void)state;
    make_folder(dir, "shared");
    d = table_of(dir, HEAD ROWS5, "");
    assert_int_equal(data_share(d, &fd, NULL), GAPLESS_OK);
    assert_int_equal(data_open_fd(fd, &again, NULL), GAPLESS_OK);
    assert_int_equal(close(fd), 0);
    assert_string_equal(again->class_names, "x\ny");
    assert_string_equal(again->column_names, "a\nb");
    assert_memory_equal(again->train_numbers, d->train_numbers, 8 * sizeof(float));
    assert_memory_equal(again->mean_each, d->mean_each, 2 * sizeof(double));
    assert_null(again->train_x);
    data_free(again);
    data_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),          cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_labels),         cmocka_unit_test(test_two_files),
        cmocka_unit_test(test_mistakes),       cmocka_unit_test(test_strange_files),
        cmocka_unit_test(test_standard),       cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_array_mistakes), cmocka_unit_test(test_idx),
        cmocka_unit_test(test_absolute),       cmocka_unit_test(test_shared),
        cmocka_unit_test(test_no_such_path),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
