"""The shards of a run, read: which are whole, what is in them, and whether they belong together.

In flow a plan and RUN/shards; out come the stored parts of each video, their small arrays read, their large datasets
left in the files. A shard that is missing, unfinished or of another plan is named with the task that mends it. Nothing
is written here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .blockfile import open_h5
from .errors import BadInput, IncompleteRun
from .layout import (
    CONSTANTS,
    DONE,
    FORMAT,
    H5,
    HISTORY,
    NOT_COMPUTED,
    alike,
    load_outputs,
    offset_name,
    read_constant,
    read_row,
)
from .maps import Segment, damaged_constant, damaged_frame
from .models.spec import Output
from .plan import Plan, array_spec, tasks_named
from .store import shard_path


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """One video's group of one whole shard: its small arrays, and what its large datasets are like.

    `datasets` {output: (shape of one frame, dtype)}. `constants` {name: checksum}. `history`: the attributes that may
    differ between shards.
    """

    video: str
    shard: int
    path: Path
    outputs: tuple[Output, ...]
    derived: tuple[Output, ...]
    history: Mapping[str, str]
    arrays: Mapping[str, np.ndarray]
    datasets: Mapping[str, tuple[tuple[int, ...], np.dtype]]
    constants: Mapping[str, int]

    @property
    def segment(self) -> Segment:
        return Segment(first_row=0, path=self.path, group=self.video, shard=self.shard)

    @property
    def n_rows(self) -> int:
        return len(self.arrays["frame"])


class Unfinished(Exception):
    """Why a shard cannot be used, in a few words."""


def whole_shards(run: Path, plan: Plan, video: int | None = None) -> dict[int, dict[str, StoredPart]]:
    """Every shard of the plan by number, or those that hold a part of one video; IncompleteRun if any is not whole."""
    found: dict[int, dict[str, StoredPart]] = {}
    missing: dict[int, str] = {}
    for number, shard in enumerate(plan.shards):
        if not shard or (video is not None and all(part.video != video for part in shard)):
            continue
        try:
            found[number] = read_shard(run, number, plan)
        except Unfinished as reason:
            missing[number] = str(reason)
    if missing:
        raise _not_done(run, missing)
    return found


def _not_done(run: Path, missing: Mapping[int, str]) -> IncompleteRun:
    reasons = [f"{number}: {reason}" for number, reason in missing.items()]
    few = "; ".join([*reasons[:5], *(["..."] if len(reasons) > 5 else [])])
    spec = array_spec(missing)
    if len(missing) == 1:
        what = f"is not done ({few}): run `streamsal infer {run} --task-id {spec}`"
    else:
        what = f"are not done ({few}): run them (`streamsal infer {run} --task-id K`, or a job array of {spec})"
    return IncompleteRun(f"{tasks_named(list(missing))} of {run} {what} and merge again")


def read_shard(run: Path, number: int, plan: Plan) -> dict[str, StoredPart]:
    """The parts of a whole shard by video. Raises Unfinished."""
    path = shard_path(run, number)
    try:
        with open_h5(path) as file:
            h5: H5 = file
            if h5.attrs["format"] != FORMAT:
                raise Unfinished("written by another version")
            if h5.attrs["plan_id"] != plan.id:
                raise Unfinished("of another plan")
            parts = [_read_part(path, number, h5, plan.videos[part.video].name) for part in plan.shards[number]]
            if not h5.attrs["complete"]:
                raise Unfinished("not finished")
    except FileNotFoundError:
        raise Unfinished("missing") from None
    except BlockingIOError:
        raise Unfinished("still being written") from None
    except (OSError, RuntimeError, KeyError, ValueError):
        raise Unfinished("unreadable") from None
    for part, planned in zip(parts, plan.shards[number], strict=True):
        rows, frames = plan.owned(planned), part.arrays["frame"]
        clips = plan.videos[planned.video].clips is not None  # which begin at frames that the plan does not list
        if len(frames) != len(rows) or not (clips or np.array_equal(frames, np.array(rows))):
            raise Unfinished("not the frames of the plan")
    return {part.video: part for part in parts}


def _read_part(path: Path, number: int, h5: H5, video: str) -> StoredPart:
    group: H5 = h5[video]
    attributes: H5 = group.attrs
    outputs = load_outputs(attributes["outputs"])
    arrays = {name: group[name][...] for name in ("frame", "pts_seconds", "status")}
    n_rows, committed = len(arrays["frame"]), int(attributes["committed"])
    if committed < n_rows or np.any(arrays["status"] == NOT_COMPUTED):
        raise Unfinished(f"{committed} of {n_rows} frames")
    n_done = int((arrays["status"] == DONE).sum())
    datasets = {}
    for output in outputs:
        dataset = group[output.name]
        if output.scalar:
            arrays[output.name] = dataset[...]
            continue
        if dataset.shape[0] != n_rows or dataset.id.get_num_chunks() != n_done:
            raise Unfinished("unreadable")
        datasets[output.name] = (dataset.shape[1:], dataset.dtype)
        for name in (f"{output.name}_crc32", offset_name(output)):
            if name:
                arrays[name] = group[name][...]
    return StoredPart(
        video=video,
        shard=number,
        path=path,
        outputs=outputs,
        derived=load_outputs(attributes.get("derived", "[]")),
        history={name: attributes[name] for name in HISTORY},
        arrays=arrays,
        datasets=datasets,
        constants={
            name: int(group[CONSTANTS][name].attrs["crc32"]) for name in json.loads(attributes.get("constants", "[]"))
        },
    )


def check_bytes(parts: Mapping[str, StoredPart]) -> None:
    """Read everything in one shard. Raises BadInput naming the first frame that is not what was written."""
    for part in parts.values():
        for name in part.constants:
            _read_constant(part, name)
        with open_h5(part.path) as file:
            h5: H5 = file
            for name in part.datasets:
                dataset, crcs = h5[part.video][name], part.arrays[f"{name}_crc32"]
                for row in np.flatnonzero(part.arrays["status"] == DONE):
                    try:
                        _, crc32 = read_row(dataset, int(row))
                    except ValueError:
                        crc32 = None
                    if crc32 != crcs[row]:
                        raise damaged_frame(part.video, int(part.arrays["frame"][row]), part.segment)


def _read_constant(part: StoredPart, name: str) -> np.ndarray:
    try:
        with open_h5(part.path) as h5:
            return read_constant(h5[part.video], name)
    except (OSError, RuntimeError, KeyError, ValueError):
        raise damaged_constant(part.video, name, part.segment) from None


def shared_constants(parts: list[StoredPart]) -> dict[str, np.ndarray]:
    """Those of the first shard. Raises BadInput where another shard was computed with others."""
    first = parts[0]
    found = {name: _read_constant(first, name) for name in first.constants}
    for part in parts[1:]:
        for name, array in found.items():
            if part.constants[name] != first.constants[name] and not alike(array, _read_constant(part, name)):
                raise BadInput(
                    f"{part.path} was computed with another {name} of {part.video} than {first.path}: "
                    f"delete the wrong one, run {part.segment.command} or {first.segment.command} and merge again"
                )
    return found


def joined_attributes(parts: list[StoredPart]) -> dict[str, Any]:
    """Those of the first part, with the range of all of them and every device they were computed on."""
    with open_h5(parts[0].path) as h5:
        info: dict[str, Any] = dict(h5[parts[0].video].attrs)
    del info["committed"]
    info["stop"] = np.int64(parts[-1].arrays["frame"][-1] + 1)
    for name in HISTORY:
        info[name] = "; ".join(dict.fromkeys(x for part in parts for x in part.history[name].split("; ")))
    return info


def joined_arrays(parts: list[StoredPart]) -> dict[str, np.ndarray]:
    """The small arrays of all parts, one after another, and which shard each row is from."""
    arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    arrays["shard"] = np.repeat(np.array([part.shard for part in parts], np.int32), [part.n_rows for part in parts])
    return arrays


def joined_chunks(name: str, parts: list[StoredPart]) -> Iterator[tuple[int, bytes]]:
    """Compressed frames of one output with their row in the merged file."""
    first_row, corner = 0, (0,) * len(parts[0].datasets[name][0])
    for part in parts:
        with open_h5(part.path) as file:
            h5: H5 = file
            chunks = h5[part.video][name].id
            for row in np.flatnonzero(part.arrays["status"] == DONE):
                try:
                    _, chunk = chunks.read_direct_chunk((int(row), *corner))
                except (OSError, RuntimeError):
                    raise damaged_frame(part.video, int(part.arrays["frame"][row]), part.segment) from None
                yield first_row + int(row), chunk
        first_row += part.n_rows
