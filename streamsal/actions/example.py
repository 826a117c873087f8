"""An example to learn from: tiny clips in which a bright spot moves twice, a recipe that learns them, and a grid.

A folder flows in, a data set of H.264 clips with its manifests and two configurations flow out, the same on every call.
This module knows nothing of networks.
"""

from __future__ import annotations

from pathlib import Path

RECIPE = "recipe.toml"
GRID = "order.toml"


def write_example(folder: Path) -> list[Path]:
    """Writes the data set, RECIPE and GRID into `folder`, and names what was written: the two configurations first."""
    raise NotImplementedError
