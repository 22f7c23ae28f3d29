#!/usr/bin/env python3
"""The next batch is loaded while this one is computed; each sample still comes once."""
import multiprocessing
import time
import unittest

import bed

torch = bed.need_torch()
import gapless  # noqa: E402
from gapless.batches import Source  # noqa: E402


class Counted(torch.utils.data.Dataset):
    """Sample i is i; counts what was loaded, over processes."""

    def __init__(self, count=44):
        self.count = count
        self.loaded = multiprocessing.Value("l", 0)

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        with self.loaded.get_lock():
            self.loaded.value += 1
        return i


def loader_of(data, workers, batch_size=8, **more):
    return torch.utils.data.DataLoader(data, batch_size=batch_size, shuffle=True, num_workers=workers, **more)


def wait_for(data, loaded):
    until = time.monotonic() + 60
    while data.loaded.value < loaded and time.monotonic() < until:
        time.sleep(0.002)
    return data.loaded.value


class Ahead(unittest.TestCase):
    def test_the_next_one_is_loaded_meanwhile(self):
        for workers in (1, 3):
            data = Counted(40)
            with gapless.Worker(bed.mlp(torch), lr=1e-3) as worker:
                seen = []
                for number, batch in enumerate(worker.batches(loader_of(data, workers), epochs=2)):
                    # This batch is not handed in yet; the last one has none after it.
                    self.assertEqual(wait_for(data, 8 * min(number + 2, 10)), 8 * min(number + 2, 10))
                    seen += batch.tolist()
                    worker.step(0)
            self.assertEqual([sorted(seen[:40]), sorted(seen[40:])], [list(range(40))] * 2)
            self.assertEqual(data.loaded.value, 80) # and none twice

    def test_sums_of_batches_and_local_steps(self):
        for accumulate, local in ((2, 0), (1, 3), (2, 2)):
            data, model = Counted(48), bed.mlp(torch)
            more = {"inner": torch.optim.SGD(model.parameters(), lr=0.1), "local_steps": local} if local else {}
            with gapless.Worker(model, "dana-zero", lr=1e-3, accumulate=accumulate, **more) as worker:
                seen = []
                for number, batch in enumerate(worker.batches(loader_of(data, 2), epochs=2)):
                    self.assertEqual(wait_for(data, 8 * min(number + 2, 12)), 8 * min(number + 2, 12))
                    seen += batch.tolist()
                    if (number + 1) % accumulate == 0:
                        worker.step(0)
            self.assertEqual([sorted(seen[:48]), sorted(seen[48:])], [list(range(48))] * 2)

    def test_an_epoch_at_a_time(self):
        data = Counted(40)
        with gapless.Worker(bed.mlp(torch), lr=1e-3) as worker:
            loader, seen = loader_of(data, 2), []
            for _ in range(3):
                for batch in worker.batches(loader):
                    seen += batch.tolist()
                    worker.step(0)
        self.assertEqual([sorted(seen[i:i + 40]) for i in (0, 40, 80)], [list(range(40))] * 3)

    def test_what_was_expected_and_does_not_come(self):
        """Any order, whatever was expected: the batches are those of a loader without processes. The last one is smaller."""
        data = Counted()
        source, plain = Source(loader_of(data, 3), 5), Source(loader_of(data, 0), 5)
        order = [(0, 0), (0, 1), (0, 5), (0, 2), (1, 0), (0, 3), (1, 5), (1, 1), (0, 4), (2, 0)]
        expected = [(0, 1), (0, 2), (0, 2), (1, 0), None, (0, 4), (1, 5), (1, 1), (2, 0), (2, 1)]
        for key, ahead in zip(order, expected):
            self.assertTrue(torch.equal(source.get(*key, ahead), plain.get(*key)))
        source.close()

    def test_two_workers_one_leaves(self):
        """What was kept for a worker that leaves is dealt again: an epoch is still each sample once."""
        data, taken = Counted(64), []
        with gapless.Worker(bed.mlp(torch, 1), lr=1e-3, workers_max=3) as first:
            with gapless.Worker(bed.mlp(torch, 2), lr=1e-3, address=first.address) as second:
                mine, others = (iter(w.batches(loader_of(data, 2), epochs=1)) for w in (first, second))
                for worker, its in ((first, mine), (second, others), (first, mine)):
                    taken += next(its).tolist()
                    worker.step(0)
                next(others) # under way when it leaves, and one is kept
            for batch in mine:
                taken += batch.tolist()
                first.step(0)
        self.assertEqual(sorted(taken), list(range(64)))


if __name__ == "__main__":
    bed.main()
