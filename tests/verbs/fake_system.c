/* The network interfaces of the fake's devices, as the operating system would tell of
 * them: fnet0 of fake0 and so on. For test programs that are linked with --wrap of
 * these functions. */
#include "tests/verbs/fake_own.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int __wrap_getifaddrs(struct ifaddrs **ret);
void __wrap_freeifaddrs(struct ifaddrs *list);
DIR *__wrap_opendir(const char *path);

static struct ifaddrs list[2 * FAKE_DEVICES];
static struct sockaddr_in in[FAKE_DEVICES], mask;
static struct sockaddr_in6 in6[FAKE_DEVICES], mask6;
static char names[FAKE_DEVICES][16];

int __wrap_getifaddrs(struct ifaddrs **ret)
{
    int count = 2 * FAKE_DEVICES;

    fake_lock();
    mask.sin_family = AF_INET;
    mask.sin_addr.s_addr = htonl(0xffffff00);
    mask6.sin6_family = AF_INET6;
    memset(&mask6.sin6_addr, 0xff, 8);
    for (int i = 0; i < count; i++) {
        const struct fake_device *device = &fake_world.devices[i / 2];

        (void)snprintf(names[i / 2], sizeof names[0], "fnet%d", i / 2);
        in[i / 2].sin_family = AF_INET;
        in[i / 2].sin_addr = device->address;
        in6[i / 2].sin6_family = AF_INET6;
        in6[i / 2].sin6_addr = device->address6;
        list[i] = (struct ifaddrs){.ifa_next = i + 1 < count ? &list[i + 1] : NULL,
                                   .ifa_name = names[i / 2]};
        if (i % 2 == 0) {
            list[i].ifa_addr = (void *)&in[i / 2];
            list[i].ifa_netmask = (void *)&mask;
        } else {
            list[i].ifa_addr = (void *)&in6[i / 2];
            list[i].ifa_netmask = (void *)&mask6;
        }
    }
    fake_unlock();
    *ret = list;
    return 0;
}

void __wrap_freeifaddrs(struct ifaddrs *unused)
{
    (void)unused;
}

/* Of /sys/class/infiniband/fakeN only device/net/fnetN is there. */
DIR *__wrap_opendir(const char *path)
{
    static const char start[] = "/sys/class/infiniband/fake";
    size_t length = strlen(path);
    int root;

    if (strncmp(path, start, sizeof start - 1) != 0 || length < sizeof start ||
        strncmp(path + sizeof start, "/device/net/fnet", 16) != 0 ||
        path[length - 1] != path[sizeof start - 1])
        return NULL;
    root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return root < 0 ? NULL : fdopendir(root);
}
