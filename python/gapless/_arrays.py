"""Vectors of 32-bit floats between Python's arrays and the library."""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Dict, List

from . import _layout as layouts
from .errors import ModelError


class Flat:
    """A vector of floats of this process: ``address`` and ``count``."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = (ctypes.c_float * count)()
        self.address = ctypes.addressof(self._memory)

    def view(self) -> memoryview:
        """Its floats."""
        return memoryview(self._memory).cast("B").cast("f")


def _is_torch(array: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def tensor_at(address: int, count: int) -> Any:
    """A torch tensor that is the memory at ``address``: 32-bit floats of the host."""
    import torch

    return torch.frombuffer((ctypes.c_float * count).from_address(address), dtype=torch.float32)


def array_at(address: int, count: int) -> Any:
    """The same as a numpy array."""
    import numpy

    return numpy.frombuffer((ctypes.c_float * count).from_address(address), dtype=numpy.float32)


def flat(arrays: List[Any]) -> Flat:
    """Copies of arrays one after another."""
    sizes = [int(array.numel()) if _is_torch(array) else int(array.size) for array in arrays]
    found = Flat(sum(sizes))
    at = found.address
    for array, size in zip(arrays, sizes):
        if _is_torch(array):
            tensor_at(at, size).copy_(array.detach().reshape(-1))
        else:
            array_at(at, size)[:] = array.reshape(-1)
        at += 4 * size
    return found


def copied(address: int, count: int) -> Flat:
    """A copy of the memory at ``address``."""
    found = Flat(count)
    ctypes.memmove(found.address, address, 4 * count)
    return found


def split(layout: "layouts.Layout", vector: Flat) -> Dict[str, Any]:
    """A vector as tensors by name: torch's where torch is loaded, else numpy's where that is, else memoryviews."""
    found: Dict[str, Any] = {}
    at = 0
    for entry in layout.entries:
        if "torch" in sys.modules:
            part = tensor_at(vector.address + 4 * at, entry.count).clone().view(entry.shape)
        elif "numpy" in sys.modules:
            part = array_at(vector.address + 4 * at, entry.count).copy().reshape(entry.shape)
        else:
            part = vector.view()[at:at + entry.count]
        found[entry.name] = part
        at += entry.count
    return found


def into_module(source: "layouts.Layout", target: "layouts.Layout", address: int) -> None:
    """Writes the vector at ``address`` of the first layout into the tensors of the second. ModelError: they differ."""
    difference = target.first_difference(source.described()) if source is not target else ""
    if difference:
        raise ModelError(f"another model than the master's: {difference}")
    into_tensors(target, address)


def into_tensors(target: "layouts.Layout", address: int) -> None:
    """Writes the vector at ``address`` into the tensors of a layout."""
    import torch

    vector = tensor_at(address, target.count)
    with torch.no_grad():
        for entry, part in zip(target.entries, layouts.views(vector, target.entries)):
            entry.tensor.copy_(part)
