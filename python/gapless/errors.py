"""Exceptions. Each has the sentence of the library, which says what happened and what to do.

``GaplessError`` is the base of all; the subclasses of built-in exceptions let ``except TimeoutError`` and the like work,
too. ``status`` is the library's negative status code, ``os`` an errno or 0.
"""

from __future__ import annotations

__all__ = [
    "GaplessError", "BadArgument", "OutOfMemory", "SystemRefused", "WaitTimeout", "MasterLost", "JoinRefused",
    "VersionMismatch", "ModelMismatch", "CapacityReached", "NotFinite", "RunEnded", "ProtocolBroken", "FileFailed",
    "FileCorrupt", "NotThere", "TornRead", "NotSupported", "ModelError", "StepError", "by_status",
]


class GaplessError(Exception):
    """Anything that Gapless reports; ``status`` and ``os`` are 0 where Python itself found it."""

    status = 0

    def __init__(self, text: str, os: int = 0) -> None:
        super().__init__(text)
        self.os = os


class BadArgument(GaplessError, ValueError):
    """An argument or a setting is not valid."""

    status = -2


class OutOfMemory(GaplessError, MemoryError):
    """There is no memory for it."""

    status = -3


class SystemRefused(GaplessError, OSError):
    """The operating system, or a GPU's driver, refused."""

    status = -4

    def __str__(self) -> str:
        return str(self.args[0])


class WaitTimeout(GaplessError, TimeoutError):
    """A wait reached its bound."""

    status = -5

    def __str__(self) -> str:
        return str(self.args[0])


class MasterLost(GaplessError, ConnectionError):
    """The master is gone. Start it again, then the workers."""

    status = -6

    def __str__(self) -> str:
        return str(self.args[0])


class JoinRefused(GaplessError, ConnectionError):
    """The master did not let this process in."""

    status = -7

    def __str__(self) -> str:
        return str(self.args[0])


class VersionMismatch(GaplessError):
    """Master and worker are of different versions."""

    status = -8


class ModelMismatch(GaplessError, ValueError):
    """The master trains another model than this one."""

    status = -9


class CapacityReached(GaplessError):
    """A fixed capacity is used up, for example the number of workers."""

    status = -10


class NotFinite(GaplessError, ArithmeticError):
    """A gradient, a parameter or a loss is infinite or no number."""

    status = -11


class RunEnded(GaplessError):
    """The run is over, and another step was asked for."""

    status = -12


class ProtocolBroken(GaplessError):
    """The other side sent what makes no sense."""

    status = -13


class FileFailed(GaplessError, OSError):
    """A file could not be read or written."""

    status = -14

    def __str__(self) -> str:
        return str(self.args[0])


class FileCorrupt(GaplessError, ValueError):
    """A file is truncated or corrupt."""

    status = -15


class NotThere(GaplessError, LookupError):
    """Something needed is not there."""

    status = -16


class TornRead(GaplessError):
    """Every read was torn by a concurrent update."""

    status = -17


class NotSupported(GaplessError, NotImplementedError):
    """This build, this machine or this version does not have it."""

    status = -18


class ModelError(GaplessError, ValueError):
    """A module, a parameter or its gradient is not as a worker needs it."""


class StepError(GaplessError, RuntimeError):
    """Batches and steps are out of order."""


_CLASSES = {c.status: c for c in (
    BadArgument, OutOfMemory, SystemRefused, WaitTimeout, MasterLost, JoinRefused, VersionMismatch, ModelMismatch,
    CapacityReached, NotFinite, RunEnded, ProtocolBroken, FileFailed, FileCorrupt, NotThere, TornRead, NotSupported)}


def by_status(status: int, text: str, os: int = 0) -> GaplessError:
    """The exception for a status of the library; not raised."""
    error = _CLASSES.get(status, GaplessError)(text, os)
    error.status = status
    return error
