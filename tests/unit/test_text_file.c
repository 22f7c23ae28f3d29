/* The reader of text files: what it takes, and each kind of bad file, refused at once with
 * file and line. */
#include "engine/base/text_file.h"
#include "engine/run/record.h"

#include <gapless/status.h>

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/gapless-text-XXXXXX", path[64];

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(folder);
}

static void write_bytes(const void *bytes, size_t count)
{
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* Opens with lines of at most 8 bytes, reads until the status is not GAPLESS_OK, returns
 * it and removes the file. ret: the lines, a '|' behind each. */
static int read_all(char *ret, size_t max, struct gapless_error *error)
{
    struct text_file file;
    size_t used = 0;
    char *line;
    int status = text_file_open(&file, path, "the test", 100, 8, error);

    ret[0] = '\0';
    while (status == GAPLESS_OK &&
           (status = text_file_line(&file, &line, error)) == GAPLESS_OK)
        used += (size_t)snprintf(ret + used, max - used, "%s|", line);
    text_file_close(&file);
    (void)unlink(path);
    return status;
}

static void takes(const char *bytes, const char *lines)
{
    char got[200];

    write_bytes(bytes, strlen(bytes));
    assert_int_equal(read_all(got, sizeof got, NULL), GAPLESS_STOPPED);
    assert_string_equal(got, lines);
}

static void test_taken(void **state)
{
    (void)state;
    takes("", "");
    takes("\n", "|");
    takes("a\nbc\n", "a|bc|");
    takes("a\nbc", "a|bc|");
    takes("\xef\xbb\xbf"
          "a\nb",
          "a|b|");
    takes("\xef\xbb\xbf", "");
    takes("a\r\n\r\nb\r\n", "a||b|");
    takes("a\rb\n", "a\rb|");
    takes("12345678\n12345678\r\n12345678", "12345678|12345678|12345678|");
    takes("\xc3\xa4\n", "\xc3\xa4|");
}

static void refuses(const void *bytes, size_t count, int wanted, const char *text)
{
    struct gapless_error error = {0};
    char got[200];

    write_bytes(bytes, count);
    assert_int_equal(read_all(got, sizeof got, &error), wanted);
    if (strstr(error.text, text) == NULL || strstr(error.text, path) == NULL)
        fail_msg("'%s' and not '%s'", error.text, text);
}

static void test_contents(void **state)
{
    char large[101];

    (void)state;
    refuses("a\nb\0c\nd\n", 8, GAPLESS_CORRUPT, ":2: there is a NUL");
    refuses("\0", 1, GAPLESS_CORRUPT, ":1: there is a NUL");
    refuses("a\nb\nc\n123456789\n", 16, GAPLESS_CORRUPT, ":4: this line has 9 bytes");
    refuses("123456789", 9, GAPLESS_CORRUPT, "at most 8");
    refuses("\xff\xfe\x61\0", 4, GAPLESS_CORRUPT, ":1: this is UTF-16");
    refuses("\xfe\xff\0\x61", 4, GAPLESS_CORRUPT, "save it as UTF-8");
    memset(large, '\n', sizeof large);
    refuses(large, sizeof large, GAPLESS_INVALID,
            "has 101 bytes; the test has at most 100");
}

static void test_kinds(void **state)
{
    struct gapless_error error = {0};
    char got[200];

    (void)state;
    assert_int_equal(read_all(got, sizeof got, &error), GAPLESS_MISSING);
    assert_non_null(strstr(error.text, "cannot read the test /tmp/gapless-text-"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(read_all(got, sizeof got, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "is a pipe, no regular file: save the test"));
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(read_all(got, sizeof got, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "is a folder"));
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink("/dev/zero", path), 0);
    assert_int_equal(read_all(got, sizeof got, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "is a device"));
    assert_int_equal(symlink(path, path), 0); /* in a circle */
    assert_int_equal(read_all(got, sizeof got, &error), GAPLESS_IO);
}

static void test_cut_off(void **state)
{
    struct text_file file;
    char *line;

    (void)state;
    write_bytes("a\nb", 3);
    assert_int_equal(text_file_open(&file, path, "x", 10, 10, NULL), GAPLESS_OK);
    assert_int_equal(text_file_line(&file, &line, NULL), GAPLESS_OK);
    assert_true(file.ended && file.line == 1);
    assert_int_equal(text_file_line(&file, &line, NULL), GAPLESS_OK);
    assert_true(!file.ended && file.line == 2);
    assert_int_equal(text_file_line(&file, &line, NULL), GAPLESS_STOPPED);
    text_file_close(&file);
    text_file_close(&file);
    (void)unlink(path);
}

static void test_all(void **state)
{
    struct gapless_error error = {0};
    char *text;
    size_t bytes;

    (void)state;
    write_bytes("\xef\xbb\xbf{\r\n}", 7);
    assert_int_equal(text_file_all(path, "x", 10, &text, &bytes, &error), GAPLESS_OK);
    assert_int_equal(bytes, 4);
    assert_string_equal(text, "{\r\n}");
    free(text);
    write_bytes("", 0);
    assert_int_equal(text_file_all(path, "x", 10, &text, &bytes, &error), GAPLESS_OK);
    assert_int_equal(bytes, 0);
    assert_string_equal(text, "");
    free(text);
    write_bytes("a\0b", 3);
    assert_int_equal(text_file_all(path, "x", 10, &text, &bytes, &error),
                     GAPLESS_CORRUPT);
    write_bytes("0123456789a", 11);
    assert_int_equal(text_file_all(path, "x", 10, &text, &bytes, &error),
                     GAPLESS_INVALID);
    (void)unlink(path);
}

/* A record that went through an editor of another system; and its bad kin. */
static void test_record(void **state)
{
    static const char head[] = "\xef\xbb\xbfgapless-record 1\r\n"
                               "model 4 parameters 1 tensors hash 1f\r\n"
                               "run 8 gradients 2 workers 0 wait 1 ranges\r\n"
                               "begin\r\n";
    struct gapless_error error = {0};
    struct record *record;
    char text[2000];
    int used;

    (void)state;
    (void)snprintf(text, sizeof text, "%shello 0 1\r\ngradient 5 1 0 0\r\ntick 6",
                   head);
    write_bytes(text, strlen(text));
    if (record_read(path, &record, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    assert_int_equal(record->count, 2); /* the last line was cut off */
    assert_int_equal(record->events[1].line, 6);
    record_free(record);
    used = snprintf(text, sizeof text, "%shello 0 1\nhello ", head);
    memcpy(text + used, "\0\n", 2);
    write_bytes(text, (size_t)used + 2);
    assert_int_equal(record_read(path, &record, &error), GAPLESS_CORRUPT);
    assert_non_null(strstr(error.text, ":6: there is a NUL"));
    (void)snprintf(text, sizeof text, "%s%01100d\n", head, 1);
    write_bytes(text, strlen(text));
    assert_int_equal(record_read(path, &record, &error), GAPLESS_CORRUPT);
    assert_non_null(strstr(error.text, ":5: this line has 1100 bytes"));
    write_bytes("", 0);
    assert_int_equal(record_read(path, &record, &error), GAPLESS_CORRUPT);
    write_bytes(head, sizeof head - 1 - 7);
    assert_int_equal(record_read(path, &record, &error), GAPLESS_CORRUPT);
    assert_non_null(strstr(error.text, "within its head"));
    (void)unlink(path);
    assert_int_equal(record_read(folder, &record, &error), GAPLESS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taken), cmocka_unit_test(test_contents),
        cmocka_unit_test(test_kinds), cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_all),   cmocka_unit_test(test_record),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
