"""Statistics of a run and of a worker, as plain objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional

from . import _library as lib

_STATES = ("waiting", "going", "ending", "done")
_WORKER_STATES = ("free", "joining", "active")


@dataclass(frozen=True)
class Summary:
    """Of many values: how many, their mean, median, 99th percentile and largest."""

    count: int
    mean: float
    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class RunStats:
    """Of a run, as the master keeps them (struct gapless_stats). ``lag``: updates between a worker's read and its gradient's
    use; ``gap_rms``: how far the parameters moved meanwhile, root mean square; ``loss``: running mean over about 100
    gradients; ``seconds``: since the first update; ``gradients_total``: 0 if no end is set; ``diverged_at``: the gradient at
    which the run ended early since it diverged, 0 if it did not, and ``advice`` says what to try."""

    state: str
    workers_active: int
    workers_joined: int
    workers_lost: int
    gradients: int
    gradients_total: int
    updates: int
    dropped: int
    rate: float
    loss: float
    gate: float
    gate_mean: float
    kappa: float
    seconds: float
    pass_seconds: float
    lag: Summary
    gap_rms: Summary
    advice: str = ""
    diverged_at: int = 0

    @property
    def gradients_per_second(self) -> float:
        """Throughput since the first update; 0 before it."""
        return self.gradients / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        """One line for a person; repr() has all of it."""
        return (f"{self.gradients} gradients ({self.dropped} dropped), loss {self.loss:.4g}, rate {self.rate:g}, "
                f"lag {self.lag.mean:.2f} (p99 {self.lag.p99:g}), gap {self.gap_rms.mean:.2e}, {self.workers_active} workers, "
                f"{self.gradients_per_second:.0f} gradients/s, {self.state}")

    def metrics(self) -> Dict[str, float]:
        """The numbers that metric trackers show."""
        return {"loss": self.loss, "rate": self.rate, "gradients": float(self.gradients), "updates": float(self.updates),
                "workers": float(self.workers_active), "lag": self.lag.mean, "gap_rms": self.gap_rms.mean, "gate": self.gate,
                "dropped": float(self.dropped), "gradients_per_second": self.gradients_per_second}


@dataclass(frozen=True)
class WorkerStats:
    """Of one worker, as the master keeps them (struct gapless_worker_stats)."""

    number: int
    state: str
    pid: int
    gradients: int
    dropped: int
    lag: float
    gap_rms: float
    loss: float


def _summary(s: Any) -> Summary:
    return Summary(s.count, s.mean, s.p50, s.p99, s.max)


def run_stats_of(raw: lib.Stats) -> RunStats:
    """From the library's structure."""
    import ctypes

    advice = ctypes.create_string_buffer(256)
    said = lib.load().gate_advice(raw, advice, len(advice))
    if lib.load().divergence(raw, advice, len(advice)):
        said = True
    return RunStats(
        _STATES[raw.state] if raw.state < len(_STATES) else str(raw.state), raw.workers_active, raw.workers_joined,
        raw.workers_lost, raw.gradients, raw.gradients_total, raw.updates, raw.dropped, raw.rate, raw.loss, raw.gate,
        raw.gate_mean, raw.kappa, raw.seconds, raw.pass_ns * 1e-9, _summary(raw.lag), _summary(raw.gap_rms),
        advice.value.decode() if said else "", raw.diverged_at)


def worker_stats_of(number: int, raw: lib.WorkerStats) -> Optional[WorkerStats]:
    """From the library's structure; None where no worker has this number."""
    if raw.state == 0 and raw.gradients == 0:
        return None
    return WorkerStats(
        number, _WORKER_STATES[raw.state] if raw.state < 3 else str(raw.state), raw.pid, raw.gradients, raw.dropped,
        raw.lag_sum / raw.lag_count if raw.lag_count else 0.0, raw.gap_sum / raw.gap_count if raw.gap_count else 0.0,
        raw.loss)


def workers_of(look: Callable[[int, lib.WorkerStats], int]) -> List[WorkerStats]:
    """Of each worker that is or was there. ``look`` fills the structure for a number; its status is not OK past the last."""
    found: List[WorkerStats] = []
    number, raw = 0, lib.WorkerStats()
    while look(number, raw) == lib.OK:
        stats = worker_stats_of(number, raw)
        if stats is not None:
            found.append(stats)
        number += 1
    return found
