/* The table of commands: what main starts, what the help, the man pages and the shells' completion list. What a command
 * can be given is in the table of options (cluster/options/options_table.c). */
#include "cluster/options/options_table.h"
#include "cluster/program/program.h"

/* clang-format off */
const struct option_command_row options_commands[] = {
    {FOR_TRAIN, "train", "train a model on this machine and watch it", "",
     "Starts a master and --workers worker processes, shows how the run goes and writes DIR/result.json, "
     "DIR/metrics.jsonl and DIR/model.safetensors. Ctrl-C ends the run cleanly and writes the same files; a second "
     "Ctrl-C ends it at once. If files of an earlier run are in DIR they are kept as *.previous.\n"
     "The state of the run is saved into DIR/state every --save-every, and when it is ended by a signal (also SIGUSR2, SIGXCPU): "
     "--resume DIR goes on from there. A master that dies is started again from it. SIGUSR1 prints what each worker does.\n"
     "Exit code: 0 done, 1 failed, 2 misuse, 128 + signal if stopped by one.",
     "data model rule workers epochs lr batch seed device out",
     "gapless train --workers 4 --rule dana-ga --out runs/first", cmd_train},
    {FOR_RUN, "run", "train your own program: a master and copies of it", " PROGRAM [ARGUMENT...]",
     "Starts a master and --ranks copies of PROGRAM on this machine, as torchrun does; a name that ends in .py is run by $PYTHON or "
     "python3. The program makes a gapless.Worker, which offers its model and its settings; options that are given before PROGRAM win "
     "over those. What follows PROGRAM is PROGRAM's.\n"
     "Each rank finds RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE in its environment, GAPLESS_MASTER, GAPLESS_RUN_DIR and "
     "GAPLESS_OFFER, and its share of the cores as OMP_NUM_THREADS, OPENBLAS_NUM_THREADS and MKL_NUM_THREADS unless these are set. "
     "What it prints is shown line by line behind [RANK], and kept in --log-dir. A rank that dies is reported, and the others go on; "
     "with --restarts it is started again. The run is over when all ranks have ended. Ctrl-C is handed on to the ranks; a second one "
     "ends all at once. Writes DIR/result.json, DIR/metrics.jsonl and DIR/model.safetensors.\n"
     "Exit code: 0 if the ranks that were not lost have ended with 0, 1 failed, 2 misuse, 128 + signal if stopped by one.",
     "ranks rule lr momentum out restarts interval log-dir device",
     "gapless run --ranks 8 --rule dana-lga-adamw train.py --epochs 10", cmd_run},
    {FOR_MASTER, "master", "only the master: keeps the parameters, applies gradients", "",
     "A worker asks the master what to train: 'gapless worker --master ADDRESS' needs nothing else, but over a network "
     "the master's --token-file. With --out it writes what train writes, and saves states to --resume from. After the end the master serves observers for up "
     "to ten seconds.",
     "data model rule workers epochs lr address listen token-file out",
     "gapless master --transport verbs --listen 10.0.0.1 --token-file token --workers 8", cmd_master},
    {FOR_WORKER, "worker", "only a worker: computes gradients for a master", " --master ADDRESS",
     "What to train comes from the master; if given here it has to be the same. Set OPENBLAS_NUM_THREADS=1 where "
     "several workers share a machine.\n"
     "For tests, GAPLESS_FAULT makes a worker misbehave: nan:K (its K-th gradient is not a number), slow:MS (each "
     "batch takes so much longer), exit:K (it ends without a word before its K-th push); with @N behind it, only "
     "worker number N does.\n"
     "Exit code: 0 done, 1 failed, 2 misuse, 3 the master was lost and did not come back within --reconnect seconds. "
     "With --group, a GPU that does not keep up ends the group after GAPLESS_GROUP_TIMEOUT seconds (60).",
     "master transport token-file device group data-dir connect-timeout reconnect quiet",
     "gapless worker --transport verbs --master 10.0.0.1 --token-file token", cmd_worker},
    {FOR_OBSERVE, "observe", "watch a running master, without slowing it", " --master ADDRESS",
     "On a terminal the picture that train shows; elsewhere a line every --interval, until the run ends.", "master transport token-file interval once json accuracy save",
     "gapless observe --master shm:gapless --accuracy", cmd_observe},
    {FOR_EVALUATE, "evaluate", "the accuracy of a saved model, on its own data or on others", " FILE",
     "FILE is a model.safetensors. It says itself which model it is, on which data it was trained, and how these were "
     "standardised. Of a table in one file, --part test is every fifth row, as in training.",
     "data model data-dir part json", "gapless evaluate runs/first/model.safetensors", cmd_evaluate},
    {FOR_INSPECT, "inspect", "what is in a saved state of a run, and whether it is whole", " FILE|DIR",
     "FILE is a state; DIR is a run's folder, of which the last state counts. Reads all of it and checks every checksum: tensors, rule, "
     "updates.\n"
     "Exit code: 0 whole, 1 damaged or not there, 2 misuse.",
     "json", "gapless inspect runs/first", cmd_inspect},
    {FOR_EXPORT, "export", "the parameters of a saved state, for other programs", " FILE|DIR",
     "FILE and DIR as of gapless inspect. Writes the parameters alone, as a model.safetensors that gapless evaluate reads, or as NumPy "
     "files.",
     "format out", "gapless export runs/first --format npy --out parameters", cmd_export},
    {FOR_SIMULATE, "simulate", "many workers in virtual time, repeatable to the bit", "",
     "The real master, rules and workers in one process, under a clock that is computed. Writes DIR/result.json, "
     "DIR/metrics.jsonl and DIR/model.safetensors, the same bytes for the same seed, and DIR/run.json: the command, and "
     "what it cost in real time.",
     "data model rule workers epochs lr clock events seed out",
     "gapless simulate --workers 64 --clock heterogeneous --rule dana-ga", cmd_simulate},
    {FOR_STUDY, "study", "a grid of simulated runs, on all processors, resumable", " FILE.ini",
     "Each run of the grid is a 'gapless simulate'; one that is done is never run again, so a study that was stopped "
     "goes on where it was. Writes DIR/study.csv, a row a run, and DIR/report.html. Studies that come with Gapless are "
     "in bench/studies.",
     "out jobs dry-run target data-dir quiet", "gapless study bench/studies/first.ini --jobs 2", cmd_study},
    {FOR_REPORT, "report", "a page with curves and tables of runs and studies", " DIR...",
     "DIR is what train, simulate or study wrote. The page is one file that needs no network: charts, and tables that a "
     "text browser shows, too. Beside it: report.csv.",
     "out title target csv quiet", "gapless report runs/first runs/second --out runs/page", cmd_report},
    {FOR_RULES, "rules", "the update rules, their formulas and what they cost", "", NULL, "json", "gapless rules",
     cmd_rules},
    {FOR_PLAN, "plan", "updates a second, memory, masters: computed before they are bought", "",
     "What a master can do for a number of workers, by arithmetic: updates a second, where it saturates, memory, how "
     "many masters it would take. Each term says whether it was measured. Without --parameters and --model: five "
     "models over three links.",
     "parameters model workers batch-time link rule gpu json",
     "gapless plan --parameters 25.6M --workers 64 --link 400Gb --batch-time 120ms", cmd_plan},
    {FOR_DOCTOR, "doctor", "what this machine offers, and what to do about each lack", "",
     "Exit code: 0, or 1 if something is missing that every run needs.", "data-dir", "gapless doctor", cmd_doctor},
    {FOR_BENCH, "bench", "measure the engine: bench rules, update, transport, gpu", " rules|update|transport|gpu", NULL,
     "", "gapless bench rules --seconds 20", cmd_bench},
    {FOR_BENCH_RULES, "bench rules", "each rule's pass over memory, beside a plain stream", "",
     "Every update rule against the fastest in-place stream with the same reads and writes, and against the same arithmetic in "
     "separate loops over memory. One thread. GAPLESS_ISA=generic, avx2 or avx512 chooses the instruction set.",
     "rules sizes seconds rounds json-file check", "gapless bench rules --rules asgd,dana-ga --seconds 10", cmd_bench_rules},
    {FOR_BENCH_UPDATE, "bench update", "a worker's round trip: push to pulled", "",
     "Times the round trip from push to pulled parameters, one worker, two cores. What the table calls rest is the "
     "round trip less the worker's norm, the master's check and the master's pass.",
     "rule sizes reps sleep json-file", "gapless bench update --sizes 4K,1M", cmd_bench_update},
    {FOR_BENCH_TRANSPORT, "bench transport", "bandwidth and latency of shm or RDMA, and an update over it", "",
     "Bandwidth and latency of a transport, and of a whole update over it. Starts a server of its own; for two "
     "machines, --only-server on one and --server on the other.\n"
     "Write and read are GB/s (1e9 bytes) of rounds with as much under way as the transport takes; 'of copy' is their "
     "share of memcpy in the same run, where memory is shared. write-lat is half of a put and the server's notify.",
     "transport listen only-server server ops sizes seconds json token-file",
     "gapless bench transport --transport verbs --server 10.0.0.1:7471 --token-file token", cmd_bench_transport},
    {FOR_BENCH_GPU, "bench gpu", "the rules on a GPU, and all that new hardware has to pass", "",
     "Bytes that each rule's kernel moves, beside the least possible (needs no GPU), and on a GPU how long it takes and "
     "how near that is to the speed of its memory. With --accept, all that has to hold on new hardware, in order: bits, "
     "sanitizer, bandwidth, gpudirect, soak, latency, runs, kill; see docs/hardware-acceptance.md.\n"
     "Exit code: 0 all that ran passed, 1 not, or there is no GPU, 2 misuse.",
     "device bytes rules elements seconds json-file accept only quick out",
     "gapless bench gpu --accept --quick --out acceptance", cmd_bench_gpu},
    {FOR_NOTHING, "help", "this list; help COMMAND: all about that command", " [COMMAND]", NULL, "", NULL, cmd_help},
    {FOR_NOTHING, "completion", "completion of commands, options and values, for a shell", " bash|zsh",
     "Prints what a shell has to read: eval \"$(gapless completion bash)\". An installed Gapless has it already.", "",
     NULL, cmd_completion},
    {FOR_NOTHING, "version", "the version", "", NULL, "", NULL, cmd_version},
};
/* clang-format on */
const unsigned options_commands_count =
    sizeof options_commands / sizeof options_commands[0];
