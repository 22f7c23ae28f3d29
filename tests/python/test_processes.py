#!/usr/bin/env python3
"""Several processes train one model; some die, one is interrupted: ctest: plain"""
import collections
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import bed

torch = bed.need_torch()
import gapless  # noqa: E402
from gapless.master import MasterThread, new_address  # noqa: E402

CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
BOUND_S = 240
EPOCHS, SAMPLES = 4, 160


def start(kind, **environment):
    return subprocess.Popen([sys.executable, CHILD, bed.SOURCE, bed.BUILD, kind], env={**os.environ, **environment},
                            stdout=subprocess.PIPE, text=True)


def finish(children):
    return [child.communicate(timeout=BOUND_S)[0].splitlines() for child in children]


class Processes(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="gapless-processes-")
        self.addCleanup(self.folder.cleanup)
        self.children = []
        self.addCleanup(self.end)

    def end(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate()

    def wait_for(self, what, holds):
        deadline = time.monotonic() + BOUND_S
        while not holds():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.01)

    def test_an_offer_and_what_goes_wrong(self):
        """As a launcher: the first child's offer makes the master. Of four workers one is killed with a batch in its hands, one
        raises; every sample of every epoch is still used exactly once."""
        offer, address = os.path.join(self.folder.name, "offer"), new_address()
        kinds = ("forks", "plain", "killed", "raises")
        for rank, kind in enumerate(kinds):
            self.children.append(start(kind, GAPLESS_MASTER=address, GAPLESS_OFFER=offer, RANK=str(rank)))
        self.wait_for("an offer", lambda: os.path.exists(offer))
        head, _ = gapless.files.header(offer)
        options = json.loads(head["__metadata__"]["gapless.options"])
        self.assertEqual((options["rule"], options["lr"], options["momentum"]), ("dana-ga", "0.01", "0.9"))
        tensors = gapless.load(offer)
        seed, job = gapless.settings.job_read(head["__metadata__"]["gapless.job"])
        master = gapless.Master(tensors, options["rule"], lr=float(options["lr"]), address=address, seed=seed, job=job,
                                workers_wait=len(kinds))
        thread = MasterThread(master)
        lines = finish(self.children)
        codes = [child.returncode for child in self.children]
        thread.end()
        self.assertEqual(codes, [0, 0, -signal.SIGKILL, 7], lines)
        self.assertEqual([line for said in lines for line in said if line == "left"], ["left"] * 2)
        self.assertEqual(sorted(int(said[0].split()[1]) for said in lines), [0, 1, 2, 3])
        initial = float(sum(tensor.sum() for tensor in tensors.values()))
        first = [float(said[0].split()[2]) for said in lines]
        self.assertEqual(max(abs(value - initial) for value in first), 0) # all began at the offer's parameters
        used = collections.Counter()
        for said in lines:
            for line in said:
                if line.startswith("step"):
                    _, epoch, *samples = line.split()
                    used.update((epoch, sample) for sample in samples)
        self.assertEqual(set(used.values()), {1})
        self.assertEqual(len(used), EPOCHS * SAMPLES)
        self.assertEqual([sum(line.startswith("step") for line in said) for said in lines[2:]], [3, 3])
        self.assertEqual(master.stats.gradients, EPOCHS * SAMPLES // 8)
        self.assertEqual((master.stats.workers_lost, master.stats.workers_active), (1, 0)) # those that said goodbye are not lost
        master.close()

    def test_ranks_of_another_launcher(self):
        """RANK and WORLD_SIZE, as torchrun sets them: rank 0 has the master. And Ctrl-C of one that waits for the other."""
        ranks = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": str(os.getpid())}
        self.children.append(start("waits", RANK="1", **ranks))
        os.environ.update(ranks, RANK="0")
        self.addCleanup(lambda: [os.environ.pop(name) for name in (*ranks, "RANK")])
        with gapless.Worker(bed.mlp(torch), "ssgd", lr=0.01) as worker:
            self.wait_for("the other rank", lambda: worker.stats().workers_active == 2)
            self.assertIn("began 1", self.children[0].stdout.readline())
            time.sleep(0.3) # it has pushed, and waits for this one
            self.children[0].send_signal(signal.SIGINT)
            sent = time.monotonic()
            self.assertEqual(self.children[0].stdout.readline().strip(), "interrupted")
            took = time.monotonic() - sent
            self.wait_for("the other to leave", lambda: worker.stats().workers_active == 1)
            self.assertTrue(worker.step(0)) # alone now: the round is whole without the other
        self.assertNotEqual(self.children[0].wait(BOUND_S), 0)
        self.assertLess(took, 20) # it waits in slices of a fifth of a second; on its own it would be a minute


if __name__ == "__main__":
    bed.main()
