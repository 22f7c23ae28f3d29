#!/usr/bin/env python3
"""Groups, schedulers, local steps, masters, observers, files, metrics: ctest: plain"""
import json
import os
import struct
import sys
import tempfile
import types
import unittest
import unittest.mock

import bed

torch = bed.need_torch()
import gapless  # noqa: E402
from gapless.errors import BadArgument, FileCorrupt, ModelError, NotFinite, NotSupported, StepError  # noqa: E402

nn = torch.nn
X, Y = bed.data(torch)


def backward(model, at=0):
    at = at * 16 % 320
    loss = nn.functional.cross_entropy(model(X[at:at + 16]), Y[at:at + 16])
    loss.backward()
    return loss


def apart(a, b):
    return max(float((p - q).abs().max()) for p, q in zip(a.parameters(), b.parameters()))


class Rates(unittest.TestCase):
    def test_groups(self):
        """Each group's own rate and decay, as torch has them."""
        a, b = bed.mlp(torch), bed.mlp(torch)

        def groups(model):
            return [{"params": model[2].parameters(), "lr": 0.02, "weight_decay": 0.1},
                    {"params": model[0].parameters(), "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups(a), lr=0.1, momentum=0.9, nesterov=True)
        with gapless.Worker(b, "dana-zero", lr=0.1, momentum=0.9, params=groups(b)) as worker:
            self.assertEqual([entry.name for entry in worker.layout.entries], # no matrix at the border, for Muon
                             ["2.weight", "2.bias", "0.bias", "0.weight"])
            for i in range(30):
                optimizer.zero_grad()
                backward(a, i)
                optimizer.step()
                worker.step(backward(b, i))
                self.assertLess(apart(a, b), 1e-6 if i < 5 else 1e-4, i)

    def test_adamw_groups(self):
        a, b = bed.mlp(torch), bed.mlp(torch)

        def groups(model):
            return [{"params": [model[0].weight, model[2].weight], "weight_decay": 0.3}, {"params": [model[0].bias, model[2].bias]}]
        optimizer = torch.optim.AdamW(groups(a), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
        with gapless.Worker(b, "adamw", lr=1e-3, momentum=0.9, beta2=0.999, decay=0.01, decay_all=True, params=groups(b)) as worker:
            for i in range(30):
                optimizer.zero_grad()
                backward(a, i)
                optimizer.step()
                worker.step(backward(b, i))
        self.assertLess(apart(a, b), 2e-6)

    def test_a_group_in_two(self):
        model = bed.mlp(torch)
        with self.assertRaisesRegex(ModelError, "'0.weight' is in the groups 0 and 1"):
            gapless.Worker(model, params=[{"params": model.parameters()}, {"params": [model[0].weight]}])
        with self.assertRaisesRegex(ModelError, "is no parameter of the model"):
            gapless.Worker(model, params=[{"params": [nn.Parameter(torch.ones(3))]}])

    def test_batch_norm(self):
        """The running statistics of one worker are torch's; they are the master's, and come back."""
        from gapless import _layout

        def network():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6, momentum=0.2), nn.ReLU(), nn.Linear(6, 3))
        a, b = network(), network()
        optimizer = torch.optim.SGD(a.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        with gapless.Worker(b, "dana-zero", lr=0.05, momentum=0.9) as worker, gapless.Observer(worker.address) as observer:
            for i in range(10):
                optimizer.zero_grad()
                backward(a, i)
                optimizer.step()
                worker.step(backward(b, i))
                for part in ("running_mean", "running_var"):
                    self.assertLess(float((getattr(a[1], part) - getattr(b[1], part)).abs().max()), 1e-5)
            self.assertLess(apart(a, b), 1e-5)
            self.assertEqual(int(b[1].num_batches_tracked), 10)
            seen = network()
            observer.read(seen)
            self.assertTrue(torch.equal(seen[1].running_var, b[1].running_var))
        self.assertTrue(torch.equal(seen[1].running_var, b[1].running_var))
        b[1].running_var.add_(1) # memory of its own again
        self.assertEqual([(entry.name, round(entry.average, 6)) for entry in _layout.of_module(b, accumulate=3).averages],
                         [("1.running_mean", 0.488), ("1.running_var", 0.488)]) # 1 - 0.8 ** 3: three batches move it

    def test_a_scheduler(self):
        a, b = bed.mlp(torch), bed.mlp(torch)
        optimizer = torch.optim.SGD(a.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        with gapless.Worker(b, "dana-zero", lr=0.05, momentum=0.9) as worker:
            schedules = [torch.optim.lr_scheduler.StepLR(o, 5, 0.3) for o in (optimizer, worker.optimizer)]
            for i in range(20):
                optimizer.zero_grad()
                backward(a, i)
                optimizer.step()
                worker.step(backward(b, i))
                for schedule in schedules:
                    schedule.step()
            self.assertAlmostEqual(worker.stats().rate, 0.05 * 0.3 ** 3, places=6)
            self.assertGreater(apart(b, bed.mlp(torch)), 0.01)

    def test_a_factor_for_each_group(self):
        model = bed.mlp(torch)
        with gapless.Worker(model, params=[{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.1}]) as worker:
            worker.optimizer.param_groups[0]["lr"] *= 0.5
            with self.assertRaisesRegex(StepError, "different factors"):
                worker.step(0)

    def test_the_masters_schedule(self):
        model = bed.mlp(torch)
        with gapless.Worker(model, lr=0.1, warmup=4, steps=[(8, 0.5)], gradients=20) as worker:
            rates = []
            while worker.running:
                backward(model)
                worker.step(0)
                rates.append(worker.stats().rate)
        self.assertLessEqual(rates[0], 0.1)
        self.assertAlmostEqual(rates[6], 0.1)
        self.assertAlmostEqual(rates[-1], 0.05)

    def test_trainers_call_the_optimizer(self):
        """model.zero_grad() of torch 2 takes gradients out of the buffer; optimizer.step() brings them back."""
        a, b = bed.mlp(torch), bed.mlp(torch)
        with gapless.Worker(a, "dana-zero", lr=0.05) as worker, gapless.Worker(b, "dana-zero", lr=0.05) as plain:
            for i in range(5):
                backward(a, i)
                worker.optimizer.step()
                a.zero_grad(set_to_none=True)
                worker.optimizer.zero_grad(set_to_none=True)
                plain.step(backward(b, i))
            self.assertTrue(apart(a, b) == 0)
            with self.assertRaisesRegex(NotSupported, "GradScaler"):
                worker.optimizer.step(grad_scaler=object())


class LocalSteps(unittest.TestCase):
    def test_one_worker_is_the_inner_optimizer(self):
        """With an outer rate of 1 and no momentum the master is where the worker ended."""
        a, b = bed.mlp(torch), bed.mlp(torch)
        alone = torch.optim.AdamW(a.parameters(), lr=1e-3)
        inner = torch.optim.AdamW(b.parameters(), lr=1e-3)
        with gapless.Worker(b, "dana-zero", lr=1.0, momentum=0, inner=inner, local_steps=4) as worker:
            for i in range(24):
                alone.zero_grad()
                backward(a, i)
                alone.step()
                worker.step(backward(b, i))
                self.assertLess(apart(a, b), 1e-6, i)
            self.assertEqual((worker.stats().updates, worker.stats().gradients), (6, 24))

    def test_batches_and_the_rest(self):
        """21 batches in exchanges of 4: an epoch ends in the middle of one, and what is left is handed in at the end."""
        model = bed.mlp(torch)
        inner = torch.optim.SGD(model.parameters(), lr=0.05)
        loader = bed.loader(torch, batch_size=16)
        with gapless.Worker(model, "dana-zero", lr=1.0, momentum=0, inner=inner, local_steps=8) as worker:
            for epoch in range(3):
                count = 0
                for x, y in worker.batches(loader):
                    loss = nn.functional.cross_entropy(model(x), y)
                    loss.backward()
                    worker.step(loss)
                    count += 1
                self.assertEqual((count, worker.epoch), (20, epoch))
            self.assertEqual(worker.batch, 60)
            ended = [p.clone() for p in model.parameters()]
        for p, q in zip(model.parameters(), ended):
            self.assertLess(float((p - q).abs().max()), 1e-6)
        self.assertGreater(apart(model, bed.mlp(torch)), 0.01)

    def test_rates(self):
        """Of the outer optimizer, and without local steps, where none is given."""
        model = bed.mlp(torch)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        for size, name, local, rate in (("", None, 0, 1e-3), ("", "dana-ga", 0, 5e-3), ("", None, 4, 0.7), ("8", None, 4, 0.35 / 8),
                                        ("8", "ssgd", 4, 0.7), ("8", "dn", 4, 0.35)):
            os.environ["WORLD_SIZE"] = size
            given = gapless.Worker._settings(name, None, inner if local else None, local, {}).given
            self.assertAlmostEqual(given["lr"], rate)
        self.assertEqual(gapless.Worker._settings(None, None, inner, "adaptive", {}).given["adapt_steps"], True)
        del os.environ["WORLD_SIZE"]

    def test_adaptive(self):
        model = bed.mlp(torch)
        with gapless.Worker(model, inner=torch.optim.SGD(model.parameters(), lr=0.1), local_steps="adaptive") as worker:
            for i in range(40):
                worker.step(backward(model, i))
            self.assertIn(worker.stats().gradients, (16, 32))
            with self.assertRaisesRegex(NotSupported, "inner optimizer"):
                worker.optimizer


class Others(unittest.TestCase):
    def test_a_master_and_an_observer(self):
        model, copy_, seen = bed.mlp(torch), bed.mlp(torch, 1), bed.mlp(torch, 2)
        with gapless.Master(model, "dana-ga", lr=0.05, gradients=40, job="mine") as master:
            from gapless.master import MasterThread

            thread = MasterThread(master)
            with gapless.Worker(copy_, address=master.address) as worker, gapless.Observer(master.address) as observer:
                self.assertEqual(apart(copy_, model), 0) # parameters are the master's
                self.assertEqual((worker.job, observer.job, observer.count), ("mine", "mine", worker.layout.count))
                count = 0
                for i in range(20):
                    worker.step(backward(copy_, i))
                    count += 1
                observer.read(seen)
                self.assertGreaterEqual(observer.version, 19)
                self.assertGreater(apart(seen, model), 0)
                self.assertEqual(gapless.run_stats().gradients, observer.stats().gradients)
                self.assertEqual([w.number for w in observer.workers()], [0])
                self.assertEqual(observer.worker_stats(0).gradients, observer.stats().gradients)
                self.assertIsNone(observer.worker_stats(7))
                with self.assertRaisesRegex(ModelError, "elements"):
                    observer.read(bed.mlp(torch, width=4))
                with self.assertRaises(gapless.errors.ModelMismatch):
                    gapless.Worker(bed.mlp(torch, width=4), address=master.address)
                while worker.running:
                    worker.step(backward(copy_))
            thread.end()
            self.assertFalse(master.run(0.01))
            self.assertEqual((master.stats.state, master.stats.gradients, len(master.workers())), ("done", 40, 1))
            for (name, p), (_, q) in zip(master.params().items(), copy_.named_parameters()):
                self.assertTrue(torch.equal(p, q), name) # the master's own at the end
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "model.safetensors")
                master.save(path, {"mine": "yes"})
                gapless.load(path, into=seen)
                self.assertEqual(apart(seen, copy_), 0)
                self.assertEqual(gapless.files.header(path)[0]["__metadata__"]["mine"], "yes")
        with self.assertRaisesRegex(BadArgument, "closed"):
            master.run(0)

    def test_another_model_than_the_offers(self):
        """Of several processes that a launcher started, one has another model: the first difference is named."""
        from gapless import _offer
        from gapless.master import MasterThread

        def others():
            yield bed.mlp(torch, width=4), r"'0.weight' has the shape \[4, 8\] here and \[16, 8\] at the master"
            yield nn.Sequential(*bed.mlp(torch)[:2]), "'2.weight' is at the master only"
            yield nn.Sequential(nn.Identity(), *bed.mlp(torch)), "tensor 0 is '1.weight' here and '0.weight' at the master"
        model = bed.mlp(torch)
        with tempfile.TemporaryDirectory() as folder, gapless.Master(model, "dana-ga", lr=0.05) as master:
            offer = os.path.join(folder, "offer")
            _offer.write(offer, master.layout, gapless.settings.Settings({"rule": "dana-ga", "lr": 0.05}), "")
            thread = MasterThread(master)
            with unittest.mock.patch.dict(os.environ, GAPLESS_MASTER=master.address, GAPLESS_OFFER=offer):
                for other, words in others():
                    with self.assertRaisesRegex(gapless.errors.ModelMismatch, "trains another model: " + words):
                        gapless.Worker(other, connect=20)
                gapless.Worker(bed.mlp(torch), connect=20).close()
            thread.end()

    def test_a_master_that_dies(self):
        model = bed.mlp(torch)
        with self.assertRaisesRegex(gapless.errors.MasterLost, "gone|lost"):
            with gapless.Worker(model, lr=1e-3) as worker:
                worker._thread._leaving = True
                worker._thread.end()
                worker._thread.master.close()
                worker._thread.failure = gapless.errors.MasterLost("ended by the test")
                for _ in range(100):
                    if not worker.step(backward(model)):
                        raise gapless.errors.MasterLost("gone: the run had ended before")
        self.assertTrue(bool(torch.isfinite(model[0].weight).all()))

    def test_an_exception_leaves(self):
        model = bed.mlp(torch)
        for kind in (ValueError, KeyboardInterrupt):
            with self.assertRaises(kind):
                with gapless.Worker(model, lr=1e-3) as worker:
                    backward(model)
                    raise kind("the user's own")
            self.assertFalse(worker.running)
            self.assertIsNone(model[0].weight.grad)

    def test_a_loaders_processes(self):
        """They give what one process gives, whatever is in a sample; an exception in one comes out."""
        from torch.utils.data import DataLoader

        class Samples(torch.utils.data.Dataset):
            def __len__(self):
                return 25

            def __getitem__(self, i):
                if i == 24 and self.bad:
                    raise LookupError("sample 24")
                return {"x": torch.full((2,), float(i)), "n": i, "text": str(i), "pair": (i, [2.0 * i])}
            bad = False

        def pairs(samples): # a collate_fn of one's own
            return [(sample["n"], sample["text"]) for sample in samples]
        model = bed.mlp(torch)
        for collate in (None, pairs):
            seen = []
            for processes in (0, 3):
                with gapless.Worker(model) as worker:
                    loader, got = DataLoader(Samples(), 10, shuffle=True, num_workers=processes, collate_fn=collate), []
                    for _ in range(2):
                        for batch in worker.batches(loader):
                            got.append(batch)
                            worker.step(0)
                seen.append(got)
            self.assertEqual((len(seen[0]), len(seen[1])), (6, 6))
            self.assertEqual(str(seen[0]), str(seen[1]))
        samples = Samples()
        samples.bad = True
        with self.assertRaisesRegex(LookupError, "sample 24"), gapless.Worker(model) as worker:
            for _ in worker.batches(DataLoader(samples, 10, num_workers=2)):
                worker.step(0)

    def test_batches_that_are_not_torchs(self):
        model = bed.mlp(torch)
        with gapless.Worker(model) as worker:
            dicts = [{"x": i} for i in range(6)]
            got = []
            for batch in worker.batches(dicts):
                got.append(batch["x"])
                worker.step(0)
            self.assertEqual(got, [0, 1, 2, 3, 4, 5])
            got = []
            for batch in worker.batches(iter("abc")):
                got.append(batch)
                worker.step(0)
            self.assertEqual(got, ["a", "b", "c"])


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "m.safetensors")

    def test_kinds(self):
        tensors = {"a": torch.randn(2, 3), "b": torch.arange(4), "c": torch.tensor([True, False]), "d": torch.tensor(1.5),
                   "e": torch.randn(3).bfloat16(), "f": torch.zeros(0, 2), "g": torch.randn(2).half(), "h": torch.ones(1).double(),
                   "t": torch.randn(3, 2).t()}
        gapless.save(tensors, self.path, {"who": "test"})
        found = gapless.load(self.path)
        self.assertEqual(set(found), set(tensors))
        for name, tensor in tensors.items():
            self.assertEqual((found[name].dtype, found[name].shape), (tensor.dtype, tensor.shape), name)
            self.assertTrue(torch.equal(found[name], tensor), name)

    def test_a_module_with_buffers(self):
        a, b = (nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)) for _ in range(2))
        a(X)
        gapless.save(a, self.path)
        gapless.load(self.path, into=b)
        for p, q in zip(a.state_dict().values(), b.state_dict().values()):
            self.assertTrue(torch.equal(p, q))

    def test_another_model(self):
        gapless.save(bed.mlp(torch), self.path)
        with self.assertRaisesRegex(ModelError, r"'0.weight' has the shape \(4, 8\) in the model and \(16, 8\)"):
            gapless.load(self.path, into=bed.mlp(torch, width=4))
        with self.assertRaisesRegex(ModelError, "has no tensor '1.weight'"):
            gapless.load(self.path, into=nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 3)))
        with self.assertRaisesRegex(ModelError, "a tensor '2.bias', which the model has not"):
            gapless.load(self.path, into=nn.Sequential(nn.Linear(8, 16)))

    def test_damage(self):
        gapless.save({"a": torch.ones(100)}, self.path)
        with open(self.path, "rb") as file:
            whole = file.read()
        damaged = [whole[:4], whole[:40], whole[:-4], struct.pack("<Q", 1 << 60) + whole[8:],
                   whole.replace(b"F32", b"F99"), whole.replace(b"[0,400]", b"[0,404]"), whole.replace(b"{\"a\"", b"x\"a\""),
                   struct.pack("<Q", 2) + b"[]", whole.replace(b"[100]", b"[-10]")]
        for data in damaged:
            with open(self.path, "wb") as file:
                file.write(data)
            if data != whole:
                with self.assertRaises(FileCorrupt):
                    gapless.load(self.path)
        with self.assertRaises(FileNotFoundError):
            gapless.load(self.path + "x")

    def test_the_offer(self):
        from gapless import _offer
        from gapless._layout import of_module
        from gapless.settings import Settings

        model = bed.mlp(torch)
        layout = of_module(model, [{"params": model[0].parameters(), "lr": 0.02}, {"params": model[2].parameters(), "weight_decay": 0}], 0.01)
        settings = Settings({"rule": "dana-lga-adamw", "lr": 0.01, "momentum": 0, "cosine": 0.1, "gradients": 100, "warmup": 10,
                             "steps": [(50, 0.5)], "decay_all": True})
        self.assertTrue(_offer.write(self.path, layout, settings, "job"))
        self.assertFalse(_offer.write(self.path, layout, settings, "another"))
        with unittest.mock.patch("os.path.exists", return_value=False): # two at the same moment
            self.assertFalse(_offer.write(self.path, layout, settings, "another"))
        head, at = gapless.files.header(self.path)
        meta = head["__metadata__"]
        self.assertEqual((meta["gapless.offer"], meta["gapless.job"], meta["gapless.gradients"]), ("1", "job", "100"))
        tensors = json.loads(meta["gapless.tensors"])
        self.assertEqual(tensors[0], {"name": "0.weight", "shape": [16, 8], "rate": 2, "decay": 0, "average": 0, "flags": 0})
        self.assertEqual((tensors[2]["rate"], tensors[2]["decay"]), (1, -1))
        self.assertEqual(json.loads(meta["gapless.options"]), {
            "rule": "dana-lga-adamw", "lr": "0.01", "momentum": "0", "warmup": "10updates", "steps": "50updates:0.5",
            "schedule": "cosine:0.1", "decay-all": "yes"})
        offsets = [head[t["name"]]["data_offsets"][0] for t in tensors]
        self.assertEqual(offsets, sorted(offsets))
        self.assertTrue(torch.equal(gapless.load(self.path)["0.weight"], model[0].weight))
        self.assertEqual(os.listdir(self.folder.name), ["m.safetensors"])


class Metrics(unittest.TestCase):
    NAMES = {"loss", "rate", "lag", "gap_rms", "gradients_per_second", "worker_loss", "worker_lag", "worker_gap_rms", "epoch"}

    def steps(self, on_step, count=6):
        model = bed.mlp(torch)
        with gapless.Worker(model, lr=1e-3, on_step=on_step) as worker:
            for i in range(count):
                worker.step(backward(model, i))

    def test_trackers(self):
        seen = {"tensorboard": [], "wandb": [], "mlflow": [], "accelerate": []}

        class Writer:
            def add_scalar(self, name, value, step):
                seen["tensorboard"].append((name, value, step))

        class Run:
            def log(self, values, step):
                seen["wandb"].append((values, step))

        class Flow:
            def log_metrics(self, values, step):
                seen["mlflow"].append((values, step))

        class Accelerator:
            def log(self, values, step):
                seen["accelerate"].append((values, step))

        m = gapless.metrics
        self.steps(m.several(m.tensorboard(Writer(), 2), m.wandb(Run(), 3), m.mlflow(Flow(), 3), m.accelerate(Accelerator(), 6)))
        self.assertEqual({name.split("/")[1] for name, _, _ in seen["tensorboard"]} & self.NAMES, self.NAMES)
        self.assertEqual(sorted({step for _, _, step in seen["tensorboard"]}), [1, 3, 5])
        for name, count, prefix in (("wandb", 2, "gapless/"), ("mlflow", 2, "gapless."), ("accelerate", 1, "gapless/")):
            self.assertEqual(len(seen[name]), count)
            self.assertLessEqual({prefix + key for key in self.NAMES}, set(seen[name][0][0]))
            self.assertTrue(all(isinstance(value, float) for value in seen[name][0][0].values()))

    def test_a_master_without_room(self):
        seen = []
        model = bed.mlp(torch)
        with gapless.Worker(model, lr=1e-3, observers_max=1, on_step=lambda step: seen.append(step.metrics())) as worker:
            with gapless.Observer(worker.address):
                worker.step(backward(model))
        self.assertEqual(set(seen[0]), {"worker_loss", "epoch"})
        with self.assertRaisesRegex(StepError, "has left"):
            worker.stats()

    def test_imported_when_used(self):
        calls = []
        for name in ("wandb", "mlflow"):
            with self.assertRaises(ImportError):
                getattr(gapless.metrics, name)()
        sys.modules["wandb"] = types.SimpleNamespace(log=lambda values, step: calls.append(step))
        self.addCleanup(sys.modules.pop, "wandb")
        self.steps(gapless.metrics.wandb(every=3))
        self.assertEqual(calls, [2, 5])

    def test_trainer(self):
        sys.modules["transformers"] = types.SimpleNamespace(TrainerCallback=type("TrainerCallback", (), {}))
        self.addCleanup(sys.modules.pop, "transformers")
        model = bed.mlp(torch)
        with gapless.Worker(model, lr=1e-3, gradients=3) as worker: # what Trainer.train does
            callback = gapless.metrics.trainer_callback(worker)
            schedule = torch.optim.lr_scheduler.LambdaLR(worker.optimizer, lambda at: 1 / (1 + at))
            control, steps = types.SimpleNamespace(should_training_stop=False), 0
            while not control.should_training_stop:
                backward(model)
                worker.optimizer.step()
                schedule.step()
                model.zero_grad(set_to_none=True)
                steps += 1
                logs = {"loss": 1.0}
                callback.on_log(None, None, control, logs)
                self.assertEqual("gapless_lag" in logs, worker.running)
                callback.on_step_end(None, None, control)
        self.assertEqual(steps, 3)


if __name__ == "__main__":
    bed.main()
