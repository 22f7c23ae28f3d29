"""The offer: how the first worker that a launcher starts says what is to be trained.

A safetensors file with the initial parameters, in the engine's order, and in its metadata the tensors' shares, options for
the master and the job. It appears whole or not at all, and the first of several writers wins.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, List, Optional

from . import _arrays
from . import files
from ._layout import Layout, engine_name
from .settings import Settings


def write(path: str, layout: Layout, settings: Settings, job: str) -> bool:
    """Writes it unless it is there. True: it was this process."""
    if os.path.exists(path):
        return False
    metadata = {
        "gapless.offer": "1",
        "gapless.tensors": json.dumps(layout.described()),
        "gapless.options": json.dumps(settings.options()),
        "gapless.job": job,
        "gapless.gradients": str(int(settings.given.get("gradients", 0))),
    }
    initial = _arrays.flat([entry.tensor for entry in layout.entries])
    tensors = [(engine_name(entry.name), list(entry.engine_shape)) for entry in layout.entries]
    temporary = f"{path}.{os.getpid()}"
    try:
        files.write_floats(temporary, tensors, initial.view(), metadata)
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def tensors(path: Optional[str]) -> List[Dict[str, Any]]:
    """What an offer says of its tensors; [] if it cannot be read."""
    if not path:
        return []
    try:
        header, _ = files.header(path)
        return list(json.loads(header["__metadata__"]["gapless.tensors"]))
    except (OSError, ValueError, KeyError):
        return []
