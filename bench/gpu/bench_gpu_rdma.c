/* The checks `gpudirect` (does a network card reach the GPU's memory, and how fast) and
 * `soak` (does a kernel see all that the card wrote before it was launched).
 *
 *   gapless bench transport (a process)     this process
 *   put, get ──────> card ──────────────> a region that is placed in GPU memory
 *
 *   host ──> card (loop) ──> GPU memory ──> norm_sq launched after the completion
 */
#include "bench/gpu/bench_gpu.h"

#include "bench/transport/bench_transport.h"

#include "engine/base/clock.h"
#include "engine/run/backends.h"
#include "transport/transport.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOAK_FLOATS (TP_LOOPBACK_MAX / sizeof(float))
#define PIECE 65536u

#define TOKEN_BYTES 32
#define SOAK_S_MAX 20.0
#define TOOL_S 60.0

static const char *ordering_text(int ordering)
{
    if (ordering >= DEVICE_ORDERS_ALL)
        return "orders writes of network cards for all GPUs";
    if (ordering >= DEVICE_ORDERS_OWNER)
        return "orders writes of network cards to itself";
    return "does not order writes of network cards: they are flushed";
}

/* ---- GPU memory that cards reach ----------------------------------------- */

/* Lets a region be GPU memory: DMA-BUF first, else its address (nvidia-peermem). */
struct placed {
    const struct bg_gpu *gpu;
    struct device *device;
    void *memory;
    const char *how;
    bool proven;
    struct gapless_error error;
};

/* The card writes a pattern, the GPU gives it out; then the card reads it back. */
static int prove(const struct placed *p, const struct transport *t, struct tp *tp,
                 const struct tp_region *region, struct gapless_error *error)
{
    const struct device_ops *ops = p->gpu->ops;
    unsigned char went[256], seen[256], came[256];
    int status;

    for (size_t i = 0; i < sizeof went; i++)
        went[i] = (unsigned char)(i * 7 + 3);
    memset(seen, 0, sizeof seen);
    memset(came, 0, sizeof came);
    status = t->loopback(tp, region, 0, went, sizeof went, TP_INTO, error);
    if (status != GAPLESS_OK)
        return status;
    ops->copy_out(p->device, seen, p->memory, sizeof seen);
    status = ops->wait(p->device, ops->mark(p->device, DEVICE_OUT), BG_WAIT_NS, error);
    if (status == GAPLESS_OK)
        status = t->loopback(tp, region, 0, came, sizeof came, TP_OUT_OF, error);
    if (status == GAPLESS_OK &&
        (memcmp(went, seen, sizeof went) != 0 || memcmp(went, came, sizeof went) != 0))
        status = gapless_error_set(error, GAPLESS_SYSTEM, 0,
                                   "what the card wrote into GPU memory is not what is "
                                   "there: is ACS or an IOMMU in between?");
    return status;
}

/* bt_options.place. The first failure is kept. */
static int place(void *context, const struct transport *t, struct tp *tp,
                 struct tp_region *region, struct gapless_error *error)
{
    struct placed *p = context;
    struct tp_memory memory = {.bytes = region->bytes, .dmabuf = -1, .gpu = true};
    int status = p->gpu->ops->take(p->device, region->bytes, &p->memory, &p->error);

    if (status == GAPLESS_OK) {
        memory.base = p->memory;
        if (p->gpu->ops->share(p->device, p->memory, region->bytes, &memory.dmabuf,
                               &memory.dmabuf_at, NULL) != GAPLESS_OK)
            memory.dmabuf = -1;
        status = t->bind_memory(tp, region, 0, &memory, &p->how, &p->error);
        if (memory.dmabuf >= 0)
            (void)close(memory.dmabuf);
    }
    if (status == GAPLESS_OK)
        status = prove(p, t, tp, region, &p->error);
    p->proven = status == GAPLESS_OK;
    if (status != GAPLESS_OK && error != NULL)
        *error = p->error;
    return status;
}

static int placed_open(const struct bg_run *run, struct placed *ret,
                       struct gapless_error *error)
{
    *ret = (struct placed){.gpu = &run->gpu};
    return run->gpu.ops->open(run->gpu.facts.number, SOAK_FLOATS, 1, &ret->device,
                              error);
}

/* ---- addresses, tokens --------------------------------------------------- */

/* The address to listen at: as given, or of the one RDMA-capable interface. */
static int address_of(const struct bg_run *run, char ret[BENCH_ADDRESS_MAX],
                      struct gapless_error *error)
{
    char survey[512];

    if (gapless_network_survey(survey, sizeof survey) <= 0)
        return gapless_error_set(error, GAPLESS_MISSING, 0, "no RDMA device here");
    if (run->options->rdma == NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "%s",
                                 run->options->rdma_error);
    (void)snprintf(ret, BENCH_ADDRESS_MAX, "%s", run->options->rdma);
    return GAPLESS_OK;
}

static int token_new(const struct bg_run *run, struct bt_options *o, char *path,
                     size_t bytes, struct gapless_error *error)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char random[TOKEN_BYTES];
    int fd;
    bool wrote;

    (void)snprintf(path, bytes, "%s/token", run->folder);
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return gapless_error_set(error, GAPLESS_SYSTEM, 0, "no random bytes");
    for (size_t i = 0; i < TOKEN_BYTES; i++)
        o->token[i] = (unsigned char)digits[random[i] % 16];
    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
    wrote = fd >= 0 && write(fd, o->token, TOKEN_BYTES) == TOKEN_BYTES;
    if (fd >= 0)
        wrote = close(fd) == 0 && wrote;
    o->net.token = o->token;
    o->net.token_bytes = TOKEN_BYTES;
    return wrote ? GAPLESS_OK
                 : gapless_error_set(error, GAPLESS_SYSTEM, 0, "cannot write %s", path);
}

/* ---- gpudirect ----------------------------------------------------------- */

/* Bytes of its memory that cards can reach at a time, the second line of `resource`;
 * 0: unknown. */
static double bar1(const char *bus)
{
    char path[128], line[128];
    unsigned long long start = 0, end = 0;
    FILE *file;

    (void)snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/resource", bus);
    file = fopen(path, "re");
    for (int i = 0; file != NULL && i < 2; i++) {
        char *rest;

        if (fgets(line, sizeof line, file) == NULL)
            break;
        start = i == 1 ? strtoull(line, &rest, 16) : 0;
        end = i == 1 ? strtoull(rest, NULL, 16) : 0;
    }
    if (file != NULL)
        (void)fclose(file);
    return end > start ? (double)(end - start + 1) : 0;
}

static void facts_of(const struct bg_run *run, struct bg_check *ret)
{
    const struct device_facts *f = &run->gpu.facts;
    double reach = bar1(f->bus);

    (void)json_object_set_new(ret->figures, "bar1_bytes",
                              reach > 0 ? json_real(reach) : json_null());
    (void)json_object_set_new(ret->figures, "rdma_supported", json_boolean(f->rdma));
    (void)json_object_set_new(ret->figures, "dmabuf_supported",
                              json_boolean(f->dmabuf));
    (void)json_object_set_new(ret->figures, "writes_ordering",
                              json_integer(f->ordering));
    (void)json_object_set_new(ret->figures, "host_can_flush",
                              json_boolean(f->can_flush));
}

/* GB/s of the largest size of an operation in what the client printed; 0: none. */
static double rate_of(const json_t *root, const char *op)
{
    const json_t *row;
    double bytes = 0, ret = 0;
    size_t i;

    json_array_foreach(json_object_get(root, "figures"), i, row)
    {
        const char *name = json_string_value(json_object_get(row, "op"));
        double size = json_number_value(json_object_get(row, "bytes"));

        if (name != NULL && strcmp(name, op) == 0 && size >= bytes) {
            bytes = size;
            ret = json_number_value(json_object_get(row, "gb_per_s"));
        }
    }
    return ret;
}

/* The client's words; they point into `path` and `o`. */
static int start_client(const struct bg_run *run, const struct bt_options *o,
                        const char *token, struct bg_tool *ret,
                        struct gapless_error *error)
{
    const char *const words[] = {run->self,
                                 "bench",
                                 "transport",
                                 "--transport",
                                 "verbs",
                                 "--server",
                                 o->address,
                                 "--ops",
                                 "write,read",
                                 "--sizes",
                                 run->options->quick ? "64K" : "64K,1M,8M",
                                 "--seconds",
                                 run->options->quick ? "0.1" : "2",
                                 "--json",
                                 "--token-file",
                                 token,
                                 NULL};

    return bg_start(words, NULL, ret, error);
}

/* Runs both sides; the figures of the client. */
static int flow(struct bg_run *run, struct placed *placed, struct bt_options *o,
                json_t **ret, struct gapless_error *error)
{
    struct bg_tool client = {0};
    char token[300], tail[200];
    int status = token_new(run, o, token, sizeof token, error), served;

    if (status == GAPLESS_OK)
        status = start_client(run, o, token, &client, error);
    if (status != GAPLESS_OK)
        return status;
    served = bt_serve(o);
    if (served == 0)
        (void)bg_wait(&client, TOOL_S);
    if (served == 0 && client.pid == 0 && client.code == 0)
        *ret = bg_object(&client);
    if (*ret == NULL) {
        bg_tail(&client, tail, sizeof tail);
        status =
            placed->error.status != GAPLESS_OK
                ? gapless_error_set(error, placed->error.status, 0, "%.400s",
                                    placed->error.text)
                : gapless_error_set(error, GAPLESS_SYSTEM, 0,
                                    "bench transport to GPU memory failed: %s", tail);
    }
    bg_end(&client);
    (void)unlink(token);
    return status;
}

/* "HOST" of "verbs:HOST:PORT[,...]", without brackets. */
static void host_of(const char *address, char *ret, size_t bytes)
{
    const char *from = strncmp(address, "verbs:", 6) == 0 ? address + 6 : address;
    const char *end;

    if (*from == '[')
        end = strchr(++from, ']');
    else
        end = strrchr(from, ':');
    (void)snprintf(ret, bytes, "%.*s",
                   end != NULL ? (int)(end - from) : (int)strlen(from), from);
}

/* "BW average[Gb/sec]" of perftest's one line of figures; 0: there is none. */
static double perftest_gb(const struct bg_tool *tool)
{
    FILE *file = fopen(tool->output, "re");
    char line[400];
    double ret = 0;

    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *at = line, *end;
        double column[4];
        int count = 0;

        while (count < 4) {
            column[count] = strtod(at, &end);
            if (end == at)
                break;
            at = end;
            count++;
        }
        if (count == 4) /* bytes, iterations, peak, average */
            ret = column[3];
    }
    if (file != NULL)
        (void)fclose(file);
    return ret / 8;
}

/* Both ends of ib_write_bw; 0: why not is in `why`. */
static double perftest_ends(const char *program, const char *cuda, const char *host,
                            char *reason, size_t bytes)
{
    const char *const serve[] = {program, "-R",      "-F", cuda, "--use_cuda_dmabuf",
                                 "-s",    "8388608", "-D", "3",  "--report_gbits",
                                 NULL};
    const char *const measure[] = {
        program, "-R", "-F", "-s", "8388608", "-D", "3", "--report_gbits", host, NULL};
    struct bg_tool server = {0}, client = {0};
    struct gapless_error error = {0};
    char tail[120];
    double ret = 0;

    if (bg_start(serve, NULL, &server, &error) == GAPLESS_OK &&
        !bg_wait(&server, 1.5) &&
        bg_start(measure, NULL, &client, &error) == GAPLESS_OK) {
        (void)bg_wait(&client, 30.0);
        if (client.pid == 0 && client.code == 0)
            ret = perftest_gb(&client);
    }
    bg_tail(client.output[0] != '\0' ? &client : &server, tail, sizeof tail);
    (void)snprintf(reason, bytes, "ib_write_bw gave no figure: %s", tail);
    bg_end(&client);
    bg_end(&server);
    return ret;
}

/* ib_write_bw into the same GPU's memory over the same card, in GB/s. 0: why not. */
static double perftest(const struct bg_run *run, const char *address, char *reason,
                       size_t bytes)
{
    char program[400], cuda[32], host[200];

    if (!run->options->rdma_given) {
        (void)snprintf(reason, bytes, "--rdma ADDR runs ib_write_bw beside it");
        return 0;
    }
    if (!bg_find("ib_write_bw", program, sizeof program)) {
        (void)snprintf(reason, bytes, "ib_write_bw (perftest) is not installed");
        return 0;
    }
    (void)snprintf(cuda, sizeof cuda, "--use_cuda=%u", run->gpu.facts.number);
    host_of(address, host, sizeof host);
    return perftest_ends(program, cuda, host, reason, bytes);
}

static void gpudirect_says(struct bg_run *run, struct bg_check *ret,
                           const struct placed *placed, const json_t *root,
                           const char *address)
{
    double in = rate_of(root, "write"), out = rate_of(root, "read"), beside;
    char reason[180] = "";

    beside = perftest(run, address, reason, sizeof reason);
    if (beside > 0)
        (void)snprintf(reason, sizeof reason, "ib_write_bw %.4g GB/s, ratio %.2f",
                       beside, in / beside);
    (void)json_object_set_new(ret->figures, "registered_by", json_string(placed->how));
    (void)json_object_set_new(ret->figures, "write_gb_per_s", json_real(in));
    (void)json_object_set_new(ret->figures, "read_gb_per_s", json_real(out));
    (void)json_object_set_new(ret->figures, "ib_write_bw_gb_per_s",
                              beside > 0 ? json_real(beside) : json_null());
    (void)json_object_set(ret->figures, "transport", (json_t *)(uintptr_t)root);
    if (!run->gpu.fake && in > 0 && out > 0)
        (void)json_object_set_new(run->plan, "link_bytes_per_s",
                                  json_real(1e9 * (in < out ? in : out)));
    (void)bg_says(ret, BG_PASSED,
                  "by %s, proven at start; WRITE %.4g GB/s, READ %.4g GB/s; %s%s",
                  placed->how, in, out, reason,
                  run->gpu.fake ? "; a fake device: not a measurement" : "");
}

void bg_gpudirect(struct bg_run *run, struct bg_check *ret)
{
    struct bt_options *o = calloc(1, sizeof *o);
    struct gapless_error error = {0};
    struct placed placed = {0};
    json_t *root = NULL;
    int status;

    facts_of(run, ret);
    (void)json_object_set_new(
        ret->figures, "beside",
        json_string("server: ib_write_bw -R --use_cuda=N --use_cuda_dmabuf -s 8388608 "
                    "-D 5 --report_gbits; client: ib_write_bw -R -s 8388608 -D 5 "
                    "--report_gbits ADDR; the same with ib_read_bw"));
    status = o == NULL
                 ? gapless_error_set(&error, GAPLESS_NO_MEMORY, 0, "there is no memory")
                 : address_of(run, o->address, &error);
    if (o == NULL || status != GAPLESS_OK) {
        (void)bg_says(ret, BG_NOT_RUN, "%.300s; the GPU %s", error.text,
                      ordering_text(run->gpu.facts.ordering));
        free(o);
        return;
    }
    (void)snprintf(o->transport, sizeof o->transport, "verbs");
    o->place = place;
    o->place_context = &placed;
    o->place_bytes = BT_REGION_MIN; /* what is asked for with 8 MiB the largest */
    status = placed_open(run, &placed, &error);
    if (status == GAPLESS_OK)
        status = flow(run, &placed, o, &root, &error);
    if (status == GAPLESS_OK)
        gpudirect_says(run, ret, &placed, root, o->address);
    else /* a card or kernel that cannot is no fault of ours: it says what is missing */
        (void)bg_says(ret, status == GAPLESS_UNSUPPORTED ? BG_NOT_RUN : BG_FAILED,
                      "%.380s", error.text);
    if (placed.device != NULL)
        run->gpu.ops->close(placed.device);
    json_decref(root);
    free(o);
}

/* ---- soak ---------------------------------------------------------------- */

struct soak {
    struct bg_run *run;
    const struct transport *t;
    struct tp *tp;
    struct tp_region region;
    struct placed placed;
    float *host;                  /* TP_LOOPBACK_MAX */
    uint64_t rounds[2], wrong[2]; /* without, with a flush */
};

/* One round: the card writes, its completion is seen, a kernel adds it all up. */
static int soak_round(struct soak *s, bool flush, struct gapless_error *error)
{
    const struct device_ops *ops = s->run->gpu.ops;
    uint64_t round = s->rounds[0] + s->rounds[1];
    double want, got;
    int status;

    for (size_t i = 0; i < SOAK_FLOATS; i++)
        s->host[i] = (float)((round * SOAK_FLOATS + i) % 65521);
    want = compute_cpu()->norm_sq(s->host, SOAK_FLOATS);
    status =
        s->t->loopback(s->tp, &s->region, 0, s->host, TP_LOOPBACK_MAX, TP_INTO, error);
    if (status == GAPLESS_OK && flush && s->run->gpu.facts.can_flush)
        status = ops->flush(s->placed.device);
    else if (status == GAPLESS_OK && flush)
        status = s->t->loopback(s->tp, &s->region, 0, s->host, TP_LOOPBACK_MAX,
                                TP_OUT_OF, error);
    if (status != GAPLESS_OK)
        return status;
    ops->norm_sq(s->placed.device, s->placed.memory, SOAK_FLOATS, 0);
    status = ops->wait(s->placed.device, ops->mark(s->placed.device, DEVICE_WORK),
                       BG_WAIT_NS, error);
    if (status != GAPLESS_OK)
        return status;
    got = ops->result(s->placed.device, 0)->value;
    s->wrong[flush] += !bg_same(got, want);
    s->rounds[flush]++;
    return GAPLESS_OK;
}

static int soak_open(struct soak *s, const char *address, struct gapless_error *error)
{
    struct tp_config config = {.peers_max = 1, .net = {.insecure = true}};
    const char *rest = NULL;
    int status = placed_open(s->run, &s->placed, error);

    s->host = aligned_alloc(4096, TP_LOOPBACK_MAX);
    if (s->host == NULL)
        return GAPLESS_NO_MEMORY;
    if (status == GAPLESS_OK)
        status = backend_find(address, &s->t, &rest, error);
    if (status == GAPLESS_OK)
        status = s->t->open(&config, &s->tp, error);
    if (status == GAPLESS_OK) /* nothing is granted to a client that connects */
        status = s->t->listen(s->tp, rest, error);
    if (status == GAPLESS_OK)
        status = s->t->region_new(s->tp, PIECE, &s->region, error);
    return status == GAPLESS_OK ? place(&s->placed, s->t, s->tp, &s->region, error)
                                : status;
}

static void soak_close(struct soak *s)
{
    if (s->tp != NULL)
        s->t->close(s->tp);
    if (s->placed.device != NULL)
        s->run->gpu.ops->close(s->placed.device);
    free(s->host);
}

void bg_soak(struct bg_run *run, struct bg_check *ret)
{
    struct soak s = {.run = run};
    struct gapless_error error = {0};
    char address[BENCH_ADDRESS_MAX];
    double seconds = run->options->quick ? 0.2 : run->options->seconds, end;
    int status = address_of(run, address, &error);

    if (status != GAPLESS_OK) {
        (void)bg_says(ret, BG_NOT_RUN, "%.380s", error.text);
        return;
    }
    status = soak_open(&s, address, &error);
    end = clock_seconds() + (seconds < SOAK_S_MAX ? seconds : SOAK_S_MAX);
    while (status == GAPLESS_OK && clock_seconds() < end) {
        status = soak_round(&s, false, &error);
        if (status == GAPLESS_OK)
            status = soak_round(&s, true, &error);
    }
    (void)json_object_set_new(ret->figures, "without_flush",
                              json_pack("{s:I,s:I}", "rounds", (json_int_t)s.rounds[0],
                                        "wrong", (json_int_t)s.wrong[0]));
    (void)json_object_set_new(ret->figures, "with_flush",
                              json_pack("{s:I,s:I}", "rounds", (json_int_t)s.rounds[1],
                                        "wrong", (json_int_t)s.wrong[1]));
    if (status == GAPLESS_UNSUPPORTED)
        (void)bg_says(ret, BG_NOT_RUN, "%.380s", error.text);
    else if (status != GAPLESS_OK)
        (void)bg_says(ret, BG_FAILED, "%.380s", error.text);
    else
        (void)bg_says(ret,
                      s.wrong[1] > 0 || (s.wrong[0] > 0 &&
                                         run->gpu.facts.ordering >= DEVICE_ORDERS_OWNER)
                          ? BG_FAILED
                          : BG_PASSED,
                      "%llu rounds, %llu stale without a flush, %llu with one; the GPU "
                      "%s",
                      (unsigned long long)(s.rounds[0] + s.rounds[1]),
                      (unsigned long long)s.wrong[0], (unsigned long long)s.wrong[1],
                      ordering_text(run->gpu.facts.ordering));
    soak_close(&s);
}
