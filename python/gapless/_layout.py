"""From a model to the flat vector of the engine: which tensors, in which order, at which rates.

The order is: the parameters of group 0, of group 1, ..., then the running averages (batch norm's), so that neighbours
have the same rate, decay and average as far as possible.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Tuple

from . import _library as lib
from . import guards
from .errors import ModelError


@dataclass
class Entry:
    """One tensor of the flat vector. ``tensor`` is a parameter, or a buffer where ``average`` is above 0; or an array."""

    name: str
    tensor: Any
    shape: Tuple[int, ...]
    rate: float = 1.0
    decay: float = 0.0
    average: float = 0.0
    flags: int = 0

    @property
    def count(self) -> int:
        """Its elements."""
        total = 1
        for size in self.shape:
            total *= size
        return total

    @property
    def engine_shape(self) -> Tuple[int, ...]:
        """What the engine is given: 1 to 4 sizes."""
        return engine_shape(self.shape)


def engine_shape(shape: Iterable[int]) -> Tuple[int, ...]:
    """A tensor of no dimension is one of one element; of more than four, the trailing ones are merged."""
    sizes = tuple(int(size) for size in shape) or (1,)
    if len(sizes) <= 4:
        return sizes
    rest = 1
    for size in sizes[3:]:
        rest *= size
    return sizes[:3] + (rest,)


def engine_name(name: str) -> str:
    """The name as the engine takes it: plain characters, below 64. A longer one keeps its end, which tells more, behind a
    digest of the whole."""
    plain = "".join(ch if " " <= ch <= "~" and ch not in '"\\' else "_" for ch in name)
    if plain == name and 0 < len(name) < lib.NAME_MAX:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    return f"{digest}~{plain[-(lib.NAME_MAX - 2 - len(digest)):]}"


class Layout:
    """The tensors of a model in the engine's order. ``count`` is the number of elements; ``frozen`` lists the parameters
    that are left out because they are not trained: (name, parameter)."""

    def __init__(self, entries: List[Entry], frozen: Optional[List[Tuple[str, Any]]] = None, model: Any = None,
                 groups: Optional[List[Dict[str, Any]]] = None) -> None:
        if not entries:
            raise ModelError("the model has no parameter with requires_grad: nothing can be trained")
        self.entries = entries
        self.frozen = frozen or []
        self.model = model
        self.groups = groups or []
        self.count = sum(entry.count for entry in entries)
        self.averaged = sum(entry.count for entry in entries if entry.average > 0)
        self._keep: Any = None

    @property
    def parameters(self) -> List[Entry]:
        """Those that are no averages."""
        return [entry for entry in self.entries if entry.average == 0]

    @property
    def averages(self) -> List[Entry]:
        """The running averages; they are the last."""
        return [entry for entry in self.entries if entry.average > 0]

    def fill(self, model: lib.Model) -> None:
        """Writes struct gapless_model; it stays valid for as long as this layout."""
        tensors = (lib.Tensor * len(self.entries))()
        for tensor, entry in zip(tensors, self.entries):
            shape = entry.engine_shape
            tensor.name, tensor.dims, tensor.flags = engine_name(entry.name).encode(), len(shape), entry.flags
            for i, size in enumerate(shape):
                tensor.dim[i] = size
            tensor.rate = 0 if entry.rate == 1 else entry.rate # 0: as all
            tensor.decay, tensor.average = entry.decay, entry.average
        self._keep = tensors
        model.tensors = ctypes.cast(tensors, ctypes.POINTER(lib.Tensor))
        model.tensors_count = len(self.entries)

    def described(self) -> List[Dict[str, Any]]:
        """What the offer says of each tensor."""
        return [{"name": engine_name(entry.name), "shape": list(entry.engine_shape), "rate": entry.rate,
                 "decay": entry.decay, "average": entry.average, "flags": entry.flags} for entry in self.entries]

    def first_difference(self, others: List[Dict[str, Any]]) -> str:
        """How another's description differs from this one: a sentence, or "" if the models are the same."""
        own = self.described()
        for i, (mine, other) in enumerate(zip(own, others)):
            if mine["name"] != other.get("name"):
                return f"tensor {i} is '{mine['name']}' here and '{other.get('name')}' at the master"
            if mine["shape"] != list(other.get("shape", [])):
                return f"'{mine['name']}' has the shape {mine['shape']} here and {other.get('shape')} at the master"
        if len(own) != len(others):
            longer = own if len(own) > len(others) else others
            where = "here only" if longer is own else "at the master only"
            return f"'{longer[min(len(own), len(others))]['name']}' is {where} ({len(own)} tensors here, {len(others)} there)"
        return ""


def views(flat: Any, entries: Iterable[Entry]) -> List[Any]:
    """Of a flat torch tensor: a view for each entry, in its shape."""
    found, at = [], 0
    for entry in entries:
        found.append(flat[at:at + entry.count].view(entry.shape))
        at += entry.count
    return found


# ---- from a torch module ----


def _group_list(model: Any, params: Any) -> List[Dict[str, Any]]:
    """The parameter groups as torch.optim takes them: [{"params": [...], "lr": ..., "weight_decay": ...}]."""
    if params is None:
        return [{"params": list(model.parameters())}]
    groups = list(params)
    if not groups:
        raise ModelError("params is empty: give parameters, or leave it out for all of the model")
    if not isinstance(groups[0], dict):
        groups = [{"params": groups}]
    found = []
    for i, group in enumerate(groups):
        if not isinstance(group, dict) or "params" not in group:
            raise ModelError(f"parameter group {i} is no dict with 'params'")
        unknown = sorted(set(group) - {"params", "lr", "weight_decay", "name"})
        if unknown:
            raise ModelError(f"parameter group {i} has {unknown[0]!r}: a group may have its own lr and weight_decay; the other "
                             "settings are the run's")
        inside = group["params"]
        found.append({**group, "params": [inside] if hasattr(inside, "requires_grad") else list(inside)})
    return found


def _names(model: Any, groups: List[Dict[str, Any]]) -> Dict[int, str]:
    if model is not None:
        names: Dict[int, str] = {}
        for name, p in model.named_parameters():
            names.setdefault(id(p), guards.plain_name(name))
        return names
    every = [p for group in groups for p in group["params"]]
    return {id(p): f"param.{i}" for i, p in reversed(list(enumerate(every)))}


def _share(group: Dict[str, Any], lr: float, at: int) -> Tuple[float, float]:
    """The rate as a factor of the run's, and the decay, of a group."""
    own = group.get("lr")
    rate = 1.0 if own is None else float(own) / lr
    if not rate > 0:
        raise ModelError(f"parameter group {at} has lr={own}: to leave parameters as they are, set requires_grad to False")
    decay = group.get("weight_decay")
    return rate, 0.0 if decay is None else float(decay) if float(decay) > 0 else lib.NO_DECAY


def of_module(model: Any, params: Any = None, lr: float = 1.0, accumulate: int = 1) -> Layout:
    """Of a torch module, or of parameter groups alone (model None). A parameter that the module has twice (tied weights)
    is one tensor; one without requires_grad is left out. ``accumulate``: batches that go into a gradient, by which running
    averages move on. ModelError says what cannot be trained and what to do."""
    if model is not None:
        model = guards.unwrapped(model)
        guards.modules(model)
    groups = _group_list(model, params)
    names = _names(model, groups)
    lookups = _lookups(model) if model is not None else set()
    entries: List[Entry] = []
    frozen: List[Tuple[str, Any]] = []
    seen: Dict[int, int] = {}
    for at, group in enumerate(groups):
        rate, decay = _share(group, lr, at)
        for p in group["params"]:
            if id(p) not in names:
                raise ModelError(f"parameter group {at} has a tensor of shape {tuple(p.shape)} that is no parameter of the model")
            if id(p) in seen:
                if seen[id(p)] != at:
                    raise ModelError(f"parameter '{names[id(p)]}' is in the groups {seen[id(p)]} and {at}")
                continue
            seen[id(p)] = at
            guards.shaped(names[id(p)], p)
            if not p.requires_grad:
                frozen.append((names[id(p)], p))
            elif p.numel() > 0:
                guards.parameter(names[id(p)], p)
                flags = lib.TENSOR_NOT_MATRIX if id(p) in lookups else 0
                entries.append(Entry(names[id(p)], p, tuple(p.shape), rate, decay, flags=flags))
    if model is not None:
        if params is not None: # the model's others are not trained, as with an optimizer that is not given them
            frozen += [(name, p) for name, p in model.named_parameters() if id(p) not in seen and not p.requires_grad]
        entries += _averages(model, accumulate)
    entries = _apart(entries)
    _one_device(entries)
    trained = {id(entry.tensor) for entry in entries}
    kept = [{"params": [p for p in group["params"] if id(p) in trained], "lr": lr if group.get("lr") is None else group["lr"]}
            for group in groups]
    return Layout(entries, frozen, model, [group for group in kept if group["params"]])


_LANES = 16 # elements, from a multiple of it on, that a matrix of Muon's may not share with other rates


def _is_matrix(entry: Entry) -> bool:
    rows = entry.shape[0] if entry.shape else 1
    return (entry.flags & lib.TENSOR_NOT_MATRIX == 0 and entry.average == 0 and len(entry.shape) >= 2 and rows >= 2
            and entry.count // max(rows, 1) >= 2)


def _apart(entries: List[Entry]) -> List[Entry]:
    """The same, such that around a border of rates, decays or averages there is no matrix, as the rules of Muon want it: where
    there is one, small tensors of its group go between. As it was where that does not do."""
    found: List[Entry] = []
    at = 0
    runs = [list(run) for _, run in itertools.groupby(entries, lambda e: (e.rate, e.decay, e.average))]
    for i, run in enumerate(runs):
        size = sum(entry.count for entry in run)
        head = -at % _LANES
        tail = (at + size) % _LANES if i + 1 < len(runs) else 0
        found += _between(run, head, tail)
        at += size
    return found


def _lead(run: List[Entry]) -> int:
    """Elements in front of the first matrix."""
    return sum(entry.count for entry in itertools.takewhile(lambda e: not _is_matrix(e), run))


def _between(run: List[Entry], head: int, tail: int) -> List[Entry]:
    if not any(_is_matrix(entry) for entry in run) or (_lead(run) >= head and _lead(run[::-1]) >= tail):
        return run
    small = sorted((entry for entry in run if not _is_matrix(entry)), key=lambda e: e.count)
    taken: List[List[Entry]] = [[], []]
    for part, need in zip(taken, (head, tail)):
        while small and sum(entry.count for entry in part) < need:
            part.append(small.pop(0))
    first, last = taken
    rest = [entry for entry in run if not any(entry is other for other in first + last)]
    return first + rest + last


def _lookups(model: Any) -> "set[int]":
    """Parameters that are tables and no matrices, for Muon: embeddings."""
    import torch

    return {id(module.weight) for module in model.modules()
            if isinstance(module, (torch.nn.Embedding, torch.nn.EmbeddingBag))}


def _averages(model: Any, accumulate: int) -> List[Entry]:
    found: List[Entry] = []
    for name, module, momentum in guards.batch_norms(model):
        if not 0 < momentum <= 1:
            continue # they do not move
        for part in ("running_mean", "running_var"):
            buffer = getattr(module, part)
            whole = guards.plain_name(f"{name}.{part}" if name else part)
            guards.parameter(whole, buffer)
            found.append(Entry(whole, buffer, tuple(buffer.shape),
                               average=1 - (1 - momentum) ** accumulate))
    found.sort(key=lambda entry: entry.average) # neighbours share a range
    return found


def _one_device(entries: List[Entry]) -> None:
    for entry in entries:
        if entry.tensor.device.type not in ("cpu", "cuda"):
            raise ModelError(f"'{entry.name}' is on {entry.tensor.device}: the host and CUDA devices are possible")
        if entry.tensor.device != entries[0].tensor.device:
            raise ModelError(f"'{entry.name}' is on {entry.tensor.device} and '{entries[0].name}' on {entries[0].tensor.device}: a "
                             "worker's parameters are on one device")


# ---- from arrays ----


def of_arrays(arrays: Dict[str, Any]) -> Layout:
    """Of named arrays (numpy, torch) whose shapes alone count."""
    return Layout([Entry(name, array, tuple(int(size) for size in array.shape)) for name, array in arrays.items()])
