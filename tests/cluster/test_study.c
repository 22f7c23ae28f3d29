/* gapless study for real, on generated data: what it writes, going on after kill -9,
 * runs that fail, two at once in a run_dir. */
#include "tests/cluster/run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CELLS_MAX 16

static const char *in_folder(const char *name)
{
    static char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", run_dir, name);
    return path;
}

/* FOLDER/s.ini */
static void write_study(const char *text)
{
    FILE *file = fopen(in_folder("s.ini"), "we");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* The command, with FOLDER/out for its files. */
static const char *command(const char *more)
{
    static char line[256];

    (void)snprintf(line, sizeof line, "study %s/s.ini --out %s/out%s%s", run_dir,
                   run_dir, more[0] != '\0' ? " " : "", more);
    return line;
}

static bool exists(const char *name)
{
    struct stat info;

    return stat(in_folder(name), &info) == 0;
}

/* ---- study.csv ----------------------------------------------------------- */

struct csv {
    char *text;
    char *field[CELLS_MAX + 1][64];
    unsigned rows, columns; /* rows with the header */
};

/* No field of these studies is in quotes, but for one that a test looks at itself. */
static void load_csv(struct csv *ret)
{
    FILE *file = fopen(in_folder("out/study.csv"), "re");
    size_t size = 0;
    char *rest, *line;

    memset(ret, 0, sizeof *ret);
    assert_non_null(file);
    assert_true(getdelim(&ret->text, &size, '\0', file) > 0);
    (void)fclose(file);
    rest = ret->text;
    while ((line = strsep(&rest, "\n")) != NULL && line[0] != '\0') {
        unsigned count = 0;

        assert_true(ret->rows <= CELLS_MAX);
        while (line != NULL && count < 64)
            ret->field[ret->rows][count++] = strsep(&line, ",");
        if (ret->rows > 0)
            assert_int_equal(count, ret->columns);
        ret->columns = count;
        ret->rows++;
    }
}

static const char *csv_field(const struct csv *csv, unsigned row, const char *column)
{
    for (unsigned i = 0; i < csv->columns; i++)
        if (strcmp(csv->field[0][i], column) == 0)
            return csv->field[row][i];
    fail_msg("study.csv has no column %s", column);
    return "";
}

static void csv_close(struct csv *csv)
{
    free(csv->text);
}

/* The number that a JSON file of the row's cell has at KEY or KEY.KEY, as the CSV has
 * it. */
static void same_number(const struct csv *csv, unsigned row, const char *column,
                        const char *file, const char *key, const char *second)
{
    char cell[256], want[40] = "";
    json_t *object;
    const json_t *value;

    (void)snprintf(cell, sizeof cell, "out/cells/%s", csv_field(csv, row, "cell"));
    object = run_json(in_folder(cell), file);
    value = json_object_get(object, key);
    if (second != NULL)
        value = json_object_get(value, second);
    assert_non_null(value);
    if (json_is_number(value))
        (void)snprintf(want, sizeof want, "%.9g", json_number_value(value));
    assert_string_equal(csv_field(csv, row, column), want);
    json_decref(object);
}

/* Virtual time of the first line of metrics.jsonl that reaches the accuracy. */
static void check_time_to_target(const struct csv *csv, unsigned row, double target)
{
    char cell[256], line[4096], want[40] = "";
    FILE *file;

    (void)snprintf(cell, sizeof cell, "out/cells/%s/metrics.jsonl",
                   csv_field(csv, row, "cell"));
    file = fopen(in_folder(cell), "re");
    assert_non_null(file);
    while (want[0] == '\0' && fgets(line, sizeof line, file) != NULL) {
        json_t *moment = json_loads(line, 0, NULL);
        const json_t *accuracy = json_object_get(moment, "accuracy");

        assert_non_null(moment);
        if (json_is_number(accuracy) && json_number_value(accuracy) >= target)
            (void)snprintf(want, sizeof want, "%.9g", run_number(moment, "elapsed"));
        json_decref(moment);
    }
    (void)fclose(file);
    assert_string_equal(csv_field(csv, row, "time_to_target"), want);
}

/* ---- a study from end to end --------------------------------------------- */

static const char small[] = "[study]\ntitle = Small, but whole\ntarget = 0.4\n"
                            "chart = accuracy-workers\n"
                            "[run]\ndata = synthetic:600x16x4\nmodel = softmax\n"
                            "epochs = 2\nbatch = 8\n"
                            "[grid]\nrule = asgd dana-ga\nworkers = 1 4\nseed = 1 2\n";

static void check_row(const struct csv *csv, unsigned row)
{
    assert_string_equal(csv_field(csv, row, "status"), "done");
    assert_string_equal(csv_field(csv, row, "grid"), "grid");
    assert_string_equal(csv_field(csv, row, "data"), "synthetic:600x16x4");
    assert_string_equal(csv_field(csv, row, "momentum"), "0.9");
    assert_string_equal(csv_field(csv, row, "gradients"), "150");
    same_number(csv, row, "final_accuracy", "result.json", "final_accuracy", NULL);
    same_number(csv, row, "final_loss", "result.json", "final_loss", NULL);
    same_number(csv, row, "lag_mean", "result.json", "lag", "mean");
    same_number(csv, row, "lag_p99", "result.json", "lag", "p99");
    same_number(csv, row, "gap_mean", "result.json", "gap_rms", "mean");
    same_number(csv, row, "virtual_seconds", "result.json", "virtual_seconds", NULL);
    same_number(csv, row, "master_bytes", "result.json", "bytes", "master");
    same_number(csv, row, "worker_bytes", "result.json", "bytes", "workers");
    same_number(csv, row, "real_seconds", "run.json", "real_seconds", NULL);
    same_number(csv, row, "master_us_per_update", "run.json", "master_us_per_update",
                NULL);
    assert_string_equal(csv_field(csv, row, "grad_norm_sq_min"), "");
}

static void test_whole(void **state)
{
    struct csv csv;
    struct run run;

    (void)state;
    write_study(small);
    run_whole(NULL, command("--dry-run"), 0, "8 runs in");
    assert_false(exists("out"));
    run_whole("GAPLESS_LR=7 GAPLESS_EPOCHS=1", command(""), 0, "8 of 8 runs done");
    load_csv(&csv);
    assert_int_equal(csv.rows, 9);
    for (unsigned row = 1; row < csv.rows; row++) {
        check_row(&csv, row);
        check_time_to_target(&csv, row, 0.4);
    }
    assert_string_equal(csv_field(&csv, 4, "cell"), "grid-rule_asgd-workers_4-seed_2");
    assert_string_equal(csv_field(&csv, 4, "lr"), "0.005"); /* not the environment's */
    csv_close(&csv);
    assert_true(exists("out/study.ini") && exists("out/report.html"));

    run_whole(NULL, command("--dry-run"), 0, "8 done, 0 to go");
    run = run_start(NULL, 0, command("--quiet --target 0.9999"));
    assert_int_equal(run_wait(&run, 60.0), 0);
    run_expect(&run, "rule \\ workers", 1.0);
    run_expect(&run, "dana-ga", 1.0);
    run_close(&run);
    load_csv(&csv);
    assert_string_equal(csv_field(&csv, 1, "time_to_target"), ""); /* another target */
    csv_close(&csv);
}

/* Tests are started with the file that was replaced, or not, told apart by this. */
struct seen {
    char cell[CELLS_MAX][256];
    struct stat info[CELLS_MAX];
    unsigned count;
};

static unsigned look(const char *const *cells, unsigned count, struct seen *ret)
{
    char path[256];

    ret->count = 0;
    for (unsigned i = 0; i < count; i++) {
        struct stat info;

        (void)snprintf(path, sizeof path, "out/cells/%s/result.json", cells[i]);
        if (stat(in_folder(path), &info) != 0)
            continue;
        (void)snprintf(ret->cell[ret->count], sizeof ret->cell[0], "%s", path);
        ret->info[ret->count++] = info;
    }
    return ret->count;
}

static bool unchanged(const struct seen *seen, unsigned i)
{
    struct stat info;

    return stat(in_folder(seen->cell[i]), &info) == 0 &&
           info.st_ino == seen->info[i].st_ino &&
           info.st_mtim.tv_sec == seen->info[i].st_mtim.tv_sec &&
           info.st_mtim.tv_nsec == seen->info[i].st_mtim.tv_nsec;
}

/* Only what changed is run again; a result that is not whole too. */
static void test_changes(void **state)
{
    static const char *const cells[] = {"grid-seed_1", "grid-seed_2", "grid-seed_3"};
    static const char text[] = "[run]\ndata = synthetic:600x16x4\nmodel = softmax\n"
                               "epochs = %s\n[grid]\nseed = %s\n";
    char study[256];
    struct seen seen;

    (void)state;
    (void)snprintf(study, sizeof study, text, "1", "1 2");
    write_study(study);
    run_whole(NULL, command(""), 0, "2 of 2 runs done");
    assert_int_equal(look(cells, 3, &seen), 2);
    assert_int_equal(truncate(in_folder(seen.cell[1]), 50), 0);

    (void)snprintf(study, sizeof study, text, "1", "3 1 2");
    write_study(study);
    run_whole(NULL, command("--dry-run"), 0, "1 done, 2 to go");
    run_whole(NULL, command(""), 0, "3 of 3 runs done");
    assert_true(unchanged(&seen, 0));
    assert_false(unchanged(&seen, 1));

    (void)snprintf(study, sizeof study, text, "2", "1 2 3");
    write_study(study);
    assert_int_equal(look(cells, 3, &seen), 3);
    run_whole(NULL, command(""), 0, "3 of 3 runs done");
    for (unsigned i = 0; i < 3; i++)
        assert_false(unchanged(&seen, i));
}

/* ---- ends ahead of time -------------------------------------------------- */

static const char *const slow_cells[] = {"grid-seed_1", "grid-seed_2", "grid-seed_3",
                                         "grid-seed_4", "grid-seed_5", "grid-seed_6",
                                         "grid-seed_7", "grid-seed_8"};

/* So slow that it cannot be over before it is disturbed. */
static void write_slow(void)
{
    write_study("[study]\njobs = 2\n[run]\ndata = synthetic:4000x64x4\n"
                "model = mlp:64\nepochs = 6\n[grid]\nseed = 1 2 3 4 5 6 7 8\n");
}

/* Waits until some of the slow cells are done, and not all. */
static void wait_for_some(struct seen *ret)
{
    struct pace_bound bound = pace_begin(60000000000);

    while (look(slow_cells, 8, ret) < 2 && !pace_over(&bound))
        run_sleep(0.005);
    assert_true(ret->count >= 2 && ret->count < 8);
}

static void check_all_done(const struct seen *before)
{
    struct csv csv;

    for (unsigned i = 0; i < before->count; i++)
        assert_true(unchanged(before, i));
    load_csv(&csv);
    assert_int_equal(csv.rows, 9);
    for (unsigned row = 1; row < csv.rows; row++)
        assert_string_equal(csv_field(&csv, row, "status"), "done");
    csv_close(&csv);
}

/* The study alone is killed: its runs end by themselves, and until then hold the
 * run_dir, so that it can be started again at once. */
static void test_killed(void **state)
{
    struct seen seen;
    struct run run;

    (void)state;
    write_slow();
    run = run_start(NULL, 0, command(""));
    wait_for_some(&seen);
    (void)kill(run.pid, SIGKILL);
    assert_int_equal(run_wait(&run, 10.0), -SIGKILL);
    run_close(&run);
    run_whole(NULL, command(""), 0, "8 of 8 runs done");
    check_all_done(&seen);
}

/* Everything is killed. */
static void test_all_killed(void **state)
{
    struct seen seen;
    pid_t all[16];
    unsigned count;
    struct run run;

    (void)state;
    write_slow();
    run = run_start(NULL, 0, command(""));
    wait_for_some(&seen);
    (void)kill(run.pid, SIGSTOP); /* so that it starts no more */
    count = run_processes(run_dir, all, 16);
    for (unsigned i = 0; i < count; i++)
        (void)kill(all[i], SIGKILL);
    assert_int_equal(run_wait(&run, 10.0), -SIGKILL);
    run_close(&run);
    run_whole(NULL, command(""), 0, "8 of 8 runs done");
    check_all_done(&seen);
}

static void test_asked_to_stop(void **state)
{
    struct seen seen;
    struct csv csv;
    struct run run;
    unsigned done = 0;

    (void)state;
    write_slow();
    run = run_start(NULL, 0, command(""));
    wait_for_some(&seen);
    (void)kill(run.pid, SIGTERM);
    assert_int_equal(run_wait(&run, 30.0), 128 + SIGTERM);
    run_expect(&run, "the same command goes on from there", 1.0);
    run_close(&run);
    run_none_left(run_dir);
    load_csv(&csv);
    for (unsigned row = 1; row < csv.rows; row++) {
        done += strcmp(csv_field(&csv, row, "status"), "done") == 0;
        assert_string_not_equal(csv_field(&csv, row, "status"), "failed");
    }
    assert_true(done >= seen.count && done < 8);
    csv_close(&csv);
    run_whole(NULL, command(""), 0, "8 of 8 runs done");
    check_all_done(&seen);
}

static void test_lock(void **state)
{
    struct seen seen;
    struct run run;

    (void)state;
    write_slow();
    run = run_start(NULL, 0, command(""));
    wait_for_some(&seen);
    (void)kill(run.pid, SIGSTOP); /* it holds the folder for as long as this takes */
    run_whole(NULL, command(""), 1, "another run is at work");
    (void)kill(run.pid, SIGCONT);
    assert_int_equal(run_wait(&run, 60.0), 0);
    run_close(&run);
}

/* The only worker of a run is killed in it: the run fails, the others go on. */
static void test_failure(void **state)
{
    struct csv csv;
    struct run run;

    (void)state;
    write_study("[run]\ndata = synthetic:600x16x4\nmodel = softmax\nepochs = 1\n"
                "[grid]\nworkers = 1 2\nevents = \"1ms kill 0\"\n");
    run = run_start(NULL, 0, command(""));
    assert_int_equal(run_wait(&run, 60.0), 1);
    run_expect(&run, "ended with code 1; its last words: ", 1.0);
    run_expect(&run, "1 run failed; the same command runs it again", 1.0);
    run_expect(&run, "1 of 2 runs done", 1.0);
    run_close(&run);
    load_csv(&csv);
    assert_string_equal(csv_field(&csv, 1, "status"), "failed");
    assert_string_equal(csv_field(&csv, 1, "final_accuracy"), "");
    assert_string_equal(csv_field(&csv, 2, "status"), "done");
    assert_string_equal(csv_field(&csv, 2, "events"), "1ms kill 0");
    csv_close(&csv);
    run_whole(NULL, command("--dry-run"), 0, "1 done, 1 to go");
}

/* A grid in which nothing that makes a curve varies prints its means, with whole names. */
static void test_names(void **state)
{
    struct run run;
    char *text;

    (void)state;
    write_study("[run]\ndata = synthetic:600x16x4\nmodel = softmax\nepochs = 1\n"
                "workers = 2\n[grid]\nrule = ga dana-ga-global\nbatch = 8 16\n");
    run = run_start(NULL, 0, command(""));
    assert_int_equal(run_wait(&run, 60.0), 0);
    text = run_output(&run);
    assert_non_null(strstr(text, "Means by rule"));
    assert_non_null(strstr(text, "dana-ga-global, batch 16 "));
    free(text);
    run_close(&run);
}

/* The number of local steps may vary; the same batches whatever it is. */
static void test_local_steps(void **state)
{
    static const char *const updates[] = {"95", "24", "6"};
    struct csv csv;

    (void)state;
    write_study("[run]\ndata = synthetic:2000x16x4\nmodel = softmax\nepochs = 1.5\n"
                "workers = 2\nrule = dn\n[grid]\nlocal-steps = 1 4 16\n");
    run_whole(NULL, command(""), 0, "3 of 3 runs done");
    load_csv(&csv);
    for (unsigned row = 1; row <= 3; row++) {
        assert_string_equal(csv_field(&csv, row, "gradients"), "95");
        assert_string_equal(csv_field(&csv, row, "updates"), updates[row - 1]);
    }
    assert_string_equal(csv_field(&csv, 3, "local-steps"), "16");
    csv_close(&csv);
}

/* `all` is what local steps admit; the mean gate is a column, of the rules that have one. */
static void test_all_that_fit(void **state)
{
    struct csv csv;

    (void)state;
    write_study("[run]\ndata = synthetic:400x16x4\nmodel = softmax\nepochs = 1\n"
                "workers = 2\nkappa = 5\n[grid]\nrule = all\nlocal-steps = 4\n");
    run_whole(NULL, command("--dry-run"), 0, "rule = all in [grid] leaves out");
    write_study("[run]\ndata = synthetic:400x16x4\nmodel = softmax\nepochs = 1\n"
                "workers = 4\nwarmup = 0\n[grid]\nrule = dana-ga dana-lga\n");
    run_whole(NULL, command(""), 0, "2 of 2 runs done");
    load_csv(&csv);
    for (unsigned row = 1; row <= 2; row++) {
        double gate = strtod(csv_field(&csv, row, "gate_mean"), NULL);

        assert_true(row == 2 ? gate > 0 && gate <= 1 : !(gate > 0));
    }
    assert_string_equal(csv_field(&csv, 1, "gate_mean"), "");
    assert_string_equal(csv_field(&csv, 2, "rule"), "dana-lga");
    csv_close(&csv);
}

/* A test function has no data set; a value with a comma stands in quotes. */
static void test_toy(void **state)
{
    char line[1024];
    FILE *file;

    (void)state;
    write_study("[study]\nchart = convergence\n[run]\nsteps = 0.5:0.1,0.75:0.1\n"
                "[grid]\nmodel = quadratic:16\nepochs = 0.2\n");
    run_whole("GAPLESS_DATA_DIR=/nowhere", command(""), 0, "1 of 1 run done");
    file = fopen(in_folder("out/study.csv"), "re");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file));
    assert_non_null(strstr(line, ",steps,"));
    assert_non_null(fgets(line, sizeof line, file));
    assert_non_null(strstr(line, ",\"0.5:0.1,0.75:0.1\","));
    assert_non_null(strstr(line, ",200,")); /* gradients: an epoch has 1000 */
    (void)fclose(file);
}

/* ---- what is wrong is found before anything runs ------------------------- */

static const struct {
    const char *study;
    int code;
    const char *text;
} mistakes[] = {
    {"[grid]\nrule = asgd nosuch\n", 2, "s.ini:2: rule knows no rule 'nosuch'"},
    {"[run]\ndata = nothing\n", 2, "s.ini:2: no data set is called"},
    {"[run]\ndata = synthetic\n[grid]\nmodel = softmax\n mlp:0\n", 2, "s.ini:5: "},
    {"[grid]\nmodel = valley:-1\n", 2, "s.ini:2: "},
    {"[run]\ndata = synthetic\n[grid]\nclock = sundial\n", 2, "s.ini:4: --clock"},
    {"[run]\ndata = synthetic\nevents = 1s kill 99\n", 2, "s.ini:3: --events"},
    {"[run]\ndata = synthetic\nweight-decay = 0.1\n[grid]\nrule = asgd adamw\n", 2,
     "s.ini:3: --weight-decay 0.1 is not for rule adamw"},
    {"[run]\ndata = synthetic\n[grid]\nrule = dn easgd\nlocal-steps = 1 4\n", 2,
     "s.ini:5: --local-steps is not for rule easgd"},
    {"[run]\ndata = synthetic\n[grid]\nlocal-steps = 4 9000\n", 2,
     "s.ini:4: --local-steps 9000"},
    {"[run]\ndata = synthetic\ninner-lr = 0.1\n[grid]\nrule = dn\n", 2,
     "--inner-lr is of local steps"},
    {"[run]\ndata = mnist\n", 1, "cluster/workloads/fetch-data mnist"},
};

static void test_mistakes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        char empty[64];

        write_study(mistakes[i].study);
        (void)snprintf(empty, sizeof empty, "--data-dir %s", run_dir);
        run_whole(NULL, command(empty), mistakes[i].code, mistakes[i].text);
        assert_false(exists("out"));
    }
    run_whole(NULL, "study", 2, "give the file of a study, as in");
    run_whole(NULL, "study a.ini b.ini", 2, "give the file of one study, as in");
    run_whole(NULL, "study /nowhere/x.ini", 1, "/nowhere/x.ini");
    run_whole(NULL, "study --help", 0, "usage: gapless study");
    write_study("[run]\ndata = synthetic:600x16x4\n");
    run_whole(NULL, command("--jobs 1025"), 2, "at most 1024");
    assert_int_equal(mkdir(in_folder("out"), 0777), 0);
    assert_int_equal(mkdir(in_folder("out/.lock"), 0777), 0);
    run_whole(NULL, command(""), 1, ".lock");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_changes, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_killed, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_all_killed, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_asked_to_stop, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_lock, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_failure, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_names, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_local_steps, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_all_that_fit, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_toy, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_mistakes, run_set_up, run_tear_down),
    };

    return cmocka_run_group_tests_name("study", tests, NULL, NULL);
}
