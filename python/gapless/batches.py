"""Which samples a batch number is: the same in every worker.

The master deals numbers 0, 1, 2, ... over all workers together. Number b is batch ``b % length`` of epoch ``b // length``.
An epoch's batches come from the loader's own sampler, run with a seed that only the run's seed and the epoch decide: so
workers that never spoke agree, and a number that is dealt again is the same batch again.
"""

from __future__ import annotations

import collections
import contextlib
import random
import sys
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

from .errors import BadArgument

Key = Tuple[int, int] # epoch, and number of the batch in it


def _is_torch_loader(loader: Any) -> bool:
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(loader, data.DataLoader)


@contextlib.contextmanager
def _seeded(seed: int, generators: List[Any]) -> Iterator[None]:
    """Random numbers of torch and Python, and of the generators, begin at the seed inside, and go on after it as before."""
    import torch

    states = [generator.get_state() for generator in generators]
    python = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        for generator in generators:
            generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            for generator, state in zip(generators, states):
                generator.set_state(state)


def mixed(seed: int, epoch: int) -> int:
    """One seed of two: splitmix64's finish, so that neighbours have nothing in common."""
    x = (seed * 0x9E3779B97F4A7C15 + epoch * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2 ** 64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2 ** 64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2 ** 64
    return (x ^ (x >> 31)) >> 1


# ---- a loader's own processes ----


def _as_list(samples: List[Any]) -> Optional[List[Any]]:
    """Stands in for a collate_fn: samples as they are; None: there were none."""
    return list(samples) or None


def _as_part(samples: List[Any]) -> Any:
    """A part of a batch, by torch's own collate_fn."""
    from torch.utils.data import default_collate

    return default_collate(samples) if samples else None


def _joined(parts: List[Any]) -> Any:
    """Parts that default_collate has made, as it would have made the whole."""
    import torch

    first = parts[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(parts)
    if isinstance(first, dict):
        return type(first)({key: _joined([part[key] for part in parts]) for key in first})
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(_joined(list(column)) for column in zip(*parts)))
    if isinstance(first, (list, tuple)) and first and not isinstance(first[0], (str, bytes)):
        return type(first)(_joined(list(column)) for column in zip(*parts))
    return [value for part in parts for value in part] # texts


class _Feed:
    """The batch_sampler of the processes: what is put into ``waiting``, and else nothing, [], so that none ever waits."""

    def __init__(self) -> None:
        self.waiting: Deque[List[Any]] = collections.deque()

    def __iter__(self) -> Iterator[List[Any]]:
        while True:
            yield self.waiting.popleft() if self.waiting else []


class _Processes:
    """num_workers processes of a DataLoader, between which the samples of one batch are divided: which batch comes next is known
    only when the master has dealt it, or has said which it most probably will be.

    The DataLoader has one list of samples under way for each process, and takes the next one when it gives a part back. So
    while the parts of a batch are taken, those of the next go out."""

    def __init__(self, loader: Any) -> None:
        from torch.utils.data import DataLoader, default_collate

        self._count = loader.num_workers
        self._collate = loader.collate_fn
        self._parted = loader.collate_fn is default_collate
        self._feed = _Feed()
        self._asked: Deque[Tuple[Key, int]] = collections.deque() # batches under way, and in how many parts
        self._early: Deque[Any] = collections.deque()             # parts that came before they were wanted
        self._iterator: Any = iter(DataLoader(
            loader.dataset, batch_sampler=self._feed, num_workers=loader.num_workers, prefetch_factor=1, timeout=loader.timeout,
            collate_fn=_as_part if self._parted else _as_list, worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context))

    def _ask(self, key: Key, chosen: List[Any]) -> None:
        if not any(key == asked for asked, _ in self._asked):
            size = -(-len(chosen) // self._count)
            pieces = [chosen[at:at + size] for at in range(0, len(chosen), size)]
            self._feed.waiting.extend(pieces)
            self._asked.append((key, len(pieces)))

    def _part(self) -> Any:
        part = self._early.popleft() if self._early else None
        while part is None:
            part = next(self._iterator)
        return part

    def get(self, key: Key, chosen: List[Any], ahead: Optional[Tuple[Key, List[Any]]]) -> Any:
        """The samples of these indices as a batch, in their order. ``ahead``: the next one, which is loaded meanwhile."""
        self._ask(key, chosen)
        if ahead is not None:
            self._ask(*ahead)
        parts: List[Any] = []
        asked = None
        while asked != key: # what was expected and is not wanted is dropped
            asked, count = self._asked.popleft()
            parts = [self._part() for _ in range(count)]
        while self._feed.waiting: # it has more parts than the one before it
            part = next(self._iterator)
            if part is not None:
                self._early.append(part)
        if self._parted:
            return _joined(parts)
        return self._collate([sample for part in parts for sample in part])

    def close(self) -> None:
        self._iterator = None # its processes end


class Source:
    """The batches of a loader by epoch and number. ``length``: batches in an epoch; None where the loader deals itself
    (an iterable dataset, a generator): every worker then goes through its own."""

    def __init__(self, loader: Any, seed: int) -> None:
        self.loader = loader
        self.length: Optional[int] = None
        self._seed = seed
        self._order: Dict[int, List[Any]] = {}
        self._processes: Optional[_Processes] = None
        self._get: Callable[[int, int, Optional[Key]], Any]
        if _is_torch_loader(loader):
            self._begin_torch()
        elif hasattr(loader, "__len__") and hasattr(loader, "__getitem__"):
            self.length = len(loader)
            self._get = lambda _, index, ahead: loader[index]
        if self.length == 0:
            raise BadArgument("the loader has no batch: with drop_last, its data set is smaller than a batch")

    def _begin_torch(self) -> None:
        from torch.utils.data import IterableDataset

        if isinstance(self.loader.dataset, IterableDataset):
            return
        for sampler in (self.loader.sampler, getattr(self.loader.batch_sampler, "sampler", None)):
            if type(sampler).__name__ == "DistributedSampler":
                raise BadArgument("the loader has a DistributedSampler, which gives each process a fixed share: leave it out "
                                  "(shuffle=True in its place), the master deals the batches")
        self.length = len(self._indices(0))
        self._get = self._fetch

    def _indices(self, epoch: int) -> List[Any]:
        """What the sampler gives in an epoch: a list of indices for each batch."""
        if epoch not in self._order:
            loader = self.loader
            source = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
            generators = {id(g): g for g in (getattr(loader, "generator", None), getattr(loader.sampler, "generator", None),
                                             getattr(source, "generator", None)) if g is not None}
            with _seeded(mixed(self._seed, epoch), list(generators.values())):
                order = list(source)
            if self.length is not None and len(order) != self.length:
                raise BadArgument(f"the sampler gave {len(order)} batches in epoch {epoch} and {self.length} in epoch 0: all must "
                                  "have the same number, for the master deals by number")
            # A batch of the epoch before may be dealt again, one of the next is loaded ahead.
            self._order = {e: o for e, o in self._order.items() if abs(e - epoch) == 1}
            self._order[epoch] = order
        return self._order[epoch]

    def _fetch(self, epoch: int, index: int, ahead: Optional[Key]) -> Any:
        loader, chosen = self.loader, self._indices(epoch)[index]
        if loader.num_workers > 0 and loader.batch_sampler is not None:
            if self._processes is None:
                self._processes = _Processes(loader)
            following = None if ahead is None else (ahead, list(self._indices(ahead[0])[ahead[1]]))
            return self._pinned(self._processes.get((epoch, index), list(chosen), following))
        return self._pinned(self._here(chosen))

    def _pinned(self, data: Any) -> Any:
        if not self.loader.pin_memory:
            return data
        import torch

        return torch.utils.data._utils.pin_memory.pin_memory(data) if torch.cuda.is_available() else data

    def _here(self, chosen: Any) -> Any:
        loader = self.loader
        if loader.batch_sampler is None:
            return loader.collate_fn(loader.dataset[chosen])
        if callable(getattr(loader.dataset, "__getitems__", None)):
            return loader.collate_fn(loader.dataset.__getitems__(chosen))
        return loader.collate_fn([loader.dataset[i] for i in chosen])

    def close(self) -> None:
        """Ends the loader's processes, if there are any."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def get(self, epoch: int, index: int, ahead: Optional[Key] = None) -> Any:
        """A batch as the loader would give it. ``ahead``: epoch and number of the one that is expected after it: a loader's
        processes load it meanwhile. Nothing depends on whether it comes."""
        return self._get(epoch, index, ahead)


def by_number(loader: Any, seed: int = 0) -> Callable[[int], Any]:
    """A function from a batch number to the batch, as workers with this seed are dealt it: for :func:`gapless.simulate`. Its
    attribute ``length`` is the number of batches in an epoch.

    >>> batch = gapless.batches.by_number(loader)
    >>> gapless.simulate(lambda model, b: criterion(model(batch(b)[0]), batch(b)[1]), model, gradients=10 * batch.length)
    """
    source = Source(loader, seed)
    length = source.length
    if length is None:
        raise BadArgument("an iterable data set, or a generator, has no batch of a given number")

    def batch(number: int) -> Any:
        return source.get(*divmod(number, length))

    batch.length = length # type: ignore[attr-defined]
    return batch
