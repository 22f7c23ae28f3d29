/* gapless doctor: the processor, the memory and what the system allows. */
#include "cluster/doctor/doctor.h"

#include "engine/base/machine.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#define WORKER_DESCRIPTORS 3 /* at the master, for each worker, at least */

/* The rest of the first line of a file in /proc that begins with `key`, behind the
 * colon. */
static bool proc_line(const char *path, const char *key, char *ret, size_t max)
{
    char line[4096];
    FILE *file = fopen(path, "re");
    bool found = false;

    if (file == NULL)
        return false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');

        if (strncmp(line, key, strlen(key)) != 0 || colon == NULL)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        (void)snprintf(ret, max, "%.*s", (int)strcspn(colon, "\n"), colon);
        found = true;
    }
    (void)fclose(file);
    return found;
}

static bool has_word(const char *list, const char *word)
{
    size_t count = strlen(word);

    for (const char *at = list; (at = strstr(at, word)) != NULL; at += count)
        if ((at == list || at[-1] == ' ') && (at[count] == ' ' || at[count] == '\0'))
            return true;
    return false;
}

static void tell_vectors(void)
{
    static const struct {
        const char *flag, *name;
    } sets[] = {{"avx512f", "AVX-512"},
                {"avx2", "AVX2"},
                {"avx", "AVX"},
                {"sse2", "SSE2"},
                {"asimd", "NEON"}};
    char flags[4096] = "";

    if (!proc_line("/proc/cpuinfo", "flags", flags, sizeof flags))
        (void)proc_line("/proc/cpuinfo", "Features", flags, sizeof flags);
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        if (has_word(flags, sets[i].flag)) {
            doctor_tell(FOUND, "vectors", "%s", sets[i].name);
            return;
        }
    doctor_tell(NOTED, "vectors", "not known");
}

static void tell_processor(void)
{
    char model[256] = "not known";
    struct utsname kernel;
    int cores = (int)sysconf(_SC_NPROCESSORS_ONLN), ours = (int)machine_processors();

    (void)proc_line("/proc/cpuinfo", "model name", model, sizeof model);
    doctor_tell(FOUND, "processor", "%s, %d core%s", model, cores,
                cores == 1 ? "" : "s");
    if (ours < cores) {
        doctor_tell(LACKING, "", "only %d of them for this process", ours);
        doctor_remedy(
            "taskset, numactl, Slurm or a container (affinity, quota of time) restrict "
            "it: ask for more");
    }
    tell_vectors();
    if (uname(&kernel) == 0)
        doctor_tell(NOTED, "kernel", "%s %s", kernel.sysname, kernel.release);
}

static void tell_memory(void)
{
    char text[64] = "";
    double total = 0.0, available = 0.0;

    if (proc_line("/proc/meminfo", "MemTotal", text, sizeof text))
        total = strtod(text, NULL) / 1048576.0;
    if (proc_line("/proc/meminfo", "MemAvailable", text, sizeof text))
        available = strtod(text, NULL) / 1048576.0;
    if (machine_memory() != UINT64_MAX) /* limits of control groups, too */
        available = (double)machine_memory() / 1073741824.0;
    doctor_tell(available < 0.5 ? LACKING : FOUND, "memory", "%.1f GiB, %.1f free",
                total, available);
    if (available < 0.5)
        doctor_remedy(
            "end other programs, or train a smaller model with fewer workers");
}

static void tell_limits(void)
{
    struct rlimit files, processes;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        unsigned long long workers =
            files.rlim_max > 64 ? (files.rlim_max - 64) / WORKER_DESCRIPTORS : 0;
        bool few = files.rlim_max != RLIM_INFINITY && workers < 64;

        doctor_tell(few ? LACKING : FOUND, "open files",
                    "%llu, can be raised to %llu: enough for %s%llu workers",
                    (unsigned long long)files.rlim_cur,
                    (unsigned long long)files.rlim_max, workers > 4096 ? "all " : "",
                    workers > 4096 ? 4096 : workers);
        if (few)
            doctor_remedy(
                "'* - nofile 65536' in /etc/security/limits.conf, log in again");
    }
    if (getrlimit(RLIMIT_NPROC, &processes) == 0 &&
        processes.rlim_cur != RLIM_INFINITY) {
        doctor_tell(processes.rlim_cur < 128 ? LACKING : FOUND, "processes", "%llu",
                    (unsigned long long)processes.rlim_cur);
        if (processes.rlim_cur < 128)
            doctor_remedy(
                "'* - nproc 4096' in /etc/security/limits.conf, log in again");
    }
}

/* Maps a page of a memfd, as the shared-memory transport does. */
static int try_memfd(void)
{
    int fd = memfd_create("gapless-doctor", MFD_CLOEXEC), os = errno;
    void *page;

    if (fd < 0)
        return os;
    os = 0;
    if (ftruncate(fd, 4096) != 0) {
        os = errno;
    } else {
        page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page == MAP_FAILED)
            os = errno;
        else
            (void)munmap(page, 4096);
    }
    (void)close(fd);
    return os;
}

static void tell_sharing(void)
{
    int os = try_memfd();
    int pair[2];

    doctor_tell(os == 0 ? FOUND : MISSING, "memfd", "%s",
                os == 0 ? "memory can be shared between processes" : strerror(os));
    if (os != 0)
        doctor_remedy(
            "a kernel since 3.17 has memfd_create; a container may forbid it");
    os = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0 ? 0 : errno;
    doctor_tell(os == 0 ? FOUND : MISSING, "Unix sockets", "%s",
                os == 0 ? "work" : strerror(os));
    if (os != 0) {
        doctor_remedy("the container or sandbox has to allow AF_UNIX sockets");
        return;
    }
    (void)close(pair[0]);
    (void)close(pair[1]);
}

void doctor_machine(void)
{
    tell_processor();
    tell_memory();
    tell_limits();
    tell_sharing();
}
