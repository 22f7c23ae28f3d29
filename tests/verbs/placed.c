/* A server whose regions are partly in memory of accelerators. */
#include "tests/verbs/placed.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct transport *const t = &transport_verbs;

void accel_take(struct accel *ret, size_t bytes)
{
    size_t all = (bytes + PAGE - 1) / PAGE * PAGE;

    ret->bytes = all;
    ret->fd = memfd_create("gpu", MFD_CLOEXEC);
    assert_true(ret->fd >= 0);
    assert_int_equal(ftruncate(ret->fd, (off_t)all), 0);
    ret->base = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ret->look = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_SHARED, ret->fd, 0);
    assert_true(ret->base != MAP_FAILED && ret->look != MAP_FAILED);
    fake_card(ret->base, all, ret->fd);
}

void accel_give(struct accel *gpu)
{
    assert_int_equal(munmap(gpu->base, gpu->bytes), 0);
    assert_int_equal(munmap(gpu->look, gpu->bytes), 0);
    assert_int_equal(close(gpu->fd), 0);
}

struct tp_memory accel_memory(const struct accel *gpu, size_t at, size_t bytes)
{
    return (struct tp_memory){.base = gpu->base + at,
                              .bytes = bytes,
                              .dmabuf = gpu->fd,
                              .dmabuf_at = at,
                              .gpu = true};
}

void placed_fill(void *at, size_t bytes, unsigned seed)
{
    for (size_t i = 0; i < bytes; i++)
        ((unsigned char *)at)[i] = (unsigned char)(seed + i * 7 + i / 251);
}

bool placed_filled(const void *at, size_t bytes, unsigned seed)
{
    for (size_t i = 0; i < bytes; i++)
        if (((const unsigned char *)at)[i] != (unsigned char)(seed + i * 7 + i / 251))
            return false;
    return true;
}

void placed_move(struct bed_end *client, int status, uint32_t note)
{
    assert_in_range(status, 0, 1);
    while (status == 1 && must_event(client, TP_DONE).note != note)
        ;
}

void placed_open(struct slot *ret, const char *address, bool join)
{
    struct tp_config config = bed_config(4, "a token of this run");
    struct gapless_error error = {0};
    struct tp_memory memory;
    const char *how = NULL;

    *ret = (struct slot){0};
    accel_take(&ret->gpu[0], PAGE + SENT_BYTES);
    accel_take(&ret->gpu[1], GRAD_BYTES);
    must_open(&ret->bed.server, &config);
    assert_int_equal(
        t->region_new(ret->bed.server.tp, SLOT_BYTES, &ret->bed.region, &error), 0);
    ret->bed.region.split = SLOT_SPLIT;
    assert_int_equal(t->listen(ret->bed.server.tp, address, &error), GAPLESS_OK);
    memory = accel_memory(&ret->gpu[0], PAGE, SENT_BYTES);
    if (t->bind_memory(ret->bed.server.tp, &ret->bed.region, PAGE, &memory, &how,
                       &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    assert_non_null(how);
    memory = accel_memory(&ret->gpu[1], 0, GRAD_BYTES);
    if (t->bind_memory(ret->bed.server.tp, &ret->bed.region, GRAD_AT, &memory, &how,
                       &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    if (join)
        placed_join(ret, address);
}

void placed_join(struct slot *slot, const char *address)
{
    struct tp_config config = bed_config(1, "a token of this run");
    struct bed *bed = &slot->bed;

    must_open(&bed->client, &config);
    must_join(bed, &bed->client, address, &bed->to_server, &bed->to_client,
              &bed->window);
}

void placed_works(struct slot *slot, unsigned seed)
{
    struct bed *bed = &slot->bed;
    char *window = bed->window.base;
    size_t high = SLOT_BYTES - SLOT_SPLIT;

    placed_fill(bed->region.base, PAGE, seed);
    placed_fill(slot->gpu[0].look + PAGE, SENT_BYTES, seed + 1);
    placed_fill(window + SLOT_SPLIT, high, seed + 2);
    placed_move(
        &bed->client,
        t->put(bed->client.tp, bed->to_server, &bed->window, SLOT_SPLIT, high, seed),
        seed);
    assert_int_equal(must_event(&bed->server, TP_NOTE).note, seed);
    assert_memory_equal((char *)bed->region.base + SLOT_SPLIT, window + SLOT_SPLIT,
                        PAGE);
    assert_memory_equal(slot->gpu[1].look, window + GRAD_AT, GRAD_BYTES);
    placed_move(&bed->client,
                t->get(bed->client.tp, bed->to_server, &bed->window, 0, SLOT_SPLIT, 9),
                9);
    assert_true(placed_filled(window, PAGE, seed));
    assert_true(placed_filled(window + PAGE, SENT_BYTES, seed + 1));
}

void placed_end(struct slot *slot)
{
    if (slot->bed.client.tp != NULL)
        bed_close_both(&slot->bed.server, &slot->bed.client);
    else
        bed_close(&slot->bed.server);
    must_be_clean();
    accel_give(&slot->gpu[0]);
    accel_give(&slot->gpu[1]);
}
