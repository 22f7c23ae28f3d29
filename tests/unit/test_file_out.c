/* The one writer of whole files: complete or as it was, synced, and nothing but a regular
 * file is replaced.
 * ctest: link=-Wl,--wrap=write,--wrap=fsync,--wrap=rename,--wrap=fallocate */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/file_out.h"

#include <gapless/gapless.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64], path[128];
static struct {
    size_t at_most; /* bytes that a write takes; 0: all */
    size_t room;    /* bytes until a write takes none; SIZE_MAX: no end */
    int reserve_os; /* of fallocate; 0: as it is */
    char order[16]; /* w, f (file), r (rename), d (folder) */
} disk;

ssize_t __real_write(int fd, const void *bytes, size_t count);
ssize_t __wrap_write(int fd, const void *bytes, size_t count);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __real_fallocate(int fd, int mode, off_t from, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t from, off_t bytes);

static void note(char what)
{
    size_t used = strlen(disk.order);

    if (used + 1 < sizeof disk.order && (used == 0 || disk.order[used - 1] != what))
        disk.order[used] = what;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t count)
{
    if (fd <= STDERR_FILENO)
        return __real_write(fd, bytes, count);
    note('w');
    if (disk.at_most != 0 && count > disk.at_most)
        count = disk.at_most;
    if (count > disk.room)
        count = disk.room;
    disk.room -= disk.room != SIZE_MAX ? count : 0;
    return count == 0 ? 0 : __real_write(fd, bytes, count);
}

int __wrap_fsync(int fd)
{
    struct stat is;

    assert_int_equal(fstat(fd, &is), 0);
    note(S_ISDIR(is.st_mode) ? 'd' : 'f');
    return __real_fsync(fd);
}

int __wrap_rename(const char *from, const char *to)
{
    note('r');
    return __real_rename(from, to);
}

int __wrap_fallocate(int fd, int mode, off_t from, off_t bytes)
{
    if (disk.reserve_os == 0)
        return __real_fallocate(fd, mode, from, bytes);
    errno = disk.reserve_os;
    return -1;
}

static void put(const char *text)
{
    assert_int_equal(file_out_whole(path, text, strlen(text), NULL), GAPLESS_OK);
}

static void assert_holds(const char *name, const char *text)
{
    char found[256];
    int fd = open(name, O_RDONLY);
    ssize_t bytes = read(fd, found, sizeof found - 1);

    assert_true(bytes >= 0);
    found[bytes] = '\0';
    assert_string_equal(found, text);
    assert_int_equal(close(fd), 0);
}

static int set_up(void **state)
{
    (void)state;
    memset(&disk, 0, sizeof disk);
    disk.room = SIZE_MAX;
    (void)snprintf(folder, sizeof folder, "/tmp/gapless-test-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(path, sizeof path, "%s/out", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder); /* fails if a temporary file was left */
}

static void test_file_then_name_then_folder(void **state)
{
    (void)state;
    put("whole");
    assert_holds(path, "whole");
    assert_string_equal(disk.order, "wfrd");
}

static void test_short_writes_go_on(void **state)
{
    (void)state;
    disk.at_most = 3;
    put("in pieces of three");
    assert_holds(path, "in pieces of three");
}

/* Half of it, and then nothing more: not a file of a half. */
static void test_no_room(void **state)
{
    struct gapless_error e = {0};

    (void)state;
    put("old");
    disk.room = 4;
    assert_int_equal(file_out_whole(path, "new, long", 9, &e), GAPLESS_IO);
    assert_non_null(strstr(e.text, strerror(ENOSPC)));
    assert_holds(path, "old");
    disk.room = SIZE_MAX;
    disk.reserve_os = ENOSPC; /* found before anything is written */
    memset(disk.order, 0, sizeof disk.order);
    assert_int_equal(file_out_whole(path, "new", 3, &e), GAPLESS_IO);
    assert_string_equal(disk.order, "");
    assert_holds(path, "old");
    disk.reserve_os = EOPNOTSUPP; /* a file system that cannot */
    put("new");
    assert_holds(path, "new");
}

/* More is asked for than is written: the file is as long as what was. */
static void test_room_is_given_back(void **state)
{
    struct file_out file;
    struct stat is;

    (void)state;
    assert_int_equal(file_out_open(&file, path, 100000, NULL), GAPLESS_OK);
    file_out_write(&file, "abc", 3);
    assert_int_equal(file_out_close(&file, NULL), GAPLESS_OK);
    assert_int_equal(stat(path, &is), 0);
    assert_int_equal(is.st_size, 3);
}

static void test_links_stay(void **state)
{
    char link[160];
    struct gapless_error e = {0};
    struct stat is;

    (void)state;
    put("old");
    assert_int_equal(chmod(path, 0640), 0);
    (void)snprintf(link, sizeof link, "%s/link", folder);
    assert_int_equal(symlink("out", link), 0);
    assert_int_equal(file_out_whole(link, "new", 3, NULL), GAPLESS_OK);
    assert_int_equal(lstat(link, &is), 0);
    assert_true(S_ISLNK(is.st_mode));
    assert_holds(path, "new");
    assert_int_equal(stat(path, &is), 0);
    assert_int_equal(is.st_mode & 0777, 0640);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(file_out_whole(link, "new", 3, &e), GAPLESS_INVALID);
    assert_non_null(strstr(e.text, "leads nowhere"));
    assert_int_equal(lstat(link, &is), 0);
    assert_true(S_ISLNK(is.st_mode));
    assert_int_equal(unlink(link), 0);
}

static void test_others_stay(void **state)
{
    struct gapless_error e = {0};
    struct stat is;

    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(file_out_whole(path, "new", 3, &e), GAPLESS_INVALID);
    assert_non_null(strstr(e.text, path));
    assert_int_equal(lstat(path, &is), 0);
    assert_true(S_ISFIFO(is.st_mode));
    assert_int_equal(file_out_whole("/dev/null", "new", 3, &e), GAPLESS_INVALID);
    assert_int_equal(file_out_whole(folder, "new", 3, &e), GAPLESS_INVALID);
}

static void test_a_full_device(void **state)
{
    int fd = open("/dev/full", O_WRONLY);
    struct file_out file = file_out_pipe(fd, "the standard output");
    struct gapless_error e = {0};

    (void)state;
    assert_true(fd > STDERR_FILENO);
    file_out_write(&file, "new", 3);
    assert_int_equal(file_out_close(&file, &e), GAPLESS_IO);
    assert_non_null(strstr(e.text, "the standard output"));
    assert_int_equal(close(fd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_file_then_name_then_folder, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_short_writes_go_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_room_is_given_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_links_stay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_others_stay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_full_device, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
