/* GPUs and network cards as the kernel shows them: how far apart they are, and by which
 * kernel module cards can reach the memory of GPUs. By hand, not by hwloc: the library
 * needs nothing but the C library, hwloc knows neither the size of BAR1 nor that module,
 * and what it could do here are the forty lines of way_between. */
#include "engine/device/device.h"

#include "engine/base/text_file.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* BAR1 of NVIDIA's is the second of the PCI resources. */
#define BAR1_LINE 1

static int read_node(const char *folder)
{
    char path[PATH_MAX + 16], text[32];

    (void)snprintf(path, sizeof path, "%s/numa_node", folder);
    return text_first_line(path, text, sizeof text) ? (int)strtol(text, NULL, 10) : -1;
}

/* "0x000000f800000000 0x000000f9ffffffff 0x000000000014220c", one line a resource */
static uint64_t read_bar(const char *folder)
{
    char path[PATH_MAX + 16], text[128];
    unsigned long long start = 0, end = 0;
    bool found = true;
    FILE *in;

    (void)snprintf(path, sizeof path, "%s/resource", folder);
    in = fopen(path, "re");
    if (in == NULL)
        return 0;
    for (int i = 0; i <= BAR1_LINE && found; i++)
        found = fgets(text, sizeof text, in) != NULL;
    (void)fclose(in);
    if (found) {
        char *rest;

        start = strtoull(text, &rest, 16);
        end = strtoull(rest, NULL, 16);
    }
    return end > start ? end - start + 1 : 0;
}

void device_place_read(const char *root, const char *bus, struct device_place *ret)
{
    char folder[PATH_MAX];

    (void)snprintf(folder, sizeof folder, "%s/sys/bus/pci/devices/%s", root, bus);
    ret->node = read_node(folder);
    ret->bar1 = read_bar(folder);
}

/* The place of a device in the tree of PCI: "pci0000:17/0000:17:01.0/0000:18:00.0".
 * False: it is in none. */
static bool tree_path(const char *link, char *ret, size_t bytes)
{
    char file[PATH_MAX];
    const char *at;

    if (realpath(link, file) == NULL)
        return false;
    at = strstr(file, "/sys/devices/");
    if (at == NULL || strncmp(at + 13, "pci", 3) != 0 || strlen(at + 13) >= bytes)
        return false;
    (void)snprintf(ret, bytes, "%s", at + 13);
    return true;
}

/* How many folders two paths have in common, from the left. */
static int common(const char *a, const char *b)
{
    int count = 0;

    for (;;) {
        size_t length = strcspn(a, "/");

        if (length == 0 || strcspn(b, "/") != length || strncmp(a, b, length) != 0)
            return count;
        count++;
        a += length;
        b += length;
        a += *a == '/';
        b += *b == '/';
    }
}

/* One folder in common is the root complex; more are bridges below it. */
static enum device_way way_between(const char *gpu, int gpu_node, const char *card,
                                   int card_node)
{
    int shared = common(gpu, card);

    if (shared >= 2)
        return DEVICE_SAME_SWITCH;
    if (shared == 1)
        return DEVICE_SAME_ROOT;
    return gpu_node == card_node ? DEVICE_SAME_NODE : DEVICE_ACROSS_NODES;
}

static int nearer_first(const void *a, const void *b)
{
    const struct device_near *one = (const struct device_near *)a;
    const struct device_near *two = (const struct device_near *)b;

    return one->way != two->way ? (int)one->way - (int)two->way
                                : strcmp(one->card, two->card);
}

uint32_t device_near_read(const char *root, const char *bus, struct device_near *ret,
                          uint32_t max)
{
    char path[PATH_MAX], gpu[PATH_MAX] = "", card[PATH_MAX];
    struct device_place place;
    const struct dirent *entry;
    uint32_t count = 0;
    bool known;
    DIR *folder;

    device_place_read(root, bus, &place);
    (void)snprintf(path, sizeof path, "%s/sys/bus/pci/devices/%s", root, bus);
    known = tree_path(path, gpu, sizeof gpu);
    (void)snprintf(path, sizeof path, "%s/sys/class/infiniband", root);
    folder = opendir(path);
    if (folder == NULL)
        return 0;
    while ((entry = readdir(folder)) != NULL && count < max) {
        struct device_near *near = &ret[count];

        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(near->card, sizeof near->card, "%.63s", entry->d_name);
        (void)snprintf(path, sizeof path, "%s/sys/class/infiniband/%.63s/device", root,
                       entry->d_name);
        near->node = read_node(path);
        near->way = known && tree_path(path, card, sizeof card)
                        ? way_between(gpu, place.node, card, near->node)
                        : DEVICE_WAY_UNKNOWN;
        count++;
    }
    (void)closedir(folder);
    if (count > 1)
        qsort(ret, count, sizeof *ret, nearer_first);
    return count;
}

const char *device_way_text(enum device_way way)
{
    switch (way) {
    case DEVICE_SAME_SWITCH:
        return "same PCIe switch";
    case DEVICE_SAME_ROOT:
        return "same PCIe root, through the processor";
    case DEVICE_SAME_NODE:
        return "same NUMA node, through the processor";
    case DEVICE_ACROSS_NODES:
        return "across NUMA nodes: slow";
    case DEVICE_WAY_UNKNOWN:
        break;
    }
    return "distance unknown";
}

bool device_peermem(const char *root, char *ret, size_t bytes)
{
    static const struct {
        const char *name, *path;
    } places[] = {{"nvidia-peermem", "sys/module/nvidia_peermem/version"},
                  {"nv_peer_mem", "sys/kernel/mm/memory_peers/nv_mem/version"},
                  {"nv_peer_mem", "sys/module/nv_peer_mem/version"}};
    char path[PATH_MAX], version[64];

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", root, places[i].path);
        if (!text_first_line(path, version, sizeof version))
            continue;
        (void)snprintf(ret, bytes, "%s %s", places[i].name, version);
        return true;
    }
    return false;
}

/* "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08 ..." */
int device_open_module(const char *root)
{
    char path[PATH_MAX], text[256];

    (void)snprintf(path, sizeof path, "%s/proc/driver/nvidia/version", root);
    if (!text_first_line(path, text, sizeof text))
        return -1;
    return strstr(text, "Open Kernel Module") != NULL;
}
