/* The master died: what it had is kept, and it is started again from the last state. */
#include "cluster/train/train.h"

#include "cluster/program/program.h"
#include "cluster/task/model_file.h"
#include "cluster/task/states.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LOST_FILE "model.lost.safetensors"

/* The parameters as they were when it died, which are still mapped here. */
static void keep_lost(struct train *train)
{
    char path[RESULTS_PATH_MAX], torn[400];
    struct gapless_error error = {0};
    float *theta = calloc(train->task.model.parameters, sizeof *theta);
    uint64_t updates = 0;
    int status = GAPLESS_NO_MEMORY;

    if (train->observer == NULL) {
        free(theta);
        return; /* it died before it could be seen */
    }
    if (theta != NULL)
        status = gapless_observer_lost(train->observer, theta, &updates, torn,
                                       sizeof torn, &error);
    if (status == GAPLESS_OK)
        status = results_path(train->folder, LOST_FILE, path, &error);
    if (status == GAPLESS_OK && updates > 0)
        status = model_file_save(&train->task, theta, train->settings.rule,
                                 train->facts.stats.gradients, path, -1, &error);
    free(theta);
    if (status != GAPLESS_OK)
        view_note(&train->view, "gapless train: its last parameters are lost: %s",
                  error.text[0] != '\0' ? error.text : gapless_strerror(status));
    else if (updates > 0)
        view_note(&train->view,
                  "gapless train: its last parameters, after %" PRIu64
                  " gradients, are in %s%s%s",
                  train->facts.stats.gradients, path, torn[0] != '\0' ? "; torn: " : "",
                  torn);
}

/* Gradients of the last state; false: there is none. */
static bool last_state(const struct train *train, uint64_t *ret)
{
    char path[RESULTS_PATH_MAX];

    return states_latest("train", train->folder, path, ret, NULL) == GAPLESS_OK;
}

bool train_restart(struct train *train, const char *what)
{
    struct gapless_error error = {0};
    uint64_t gradients = 0, had = train->facts.stats.gradients;

    keep_lost(train);
    if (train->restarted >= train->settings.restarts || train->signal != 0 ||
        !last_state(train, &gradients))
        return false;
    train->restarted++;
    train->gradients_lost += had > gradients ? had - gradients : 0;
    gapless_observer_close(train->observer);
    train->observer = NULL;
    view_note(&train->view,
              "gapless train: %s; it is started again from the state after %" PRIu64
              " gradients: %" PRIu64 " are lost",
              what, gradients, had > gradients ? had - gradients : 0);
    if (train_start_one(train, 0, &error) == GAPLESS_OK) {
        train->connect_by = now_seconds() + TRAIN_CONNECT_S;
        return true;
    }
    train_fail(train, "%s", error.text);
    return false;
}
