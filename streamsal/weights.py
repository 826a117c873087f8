"""Checkpoints and templates that models need: what they are, where they lie on this machine.

In: the name of an asset. Out: the path of its file in the cache. Knows no model and nothing of what is inside a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from .errors import MissingWeights, UsageError

FILES = {
    "deepgaze_iie": "deepgaze2e.pth",
    "deepgaze_iii": "deepgaze3.pth",
    "deepgaze_i": "deepgaze1.pth",
    "deepgaze_mr": "deepgazemr-ledov.pt",
    "centerbias_mit1003": "centerbias_mit1003.npy",
    "centerbias_ledov": "center-bias-ledov.pt",
}


def find(asset: str) -> Path:
    """The cached file of an asset. Raises MissingWeights with the lines to type."""
    if asset not in FILES:
        raise UsageError(f"no weights are named {asset!r}: known are {', '.join(FILES)}")
    path = cache() / FILES[asset]
    if not path.exists():
        raise MissingWeights(f"{asset} is not here: run `streamsal weights fetch {asset}`")
    return path


def cache() -> Path:
    home = os.environ.get("STREAMSAL_HOME")
    return Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamsal"
