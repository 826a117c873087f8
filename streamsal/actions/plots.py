"""Pictures of training and of its scores, for a person to look at: log, scores, clips in, PNG files out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .scores import Scores


def plot_log(log: Path, path: Path) -> Path:
    raise NotImplementedError


def plot_classes(scores: dict[str, Scores], path: Path) -> Path:
    raise NotImplementedError


def plot_mistakes(scores: Any, path: Path) -> Path:
    raise NotImplementedError


def plot_resized(clips: Any, path: Path) -> Path:
    raise NotImplementedError
