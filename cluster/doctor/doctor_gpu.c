/* gapless doctor: the GPUs, and how network cards reach their memory. */
#include "cluster/doctor/doctor.h"

#include "engine/device/device.h"

#include <stdint.h>
#include <stdio.h>

#define CARDS_SHOWN 32
#define GIB 1073741824.0

/* Kernels are built for Turing and later. */
#define OLDEST_MAJOR 7
#define OLDEST_MINOR 5

static void tell_gpu(const struct device_facts *facts)
{
    char name[32];

    (void)snprintf(name, sizeof name, "GPU %u", facts->number);
    doctor_tell(FOUND, name,
                "%s, PCI %s, compute capability %u.%u, %.1f GiB free of "
                "%.1f",
                facts->name, facts->bus, facts->major, facts->minor,
                (double)facts->free_bytes / GIB, (double)facts->memory_bytes / GIB);
    if (facts->major < OLDEST_MAJOR ||
        (facts->major == OLDEST_MAJOR && facts->minor < OLDEST_MINOR)) {
        doctor_tell(LACKING, "", "older than Turing: the plugin has no code for it");
        doctor_remedy("use another GPU, or configure with "
                      "-DGAPLESS_CUDA_ARCHITECTURES=%u%u-real and a CUDA toolkit "
                      "that still knows it",
                      facts->major, facts->minor);
    }
}

/* Why there is no way in for cards, as far as the system tells. */
static void tell_closed(void)
{
    doctor_tell(LACKING, "GPUDirect",
                device_open_module("") == 0
                    ? "no RDMA: this kernel module of the driver is not the open one "
                      "(no DMA-BUF), and nvidia-peermem is not loaded"
                    : "no RDMA: neither DMA-BUF nor nvidia-peermem");
    doctor_remedy("install the driver's open kernel module (nvidia-open; Linux 5.12 or "
                  "later), or `modprobe nvidia-peermem`");
    doctor_remedy("or --allow-staging: gradients then go through host memory");
}

static void tell_reach(const struct device_facts *facts)
{
    char module[96];

    if (!facts->rdma) {
        doctor_tell(NOTED, "GPUDirect",
                    "RDMA is not supported by this GPU or driver; over a network, "
                    "--allow-staging copies through host memory");
        return;
    }
    if (facts->dmabuf)
        doctor_tell(FOUND, "GPUDirect", "RDMA by DMA-BUF");
    else if (device_peermem("", module, sizeof module))
        doctor_tell(FOUND, "GPUDirect", "RDMA by %s", module);
    else {
        tell_closed();
        return;
    }
    doctor_tell(NOTED, "", "what cards write is %s",
                facts->ordering >= DEVICE_ORDERS_OWNER
                    ? "ordered by the GPU: no flush"
                    : "not ordered by the GPU: a read of the card flushes it before "
                      "each pass");
}

static void tell_places(const struct device_facts *facts)
{
    struct device_near cards[CARDS_SHOWN];
    uint32_t count = device_near_read("", facts->bus, cards, CARDS_SHOWN);
    struct device_place place;

    device_place_read("", facts->bus, &place);
    if (place.bar1 > 0 && place.bar1 < facts->memory_bytes) {
        doctor_tell(facts->rdma ? LACKING : NOTED, "BAR1",
                    "%.2f GiB of its %.1f GiB can be reached by cards at a time",
                    (double)place.bar1 / GIB, (double)facts->memory_bytes / GIB);
        if (facts->rdma)
            doctor_remedy("larger models need \"Above 4G Decoding\" and \"Resizable "
                          "BAR\" in the firmware's setup");
    }
    for (uint32_t i = 0; i < count; i++) {
        bool far = cards[i].way == DEVICE_ACROSS_NODES;

        doctor_tell(far ? LACKING : NOTED, i == 0 ? "to cards" : "", "%s: %s",
                    cards[i].card, device_way_text(cards[i].way));
        if (far && i == 0)
            doctor_remedy("no card is near this GPU: another GPU may have one");
    }
}

/* What workers on GPUs, and groups of them, load beside the plugin. */
static void tell_libraries(const struct gpu_plugin *plugin)
{
    struct gapless_error reason = {0};
    int version = 0;

    if (plugin->model->ready(&reason) == GAPLESS_OK) {
        doctor_tell(FOUND, "cuBLAS", "found, for workers on GPUs");
    } else {
        doctor_tell(LACKING, "cuBLAS", "none: no workers on GPUs");
        doctor_remedy("%s", reason.text);
    }
    if (plugin->group->version(&version, &reason) == GAPLESS_OK) {
        doctor_tell(FOUND, "NCCL", "%d.%d.%d, for groups of workers", version / 10000,
                    version % 10000 / 100, version % 100);
    } else {
        doctor_tell(LACKING, "NCCL", "none: no groups of workers");
        doctor_remedy("%s", reason.text);
    }
}

void doctor_gpu(void)
{
    const struct gpu_plugin *plugin = NULL;
    struct gapless_error reason = {0};
    uint32_t count = 0;
    int status = device_plugin(&plugin, &reason);

    (void)printf("\naccelerators\n");
    if (status == GAPLESS_OK) {
        doctor_tell(FOUND, "plugin", "libgapless_cuda.so %s", plugin->version);
        status = plugin->device->count(&count, &reason);
    }
    if (status != GAPLESS_OK) {
        bool driver = device_open_module("") >= 0;

        doctor_tell(driver ? LACKING : NOTED, "GPU",
                    "none %s; training is on the processor",
                    driver ? "in use" : "here");
        doctor_remedy("%s", reason.text);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct device_facts facts;

        if (plugin->device->facts(i, &facts, &reason) != GAPLESS_OK) {
            doctor_tell(LACKING, "GPU", "%u cannot be used", i);
            doctor_remedy("%s", reason.text);
            continue;
        }
        tell_gpu(&facts);
        tell_reach(&facts);
        tell_places(&facts);
    }
    tell_libraries(plugin);
}
