/* The table of options, and what the help says of each subcommand. Defaults are those
 * of the flagship run. */
#include "cluster/options/options_table.h"

#define AT(member) offsetof(struct settings, member)
#define ANY                                                                            \
    {                                                                                  \
        0, 0, false, false                                                             \
    }
#define LIVE (FOR_TRAIN | FOR_MASTER)
#define RUNS (LIVE | FOR_SIMULATE)
#define TASKS (RUNS | FOR_WORKER)
#define PEERS (LIVE | FOR_WORKER | FOR_OBSERVE)
#define ALL (TASKS | FOR_OBSERVE | FOR_RULES | FOR_DOCTOR | FOR_STUDY | FOR_REPORT)

/* clang-format off */
const struct option_row options_table[] = {
    {"data", 'd', false, TASKS, KIND_TEXT, GROUP_TASK, "NAME", "fashion-mnist", AT(data), ANY, NULL,
     "fashion-mnist, mnist, cifar-10, or synthetic[:COUNTxFEATURESxCLASSES[:SEED]]"},
    {"data-dir", 0, false, TASKS | FOR_OBSERVE | FOR_DOCTOR | FOR_STUDY, KIND_TEXT, GROUP_TASK, "DIR", NULL, AT(data_dir), ANY, NULL,
     "where the data set's files are (default: the usual places; see gapless doctor)"},
    {"model", 'm', false, TASKS, KIND_TEXT, GROUP_TASK, "NAME", "mlp:64", AT(model), ANY, NULL,
     "softmax, mlp:WIDTH[,WIDTH...], cnn:CHANNELS[,CHANNELS...], or a test function (quadratic, valley)"},
    {"batch", 'b', false, TASKS, KIND_COUNT32, GROUP_TASK, "N", "32", AT(batch), {1, 65536, false, false}, NULL,
     "samples in a gradient"},
    {"seed", 's', false, TASKS, KIND_COUNT64, GROUP_TASK, "N", "1", AT(seed), {0, 9e18, false, false}, NULL,
     "of the initial parameters and the order of the samples"},

    {"rule", 'r', false, RUNS, KIND_RULE, GROUP_RULE, "NAME", "dana-ga", AT(rule), ANY, NULL,
     "how a gradient becomes an update; gapless rules lists them"},
    {"lr", 'l', false, RUNS, KIND_REAL, GROUP_RULE, "RATE", "0.005", AT(lr), {0, 1e6, true, true}, NULL,
     "peak learning rate"},
    {"momentum", 0, false, RUNS, KIND_REAL, GROUP_RULE, "M", "0.9", AT(momentum), {0, 1, false, true}, NULL,
     "0 <= M < 1"},
    {"warmup", 0, false, RUNS, KIND_SPAN, GROUP_RULE, "SPAN", "1epoch", AT(warmup), ANY, NULL,
     "the rate rises from RATE / workers: 1epoch, 500updates, or 0.1 of the run; 0: none (default: 1epoch, but at most a tenth of the run)"},
    {"steps", 0, false, RUNS, KIND_STEPS, GROUP_RULE, "LIST", "0.6:0.1,0.85:0.1", AT(steps), ANY, NULL,
     "SPAN:FACTOR,...: from there on the rate is multiplied by FACTOR; none: no steps"},
    {"schedule", 0, false, RUNS, KIND_SCHEDULE, GROUP_RULE, "KIND", "constant", AT(cosine), ANY, NULL,
     "constant, or cosine[:TO] (falls to the share TO of the peak at the end, 0 unless said; no steps unless given)"},
    {"kappa", 0, false, RUNS, KIND_REAL, GROUP_RULE, "K", "10", AT(kappa), {0, 1e9, true, false}, NULL,
     "dana-lga and shared-lga: how strongly, per nat"},
    {"lambda", 0, false, RUNS, KIND_REAL, GROUP_RULE, "L", NULL, AT(lambda), {0, 1e9, true, false}, NULL,
     "rules with delay compensation (default: the rule's own, 0.04 or 2)"},
    {"horizon", 0, false, RUNS, KIND_REAL, GROUP_RULE, "T", NULL, AT(horizon), {0, 1e6, false, false}, NULL,
     "lwp: updates to look ahead (default: workers - 1)"},
    {"gap-ref", 0, false, RUNS, KIND_CHOICE, GROUP_RULE, "REF", "sent", AT(gap_ref), ANY, "sent, own_lookahead",
     "gap-aware rules measure from what was sent, or without the worker's own look-ahead"},
    {"clip-norm", 0, false, RUNS, KIND_REAL, GROUP_RULE, "X", "0", AT(clip_norm), {0, 1e30, false, false}, NULL,
     "scale gradients down to this norm; 0: do not"},
    {"weight-decay", 0, false, RUNS, KIND_REAL, GROUP_RULE, "W", "0", AT(weight_decay), {0, 1e6, false, false}, NULL,
     "added to the gradient: W times the parameters"},
    {"ssgd-scale-rate", 0, false, RUNS, KIND_FLAG, GROUP_RULE, NULL, NULL, AT(ssgd_scale_rate), ANY, NULL,
     "ssgd: the rate times the number of workers"},
    {"elastic", 0, false, RUNS, KIND_REAL, GROUP_RULE, "ALPHA", NULL, AT(elastic), {0, 1, true, false}, NULL,
     "easgd, eamsgd: how far worker and master move towards each other (default: 0.9 / workers)"},
    {"period", 0, false, RUNS, KIND_COUNT32, GROUP_RULE, "P", "4", AT(period), {1, 1000000, false, false}, NULL,
     "easgd, eamsgd: a worker's gradients from one exchange to the next"},
    {"block-elements", 0, false, RUNS, KIND_COUNT64, GROUP_RULE, "N", "16Ki", AT(block_elements), {16, 1e15, false, false}, NULL,
     "dana-lga, shared-lga: the smallest piece of a large tensor that has a factor of its own"},

    {"epochs", 'e', false, RUNS, KIND_REAL, GROUP_RUN, "X", "5", AT(epochs), {0, 1e6, true, false}, NULL,
     "length of the run: each sample is seen once an epoch, over all workers; fractions are fine"},
    {"workers", 'w', false, RUNS, KIND_COUNT32, GROUP_RUN, "N", "8", AT(workers), {1, GAPLESS_WORKERS_MAX, false, false}, NULL,
     "worker processes (master: how many are expected, for the warm-up)"},
    {"workers-max", 0, false, RUNS, KIND_COUNT32, GROUP_RUN, "N", NULL, AT(workers_max), {1, GAPLESS_WORKERS_MAX, false, false}, NULL,
     "room for workers that join later (default: workers + 8; simulate: as many as --events has join)"},
    {"workers-wait", 0, false, FOR_MASTER, KIND_COUNT32, GROUP_RUN, "N", "0", AT(workers_wait), {0, GAPLESS_WORKERS_MAX, false, false}, NULL,
     "hold the first update until so many workers have joined"},
    {"observers-max", 0, false, FOR_MASTER, KIND_COUNT32, GROUP_RUN, "N", "8", AT(observers_max), {1, 1024, false, false}, NULL,
     "observers at a time"},
    {"range-elements", 0, false, RUNS, KIND_COUNT64, GROUP_RUN, "N", "1Mi", AT(range_elements), {1024, 1e15, false, false}, NULL,
     "parameters that travel and are applied together"},
    {"gap-every", 0, false, RUNS, KIND_COUNT32, GROUP_RUN, "N", "8", AT(gap_every), {1, 1000000, false, false}, NULL,
     "measure the gap at one update in N"},
    {"worker-timeout", 0, false, LIVE, KIND_REAL, GROUP_RUN, "SECONDS", "0", AT(worker_timeout), {0, 1e6, false, false}, NULL,
     "drop a worker that holds a batch longer; 0: never"},
    {"address", 'a', false, LIVE, KIND_ADDRESS, GROUP_RUN, "ADDRESS", NULL, AT(address), ANY, NULL,
     "where the master listens: shm:NAME, shm:/path/of/socket or verbs:HOST:PORT (default: shm:gapless; train: a new one)"},
    {"master", 'a', false, FOR_WORKER | FOR_OBSERVE, KIND_ADDRESS, GROUP_RUN, "ADDRESS", "shm:gapless", AT(address), ANY, NULL,
     "where the master listens"},
    {"record", 0, false, LIVE, KIND_TEXT, GROUP_RUN, "FILE", NULL, AT(record), ANY, NULL,
     "write down the order in which everything arrives, for simulate --replay"},
    {"device", 0, false, LIVE | FOR_WORKER, KIND_TEXT, GROUP_GPU, "WHERE", "cpu", AT(device), ANY, NULL,
     "cpu, cuda (the first GPU), cuda:1, cuda:0,2 or cuda:all (a master deals its ranges to several), or auto (a GPU if there is one): "
     "where a master keeps the parameters and applies gradients, where a worker computes them"},
    {"device", 0, true, FOR_OBSERVE, KIND_TEXT, GROUP_NETWORK, "LIST", NULL, AT(rdma_device), ANY, NULL,
     "an earlier name of --rdma-device"},
    {"worker-device", 0, false, FOR_TRAIN, KIND_TEXT, GROUP_GPU, "WHERE", "cpu", AT(worker_device), ANY, NULL,
     "the --device of the workers; of several GPUs each worker takes one in turn"},
    {"allow-staging", 0, false, LIVE | FOR_WORKER, KIND_FLAG, GROUP_GPU, NULL, NULL, AT(allow_staging), ANY, NULL,
     "over RDMA, if the network card cannot reach GPU memory: copy through host memory"},
    {"gpu-flush", 0, false, LIVE, KIND_CHOICE, GROUP_GPU, "WHEN", "auto", AT(gpu_flush), ANY, "auto, always, never",
     "flush what the network card wrote before a kernel reads it; auto: as the GPU asks for; one of"},
    {"group", 0, false, FOR_TRAIN | FOR_WORKER, KIND_CHOICE, GROUP_GPU, "KIND", NULL, AT(group), ANY, "nccl",
     "the GPUs of --device are one worker (all, unless told): each computes its part of a batch, NCCL averages, one talks to the master; "
     "train: those of --worker-device, in --workers groups (1, unless told); with --rule ssgd each GPU is a worker, without a master; "
     "one of"},

    {"connect-timeout", 0, false, FOR_WORKER | FOR_OBSERVE, KIND_REAL, GROUP_RUN, "SECONDS", "10", AT(connect_timeout), {0, 1e6, true, false}, NULL,
     "how long to look for the master"},
    {"reconnect", 0, false, FOR_WORKER, KIND_REAL, GROUP_RUN, "SECONDS", NULL, AT(reconnect), {0, 1e6, false, false}, NULL,
     "when the master is lost, look for it again for so long; 0: end (default: 30 over a network, 0 over shm)"},
    {"data-fd", 0, true, FOR_MASTER | FOR_WORKER | FOR_SIMULATE, KIND_INT, GROUP_RUN, "FD", NULL, AT(data_fd), {3, 1e6, false, false}, NULL,
     "an inherited descriptor that holds the data set"},
    {"launched", 0, true, FOR_MASTER, KIND_FLAG, GROUP_RUN, NULL, NULL, AT(launched), ANY, NULL,
     "the launcher observes: at the end wait until it has come and gone"},

    {"transport", 0, false, PEERS, KIND_CHOICE, GROUP_NETWORK, "NAME", NULL, AT(transport), ANY, "shm, verbs",
     "for an address without one; verbs is RDMA: InfiniBand, RoCE, iWARP; one of"},
    {"listen", 0, false, LIVE, KIND_TEXT, GROUP_NETWORK, "ADDR[:PORT]", NULL, AT(listen), ANY, NULL,
     "verbs: where the master listens; port " ADDRESS_PORT_TEXT " unless told (default: the address of the one RDMA-capable interface)"},
    {"token-file", 0, false, PEERS, KIND_TEXT, GROUP_NETWORK, "FILE", NULL, AT(token_file), ANY, NULL,
     "the secret that master and workers must share, 16 to 4096 bytes that nobody else can read; make one: "
     "head -c 32 /dev/urandom | base64 > FILE; chmod 600 FILE (train alone makes its own)"},
    {"insecure", 0, false, PEERS, KIND_FLAG, GROUP_NETWORK, NULL, NULL, AT(insecure), ANY, NULL,
     "a master may listen beyond this machine without a token: anybody who reaches the port can join"},
    {"rdma-device", 0, false, PEERS, KIND_TEXT, GROUP_NETWORK, "LIST", NULL, AT(rdma_device), ANY, NULL,
     "RDMA devices to use, as in mlx5_0,mlx5_1; gapless doctor lists them (default: by address and route)"},
    {"channels", 0, false, PEERS, KIND_COUNT32, GROUP_NETWORK, "N", NULL, AT(channels), {1, 16, false, false}, NULL,
     "queue pairs to each peer (default: 1, or one for each device)"},
    {"lanes", 0, true, PEERS, KIND_COUNT32, GROUP_NETWORK, "N", NULL, AT(channels), {1, 16, false, false}, NULL,
     "the former name of --channels"},
    {"retries", 0, false, PEERS, KIND_COUNT32, GROUP_NETWORK, "N", NULL, AT(retries), {1, 6, false, false}, NULL,
     "tries after the first, before a peer counts as lost (default: 6)"},
    {"ack-timeout", 0, false, PEERS, KIND_COUNT32, GROUP_NETWORK, "N", NULL, AT(ack_timeout), {8, 20, false, false}, NULL,
     "how long one try waits for an answer: 4.096 us x 2^N; 8: 1 ms, 10: 4 ms, 12: 17 ms, 14: 67 ms, 16: 268 ms, 18: 1.1 s, "
     "20: 4.3 s; a lost peer is noticed after (retries + 1) of them (default: 14, so 0.5 s)"},

    {"clock", 'c', false, FOR_SIMULATE, KIND_TEXT, GROUP_SIMULATION, "KIND", "homogeneous", AT(clock), ANY, NULL,
     "how long batches take: homogeneous, heterogeneous, round-robin, or a FILE of lines: WORKER SECONDS"},
    {"batch-time", 0, false, FOR_SIMULATE, KIND_REAL, GROUP_SIMULATION, "SECONDS", NULL, AT(batch_time), {1e-9, 1e6, false, false}, NULL,
     "mean time of a batch (default: 1 ms a sample)"},
    {"latency", 0, false, FOR_SIMULATE, KIND_REAL, GROUP_SIMULATION, "SECONDS", "0", AT(latency), {0, 1e3, false, false}, NULL,
     "of the link, each way"},
    {"bandwidth", 0, false, FOR_SIMULATE, KIND_REAL, GROUP_SIMULATION, "GBIT", "0", AT(bandwidth), {0, 1e6, false, false}, NULL,
     "of the master's port in Gbit/s, each way, shared by all workers; 0: no limit"},
    {"pass-time", 0, false, FOR_SIMULATE, KIND_REAL, GROUP_SIMULATION, "SECONDS", "0", AT(pass_time), {0, 1e3, false, false}, NULL,
     "the master's time for an update"},
    {"events", 0, false, FOR_SIMULATE, KIND_TEXT, GROUP_SIMULATION, "LIST", NULL, AT(events), ANY, NULL,
     "what happens to workers: \"40s kill 3; 50s leave 2; 60s join; 70s stall 5 for 10s\""},
    {"replay", 0, false, FOR_SIMULATE, KIND_TEXT, GROUP_SIMULATION, "FILE", NULL, AT(replay), ANY, NULL,
     "repeat the run that train --record wrote down, with its settings"},
    {"gradients", 0, false, FOR_SIMULATE, KIND_CHOICE, GROUP_SIMULATION, "HOW", "blas", AT(gradients), ANY, "blas, reference",
     "blas: fast; reference: plain C, the same bits on every machine"},
    {"threads", 't', false, FOR_SIMULATE, KIND_COUNT32, GROUP_SIMULATION, "N", "0", AT(threads), {0, 1024, false, false}, NULL,
     "that compute gradients; 0: one a processor. The result does not depend on it"},
    {"evaluate-every", 0, false, FOR_SIMULATE, KIND_SPAN, GROUP_SIMULATION, "SPAN", "1epoch", AT(evaluate_every), ANY, NULL,
     "measure the test accuracy so often, and write a line of metrics.jsonl; 0: only at the end"},

    {"jobs", 'j', false, FOR_STUDY, KIND_COUNT32, GROUP_RUN, "N", "0", AT(jobs), {0, 1024, false, false}, NULL,
     "runs at the same time; 0: one a processor, or what the study says"},
    {"dry-run", 'n', false, FOR_STUDY, KIND_FLAG, GROUP_RUN, NULL, NULL, AT(dry_run), ANY, NULL,
     "only list the runs and what of them is done"},
    {"target", 0, false, FOR_STUDY | FOR_REPORT, KIND_REAL, GROUP_OUTPUT, "SHARE", NULL, AT(target), {0, 1, true, true}, NULL,
     "the accuracy that time_to_target counts up to (default: what the study says, or 0.85)"},
    {"title", 0, false, FOR_REPORT, KIND_TEXT, GROUP_OUTPUT, "TEXT", NULL, AT(title), ANY, NULL,
     "of the page (default: that of the study)"},
    {"csv", 0, false, FOR_REPORT, KIND_FLAG, GROUP_OUTPUT, NULL, NULL, AT(csv), ANY, NULL,
     "no page: print one row a run as CSV"},

    {"out", 'o', false, RUNS | FOR_STUDY | FOR_REPORT, KIND_TEXT, GROUP_OUTPUT, "DIR", NULL, AT(out), ANY, NULL,
     "where the files go (default: train, simulate: runs/DATE-TIME-RULE; master: nothing is written; study: runs/NAME; report: beside what it reports)"},
    {"json", 0, false, FOR_OBSERVE | FOR_RULES, KIND_FLAG, GROUP_OUTPUT, NULL, NULL, AT(json), ANY, NULL,
     "print JSON"},
    {"once", 0, false, FOR_OBSERVE, KIND_FLAG, GROUP_OUTPUT, NULL, NULL, AT(once), ANY, NULL,
     "print one line and leave"},
    {"interval", 'i', false, FOR_OBSERVE, KIND_REAL, GROUP_OUTPUT, "SECONDS", "1", AT(interval), {0.01, 86400, false, false}, NULL,
     "between two lines"},
    {"accuracy", 0, false, FOR_OBSERVE, KIND_FLAG, GROUP_OUTPUT, NULL, NULL, AT(accuracy), ANY, NULL,
     "measure the test accuracy for each line"},
    {"save", 0, false, FOR_OBSERVE, KIND_TEXT, GROUP_OUTPUT, "FILE", NULL, AT(save), ANY, NULL,
     "write the parameters as they are when leaving, as safetensors"},
    {"quiet", 'q', false, TASKS | FOR_STUDY | FOR_REPORT, KIND_FLAG, GROUP_OUTPUT, NULL, NULL, AT(quiet), ANY, NULL,
     "no progress, only the end and what goes wrong"},
    {"no-color", 0, false, FOR_TRAIN | FOR_SIMULATE | FOR_STUDY, KIND_FLAG, GROUP_OUTPUT, NULL, NULL, AT(no_color), ANY, NULL,
     "no colours (NO_COLOR in the environment does the same)"},
    {"help", 'h', false, ALL, KIND_FLAG, GROUP_OUTPUT, NULL, NULL, AT(help), ANY, NULL,
     "this text"},
};
/* clang-format on */

const unsigned options_count = sizeof options_table / sizeof options_table[0];
_Static_assert(sizeof options_table / sizeof options_table[0] <= OPTIONS_MAX,
               "struct settings has a place for each option");

const struct option_command_row options_commands[] = {
    {FOR_TRAIN, "train", "train a model on this machine and watch it",
     "gapless train [OPTION...]",
     "Starts a master and --workers worker processes, shows how the run goes and "
     "writes\n"
     "DIR/result.json, DIR/metrics.jsonl and DIR/model.safetensors. Ctrl-C ends the "
     "run\n"
     "cleanly and writes the same files; a second Ctrl-C ends it at once. If files of "
     "an\n"
     "earlier run are in DIR they are kept as *.previous.\n"
     "Exit code: 0 done, 1 failed, 2 misuse, 128 + signal if stopped by one."},
    {FOR_MASTER, "master", "only the master: keeps the parameters, applies gradients",
     "gapless master [OPTION...]",
     "Workers are told what to train: 'gapless worker --master ADDRESS' needs nothing\n"
     "else, but over a network the master's --token-file. After the end the master "
     "serves\n"
     "observers for up to ten seconds."},
    {FOR_WORKER, "worker", "only a worker: computes gradients for a master",
     "gapless worker --master ADDRESS [OPTION...]",
     "What to train comes from the master; if given here it has to be the same.\n"
     "Set OPENBLAS_NUM_THREADS=1 where several workers share a machine.\n"
     "For tests, GAPLESS_FAULT makes a worker misbehave: nan:K (its K-th gradient is "
     "not\n"
     "a number), slow:MS (each batch takes so much longer), exit:K (it ends without a\n"
     "word before its K-th push); with @N behind it, only worker number N does.\n"
     "Exit code: 0 done, 1 failed, 2 misuse, 3 the master was lost and did not come "
     "back\n"
     "within --reconnect seconds. With --group, a GPU that does not keep up ends the "
     "group "
     "after\n"
     "GAPLESS_GROUP_TIMEOUT seconds (60)."},
    {FOR_OBSERVE, "observe", "watch a running master, without slowing it",
     "gapless observe --master ADDRESS [OPTION...]",
     "Prints a line every --interval until the run ends."},
    {FOR_RULES, "rules", "the update rules, their formulas and what they cost",
     "gapless rules [OPTION...]", NULL},
    {FOR_SIMULATE, "simulate", "many workers in virtual time, repeatable to the bit",
     "gapless simulate [OPTION...]",
     "The real master, rules and workers in one process, under a clock that is "
     "computed.\n"
     "Writes DIR/result.json, DIR/metrics.jsonl and DIR/model.safetensors, the same "
     "bytes\n"
     "for the same seed, and DIR/run.json: the command, and what it cost in real "
     "time."},
    {FOR_STUDY, "study", "a grid of simulated runs, on all processors, resumable",
     "gapless study FILE.ini [OPTION...]",
     "Each run of the grid is a 'gapless simulate'; one that is done is never run "
     "again, so\n"
     "a study that was stopped goes on where it was. Writes DIR/study.csv, a row a "
     "run, and\n"
     "DIR/report.html. Studies that come with Gapless are in bench/studies."},
    {FOR_REPORT, "report", "a page with curves and tables of runs and studies",
     "gapless report DIR... [OPTION...]",
     "DIR is what train, simulate or study wrote. The page is one file, needs no "
     "network and\n"
     "no script, and reads well in a text browser. Beside it: data for gnuplot."},
    {FOR_DOCTOR, "doctor", "what this machine offers, and what to do about each lack",
     "gapless doctor [OPTION...]",
     "Exit code: 0, or 1 if something is missing that every run needs."},
};
const unsigned options_commands_count =
    sizeof options_commands / sizeof options_commands[0];
