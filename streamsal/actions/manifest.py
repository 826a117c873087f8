"""A manifest in (TinyVIRAT's json of version 1 or 2, or a csv), labeled clips out, every file of which is there.

What a manifest says of a clip's length and size is kept, but nobody decodes by it: some say more frames than there are.
This module opens no video and knows nothing of splits or training.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import BadInput, MissingInput
from ..plan import counted

CLASS_FILES = ("classes.txt", "class_map.json")  # of TinyVIRAT version 1 and 2, looked for beside the manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledClip:
    """One clip. `labels` are indices of classes, in the manifest's order; `scene` names clips that must not be divided
    between training and validation; `frames` is the manifest's word only, if it says any; a clip of which nobody said
    what it shows is not `labeled`, which is not the same as showing none of the classes."""

    id: str
    path: Path
    labels: tuple[int, ...]
    scene: str
    frames: int | None = None
    labeled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    classes: tuple[str, ...]
    clips: tuple[LabeledClip, ...]

    def targets(self) -> np.ndarray:
        """(n, classes) uint8: 1 where the clip shows the class."""
        found = np.zeros((len(self.clips), len(self.classes)), np.uint8)
        for row, clip in enumerate(self.clips):
            found[row, list(clip.labels)] = 1
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A clip as its manifest has it; `labels` None where it says nothing of them."""

    id: str
    path: str
    labels: tuple[str, ...] | None
    scene: str
    frames: int | None


def read_manifest(path: str | Path, *, root: str | Path = "", classes: Sequence[str] | None = None) -> Manifest:
    """The clips of a manifest in its order, with files in `root`, else beside it.

    Both may hold TinyVIRAT's own tree: videos/train, videos/val or videos/test, by the manifest's name.
    `classes` None: what a file of classes beside the manifest says, else its labels, sorted.
    Raises MissingInput for a manifest or clips that are not there, BadInput for what makes no sense.
    """
    path = Path(path)
    entries = list(_csv_entries(path) if path.suffix.lower() == ".csv" else _json_entries(path))
    if not entries:
        raise BadInput(f"{path} lists no clips: name another manifest")
    repeated = [name for name, times in Counter(entry.id for entry in entries).items() if times > 1]
    if repeated:
        found = counted(len(repeated), "id")
        raise BadInput(f"{path} has {found} more than once, the first is {repeated[0]}: make them unique")
    names = tuple(classes) if classes is not None else _classes_beside(path) or _classes_in(entries, path)
    folder = _folder_of_videos(entries, path, Path(root or path.parent))
    index = {name: number for number, name in enumerate(names)}
    clips = tuple(
        LabeledClip(
            id=entry.id,
            path=folder / entry.path,
            labels=_indices(entry, index, path),
            scene=entry.scene,
            frames=entry.frames,
            labeled=entry.labels is not None,
        )
        for entry in entries
    )
    missing = [clip.path for clip in clips if not os.path.isfile(clip.path)]
    if missing:
        raise MissingInput(
            f"{len(missing)} of the {len(clips)} clips of {path} are not there, the first is {missing[0]}: "
            "put them there, or name the folder that they are in as root"
        )
    return Manifest(classes=names, clips=clips)


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Names in the order of their index, from a text of one per line, or a json of name -> index or of names.

    Raises MissingInput, BadInput.
    """
    path, text = Path(path), _text(Path(path))
    if path.suffix.lower() != ".json":
        names = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        found = _parsed(text, path)
        if isinstance(found, dict):
            if sorted(found.values(), key=str) != sorted(range(len(found)), key=str):
                raise BadInput(f"{path} is no list of classes: indices have to be 0 ... {len(found) - 1}, each once")
            found = sorted(found, key=found.__getitem__)
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise BadInput(f"{path} is no list of classes: it has to be a json of name -> index, or a list of names")
        names = found
    if not names or len(set(names)) < len(names):
        raise BadInput(f"{path} is no list of classes: it needs names, each once")
    return tuple(names)


def _classes_beside(path: Path) -> tuple[str, ...]:
    beside = (path.parent / name for name in CLASS_FILES)
    return next((read_classes(file) for file in beside if file.is_file()), ())


def _classes_in(entries: list[_Entry], path: Path) -> tuple[str, ...]:
    names = tuple(sorted({label for entry in entries for label in entry.labels or ()}))
    if not names:
        raise BadInput(
            f"{path} has no labels (column labels of a csv, label in the entries of a json), "
            f"and no {' or '.join(CLASS_FILES)} beside it: name a file of classes"
        )
    return names


def _indices(entry: _Entry, index: dict[str, int], path: Path) -> tuple[int, ...]:
    for label in entry.labels or ():
        if label not in index:
            known = textwrap.shorten(", ".join(index), 1000, placeholder=" ...")
            raise BadInput(f"clip {entry.id} of {path} has the label {label!r}, which is none of the classes: {known}")
    return tuple(dict.fromkeys(index[label] for label in entry.labels or ()))


def _folder_of_videos(entries: list[_Entry], path: Path, base: Path) -> Path:
    """Of the places in `base` where clips may be, the first that has any; where none has, the most likely one."""
    part = re.search("train|val|test", path.stem)
    places = [base / "videos" / part[0]] if part else []
    places = [place for place in (*places, base / "videos", base) if place.is_dir()]
    return next((place for place in places if any((place / one.path).is_file() for one in entries)), (*places, base)[0])


def _json_entries(path: Path) -> Iterator[_Entry]:
    found = _parsed(_text(path), path)
    tubes = found.get("tubes") if isinstance(found, dict) else found
    if not isinstance(tubes, list):
        raise BadInput(f'{path} is no manifest: it has to be a list of clips, or {{"tubes": [...]}}')
    for number, tube in enumerate(tubes):
        try:
            yield _entry_of_tube(tube)
        except (TypeError, KeyError, ValueError, OverflowError):
            shown = textwrap.shorten(json.dumps(tube), 200, placeholder=" ...")
            raise BadInput(
                f"{path} is no manifest: its entry {number} has to have a path and labels, not {shown}"
            ) from None


def _entry_of_tube(tube: dict[str, Any]) -> _Entry:
    """Raises TypeError, KeyError, ValueError or OverflowError for what is none."""
    path, label, dim = tube["path"], tube.get("label"), tube.get("dim")
    labels = [label] if isinstance(label, str) else label
    if not isinstance(path, str) or not all(isinstance(name, str) for name in labels or ()):
        raise TypeError
    return _Entry(
        id=str(tube.get("id", path)),
        path=path,
        labels=None if labels is None else tuple(filter(None, map(str.strip, labels))),
        scene=_scene(path),
        frames=int(dim[0]) if dim else None,
    )


def _csv_entries(path: Path) -> Iterator[_Entry]:
    rows = csv.DictReader(io.StringIO(_text(path), newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in rows.fieldnames or ()]
        if "path" not in header:
            raise BadInput(
                f"{path} is no manifest: its first line has to name the columns, separated by commas, "
                "path and labels among them"
            )
        rows.fieldnames = header
        for row in rows:
            if None in row or not (row["path"] or "").strip():
                raise BadInput(f"line {rows.line_num} of {path} does not fit its first line: {','.join(header)}")
            yield _entry_of_row({name: text.strip() for name, text in row.items() if text is not None})
    except csv.Error as error:
        raise BadInput(f"{path} is no csv: {error}, in line {rows.reader.line_num} or above") from None


def _entry_of_row(row: dict[str, str]) -> _Entry:
    labels = row.get("labels")
    return _Entry(
        id=row.get("id") or row["path"],
        path=row["path"],
        labels=None if labels is None else tuple(filter(None, map(str.strip, re.split("[;|]", labels)))),
        scene=row.get("scene") or _scene(row["path"]),
        frames=None,
    )


def _scene(path: str) -> str:
    """Segments of one VIRAT recording, VIRAT_S_000205_02_... and VIRAT_S_000205_05_..., show the same place and day;
    of other data sets, a folder holds what belongs together."""
    recording = re.search(r"VIRAT_S_\d+", path)
    folder = str(PurePosixPath(path).parent)
    return recording[0] if recording else path if folder == "." else folder


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise MissingInput(f"{path} cannot be read ({error.strerror}): name a file that is there") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text in UTF-8: save it as that") from None
    if "\0" in text:
        raise BadInput(f"{path} is no text: it has bytes of 0")
    return text


def _parsed(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no json: {error}") from None
