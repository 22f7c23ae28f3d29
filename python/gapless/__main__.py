"""``python3 -m gapless``: which library the package found, and what it says of this machine."""

from __future__ import annotations

import ctypes
import sys

from . import __version__, _library
from .errors import GaplessError


def main() -> int:
    """Prints it; 1 where no library was found."""
    print(f"gapless {__version__}, Python {sys.version.split()[0]}")
    try:
        library = _library.load()
    except GaplessError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"library: {library.path}")
    for name, survey in (("network", library.network_survey), ("devices", library.device_survey)):
        text = ctypes.create_string_buffer(4096)
        survey(text, len(text))
        found = text.value.decode("utf-8", "replace").rstrip() or "none, so workers are of this machine"
        print(f"{name}: " + found.replace("\n", "\n  "))
    try:
        import torch

        print(f"torch: {torch.__version__}")
    except ImportError:
        print("torch: not installed; Worker needs it, Observer, Master and simulate of arrays do not")
    return 0


if __name__ == "__main__":
    sys.exit(main())
