/* What a figure was measured on; every benchmark's JSON carries it. */
#include "bench/bench.h"

#include "engine/compute/compute.h"
#include <gapless/gapless.h>

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static void cpu_model(char *ret, size_t room)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");

    (void)snprintf(ret, room, "unknown");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *value = strchr(line, ':');

        if (strncmp(line, "model name", 10) != 0 || value == NULL)
            continue;
        value[1 + strcspn(value + 1, "\n")] = '\0';
        (void)snprintf(ret, room, "%s", value + 1 + strspn(value + 1, " "));
        break;
    }
    if (file != NULL)
        (void)fclose(file);
}

void bench_machine(struct json_t *root)
{
    struct utsname system = {0};
    char model[128], date[32];
    time_t now = time(NULL);
    struct tm utc;

    cpu_model(model, sizeof model);
    (void)uname(&system);
    (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    (void)json_object_set_new(root, "version", json_string(gapless_version()));
    (void)json_object_set_new(root, "date", json_string(date));
    (void)json_object_set_new(root, "cpu", json_string(model));
    (void)json_object_set_new(root, "cores",
                              json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
    (void)json_object_set_new(root, "isa", json_string(compute_cpu()->name));
    (void)json_object_set_new(root, "system", json_string(system.release));
    (void)json_object_set_new(root, "compiler", json_string(__VERSION__));
}

bool bench_write_json(const char *command, const char *path, struct json_t *root)
{
    bool good;

    errno = 0;
    if (strcmp(path, "-") == 0)
        good = json_dumpf(root, stdout, JSON_INDENT(1)) == 0 && puts("") >= 0;
    else
        good = json_dump_file(root, path, JSON_INDENT(1)) == 0;
    json_decref(root);
    if (!good)
        (void)fprintf(stderr, "gapless %s: cannot write '%s': %s\n", command, path,
                      strerror(errno));
    return good;
}
