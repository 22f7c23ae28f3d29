/* What a run over a network is told: addresses, the token's file, which interfaces can
 * do RDMA; and when a lost master is looked for again. */
#include "cluster/task/network.h"
#include "cluster/run/reconnect.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- addresses ----------------------------------------------------------- */

static void test_transports(void **state)
{
    (void)state;
    assert_string_equal(address_transport("shm:x"), "shm");
    assert_string_equal(address_transport("verbs:"), "verbs");
    assert_null(address_transport("shmx:y"));
    assert_null(address_transport("verb:y"));
    assert_null(address_transport("10.0.0.1:7471"));
    assert_null(address_transport(""));
}

static void test_shm_addresses(void **state)
{
    struct parse_error reason;
    char text[ADDRESS_MAX];

    (void)state;
    assert_true(address_check("shm:demo", &reason));
    assert_true(address_check("shm:/tmp/a b", &reason));
    assert_false(address_check("shm:", &reason));
    assert_false(address_check("shm", &reason));
    assert_non_null(strstr(reason.text, "must be shm:NAME"));
    assert_true(address_join("shm", "demo", text, &reason));
    assert_string_equal(text, "shm:demo");
    assert_false(address_join("shm", "", text, &reason));
}

#if GAPLESS_HAVE_VERBS
static void check(const char *text, const char *said)
{
    struct parse_error reason = {""};
    bool good = address_check(text, &reason);

    if (good != (said == NULL))
        fail_msg("'%s': %s", text, good ? "was taken" : reason.text);
    if (said != NULL && strstr(reason.text, said) == NULL)
        fail_msg("'%s': '%s', not '%s'", text, reason.text, said);
}

static void test_verbs_addresses(void **state)
{
    char many[ADDRESS_MAX * 2] = "verbs:", text[ADDRESS_MAX] = "untouched";
    struct parse_error reason;

    (void)state;
    check("verbs:10.0.0.1:7471", NULL);
    check("verbs:node-1.cluster_2.example:1", NULL);
    check("verbs:10.0.0.1:65535,10.0.0.2:1", NULL);
    check("verbs:[2001:db8::1]:7471", NULL);
    check("verbs:[fe80::1%ib0]:7471,10.0.0.1:7471", NULL);
    check("verbs:[::]:7471", NULL);
    check("verbs:10.0.0.1", NULL);
    check("verbs:[2001:db8::1],node2", NULL);
    check("verbs:10.0.0.1:", "no port behind it");
    check("verbs:10.0.0.1:0", "from 1 to 65535");
    check("verbs:10.0.0.1:65536", "from 1 to 65535");
    check("verbs:10.0.0.1:7471x", "from 1 to 65535");
    check("verbs:10.0.0.1:-1", "from 1 to 65535");
    check("verbs:10.0.0.1: 1", "from 1 to 65535");
    check("verbs:10.0.0.1:1k", "from 1 to 65535");
    check("verbs:10.0.0.1:99999999999999999999", "from 1 to 65535");
    check("verbs:10.0.0.256:1", "neither an address nor a host name");
    check("verbs:10.0.0:1", "neither an address nor a host name");
    check("verbs:a b:1", "neither an address nor a host name");
    check("verbs:-x:1", "neither an address nor a host name");
    check("verbs::1", "no host");
    check("verbs:2001:db8::1:7471", "brackets");
    check("verbs:[2001:db8::1:7471", "[IPV6]:PORT");
    check("verbs:[2001:db8::1]7471", "[IPV6]:PORT");
    check("verbs:[10.0.0.1]:7471", "no IPv6 address");
    check("verbs:[]:7471", "no IPv6 address");
    check("verbs:[fe80::1]:7471", "name the interface");
    check("verbs:[fe80::1%]:7471", "no interface");
    check("verbs:[fe80::1%averylonginterfacename]:7471", "no interface");
    check("verbs:10.0.0.1:1,", "no host");
    check("verbs:,10.0.0.1:1", "no host");
    for (int i = 0; i < 9; i++)
        (void)snprintf(many + strlen(many), sizeof many - strlen(many), "%sh%d:1",
                       i > 0 ? "," : "", i);
    check(many, "more than 8 hosts");
    memset(many + 6, 'a', sizeof many - 7);
    many[sizeof many - 1] = '\0';
    check(many, "longer than");
    many[6 + 300] = '\0';
    check(many, "too long");

    assert_false(address_join("verbs", "a b", text, &reason));
    assert_string_equal(text, "untouched");
    assert_true(
        address_join("verbs", "node1,[2001:db8::1]:9,[fe80::2%eth0]", text, &reason));
    assert_string_equal(text, "verbs:node1:7471,[2001:db8::1]:9,[fe80::2%eth0]:7471");
}

static void test_wildcards(void **state)
{
    (void)state;
    assert_true(address_is_wildcard("verbs:0.0.0.0:7471"));
    assert_true(address_is_wildcard("verbs:10.0.0.1:1,[::]:7471"));
    assert_false(address_is_wildcard("verbs:10.0.0.1:7471"));
    assert_false(address_is_wildcard("shm:0.0.0.0"));
}
#else
static void test_verbs_addresses(void **state)
{
    struct parse_error reason;

    (void)state;
    assert_false(address_check("verbs:10.0.0.1:7471", &reason));
    assert_non_null(strstr(reason.text, "-DGAPLESS_VERBS=ON and build"));
}

static void test_wildcards(void **state)
{
    (void)state;
    assert_false(address_is_wildcard("shm:0.0.0.0"));
}
#endif

/* ---- the token ----------------------------------------------------------- */

static char folder[] = "/tmp/gapless-test-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/gapless-test-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(path, sizeof path, "%s/token", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder);
}

static char written[NETWORK_TOKEN_MAX + 3];

static void write_token(const char *text, size_t bytes, mode_t mode)
{
    int fd;

    memcpy(written, text, bytes);
    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, bytes), (ssize_t)bytes);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void refused(const char *at, const char *said)
{
    unsigned char token[NETWORK_TOKEN_MAX];
    size_t bytes = 77;
    struct gapless_error error = {0};

    assert_int_equal(network_token(at, token, &bytes, &error), GAPLESS_INVALID);
    if (strstr(error.text, said) == NULL)
        fail_msg("'%s', not '%s'", error.text, said);
    assert_int_equal(bytes, 77);
}

static void taken(size_t expected)
{
    unsigned char token[NETWORK_TOKEN_MAX];
    size_t bytes = 0;
    struct gapless_error error = {0};

    if (network_token(path, token, &bytes, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    assert_int_equal(bytes, expected);
    assert_memory_equal(token, written, bytes);
}

static void test_token_modes(void **state)
{
    static const mode_t wrong[] = {0604, 0640, 0666, 0700, 0620, 0602, 0644, 0444};
    static const char text[] = "what nobody can guestttttttttttt\n";
    char fifo[80];

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        write_token(text, 33, wrong[i]);
        refused(path, "chmod 600 /tmp/gapless-test-");
    }
    write_token(text, 33, 0600);
    taken(32);
    write_token(text, 33, 0400);
    taken(32);
    refused("/tmp/gapless-test-nowhere/token", "head -c 32 /dev/urandom | base64");
    refused(folder, "no regular file");
    refused("/dev/null", "no regular file");
    (void)snprintf(fifo, sizeof fifo, "%s/fifo", folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    refused(fifo, "no regular file"); /* and nobody waited for a writer */
    assert_int_equal(unlink(fifo), 0);
}

static void test_token_owner(void **state)
{
    (void)state;
    write_token("what nobody can guess", 20, 0600);
    if (geteuid() != 0) {
        (void)printf("only root can give files away: not tested\n");
        return;
    }
    assert_int_equal(chown(path, 12345, 12345), 0);
    refused(path, "belongs to user 12345");
}

static void test_tokens_that_can_be_guessed(void **state)
{
    static const char *const bad[] = {"tttttttttttttttttttt", "passwordpassword",
                                      "1234567812345678",     "abababababababab",
                                      "0000000000000001",     "0123456789abcdef"};
    static const char *const good[] = {"4f1c09be73d2a856", "Zm9vYmFyYmF6cXV4",
                                       "what nobody can guess"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_token(bad[i], strlen(bad[i]), 0600);
        refused(path, "can be guessed");
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        write_token(good[i], strlen(good[i]), 0600);
        taken(strlen(good[i]));
    }
}

static void test_token_sizes(void **state)
{
    static char text[NETWORK_TOKEN_MAX + 3];

    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i * i * 7 % 26);
    write_token(text, 0, 0600);
    refused(path, "holds 0 bytes");
    write_token(text, 15, 0600);
    refused(path, "holds 15 bytes");
    write_token(text, 16, 0600);
    taken(16);
    text[15] = '\n'; /* the end of the line does not count */
    write_token(text, 16, 0600);
    refused(path, "holds 15 bytes");
    text[15] = '?';
    text[16] = text[17] = '\n'; /* one of two */
    write_token(text, 18, 0600);
    taken(17);
    text[16] = '\r'; /* the end of a line of another system */
    write_token(text, 18, 0600);
    taken(16);
    text[16] = text[17] = '?';
    write_token(text, NETWORK_TOKEN_MAX, 0600);
    taken(NETWORK_TOKEN_MAX);
    write_token(text, NETWORK_TOKEN_MAX + 1, 0600);
    refused(path, "more than 4096 bytes");
    text[NETWORK_TOKEN_MAX] = '\n';
    write_token(text, NETWORK_TOKEN_MAX + 1, 0600);
    taken(NETWORK_TOKEN_MAX);
    write_token(text, NETWORK_TOKEN_MAX + 2, 0600);
    refused(path, "more than 4096 bytes");
}

static void test_token_new(void **state)
{
    unsigned char token[NETWORK_TOKEN_MAX], again[NETWORK_TOKEN_MAX];
    struct gapless_error error = {0};
    size_t bytes = 0;
    char name[32];
    int fd = -1, other = -1;

    (void)state;
    assert_int_equal(network_token_new(&fd, &error), GAPLESS_OK);
    assert_int_equal(network_token_new(&other, &error), GAPLESS_OK);
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    assert_int_equal(network_token(name, token, &bytes, &error), GAPLESS_OK);
    assert_int_equal(bytes, 32);
    assert_int_equal(network_token(name, again, &bytes, &error), GAPLESS_OK);
    assert_memory_equal(token, again, 32); /* read from its start each time */
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", other);
    assert_int_equal(network_token(name, again, &bytes, &error), GAPLESS_OK);
    assert_memory_not_equal(token, again, 32);
    assert_int_equal(close(fd), 0);
    assert_int_equal(close(other), 0);
}

static void test_open(void **state)
{
    struct settings settings = {.insecure = true,
                                .rdma_device = "mlx5_0",
                                .channels = 2,
                                .retries = 3,
                                .ack_timeout = 16};
    static struct network network;
    struct gapless_error error = {0};

    (void)state;
    assert_int_equal(network_open(&settings, &network, &error), GAPLESS_OK);
    assert_null(network.net.token);
    assert_true(network.net.insecure && network.net.channels == 2 &&
                network.net.retries == 3 && network.net.ack_timeout == 16);
    assert_string_equal(network.net.devices, "mlx5_0");
    write_token("what nobody can gues\n", 21, 0600);
    settings.token_file = path;
    assert_int_equal(network_open(&settings, &network, &error), GAPLESS_OK);
    assert_int_equal(network.net.token_bytes, 20);
    assert_memory_equal(network.net.token, "what nobody can gues", 20);
    network_close(&network);
    assert_null(network.net.token);
    for (size_t i = 0; i < sizeof network.token; i++)
        assert_int_equal(network.token[i], 0);
    write_token("short\n", 6, 0600);
    assert_int_equal(network_open(&settings, &network, &error), GAPLESS_INVALID);
}

/* ---- interfaces ---------------------------------------------------------- */

static void put_file(const char *name, const char *text)
{
    char file[256];
    FILE *out;

    for (const char *slash = strchr(name, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        (void)snprintf(file, sizeof file, "%s/%.*s", folder, (int)(slash - name), name);
        (void)mkdir(file, 0700);
    }
    (void)snprintf(file, sizeof file, "%s/%s", folder, name);
    out = fopen(file, "we");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static int remove_one(const char *name, const struct stat *info, int kind,
                      struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(name);
}

static void remove_tree(void)
{
    char name[64];

    (void)snprintf(name, sizeof name, "%s/sys", folder);
    assert_int_equal(nftw(name, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void test_links(void **state)
{
    struct network_links links;

    (void)state;
    network_links(folder, &links);
    assert_int_equal(links.count, 0);
    put_file("sys/class/infiniband/mlx5_0/ports/1/gid_attrs/ndevs/0", "eth2\n");
    put_file("sys/class/infiniband/mlx5_0/ports/1/gid_attrs/ndevs/1", "eth2\n");
    put_file("sys/class/infiniband/mlx5_1/ports/1/gid_attrs/ndevs/0", "");
    put_file("sys/class/net/eth0/type", "1\n");
    put_file("sys/class/net/ib0/type", "32\n");
    put_file("sys/class/net/lo/type", "772\n");
    network_links(folder, &links);
    assert_int_equal(links.count, 2);
    assert_string_equal(links.name[0], "eth2");
    assert_string_equal(links.name[1], "ib0");
    network_links("", &links); /* the real one, whatever it is */
    assert_true(links.count <= NETWORK_LINKS_MAX);
    remove_tree();
}

/* ---- coming back --------------------------------------------------------- */

static void test_pauses(void **state)
{
    static const double usual[] = {0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0};
    struct reconnect r = reconnect_new(60.0);
    double pause;

    (void)state;
    reconnect_lost(&r, 100.0);
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) {
        struct reconnect early = r, late = r;

        assert_true(reconnect_pause(&early, 100.0, 0.0) > 0.749 * usual[i]);
        pause = reconnect_pause(&late, 100.0, 1.0);
        assert_true(pause < 1.251 * usual[i]);
        pause = reconnect_pause(&r, 100.0, 0.5);
        assert_true(pause > 0.999 * usual[i] && pause < 1.001 * usual[i]);
    }
    /* The last wait ends with the time. */
    pause = reconnect_pause(&r, 159.0, 0.5);
    assert_true(pause > 0.999 && pause < 1.001);
    assert_true(reconnect_left(&r, 159.5) > 0.499);
    assert_true(reconnect_left(&r, 200.0) > 0.0);
    assert_true(reconnect_pause(&r, 160.0, 0.5) < 0.0);
}

/* A master that accepts and fails at once does not begin the time anew; one that took a
 * gradient does. */
static void test_flapping(void **state)
{
    struct reconnect r = reconnect_new(10.0);

    (void)state;
    for (int i = 0; i < 5; i++) {
        reconnect_lost(&r, 100.0 + i);
        assert_true(reconnect_pause(&r, 100.0 + i, 0.5) > 0.0);
        reconnect_joined(&r);
    }
    assert_int_equal(r.times, 5);
    reconnect_lost(&r, 110.0);
    assert_true(reconnect_pause(&r, 110.0, 0.5) < 0.0);
    reconnect_proven(&r);
    reconnect_lost(&r, 200.0);
    assert_true(reconnect_pause(&r, 200.0, 0.5) < 0.3);
    assert_int_equal(r.times, 5);
}

static void test_hopes(void **state)
{
    (void)state;
    assert_true(reconnect_hopeful(GAPLESS_PEER_LOST));
    assert_true(reconnect_hopeful(GAPLESS_TIMEOUT));
    assert_true(reconnect_hopeful(GAPLESS_CAPACITY));
    assert_false(reconnect_hopeful(GAPLESS_OK));
    assert_false(reconnect_hopeful(GAPLESS_REFUSED));
    assert_false(reconnect_hopeful(GAPLESS_VERSION));
    assert_false(reconnect_hopeful(GAPLESS_MODEL));
    assert_false(reconnect_hopeful(GAPLESS_INVALID));
    assert_false(reconnect_hopeful(GAPLESS_STOPPED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transports),
        cmocka_unit_test(test_shm_addresses),
        cmocka_unit_test(test_verbs_addresses),
        cmocka_unit_test(test_wildcards),
        cmocka_unit_test_setup_teardown(test_token_modes, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_token_owner, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_token_sizes, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_tokens_that_can_be_guessed, make_folder,
                                        remove_folder),
        cmocka_unit_test(test_token_new),
        cmocka_unit_test_setup_teardown(test_open, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_links, make_folder, remove_folder),
        cmocka_unit_test(test_pauses),
        cmocka_unit_test(test_flapping),
        cmocka_unit_test(test_hopes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
