"""Labeled clips in, which of them are for training and which for validation out: decided once, kept in split.json.

Clips of one scene show the same people in the same place, so whole scenes are set aside. The file is read again by
whoever goes on, whatever the settings say by then. This module opens no video.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import BadInput, MissingInput, PlanMismatch
from ..files import write_bytes
from ..plan import counted
from .config import Config, Data
from .manifest import LabeledClip, Manifest, read_classes, read_manifest

LEGACY_SEED = 22  # whatever the seed of the training


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Rows of a manifest, ascending."""

    train: tuple[int, ...]
    validation: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSets:
    """What is trained on and what the best epoch is chosen by; two manifests, or two parts of the same one."""

    train: Manifest
    train_rows: tuple[int, ...]
    validation: Manifest
    validation_rows: tuple[int, ...]

    @property
    def left_out(self) -> int:
        """Clips of the training manifest in neither part: those that came after the split was made."""
        shown = self.validation_rows if self.validation is self.train else ()
        return len(self.train.clips) - len({*self.train_rows, *shown})


def clips_of(config: Config, folder: Path, *, anew: bool = False) -> ClipSets:
    """The clips that a training needs; a share of them for validation is drawn once and kept in folder/split.json.

    `anew`: drawn whether it is there or not. Clips to be judged at the end are looked for now, not after hours.

    Raises BadInput, MissingInput, PlanMismatch (the split is of other clips), WriteError.
    """
    data = config.data
    classes = read_classes(data.classes) if data.classes else None
    train = _read(data.train, config, classes)
    if isinstance(data.validation, str):
        validation = _read(data.validation, config, train.classes)
        split = Split(train=tuple(range(len(train.clips))), validation=tuple(range(len(validation.clips))))
    else:
        validation = train
        split = split_of(train, data, config.train.seed, folder / "split.json", anew=anew)
    for what, manifest, path in (("train", train, data.train), ("validation", validation, data.validation)):
        unlabeled = [clip.id for clip in manifest.clips if not clip.labeled]
        if unlabeled:
            found = counted(len(unlabeled), "clip")
            raise BadInput(f"{path} has {found} without labels, the first is {unlabeled[0]}: {what} has to have them")
    if len({frozenset(train.clips[row].labels) for row in split.train}) == 1:
        raise BadInput(f"all training clips of {data.train} have the same labels: there is nothing to tell apart")
    if config.judged_at_end:
        test_manifest(config, train.classes)
    return ClipSets(train=train, train_rows=split.train, validation=validation, validation_rows=split.validation)


def test_manifest(config: Config, classes: tuple[str, ...]) -> Manifest | None:
    """The clips of `data.test`, labeled or not, for a model of these classes; None where none are named."""
    return _read(config.data.test, config, classes) if config.data.test else None


def _read(path: str, config: Config, classes: tuple[str, ...] | None) -> Manifest:
    manifest = read_manifest(path, root=config.data.root, classes=classes)
    return long_enough(manifest, config.model.frames, path) if config.data.short == "drop" else manifest


def long_enough(manifest: Manifest, frames: int, path: str) -> Manifest:
    """Without the clips that have too few frames by the manifest's own word, whether that is true or not."""
    clips = tuple(clip for clip in manifest.clips if clip.frames is None or clip.frames >= frames)
    if not clips:
        raise BadInput(f"no clip of {path} has {frames} frames: take short = 'repeat'")
    return replace(manifest, clips=clips)


def split_of(manifest: Manifest, data: Data, seed: int, path: Path, *, anew: bool = False) -> Split:
    """What the file `path` says, which is written first if it is not there, or to be drawn `anew`.

    Raises PlanMismatch for a file that names other clips or is damaged, BadInput where the clips cannot be divided.
    """
    if path.exists() and not anew:
        return _read_split(manifest, path)
    share = float(data.validation)
    if data.split == "legacy":
        validation = drawn_by_class([_names(manifest, clip) for clip in manifest.clips], share)
    else:
        validation = drawn_by_scene(manifest.clips, share, seed)
    split = _sides(manifest, validation)
    if not (split.train and split.validation):
        raise BadInput(
            f"{counted(len(manifest.clips), 'clip')} of {counted(len({x.scene for x in manifest.clips}), 'scene')} "
            f"in {data.train} cannot be divided "
            "into training and validation: name a manifest of other clips as validation"
        )
    train, validation = ([manifest.clips[row].id for row in rows] for rows in (split.train, split.validation))
    found = {"split": data.split, "share": share, "seed": seed, "train": train, "validation": validation}
    write_bytes(path, json.dumps(found, indent=1).encode())
    return split


def drawn_by_scene(clips: tuple[LabeledClip, ...], share: float, seed: int) -> set[int]:
    """Rows for validation: whole scenes, about `share` of the clips, each class on both sides where that can be.

    One scene after the other is set aside, in an order drawn by `seed`: first those that bring the most classes per
    clip that validation lacks, then any. A scene stays if it is the last with one of its classes left to train on, or
    if without it the share is met more closely. Where all would stay, the smallest is set aside.
    """
    scenes: dict[str, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        scenes[clip.scene].append(row)
    if len(scenes) < 2:
        return set()
    shown = {scene: {label for row in rows for label in clips[row].labels} for scene, rows in scenes.items()}
    left = Counter(label for labels in shown.values() for label in labels)  # scenes for training that show it
    order = random.Random(seed).sample(list(scenes), len(scenes))
    lacking, missing_clips = {label for label, n in left.items() if n > 1}, share * len(clips)
    chosen: set[str] = set()

    def allowed(scene: str) -> bool:
        return len(scenes[scene]) < 2 * missing_clips and all(left[label] > 1 for label in shown[scene])

    def gain(scene: str) -> float:
        return len(shown[scene] & lacking) / len(scenes[scene]) if allowed(scene) else 0

    def take(scene: str) -> None:
        nonlocal missing_clips
        missing_clips -= len(scenes[scene])
        left.subtract(shown[scene])
        lacking.difference_update(shown[scene])
        chosen.add(scene)

    while gain(best := max(order, key=gain)):  # of equals, the first in the drawn order
        take(best)
    for scene in order:
        if scene not in chosen and allowed(scene):
            take(scene)
    return {row for scene in chosen or [min(order, key=lambda one: len(scenes[one]))] for row in scenes[scene]}


def drawn_by_class(labels: Sequence[Sequence[str]], share: float) -> set[int]:
    """Rows for validation as the program of 2022 drew them: of each class a share, at least one clip, rounded down.

    Clips with several labels may be drawn several times over, so that more than `share` of all are set aside. Python
    3.11 samples no sets any more; what older ones did was to sample a tuple of the set, whose order decides.
    """
    rows: dict[str, set[int]] = {}
    for row, names in enumerate(labels):
        for name in names:
            rows.setdefault(name, set()).add(row)
    generator = random.Random(LEGACY_SEED)
    drawn = (generator.sample(tuple(found), max(int(len(found) * share), 1)) for found in rows.values())
    return {row for some in drawn for row in some}


def _names(manifest: Manifest, clip: LabeledClip) -> list[str]:
    return [manifest.classes[label] for label in clip.labels]


def _sides(manifest: Manifest, validation: Collection[int]) -> Split:
    rows = range(len(manifest.clips))
    return Split(train=tuple(row for row in rows if row not in validation), validation=tuple(sorted(validation)))


def _read_split(manifest: Manifest, path: Path) -> Split:
    again = "put the manifest back that it was made of, train in a new folder, or begin anew (--resume no)"
    row_of = {clip.id: row for row, clip in enumerate(manifest.clips)}
    try:
        found = json.loads(path.read_bytes())
        train, validation = list(found["train"]), list(found["validation"])
        unknown = [name for name in [*train, *validation] if name not in row_of]
    except OSError as error:
        raise MissingInput(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise PlanMismatch(f"{path} is no split: it has to be a json of train and validation, lists of ids") from None
    if unknown:
        found = counted(len(unknown), "clip")
        raise PlanMismatch(f"{path} names {found} that the manifest lacks, the first is {unknown[0]}: {again}")
    if not (train and validation) or set(train) & set(validation):
        raise PlanMismatch(f"{path} is no split: clips have to be on both sides, and none on both at once")
    return Split(
        train=tuple(sorted(row_of[name] for name in train)),
        validation=tuple(sorted(row_of[name] for name in validation)),
    )
