/* What a person can type wrongly: each gets an exit code, 2 for misuse and 1 for
 * failure, and words that help. */
#include "tests/cluster/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct mistake {
    const char *environment, *line;
    int code;
    const char *text;
};

#define LONG "a-name-of-fifty-bytes-which-is-too-long-if-written" /* twice */

static const struct mistake mistakes[] = {
    {NULL, "trian", 2, "did you mean 'train'?"},
    {NULL, "TRAIN", 2, "did you mean 'train'?"},
    {NULL, "bench ruels", 2, "did you mean 'rules'?"},
    {NULL, "train --Rule asgd", 2, "did you mean --rule?"},
    {NULL, "train --rule ASGD", 2, "did you mean 'asgd'?"},
    {NULL, "train --gap-ref Sent", 2, "did you mean 'sent'?"},
    {NULL, "train --kappa Auto", 2, "; or give auto; did you mean 'auto'?"},
    {NULL, "train --kappa atuo", 2, "did you mean 'auto'?"},
    {NULL, "train --kappa -1", 2, "; or give auto\n"},
    {NULL, "train --schedule Cosine", 2, "did you mean 'cosine'?"},
    {NULL, "plan --link Measured", 2, "did you mean 'measured'?"},
    {NULL, "nonsense-altogether", 2,
     "altogether'\n'gapless help' lists the commands.\n"},
    {NULL, "trian", 2, "'train'?\n'gapless help' lists the commands.\n"},
    {NULL, "--hlep", 2, "there is no option '--hlep'; did you mean '--help'?\n"},
    {NULL, "-x", 2, "there is no option '-x'; those of a command go behind"},
    {NULL, "train --rule dana-gaa", 2, "did you mean 'dana-ga'?"},
    {NULL, "train --rule what", 2,
     "knows no rule 'what'\n'gapless rules' lists them.\n"},
    {NULL, "train --epo 1 --quite", 2, "did you mean --quiet?"},
    {NULL, "train --unheard-of", 2, "unheard-of'\n'gapless train --help' lists"},
    {NULL, "train --worker 4", 2, "ambiguous"},
    {NULL, "train -z", 2, "there is no option '-z'"},
    {NULL, "train --workers", 2, "needs a value"},
    {NULL, "train 4", 2, "'4' is not an option"},
    {NULL, "train --workers 0", 2, "must be at least 1"},
    {NULL, "train --workers -3", 2, "must be a whole number"},
    {NULL, "train --workers 4097", 2, "must be at most 4096"},
    {NULL, "train --workers 8x", 2, "must be a whole number"},
    {NULL, "train --workers 99999999999999999999999", 2, "must be at most"},
    {NULL, "train --workers 9 --workers-max 8", 2, "more than the capacity"},
    {NULL, "train --batch 0", 2, "--batch must be at least 1"},
    {NULL, "train --batch 70000", 2, "--batch must be at most 65536"},
    {NULL, "train --lr 0", 2, "--lr must be above 0"},
    {NULL, "train --lr -0.1", 2, "--lr must be above 0"},
    {NULL, "train --lr 1e-300 --data synthetic", 2,
     "1e-300, which is 0 as a 32-bit float"},
    {NULL, "simulate --lr 1e-300 --data synthetic", 2, "which is 0 as a 32-bit float"},
    {NULL, "train --lr nan", 2, "must be a finite number"},
    {NULL, "train --lr inf", 2, "must be a finite number"},
    {NULL, "train --lr 1e999", 2, "must be a finite number"},
    {NULL, "train --lr 0x1p3", 2, "must be a finite number"},
    {NULL, "train --lr 0.1,", 2, "must be a finite number"},
    {NULL, "train --lr=", 2, "must be a finite number"},
    {NULL, "train --momentum 1", 2, "--momentum must be below 1"},
    {NULL, "train --momentum -0.1", 2, "--momentum must be at least 0"},
    {NULL, "train --kappa 0", 2, "--kappa must be above 0, not '0'; or give auto"},
    {NULL, "train --kappa -3", 2, "'-3'; or give auto"},
    {NULL, "train --kappa often", 2, "'often'; or give auto"},
    {NULL, "train --data synthetic --rule dana-lga --gate whole", 2,
     "leave the gate at tensor"},
    {NULL, "train --local-steps 0", 2, "--local-steps must be at least 1"},
    {NULL, "train --local-steps -4", 2, "--local-steps must be a whole number"},
    {NULL, "train --local-steps 16,adaptive", 2, "must be a whole number"},
    {NULL, "train --data synthetic --local-steps 9999", 2, "for one exchange each"},
    {NULL, "train --data synthetic --local-steps 4 --rule easgd", 2, "take --period"},
    {NULL, "train --data synthetic --local-steps 4 --rule dana-slim", 2, "dana-zero"},
    {NULL, "train --data synthetic --local-steps 4 --rule dana-lga", 2,
     "needs --kappa"},
    {NULL, "simulate --data synthetic --local-steps 4 --rule lga-adamw", 2,
     "needs --kappa"},
    {NULL, "train --data synthetic --local-steps 4 --weight-decay 0.1", 2,
     "--inner-decay"},
    {NULL, "train --data synthetic --local-steps 4 --clip-norm 1", 2,
     "a smaller --inner-lr"},
    {NULL, "train --data synthetic --local-steps 4 --group nccl", 2,
     "not for --group nccl"},
    {NULL, "train --data synthetic --local-steps 4 --worker-device cuda", 2,
     "on the CPU only"},
    {NULL, "master --data synthetic --local-steps 4 --inner sgd --inner-beta2 0.9", 2,
     "--inner-beta2 is AdamW's"},
    {NULL, "simulate --data synthetic --inner-lr 0.1", 2, "give --local-steps H"},
    {NULL, "master --data synthetic --adapt-steps", 2, "give --local-steps H"},
    {NULL, "train --inner adam", 2, "did you mean 'adamw'?"},
    {NULL, "train --inner-momentum 1", 2, "--inner-momentum must be below 1"},
    {NULL, "train --data synthetic --rule ssgd --drop-lag 8", 2,
     "gapless train: rule ssgd drops no gradient"},
    {NULL, "train --data synthetic --drop-lag 3 --out /proc/nowhere", 1,
     "gapless train: gradients are dropped from a lag of 3 on: with 8 workers"},
    {NULL, "simulate --data synthetic --drop-lag 3 --out /proc/nowhere", 1,
     "gapless simulate: gradients are dropped from a lag of 3 on: with 8 workers"},
    {NULL,
     "train --data synthetic --rule dana-adamw --beta2 0.9999999 --workers 100 --out "
     "/proc/nowhere",
     1, "gapless train: beta2 (--beta2) is 0.9999999 in a round of 100 workers"},
    {NULL,
     "simulate --data synthetic --rule shared-lga-adamw --beta2 0.99999 --workers 100 "
     "--out /proc/nowhere",
     1, "32-bit floats lose; take a smaller one"},
    {NULL, "train --drop-lag -1", 2, "must be a whole number"},
    {NULL, "train --gate half", 2, "tensor, whole"},
    {NULL, "train --beta2 1", 2, "--beta2 must be below 1"},
    {NULL, "train --beta2 -0.9", 2, "--beta2 must be above 0"},
    {NULL, "train --epsilon -1e-8", 2, "--epsilon must be at least 1e-30"},
    {NULL, "train --epsilon nan", 2, "must be a finite number"},
    {NULL, "train --decay -0.1", 2, "--decay must be at least 0"},
    {NULL, "train --decay inf", 2, "must be a finite number"},
    {NULL, "train --epochs 0", 2, "--epochs must be above 0"},
    {NULL, "train --epochs 1e-9 --data synthetic", 2, "1e-09 is far from one gradient"},
    {NULL, "simulate --epochs 1e-9 --model quadratic", 2, "give at least 0.001"},
    {NULL, "train --epochs 1e7", 2, "--epochs must be at most"},
    {NULL, "train --warmup 2weeks", 2, "knows the units epochs and updates"},
    {NULL, "train --warmup 1.5", 2, "write 1.5epochs or 1.5updates"},
    {NULL, "train --steps 0.5", 2, "wants AT:FACTOR"},
    {NULL, "train --steps 0.5:0", 2, "must be above 0"},
    {NULL, "train --steps 0.5:0.1,", 2, "wants AT:FACTOR"},
    {NULL, "train --steps 0.9:0.1,0.5:0.1", 2, "milestone 2 comes before milestone 1"},
    {NULL, "train --steps .1:1,.2:1,.3:1,.4:1,.5:1,.6:1,.7:1,.8:1,.9:1", 2,
     "at most 8"},
    {NULL, "train --schedule sine", 2, "constant, cosine"},
    {NULL, "train --schedule cosine:2", 2, "must be at most 1"},
    {NULL, "train --gap-ref here", 2, "sent, own_lookahead"},
    {NULL, "train --seed -1", 2, "must be a whole number"},
    {NULL, "train --address tcp:1.2.3.4", 2, "must be shm:NAME"},
    {NULL, "master --address 10.0.0.1:7471", 2, "verbs:HOST:PORT, not '10.0.0.1"},
    {NULL, "train --data synthetic --address shm:" LONG LONG, 2,
     "--address has a name of 100 bytes: at most 80 fit"},
    {"GAPLESS_ADDRESS=ib:1", "master", 2, "GAPLESS_ADDRESS must be shm:NAME"},
    {NULL, "master --transport shm --listen 10.0.0.1", 2, "--listen is for"},
    {NULL, "worker --transport verbs", 2, "gapless worker: "},
    {NULL, "worker --token-file /nowhere/token", 2, "head -c 32 /dev/urandom"},
    {NULL, "train --token-file /dev/null --data synthetic", 2, "no regular file"},
    {NULL, "worker --retries 7", 2, "--retries must be at most 6"},
    {NULL, "worker --ack-timeout 7", 2, "--ack-timeout must be at least 8"},
    {NULL, "master --channels 17", 2, "--channels must be at most 16"},
    {NULL, "bench transport --sizes 0", 2,
     "--sizes takes 1 to 1G bytes; '0' is too few"},
    {NULL, "bench update --sizes 4K,100T", 2,
     "--sizes takes 64 to 4G bytes; '100T' is too many"},
    {NULL, "bench update --sizes 4Q", 2, "number of bytes, as 64K, not '4Q'"},
    {NULL, "bench rules --rules dana", 2, "knows no rule 'dana'"},
    {NULL, "bench rules --sizes 1", 2, "must be at least 1024"},
    {NULL, "bench update --Reps 1", 2, "did you mean --reps?"},
    {NULL, "bench gpu --only bit", 2, "did you mean 'bits'?"},
    {"GAPLESS_REPS=0", "bench update", 2, "GAPLESS_REPS must be at least 1"},
    {"GAPLESS_SIZES=x", "bench rules", 2, "GAPLESS_SIZES must be a whole number"},
    {"GAPLESS_ONLY=all,bits", "bench gpu --accept", 2, "GAPLESS_ONLY must be one of"},
    {"GAPLESS_LINK=5", "plan", 2, "GAPLESS_LINK wants a rate"},
    {"GAPLESS_WORKRES=3", "rules", 0, "did you mean GAPLESS_WORKERS?"},
    {"GAPLESS_LAB_ANYTHING=3", "rules", 0, "dana-ga"},
    {NULL, "train --data fashion-mnits", 2, "did you mean 'fashion-mnist'?"},
    {NULL, "train --data imagenet", 2, "synthetic"},
    {NULL, "train --data synthetic:1x2", 2, "synthetic"},
    {NULL, "train --data synthetic --model resnet", 2, "mlp:WIDTH"},
    {NULL, "train --data synthetic --model mlp:0", 2, "mlp:"},
    {NULL, "train --data synthetic --model mlp:99999999", 2, "mlp:"},
    {NULL, "train --data mnist --data-dir /nowhere", 1, "/nowhere"},
    {NULL, "train --data mnist --data-dir /nowhere", 1, "train --data synthetic"},
    {NULL, "train --data synthetic --out /proc/nowhere", 1, "/proc/nowhere"},
    {NULL, "train --data synthetic --out /dev/null", 1, "/dev/null"},
    {NULL, "train --data synthetic --out", 2, "needs a value"},
    {"GAPLESS_WORKERS=0", "train", 2, "GAPLESS_WORKERS must be at least 1"},
    {"GAPLESS_RULE=sgd", "train", 2, "GAPLESS_RULE knows no rule 'sgd'"},
    {"GAPLESS_QUIET=perhaps", "train", 2, "GAPLESS_QUIET must be 1 or 0"},
    {"GAPLESS_FAULT=nap:1", "worker", 2, "GAPLESS_FAULT must be"},
    {NULL, "master --workers-wait 60 --workers 4", 2, "more than the capacity"},
    {NULL, "master --data-fd 1", 2, "must be at least 3"},
    {NULL, "master --data-fd 77 --data synthetic", 1, "gapless master:"},
    {NULL, "worker --master shm:nobody-there --connect-timeout 0.2", 1, "nobody-there"},
    {NULL, "observe --master shm:nobody-there --connect-timeout 0.2", 1,
     "nobody-there"},
    {NULL, "observe --interval 0", 2, "must be at least 0.01"},
    {NULL, "bench", 2, "usage: gapless bench"},
    {NULL, "bench everything", 2,
     "no benchmark 'everything'\n'gapless help bench' lists"},
    {NULL, "help nothing", 2, "there is no command 'nothing'"},
    {NULL, "help bench nothing", 2, "there is no command 'bench nothing'"},
    {NULL, "completion", 2, "say for which shell"},
    {NULL, "train --data synthetic --rule adamw --weight-decay 0.1", 2,
     "train: --weight-decay 0.1 is not for rule adamw"},
    {"GAPLESS_HELP=1", "rules", 0, "nothing reads GAPLESS_HELP in the environment\n"},
};

/* What a program leaves behind becomes a child of this process (see main). Others'
 * runs, which other tests may have going, are not looked at. */
static void no_children_left(void)
{
    struct pace_bound bound = pace_begin(5000000000);
    pid_t pid;

    while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0 && !pace_over(&bound))
        run_sleep(0.02);
    if (pid >= 0 || errno != ECHILD)
        fail_msg("processes were left behind");
}

static void test_mistakes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++)
        run_whole(mistakes[i].environment, mistakes[i].line, mistakes[i].code,
                  mistakes[i].text);
    no_children_left();
}

/* A remedy is one for what is missing: of a file that was named it is not other data. */
static void test_remedies(void **state)
{
    static const char *const lines[] = {"simulate --replay /none/record",
                                        "simulate --clock /none/times"};

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct run run = run_start(NULL, 0, lines[i]);
        char *text;

        assert_int_equal(run_wait(&run, 30.0), 1);
        text = run_output(&run);
        assert_non_null(strstr(text, "cannot read"));
        assert_null(strstr(text, "--data synthetic"));
        free(text);
        run_close(&run);
    }
    run_whole(NULL, "simulate --data csv:/none/table.csv", 1,
              "without any files: gapless simulate --data synthetic");
}

/* What is printed and finds no room is no success. */
static void test_no_room(void **state)
{
    static const char *const lines[] = {
        "help",         "help train", "plan --help", "plan -h",         "version",
        "train --help", "train -h",   "master -h",   "worker --help",   "simulate -h",
        "rules --json", "plan",       "doctor",      "completion bash", "rules"};
    char line[200];

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        int status;

        (void)snprintf(line, sizeof line, "'%s' %s >/dev/full 2>/dev/null",
                       run_program(), lines[i]);
        status = system(line); // NOLINT(cert-env33-c): the shell's redirection is meant
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 1)
            fail_msg("gapless %s >/dev/full ended with %d", lines[i], status);
    }
}

/* A master without standard descriptors prints into no file of its own. */
static void test_no_descriptors(void **state)
{
    char line[600];
    int status;

    (void)state;
    (void)snprintf(line, sizeof line,
                   "'%s' master --data synthetic:1000x20x3 --model softmax --epochs 1 "
                   "--address shm:closed-%d <&- >&- 2>&- & master=$!; '%s' worker "
                   "--master shm:closed-%d --connect-timeout 60 >/dev/null 2>&1; "
                   "wait $master",
                   run_program(), (int)getpid(), run_program(), (int)getpid());
    status = system(line); // NOLINT(cert-env33-c): the shell's redirection is meant
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the master ended with %d", status);
}

#define TINY "--data synthetic:400x8x2 --model softmax --epochs 1 --workers 2 "

/* What has no effect is said, in a line for each option, and nothing else is. */
static void test_without_effect(void **state)
{
    static const struct {
        const char *environment, *line, *text;
        unsigned lines;
    } cases[] = {
        {NULL, "--rule dana-ga --kappa 3",
         "--kappa has no effect under rule dana-ga; it has under dana-lga, shared-lga, "
         "shared-lga-dot, lga-adamw",
         1},
        {NULL, "--rule adamw --horizon 3",
         "under rule adamw; it has under lwp, la-adamw", 1},
        {NULL, "--rule dana-ga --beta2 0.9 --epsilon 1e-6 --decay-all",
         "--decay-all has no", 3},
        {NULL, "--rule asgd --momentum 0.5", "it has under all rules but asgd,", 1},
        {NULL, "--rule ga-plain --gap-ref own_lookahead", "it has under ga, ga-global,",
         1},
        {"GAPLESS_ELASTIC=0.5", "--rule nag-asgd", "it has under easgd, eamsgd\n", 1},
        {NULL, "--rule dana-lga --kappa 3 --gate tensor --momentum 0.8",
         "test accuracy", 0},
        {NULL, "--rule dana-adamw --decay 0.2 --beta2 0.9", "test accuracy", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char line[400], *output, *at;
        unsigned lines = 0;
        struct run run;

        (void)snprintf(line, sizeof line, "simulate " TINY "%s --quiet --out %s/x",
                       cases[i].line, run_dir);
        run = run_start(cases[i].environment, 0, line);
        assert_int_equal(run_wait(&run, 60.0), 0);
        output = run_output(&run);
        for (at = output; (at = strstr(at, "has no effect")) != NULL; at++)
            lines++;
        if (lines != cases[i].lines || strstr(output, cases[i].text) == NULL)
            fail_msg("%s: %s", line, output);
        free(output);
        run_close(&run);
    }
    run_whole(NULL, "train --rule dana-ga --kappa 3 --data imagenet", 2,
              "gapless train: --kappa has no effect under rule dana-ga");
    run_whole(NULL, "master --rule dana-ga --kappa 3 --data imagenet", 2,
              "gapless master: --kappa has no effect under rule dana-ga");
}

/* The processes that train and study start are given every option: that is no news. */
static void test_without_effect_only_once(void **state)
{
    char line[400], *output, *at;
    struct run run;

    (void)state;
    (void)snprintf(line, sizeof line,
                   "train " TINY "--rule dana-ga --kappa 3 --out %s/t", run_dir);
    run = run_start(NULL, 0, line);
    assert_int_equal(run_wait(&run, 60.0), 0);
    output = run_output(&run);
    at = strstr(output, "has no effect");
    assert_non_null(at);
    assert_null(strstr(at + 1, "has no effect"));
    free(output);
    run_close(&run);
    (void)snprintf(line, sizeof line, "%s/t/log", run_dir);
    assert_int_not_equal(access(line, F_OK), 0); /* nor has the master a word to say */
}

/* A run that is refused leaves no folder; one that was there stays. */
static void test_no_folder(void **state)
{
    static const char *const lines[] = {
        "train --data synthetic --rule ssgd --drop-lag 8",
        "train --data synthetic --lr 1e-300",
        "train --data synthetic --record /nowhere/record",
        "master --data synthetic --rule ssgd --drop-lag 8",
        "master --data synthetic --record /nowhere/record",
        "master --data synthetic --epochs 1e-9",
        "simulate --data synthetic --rule ssgd --drop-lag 8",
    };
    char line[400], path[100];

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct run run;

        (void)snprintf(line, sizeof line, "%s --out %s/new/run", lines[i], run_dir);
        run = run_start(NULL, 0, line);
        assert_int_not_equal(run_wait(&run, 60.0), 0);
        run_close(&run);
        (void)snprintf(path, sizeof path, "%s/new", run_dir);
        if (access(path, F_OK) == 0)
            fail_msg("%s left a folder", lines[i]);
    }
    (void)snprintf(path, sizeof path, "%s/old", run_dir);
    assert_int_equal(mkdir(path, 0777), 0);
    (void)snprintf(line, sizeof line, "%s --out %s/run", lines[2], path);
    run_whole(NULL, line, 1, "/nowhere/record");
    assert_int_equal(rmdir(path), 0); /* it is there, and empty */
}

/* And what is not a mistake. */
static void test_helps(void **state)
{
    static const char *const commands[] = {"train",   "master", "worker",
                                           "observe", "rules",  "doctor"};

    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char line[64];

        (void)snprintf(line, sizeof line, "%s --help", commands[i]);
        run_whole("GAPLESS_WORKERS=0", line, 0, "usage: gapless");
        (void)snprintf(line, sizeof line, "help %s", commands[i]);
        run_whole(NULL, line, 0, commands[i]);
    }
    run_whole(NULL, "help", 0, "doctor");
    run_whole(NULL, "--version", 0, "gapless ");
    run_whole(NULL, "completion -h", 0, "usage: gapless completion bash|zsh");
    run_whole(NULL, "completion --help", 0, "usage: gapless completion bash|zsh");
    run_whole(NULL, "rules", 0, "dana-ga");
    run_whole(NULL, "rules --json", 0, "bytes_per_parameter");
    run_whole(NULL, "doctor", 0, "shared memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_remedies),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test_setup_teardown(test_without_effect, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_without_effect_only_once, run_set_up,
                                        run_tear_down),
        cmocka_unit_test_setup_teardown(test_no_folder, run_set_up, run_tear_down),
        cmocka_unit_test(test_helps),
    };

    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
