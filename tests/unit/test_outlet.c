/* Text for a reader that does not read: nothing ever waits, what is taken arrives whole and
 * in order, and what others share with this process stays in the mode it had. */
#include "cluster/terminal/outlet.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#define PIECE 3000u

static struct outlet outlet;
static char piece[PIECE];

/* Pieces begin with their number: "000017", then dots. */
static void number_piece(unsigned number)
{
    char text[16];

    memset(piece, '.', sizeof piece);
    (void)snprintf(text, sizeof text, "%06u", number);
    memcpy(piece, text, 6);
}

static void begin(int fd)
{
    memset(&outlet, 0, sizeof outlet);
    outlet_open(&outlet, fd);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0); /* what others have, too */
}

/* Reads what there is, into `got`; without waiting. */
static size_t read_there(int fd, char *got, size_t used, size_t max)
{
    ssize_t bytes;

    assert_true(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
    while ((bytes = read(fd, got + used, max - used)) > 0)
        used += (size_t)bytes;
    return used;
}

/* Writes to `to`, whose other end is `from`, until it is full and after that. A write that
 * waited would never return: nobody reads. */
static void check_unread(int to, int from)
{
    static char got[1u << 22];
    unsigned taken = 0, refused = 0;
    size_t used = 0, whole;

    begin(to);
    for (unsigned i = 0; i < 500; i++) {
        number_piece(taken);
        if (outlet_write(&outlet, piece, sizeof piece))
            taken++;
        else
            refused++;
    }
    assert_true(taken > 0 && refused > 0);
    assert_int_equal(fcntl(to, F_GETFL) & O_NONBLOCK, 0);
    number_piece(taken);
    assert_true(
        outlet_add(&outlet, piece, sizeof piece)); /* a line has room behind it */
    taken++;
    assert_false(outlet_flush(&outlet, 20));
    whole = taken * sizeof piece;
    for (unsigned round = 0; round < 1000 && used < whole; round++) {
        used = read_there(from, got, used, sizeof got);
        (void)outlet_flush(&outlet, 1);
    }
    assert_int_equal(used, whole);
    assert_true(outlet_flush(&outlet, 0));
    for (unsigned i = 0; i < taken; i++) {
        number_piece(i);
        assert_memory_equal(got + i * sizeof piece, piece, sizeof piece);
    }
    assert_int_equal(fcntl(to, F_GETFL) & O_NONBLOCK, 0);
}

static void test_pipe(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    check_unread(ends[1], ends[0]);
    assert_true(outlet.flags < 0); /* a description of its own */
    (void)close(outlet.fd);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Cannot be opened again. */
static void test_socket(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    check_unread(ends[1], ends[0]);
    assert_int_equal(outlet.fd, ends[1]);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void test_terminal(void **state)
{
    struct termios raw;
    int master, slave;

    (void)state;
    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    assert_int_equal(tcgetattr(slave, &raw), 0);
    cfmakeraw(&raw); /* the same bytes at both ends */
    assert_int_equal(tcsetattr(slave, TCSANOW, &raw), 0);
    check_unread(slave, master);
    assert_true(outlet.flags < 0);
    (void)close(outlet.fd);
    (void)close(slave);
    (void)close(master);
}

/* A file has no second beginning. */
static void test_file(void **state)
{
    char path[] = "/tmp/gapless-outlet-XXXXXX", got[16] = "";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "before ", 7), 7);
    begin(fd);
    assert_true(outlet_write(&outlet, "behind", 6));
    assert_int_equal(pread(fd, got, sizeof got - 1, 0), 13);
    assert_string_equal(got, "before behind");
    (void)close(fd);
    assert_int_equal(unlink(path), 0);
}

/* Neither a reader that went away nor a descriptor that is none is waited for. */
static void test_nobody(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    begin(ends[1]);
    (void)close(ends[0]);
    assert_true(outlet_write(&outlet, "x", 1));
    assert_true(outlet_flush(&outlet, 0));
    (void)close(outlet.fd);
    (void)close(ends[1]);
    memset(&outlet, 0, sizeof outlet);
    outlet_open(&outlet, ends[1]);
    assert_true(outlet_write(&outlet, "x", 1));
    assert_true(outlet_flush(&outlet, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipe),     cmocka_unit_test(test_socket),
        cmocka_unit_test(test_terminal), cmocka_unit_test(test_file),
        cmocka_unit_test(test_nobody),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
