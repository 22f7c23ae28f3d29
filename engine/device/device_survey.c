/* The GPUs of this machine, for people. */
#include "engine/device/device.h"

#include <gapless/gapless.h>
#include "engine/base/text_page.h"

#include <stdio.h>
#include <string.h>

#define CARDS_SHOWN 32
#define GIB 1073741824.0

/* How cards are let into its memory. */
static void show_reach(struct text_page *page, const char *root,
                       const struct device_facts *facts)
{
    char module[96];

    if (!facts->rdma) {
        text_add(page,
                 "    GPUDirect RDMA: not supported by this GPU or driver; gradients "
                 "of other machines go through host memory\n");
        return;
    }
    if (facts->dmabuf)
        text_add(page, "    GPUDirect RDMA: by DMA-BUF\n");
    else if (device_peermem(root, module, sizeof module))
        text_add(page, "    GPUDirect RDMA: by %s\n", module);
    else
        text_add(
            page,
            "    GPUDirect RDMA: no way in: load the open kernel module of the NVIDIA "
            "driver (DMA-BUF; Linux 5.12 or later), or `modprobe nvidia-peermem`\n");
    text_add(
        page, "    what cards write: %s\n",
        facts->ordering >= DEVICE_ORDERS_ALL
            ? "in order for every GPU, no flush"
            : (facts->ordering >= DEVICE_ORDERS_OWNER
                   ? "in order for this GPU, no flush"
                   : "not ordered by the GPU: flushed by a read of the card before "
                     "each pass"));
}

static void show_cards(struct text_page *page, const char *root,
                       const struct device_facts *facts)
{
    struct device_near cards[CARDS_SHOWN];
    uint32_t count = device_near_read(root, facts->bus, cards, CARDS_SHOWN);

    for (uint32_t i = 0; i < count; i++) {
        char node[32] = "";

        if (cards[i].node >= 0)
            (void)snprintf(node, sizeof node, ", NUMA node %d", cards[i].node);
        text_add(page, "    to %s: %s%s\n", cards[i].card,
                 device_way_text(cards[i].way), node);
    }
}

static void show_gpu(struct text_page *page, const char *root,
                     const struct device_facts *facts)
{
    struct device_place place;

    device_place_read(root, facts->bus, &place);
    text_add(page,
             "GPU %u: %s, PCI %s, compute capability %u.%u, %.1f GiB free of %.1f\n",
             facts->number, facts->name, facts->bus, facts->major, facts->minor,
             (double)facts->free_bytes / GIB, (double)facts->memory_bytes / GIB);
    text_add(page, "    %u multiprocessors", facts->processors);
    if (facts->bandwidth > 0)
        text_add(page, ", memory %.0f GB/s at its peak",
                 (double)facts->bandwidth * 1e-9);
    if (place.bar1 > 0)
        text_add(page, ", BAR1 %.2f GiB", (double)place.bar1 / GIB);
    if (place.node >= 0)
        text_add(page, ", NUMA node %d", place.node);
    text_add(page, "\n");
    show_reach(page, root, facts);
    show_cards(page, root, facts);
}

int device_survey(const char *root, const struct gpu_plugin *plugin,
                  const struct gapless_error *lack, char *ret, size_t bytes)
{
    struct text_page page = text_page(ret, bytes);
    struct gapless_error reason = {0};
    uint32_t count = 0;

    if (plugin == NULL) {
        text_add(&page, "%s\n", lack->text);
        return GAPLESS_MISSING;
    }
    if (plugin->device->count(&count, &reason) != GAPLESS_OK) {
        text_add(&page, "%s\n", reason.text);
        return GAPLESS_MISSING;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct device_facts facts;

        if (plugin->device->facts(i, &facts, &reason) == GAPLESS_OK)
            show_gpu(&page, root, &facts);
        else
            text_add(&page, "GPU %u: %s\n", i, reason.text);
    }
    return (int)count;
}

int gapless_device_survey(char *ret, size_t bytes)
{
    const struct gpu_plugin *plugin = NULL;
    struct gapless_error lack = {0};

    if (device_plugin(&plugin, &lack) != GAPLESS_OK)
        plugin = NULL;
    return device_survey("", plugin, &lack, ret, bytes);
}
