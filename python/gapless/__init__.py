"""Gapless: asynchronous distributed training.

>>> import gapless
>>> with gapless.Worker(model, optimizer="dana-lga-adamw", lr=1e-3) as worker:
...     for x, y in worker.batches(loader):
...         loss = criterion(model(x), y); loss.backward()
...         worker.step(loss)

Importing it loads neither torch nor numpy nor the library; each name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List

__version__ = "0.1.0"

_PLACES = {
    "Worker": "worker", "Step": "worker", "Master": "master", "Observer": "observer", "run_stats": "observer",
    "simulate": "simulation", "save": "files", "load": "files", "GaplessError": "errors",
}
_MODULES = ("batches", "errors", "settings", "metrics", "files", "stats")
__all__ = sorted([*_PLACES, "__version__"])

if TYPE_CHECKING:
    from .errors import GaplessError
    from .files import load, save
    from .master import Master
    from .observer import Observer, run_stats
    from .simulation import simulate
    from .worker import Step, Worker


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'gapless' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> List[str]:
    return sorted([*globals(), *_PLACES, *_MODULES])
