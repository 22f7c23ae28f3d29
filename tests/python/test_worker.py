#!/usr/bin/env python3
"""A worker with a master in its own process: ctest: plain"""
import unittest

import bed

torch = bed.need_torch()
import gapless  # noqa: E402

cross_entropy = torch.nn.functional.cross_entropy


def train(worker, model, batches):
    losses = []
    for x, y in batches:
        loss = cross_entropy(model(x), y)
        loss.backward()
        worker.step(loss)
        losses.append(float(loss.detach()))
    return losses


class Training(unittest.TestCase):
    def test_it_learns_and_leaves(self):
        model, loader = bed.mlp(torch), bed.loader(torch)
        with gapless.Worker(model, lr=1e-2) as worker:
            first = train(worker, model, worker.batches(loader))
            self.assertEqual((len(first), worker.epoch), (len(loader), 0))
            for _ in range(8):
                last = train(worker, model, worker.batches(loader))
            self.assertEqual(worker.epoch, 8)
            stats = worker.stats()
            self.assertEqual((stats.gradients, stats.workers_active), (9 * len(loader), 1))
        self.assertLess(sum(last), 0.7 * sum(first))
        self.assertFalse(worker.running)
        for p in model.parameters(): # memory of its own again
            self.assertIsNone(p.grad)
            self.assertTrue(p.is_contiguous())
            p.data.add_(1)
        cross_entropy(model(bed.data(torch)[0]), bed.data(torch)[1]).backward()
        with self.assertRaises(gapless.errors.StepError):
            worker.step(0)

    def test_an_epoch_is_each_sample_once(self):
        class Numbers(torch.utils.data.Dataset):
            def __len__(self):
                return 50

            def __getitem__(self, i):
                return i

        model = bed.mlp(torch)
        loader = torch.utils.data.DataLoader(Numbers(), batch_size=8, shuffle=True)
        with gapless.Worker(model, lr=1e-3) as worker:
            epochs = []
            for _ in range(2):
                seen = []
                for numbers in worker.batches(loader):
                    seen += numbers.tolist()
                    worker.step(0)
                self.assertEqual(sorted(seen), list(range(50)))
                epochs.append(seen)
        self.assertNotEqual(epochs[0], epochs[1])
        self.assertNotEqual(epochs[0], list(range(50)))
        generator = torch.Generator().manual_seed(5)
        state, orders = generator.get_state(), []
        for more in ({}, {"generator": generator}, {"generator": generator}): # the order is the run's seed's alone
            loader = torch.utils.data.DataLoader(Numbers(), batch_size=8, shuffle=True, **more)
            with gapless.Worker(bed.mlp(torch), lr=1e-3) as worker:
                again = []
                for numbers in worker.batches(loader, epochs=2):
                    again += numbers.tolist()
                    worker.step(0)
                self.assertEqual((worker.batch, list(worker.batches(loader, epochs=2))), (14, []))
            orders.append(again)
        self.assertEqual((orders[0], orders[1]), (epochs[0] + epochs[1], orders[2]))
        self.assertTrue(torch.equal(generator.get_state(), state))


    def test_buffers_of_torchs(self):
        """As on a GPU: the engine is given pointers of torch's tensors. The bits are those of its own buffers; that the pointers
        may be a GPU's is tested in tests/gpu, over the fake."""
        models = [bed.mlp(torch), bed.mlp(torch)]
        for model, own in zip(models, (False, True)):
            gapless.Worker._own_buffers = own
            self.addCleanup(setattr, gapless.Worker, "_own_buffers", False)
            with gapless.Worker(model, "dana-ga", lr=0.05) as worker:
                self.assertEqual("buffers of the caller" in worker.device, own)
                self.assertEqual(worker._params.data_ptr() == worker._lib.worker_params(worker._handle), True)
                train(worker, model, worker.batches(bed.loader(torch)))
        for p, q in zip(*(model.parameters() for model in models)):
            self.assertTrue(torch.equal(p, q))


class Equality(unittest.TestCase):
    """One worker is the optimizer of torch: tight at first, later to what ReLU makes of rounding."""

    def compare(self, make, steps=200, **settings):
        x, y = bed.data(torch)
        a, b = bed.mlp(torch), bed.mlp(torch)
        optimizer = make(a.parameters())
        with gapless.Worker(b, **settings) as worker:
            for i in range(steps):
                at = i * 16 % 320
                optimizer.zero_grad()
                cross_entropy(a(x[at:at + 16]), y[at:at + 16]).backward()
                optimizer.step()
                loss = cross_entropy(b(x[at:at + 16]), y[at:at + 16])
                loss.backward()
                worker.step(loss)
                apart = max(float((p - q).abs().max()) for p, q in zip(a.parameters(), b.parameters()))
                self.assertLess(apart, 2e-7 if i < 5 else 5e-5, f"step {i}")
        moved = max(float((p - q).abs().max()) for p, q in zip(b.parameters(), bed.mlp(torch).parameters()))
        self.assertGreater(moved, 0.05) # it did train

    def test_dana_zero_is_nesterov(self):
        self.compare(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
                     optimizer="dana-zero", lr=0.05, momentum=0.9)

    def test_dana_zero_with_weight_decay(self):
        self.compare(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
                     optimizer="dana-zero", lr=0.05, momentum=0.9, weight_decay=0.01)

    def test_adamw(self):
        self.compare(lambda p: torch.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
                     optimizer="adamw", lr=1e-3, momentum=0.9, beta2=0.999, decay=0.01, decay_all=True)


if __name__ == "__main__":
    bed.main()
