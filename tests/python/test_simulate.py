#!/usr/bin/env python3
"""The simulator with gradients in Python: ctest: plain"""
import math
import os
import subprocess
import sys
import tempfile
import unittest

import bed

torch = bed.need_torch()
import numpy  # noqa: E402
import gapless  # noqa: E402
from gapless.errors import BadArgument, ModelError  # noqa: E402
from gapless.simulation import Incident  # noqa: E402

nn = torch.nn


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def gradient_of(loader):
    batch = gapless.batches.by_number(loader)

    def gradient(model, number):
        x, y = batch(number)
        return nn.functional.cross_entropy(model(x), y)
    return gradient


def simulate(model, **settings):
    given = {"rule": "dana-ga", "lr": 0.05, "workers": 4, "gradients": 120, **settings}
    return gapless.simulate(gradient_of(bed.loader(torch)), model, **given)


class Torch(unittest.TestCase):
    def test_repeats_to_the_bit(self):
        models = [network(), network(), network()]
        state = torch.get_rng_state()
        results = [simulate(models[0])]
        self.assertTrue(torch.equal(state, torch.get_rng_state())) # the caller's own random numbers
        torch.rand(3) # ... decide nothing
        results += [simulate(models[1]), simulate(models[2], clock="heterogeneous")]
        for name, value in results[0].params.items():
            self.assertTrue(torch.equal(value, results[1].params[name]), name)
            self.assertTrue(torch.equal(value, models[0].state_dict()[name]), name) # the module has them, too
        self.assertFalse(torch.equal(results[0].params["0.weight"], results[2].params["0.weight"]))
        self.assertEqual((results[0].stats.gradients, len(results[0].workers)), (120, 4))
        self.assertGreater(results[0].stats.lag.mean, 2.5)
        self.assertAlmostEqual(results[0].seconds, 31, delta=4) # 120 batches of 1 s by 4 workers

    def test_one_worker_is_torchs(self):
        a, b = network(), network()
        for model in (a, b):
            model[3].p = 0.0
        batch = gapless.batches.by_number(bed.loader(torch))
        optimizer = torch.optim.SGD(a.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        for number in range(20):
            x, y = batch(number)
            optimizer.zero_grad()
            nn.functional.cross_entropy(a(x), y).backward()
            before = [p.detach().clone() for p in a.parameters()]
            optimizer.step()
        seen = []

        def gradient(model, number):
            if number == 19:
                seen.extend(p.detach().clone() for p in model.parameters())
            return nn.functional.cross_entropy(model(batch(number)[0]), batch(number)[1])
        gapless.simulate(gradient, b, rule="dana-zero", lr=0.05, workers=1, gradients=20)
        apart = max(float((p - q).abs().max()) for p, q in zip(before, seen))
        self.assertLess(apart, 1e-5)
        # running statistics: the master's averages are those of one process that saw all batches
        self.assertLess(float((a[1].running_mean - b[1].running_mean).abs().max()), 1e-5)
        self.assertLess(float((a[1].running_var - b[1].running_var).abs().max()), 1e-5)
        self.assertGreater(float((a[1].running_mean - network()[1].running_mean).abs().max()), 1e-3)

    def test_it_learns_and_has_a_curve(self):
        model, (x, y) = network(), bed.data(torch)

        def evaluate(row):
            model.eval()
            with torch.no_grad():
                accuracy = float((model(x).argmax(1) == y).float().mean())
            model.train()
            return {"accuracy": accuracy}
        result = simulate(model, gradients=400, workers=8, every=100, on_step=evaluate)
        self.assertEqual([row["gradients"] for row in result.curve], [100, 200, 300, 400])
        self.assertGreater(result.curve[-1]["accuracy"], 0.85)
        self.assertLess(result.curve[-1]["loss"], result.curve[0]["loss"])
        self.assertEqual(evaluate(None), {"accuracy": result.curve[-1]["accuracy"]})

    def test_an_exception_ends_it(self):
        for kind in (KeyError, KeyboardInterrupt):
            model, calls = network(), []

            def gradient(model, number):
                calls.append(number)
                if len(calls) == 30:
                    raise kind("mine")
                return model[0].weight.sum()
            with self.assertRaises(kind):
                gapless.simulate(gradient, model, workers=4, gradients=10 ** 9)
            self.assertEqual(len(calls), 30)
            self.assertIsNone(model[0].weight.grad)
            model[0].weight.data.add_(1)

    def test_guards(self):
        with self.assertRaisesRegex(ModelError, "left its place"):
            gapless.simulate(lambda model, _: model.double() and 0.0, network(), workers=2, gradients=10)
        with self.assertRaisesRegex(BadArgument, "threads"):
            simulate(network(), threads=2)
        with self.assertRaisesRegex(BadArgument, "gradient, or local"):
            gapless.simulate(None, network(), gradients=10)
        with self.assertRaisesRegex(BadArgument, "clock='sundial'"):
            simulate(network(), clock="sundial")
        with self.assertRaisesRegex(gapless.GaplessError, "no-such-rule"):
            simulate(network(), rule="no-such-rule")
        with self.assertRaisesRegex(BadArgument, "kind 'vanish'"):
            simulate(network(), incidents=[Incident(1.0, "vanish")])

    def test_incidents_and_a_record(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "record")
            incidents = [Incident(3.0, "join"), Incident(8.0, "kill", worker=1), Incident(12.0, "stall", worker=0, seconds=5.0)]
            a, b = network(), network()
            result = simulate(a, incidents=incidents, record=path)
            self.assertEqual((result.stats.workers_joined, result.stats.workers_lost), (5, 1))
            simulate(b, replay=path)
            for p, q in zip(a.parameters(), b.parameters()):
                self.assertTrue(torch.equal(p, q))

    def test_local_steps(self):
        """One worker whose differences are taken whole is its inner optimizer."""
        a, b = bed.mlp(torch), bed.mlp(torch)
        batch = gapless.batches.by_number(bed.loader(torch))

        def steps(model, first, count, optimizer):
            for number in range(first, first + count):
                x, y = batch(number)
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return loss
        steps(a, 0, 24, torch.optim.SGD(a.parameters(), lr=0.1, momentum=0.9))
        inner = {}

        def local(model, first, count, joined):
            optimizer = inner.setdefault(joined, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
            return steps(model, first, count, optimizer)
        result = gapless.simulate(None, b, local=local, local_steps=4, rule="dana-zero", lr=1.0, momentum=0, workers=1, gradients=24)
        self.assertEqual((list(inner), result.stats.updates), ([0], 6))
        self.assertLess(max(float((p - q).abs().max()) for p, q in zip(a.parameters(), b.parameters())), 1e-5)

    def test_lists_of_tensors(self):
        w = [torch.zeros(3), torch.zeros(2, 2)]

        def gradient(w, _):
            return sum((p - 1).pow(2).sum() for p in w), [2 * (p - 1) for p in w]
        result = gapless.simulate(gradient, [p.requires_grad_() for p in w], rule="ga", lr=0.02, workers=3, gradients=600)
        for p in (*w, *result.params.values()):
            self.assertLess(float((p - 1).abs().max()), 1e-3)


class Numpy(unittest.TestCase):
    TARGET = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)

    def gradient(self, w, number):
        noise = numpy.random.default_rng(number).normal(size=w.shape).astype(numpy.float32) * 0.1
        return float(((w - self.TARGET) ** 2).sum()), 2 * (w - self.TARGET) + noise

    def test_threads_give_the_same_bits(self):
        one, two = (gapless.simulate(self.gradient, numpy.zeros((2, 3)), rule="dana-ga", lr=0.02, workers=5, gradients=400,
                                     threads=threads).params["parameters"] for threads in (1, 2))
        self.assertTrue(numpy.array_equal(numpy.asarray(one), numpy.asarray(two)))
        self.assertLess(abs(numpy.asarray(one) - self.TARGET).max(), 0.1)

    def test_dicts_and_local(self):
        def local(w, batch, steps, joined):
            self.assertFalse(w["a"].flags.writeable)
            return 0.0, {"a": w["a"] + steps, "b": w["b"]}
        result = gapless.simulate(None, {"a": numpy.zeros(2), "b": numpy.ones(1)}, local=local, local_steps=2, rule="dana-zero",
                                  lr=1.0, momentum=0, workers=1, gradients=10)
        self.assertEqual([list(map(float, value)) for value in result.params.values()], [[10.0, 10.0], [1.0]])

    def test_without_torch(self):
        code = ("import sys, numpy, gapless; r = gapless.simulate(lambda w, b: (0.0, w - 1), numpy.zeros(3), gradients=500, lr=0.02); "
                "assert abs(r.params['parameters'] - 1).max() < 0.05, r.params; assert 'torch' not in sys.modules")
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_bad_answers(self):
        for answer, words in ((3.0, "returns \\(loss"), ((1.0, [1, 2, 3]), "broadcast|shape"), ((1.0,), "returns \\(loss")):
            with self.assertRaisesRegex((BadArgument, ValueError), words):
                gapless.simulate(lambda w, b: answer, numpy.zeros(4), workers=2, gradients=5)

    def test_not_finite(self):
        result = gapless.simulate(lambda w, b: (math.nan, numpy.full(3, math.nan if b % 2 else 1.0)), numpy.zeros(3), workers=2,
                                  gradients=20, rule="ga", lr=0.01)
        self.assertEqual(result.stats.dropped, 10)


if __name__ == "__main__":
    bed.main()
