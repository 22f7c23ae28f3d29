"""Simulation: the real master and workers in virtual time, with gradients computed in Python."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from . import _arrays
from . import _layout as layouts
from . import _library as lib
from .batches import mixed
from .errors import BadArgument, ModelError
from .settings import Settings
from .stats import RunStats, WorkerStats, run_stats_of, worker_stats_of

_CLOCKS = {"homogeneous": 0, "heterogeneous": 1, "round-robin": 2}
_TIMES = 3
_INCIDENTS = {"join": 0, "leave": 1, "kill": 2, "stall": 3}


@dataclass(frozen=True)
class Incident:
    """What happens at ``at`` seconds of virtual time: "join" (one more worker), "leave", "kill" or "stall" of ``worker``, the
    last for ``seconds``."""

    at: float
    kind: str
    worker: int = 0
    seconds: float = 0.0


@dataclass
class Result:
    """What a simulation gave.

    ``params``      the master's parameters at the end, by name; a module that was given has them, too
    ``stats``       of the run; times in it are virtual
    ``workers``     of each worker
    ``seconds``     virtual time at the end
    ``real``        seconds of real time, in all; ``real_gradients``, ``real_master``: of it
    ``curve``       a row for each call of on_step: gradients, seconds, loss, rate, lag, gap_rms, and what it returned
    """

    params: Dict[str, Any]
    stats: RunStats
    workers: List[WorkerStats]
    seconds: float
    real: float
    real_gradients: float
    real_master: float
    curve: List[Dict[str, Any]] = field(default_factory=list)


# ---- between the flat vectors of the library and what the user's function is given ----


class _Torch:
    """A module, or a list of tensors: its parameters are views of one private vector, into which each call's are copied."""

    one_thread = True

    def __init__(self, parameters: Any, params: Any, lr: float) -> None:
        import torch

        self._torch = torch
        self.given = parameters
        if isinstance(parameters, torch.nn.Module):
            self.layout = layouts.of_module(parameters, params, lr)
        else:
            self.layout = layouts.of_module(None, list(parameters), lr)
        for entry in self.layout.entries:
            if entry.tensor.device.type != "cpu":
                raise ModelError(f"'{entry.name}' is on {entry.tensor.device}: a simulation's model is on the host")
        self.initial = _arrays.flat([entry.tensor for entry in self.layout.entries])
        self._flat = torch.zeros(self.layout.count)
        self._grad = torch.zeros(self.layout.count)
        self._weights = self.layout.count - self.layout.averaged
        self._tail = slice(self._weights, self.layout.count)
        self._gradients = layouts.views(self._grad, self.layout.parameters)
        for entry, view in zip(self.layout.entries, layouts.views(self._flat, self.layout.entries)):
            view.copy_(entry.tensor.data)
            entry.tensor.data = view

    def read(self, address: int) -> None:
        ctypes.memmove(self._flat.data_ptr(), address, 4 * self.layout.count)

    def seed(self, seed: int) -> None:
        self._torch.manual_seed(seed)

    def gradient(self, function: Callable[..., Any], batch: int, params: int, grad: int) -> float:
        self.read(params)
        self._grad.zero_()
        for entry, view in zip(self.layout.parameters, self._gradients):
            entry.tensor.grad = view
        loss = function(self.given, batch)
        if isinstance(loss, tuple):
            loss = self._take(*loss)
        elif isinstance(loss, self._torch.Tensor) and loss.requires_grad:
            loss.backward()
        for entry, view in zip(self.layout.parameters, self._gradients):
            if entry.tensor.grad is not view: # zero_grad(set_to_none=True) in the function
                view.zero_()
                if entry.tensor.grad is not None:
                    view.copy_(entry.tensor.grad)
        return self._give(params, grad, loss)

    def _take(self, loss: Any, gradients: Sequence[Any]) -> Any:
        if len(gradients) != len(self._gradients):
            raise BadArgument(f"the gradient function returned {len(gradients)} gradients for {len(self._gradients)} parameters")
        for view, gradient in zip(self._gradients, gradients):
            view.copy_(gradient.detach() if hasattr(gradient, "detach") else gradient)
        return loss

    def _give(self, params: int, grad: int, loss: Any) -> float:
        if self.layout.averaged:
            sent = _arrays.tensor_at(params, self.layout.count)
            self._torch.sub(sent[self._tail], self._flat[self._tail], out=self._grad[self._tail])
        ctypes.memmove(grad, self._grad.data_ptr(), 4 * self.layout.count)
        return _number(loss)

    def local(self, function: Callable[..., Any], batch: int, steps: int, joined: int, params: int, grad: int) -> float:
        self.read(params)
        for entry in self.layout.parameters:
            entry.tensor.grad = None
        loss = function(self.given, batch, steps, joined)
        sent = _arrays.tensor_at(params, self.layout.count)
        self._torch.sub(sent, self._flat, out=self._grad)
        ctypes.memmove(grad, self._grad.data_ptr(), 4 * self.layout.count)
        return _number(loss)

    def check(self) -> None:
        at = self._flat.data_ptr()
        for entry in self.layout.entries:
            if entry.tensor.data_ptr() != at:
                raise ModelError(f"'{entry.name}' has left its place: .double(), .to() or 'p.data = ...' in the gradient function "
                                 "did that")
            at += 4 * entry.count

    def leave(self, address: Optional[int]) -> None:
        if address is not None:
            self.read(address)
        for entry in self.layout.entries:
            entry.tensor.data = entry.tensor.data.clone()
            entry.tensor.grad = None


class _Numpy:
    """Arrays: the function is given read-only views of the library's vector, and returns loss and gradients."""

    one_thread = False

    def __init__(self, parameters: Any) -> None:
        import numpy

        self._numpy = numpy
        self._kind = dict if isinstance(parameters, Mapping) else list if isinstance(parameters, (list, tuple)) else None
        if self._kind is dict:
            arrays = dict(parameters)
        elif self._kind is list:
            arrays = {f"param.{i}": array for i, array in enumerate(parameters)}
        else:
            arrays = {"parameters": parameters}
        self.layout = layouts.of_arrays({name: numpy.asarray(array, dtype=numpy.float32) for name, array in arrays.items()})
        self.initial = _arrays.flat([entry.tensor for entry in self.layout.entries])

    def _views(self, address: int) -> List[Any]:
        flat, found, at = _arrays.array_at(address, self.layout.count), [], 0
        flat.flags.writeable = False
        for entry in self.layout.entries:
            found.append(flat[at:at + entry.count].reshape(entry.shape))
            at += entry.count
        return found

    def _shaped(self, views: List[Any]) -> Any:
        if self._kind is dict:
            return {entry.name: view for entry, view in zip(self.layout.entries, views)}
        return views if self._kind is list else views[0]

    def read(self, address: int) -> None:
        """Nothing to fill: arrays are given with each call."""

    def seed(self, seed: int) -> None:
        """A function of arrays draws its random numbers from the batch's number itself."""

    def check(self) -> None:
        """Nothing can leave its place."""

    def gradient(self, function: Callable[..., Any], batch: int, params: int, grad: int) -> float:
        return self._fill(function(self._shaped(self._views(params)), batch), grad, "gradients")

    def local(self, function: Callable[..., Any], batch: int, steps: int, joined: int, params: int, grad: int) -> float:
        answer = function(self._shaped(self._views(params)), batch, steps, joined)
        loss = self._fill(answer, grad, "arrays")
        flat = _arrays.array_at(grad, self.layout.count)
        self._numpy.subtract(_arrays.array_at(params, self.layout.count), flat, out=flat)
        return loss

    def _fill(self, answer: Any, address: int, what: str) -> float:
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise BadArgument(f"a function of arrays returns (loss, {what}), not {type(answer).__name__}")
        loss, arrays = answer
        if self._kind is dict:
            arrays = [arrays[entry.name] for entry in self.layout.entries]
        elif self._kind is None:
            arrays = [arrays]
        if len(arrays) != len(self.layout.entries):
            raise BadArgument(f"the function returned {len(arrays)} {what} for {len(self.layout.entries)} parameters")
        flat, at = _arrays.array_at(address, self.layout.count), 0
        for entry, array in zip(self.layout.entries, arrays):
            flat[at:at + entry.count].reshape(entry.shape)[...] = array
            at += entry.count
        return _number(loss)

    def leave(self, address: Optional[int]) -> None:
        """Nothing was moved."""


def _number(loss: Any) -> float:
    return float(loss.detach()) if hasattr(loss, "detach") else float("nan") if loss is None else float(loss)


def _adapter(parameters: Any, params: Any, lr: float) -> Any:
    import sys

    torch = sys.modules.get("torch")
    if torch is not None:
        first = next(iter(parameters), None) if isinstance(parameters, (list, tuple)) else parameters
        if isinstance(first, (torch.nn.Module, torch.Tensor)):
            return _Torch([parameters] if isinstance(parameters, torch.Tensor) else parameters, params, lr)
    if params is not None:
        raise BadArgument("params are groups of a torch module's parameters; there is none")
    return _Numpy(parameters)


# ---- the run ----


class _Run:
    """One simulation: its configuration, which must stay alive, and what its callback keeps."""

    def __init__(self, adapter: Any, settings: Settings, seed: int) -> None:
        self.adapter = adapter
        self.library, self.error = lib.load(), lib.Error()
        self.config = lib.SimulationConfig()
        settings.fill(self.config.master)
        adapter.layout.fill(self.config.master.model)
        self.config.master.initial = adapter.initial.address
        self.seed = seed
        self.failure: Optional[BaseException] = None
        self.handle = ctypes.c_void_p()
        self.keep: List[Any] = []

    def set_functions(self, gradient: Optional[Callable[..., Any]], local: Optional[Callable[..., Any]]) -> None:
        def on_gradient(_: Any, thread: int, batch: int, params: int, grad: int) -> float:
            return self._guarded(batch, lambda: self.adapter.gradient(gradient, batch, params, grad))

        def on_local(_: Any, thread: int, joined: int, batch: int, steps: int, params: int, grad: int) -> float:
            return self._guarded(batch, lambda: self.adapter.local(local, batch, steps, joined, params, grad))

        if gradient is not None:
            self.config.gradient = lib.Gradient(on_gradient)
        if local is not None:
            self.config.local = lib.Local(on_local)

    def _guarded(self, batch: int, compute: Callable[[], float]) -> float:
        """An exception must not go through the library: it is kept, and the run is ended."""
        if self.failure is None:
            try:
                self.adapter.seed(mixed(self.seed, batch))
                loss = compute()
                self.adapter.check()
                return loss
            except BaseException as reason: # KeyboardInterrupt, too
                self.failure = reason
                self.library.master_stop(self.library.simulation_master(self.handle))
        return float("nan")

    def open(self) -> None:
        lib.check(self.library.simulation_open(self.config, self.handle, self.error), self.error)
        self.master = self.library.simulation_master(self.handle)

    def until(self, gradients: int) -> bool:
        """Goes on until so far; False: the end."""
        status = self.library.simulation_run(self.handle, gradients, self.error)
        if self.failure is not None:
            raise self.failure
        if status == lib.STOPPED:
            return False
        lib.check(status, self.error)
        return True

    def stats(self) -> RunStats:
        raw = lib.Stats()
        self.library.master_stats(self.master, raw)
        return run_stats_of(raw)

    def costs(self) -> lib.SimulationStats:
        raw = lib.SimulationStats()
        self.library.simulation_stats(self.handle, raw)
        return raw

    def workers(self) -> List[WorkerStats]:
        found, number, raw = [], 0, lib.WorkerStats()
        while self.library.master_worker_stats(self.master, number, raw) == lib.OK:
            stats = worker_stats_of(number, raw)
            if stats is not None:
                found.append(stats)
            number += 1
        return found

    def params(self) -> int:
        return int(self.library.master_params(self.master))


def _set_clock(run: _Run, clock: Union[str, Sequence[Tuple[int, float]]]) -> None:
    config = run.config
    if isinstance(clock, str):
        if clock not in _CLOCKS:
            raise BadArgument(f"clock={clock!r}: one of {', '.join(_CLOCKS)} is needed, or a list of (worker, seconds)")
        config.clock = _CLOCKS[clock]
        return
    times = (lib.BatchTime * len(clock))()
    for time_, (worker, seconds) in zip(times, clock):
        time_.worker, time_.ns = int(worker), lib.nanoseconds(seconds)
    run.keep.append(times)
    config.clock, config.times, config.times_count = _TIMES, times, len(clock)


def _set_incidents(run: _Run, incidents: Sequence[Incident]) -> None:
    array = (lib.Incident * max(len(incidents), 1))()
    for to, incident in zip(array, incidents):
        if incident.kind not in _INCIDENTS:
            raise BadArgument(f"an incident of kind {incident.kind!r}: one of {', '.join(_INCIDENTS)} is needed")
        to.at_ns, to.kind = lib.nanoseconds(incident.at), _INCIDENTS[incident.kind]
        to.worker, to.ns = incident.worker, lib.nanoseconds(incident.seconds)
    run.keep.append(array)
    run.config.incidents, run.config.incidents_count = array, len(incidents)


def simulate(gradient: Optional[Callable[..., Any]], parameters: Any, *, rule: str = "dana-ga", lr: float = 0.01,
             workers: int = 8, gradients: int, clock: Union[str, Sequence[Tuple[int, float]]] = "homogeneous",
             batch_seconds: float = 1.0, seed: int = 0, threads: int = 1, local: Optional[Callable[..., Any]] = None,
             params: Any = None, on_step: Optional[Callable[[Dict[str, Any]], Any]] = None, every: int = 0,
             incidents: Sequence[Incident] = (), latency: float = 0.0, bandwidth: float = 0.0, pass_seconds: float = 0.0,
             record: Optional[str] = None, replay: Optional[str] = None, **settings: Any) -> Result:
    """Trains ``parameters`` with ``workers`` simulated workers, in virtual time: the real master and the real workers' code,
    with ``gradient`` called for each batch. The same arguments give the same bits.

    gradient    gradient(parameters, batch): the gradient of batch number ``batch`` (0, 1, 2, ...) at the parameters that it is
                given, which depends on nothing else. torch: returns the loss, a tensor; its backward is called (or a number, if
                the function has called backward; or the loss and a list of gradients). numpy: returns (loss, gradients). Random
                numbers of torch begin at a seed of the batch's own, so dropout repeats.
    parameters  a torch module, a list of torch tensors, a numpy array, a list or a dict of them. 32-bit floats. Their values are
                where training starts. A module gets the master's parameters at the end; its running statistics are averaged.
    gradients   length of the run, in batches
    clock       how long a batch takes: "homogeneous", "heterogeneous" (workers of unequal speed), "round-robin", or a list of
                (worker, seconds) that is gone through again and again; ``batch_seconds``: the mean, of virtual time
    seed        of the batch times and of torch's random numbers
    threads     that compute gradients; above 1 for arrays only
    local       local steps, in place of ``gradient`` (None): local(parameters, batch, steps, joined) takes ``steps`` batches from
                ``batch`` on with an optimizer of its own, changes the parameters in place (numpy: returns (loss, parameters)) and
                returns the mean loss. It may keep a state for each ``joined``. Needs local_steps=
    params      parameter groups of a module, as torch.optim takes them
    on_step     called every ``every`` gradients and at the end, with a row of the curve, the module having the master's
                parameters; a dict that it returns is added to the row
    incidents   a list of Incident, in order of time
    latency, bandwidth, pass_seconds    of the link, seconds each way and bytes a second; of the master's update
    record, replay  a file that gets the order of events, or whose order is repeated
    settings    of the master: see gapless.settings

    An exception in a function ends the simulation and is raised here. BadArgument, ModelError, NotThere (no such rule).
    """
    given = Settings({"rule": rule, "lr": lr, "gradients": gradients, **settings})
    if (gradient is None) == (local is None):
        raise BadArgument("give gradient, or local (with gradient=None): one of them")
    adapter = _adapter(parameters, params, lr)
    try:
        if threads > 1 and adapter.one_thread:
            raise BadArgument("threads above 1 need arrays: a torch module has one set of parameters at a time")
        run = _Run(adapter, given, seed)
        config = run.config
        config.workers, config.threads, config.seed = workers, threads, seed
        config.batch_ns = lib.nanoseconds(batch_seconds)
        config.latency_ns, config.bandwidth = lib.nanoseconds(latency), bandwidth
        config.pass_ns = lib.nanoseconds(pass_seconds)
        config.master.record = None if record is None else os.fsencode(record)
        config.replay = None if replay is None else os.fsencode(replay)
        _set_clock(run, clock)
        _set_incidents(run, incidents)
        run.set_functions(gradient, local)
    except BaseException:
        adapter.leave(None)
        raise
    return _serve(run, on_step, every, int(gradients))


def _serve(run: _Run, on_step: Optional[Callable[[Dict[str, Any]], Any]], every: int, gradients: int) -> Result:
    began, address, curve = time.monotonic(), None, []
    state = _rng_state()
    try:
        run.open()
        going, at = True, 0
        while going:
            at = min(at + every, gradients) if every > 0 else gradients
            going = run.until(at) and at < gradients
            if on_step is not None:
                curve.append(_row(run, on_step))
        address = run.params()
        vector = _arrays.copied(address, run.adapter.layout.count)
        costs = run.costs()
        return Result(_arrays.split(run.adapter.layout, vector), run.stats(), run.workers(), costs.virtual_ns * 1e-9,
                      time.monotonic() - began, costs.gradient_s, costs.master_s, curve)
    finally:
        run.adapter.leave(address)
        run.library.simulation_close(run.handle)
        _rng_back(state)


def _row(run: _Run, on_step: Callable[[Dict[str, Any]], Any]) -> Dict[str, Any]:
    stats = run.stats()
    row: Dict[str, Any] = {"gradients": stats.gradients, "seconds": run.costs().virtual_ns * 1e-9, "loss": stats.loss,
                           "rate": stats.rate, "lag": stats.lag.mean, "gap_rms": stats.gap_rms.mean, "gate": stats.gate}
    run.adapter.read(run.params())
    more = on_step(row)
    if isinstance(more, Mapping):
        row.update(more)
    return row


def _rng_state() -> Any:
    import sys

    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_rng_state()


def _rng_back(state: Any) -> None:
    if state is not None:
        import torch

        torch.set_rng_state(state)
