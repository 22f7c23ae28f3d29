"""safetensors: models as files, with the names of ``state_dict``.

>>> gapless.save(model, "model.safetensors")
>>> gapless.load("model.safetensors", into=model)
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from .errors import FileCorrupt, ModelError

_HEADER_MAX = 100 << 20 # bytes; the format's own limit
# dtype: (numpy's, torch's name, bytes)
_KINDS: Dict[str, Tuple[str, str, int]] = {
    "F64": ("<f8", "float64", 8), "F32": ("<f4", "float32", 4), "F16": ("<f2", "float16", 2),
    "BF16": ("", "bfloat16", 2), "I64": ("<i8", "int64", 8), "I32": ("<i4", "int32", 4), "I16": ("<i2", "int16", 2),
    "I8": ("|i1", "int8", 1), "U8": ("|u1", "uint8", 1), "BOOL": ("|b1", "bool", 1)}


def header(path: Union[str, "os.PathLike[str]"]) -> Tuple[Dict[str, Any], int]:
    """The header of a file, and where its data begins, in bytes. FileCorrupt says what is wrong with it."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise FileCorrupt(f"{os.fspath(path)} is no safetensors file: it has {size} bytes")
        length = struct.unpack("<Q", start)[0]
        if length > min(_HEADER_MAX, size - 8):
            raise FileCorrupt(f"{os.fspath(path)} is no safetensors file, or truncated: its header has {length} bytes, the file "
                              f"{size}")
        try:
            found = json.loads(file.read(length))
        except ValueError as reason:
            raise FileCorrupt(f"{os.fspath(path)}: its header is no JSON: {reason}") from None
    if not isinstance(found, dict):
        raise FileCorrupt(f"{os.fspath(path)}: its header is no JSON object")
    for name, tensor in found.items():
        if name != "__metadata__":
            _check_tensor(os.fspath(path), name, tensor, size - 8 - length)
    return found, 8 + length


def _check_tensor(path: str, name: str, tensor: Any, bytes_max: int) -> None:
    try:
        kind, shape, (begin, end) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        count = 1
        for size in shape:
            count *= size
        good = kind in _KINDS and 0 <= begin <= end <= bytes_max and end - begin == count * _KINDS[kind][2]
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise FileCorrupt(f"{path}: tensor '{name}' is not possible in this file ({tensor!r}): it is truncated or damaged")


def load(path: Union[str, "os.PathLike[str]"], into: Any = None, strict: bool = True) -> Dict[str, Any]:
    """The tensors of a file by name: torch's if torch can be imported, else numpy's.

    ``into``: a torch module that gets them. ``strict``: all of its parameters must be in the file (its buffers may be
    missing: a file that a master wrote has those it averages), and all of the file in it. Names that the engine had to
    shorten are found. FileCorrupt, ModelError (the first difference is named), OSError.
    """
    head, at = header(path)
    found: Dict[str, Any] = {}
    with open(path, "rb") as file:
        for name, tensor in head.items():
            if name == "__metadata__":
                continue
            begin, end = tensor["data_offsets"]
            file.seek(at + begin)
            found[name] = _tensor(bytearray(file.read(end - begin)), tensor["dtype"], tensor["shape"])
    if into is not None:
        _put(os.fspath(path), found, into, strict)
    return found


def _tensor(data: bytearray, kind: str, shape: Sequence[int]) -> Any:
    try:
        import torch
    except ImportError:
        import numpy

        if not _KINDS[kind][0]:
            raise FileCorrupt(f"tensors of {kind} need torch") from None
        return numpy.frombuffer(data, dtype=_KINDS[kind][0]).reshape(shape)
    dtype = getattr(torch, _KINDS[kind][1])
    if not data:
        return torch.zeros(list(shape), dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(list(shape))


def _put(path: str, found: Dict[str, Any], model: Any, strict: bool) -> None:
    import torch

    from . import guards
    from ._layout import engine_name

    model = guards.unwrapped(model)
    state = model.state_dict(keep_vars=True)
    parameters = {id(p) for p in model.parameters()}
    first: Dict[int, str] = {} # a tensor that has two names is in a master's file once
    used = set()
    with torch.no_grad():
        for name, tensor in state.items():
            plain = guards.plain_name(name)
            key = next((k for k in (name, plain, engine_name(plain)) if k in found), None)
            if key is None and id(tensor) in first:
                continue
            if key is None:
                if strict and id(tensor) in parameters:
                    raise ModelError(f"{path} has no tensor '{name}', which the model has; strict=False leaves it as it is")
                continue
            if found[key].numel() != tensor.numel():
                raise ModelError(f"'{name}' has the shape {tuple(tensor.shape)} in the model and {tuple(found[key].shape)} in {path}")
            tensor.copy_(found[key].reshape(tensor.shape))
            first[id(tensor)] = name
            used.add(key)
    if strict and set(found) - used:
        raise ModelError(f"{path} has a tensor '{sorted(set(found) - used)[0]}', which the model has not; strict=False ignores it")


def save(model: Any, path: Union[str, "os.PathLike[str]"], metadata: Optional[Dict[str, str]] = None) -> None:
    """Writes a torch module, or a dict of arrays by name, as safetensors: to a temporary file beside it, which takes the
    place of ``path`` when it is whole. ``metadata``: texts by name. OSError."""
    tensors = model if isinstance(model, dict) else _state(model)
    head: Dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    parts: List[bytes] = []
    at = 0
    for name, tensor in tensors.items():
        kind, data = _bytes_of(name, tensor)
        head[name] = {"dtype": kind, "shape": [int(size) for size in tensor.shape], "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    _write(os.fspath(path), head, parts)


def _state(model: Any) -> Dict[str, Any]:
    from . import guards

    return {guards.plain_name(name): tensor for name, tensor in guards.unwrapped(model).state_dict().items()}


def _bytes_of(name: str, tensor: Any) -> Tuple[str, bytes]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tensor, torch.Tensor):
        kinds = {torch_name: kind for kind, (_, torch_name, _) in _KINDS.items()}
        kind = kinds.get(str(tensor.dtype).replace("torch.", ""))
        if kind is None:
            raise ModelError(f"'{name}' is of {tensor.dtype}, which safetensors does not have")
        plain = tensor.detach().cpu().reshape(-1)
        raw = plain.view(torch.int16) if kind == "BF16" else plain # numpy has no bfloat16
        return kind, raw.numpy().tobytes()
    kinds = {numpy_name: kind for kind, (numpy_name, _, _) in _KINDS.items() if numpy_name}
    kind = kinds.get(tensor.dtype.str)
    if kind is None:
        raise ModelError(f"'{name}' is of {tensor.dtype}, which safetensors does not have")
    return kind, tensor.tobytes()


def write_floats(path: str, tensors: Sequence[Tuple[str, List[int]]], data: memoryview, metadata: Dict[str, str]) -> None:
    """Writes tensors of 32-bit floats that lie one after another in ``data``, to ``path`` itself."""
    head: Dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    at = 0
    for name, shape in tensors:
        count = 1
        for size in shape:
            count *= size
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * count]}
        at += 4 * count
    _write_to(path, head, [data.cast("B")])


def _write(path: str, head: Dict[str, Any], parts: Sequence[Any]) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        _write_to(temporary, head, parts)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _write_to(path: str, head: Dict[str, Any], parts: Sequence[Any]) -> None:
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
