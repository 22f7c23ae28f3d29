#!/usr/bin/env python3
"""Gapless beside torch's DistributedDataParallel over gloo: two processes of this machine, equal, and one of them slowed by half.

    /usr/bin/python3 bench/python/ddp.py [--seconds 20] [--rounds 3] [--json FILE]

Each training runs for --seconds, from the same parameters, on Fashion-MNIST: a small convolutional network, batches of 32, one
thread a process. A slowed process sleeps after each batch for as long as the batch took. Samples a second count the batches of both
processes between the first and the last; the accuracy is that of the parameters at the end. The four kinds take turns; medians
of the rounds, and ratios of them. DDP takes one step of two batches, Gapless two steps of one. Asked for: at least 1.0 times DDP's
samples a second with equal workers, 1.5 times with one slowed.
"""
import argparse
import datetime
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "python"), os.path.join(ROOT, "examples", "python")]
RANKS, BATCH = 2, 32
RATE = {"ddp": 2e-3, "gapless": 1e-3}  # of AdamW: DDP's batch is twice as large
KINDS = [(how, slow) for slow in (False, True) for how in ("ddp", "gapless")]


def network(torch):
    nn = torch.nn
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 10))


def accuracy(torch, model, test):
    with torch.no_grad():
        return sum((model(x).argmax(1) == y).sum().item() for x, y in zip(test[0].split(500), test[1].split(500))) / len(test[1])


def slowed(begun, slow):
    if slow:
        time.sleep(time.monotonic() - begun)


def by_ddp(torch, model, batches, seconds, slow):
    """Until rank 0's time is over, which both learn by the same all-reduce."""
    from torch.nn.parallel import DistributedDataParallel

    torch.distributed.init_process_group("gloo")
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=RATE["ddp"])
    count, over, begun = 0, torch.zeros(1), None
    while over.item() == 0:
        at = time.monotonic()
        begun = begun or at
        x, y = batches(count * RANKS + torch.distributed.get_rank())
        torch.nn.functional.cross_entropy(wrapped(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        count += 1
        slowed(at, slow)
        if count % 10 == 0:
            over.fill_(float(time.monotonic() - begun > seconds))
            torch.distributed.all_reduce(over)
    return count, time.monotonic() - begun


def by_gapless(torch, model, batches, seconds, slow):
    import gapless

    count, begun = 0, None
    with gapless.Worker(model, optimizer="dana-lga-adamw", lr=RATE["gapless"], warmup=100) as worker:
        while worker.running and (begun is None or time.monotonic() - begun < seconds):
            at = time.monotonic()
            begun = begun or at
            x, y = batches(worker.batch)
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            slowed(at, slow)
            worker.step(loss)
            count += 1
        took = time.monotonic() - begun
    return count, took


def rank(options):
    import torch

    import datasets

    torch.set_num_threads(1)
    (x, y), test = datasets.mnist("fashion-mnist")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))

    def batches(number):
        rows = order[torch.arange(number * BATCH, (number + 1) * BATCH) % len(x)]
        return x[rows], y[rows]

    model = network(torch)
    slow = options.slow and os.environ["RANK"] == "1"
    run = by_ddp if options.how == "ddp" else by_gapless
    count, took = run(torch, model, batches, options.seconds, slow)
    print(json.dumps({"count": count, "seconds": took, "accuracy": accuracy(torch, model, test)}))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(how, slow, seconds):
    """Samples a second of both ranks, and the accuracy at the end."""
    ranks = []
    with tempfile.TemporaryDirectory(prefix="gapless-ddp-") as folder:
        program = os.path.join(ROOT, "build", "gapless")
        command = [sys.executable, os.path.abspath(__file__), "--how", how, "--seconds", str(seconds)] + ["--slow"] * slow
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if how == "gapless":
            done = subprocess.run([program, "run", "-n", str(RANKS), "--out", folder, *command], env=dict(os.environ, **threads),
                                  capture_output=True, text=True, timeout=seconds + 120, check=True)
            ranks = [json.loads(line.split("] ", 1)[1]) for line in done.stdout.splitlines() if "accuracy" in line]
        else:
            port = str(free_port())
            children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                                         env=dict(os.environ, **threads, RANK=str(i), WORLD_SIZE=str(RANKS), MASTER_ADDR="127.0.0.1",
                                                  MASTER_PORT=port, GLOO_SOCKET_IFNAME="lo")) for i in range(RANKS)]
            ranks = [json.loads(child.communicate(timeout=seconds + 120)[0]) for child in children]
    if len(ranks) != RANKS:
        sys.exit("%s: %d of %d ranks reported" % (how, len(ranks), RANKS))
    return sum(BATCH * r["count"] / r["seconds"] for r in ranks), ranks[0]["accuracy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--how", choices=("ddp", "gapless"), help=argparse.SUPPRESS)
    parser.add_argument("--slow", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.how:
        rank(options)
        return
    found = {kind: [] for kind in KINDS}
    for number in range(options.rounds):
        for kind in KINDS:
            found[kind].append(train(*kind, options.seconds))
            print("round %d  %-8s %-6s %8.0f samples/s  %.1f %%" % (number + 1, kind[0], "slowed" if kind[1] else "equal",
                                                                   found[kind][-1][0], 100 * found[kind][-1][1]), flush=True)
    rows = [{"how": how, "slowed": slow, "samples_per_second": round(statistics.median(f for f, _ in found[how, slow]), 1),
             "accuracy": [round(100 * a, 2) for _, a in found[how, slow]]} for how, slow in KINDS]
    rate = {(row["how"], row["slowed"]): row["samples_per_second"] for row in rows}
    ratios = {name: round(rate["gapless", slow] / rate["ddp", slow], 3) for name, slow in (("equal", False), ("slowed", True))}
    print("gapless / ddp: equal %.2f, one slowed by half %.2f" % (ratios["equal"], ratios["slowed"]))
    if options.json:
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            machine = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"command": "bench/python/ddp.py --seconds %g --rounds %d" % (options.seconds, options.rounds),
                       "commit": commit.stdout.strip(), "date": datetime.date.today().isoformat(),
                       "machine": "%s, %d cores" % (machine, os.cpu_count()), "load": os.getloadavg()[0], "rows": rows,
                       "ratios": ratios}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
