/* gapless inspect, gapless export: what is in a state of a run, and its parameters for other
 * programs. */
#include "cluster/program/program_options.h"
#include "cluster/task/states.h"
#include "cluster/task/tensor_file.h"
#include "engine/run/checkpoint.h"
#include "engine/run/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the metadata, what says how a run was made; texts of some lines are left to --json. */
static const char *const said[] = {"gapless", "rule",  "gradients", "updates",
                                   "workers", "epoch", "model",     "data"};
/* What a saved model says of itself. */
static const char *const of_model[] = {
    "gapless", "rule",      "gradients",      "model",       "data",    "features",
    "classes", "data_mean", "data_deviation", "class_names", "columns", NULL};

static void shape_text(const struct state_tensor *t, const char *between, char *ret,
                       size_t max)
{
    size_t used = 0;

    ret[0] = '\0';
    for (uint32_t d = 0; d < t->dims && used + 24 < max; d++)
        used += (size_t)snprintf(ret + used, max - used, "%s%" PRIu64,
                                 d > 0 ? between : "", t->dim[d]);
}

static void print_words(const struct state_file *file)
{
    char shape[100];

    (void)printf("%s: a state of a run, format " STATE_FORMAT
                 "; every checksum is right\n\n",
                 state_path(file));
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++)
        if (state_said(file, said[i])[0] != '\0')
            (void)printf("  %-10s %s\n", said[i], state_said(file, said[i]));
    (void)printf("\n");
    for (uint32_t i = 0; i < state_tensors(file); i++) {
        const struct state_tensor *t = state_tensor(file, i);

        shape_text(t, " x ", shape, sizeof shape);
        (void)printf("  %-32s %s  %s\n", t->name, state_type_name[t->type], shape);
    }
}

static void print_json(const struct state_file *file)
{
    char shape[100];

    (void)printf("{\"file\": \"%s\", \"checksums\": true", state_path(file));
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++)
        if (strpbrk(state_said(file, said[i]), "\"\\\n") == NULL)
            (void)printf(", \"%s\": \"%s\"", said[i], state_said(file, said[i]));
    (void)printf(", \"tensors\": [");
    for (uint32_t i = 0; i < state_tensors(file); i++) {
        const struct state_tensor *t = state_tensor(file, i);

        shape_text(t, ", ", shape, sizeof shape);
        (void)printf("%s\n  {\"name\": \"%s\", \"type\": \"%s\", \"shape\": [%s]}",
                     i > 0 ? "," : "", t->name, state_type_name[t->type], shape);
    }
    (void)printf("]}\n");
}

/* A model, or another file of tensors: it has no checksums. */
static int inspect_plain(const char *path, struct gapless_error *error)
{
    struct tensor_file file = {0};
    int status = tensor_file_open(path, path, &file, error);

    if (status != GAPLESS_OK)
        return status;
    (void)printf("%s: %zu tensors, %" PRIu64 " bytes; no state of a run: it has no "
                 "checksums\n\n",
                 path, tensor_file_count(&file), file.bytes);
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++)
        if (tensor_file_said(&file, said[i])[0] != '\0')
            (void)printf("  %-10s %s\n", said[i], tensor_file_said(&file, said[i]));
    tensor_file_close(&file);
    return GAPLESS_OK;
}

static bool is_state(const char *path)
{
    struct tensor_file file = {0};
    bool ret = tensor_file_open(path, path, &file, NULL) != GAPLESS_OK ||
               tensor_file_said(&file, "state")[0] != '\0';

    tensor_file_close(&file);
    return ret; /* what is damaged, too: the reader of states says how */
}

static int operand_of(const char *command, const struct settings *settings,
                      const char **ret)
{
    if (settings->operands == 1) {
        *ret = settings->operand[0];
        return EXIT_DONE;
    }
    report_failure(command,
                   "wants %s: a state, or the folder of a run; see gapless %s --help",
                   settings->operands == 0 ? "a file" : "one file", command);
    return EXIT_MISUSE;
}

int cmd_inspect(int argc, char **argv)
{
    static struct settings settings;
    char path[RESULTS_PATH_MAX];
    struct gapless_error error = {0};
    struct state_file *file = NULL;
    const char *given = NULL;
    int code, status;

    if (!program_options(FOR_INSPECT, argc, argv, &settings, &code))
        return code;
    code = operand_of("inspect", &settings, &given);
    if (code != EXIT_DONE)
        return code;
    status = states_path("inspect", given, path, NULL, &error);
    if (status == GAPLESS_OK && !is_state(path)) {
        status = inspect_plain(path, &error);
        return status == GAPLESS_OK ? EXIT_DONE : report_error("inspect", &error);
    }
    if (status == GAPLESS_OK)
        status = state_open(path, &file, &error);
    if (status != GAPLESS_OK)
        return report_error("inspect", &error);
    if (settings.json)
        print_json(file);
    else
        print_words(file);
    state_close(file);
    return EXIT_DONE;
}

/* ---- export -------------------------------------------------------------- */

/* The parameters, which come first. */
static uint32_t parameters_of(const struct state_file *file)
{
    uint32_t count = 0;

    while (count < state_tensors(file) &&
           strncmp(state_tensor(file, count)->name, STATE_PREFIX,
                   sizeof STATE_PREFIX - 1) != 0)
        count++;
    return count;
}

static int export_safetensors(const struct state_file *file, const char *to,
                              struct gapless_error *error)
{
    uint32_t count = parameters_of(file), texts = 0;
    struct gapless_tensor *tensors = calloc(count + 1, sizeof *tensors);
    const char *metadata[2 * sizeof of_model / sizeof of_model[0]];
    struct layout layout;
    int status = GAPLESS_OK;

    for (uint32_t i = 0; tensors != NULL && i < count; i++) {
        const struct state_tensor *t = state_tensor(file, i);

        tensors[i] = (struct gapless_tensor){.name = t->name, .dims = t->dims};
        memcpy(tensors[i].dim, t->dim, sizeof t->dim);
    }
    for (size_t i = 0; of_model[i] != NULL; i++)
        if (state_said(file, of_model[i])[0] != '\0') {
            metadata[texts++] = of_model[i];
            metadata[texts++] = state_said(file, of_model[i]);
        }
    metadata[texts] = NULL;
    if (tensors == NULL)
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    if (status == GAPLESS_OK)
        status = layout_init(&layout, &(struct gapless_model){tensors, count}, 0, 0,
                             false, error);
    if (status == GAPLESS_OK) {
        const float *theta = state_model(file, &layout, error);

        status = theta == NULL
                     ? GAPLESS_MODEL
                     : checkpoint_save(&layout, theta, to, metadata, NULL, error);
        layout_free(&layout);
    }
    free(tensors);
    return status;
}

/* NumPy's format 1.0: a header that makes the data begin at a multiple of 64 bytes. */
static int export_npy(const struct state_tensor *t, const char *to,
                      struct gapless_error *error)
{
    char shape[100], text[256];
    unsigned char *bytes;
    size_t used, header;
    int status;

    shape_text(t, ", ", shape, sizeof shape);
    used = (size_t)snprintf(
        text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }",
        shape);
    header = (10 + used + 1 + 63) / 64 * 64;
    bytes = malloc(header + t->bytes);
    if (bytes == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    memset(bytes, ' ', header);
    memcpy(bytes, "\x93NUMPY\x01\x00", 8);
    bytes[8] = (unsigned char)((header - 10) & 255);
    bytes[9] = (unsigned char)((header - 10) >> 8);
    memcpy(bytes + 10, text, used);
    bytes[header - 1] = '\n';
    memcpy(bytes + header, t->data, t->bytes);
    status = results_file(to, bytes, header + t->bytes, error);
    free(bytes);
    return status;
}

static int export_all_npy(const struct state_file *file, const char *folder,
                          struct gapless_error *error)
{
    char name[200], path[RESULTS_PATH_MAX];
    uint32_t count = parameters_of(file);
    int status = results_folder(folder, error);

    for (uint32_t i = 0; status == GAPLESS_OK && i < count; i++) {
        const struct state_tensor *t = state_tensor(file, i);

        if (strchr(t->name, '/') != NULL)
            return gapless_error_set(
                error, GAPLESS_UNSUPPORTED, 0,
                "tensor '%.100s' has a name that no file can have: "
                "use --format safetensors",
                t->name);
        (void)snprintf(name, sizeof name, "%s.npy", t->name);
        status = results_path(folder, name, path, error);
        if (status == GAPLESS_OK)
            status = export_npy(t, path, error);
    }
    return status;
}

int cmd_export(int argc, char **argv)
{
    static struct settings settings;
    char path[RESULTS_PATH_MAX];
    struct gapless_error error = {0};
    struct state_file *file = NULL;
    const char *given = NULL;
    bool npy;
    int code, status;

    if (!program_options(FOR_EXPORT, argc, argv, &settings, &code))
        return code;
    code = operand_of("export", &settings, &given);
    if (code != EXIT_DONE)
        return code;
    npy = strcmp(settings.format, "npy") == 0;
    if (settings.out == NULL)
        settings.out = npy ? "parameters" : "model.safetensors";
    status = states_path("export", given, path, &file, &error);
    if (status == GAPLESS_OK)
        status = npy ? export_all_npy(file, settings.out, &error)
                     : export_safetensors(file, settings.out, &error);
    if (status == GAPLESS_OK)
        (void)printf("%s: %u tensors, after %s gradients\n", settings.out,
                     parameters_of(file), state_said(file, "gradients"));
    state_close(file);
    return status == GAPLESS_OK ? EXIT_DONE : report_error("export", &error);
}
