#!/usr/bin/env python3
"""A run that is over, Ctrl-C while somebody connects, scaled gradients, matrices beside averages."""
import logging
import signal
import time
import unittest

import bed

torch = bed.need_torch()
import gapless  # noqa: E402
from gapless import _layout as layouts, guards  # noqa: E402
from gapless.master import MasterThread, new_address  # noqa: E402

cross_entropy = torch.nn.functional.cross_entropy


class TooLate(unittest.TestCase):
    def test_a_worker_that_comes_after_the_end(self):
        with gapless.Master(bed.mlp(torch), "dana-ga", lr=0.05, gradients=6, address=new_address()) as master:
            thread = MasterThread(master)
            self.addCleanup(thread.end)
            first, late = bed.mlp(torch), bed.mlp(torch, seed=5)
            loader = bed.loader(torch)
            with gapless.Worker(first, address=master.address) as worker:
                for x, y in worker.batches(loader, epochs=9):
                    cross_entropy(first(x), y).backward()
                    worker.step()
            with self.assertLogs("gapless", logging.WARNING) as said:
                with gapless.Worker(late, address=master.address) as worker:
                    self.assertFalse(worker.running)
                    self.assertEqual((list(worker.batches(loader)), worker.number, worker.link, worker.device), ([], -1, "", ""))
                    self.assertEqual(worker.stats().gradients, 6)
                    self.assertIn("6 gradients (0 dropped), loss ", str(worker.stats()))
                    self.assertNotIn("worker_lag", worker.metrics())
                    worker.zero_grad()
                    with self.assertRaises(gapless.errors.RunEnded):
                        worker.step(0)
            self.assertIn("is over: nothing is left to train", said.output[0])
            for p, q in zip(first.parameters(), late.parameters()): # what the run led to
                self.assertTrue(torch.equal(p, q))
                p.grad = None
            cross_entropy(late(bed.data(torch)[0]), bed.data(torch)[1]).backward() # an ordinary model
            thread.end()

    def test_ctrl_c_of_an_observer_that_connects(self):
        def interrupt(*_):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with self.assertRaises(KeyboardInterrupt):
            gapless.Observer("shm:nobody-is-here", connect=60)
        self.assertLess(time.monotonic() - began, 20)
        with self.assertRaises(gapless.errors.WaitTimeout):
            gapless.Observer("shm:nobody-is-here", connect=0.3)


class Scaler(torch.cuda.amp.GradScaler):
    """Torch's of a machine with a GPU: here it would be disabled."""

    def __init__(self):
        super().__init__(enabled=False)
        self._enabled, self._init_scale, self._growth_tracker, self._scale = True, 65536.0, None, None
        self._per_optimizer_states = {}

    def scale(self, loss):
        self._scale = torch.tensor(self._init_scale)
        self._growth_tracker = torch.zeros((), dtype=torch.int32)
        return loss * self._scale


class Scaled(unittest.TestCase):
    def loss(self, model):
        x, y = bed.data(torch)
        return cross_entropy(model(x), y)

    def test_scaled_gradients(self):
        model, scaler = bed.mlp(torch), Scaler()
        guards.unscaled() # not used yet
        with gapless.Worker(model, "dana-ga", lr=0.01) as worker:
            loss = self.loss(model)
            scaler.scale(loss).backward()
            with self.assertRaises(gapless.errors.StepError) as error:
                worker.step(loss)
            self.assertIn("65536 times too large", str(error.exception))
            self.assertIn("scaler.unscale_(worker.optimizer)", str(error.exception))
            for p in model.parameters():
                p.grad /= 65536
            scaler._per_optimizer_states = {id(worker.optimizer): {"stage": 1}} # as unscale_ leaves it
            self.assertTrue(worker.step(loss))
        scaler._per_optimizer_states, scaler._growth_tracker = {}, torch.ones((), dtype=torch.int32) # as update() does
        guards.unscaled()
        scaler._growth_tracker = torch.zeros((), dtype=torch.int32)
        scaler._enabled = False
        guards.unscaled()


class Matrices(unittest.TestCase):
    def model(self):
        torch.manual_seed(1)
        nn = torch.nn
        return nn.Sequential(nn.Linear(8, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3, bias=False))

    def test_a_matrix_before_averages(self):
        model = self.model()
        names = [entry.name for entry in layouts.of_module(model).entries]
        self.assertEqual(sorted(names[:5]), ["0.bias", "0.weight", "1.bias", "1.weight", "3.weight"])
        self.assertNotEqual(names[4], "3.weight")
        with gapless.Worker(model, "muon", lr=0.02) as worker: # was refused
            x, y = bed.data(torch)
            losses = []
            for _ in range(30):
                loss = cross_entropy(model(x), y)
                loss.backward()
                worker.step(loss)
                losses.append(float(loss.detach()))
        self.assertLess(losses[-1], losses[0])

    def test_groups(self):
        model = self.model()
        p = dict(model.named_parameters())
        groups = [{"params": [p["0.weight"], p["0.bias"], p["1.weight"], p["1.bias"]], "weight_decay": 0.1}, {"params": [p["3.weight"]]}]
        entries = layouts.of_module(model, groups, 0.02).entries
        at, borders = 0, []
        for before, after in zip(entries, entries[1:]):
            at += before.count
            if (before.rate, before.decay, before.average) != (after.rate, after.decay, after.average):
                borders.append(at)
        self.assertEqual(len(borders), 2)
        self.assertEqual([e.name for e in entries][:4].index("0.weight") < 3, True)
        plain = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 3)) # nothing to put apart: the model's order
        self.assertEqual([e.name for e in layouts.of_module(plain).entries], [n for n, _ in plain.named_parameters()])


if __name__ == "__main__":
    bed.main()
