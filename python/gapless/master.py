"""A master of one's own: keeps the parameters, applies the workers' gradients."""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import threading
import time
from typing import Any, Dict, List, Optional

from . import _arrays
from . import _layout as layouts
from . import _library as lib
from .errors import BadArgument, GaplessError
from .settings import Settings, job_text
from .stats import RunStats, WorkerStats, run_stats_of, workers_of

_log = logging.getLogger("gapless")
_serial = itertools.count()
_SLICE_NS = 200_000_000 # how long Ctrl-C may wait


def new_address() -> str:
    """An address in shared memory that no other process has."""
    return f"shm:gapless-{os.getpid()}-{next(_serial)}"


class Master:
    """Keeps the parameters of ``model`` and serves workers at ``address``.

    ``model``: a torch module, or a dict of arrays (numpy or torch, 32-bit floats) by name; its values are where training
    starts. ``rule``: how a gradient becomes an update. ``address``: "shm:NAME" or "verbs:HOST:PORT" (None: a new name in
    shared memory). ``token``: the secret, 16 to 4096 bytes, that a master beyond this machine needs. ``params``: parameter
    groups, as a torch optimizer takes them. ``job``: text for every worker; ``seed``: of the order of batches. ``record``: a
    file that gets the order in which everything arrives. The other settings are those of :mod:`gapless.settings`.

    One thread at a time may use it, but :meth:`stop` may be called by any. It is a context manager, whose end closes it.
    Raises BadArgument, ModelError, OutOfMemory, and SystemRefused where the address is taken.

    >>> with gapless.Master(model, "dana-ga", lr=0.01, gradients=10_000, address="shm:demo") as master:
    ...     while master.run(1.0):
    ...         print(master.stats.loss)
    ...     master.save("model.safetensors")
    """

    def __init__(self, model: Any, rule: str = "dana-ga", *, lr: float, address: Optional[str] = None,
                 params: Any = None, token: Optional[bytes] = None, insecure: bool = False, job: Optional[str] = None,
                 seed: int = 0, record: Optional[str] = None, **settings: Any) -> None:
        given = Settings({"rule": rule, "lr": lr, **settings})
        if isinstance(model, dict):
            layout = layouts.of_arrays(model)
        else:
            layout = layouts.of_module(model, params, lr)
        self._begin(layout, given, address or new_address(), job_text(seed, job), token, insecure, record)

    @classmethod
    def _of(cls, layout: layouts.Layout, settings: Settings, address: str, job: str) -> "Master":
        master = cls.__new__(cls)
        master._begin(layout, settings, address, job, None, False, None)
        return master

    def _begin(self, layout: layouts.Layout, settings: Settings, address: str, job: str, token: Optional[bytes],
               insecure: bool, record: Optional[str]) -> None:
        self._handle: Optional[ctypes.c_void_p] = None
        self._lib = lib.load()
        self._error = lib.Error()
        self.layout = layout
        self.address = address
        config = lib.MasterConfig(address=address.encode(), job=job.encode())
        settings.fill(config)
        layout.fill(config.model)
        if token is not None:
            self._token = ctypes.create_string_buffer(token, len(token))
            config.net.token, config.net.token_bytes = ctypes.addressof(self._token), len(token)
        config.net.insecure = insecure
        if record is not None:
            config.record = os.fsencode(record)
        self._on_line = lib.Log(lambda _, line: _log.info("%s", line.decode("utf-8", "replace")))
        config.log = self._on_line
        initial = _arrays.flat([entry.tensor for entry in layout.entries])
        config.initial = initial.address
        handle = ctypes.c_void_p()
        lib.check(self._lib.master_open(config, handle, self._error), self._error)
        self._handle = handle
        self._pid = os.getpid()

    def _alive(self) -> ctypes.c_void_p:
        if self._handle is None:
            raise BadArgument("this master is closed")
        if self._pid != os.getpid():
            raise BadArgument("this master belongs to another process: a forked child must not use it")
        return self._handle

    def run(self, seconds: Optional[float] = None) -> bool:
        """Serves for ``seconds`` (None: until the run is over). True: the run goes on. After its end, calls serve observers.
        Ctrl-C ends it within a fifth of a second."""
        deadline = None if seconds is None else time.monotonic() + seconds
        over = self.stats.state == "done"
        while True:
            left = _SLICE_NS if deadline is None else int((deadline - time.monotonic()) * 1e9)
            if left <= 0:
                return not over
            status = self._lib.master_run(self._alive(), min(left, _SLICE_NS), self._error)
            if status == lib.STOPPED:
                if not over or deadline is None:
                    return False
            else:
                lib.check(status, self._error)

    def stop(self) -> None:
        """Ends the run: workers learn of it at their next step. Any thread may call it."""
        self._lib.master_stop(self._alive())

    @property
    def stats(self) -> RunStats:
        """Statistics of the run."""
        raw = lib.Stats()
        self._lib.master_stats(self._alive(), raw)
        return run_stats_of(raw)

    def workers(self) -> List[WorkerStats]:
        """Statistics of each worker that is or was there."""
        handle = self._alive()
        return workers_of(lambda number, raw: self._lib.master_worker_stats(handle, number, raw))

    def params(self) -> Dict[str, Any]:
        """A copy of the parameters by name; torch tensors where torch is loaded, else memoryviews of floats."""
        address = self._lib.master_params(self._alive())
        return _arrays.split(self.layout, _arrays.copied(address, self.layout.count))

    def copy_to(self, model: Any) -> None:
        """Writes the parameters into a torch module of the same layout."""
        _arrays.into_module(self.layout, layouts.of_module(model), self._lib.master_params(self._alive()))

    def save(self, path: str, metadata: Optional[Dict[str, str]] = None) -> None:
        """Writes the parameters as safetensors: to a temporary file, which takes the place of ``path`` when it is whole."""
        texts = [text.encode() for pair in (metadata or {}).items() for text in pair]
        array = (ctypes.c_char_p * (len(texts) + 1))(*texts, None)
        lib.check(self._lib.master_save_with(self._alive(), os.fsencode(path), array, self._error), self._error)

    @property
    def device(self) -> str:
        """Where the parameters are: a line for a person."""
        return lib.text_of(self._lib.master_device, self._alive())

    def close(self) -> None:
        """Ends it; workers that are there lose it. May be called twice."""
        handle, self._handle = self._handle, None
        if handle is not None and self._pid == os.getpid():
            self._lib.master_close(handle)

    def __enter__(self) -> "Master":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


class MasterThread:
    """A master that a thread of this process runs. ``failure``: what ended it, if something did."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self.address = master.address
        self.failure: Optional[GaplessError] = None
        self._leaving = False
        self._thread = threading.Thread(target=self._serve, name="gapless-master", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        library, handle, error = self.master._lib, self.master._handle, lib.Error()
        status = library.master_run(handle, -1, error)
        while status == lib.STOPPED and not self._leaving: # serves those who look at the end of it
            status = library.master_run(handle, 20_000_000, error)
        if status not in (lib.OK, lib.STOPPED):
            self.failure = lib.raised(error)

    def end(self) -> None:
        """Ends the run and waits for the thread; the master is then this thread's."""
        self._leaving = True
        if self._thread.is_alive():
            self.master.stop()
            self._thread.join()
