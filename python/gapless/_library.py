"""The C library: where it is, its structures, its functions.

The structures repeat ``gapless.h``; ``tests/python/test_structures.py`` compiles that header and compares every size and
offset. Nothing here needs numpy or torch.
"""

from __future__ import annotations

import ctypes as c
import os
from ctypes import POINTER, byref
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Type

from . import errors

VERSION = "0.1.0"

WORKERS_MAX = 4096
STEPS_MAX = 8
NAME_MAX = 64
JOB_MAX = 1024
BINS = 48
NO_DECAY = -1.0
TENSOR_NOT_MATRIX = 1

OK = 0
AGAIN = -1
TIMEOUT = -5
PEER_LOST = -6
MODEL = -9
CAPACITY = -10
NOT_FINITE = -11
STOPPED = -12
MISSING = -16
NO_BATCH = 2 ** 64 - 1

# ---- structures, as in gapless.h ----

Log = c.CFUNCTYPE(None, c.c_void_p, c.c_char_p)
Gradient = c.CFUNCTYPE(c.c_double, c.c_void_p, c.c_uint32, c.c_uint64, c.c_void_p, c.c_void_p)
Local = c.CFUNCTYPE(c.c_double, c.c_void_p, c.c_uint32, c.c_uint32, c.c_uint64, c.c_uint32, c.c_void_p, c.c_void_p)


class Error(c.Structure):
    """struct gapless_error"""
    _fields_ = [("status", c.c_int), ("os", c.c_int), ("text", c.c_char * 480)]


class Rule(c.Structure):
    """struct gapless_rule"""
    _fields_ = [
        ("name", c.c_char_p), ("formula", c.c_char_p), ("source", c.c_char_p), ("vectors_shared", c.c_uint),
        ("vectors_per_worker", c.c_uint), ("bytes_per_parameter", c.c_uint), ("whole", c.c_bool),
        ("synchronous", c.c_bool), ("elastic", c.c_bool), ("matrices", c.c_bool), ("own_decay", c.c_bool),
        ("averages", c.c_bool), ("slim", c.c_bool), ("settings", c.c_uint)]


class Tensor(c.Structure):
    """struct gapless_tensor"""
    _fields_ = [("name", c.c_char_p), ("dims", c.c_uint32), ("dim", c.c_uint64 * 4), ("flags", c.c_uint32),
                ("rate", c.c_double), ("decay", c.c_double), ("average", c.c_double)]


class Model(c.Structure):
    """struct gapless_model"""
    _fields_ = [("tensors", POINTER(Tensor)), ("tensors_count", c.c_uint32)]


class ScheduleStep(c.Structure):
    """An element of struct gapless_schedule's steps."""
    _fields_ = [("at", c.c_uint64), ("factor", c.c_double)]


class Schedule(c.Structure):
    """struct gapless_schedule"""
    _fields_ = [
        ("rate", c.c_double), ("warmup", c.c_uint64), ("warmup_from", c.c_double), ("steps_count", c.c_uint32),
        ("steps", ScheduleStep * STEPS_MAX), ("cosine", c.c_bool), ("cosine_to", c.c_double)]


class Net(c.Structure):
    """struct gapless_net"""
    _fields_ = [
        ("token", c.c_void_p), ("token_bytes", c.c_size_t), ("insecure", c.c_bool), ("devices", c.c_char_p),
        ("channels", c.c_uint32), ("retries", c.c_uint32), ("ack_timeout", c.c_uint32)]


class MasterConfig(c.Structure):
    """struct gapless_master_config"""
    _fields_ = [
        ("address", c.c_char_p), ("model", Model), ("initial", c.c_void_p), ("rule", c.c_char_p),
        ("schedule", Schedule), ("gradients", c.c_uint64), ("workers_max", c.c_uint32),
        ("workers_expected", c.c_uint32), ("workers_wait", c.c_uint32), ("observers_max", c.c_uint32),
        ("momentum", c.c_double), ("gate", c.c_int), ("kappa", c.c_double), ("lambda_", c.c_double),
        ("horizon", c.c_double), ("beta2", c.c_double), ("epsilon", c.c_double), ("decay", c.c_double),
        ("decay_all", c.c_bool), ("rest_scale", c.c_double), ("matrix_threads", c.c_uint32), ("gap_ref", c.c_int),
        ("ssgd_scale_rate", c.c_bool), ("clip_norm", c.c_double), ("weight_decay", c.c_double),
        ("range_elements", c.c_uint64), ("block_elements", c.c_uint64), ("elastic", c.c_double),
        ("elastic_period", c.c_uint32), ("drop_lag", c.c_uint32), ("gap_every", c.c_uint32),
        ("worker_timeout_ns", c.c_int64), ("spin_ns", c.c_int64), ("local_steps", c.c_uint32),
        ("adapt_steps", c.c_bool), ("job", c.c_char_p), ("record", c.c_char_p), ("record_note", c.c_char_p),
        ("device", c.c_char_p), ("allow_staging", c.c_bool), ("gpu_flush", c.c_int), ("net", Net),
        ("resume", c.c_char_p), ("epoch", c.c_uint64), ("save_folder", c.c_char_p), ("save_every_ns", c.c_int64),
        ("save_every", c.c_uint64), ("save_keep", c.c_uint32), ("save_metadata", POINTER(c.c_char_p)), ("log", Log),
        ("log_context", c.c_void_p)]


class Summary(c.Structure):
    """struct gapless_summary"""
    _fields_ = [("count", c.c_uint64), ("mean", c.c_double), ("p50", c.c_double), ("p99", c.c_double),
                ("max", c.c_double)]


class WorkerStats(c.Structure):
    """struct gapless_worker_stats"""
    _fields_ = [
        ("state", c.c_uint32), ("pid", c.c_uint32), ("gradients", c.c_uint64), ("dropped", c.c_uint64),
        ("lag_sum", c.c_double), ("lag_count", c.c_uint64), ("gap_sum", c.c_double), ("gap_count", c.c_uint64),
        ("loss", c.c_double), ("seen_ns", c.c_uint64), ("lag_bins", c.c_uint32 * BINS),
        ("gap_bins", c.c_uint32 * BINS)]


class Stats(c.Structure):
    """struct gapless_stats"""
    _fields_ = [
        ("state", c.c_uint32), ("workers_active", c.c_uint32), ("workers_joined", c.c_uint32),
        ("workers_lost", c.c_uint32), ("gradients", c.c_uint64), ("gradients_total", c.c_uint64),
        ("updates", c.c_uint64), ("dropped", c.c_uint64), ("partial", c.c_uint64), ("rate", c.c_double),
        ("loss", c.c_double), ("gate", c.c_double), ("gate_mean", c.c_double), ("gate_count", c.c_uint64),
        ("kappa", c.c_double), ("gate_warning", c.c_uint32), ("gate_warned", c.c_double), ("seconds", c.c_double),
        ("pass_ns", c.c_uint64), ("lag", Summary), ("gap_rms", Summary), ("record_failed", c.c_bool),
        ("diverged_at", c.c_uint64)]


class WorkerConfig(c.Structure):
    """struct gapless_worker_config"""
    _fields_ = [
        ("address", c.c_char_p), ("model", Model), ("name", c.c_char_p), ("wish", c.c_uint32),
        ("connect_ns", c.c_int64), ("wait_ns", c.c_int64), ("spin_ns", c.c_int64), ("by_range", c.c_bool), ("ahead", c.c_bool),
        ("params", c.c_void_p), ("grad", c.c_void_p), ("allow_staging", c.c_bool), ("net", Net),
        ("scratch_params", c.c_bool)]


class RoundTrip(c.Structure):
    """struct gapless_round_trip"""
    _fields_ = [("norm_ns", c.c_uint64), ("check_ns", c.c_uint64), ("pass_ns", c.c_uint64)]


class BatchTime(c.Structure):
    """struct gapless_batch_time"""
    _fields_ = [("worker", c.c_uint32), ("ns", c.c_uint64)]


class Incident(c.Structure):
    """struct gapless_incident"""
    _fields_ = [("at_ns", c.c_uint64), ("kind", c.c_int), ("worker", c.c_uint32), ("ns", c.c_uint64)]


class SimulationConfig(c.Structure):
    """struct gapless_simulation_config"""
    _fields_ = [
        ("master", MasterConfig), ("workers", c.c_uint32), ("threads", c.c_uint32), ("seed", c.c_uint64),
        ("clock", c.c_int), ("batch_ns", c.c_uint64), ("times", POINTER(BatchTime)), ("times_count", c.c_size_t),
        ("latency_ns", c.c_uint64), ("bandwidth", c.c_double), ("pass_ns", c.c_uint64),
        ("incidents", POINTER(Incident)), ("incidents_count", c.c_size_t), ("replay", c.c_char_p),
        ("gradient", Gradient), ("local", Local), ("context", c.c_void_p)]


class SimulationStats(c.Structure):
    """struct gapless_simulation_stats"""
    _fields_ = [
        ("virtual_ns", c.c_uint64), ("seconds", c.c_double), ("gradient_s", c.c_double), ("master_s", c.c_double),
        ("master_bytes", c.c_uint64), ("table_bytes", c.c_uint64), ("worker_bytes", c.c_uint64),
        ("buffer_bytes", c.c_uint64)]


class Traffic(c.Structure):
    """struct gapless_traffic"""
    _fields_ = [("requests", c.c_uint64), ("doorbells", c.c_uint64), ("completions", c.c_uint64),
                ("wakeups", c.c_uint64), ("regions", c.c_uint64)]


class ObserverConfig(c.Structure):
    """struct gapless_observer_config"""
    _fields_ = [("address", c.c_char_p), ("connect_ns", c.c_int64), ("net", Net)]


# What the header calls each structure, for the test; ScheduleStep has no name there.
STRUCTURES: Dict[str, Type[c.Structure]] = {
    "gapless_error": Error, "gapless_rule": Rule, "gapless_tensor": Tensor, "gapless_model": Model,
    "gapless_schedule": Schedule, "gapless_net": Net, "gapless_master_config": MasterConfig,
    "gapless_summary": Summary, "gapless_worker_stats": WorkerStats, "gapless_stats": Stats,
    "gapless_worker_config": WorkerConfig, "gapless_round_trip": RoundTrip, "gapless_batch_time": BatchTime,
    "gapless_incident": Incident, "gapless_simulation_config": SimulationConfig,
    "gapless_simulation_stats": SimulationStats, "gapless_traffic": Traffic,
    "gapless_observer_config": ObserverConfig}

# ---- functions ----

_P, _E = c.c_void_p, POINTER(Error)  # an object of the library; where it writes an error

# name without "gapless_": (result, arguments)
_FUNCTIONS: Dict[str, Tuple[Any, List[Any]]] = {
    "version": (c.c_char_p, []),
    "strerror": (c.c_char_p, [c.c_int]),
    "rule_find": (c.c_int, [c.c_char_p, POINTER(Rule), _E]),
    "rule_at": (c.c_int, [c.c_uint, POINTER(Rule)]),
    "lag_edge": (c.c_double, [c.c_uint]),
    "gap_edge": (c.c_double, [c.c_uint]),
    "gate_advice": (c.c_bool, [POINTER(Stats), c.c_char_p, c.c_size_t]),
    "divergence": (c.c_bool, [POINTER(Stats), c.c_char_p, c.c_size_t]),
    "master_check": (c.c_int, [POINTER(MasterConfig), _E]),
    "master_open": (c.c_int, [POINTER(MasterConfig), POINTER(_P), _E]),
    "master_run": (c.c_int, [_P, c.c_int64, _E]),
    "master_stop": (None, [_P]),
    "master_stats": (None, [_P, POINTER(Stats)]),
    "master_worker_stats": (c.c_int, [_P, c.c_uint32, POINTER(WorkerStats)]),
    "master_tensor_gates": (c.c_int, [_P, c.c_uint32, POINTER(c.c_double)]),
    "master_params": (_P, [_P]),
    "master_observers": (c.c_uint32, [_P]),
    "master_refused": (c.c_uint64, [_P]),
    "master_save_with": (c.c_int, [_P, c.c_char_p, POINTER(c.c_char_p), _E]),
    "master_device": (None, [_P, c.c_char_p, c.c_size_t]),
    "master_close": (None, [_P]),
    "worker_open": (c.c_int, [POINTER(WorkerConfig), POINTER(_P), _E]),
    "worker_params": (_P, [_P]),
    "worker_grad": (_P, [_P]),
    "worker_count": (c.c_uint64, [_P]),
    "worker_next": (c.c_uint64, [_P]),
    "worker_number": (c.c_uint32, [_P]),
    "worker_job": (c.c_char_p, [_P]),
    "worker_poll": (c.c_int, [_P, c.c_int64, _E]),
    "worker_pull": (c.c_int, [_P, POINTER(c.c_uint64), _E]),
    "worker_steps": (c.c_uint32, [_P]),
    "worker_push": (c.c_int, [_P, c.c_double, _E]),
    "worker_push_range": (c.c_int, [_P, c.c_uint64, c.c_uint64, _E]),
    "worker_set_rate": (c.c_int, [_P, c.c_double]),
    "worker_close": (None, [_P]),
    "worker_round_trip": (None, [_P, POINTER(RoundTrip)]),
    "worker_link": (None, [_P, c.c_char_p, c.c_size_t]),
    "worker_device": (None, [_P, c.c_char_p, c.c_size_t]),
    "simulation_open": (c.c_int, [POINTER(SimulationConfig), POINTER(_P), _E]),
    "simulation_run": (c.c_int, [_P, c.c_uint64, _E]),
    "simulation_master": (_P, [_P]),
    "simulation_stats": (None, [_P, POINTER(SimulationStats)]),
    "simulation_close": (None, [_P]),
    "device_survey": (c.c_int, [c.c_char_p, c.c_size_t]),
    "network_survey": (c.c_int, [c.c_char_p, c.c_size_t]),
    "observer_open": (c.c_int, [POINTER(ObserverConfig), POINTER(_P), _E]),
    "observer_count": (c.c_uint64, [_P]),
    "observer_job": (c.c_char_p, [_P]),
    "observer_read": (c.c_int, [_P, c.c_void_p, c.c_int64, POINTER(c.c_uint64), _E]),
    "observer_stats": (c.c_int, [_P, POINTER(Stats), _E]),
    "observer_worker_stats": (c.c_int, [_P, c.c_uint32, POINTER(WorkerStats)]),
    "observer_tensor_gates": (c.c_int, [_P, c.c_uint32, POINTER(c.c_double)]),
    "observer_close": (None, [_P]),
}

_SONAME = "libgapless.so." + VERSION.rsplit(".", 1)[0]


def candidates() -> List[str]:
    """Where the library is looked for, in this order: ``$GAPLESS_LIBRARY`` alone if it is set; beside this file, as a
    wheel has it; in the ``build`` folders of the source tree; then what the system's loader finds."""
    named = os.environ.get("GAPLESS_LIBRARY")
    if named:
        return [named]
    here = Path(__file__).resolve().parent
    found = [here / "libgapless.so"]
    tree = here.parent.parent
    if (tree / "engine" / "gapless.map").is_file():
        found += [tree / "build" / "libgapless.so", *sorted(tree.glob("build-*/libgapless.so"))]
    return [str(path) for path in found if path.is_file()] + [_SONAME]


class Library:
    """The loaded library; a function ``gapless_x`` is the attribute ``x``. ``path`` is where it was found."""

    def __init__(self, path: str) -> None:
        self.path = path
        loaded = c.CDLL(path)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(loaded, "gapless_" + name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"libgapless has no gapless_{name} here")


_loaded: Optional[Library] = None


def load() -> Library:
    """The library, loaded at the first call. NotThere: it is nowhere; VersionMismatch: it is of another version."""
    global _loaded
    if _loaded is not None:
        return _loaded
    tried: List[str] = []
    for path in candidates():
        try:
            library = Library(path)
        except (OSError, AttributeError) as reason:
            tried.append(f"{path}: {reason}")
            continue
        version = library.version().decode()
        if version != VERSION:
            raise errors.by_status(-8, f"{path} is gapless {version}, this package is {VERSION}: install the same version "
                                       "of both, or name a library in GAPLESS_LIBRARY")
        _loaded = library
        return library
    raise errors.by_status(MISSING, "libgapless.so was not found. Build it (cmake --build build), install it, or name it "
                                    "in GAPLESS_LIBRARY. Tried:\n  " + "\n  ".join(tried))


def raised(error: Error) -> errors.GaplessError:
    """The exception for what the library wrote into ``error``."""
    text = error.text.decode("utf-8", "replace") or load().strerror(error.status).decode()
    return errors.by_status(error.status, text, error.os)


def check(status: int, error: Error) -> int:
    """Raises what ``error`` says if ``status`` is negative."""
    if status < 0:
        error.status = status
        raise raised(error)
    return status


def nanoseconds(seconds: float) -> int:
    """For the library; 0 stays its default."""
    return int(round(seconds * 1e9))


def text_of(function: Callable[..., Any], *arguments: Any) -> str:
    """What a function writes into a buffer of a caller's."""
    buffer = c.create_string_buffer(4096)
    function(*arguments, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")


__all__ = [name for name in dir() if not name.startswith("_")] + ["byref"]
