/* Readers of what others wrote: what each is fed with, and what it may not do. */
#include "tests/fuzz/readers.h"

#include "cluster/simulate/simulate.h"
#include "cluster/study/study.h"
#include "cluster/task/model_file.h"
#include "cluster/workloads/data.h"
#include "engine/run/record.h"
#include "engine/run/state.h"
#include "transport/shm/shm.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- what the readers read ----------------------------------------------- */

static void die(const char *what)
{
    (void)fprintf(stderr, "%s\n", what);
    abort();
}

/* A refusal says why. */
static void want_reason(int status, const struct gapless_error *error)
{
    if (status != GAPLESS_OK && (error->text[0] == '\0' || error->status != status))
        die("a refusal without a reason");
}

static char folder_path[400];

static void folder_remove(void)
{
    DIR *folder = opendir(folder_path);

    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;)
        (void)unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder != NULL)
        (void)closedir(folder);
    (void)rmdir(folder_path);
}

/* The folder of this process: in TMPDIR, or in memory, or in /tmp. */
static const char *folder(void)
{
    const char *where = getenv("TMPDIR");

    if (folder_path[0] != '\0')
        return folder_path;
    if (where == NULL)
        where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(folder_path, sizeof folder_path, "%.370s/fuzz-readers-XXXXXX",
                   where);
    if (mkdtemp(folder_path) == NULL || atexit(folder_remove) != 0)
        die("no folder for files");
    return folder_path;
}

static const char *path_of(const char *name)
{
    static char path[600];

    (void)snprintf(path, sizeof path, "%s/%s", folder(), name);
    return path;
}

static const char *written(const char *name, const void *bytes, size_t count)
{
    const char *path = path_of(name);
    FILE *file = fopen(path, "wb");

    if (file == NULL || (count > 0 && fwrite(bytes, 1, count, file) != count) ||
        fclose(file) != 0)
        die("cannot write a file");
    return path;
}

/* ---- texts --------------------------------------------------------------- */

static void feed_study(const uint8_t *bytes, size_t count)
{
    struct gapless_error error = {0};
    static struct study study;
    int status = study_read(written("study.ini", bytes, count), &study, &error);

    want_reason(status, &error);
    if (status == GAPLESS_OK)
        study_close(&study);
}

static void feed_record(const uint8_t *bytes, size_t count)
{
    struct gapless_error error = {0};
    struct record *record = NULL;
    char *note = NULL;
    const char *path = written("record.txt", bytes, count);
    int status = record_read(path, &record, &error);

    want_reason(status, &error);
    record_free(record);
    error = (struct gapless_error){0};
    status = gapless_record_note(path, &note, &error);
    want_reason(status, &error);
    free(note);
}

static void feed_clock(const uint8_t *bytes, size_t count)
{
    struct gapless_error error = {0};
    struct gapless_batch_time *times = NULL;
    enum gapless_clock clock;
    size_t many = 0;
    int status = simulate_clock(written("clock.txt", bytes, count), 3, &clock, &times,
                                &many, &error);

    want_reason(status, &error);
    free(times);
}

static void feed_events(const uint8_t *bytes, size_t count)
{
    struct gapless_error error = {0};
    struct gapless_incident *incidents = NULL;
    char text[2000];
    uint32_t joins;
    size_t many = 0;
    int status;

    count = count < sizeof text ? count : sizeof text - 1;
    memcpy(text, bytes, count);
    text[count] = '\0';
    status = simulate_events(text, 8, &incidents, &many, &joins, &error);
    want_reason(status, &error);
    free(incidents);
}

/* ---- models -------------------------------------------------------------- */

static void feed_model(const uint8_t *bytes, size_t count)
{
    struct gapless_error error = {0};
    struct model_file file;
    struct tensor_entry entry;
    float values[64];
    int status =
        model_file_open(written("model.safetensors", bytes, count), &file, &error);

    want_reason(status, &error);
    if (status != GAPLESS_OK)
        return;
    if (tensor_file_find(&file.file, "w", &entry) && entry.dims == 1 &&
        entry.dim[0] <= 64) {
        status = tensor_file_read(&file.file, &entry, entry.dim[0], values, &error);
        want_reason(status, &error);
    }
    model_file_close(&file);
}

/* The sum of a state's header is made right, or nothing behind it would be read. */
static void state_mend(uint8_t *bytes, size_t count)
{
    static const char key[] = "\"header_sum\":\"";
    char digits[17];
    uint64_t length = 0;
    uint8_t *at;

    memcpy(&length, bytes, count < sizeof length ? count : sizeof length);
    if (count < sizeof length || length > count - sizeof length)
        return;
    at = memmem(bytes + sizeof length, length, key, sizeof key - 1);
    if (at == NULL || (size_t)(bytes + sizeof length + length - at) <
                          sizeof key - 1 + sizeof digits - 1)
        return;
    at += sizeof key - 1;
    memset(at, '0', sizeof digits - 1);
    (void)snprintf(digits, sizeof digits, "%016" PRIx64,
                   state_sum(bytes + sizeof length, length));
    memcpy(at, digits, sizeof digits - 1);
}

static void feed_state(const uint8_t *bytes, size_t count)
{
    struct gapless_error error = {0};
    struct state_file *file = NULL;
    uint8_t *copy = malloc(count + 1);
    int status;

    if (copy == NULL)
        die("no memory");
    memcpy(copy, bytes, count);
    state_mend(copy, count);
    status = state_open(written("state.safetensors", copy, count), &file, &error);
    free(copy);
    want_reason(status, &error);
    if (status != GAPLESS_OK)
        return;
    for (uint32_t i = 0; i < state_tensors(file); i++)
        if (state_tensor(file, i)->data == NULL)
            die("a tensor without data");
    (void)state_number(file, "gradients");
    (void)state_find_any(file, "momentum");
    state_close(file);
}

/* ---- data sets ----------------------------------------------------------- */

static void load(const char *name)
{
    struct gapless_error error = {0};
    struct data *data = NULL;
    int status = data_load(name, NULL, &data, &error);

    want_reason(status, &error);
    if (status == GAPLESS_OK && (data_count(data, DATA_TRAIN) == 0))
        die("a set without samples");
    data_free(data);
}

static void feed_csv(const uint8_t *bytes, size_t count)
{
    char name[700];

    (void)snprintf(name, sizeof name, "csv:%s", written("table.csv", bytes, count));
    load(name);
}

/* The first byte says which of four files the others are; three are in order. */
static void load_four(const char *kind, const char *const names[4],
                      const uint8_t *const good[4], const size_t sizes[4],
                      const uint8_t *bytes, size_t count)
{
    char name[700];
    size_t which = count > 0 ? bytes[0] % 4 : 0;

    for (size_t i = 0; i < 4; i++)
        if (i == which && count > 0)
            (void)written(names[i], bytes + 1, count - 1);
        else
            (void)written(names[i], good[i], sizes[i]);
    (void)snprintf(name, sizeof name, "%s:%s", kind, folder());
    load(name);
}

static void feed_idx(const uint8_t *bytes, size_t count)
{
    static const char *const names[4] = {
        "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte"};
    static const uint8_t images[] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0,
                                     0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6};
    static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 0, 1, 2};
    static const uint8_t *const good[4] = {images, labels, images, labels};
    static const size_t sizes[4] = {sizeof images, sizeof labels, sizeof images,
                                    sizeof labels};

    load_four("idx", names, good, sizes, bytes, count);
}

static void feed_npy(const uint8_t *bytes, size_t count)
{
    static const char *const names[4] = {"x_train.npy", "y_train.npy", "x_test.npy",
                                         "y_test.npy"};
    static const char x[] = "\x93NUMPY\1\0\x36\0{'descr': '|u1', 'fortran_order': "
                            "False, 'shape': (3, 2)}\n"
                            "\1\2\3\4\5\6";
    static const char y[] = "\x93NUMPY\1\0\x34\0{'descr': '|u1', 'fortran_order': "
                            "False, 'shape': (3,)}\n"
                            "\0\1\1";
    static const uint8_t *const good[4] = {(const uint8_t *)x, (const uint8_t *)y,
                                           (const uint8_t *)x, (const uint8_t *)y};
    static const size_t sizes[4] = {sizeof x - 1, sizeof y - 1, sizeof x - 1,
                                    sizeof y - 1};

    load_four("npy", names, good, sizes, bytes, count);
}

/* Of six files the first and the last are the bytes, the others are one sample. */
static void feed_cifar(const uint8_t *bytes, size_t count)
{
    struct gapless_error error = {0};
    struct data *data = NULL;
    static const uint8_t sample[3073] = {1, 2, 3};
    char name[32];
    int status;

    for (int i = 1; i <= 5; i++) {
        (void)snprintf(name, sizeof name, "data_batch_%d.bin", i);
        (void)written(name, i == 1 ? bytes : sample, i == 1 ? count : sizeof sample);
    }
    (void)written("test_batch.bin", bytes, count);
    status = data_load("cifar-10", folder(), &data, &error);
    want_reason(status, &error);
    data_free(data);
}

/* ---- greetings over shared memory ---------------------------------------- */

/* Sends the bytes as one packet, with a descriptor as a greeting has one. */
static void packet_send(int fd, const uint8_t *bytes, size_t count, int with)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)(uintptr_t)bytes, count};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof control.space};

    control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
                                    .cmsg_level = SOL_SOCKET,
                                    .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), &with, sizeof with);
    (void)sendmsg(fd, &message, MSG_NOSIGNAL);
}

static struct tp *greeted(struct sockaddr_un *ret, socklen_t *ret_bytes,
                          int *ret_doorbell)
{
    static const struct tp_config config = {
        .peers_max = 8, .notes_max = 8, .windows_max = 2};
    struct gapless_error error = {0};
    struct tp *server = NULL;
    char name[40];
    void *base;

    (void)snprintf(name, sizeof name, "fuzz-%d", (int)getpid());
    if (transport_shm.open(&config, &server, &error) != GAPLESS_OK ||
        transport_shm.listen(server, name, &error) != GAPLESS_OK ||
        shm_address(name, ret, ret_bytes, &error) != GAPLESS_OK ||
        shm_memory_new("fuzz", sizeof(struct doorbell), ret_doorbell, &base, &error) !=
            GAPLESS_OK)
        die(error.text);
    return server;
}

/* Of a protocol 0xffff: of this version's. */
static const uint8_t *first(const uint8_t *bytes, size_t count)
{
    static uint8_t copy[256];
    struct shm_frame head = {0};

    memcpy(copy, bytes, count);
    memcpy(&head, copy, count < sizeof head ? count : sizeof head);
    if (count >= sizeof head && head.protocol == UINT16_MAX) {
        head.protocol = SHM_PROTOCOL;
        memcpy(copy, &head, sizeof head);
    }
    return copy;
}

/* A connection to the master's socket that says the bytes behind the first in packets of
 * as many as that says, the first with a doorbell, and hangs up. The master goes on. */
static void feed_greeting(const uint8_t *bytes, size_t count)
{
    static struct tp *server;
    static struct sockaddr_un to;
    static socklen_t to_bytes;
    static int doorbell;
    struct tp_event events[4];
    size_t most = count > 0 && bytes[0] > 0 ? bytes[0] : 256, at, part;
    char answer[4096];
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (server == NULL)
        server = greeted(&to, &to_bytes, &doorbell);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&to, to_bytes) != 0)
        die("cannot connect to the master's socket");
    for (at = 1; at < count; at += part) {
        part = count - at < most ? count - at : most;
        if (at == 1)
            packet_send(fd, first(bytes + at, part), part, doorbell);
        else
            (void)send(fd, bytes + at, part, MSG_NOSIGNAL);
    }
    (void)shutdown(fd, SHUT_WR);
    while (recv(fd, answer, sizeof answer, 0) > 0) /* until it hangs up */
        ;
    (void)close(fd);
    if (transport_shm.poll(server, events, 4, 0) < 0)
        die("the master broke");
}

/* ---- all of them --------------------------------------------------------- */

const struct fuzz_reader fuzz_readers[] = {
    {"study", feed_study},   {"record", feed_record},     {"clock", feed_clock},
    {"events", feed_events}, {"model", feed_model},       {"state", feed_state},
    {"csv", feed_csv},       {"idx", feed_idx},           {"npy", feed_npy},
    {"cifar", feed_cifar},   {"greeting", feed_greeting}, {NULL, NULL}};

const struct fuzz_reader *fuzz_reader_find(const char *name)
{
    for (const struct fuzz_reader *reader = fuzz_readers; reader->name != NULL;
         reader++)
        if (strcmp(reader->name, name) == 0)
            return reader;
    return NULL;
}
