/* The settings of a recorded run: read from the note at the start of the record, as if
 * they had been typed; the environment is not asked. */
#include "cluster/simulate/simulate.h"

#include "cluster/task/config.h"

#include <stdio.h>
#include <string.h>

/* What a record decides itself. */
static const char *const decided[] = {"clock",     "batch-time", "latency", "bandwidth",
                                      "pass-time", "events",     NULL};
/* What does not matter for the result, or is about the files that are written. */
static const char *const not_recorded[] = {
    "data-dir",       "data-fd", "replay", "threads",  "gradients",
    "evaluate-every", "out",     "quiet",  "no-color", "save-every",
    "save-keep",      "resume",  NULL};

static bool known(const char *name)
{
    for (const char *const *at = config_names; *at != NULL; at++)
        if (strcmp(*at, name) == 0)
            return true;
    return false;
}

/* Sets what a line "name=value" says. Refuses a line that says nothing: a run that is
 * repeated with a setting left out would not be the same. */
static int read_line(const char *path, char *line, struct settings *ret,
                     struct gapless_error *error)
{
    char *value = strchr(line, '=');
    struct parse_error reason;

    if (value != NULL)
        *value++ = '\0';
    if (value == NULL || !known(line))
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "the note of the record %.120s has '%.60s', which is "
                                 "no setting of a run of this version",
                                 path, line);
    if (!options_set(FOR_SIMULATE, line, value, ret, &reason))
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "the note of the record %.120s: %.40s %s", path, line,
                                 reason.text);
    return GAPLESS_OK;
}

/* The settings of a note, which is cut up and kept. */
static int read_note(const char *path, char *note, struct settings *ret,
                     struct gapless_error *error)
{
    int status = GAPLESS_OK;

    if (note[0] == '\0')
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the record %.120s does not say what was trained: "
                                 "it was not made by gapless train or gapless master",
                                 path);
    options_defaults(FOR_SIMULATE, ret);
    for (char *rest = note; status == GAPLESS_OK && rest != NULL && *rest != '\0';)
        status = read_line(path, strsep(&rest, "\n"), ret, error);
    ret->horizon_set = options_source(ret, "horizon") != OPTION_UNSET;
    return status;
}

static const char *said(const struct settings *settings, const char *name)
{
    const char *text = options_text(settings, name);

    return text != NULL ? text : "not set";
}

/* What was typed has to be as it was. */
static int check_given(const struct settings *given, const struct settings *was,
                       struct gapless_error *error)
{
    for (const char *const *name = config_names; *name != NULL; name++)
        if (options_source(given, *name) == OPTION_FLAG &&
            !options_same(given, was, *name))
            return gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "--%s %.60s is not what the record %.120s was made with, %.60s: leave "
                "it out",
                *name, said(given, *name), given->replay, said(was, *name));
    for (const char *const *name = decided; *name != NULL; name++)
        if (options_source(given, *name) == OPTION_FLAG)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "--%s and --replay: the record decides what "
                                     "happens when; leave one of them out",
                                     *name);
    return GAPLESS_OK;
}

int simulate_replay(const struct settings *given, struct settings *ret,
                    struct gapless_error *error)
{
    static char *note; /* settings point into it */
    struct settings was;
    int status = gapless_record_note(given->replay, &note, error);

    if (status == GAPLESS_OK)
        status = read_note(given->replay, note, &was, error);
    if (status == GAPLESS_OK)
        status = check_given(given, &was, error);
    if (status != GAPLESS_OK)
        return status;
    for (const char *const *name = not_recorded; *name != NULL; name++)
        options_take(&was, given, *name);
    *ret = was;
    return GAPLESS_OK;
}
