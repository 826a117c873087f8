"""A model's answer for every frame of a long video: exact, resumable, without cutting the video into pieces.

Names are looked up when they are used, so that `import streamsal` costs nothing: no torch, no av, no h5py.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .decode import decode
    from .engine import Chunk, predict, stream
    from .errors import StreamsalError
    from .index import index_video
    from .merge import merge, open_run
    from .models import create_model
    from .render import render

_HOME = {
    "Chunk": "engine",
    "StreamsalError": "errors",
    "create_model": "models",
    "decode": "decode",
    "index_video": "index",
    "merge": "merge",
    "open_run": "merge",
    "predict": "engine",
    "render": "render",
    "stream": "engine",
}

__all__ = [
    "Chunk",
    "StreamsalError",
    "create_model",
    "decode",
    "index_video",
    "merge",
    "open_run",
    "predict",
    "render",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'streamsal' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(types.ModuleType):
    """Where a public function and its module share a name (decode, merge, render), the name is the function's.

    Importing a submodule sets it as an attribute of its package, and would hide the function from then on.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
