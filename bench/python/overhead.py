#!/usr/bin/env python3
"""What a step costs beside the network's own arithmetic: pull and push over shared memory, the package's checks, zero_grad.

    /usr/bin/python3 bench/python/overhead.py [--library build/libgapless.so] [--json FILE]

A master in a process of its own, one worker here, one thread of BLAS. For each network, in turn, a step of arithmetic
(forward, backward, of a batch on random data) and an exchange (worker.step) are timed; medians over all rounds. Asked for:
at most 3 % of a step of ResNet-20 with batches of 32, at most 30 us for a small perceptron.
"""
import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "python"))
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


def residual(torch, width, wider):
    """A block of ResNet for CIFAR-10 (He et al., arXiv 1512.03385), the shortcut without parameters (option A)."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            stride, out = (2, 2 * width) if wider else (1, width)
            self.first = nn.Conv2d(width, out, 3, stride, 1, bias=False)
            self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList(nn.BatchNorm2d(out) for _ in range(2))
            self.pad = (0, 0, 0, 0, width // 2, width // 2)

        def forward(self, x):
            y = self.norms[1](self.second(torch.relu(self.norms[0](self.first(x)))))
            return torch.relu(y + (nn.functional.pad(x[:, :, ::2, ::2], self.pad) if wider else x))

    return Block()


def resnet20(torch):
    nn = torch.nn
    blocks, width = [], 16
    for stage in range(3):
        for i in range(3):
            blocks.append(residual(torch, width, stage > 0 and i == 0))
            width = 2 * width if stage > 0 and i == 0 else width
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks,
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def networks(torch):
    nn = torch.nn
    return {
        "resnet20": (lambda: resnet20(torch), (32, 3, 32, 32), 60),
        "mlp:64": (lambda: nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)), (32, 784), 3000),
        "mlp:16 of 20": (lambda: nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3)), (32, 20), 3000),
    }


def serve(model, rule, address, **settings):
    """The master's process: until the one that started it has ended."""
    import gapless

    with gapless.Master(model, rule, lr=1e-4, address=address, **settings) as master:
        print("ready", flush=True)
        while master.run(0.5):
            if os.getppid() == 1:
                return


def measure(name, rounds):
    import torch
    import gapless

    torch.set_num_threads(1)
    make, shape, count = networks(torch)[name]
    address = f"shm:overhead-{os.getpid()}"
    master = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--serve", name, address], stdout=subprocess.PIPE, text=True)
    try:
        master.stdout.readline()
        model, arithmetic, exchange = make(), [], []
        x, y = torch.randn(*shape), torch.randint(0, 3, (shape[0],))
        with gapless.Worker(model, address=address) as worker:
            for i in range(rounds or count):
                begun = time.perf_counter()
                loss = torch.nn.functional.cross_entropy(model(x), y)
                loss.backward()
                between = time.perf_counter()
                worker.step(loss)
                arithmetic.append(between - begun)
                exchange.append(time.perf_counter() - between)
            parameters = worker.layout.count
    finally:
        master.terminate()
        master.wait()
    skip = len(arithmetic) // 10
    step, cost = statistics.median(arithmetic[skip:]), statistics.median(exchange[skip:])
    return {"network": name, "batch": shape[0], "elements": parameters, "rounds": len(arithmetic), "step_us": round(step * 1e6, 1),
            "exchange_us": round(cost * 1e6, 1), "exchange_p10_us": round(statistics.quantiles(exchange[skip:], n=10)[0] * 1e6, 1),
            "share_percent": round(100 * cost / step, 2)}


def report(command, torch, rows):
    """Rows with what they were measured on."""
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        processor = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    return {"command": command, "commit": commit, "date": datetime.date.today().isoformat(),
            "machine": f"{processor}, {os.cpu_count()} cores", "load": round(os.getloadavg()[0], 2), "torch": torch.__version__,
            "rows": rows}


def options(about):
    """The command line of this benchmark and of overlap.py."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--library", help="libgapless.so (default: as the package finds it)")
    parser.add_argument("--json", help="the results go there, too")
    parser.add_argument("--rounds", type=int, default=0, help="of each network (default: its own number)")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.library:
        os.environ["GAPLESS_LIBRARY"] = os.path.abspath(arguments.library)
    return arguments


def main():
    arguments = options(__doc__)
    if arguments.serve:
        import torch

        return serve(networks(torch)[arguments.serve[0]][0](), "dana-lga-adamw", arguments.serve[1])
    import torch

    rows = [measure(name, arguments.rounds) for name in networks(torch)]
    for row in rows:
        print("%(network)-14s %(elements)7d elements: step %(step_us)9.1f us, exchange %(exchange_us)7.1f us, %(share_percent)5.2f %%"
              % row)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(report("bench/python/overhead.py", torch, rows), file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
