/* States of a run, from options to the engine's terms. */
#include "cluster/task/states.h"

#include "cluster/program/program.h"
#include "cluster/task/config.h"
#include "cluster/task/tensor_file.h"
#include "engine/run/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "state"

static void say(void *context, const char *line)
{
    report_failure(context, "%s", line);
}

/* ---- which one ----------------------------------------------------------- */

/* Is it the folder of a run that has a folder of states? */
static bool is_run(const char *path)
{
    char folder[RESULTS_PATH_MAX];
    struct stat is;

    return snprintf(folder, sizeof folder, "%s/" FOLDER, path) < (int)sizeof folder &&
           stat(folder, &is) == 0 && S_ISDIR(is.st_mode);
}

int states_path(const char *command, const char *where, char ret[RESULTS_PATH_MAX],
                struct state_file **ret_file, struct gapless_error *error)
{
    char folder[RESULTS_PATH_MAX];

    if (is_run(where) && results_path(where, FOLDER, folder, error) == GAPLESS_OK)
        where = folder;
    return state_folder_latest(where, ret, RESULTS_PATH_MAX, ret_file, say,
                               (void *)(uintptr_t)command, error);
}

int states_latest(const char *command, const char *where, char ret[RESULTS_PATH_MAX],
                  uint64_t *ret_gradients, struct gapless_error *error)
{
    struct state_file *file = NULL;
    int status = states_path(command, where, ret, &file, error);

    if (status != GAPLESS_OK)
        return status;
    *ret_gradients = state_number(file, "gradients");
    state_close(file);
    return GAPLESS_OK;
}

/* A line "name=value" of a note, unless the option was given. */
static bool take_line(enum option_command command, char *line, struct settings *ret,
                      struct parse_error *reason)
{
    char *value = strchr(line, '=');

    if (value == NULL)
        return true;
    *value++ = '\0';
    if (options_source(ret, line) == OPTION_FLAG)
        return true;
    return options_set(command, line, value, ret, reason);
}

int states_settings(enum option_command command, struct settings *settings,
                    struct gapless_error *error)
{
    static char *note; /* settings point into it */
    char path[RESULTS_PATH_MAX];
    struct state_file *file = NULL;
    struct parse_error reason;
    int status;

    if (settings->resume == NULL)
        return GAPLESS_OK;
    if (settings->init != NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--resume and --init: a run goes on from a state, or "
                                 "begins with parameters; leave one of them out");
    status = states_path(options_command_name(command), settings->resume, path, &file,
                         error);
    if (status != GAPLESS_OK)
        return status;
    free(note);
    note = strdup(state_said(file, "note"));
    state_close(file);
    for (char *rest = note; rest != NULL && *rest != '\0';) {
        char *line = strsep(&rest, "\n");

        if (!take_line(command, line, settings, &reason))
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "the settings of the state '%.200s': %.40s %s",
                                     path, line, reason.text);
    }
    if (settings->out == NULL && is_run(settings->resume))
        settings->out = settings->resume;
    settings->horizon_set = options_source(settings, "horizon") != OPTION_UNSET;
    return GAPLESS_OK;
}

/* ---- how often ----------------------------------------------------------- */

int states_every(const char *text, uint64_t total, double epoch, int64_t *ret_ns,
                 uint64_t *ret_gradients, struct gapless_error *error)
{
    static const struct real_bounds any = {0.0, 1e9, false, false};
    struct parse_error reason;
    struct span span;
    double seconds;

    *ret_ns = 0;
    *ret_gradients = 0;
    if (strcmp(text, "0") == 0 || strcmp(text, "never") == 0)
        return GAPLESS_OK;
    if (parse_span(text, &span, &reason)) {
        *ret_gradients = span_gradients(span, total, epoch);
        *ret_gradients += *ret_gradients == 0 ? 1 : 0;
        return GAPLESS_OK;
    }
    if (parse_time(text, any, &seconds, &reason) && seconds > 0.0) {
        *ret_ns = (int64_t)(seconds * 1e9);
        return GAPLESS_OK;
    }
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "--save-every wants a time or a span, such as 5min, "
                             "1000updates or 1epoch, or 0 for never, not '%.60s'",
                             text);
}

int states_check(const struct settings *settings, const struct task *task,
                 uint64_t total, struct gapless_error *error)
{
    char path[RESULTS_PATH_MAX];
    struct gapless_master_config config;
    int status;

    if (settings->resume == NULL)
        return GAPLESS_OK;
    status = states_path("train", settings->resume, path, NULL, error);
    if (status != GAPLESS_OK)
        return status;
    config_set(settings, task, total, NULL, NULL, NULL, &config);
    config.resume = path;
    return gapless_master_check(&config, error);
}

/* ---- open ---------------------------------------------------------------- */

/* What decides how a run goes, a line each; of a simulation also what happens when. */
static char *note_of(const struct settings *settings)
{
    static const char *const more[] = {"clock", "batch-time", "events", "gradients"};
    char *note = config_note(settings), *ret = note;

    for (size_t i = 0; ret != NULL && i < sizeof more / sizeof more[0]; i++) {
        const char *text = options_text(settings, more[i]);

        if (text == NULL)
            continue;
        if (asprintf(&ret, "%s%s=%s\n", note, more[i], text) < 0)
            ret = NULL;
        free(note);
        note = ret;
    }
    return ret;
}

static int set_texts(const struct settings *settings, const struct task *task,
                     struct states *ret, struct gapless_error *error)
{
    size_t count = 0;
    int status = model_file_metadata(task, &ret->metadata, error);

    if (status != GAPLESS_OK)
        return status;
    ret->note = note_of(settings);
    if (ret->note == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    for (; count < MODEL_FILE_TEXTS && ret->metadata.text[count] != NULL; count++)
        ret->text[count] = ret->metadata.text[count];
    ret->text[count++] = "note";
    ret->text[count++] = ret->note;
    return GAPLESS_OK;
}

/* The state, and how often the run was begun. A folder that cannot be written to is none of a
 * run that goes on there: the state's own number counts. */
static int set_from(const struct settings *settings, struct states *ret,
                    struct gapless_master_config *config, struct gapless_error *error)
{
    struct state_file *file = NULL;
    uint64_t epoch;
    int status = states_path(settings->launched ? "master" : "train", settings->resume,
                             ret->from, &file, error);

    if (status != GAPLESS_OK)
        return status;
    epoch = state_number(file, "epoch");
    ret->gradients = state_number(file, "gradients");
    state_close(file);
    config->resume = ret->from;
    config->initial = NULL;
    config->epoch = epoch + 1;
    return ret->folder[0] == '\0'
               ? GAPLESS_OK
               : state_folder_epoch(ret->folder, epoch, &config->epoch, error);
}

int states_open(const struct settings *settings, const struct task *task,
                const char *out, struct states *ret,
                struct gapless_master_config *config, struct gapless_error *error)
{
    bool given = options_source(settings, "save-every") > OPTION_DEFAULT;
    bool gpu = settings->device != NULL && strcmp(settings->device, "cpu") != 0;
    int64_t every_ns = 0;
    uint64_t every = 0;
    int status = states_every(settings->save_every, config->gradients,
                              (double)task_epoch(task), &every_ns, &every, error);

    memset(ret, 0, sizeof *ret);
    if (status == GAPLESS_OK && out != NULL && (every_ns > 0 || every > 0) &&
        (given || !gpu)) {
        status = results_path(out, FOLDER, ret->folder, error);
        if (status == GAPLESS_OK)
            status = results_folder(ret->folder, error);
        if (status == GAPLESS_OK)
            status = set_texts(settings, task, ret, error);
        config->save_folder = ret->folder;
        config->save_every_ns = every_ns;
        config->save_every = every;
        config->save_keep = settings->save_keep;
        config->save_metadata = ret->text;
    }
    if (status == GAPLESS_OK && settings->resume != NULL)
        status = set_from(settings, ret, config, error);
    return status;
}

void states_close(struct states *states)
{
    model_file_metadata_free(&states->metadata);
    free(states->note);
    if (states->folder[0] != '\0')
        (void)rmdir(states->folder); /* if nothing was saved */
    memset(states, 0, sizeof *states);
}

int states_save(const struct states *states, const struct gapless_master *master,
                struct gapless_error *error)
{
    struct gapless_stats stats;
    char path[RESULTS_PATH_MAX + 64];
    int status;

    gapless_master_stats(master, &stats);
    if (states->folder[0] == '\0' || stats.updates == 0 ||
        (stats.gradients_total > 0 && stats.gradients >= stats.gradients_total))
        return GAPLESS_OK;
    status =
        state_folder_path(states->folder, stats.gradients, path, sizeof path, error);
    if (status == GAPLESS_OK)
        status = gapless_master_save_state(master, path, states->text, error);
    return status == GAPLESS_AGAIN ? GAPLESS_OK : status;
}

int states_save_simulation(const struct states *states,
                           struct gapless_simulation *simulation, uint32_t keep,
                           struct gapless_error *error)
{
    struct gapless_stats stats;
    char path[RESULTS_PATH_MAX + 64];
    int status;

    gapless_master_stats(gapless_simulation_master(simulation), &stats);
    status =
        state_folder_path(states->folder, stats.gradients, path, sizeof path, error);
    if (status == GAPLESS_OK)
        status = gapless_simulation_save(simulation, path, states->text, error);
    if (status == GAPLESS_OK)
        state_folder_prune(states->folder, keep);
    return status;
}

/* ---- parameters alone ---------------------------------------------------- */

static bool has_shape(const struct tensor_entry *entry, const struct gapless_tensor *of)
{
    bool same = entry->dims == of->dims;

    for (uint32_t d = 0; same && d < of->dims; d++)
        same = entry->dim[d] == of->dim[d];
    return same;
}

int states_initial(const struct settings *settings, const struct task *task,
                   float *ret_theta, struct gapless_error *error)
{
    struct tensor_file file = {0};
    struct tensor_entry entry;
    int status;

    if (settings->init == NULL)
        return GAPLESS_OK;
    status = tensor_file_open(settings->init, settings->init, &file, error);
    for (uint32_t i = 0; status == GAPLESS_OK && i < task->shape.tensors_count; i++) {
        const struct gapless_tensor *t = &task->shape.tensors[i];
        uint64_t count = 1;

        for (uint32_t d = 0; d < t->dims; d++)
            count *= t->dim[d];
        if (tensor_file_find(&file, t->name, &entry) && has_shape(&entry, t))
            status = tensor_file_read(&file, &entry, count, ret_theta, error);
        else
            status =
                gapless_error_set(error, GAPLESS_MODEL, 0,
                                  "--init %.200s has no tensor '%.70s' of the size "
                                  "that the model has: give its --model and --data",
                                  settings->init, t->name);
        ret_theta += count;
    }
    tensor_file_close(&file);
    return status;
}
