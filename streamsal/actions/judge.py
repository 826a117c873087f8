"""A trained classifier and clips it has not seen in, what it is worth out: the flow of `streamsal test`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import Progress
from ..signals import Stop
from .config import Test
from .scores import Scores

if TYPE_CHECKING:
    from .processes import Processes


def judge(
    trained: str | Path,
    manifest: str | Path = "",
    *,
    test: Test | None = None,
    output: str | Path | None = None,
    npy: bool = False,
    answer: bool = False,
    plots: bool = True,
    processes: Processes,
    workers: int | None = None,
    dtype: str = "auto",
    progress: Progress | None = None,
    stop: Stop = lambda: "",
) -> Scores | None:
    """None where the clips have no labels."""
    raise NotImplementedError
