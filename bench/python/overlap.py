#!/usr/bin/env python3
"""Whether overlap=True makes a step shorter over shared memory.

    /usr/bin/python3 bench/python/overlap.py [--library build/libgapless.so] [--json FILE]

Two masters under dana-ga, each in a process of its own, with ranges of the same size, and two workers here that step in turn:
one pushes when backward is done, the other as it goes. The time is that of a whole step: forward, backward, worker.step().
Medians over all rounds, and the median of the differences between neighbours.
"""
import json
import os
import statistics
import subprocess
import sys
import time

import overhead


def networks(torch):
    nn = torch.nn
    wide = lambda: nn.Sequential(*(layer for _ in range(8) for layer in (nn.Linear(1024, 1024), nn.ReLU())), nn.Linear(1024, 10))
    found = dict(overhead.networks(torch))
    found["mlp:8x1024"] = (wide, (8, 1024), 300)
    return found


def serve(name, address):
    import torch
    from gapless import _layout, overlap

    model = networks(torch)[name][0]()
    overhead.serve(model, "dana-ga", address, range_elements=overlap.range_elements(_layout.of_module(model)))


def measure(name, rounds):
    import torch
    import gapless

    torch.set_num_threads(1)
    make, shape, count = networks(torch)[name]
    addresses = [f"shm:overlap-{os.getpid()}-{i}" for i in range(2)]
    masters = [subprocess.Popen([sys.executable, os.path.abspath(__file__), "--serve", name, a], stdout=subprocess.PIPE, text=True)
               for a in addresses]
    try:
        for master in masters:
            master.stdout.readline()
        models, took = [make(), make()], ([], [])
        x, y = torch.randn(*shape), torch.randint(0, 3, (shape[0],))
        workers = [gapless.Worker(m, address=a, overlap=i == 1) for i, (m, a) in enumerate(zip(models, addresses))]
        for round_ in range(rounds or count):
            for i in (0, 1) if round_ % 2 else (1, 0):
                begun = time.perf_counter()
                loss = torch.nn.functional.cross_entropy(models[i](x), y)
                loss.backward()
                workers[i].step(loss)
                took[i].append(time.perf_counter() - begun)
        elements = workers[0].layout.count
        for worker in workers:
            worker.close()
    finally:
        for master in masters:
            master.terminate()
            master.wait()
    skip = len(took[0]) // 10
    plain, overlapped = (statistics.median(t[skip:]) for t in took)
    apart = statistics.median(b - a for a, b in zip(took[0][skip:], took[1][skip:]))
    return {"network": name, "batch": shape[0], "elements": elements, "rounds": len(took[0]), "step_us": round(plain * 1e6, 1),
            "overlap_step_us": round(overlapped * 1e6, 1), "difference_us": round(apart * 1e6, 1),
            "difference_percent": round(100 * apart / plain, 2)}


def main():
    arguments = overhead.options(__doc__)
    if arguments.serve:
        return serve(*arguments.serve)
    import torch

    rows = [measure(name, arguments.rounds) for name in ("resnet20", "mlp:8x1024", "mlp:64")]
    for row in rows:
        print("%(network)-12s %(elements)8d elements: step %(step_us)10.1f us, with overlap %(overlap_step_us)10.1f us, "
              "%(difference_percent)+6.2f %%" % row)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(overhead.report("bench/python/overlap.py", torch, rows), file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
