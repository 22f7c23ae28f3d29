#!/usr/bin/env python3
"""What must not happen to a model while a worker has it is said in words: ctest: plain"""
import copy
import os
import tempfile
import unittest

import bed

torch = bed.need_torch()
import gapless  # noqa: E402
from gapless import _layout as layouts  # noqa: E402
from gapless.errors import BadArgument, ModelError, NotFinite, NotSupported, RunEnded, StepError  # noqa: E402

nn = torch.nn
X, Y = bed.data(torch)


def backward(model):
    loss = nn.functional.cross_entropy(model(X[:16]), Y[:16])
    loss.backward()
    return loss


class Fixture(unittest.TestCase):
    def refused(self, kind, words, act, model=None, **settings):
        """In a worker, ``act(model, worker)`` and then a step raise an error with these words; the worker leaves cleanly."""
        model = model or bed.mlp(torch)
        with self.assertRaisesRegex(kind, words):
            with gapless.Worker(model, lr=1e-3, **settings) as worker:
                backward(model)
                act(model, worker)
                worker.step(0)
        for p in model.parameters():
            self.assertTrue(bool(torch.isfinite(p).all()))
        gapless.Worker(bed.mlp(torch)).close() # nothing is left that disturbs the next one


class WhileItTrains(Fixture):
    def test_gradients_set_to_none(self):
        self.refused(ModelError, "'0.weight' is gone: zero_grad", lambda m, w: m.zero_grad(set_to_none=True))

    def test_a_gradient_of_ones_own(self):
        def replace(model, _):
            model[2].weight.grad = torch.zeros_like(model[2].weight)
        self.refused(ModelError, "'2.weight' is no longer in the engine's buffer", replace)

    def test_double(self):
        self.refused(ModelError, "'0.weight' has left .*float64.*Do them before", lambda m, w: m.double())

    def test_half(self):
        self.refused(ModelError, "has left .*float16", lambda m, w: m.half())

    def test_moved(self):
        def move(model, _): # .to() of a device that is here
            for p in model.parameters():
                p.data = p.data.clone()
        self.refused(ModelError, "'0.weight' has left", move)

    def test_load_state_dict(self):
        self.refused(ModelError, "'0.weight' was changed in place", lambda m, w: m.load_state_dict(bed.mlp(torch, 1).state_dict()))

    def test_an_optimizer_beside_it(self):
        self.refused(ModelError, "changed in place .*optimizer", lambda m, w: torch.optim.SGD(m.parameters(), lr=0.1).step())

    def test_a_graph_from_before_the_step(self):
        model = bed.mlp(torch)
        with gapless.Worker(model, lr=1e-3) as worker:
            loss = nn.functional.cross_entropy(model(X), Y)
            loss.backward(retain_graph=True)
            worker.step(loss)
            with self.assertRaisesRegex(RuntimeError, "modified by an inplace operation"):
                loss.backward()
        with gapless.Worker(model, lr=1e-3) as worker: # and torch's own word on a graph that is freed
            loss = backward(model)
            with self.assertRaisesRegex(RuntimeError, "second time"):
                loss.backward()

    def test_a_parameter_added(self):
        model = bed.mlp(torch)
        with gapless.Worker(model) as worker:
            model.add_module("more", nn.Linear(3, 3))
            with self.assertRaisesRegex(ModelError, "'more.weight' was added"):
                list(worker.batches(bed.loader(torch)))

    def test_a_parameter_unfrozen(self):
        model = bed.mlp(torch)
        model[0].weight.requires_grad = False
        with gapless.Worker(model) as worker:
            model[0].weight.requires_grad = True
            with self.assertRaisesRegex(ModelError, "'0.weight' was frozen"):
                worker.batches(bed.loader(torch))

    def test_found_between_epochs(self):
        model = bed.mlp(torch)
        with gapless.Worker(model) as worker:
            model.add_module("more", nn.Linear(3, 3))
            with self.assertRaisesRegex(ModelError, "'more.weight'"):
                for _ in range(300):
                    worker.step(0)

    def test_gradients_that_are_not_finite(self):
        model = bed.mlp(torch)
        with self.assertLogs("gapless", "WARNING") as logs, gapless.Worker(model, lr=1e-3) as worker:
            before = [p.clone() for p in model.parameters()]
            model[0].weight.grad[0, 0] = float("nan")
            self.assertTrue(worker.step(1.0))
            self.assertEqual((worker.dropped, worker.stats().dropped), (1, 1))
            for p, q in zip(model.parameters(), before):
                self.assertTrue(torch.equal(p, q))
            backward(model)
            worker.step(1.0)
            with self.assertRaisesRegex(NotFinite, "last 10 gradients"):
                for _ in range(10):
                    model[0].weight.grad.fill_(float("inf"))
                    worker.step(1.0)
        self.assertIn("not finite", logs.output[0])


class Order(Fixture):
    def test_no_step(self):
        with gapless.Worker(bed.mlp(torch)) as worker:
            with self.assertRaisesRegex(StepError, "before worker.step"):
                for _ in worker.batches(bed.loader(torch)):
                    pass

    def test_skip(self):
        model = bed.mlp(torch)
        with gapless.Worker(model, lr=1e-2) as worker:
            before = [p.clone() for p in model.parameters()]
            count = 0
            for _ in worker.batches(bed.loader(torch)):
                worker.skip()
                count += 1
            self.assertEqual((count, worker.stats().dropped, worker.dropped), (20, 20, 20))
            for p, q in zip(model.parameters(), before):
                self.assertTrue(torch.equal(p, q))

    def test_leaving_a_loop_early(self):
        with gapless.Worker(bed.mlp(torch)) as worker:
            first = next(iter(worker.batches(bed.loader(torch, shuffle=False))))
            again = next(iter(worker.batches(bed.loader(torch, shuffle=False))))
            self.assertTrue(torch.equal(first[0], again[0]))

    def test_accumulate(self):
        """Four batches summed, a quarter of the loss each, are one of four times the size."""
        loader = bed.loader(torch, batch_size=8, shuffle=False)
        a, b = bed.mlp(torch), bed.mlp(torch)
        with gapless.Worker(a, "dana-zero", lr=0.1, accumulate=4) as worker:
            for i, (x, y) in enumerate(worker.batches(loader), 1):
                loss = nn.functional.cross_entropy(a(x), y) / 4
                loss.backward()
                if i % 4 == 0:
                    worker.step(loss)
            self.assertEqual(worker.stats().gradients, 10)
        with gapless.Worker(b, "dana-zero", lr=0.1) as worker:
            for x, y in worker.batches(bed.loader(torch, batch_size=32, shuffle=False)):
                loss = nn.functional.cross_entropy(b(x), y)
                loss.backward()
                worker.step(loss)
        for p, q in zip(a.parameters(), b.parameters()):
            self.assertLess(float((p - q).abs().max()), 1e-5)

    def test_accumulate_out_of_step(self):
        with gapless.Worker(bed.mlp(torch), accumulate=2) as worker:
            with self.assertRaisesRegex(StepError, "after 1 of 2 batches"):
                for _ in worker.batches(bed.loader(torch)):
                    worker.step(0)
        with gapless.Worker(bed.mlp(torch), accumulate=2) as worker:
            with self.assertRaisesRegex(StepError, "accumulate=N"):
                for _ in worker.batches(bed.loader(torch)):
                    pass

    def test_the_end_of_the_run(self):
        model = bed.mlp(torch)
        with gapless.Worker(model, lr=1e-3, gradients=5) as worker:
            seen = 0
            for _ in worker.batches(bed.loader(torch)):
                backward(model)
                going = worker.step(0)
                seen += 1
            self.assertEqual((seen, going, worker.running), (5, False, False))
            self.assertEqual(list(worker.batches(bed.loader(torch))), [])
            with self.assertRaisesRegex(RunEnded, "run is over"):
                worker.step(0)

    def test_a_forked_child(self):
        model = bed.mlp(torch)
        with gapless.Worker(model) as worker:
            pid = os.fork()
            if pid == 0: # as a DataLoader's process: must not leave the run for its parent, nor step
                code = 1
                try:
                    worker.step(0)
                except StepError as error:
                    code = 0 if "forked child" in str(error) else 2
                worker.close()
                worker.__exit__(None, None, None)
                os._exit(code)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            backward(model)
            self.assertTrue(worker.step(0))
            self.assertEqual(worker.stats().workers_active, 1)


class BeforeItBegins(Fixture):
    def bad(self, words, model, kind=ModelError, **settings):
        with self.assertRaisesRegex(kind, words):
            gapless.Worker(model, **settings)

    def test_models(self):
        self.bad("'0.weight' is of torch.float64.*model.float", bed.mlp(torch).double())
        self.bad("no parameter", nn.ReLU())
        conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.bad("'weight' is not contiguous", conv)
        self.bad("module '0' makes sparse", nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 2)))
        self.bad("'weight' has no shape yet", nn.LazyLinear(3))
        self.bad("'1' has momentum=None", nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, momentum=None)))
        spoiled = bed.mlp(torch)
        spoiled[0].bias.data[0] = float("nan")
        self.bad("'0.bias' has values that are infinite", spoiled)
        self.bad("is on meta", nn.Linear(2, 2, device="meta"), kind=(ModelError, NotSupported, NotImplementedError))

    def test_wrappers(self):
        class DistributedDataParallel(nn.Sequential): # torch's own want a process group
            pass

        class FullyShardedDataParallel(nn.Sequential):
            pass

        self.bad("DistributedDataParallel: .*model.module", DistributedDataParallel(bed.mlp(torch)))
        self.bad("FullyShardedDataParallel: .*whole", FullyShardedDataParallel(bed.mlp(torch)))
        self.bad("DataParallel", nn.DataParallel(bed.mlp(torch)))

    def test_a_compiled_model(self):
        class OptimizedModule(nn.Module): # torch 2's torch.compile
            def __init__(self, module):
                super().__init__()
                self._orig_mod = module

            def forward(self, x):
                return self._orig_mod(x)

        model = OptimizedModule(bed.mlp(torch))
        with gapless.Worker(model) as worker:
            self.assertEqual([entry.name for entry in worker.layout.entries], ["0.weight", "0.bias", "2.weight", "2.bias"])
            worker.step(backward(model))
        # A part of a model that is compiled, batch norm in it: names are as without, in the run and in files.
        inside = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16))
        model, plain = nn.Sequential(OptimizedModule(inside), nn.Linear(16, 3)), nn.Sequential(inside, nn.Linear(16, 3))
        names = [[entry.name for entry in layouts.of_module(m).entries] for m in (model, plain)]
        self.assertEqual(names[0], names[1])
        self.assertIn("0.1.running_mean", names[0])
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.safetensors")
            with gapless.Worker(model) as worker:
                worker.step(backward(model))
                worker._thread.master.save(path) # as a master writes it
            gapless.load(path, into=model)
            gapless.load(path, into=plain)
            gapless.save(model, path)
            self.assertEqual(set(gapless.load(path)), set(plain.state_dict()))

    def test_arguments(self):
        model = bed.mlp(torch)
        self.bad("no setting 'momentun'", model, BadArgument, momentun=0.9)
        self.bad("no rule|there is no|unknown", model, gapless.GaplessError, optimizer="dana-nothing")
        self.bad("lr must be above 0", model, BadArgument, lr=0)
        self.bad("cosine needs the length", model, BadArgument, cosine=True)
        self.bad("overlap", model, NotSupported, overlap=True)
        self.bad("local steps need both", model, BadArgument, local_steps=4)
        self.bad("local steps need both", model, BadArgument, inner=torch.optim.SGD(model.parameters(), lr=0.1))
        self.bad("momentum=-1", model, BadArgument, momentum=-1)
        self.bad("momentum", model, gapless.GaplessError, momentum=2)
        self.bad("pairs of gradients", model, BadArgument, steps=[3])
        self.bad("'nesterov'", model, ModelError, params=[{"params": model.parameters(), "nesterov": True}])
        self.bad("no master answered at shm:nothing-here.*unset GAPLESS_MASTER", model, TimeoutError,
                 address="shm:nothing-here", connect=0.2)

    def test_loaders(self):
        from torch.utils.data import DataLoader, TensorDataset
        from torch.utils.data.distributed import DistributedSampler

        dataset = TensorDataset(X, Y)
        with gapless.Worker(bed.mlp(torch)) as worker:
            with self.assertRaisesRegex(BadArgument, "DistributedSampler"):
                worker.batches(DataLoader(dataset, 8, sampler=DistributedSampler(dataset, num_replicas=2, rank=0)))
            with self.assertRaisesRegex(BadArgument, "no batch"):
                worker.batches(DataLoader(dataset, 1000, drop_last=True))


class Allowed(Fixture):
    """What a user of torch does, and may."""

    def test_tied_and_frozen(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding = nn.Embedding(10, 8)
                self.frozen = nn.Linear(8, 8)
                self.head = nn.Linear(8, 10, bias=False)
                self.head.weight = self.embedding.weight
                self.frozen.requires_grad_(False)

            def forward(self, x):
                return self.head(self.frozen(self.embedding(x)))

        model = Tied()
        still = model.frozen.weight.clone()
        with gapless.Worker(model, "adamw", lr=1e-2) as worker:
            self.assertEqual([entry.name for entry in worker.layout.entries], ["embedding.weight"])
            for _ in range(3):
                loss = nn.functional.cross_entropy(model(torch.arange(10)), torch.arange(10))
                loss.backward()
                worker.step(loss)
        self.assertIs(model.head.weight, model.embedding.weight)
        self.assertTrue(torch.equal(model.frozen.weight, still))

    def test_clipping_in_place(self):
        model = bed.mlp(torch)
        with gapless.Worker(model, "dana-zero", lr=1.0, momentum=0) as worker:
            before = [p.clone() for p in model.parameters()]
            loss = backward(model)
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            worker.step(loss)
            moved = sum(float((p - q).pow(2).sum()) for p, q in zip(model.parameters(), before)) ** 0.5
            self.assertLess(moved, 1.01e-3)
            self.assertGreater(moved, 0.9e-3)

    def test_clip_norm(self):
        model = bed.mlp(torch)
        with gapless.Worker(model, "dana-zero", lr=1.0, momentum=0, clip_norm=1e-3) as worker:
            before = [p.clone() for p in model.parameters()]
            worker.step(backward(model))
            moved = sum(float((p - q).pow(2).sum()) for p, q in zip(model.parameters(), before)) ** 0.5
            self.assertLess(abs(moved - 1e-3), 5e-5)

    def test_autocast_and_two_losses(self):
        model = bed.mlp(torch)
        with gapless.Worker(model, lr=1e-3) as worker:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(model(X), Y)
            loss.backward()
            (model[2].weight ** 2).sum().backward() # a second loss is added, as torch adds it
            self.assertEqual(model[2].weight.grad.dtype, torch.float32)
            self.assertTrue(worker.step(loss))

    def test_copies_and_zero_grad(self):
        model = bed.mlp(torch)
        with gapless.Worker(model, lr=1e-2) as worker:
            twin = copy.deepcopy(model) # an average of weights, say: memory of its own
            saved = {name: value.clone() for name, value in model.state_dict().items()}
            backward(model)
            worker.zero_grad(set_to_none=True)
            self.assertEqual(float(model[0].weight.grad.abs().sum()), 0)
            worker.step(backward(model))
            self.assertTrue(torch.equal(twin[0].weight, saved["0.weight"]))
            self.assertFalse(torch.equal(model[0].weight, twin[0].weight))

    def test_shapes(self):
        """No dimension, five of them, an empty one, a name that is too long."""
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.tensor(2.0))
                self.volume = nn.Conv3d(1, 2, 3)
                self.empty = nn.Parameter(torch.zeros(0, 3))
                setattr(self, "long_" * 20, nn.Parameter(torch.ones(3)))

            def forward(self, x):
                return self.scale * self.volume(x).sum() + getattr(self, "long_" * 20).sum()

        model = Odd()
        with gapless.Worker(model, "dana-zero", lr=0.1, momentum=0) as worker:
            self.assertEqual(worker.layout.count, 1 + 54 + 2 + 3)
            loss = model(torch.ones(1, 1, 3, 3, 3))
            loss.backward()
            worker.step(loss)
            for value in getattr(model, "long_" * 20).tolist():
                self.assertAlmostEqual(value, 0.9, places=5)


if __name__ == "__main__":
    bed.main()
