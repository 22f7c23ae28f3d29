"""A worker: trains a torch module together with others, each at its own pace."""

from __future__ import annotations

import atexit
import ctypes
import itertools
import logging
import os
import time
import weakref
from ctypes import byref
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Union

from . import _arrays, _offer, guards
from . import _layout as layouts
from . import _library as lib
from .batches import Key, Source
from .errors import (BadArgument, CapacityReached, GaplessError, JoinRefused, MasterLost, ModelMismatch, NotFinite, NotSupported, RunEnded,
                     StepError, WaitTimeout)
from .master import Master, MasterThread, new_address
from .overlap import Overlap, range_elements
from .settings import Settings, job_read, job_text, rule
from .stats import RunStats

_log = logging.getLogger("gapless")
_open_workers: "weakref.WeakSet[Worker]" = weakref.WeakSet()

RULE = "dana-lga-adamw"
RULE_LOCAL = "dana-zero"  # local steps: Nesterov's momentum of the differences
LR, LR_ADAPTIVE = 5e-3, 1e-3 # of momentum SGD; of Adam and Muon: those of `gapless master`
LR_LOCAL = 0.7            # DiLoCo's (arXiv 2311.08105), as is its momentum of 0.9
LR_LOCAL_STALE = 0.35     # over the workers, where differences are not averaged: bench/results, local steps
ADAPTIVE_STEPS = 16
CONNECT_S = 10.0
CONNECT_LAUNCHED_S = 120.0 # others may still import torch
NOT_FINITE_MAX = 10       # gradients in a row before it is said aloud
SLICE_NS = 200_000_000    # of a wait
SWEEP_EVERY = 256         # steps from one walk over the model to the next


def _workers() -> int:
    """How many a launcher says that there are; 1 without one."""
    size = os.environ.get("WORLD_SIZE", "")
    return int(size) if size.isdigit() and int(size) > 0 else 1


def _usual_rate(row: lib.Rule, local: bool) -> float:
    if not local:
        return LR_ADAPTIVE if row.own_decay or row.matrices else LR
    if row.synchronous or _workers() == 1:
        return LR_LOCAL
    return LR_LOCAL_STALE if row.averages else LR_LOCAL_STALE / _workers()


@dataclass(frozen=True)
class Step:
    """What ``on_step`` gets. ``number``: steps of this worker, from 1; ``batch``: the number that was computed; ``epoch``: the
    one it is of (-1 without :meth:`Worker.batches`); ``loss``: as given to step, a mean over local steps; ``seconds``: since
    the worker began; ``running``: False at the last one."""

    worker: "Worker"
    number: int
    batch: int
    epoch: int
    loss: float
    seconds: float
    running: bool

    def metrics(self) -> Dict[str, float]:
        """Numbers for a tracker: of the run (see :meth:`gapless.stats.RunStats.metrics`), and of this worker."""
        return {"worker_loss": self.loss, "epoch": float(self.epoch), **self.worker.metrics()}


class Worker:
    """Joins a run and trains ``model`` in it; a context manager.

    >>> with gapless.Worker(model, optimizer="dana-lga-adamw", lr=1e-3) as worker:
    ...     for x, y in worker.batches(loader):
    ...         loss = criterion(model(x), y); loss.backward()
    ...         worker.step(loss)

    Where the environment names a master (GAPLESS_MASTER, as ``gapless run`` sets it) it joins that one. Alone, it starts a
    master in this process; with RANK and WORLD_SIZE of another launcher on one machine, rank 0 does and the others join.

    From here to the end of ``with``, ``p.data`` and ``p.grad`` of all parameters are the engine's own memory: nothing is
    copied. Parameters are the master's: what the model held before is where training starts if this is the first worker, and
    lost otherwise. At the end the model has the master's parameters, in memory of its own.

    model       a torch.nn.Module with 32-bit parameters on one device; or None, with ``params``. Parameters without
                requires_grad are left out. Running statistics of batch norm are averaged by the master, with the module's
                momentum; other buffers stay the worker's own.
    optimizer   the master's rule (``gapless rules``); None: "dana-lga-adamw", with local steps "dana-zero"
    lr          its peak rate; None: 1e-3 for rules of Adam and Muon, else 5e-3; with local steps 0.7 where the differences of
                all workers are averaged or there is one worker, else 0.35 over the number of workers
    params      parameter groups as torch.optim takes them; each may have its own lr and weight_decay
    inner       local steps: an optimizer of torch over the same parameters, for the steps of this worker alone
    local_steps batches that it takes before it hands in the difference (DiLoCo); "adaptive": up to 16, a slower worker fewer
    accumulate  batches whose gradients are summed before step() is called, as in a plain loop of torch
    overlap     push each range of the gradient as backward is done with it, while the rest is computed; see
                :mod:`gapless.overlap` for what that needs. ``range_elements`` is then a sixteenth of the model
    job, seed   text for all workers; of the order of batches. The first worker's count
    name        of this worker, in messages
    address     the master's, in place of the environment's; token: its secret, bytes
    connect, wait   seconds: bound on finding the master, and on each pull
    on_step     is called after each step with a :class:`Step`
    settings    of the run (:mod:`gapless.settings`): momentum, kappa, warmup, steps, cosine, gradients, clip_norm, ...

    Raises ModelError (what in the model cannot be trained, and what to do), ModelMismatch (the master trains another),
    WaitTimeout (there is no master), JoinRefused, CapacityReached, VersionMismatch, BadArgument.
    """

    def __init__(self, model: Any, optimizer: Optional[str] = None, lr: Optional[float] = None, *, params: Any = None,
                 inner: Any = None, local_steps: Union[int, str] = 0, accumulate: int = 1, overlap: bool = False,
                 job: Optional[str] = None, seed: int = 0, name: Optional[str] = None, address: Optional[str] = None,
                 token: Optional[bytes] = None, connect: Optional[float] = None, wait: float = 60.0,
                 on_step: Optional[Callable[[Step], None]] = None, **settings: Any) -> None:
        self._closed = True
        self._pid = os.getpid()
        self._handle: Optional[ctypes.c_void_p] = None
        self._thread: Optional[MasterThread] = None
        if overlap and inner is not None:
            raise NotSupported("overlap=True with local steps: what they hand in is a difference, which is there when the last of them "
                               "is done; leave overlap out")
        if accumulate < 1:
            raise BadArgument(f"accumulate={accumulate}: at least 1")
        if isinstance(model, (list, tuple)):
            if params is not None:
                raise BadArgument("model is a list of parameters, and params is given too: give one of them")
            model, params = None, model
        self._lib = lib.load()
        self._error = lib.Error()
        given = self._settings(optimizer, lr, inner, local_steps, settings)
        groups_lr = float(given.given["lr"])
        self.layout = layouts.of_module(model, params, groups_lr, accumulate)
        self.model = self.layout.model
        self.inner = inner
        self.accumulate = accumulate
        self.on_step = on_step
        self._overlap: Optional[Overlap] = None
        if overlap:
            given.given.setdefault("range_elements", range_elements(self.layout))
        self._overlaps = overlap
        self._wait = wait
        self._given = given
        self._token = token
        self._name = name
        self._begin(address, job, seed, connect)

    @staticmethod
    def _settings(optimizer: Optional[str], lr: Optional[float], inner: Any, local_steps: Union[int, str],
                  settings: Dict[str, Any]) -> Settings:
        adaptive = local_steps == "adaptive"
        local = ADAPTIVE_STEPS if adaptive else local_steps
        if not isinstance(local, int) or local < 0:
            raise BadArgument(f"local_steps={local_steps!r}: a number of batches, or 'adaptive'")
        if (inner is None) != (local == 0):
            raise BadArgument("local steps need both: inner, an optimizer of torch for the worker's own steps, and local_steps, "
                              "how many (16, or 'adaptive')")
        given: Dict[str, Any] = dict(settings)
        given["rule"] = optimizer or (RULE_LOCAL if local else RULE)
        row = rule(given["rule"])
        given["lr"] = lr if lr is not None else _usual_rate(row, local > 0)
        if local:
            given["local_steps"] = local
            if adaptive:
                given["adapt_steps"] = True
        return Settings(given)

    # ---- joining ----

    def _begin(self, address: Optional[str], job: Optional[str], seed: int, connect: Optional[float]) -> None:
        for entry in self.layout.entries:
            guards.finite(entry.name, entry.tensor.detach())
        address = address or os.environ.get("GAPLESS_MASTER") or self._from_ranks(job_text(seed, job))
        launched = "GAPLESS_OFFER" in os.environ or "WORLD_SIZE" in os.environ
        if "GAPLESS_OFFER" in os.environ:
            _offer.write(os.environ["GAPLESS_OFFER"], self.layout, self._given, job_text(seed, job))
        self.address = address
        self._sources: Dict[int, Source] = {}
        self._batch = ctypes.c_uint64()
        self._batch_ref, self._error_ref = byref(self._batch), byref(self._error)
        self._steps = 1       # batches of the present pull
        self._done = 0        # local steps of them that are taken
        self._parts = 0       # batches given out since the last step
        self._losses = 0.0
        self._bad = 0         # gradients in a row that were not finite
        self._local = self._copy = self._averages = None
        self._observer: Any = None
        self._facade: Any = None
        self._began = time.monotonic()
        self.running = True
        self.steps_taken = 0
        self.dropped = 0
        self.epoch = -1
        self._seed, self.job = seed, job or ""
        try:
            self._open(connect if connect is not None else CONNECT_LAUNCHED_S if launched else CONNECT_S)
            if self._handle is None:
                self._too_late()
                return
            given_seed, self.job = job_read(self._lib.worker_job(self._handle).decode("utf-8", "replace"))
            self._seed = seed if given_seed is None else given_seed
            self._take_places()
            self._closed = False
            _open_workers.add(self)
            self._pull()
        except BaseException:
            self._closed = False
            self.close()
            raise

    def _from_ranks(self, job: str) -> str:
        """Without GAPLESS_MASTER: a master in this process, or in rank 0's."""
        rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
        address = new_address()
        if rank is not None and size is not None and int(size) > 1:
            here = os.environ.get("LOCAL_WORLD_SIZE", size)
            if here != size:
                raise BadArgument(f"WORLD_SIZE is {size} and LOCAL_WORLD_SIZE {here}: workers on several machines need a master "
                                  "that all of them reach; start 'gapless master' there and set GAPLESS_MASTER to its address")
            run = os.environ.get("TORCHELASTIC_RUN_ID", "") + os.environ.get("MASTER_PORT", "")
            parent = run or str(os.getppid())
            address = f"shm:gapless-{os.getuid()}-{parent}"
            if int(rank) != 0:
                return address
        # Each worker is an observer, too, when it looks at statistics or leaves.
        usual = {"workers": _workers(), "observers_max": 8 + 2 * _workers()}
        settings = Settings({**usual, **self._given.given})
        self._thread = MasterThread(Master._of(self.layout, settings, address, job))
        return address

    def _open(self, seconds: float) -> None:
        config = lib.WorkerConfig(address=self.address.encode(), wait_ns=lib.nanoseconds(self._wait), scratch_params=True)
        self.layout.fill(config.model)
        if self._name is not None:
            config.name = self._name.encode()
        if os.environ.get("RANK", "").isdigit():
            config.wish = 1 + min(int(os.environ["RANK"]), lib.WORKERS_MAX - 1)
        if self._token is not None:
            self._secret = ctypes.create_string_buffer(self._token, len(self._token))
            config.net.token, config.net.token_bytes = ctypes.addressof(self._secret), len(self._token)
        config.ahead = True # the next batch can be loaded while this one is computed
        self._own_memory(config)
        deadline = time.monotonic() + seconds
        while True: # in short tries, so that Ctrl-C is heard
            left = max(deadline - time.monotonic(), 0.05)
            config.connect_ns = lib.nanoseconds(min(left, 0.5))
            handle = ctypes.c_void_p()
            status = self._lib.worker_open(config, handle, self._error)
            if status == lib.OK:
                self._handle = handle
                return
            if status == lib.STOPPED:
                return
            if status not in (lib.TIMEOUT, lib.PEER_LOST) or time.monotonic() >= deadline:
                raise self._cannot_join(status, seconds)

    def _too_late(self) -> None:
        """The run was over before this worker came: its loop is empty, and the model has what the run led to."""
        self.running = self._closed = False
        _log.warning("the run at %s is over: nothing is left to train for this worker", self.address)
        self._final(True)

    def _cannot_join(self, status: int, seconds: float) -> GaplessError:
        self._error.status = status
        error = lib.raised(self._error)
        if isinstance(error, ModelMismatch):
            there = _offer.tensors(os.environ.get("GAPLESS_OFFER"))
            difference = self.layout.first_difference(there) if there else ""
            if difference:
                return ModelMismatch(f"the master at {self.address} trains another model: {difference}")
        if isinstance(error, (WaitTimeout, MasterLost)):
            return WaitTimeout(f"no master answered at {self.address} within {seconds:.0f} s: start it ('gapless run -n N "
                               f"train.py' does), or unset GAPLESS_MASTER to train alone ({error})")
        return error

    # ---- memory ----

    _own_buffers = False # torch's memory on the host, too: for a test of what a GPU's is like

    def _own_memory(self, config: lib.WorkerConfig) -> None:
        """On a GPU the buffers are torch's, of the model's device; on the host the engine's own are used."""
        import torch

        self._params = self._grad = None
        device = self.layout.entries[0].tensor.device
        self._cuda = device.type == "cuda"
        if not self._cuda and not self._own_buffers:
            return
        self._params = torch.zeros(self.layout.count, device=device)
        self._grad = torch.zeros(self.layout.count, device=device)
        config.params, config.grad = self._params.data_ptr(), self._grad.data_ptr()

    def _take_places(self) -> None:
        """Parameters and gradients become views of the engine's memory; with local steps, of a copy beside it."""
        import torch

        self._torch = torch
        if self._params is None:
            count = self._lib.worker_count(self._handle)
            self._params = _arrays.tensor_at(self._lib.worker_params(self._handle), count)
            self._grad = _arrays.tensor_at(self._lib.worker_grad(self._handle), count)
        weights = self.layout.count - self.layout.averaged
        self._averages = None
        if self.layout.averaged:
            self._averages = torch.zeros(self.layout.averaged, device=self._params.device)
        self._local = None
        if self.inner is not None:
            self._local = torch.zeros(weights, device=self._params.device)
        # With overlap the engine's may change while backward still reads them: torch has a copy.
        self._copy = torch.zeros(weights, device=self._params.device) if self._overlaps else None
        beside = self._copy if self._local is None else self._local
        values = layouts.views(self._params if beside is None else beside, self.layout.parameters)
        gradients = layouts.views(self._grad, self.layout.parameters)
        rows = []
        for entry, value, gradient in zip(self.layout.parameters, values, gradients):
            entry.tensor.data = value
            entry.tensor.grad = gradient if self._local is None else None
            rows.append((entry.name, entry.tensor, entry.tensor.grad))
        for entry, value in zip(self.layout.averages, layouts.views(self._averages, self.layout.averages)):
            entry.tensor.data = value
        self._watch = guards.Watch(self.model, rows, self.layout.frozen)
        self._tail = slice(weights, self.layout.count)
        if self._overlaps:
            self._overlap = Overlap(self)

    def _leave_places(self) -> None:
        """Nothing points at the engine's memory after it."""
        for entry in self.layout.entries:
            entry.tensor.data = entry.tensor.data.clone()
            entry.tensor.grad = None

    # ---- the loop ----

    def _pull(self) -> bool:
        """Takes the next parameters. False: the run is over."""
        self._losses, self._done, self._parts = 0.0, 0, 0
        status = self._lib.worker_poll(self._handle, SLICE_NS, self._error_ref)
        if status == lib.AGAIN: # in slices, between which Python hears Ctrl-C
            self._wait_on()
        elif status < 0:
            self._fail(status)
        status = self._lib.worker_pull(self._handle, self._batch_ref, self._error_ref)
        if status < 0:
            if status == lib.STOPPED:
                self.running = False
                return False
            self._fail(status)
        self._steps = self._lib.worker_steps(self._handle)
        if self._local is None:
            self._grad.zero_()
        else:
            self._local.copy_(self._params[:self._tail.start])
        if self._copy is not None:
            self._copy.copy_(self._params[:self._tail.start])
        if self._averages is not None:
            self._averages.copy_(self._params[self._tail])
        self._watch.renewed()
        if self._overlap is not None:
            self._overlap.renewed()
        return True

    def _wait_on(self) -> None:
        """Until parameters are there."""
        deadline = time.monotonic() + self._wait - 1e-9 * SLICE_NS
        status = lib.AGAIN
        while status == lib.AGAIN:
            if time.monotonic() > deadline:
                raise WaitTimeout(f"the master at {self.address} gave worker {self.number} no parameters within {self._wait:g} s: it "
                                  "may be stopped, or waiting for others (a synchronous rule waits for the slowest)")
            status = self._lib.worker_poll(self._handle, SLICE_NS, self._error_ref)
        if status < 0:
            self._fail(status)

    def _fail(self, status: int) -> None:
        self._error.status = status
        error = lib.raised(self._error)
        if self._thread is not None and self._thread.failure is not None:
            raise error from self._thread.failure
        raise error

    def _push(self, loss: float) -> None:
        if self._averages is not None:
            self._torch.sub(self._params[self._tail], self._averages, out=self._grad[self._tail])
        if self._facade is not None:
            factor = self._facade._apply()
            if factor is not None and self._lib.worker_set_rate(self._handle, factor) < 0:
                raise BadArgument(f"a factor of {factor} on the rate: a finite number of at least 0 is needed")
        if self._cuda:
            self._torch.cuda.current_stream(self._grad.device).synchronize()
        status = self._lib.worker_push(self._handle, loss, self._error_ref)
        if status == lib.OK:
            self._bad = 0
        elif status == lib.NOT_FINITE:
            self._not_finite()
        else:
            self._fail(status)

    def _not_finite(self) -> None:
        self._bad += 1
        self.dropped += 1
        _log.warning("%s", self._error.text.decode("utf-8", "replace"))
        if self._bad >= NOT_FINITE_MAX:
            raise NotFinite(f"the last {self._bad} gradients of this worker were not finite and were dropped: the rate may be too "
                            "high, the loss undefined for these samples, or a GradScaler's scale still in the gradient")

    def step(self, loss: Any = None) -> bool:
        """Hands in the gradient that backward() left in ``p.grad``, takes new parameters, sets gradients to zero.

        ``loss``: of the batch, a tensor of one element or a number, for the statistics (None: not reported). With local
        steps, it is ``inner.step()`` and zero_grad, and an exchange with the master after the last of them. A gradient
        with NaN or infinities is dropped and counted; the run goes on.

        True: go on. False: the run is over, the parameters will not change any more. Raises ModelError where a parameter or
        gradient has left its place, StepError, MasterLost, WaitTimeout; RunEnded where it is called after a False.
        """
        self._ready("step")
        value = float("nan") if loss is None else float(loss.detach()) if hasattr(loss, "detach") else float(loss)
        if self._parts not in (0, self.accumulate):
            raise StepError(f"step() after {self._parts} of {self.accumulate} batches: with accumulate={self.accumulate}, call it once "
                            "for that number of batches")
        self._watch.look()
        if self._overlap is not None:
            self._overlap.look()
        if self.steps_taken == 0:
            guards.unscaled()
        batch = self._batch.value + self._done
        if self._local is None:
            self._push(value)
            going = self._pull()
        else:
            going, value = self._step_local(value)
        self.steps_taken += 1
        if self.steps_taken % SWEEP_EVERY == 0:
            self._watch.sweep()
        if self.on_step is not None:
            self.on_step(Step(self, self.steps_taken, batch, self.epoch, value, time.monotonic() - self._began, going))
        return going

    def _step_local(self, value: float) -> "tuple[bool, float]":
        self.inner.step()
        self.inner.zero_grad()
        self._losses += value
        self._done += 1
        self._parts = 0
        mean = self._losses / self._done
        if self._done < self._steps:
            self._watch.renewed()
            return True, mean
        return self._exchange(mean), mean

    def _exchange(self, loss: float) -> bool:
        weights = self._tail.start
        self._torch.sub(self._params[:weights], self._local, out=self._grad[:weights])
        self._push(loss)
        return self._pull()

    def skip(self) -> bool:
        """Gives the present batch up without a gradient: it counts as dropped. As :meth:`step` otherwise. With ``overlap``,
        before backward()."""
        self._ready("skip")
        if self._overlap is not None and self._overlap.begun:
            raise StepError("skip() after backward() with overlap=True: part of this gradient is at the master already; skip before "
                            "backward(), where the loss is known, or leave overlap out")
        if self._local is not None:
            for entry in self.layout.parameters:
                entry.tensor.grad = None
            self._done += 1
            self._parts = 0
            if self._done < self._steps:
                return True
            return self._exchange(self._losses / max(self._done - 1, 1))
        self._grad.zero_()
        self._grad[:1] = float("nan")
        self.dropped += 1
        bad = self._bad
        status = self._lib.worker_push(self._handle, float("nan"), self._error_ref)
        if status not in (lib.OK, lib.NOT_FINITE):
            self._fail(status)
        self._bad = bad
        return self._pull()

    def _ready(self, what: str, over: bool = False) -> None:
        if self._pid != os.getpid():
            raise StepError(f"{what}(): this worker belongs to process {self._pid}; a forked child must make its own")
        if self._closed:
            raise StepError(f"{what}(): this worker has left its run")
        if not self.running and not over:
            raise RunEnded(f"{what}(): the run is over, as the last step() said by returning False; leave the loop then "
                           "(while worker.running)")

    def batches(self, loader: Iterable[Any], epochs: Optional[int] = None) -> Iterator[Any]:
        """Batches of ``loader`` to the end of an epoch, or of the run: those that the master deals to this worker. With
        ``epochs`` to the end of that many, counted from the start of the run, also by a worker that joined later.

        Over all workers together an epoch has each batch once, however workers come and go; so one worker gets its share of an
        epoch, and the length of the loop depends on its speed. Call :meth:`step` after each (with ``accumulate``, after
        that number). Batches come as the loader would give them: its sampler, batch_size, drop_last and collate_fn are used; a
        shuffling sampler is seeded by the run's seed and the epoch. ``self.epoch`` is the epoch they are of.

        A sequence of batches is dealt in its order. An iterable data set, or a generator, is not dealt: each worker goes
        through its own, from its beginning to its end.

        Raises StepError where a batch is asked for before a step, BadArgument for a loader that cannot be dealt.
        """
        self._ready("batches", over=True)
        if not self.running:
            return iter(())
        self._watch.sweep()
        source = self._sources.get(id(loader))
        if source is None or source.loader is not loader:
            source = self._sources[id(loader)] = Source(loader, self._seed)
        self._parts = 0
        if source.length is not None:
            return self._dealt(source, source.length, epochs)
        return itertools.chain.from_iterable(self._undealt(loader) for _ in range(epochs or 1))

    def _asked(self) -> None:
        if self._parts >= self.accumulate:
            raise StepError("the next batch is asked for before worker.step() of the last one: call step() after each "
                            "backward(); to add up several batches, say so (accumulate=N); to leave a batch out, call "
                            "worker.skip()")

    def _dealt(self, source: Source, length: int, epochs: Optional[int]) -> Iterator[Any]:
        length //= self.accumulate
        if length == 0:
            raise BadArgument(f"accumulate={self.accumulate} is more than the loader has batches")
        epoch: Optional[int] = None
        while self.running and not self._closed:
            self._asked()
            now, index = divmod(self._batch.value + self._done, length)
            if now >= epochs if epochs is not None else epoch is not None and now != epoch:
                return
            self.epoch = epoch = now
            data = source.get(epoch, index * self.accumulate + self._parts, self._following(length, epochs))
            self._parts += 1
            yield data

    def _following(self, length: int, epochs: Optional[int]) -> Optional[Key]:
        """Epoch and number of the batch that is expected after the present one; None: none of this loop is."""
        batch, part = self._batch.value + self._done, self._parts + 1
        if part == self.accumulate:
            part, batch = 0, batch + 1
            if self._done + 1 >= self._steps:
                batch = self._lib.worker_next(self._handle)
        epoch, index = divmod(batch, length)
        if batch == lib.NO_BATCH or epoch >= (self.epoch + 1 if epochs is None else epochs):
            return None
        return epoch, index * self.accumulate + part

    def _undealt(self, loader: Iterable[Any]) -> Iterator[Any]:
        self.epoch += 1
        for data in loader:
            if not self.running or self._closed:
                return
            self._asked()
            self._parts += 1
            yield data
        self._parts = 0

    @property
    def optimizer(self) -> Any:
        """This worker as a torch.optim.Optimizer: give it to a scheduler, whose changes of ``lr`` then travel with each
        gradient, as a factor on the master's rate; or to a trainer that calls its step(). A scheduler that is stepped once an
        epoch does what it says; one that is stepped once a batch sees this worker's batches only, so with N workers take the
        master's own schedule (warmup=, steps=, cosine=), which counts those of all."""
        if self.inner is not None:
            raise NotSupported("worker.optimizer, with local steps: give the scheduler the inner optimizer")
        if self._facade is None:
            from .optimizer import WorkerOptimizer

            self._facade = WorkerOptimizer(self, self.layout.groups)
        return self._facade

    def _gather(self) -> None:
        """Gradients that have left the engine's buffer are copied there."""
        for p, grad, _, _ in self._watch.rows:
            if p.grad is not grad:
                if p.grad is None:
                    grad.zero_()
                else:
                    grad.copy_(p.grad)
                p.grad = grad

    # ---- looking at it ----

    @property
    def number(self) -> int:
        """This worker's number at the master; -1 if it has left, or came when the run was over."""
        return -1 if self._handle is None else int(self._lib.worker_number(self._handle))

    @property
    def batch(self) -> int:
        """The number of the present batch, over all workers together."""
        return self._batch.value + self._done

    def _watcher(self) -> Any:
        if self._closed and self._handle is None and self._thread is None:
            raise StepError("this worker has left its run")
        if self._observer is None:
            from .observer import Observer

            self._observer = Observer(self.address, token=self._token)
        return self._observer

    def stats(self) -> RunStats:
        """Statistics of the run."""
        return self._watcher().stats()

    def metrics(self) -> Dict[str, float]:
        """Numbers for a tracker: the run's, and this worker's lag and gap. {} where the master has no room for one more that
        looks at it: training goes on."""
        try:
            found = dict(self.stats().metrics())
        except CapacityReached as error:
            _log.info("no metrics of the run: %s", error)
            return {}
        own = self._watcher().worker_stats(self.number)
        if own is not None:
            found.update(worker_lag=own.lag, worker_gap_rms=own.gap_rms, worker_gradients=float(own.gradients))
        return found

    @property
    def link(self) -> str:
        """The network to the master, a line for a person; "" over shared memory."""
        return "" if self._handle is None else lib.text_of(self._lib.worker_link, self._handle)

    @property
    def device(self) -> str:
        """Where its buffers are, a line for a person."""
        return "" if self._handle is None else lib.text_of(self._lib.worker_device, self._handle)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Sets gradients to zero in place; step() has done it. ``set_to_none`` makes no difference."""
        if self._local is not None:
            self.inner.zero_grad()
        elif not self._closed and self._grad is not None:
            self._grad.zero_()

    # ---- leaving ----

    def close(self) -> None:
        """Leaves the run; a batch that is under way is dealt to another worker. The model then has the master's parameters.
        May be called twice; does nothing in a forked child."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        self.running = False
        _open_workers.discard(self)
        for source in getattr(self, "_sources", {}).values():
            source.close()
        placed = getattr(self, "_watch", None) is not None
        lost = self._error.status == lib.PEER_LOST
        if getattr(self, "_overlap", None) is not None:
            self._overlap.close()
        if placed:
            self._leave_places()
        handle, self._handle = self._handle, None
        if handle is not None:
            if self._cuda_used():
                self._torch.cuda.synchronize(self._grad.device)
            self._params = self._grad = self._overlap = None
            self._lib.worker_close(handle)
        try:
            self._final(placed and not lost)
        finally:
            observer, self._observer = getattr(self, "_observer", None), None
            if observer is not None:
                observer.close()
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.end()
                thread.master.close()

    def _cuda_used(self) -> bool:
        return bool(getattr(self, "_cuda", False))

    def _final(self, wanted: bool) -> None:
        """The master's own parameters into the model; what this worker last had stays there if the master is gone."""
        if self._thread is not None:
            self._wait_for_others()
            self._thread.end()
            if wanted and self._thread.failure is None:
                _arrays.into_tensors(self.layout, self._lib.master_params(self._thread.master._handle))
            return
        if not wanted:
            return
        from .observer import Observer

        if self._observer is not None: # one place of an observer is enough
            try:
                self._observer._into(self.layout)
                return
            except GaplessError as error:
                _log.debug("the master's last parameters were not to be had: %s", error)
        for _ in range(20): # many workers may leave at once, and a master has room for few observers
            try:
                with Observer(self.address, token=self._token, connect=2.0) as observer:
                    observer._into(self.layout)
                return
            except GaplessError as error:
                _log.debug("the master's last parameters were not to be had: %s", error)
                if error.status != lib.CAPACITY:
                    return
                time.sleep(0.1)

    def _wait_for_others(self) -> None:
        """A master in rank 0 serves the other ranks until they have left; one that has not joined yet, for a while."""
        if _workers() == 1 or self._thread is None or self._thread.failure is not None:
            return
        try:
            watcher, deadline = self._watcher(), time.monotonic() + CONNECT_LAUNCHED_S
            stats = watcher.stats()
            while stats.state != "done" and (stats.workers_active > 0 or (
                    stats.workers_joined < _workers() and time.monotonic() < deadline)):
                time.sleep(0.02)
                stats = watcher.stats()
        except GaplessError as error:
            _log.debug("waiting for the other workers: %s", error)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None and not self._closed and self.running and self._local is not None and self._done > 0:
            self._exchange(self._losses / self._done) # what it computed since the last exchange
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()


@atexit.register
def _close_all() -> None:
    for worker in list(_open_workers):
        worker.close()
