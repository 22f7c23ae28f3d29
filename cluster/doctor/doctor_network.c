/* gapless doctor: RDMA. Devices and their ports, who may open them, and how much memory
 * a process may lock, for a network card reads and writes memory that must stay in
 * place. */
#include "cluster/terminal/canvas.h"
#include "cluster/task/network.h"
#include "cluster/doctor/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define SURVEY_BYTES 8192
#define TYPICAL_GIB 4.0 /* a worker of 500 million parameters locks so much */
#define WORKER_BYTES 8  /* a parameter: the gradient, and what it computes at */

static unsigned count_names(const char *path, const char *prefix)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;
    unsigned count = 0;

    if (folder == NULL)
        return 0;
    while ((entry = readdir(folder)) != NULL)
        count += entry->d_name[0] != '.' &&
                 strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    (void)closedir(folder);
    return count;
}

/* The lines of the survey: a device each, and under it, indented, what it has. */
static void tell_lines(char *text)
{
    while (text != NULL && *text != '\0') {
        const char *line = strsep(&text, "\n");
        size_t blanks = strspn(line, " ");

        if (line[blanks] != '\0')
            doctor_tell(blanks == 0 ? FOUND : NOTED, blanks == 0 ? "RDMA" : "", "%s%s",
                        blanks == 0 ? "" : "  ", line + blanks);
    }
}

static void tell_no_device(void)
{
    doctor_tell(NOTED, "RDMA",
                "no device here: shm runs on this machine, verbs needs one");
    doctor_remedy("is there a card? lspci | grep -i -e mellanox -e infiniband -e "
                  "ethernet");
    doctor_remedy("drivers: apt install rdma-core ibverbs-providers; modprobe mlx5_ib "
                  "(or irdma, bnxt_re, ...)");
    doctor_remedy("to try without a card: modprobe rdma_rxe; rdma link add rxe0 type "
                  "rxe netdev eth0");
}

/* ---- who may open them --------------------------------------------------- */

/* Opens it as the transport would. 0, or an errno. */
static int try_open(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    int os = errno;

    if (fd < 0)
        return os;
    (void)close(fd);
    return 0;
}

static void tell_file(const char *name, int os, const char *module)
{
    if (os == 0) {
        doctor_tell(FOUND, "", "%s can be opened", name);
        return;
    }
    doctor_tell(LACKING, "", "%s cannot be opened: %s", name, strerror(os));
    if (os == ENOENT || os == ENODEV || os == ENXIO) {
        doctor_remedy("modprobe %s", module);
        doctor_remedy("in a container: --device=/dev/infiniband, and its devices "
                      "allowed");
    } else {
        doctor_remedy("ask for it: usermod -aG rdma $USER, or a udev rule with "
                      "MODE=\"0666\"; then log in again");
    }
}

static void tell_access(void)
{
    DIR *folder = opendir("/dev/infiniband");
    const struct dirent *entry;
    char path[300];
    int os = ENOENT;

    while (folder != NULL && os != 0 && (entry = readdir(folder)) != NULL)
        if (strncmp(entry->d_name, "uverbs", 6) == 0) {
            (void)snprintf(path, sizeof path, "/dev/infiniband/%.255s", entry->d_name);
            os = try_open(path);
        }
    if (folder != NULL)
        (void)closedir(folder);
    tell_file("/dev/infiniband/uverbs*", os, "ib_uverbs");
    tell_file("/dev/infiniband/rdma_cm", try_open("/dev/infiniband/rdma_cm"),
              "rdma_ucm");
}

/* ---- memory -------------------------------------------------------------- */

static void tell_memlock(bool needed)
{
    struct rlimit limit;
    double gib;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        return;
    if (limit.rlim_cur == RLIM_INFINITY) {
        doctor_tell(FOUND, "memory lock", "unlimited");
        return;
    }
    gib = (double)limit.rlim_cur / (1024.0 * 1024.0 * 1024.0);
    if (geteuid() == 0) {
        doctor_tell(FOUND, "memory lock",
                    "%llu KiB, but root may lock more; other users are bound by theirs",
                    (unsigned long long)limit.rlim_cur / 1024);
        return;
    }
    doctor_tell(gib >= TYPICAL_GIB ? FOUND
                : needed           ? LACKING
                                   : NOTED,
                "memory lock",
                "%llu KiB: over RDMA enough for a worker of %s parameters, or "
                "a master of as many over all its workers",
                (unsigned long long)limit.rlim_cur / 1024,
                word_count(limit.rlim_cur / WORKER_BYTES).text);
    if (gib >= TYPICAL_GIB)
        return;
    doctor_remedy("'* - memlock unlimited' in /etc/security/limits.d/rdma.conf, then "
                  "log in again;");
    doctor_remedy("a systemd service: LimitMEMLOCK=infinity; a container: --ulimit "
                  "memlock=-1;");
    doctor_remedy("Slurm: PropagateResourceLimitsExcept=MEMLOCK in slurm.conf, and "
                  "LimitMEMLOCK for slurmd");
}

static void tell_listen(void)
{
    struct gapless_error error = {0};
    char address[ADDRESS_MAX];

    if (network_find(address, &error) == GAPLESS_OK)
        doctor_tell(FOUND, "", "gapless train --transport verbs would listen at %s",
                    address);
    else
        doctor_tell(NOTED, "", "%s", error.text);
}

static void tell_build(unsigned devices)
{
    doctor_tell(devices > 0 ? LACKING : NOTED, "RDMA", "not in this build%s",
                devices > 0 ? ", though this machine has devices" : "");
    doctor_remedy(
        "apt install libibverbs-dev librdmacm-dev libsodium-dev; configure with "
        "-DGAPLESS_VERBS=ON, build");
}

static void tell_devices(unsigned devices)
{
    char text[SURVEY_BYTES] = "";
    int found = gapless_network_survey(text, sizeof text);

    if (found == 0 && devices == 0) {
        tell_no_device();
        return;
    }
    tell_lines(text);
    if (found <= 0) {
        doctor_tell(LACKING, "RDMA",
                    "the kernel has %u device%s, the library sees none", devices,
                    devices == 1 ? "" : "s");
        doctor_remedy(
            "apt install ibverbs-providers (the user-space drivers of cards)");
    }
    tell_access();
    tell_listen();
}

void doctor_network(void)
{
    unsigned devices = count_names("/sys/class/infiniband", "");

    if (GAPLESS_HAVE_VERBS)
        tell_devices(devices);
    else
        tell_build(devices);
    tell_memlock(devices > 0);
}
