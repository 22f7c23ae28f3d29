"""A worker process of test_processes.py: child.py SOURCE BUILD KIND. Prints the numbers of its batches after each step."""
import os
import signal
import sys
import time

KIND = sys.argv.pop(3)
MASTER = {name: os.environ[name] for name in ("GAPLESS_MASTER", "GAPLESS_OFFER", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
                                              "MASTER_PORT") if name in os.environ}

import bed  # noqa: E402

torch = bed.need_torch()
import gapless  # noqa: E402

os.environ.update(MASTER)
EPOCHS, KILLED_AFTER = 4, 3


class Numbered(torch.utils.data.Dataset):
    """Sample i says that it is i."""

    def __init__(self):
        self.x, self.y = bed.data(torch, 160)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return i, self.x[i], self.y[i]


def say(*words):
    print(*words, flush=True)


def main():
    model = bed.mlp(torch, seed=os.getpid()) # each its own: the master's count
    loader = torch.utils.data.DataLoader(Numbered(), batch_size=8, shuffle=True, num_workers=2 if KIND == "forks" else 0)
    taken = 0
    with gapless.Worker(model, "dana-ga", lr=0.01, momentum=0.9) as worker:
        say("began", worker.number, float(sum(p.sum() for p in model.parameters())))
        for number, x, y in worker.batches(loader, epochs=EPOCHS):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            if taken == KILLED_AFTER and KIND == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if taken == KILLED_AFTER and KIND == "raises":
                raise ZeroDivisionError("the user's own")
            taken += 1
            worker.step(loss)
            say("step", worker.epoch, *number.tolist())
            time.sleep(0.001)


if KIND == "waits": # for a master that does not answer: Ctrl-C has to be heard
    with gapless.Worker(bed.mlp(torch), "ssgd", lr=0.01) as waiting:
        try:
            say("began", waiting.number)
            while True:
                waiting.step(0)
        except KeyboardInterrupt:
            say("interrupted")
            raise
try:
    main()
except ZeroDivisionError:
    sys.exit(7)
say("left")
