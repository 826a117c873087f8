"""Which clips are for training and which for validation: decided once, kept in split.json, read again afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .config import Config, Data
from .manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Rows of a manifest, ascending."""

    train: tuple[int, ...]
    validation: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSets:
    """What is trained on and what the best epoch is chosen by; two manifests, or two parts of the same."""

    train: Manifest
    train_rows: tuple[int, ...]
    validation: Manifest
    validation_rows: tuple[int, ...]


def split_of(manifest: Manifest, data: Data, seed: int, path: Path) -> Split:
    raise NotImplementedError


def clips_of(config: Config, folder: Path) -> ClipSets:
    raise NotImplementedError


def test_manifest(config: Config, classes: tuple[str, ...]) -> Manifest | None:
    raise NotImplementedError
