/* gapless doctor: what this machine offers, and what to do about each lack. */
#include "cluster/workloads/data.h"
#include "cluster/doctor/doctor.h"
#include "cluster/options/options.h"
#include "cluster/program/program_options.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool missing;

void doctor_tell(enum finding finding, const char *name, const char *format, ...)
{
    static const char *const marks[] = {
        [FOUND] = "ok", [LACKING] = "--", [MISSING] = "!!", [NOTED] = "  "};
    va_list list;

    if (finding == MISSING)
        missing = true;
    (void)printf("  %s  %-14s", marks[finding], name);
    va_start(list, format);
    (void)vprintf(format, list);
    va_end(list);
    (void)printf("\n");
}

void doctor_remedy(const char *format, ...)
{
    va_list list;

    (void)printf("      %-14s> ", "");
    va_start(list, format);
    (void)vprintf(format, list);
    va_end(list);
    (void)printf("\n");
}

bool doctor_missing(void)
{
    return missing;
}

static void tell_transports(void)
{
    (void)printf("\ntransports\n");
    doctor_tell(FOUND, "shm", "shared memory, on one machine");
    doctor_network();
    doctor_tell(NOTED, "libfabric", "this version has no libfabric transport");
}

static void tell_data(const char *folder)
{
    static const char *const names[] = {"fashion-mnist", "mnist", "cifar-10"};

    (void)printf("\ndata\n");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct gapless_error error = {0};
        struct data *data;

        if (data_load(names[i], folder, &data, &error) == GAPLESS_OK) {
            doctor_tell(FOUND, names[i], "%u + %u samples in %s", data->train_count,
                        data->test_count, data->source);
            data_free(data);
            continue;
        }
        doctor_tell(LACKING, names[i], "%s",
                    error.status == GAPLESS_MISSING ? "not here" : "cannot be used");
        doctor_remedy("%s", error.text);
    }
    doctor_tell(FOUND, "synthetic", "always there");
}

int cmd_doctor(int argc, char **argv)
{
    struct settings settings;
    int code;

    if (!program_options(FOR_DOCTOR, argc, argv, &settings, &code))
        return code;
    (void)printf("gapless %s\n\nmachine\n", gapless_version());
    doctor_machine();
    tell_transports();
    doctor_gpu();
    doctor_blas();
    tell_data(settings.data_dir);
    (void)printf("\n%s\n", doctor_missing()
                               ? "Something is missing that every run needs: see the "
                                 "lines with !!."
                               : "This machine can train: gapless train");
    return doctor_missing() ? EXIT_FAILED : EXIT_DONE;
}
