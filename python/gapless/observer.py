"""An observer: reads a run's live parameters and statistics, and slows nobody."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any, List, Optional

from . import _arrays
from . import _layout as layouts
from . import _library as lib
from .errors import BadArgument, ModelError
from .settings import job_read
from .stats import RunStats, WorkerStats, run_stats_of, worker_stats_of, workers_of

TRY_S = 0.2 # of one try to connect


class Observer:
    """Connects to the master at ``address`` (None: the one that GAPLESS_MASTER names); a context manager.

    ``token``: the master's secret, bytes. ``connect``: seconds that finding it may take. One thread at a time may use it.
    Raises WaitTimeout, JoinRefused, CapacityReached, VersionMismatch, BadArgument.

    >>> with gapless.Observer() as observer:
    ...     observer.read(model)     # evaluate while others train
    ...     print(observer.stats().loss)
    """

    def __init__(self, address: Optional[str] = None, *, token: Optional[bytes] = None, connect: float = 10.0) -> None:
        self._handle: Optional[ctypes.c_void_p] = None
        address = address or os.environ.get("GAPLESS_MASTER")
        if not address:
            raise BadArgument("no address: give the master's, or set GAPLESS_MASTER")
        self.address = address
        self.version = 0
        self._lib, self._error = lib.load(), lib.Error()
        config = lib.ObserverConfig(address=address.encode())
        if token is not None:
            self._token = ctypes.create_string_buffer(token, len(token))
            config.net.token, config.net.token_bytes = ctypes.addressof(self._token), len(token)
        self._handle = self._open(config, max(connect, 1e-9))
        self._pid = os.getpid()

    def _open(self, config: lib.ObserverConfig, seconds: float) -> ctypes.c_void_p:
        deadline = time.monotonic() + seconds
        while True: # in short tries, so that Ctrl-C is heard
            left = deadline - time.monotonic()
            config.connect_ns = max(lib.nanoseconds(min(left, TRY_S)), 1)
            handle = ctypes.c_void_p()
            status = self._lib.observer_open(config, handle, self._error)
            if status == lib.OK:
                return handle
            if status not in (lib.TIMEOUT, lib.PEER_LOST) or left <= TRY_S:
                lib.check(status, self._error)

    def _alive(self) -> ctypes.c_void_p:
        if self._handle is None:
            raise BadArgument("this observer is closed")
        if self._pid != os.getpid():
            raise BadArgument("this observer belongs to another process: a forked child must make its own")
        return self._handle

    @property
    def count(self) -> int:
        """Elements of the model: parameters and running averages."""
        return int(self._lib.observer_count(self._alive()))

    @property
    def job(self) -> str:
        """The master's job text."""
        return job_read(self._lib.observer_job(self._alive()).decode("utf-8", "replace"))[1]

    def _vector(self, timeout: float) -> _arrays.Flat:
        vector, version = _arrays.Flat(self.count), ctypes.c_uint64()
        lib.check(self._lib.observer_read(self._alive(), vector.address, lib.nanoseconds(timeout), version, self._error),
                  self._error)
        self.version = version.value
        return vector

    def read(self, model: Any = None, timeout: float = 10.0) -> memoryview:
        """Copies the live parameters; each range of them is from one moment, never torn.

        ``model``: a torch module, of the same make as the workers', that gets them; never one that a worker of this process
        has. Returns all of them, flat, as floats. ``self.version``: updates that were in them. Raises TornRead where that
        did not work within ``timeout`` seconds, MasterLost, ModelError where the model has another size.
        """
        vector = self._vector(timeout)
        if model is not None:
            layout = layouts.of_module(model)
            self._fits(layout)
            _arrays.into_tensors(layout, vector.address)
        return vector.view()

    def _fits(self, layout: layouts.Layout) -> None:
        if layout.count != self.count:
            raise ModelError(f"the model has {layout.count} elements, the master's {self.count}: it is another one, or other "
                             "parameters are frozen")

    def _into(self, layout: layouts.Layout, timeout: float = 10.0) -> None:
        self._fits(layout)
        vector = self._vector(timeout) # lives until it is copied
        _arrays.into_tensors(layout, vector.address)

    def stats(self) -> RunStats:
        """Statistics of the run, as the master keeps them."""
        raw = lib.Stats()
        lib.check(self._lib.observer_stats(self._alive(), raw, self._error), self._error)
        return run_stats_of(raw)

    def worker_stats(self, number: int) -> Optional[WorkerStats]:
        """Statistics of one worker; None where none has or had this number."""
        raw = lib.WorkerStats()
        status = self._lib.observer_worker_stats(self._alive(), number, raw)
        return worker_stats_of(number, raw) if status == lib.OK else None

    def workers(self) -> List[WorkerStats]:
        """Statistics of each worker that is or was there."""
        handle = self._alive()
        return workers_of(lambda number, raw: self._lib.observer_worker_stats(handle, number, raw))

    def close(self) -> None:
        """Disconnects. May be called twice."""
        handle, self._handle = self._handle, None
        if handle is not None and self._pid == os.getpid():
            self._lib.observer_close(handle)

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


def run_stats(address: Optional[str] = None) -> RunStats:
    """Statistics of a run: the one at ``address``, else of this process's worker, else the one that GAPLESS_MASTER names."""
    from . import worker

    if address is None:
        for open_worker in list(worker._open_workers):
            return open_worker.stats()
    with Observer(address) as observer:
        return observer.stats()
