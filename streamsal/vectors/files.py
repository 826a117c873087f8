"""Vectors as files for other programs: npy, h5, csd of the CMU Multimodal SDK.

In flow the rows of one video after the other; out come files that appear when they are whole. Knows only what rows
are, and reads back nothing of what it writes.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import h5py
import numpy as np

from ..blockfile import COMMIT_BYTES, BlockFile
from ..errors import UsageError
from ..files import make_folder, replacing, write_bytes, writing
from ..layout import H5
from .intervals import Rows, has_vector

FORMAT = "streamsal vectors 1"


def file_stems(videos: Sequence[str]) -> dict[str, str]:
    """{name of a video in the run: what its files are called}: without extension where that tells the videos apart."""
    stems = {video: PurePosixPath(video).stem for video in videos}
    count = Counter(stems.values())
    found = {video: stem if count[stem] == 1 and stem.strip(".") else video for video, stem in stems.items()}
    return found if len(set(found.values())) == len(found) else {video: video for video in videos}


def write_vectors(
    videos: Iterable[Rows], folder: str | Path, *, format: Literal["npy", "h5"], stems: Mapping[str, str]
) -> list[Path]:
    """Write one file (h5) or one set of files (npy) per video, named STEM_MODEL; returns the paths of the features.

    Each file appears when it is whole. npy: STEM_MODEL.npy (rows, D) float32, STEM_MODEL_timestamps.npy (rows, 2)
    float64 seconds, STEM_MODEL_NAME.npy for every array of `more`, and STEM_MODEL.json, which comes last and was
    removed first: where it lies beside them, the set is of one piece. h5: `features`, `intervals`, the columns and
    `more` as datasets, the facts as attributes.

    `stems`: of `file_stems`, of all videos of the run. Raises WriteError.
    """
    folder = make_folder(folder)
    write = {"npy": _npy, "h5": _h5}[format]
    return [write(rows, folder / f"{stems[rows.video]}_{_model(rows)}.{format}") for rows in videos]


def _npy(rows: Rows, path: Path) -> Path:
    described = path.with_suffix(".json")
    with writing(described):
        described.unlink(missing_ok=True)
    arrays = {"": rows.features.astype("<f4"), "_timestamps": rows.intervals.astype("<f8")}
    arrays.update({f"_{name}": array.astype("<f4") for name, array in rows.more.items()})
    for suffix, array in arrays.items():
        header = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(array))
        with replacing(path.with_name(f"{path.stem}{suffix}.npy")) as part, open(part, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.write(array.tobytes())  # np.save does not say that the disk is full, only that less was written
    columns = {name: column.tolist() for name, column in rows.columns.items()}
    facts = {"format": FORMAT, "video": rows.video, **rows.facts, **columns}
    write_bytes(described, (json.dumps(facts, default=_plain) + "\n").encode())
    return path


def _h5(rows: Rows, path: Path) -> Path:
    with _new_h5(path) as (h5, _):
        h5.attrs.update({"format": FORMAT, "video": rows.video, **_attributes(rows.facts)})
        h5.create_dataset("features", data=rows.features.astype("<f4"))
        h5.create_dataset("intervals", data=rows.intervals)
        for name, array in {**rows.columns, **rows.more}.items():
            h5.create_dataset(name, data=array)
    return path


@contextmanager
def _new_h5(path: Path) -> Iterator[tuple[H5, BlockFile]]:
    with replacing(path) as part:
        file = BlockFile(part)
        try:
            with h5py.File(file, "w") as h5:
                yield h5, file
                h5.flush()
                file.commit()
        finally:
            file.close()


def _attributes(facts: Mapping[str, Any]) -> dict[str, Any]:
    """HDF5 knows neither None nor mappings: those are left out or become JSON."""
    return {
        name: value if isinstance(value, (str, bool, int, float, np.generic)) else json.dumps(value, default=_plain)
        for name, value in facts.items()
        if value is not None
    }


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy, as attributes of HDF5 files are, for JSON."""
    return value.tolist()


def _model(rows: Rows) -> str:
    """The model's name as a part of file names; a model of the user's own is named by its file."""
    return re.sub(r"[^\w.-]", "_", PurePosixPath(str(rows.facts["model"])).name)


# What the check of the CMU Multimodal SDK asks for (mmdatasdk/configurations/metadataconfigs.py). Its list lacks a
# comma, so that it looks for two of the names run together.
CSD_METADATA = (
    "root name",
    "computational sequence description",
    "dimension names",
    "computational sequence version",
    "dimension namescomputational sequence version",
    "alignment compatible",
    "dataset name",
    "dataset version",
    "creator",
    "contact",
    "featureset bib citation",
    "dataset bib citation",
)


def csd_ids(stems: Mapping[str, str]) -> dict[str, str]:
    """{name of a video in the run: its id in a csd file}: the stem, with parentheses where it has brackets.

    The SDK takes what follows "[" in an id for the number of a segment. Raises UsageError where two become the same.
    """
    ids = {video: stem.translate(str.maketrans("[]/", "()_")) for video, stem in stems.items()}
    if len(set(ids.values())) < len(ids):
        raise UsageError("two videos would get the same id in the csd file: rename one, brackets become parentheses")
    return ids


def write_csd(videos: Iterable[Rows], path: str | Path, *, stems: Mapping[str, str], array: str = "features") -> Path:
    """Write a computational sequence of the CMU Multimodal SDK: one file for all videos, one after the other.

    ROOT/data/ID/features (rows, D) float32, ROOT/data/ID/intervals (rows, 2) float64 seconds, ROOT/metadata; ROOT is
    the file's name without .csd. A sequence holds one array: the features, or one of `more`. Rows without a vector
    are left out, for the SDK's averages know no NaN. Raises UsageError, WriteError.
    """
    path, ids = Path(path), csd_ids(stems)
    make_folder(path.parent)
    root, facts = path.stem, {}
    with _new_h5(path) as (h5, file):
        data = h5.create_group(f"{root}/data")
        for rows in videos:
            facts = facts or dict(rows.facts)
            if array != "features" and array not in rows.more:
                raise UsageError(f"{rows.video} has no {array}: it has {', '.join(['features', *rows.more])}")
            values = rows.features if array == "features" else rows.more[array]
            known = has_vector(values)
            group = data.create_group(ids[rows.video])
            group.create_dataset("features", data=values[known].astype("<f4"))
            group.create_dataset("intervals", data=rows.intervals[known])
            if file.pending_bytes > COMMIT_BYTES:
                h5.flush()
                file.commit()
        metadata = h5.create_group(f"{root}/metadata")
        for name, value in _csd_metadata(root, facts).items():
            metadata.create_dataset(name, data=[json.dumps(value)], dtype=h5py.string_dtype())
    return path


def _csd_metadata(root: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    described = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
    values = dict.fromkeys(CSD_METADATA, "") | {
        "root name": root,
        "computational sequence description": f"streamsal vectors: {described}",
        "dimension names": [],
        "alignment compatible": True,
        "creator": "streamsal",
    }
    return {**values, "uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(values))), "md5": None}
