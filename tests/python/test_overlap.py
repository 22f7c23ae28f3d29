#!/usr/bin/env python3
"""overlap=True: gradients that go to the master while backward goes on."""
import unittest

import bed

torch = bed.need_torch()
import gapless  # noqa: E402
from gapless import overlap  # noqa: E402

cross_entropy = torch.nn.functional.cross_entropy


class Twice(torch.nn.Module):
    """A parameter that is used twice, one that is not used, and batch norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first = torch.nn.Linear(8, 32)
        self.twice = torch.nn.Linear(32, 32)
        self.norm = torch.nn.BatchNorm1d(32)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.idle = torch.nn.Linear(5, 5)
        self.last = torch.nn.Linear(32, 3)

    def forward(self, x):
        x = torch.relu(self.twice(torch.relu(self.first(x))))
        return self.last(self.norm(self.twice(x)) * self.scale + x)


def train(model, steps=30, accumulate=1, **settings):
    with gapless.Worker(model, **{"lr": 0.05, "optimizer": "dana-ga", "range_elements": 256, "accumulate": accumulate,
                                  **settings}) as worker:
        loader = bed.loader(torch, shuffle=False)
        for number, (x, y) in enumerate(worker.batches(loader, epochs=100)):
            loss = cross_entropy(model(x), y) / accumulate
            loss.backward()
            if (number + 1) % accumulate == 0:
                worker.step(loss)
            if number + 1 == steps * accumulate:
                break
        stats = worker.stats()
    return [p.detach().clone() for p in model.state_dict().values()], stats


class Bits(unittest.TestCase):
    def compare(self, **settings):
        plain, overlapped = (train(Twice(), overlap=on, **settings) for on in (False, True))
        for a, b in zip(plain[0], overlapped[0]):
            self.assertTrue(torch.equal(a, b))
        self.assertEqual(plain[1].loss, overlapped[1].loss)
        self.assertFalse(torch.equal(plain[0][0], list(Twice().state_dict().values())[0])) # it did move

    def test_as_without(self):
        self.compare()
        self.compare(optimizer="dana-zero", weight_decay=0.01)
        self.compare(optimizer="dana-lga-adamw", gate="tensor", lr=1e-3)

    def test_sums_of_batches(self):
        self.compare(accumulate=3, steps=8)

    def test_new_hooks_and_old(self):
        """Torch 2.1 has a hook for it; here one is put in its place."""
        def register(p, call):
            with torch.enable_grad():
                node = p.expand_as(p).grad_fn.next_functions[0][0]
            handle = node.register_hook(lambda *_: call(p))
            handle.node = node
            return handle

        if not hasattr(torch.Tensor, "register_post_accumulate_grad_hook"):
            torch.Tensor.register_post_accumulate_grad_hook = register
            self.addCleanup(delattr, torch.Tensor, "register_post_accumulate_grad_hook")
        self.compare(steps=5)


class When(unittest.TestCase):
    def test_ranges_are_there_before_the_step(self):
        model = Twice()
        x, y = bed.data(torch)
        with gapless.Worker(model, "dana-ga", lr=0.05, range_elements=256, overlap=True) as worker:
            calls = []
            for number, entry in enumerate(worker.layout.parameters):
                entry.tensor.register_hook(lambda g, name=entry.name: calls.append(name))
            seen = []
            for _ in range(3):
                values = [p.detach().clone() for p in model.parameters()]
                cross_entropy(model(x), y).backward()
                self.assertTrue(worker._overlap.begun)
                seen.append(list(worker._overlap._done))
                for p, value in zip(model.parameters(), values): # whatever the master does meanwhile
                    self.assertTrue(torch.equal(p.detach(), value))
                worker.step(0)
        names = [entry.name for entry in worker.layout.parameters]
        for done in seen: # each once, but for what is not used
            self.assertEqual([n for n, d in zip(names, done) if not d], ["idle.weight", "idle.bias"])
        self.assertLess(calls.index("last.weight"), calls.index("first.weight"))

    def test_nothing_is_left_behind(self):
        model = Twice()
        train(model, steps=2, overlap=True)
        x, y = bed.data(torch)
        for _ in range(2):
            cross_entropy(model(x), y).backward() # no hook complains

    def test_size_of_ranges(self):
        class Layout:
            count = 0
        for count, wanted in ((100, 1 << 14), (1 << 20, 1 << 16), (1 << 30, 1 << 20)):
            Layout.count = count
            self.assertEqual(overlap.range_elements(Layout), wanted)


class Refused(unittest.TestCase):
    def setUp(self):
        self.x, self.y = bed.data(torch)

    def says(self, error, *words):
        for word in words:
            self.assertIn(word, str(error.exception))

    def test_what_needs_all(self):
        for settings, word in (({"optimizer": "ssgd"}, "as a whole"), ({"clip_norm": 1.0}, "clip_norm"),
                               ({"optimizer": "dana-slim"}, "needs all of it"), ({"optimizer": "dana-lga-adamw"}, "as a whole")):
            with self.assertRaises(gapless.errors.NotSupported) as error:
                gapless.Worker(bed.mlp(torch), **{"optimizer": "dana-ga", "lr": 0.01, "overlap": True, **settings})
            self.says(error, word, "leave overlap out")
            self.assertEqual("dana-ga" in str(error.exception), word == "as a whole")
        model = bed.mlp(torch)
        with self.assertRaises(gapless.errors.NotSupported) as error:
            gapless.Worker(model, inner=torch.optim.SGD(model.parameters(), lr=0.1), local_steps=2, overlap=True)
        self.says(error, "local steps")

    def test_habits(self):
        model = Twice()
        with gapless.Worker(model, "dana-ga", lr=0.01, range_elements=256, overlap=True) as worker:
            loss = cross_entropy(model(self.x), self.y)
            loss.backward(retain_graph=True)
            with self.assertRaises(gapless.errors.StepError) as error:
                loss.backward()
            self.says(error, "a second time", "accumulate=N")
            with self.assertRaises(gapless.errors.StepError) as error:
                worker.skip()
            self.says(error, "before backward()")
        model = Twice()
        with gapless.Worker(model, "dana-ga", lr=0.01, range_elements=256, overlap=True) as worker:
            cross_entropy(model(self.x), self.y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            with self.assertRaises(gapless.errors.StepError) as error:
                worker.step(0)
            self.says(error, "changed after backward")
        model = Twice()
        with gapless.Worker(model, "dana-ga", lr=0.01, range_elements=256, overlap=True) as worker:
            self.assertTrue(worker.skip()) # before backward it may
            model.zero_grad(set_to_none=True)
            with self.assertRaises(gapless.errors.ModelError) as error:
                cross_entropy(model(self.x), self.y).backward()
            self.says(error, "set_to_none=True")

    def test_a_trainer_may_set_gradients_to_none(self):
        plain, overlapped = Twice(), Twice()
        for model, on in ((plain, False), (overlapped, True)):
            with gapless.Worker(model, "dana-ga", lr=0.05, range_elements=256, overlap=on) as worker:
                for _ in range(4):
                    model.zero_grad(set_to_none=True)
                    loss = cross_entropy(model(self.x), self.y)
                    optimizer = worker.optimizer
                    loss.backward()
                    optimizer.step()
        for a, b in zip(plain.parameters(), overlapped.parameters()):
            self.assertTrue(torch.equal(a, b))

    def test_not_finite(self):
        model = Twice()
        with gapless.Worker(model, "dana-ga", lr=0.01, range_elements=256, overlap=True) as worker:
            (cross_entropy(model(self.x), self.y) * float("inf")).backward()
            worker.step(0)
            self.assertEqual((worker.dropped, worker.stats().dropped), (1, 1))
            cross_entropy(model(self.x), self.y).backward()
            worker.step(0)
            self.assertTrue(all(bool(torch.isfinite(p).all()) for p in model.parameters()))


if __name__ == "__main__":
    bed.main()
