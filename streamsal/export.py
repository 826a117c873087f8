"""A run's maps as files for other programs: npy, npz, 16-bit PNG, CSV; pysaliency and BIDS by modules of their own.

In flow stored frames, one at a time; out comes one file per video (one folder of pictures for PNG), which appears when
it is whole. Memory holds one frame. Knows no video and no model.
"""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .drawing.png import encode_png
from .errors import UsageError
from .exported import COLUMNS, exported, read_map, summary, why_not
from .files import make_folder, replacing, write_bytes, writing
from .maps import Maps
from .merge import Run, open_run

if TYPE_CHECKING:
    from .index import VideoIndex

Format = Literal["npy", "npz", "png", "csv", "pysaliency", "bids"]


def export(
    run: Run | str | Path,
    output: str | Path,
    *,
    format: Format,
    video: str | None = None,
    start: int | str = 0,
    stop: int | str | None = None,
    every: int = 1,
    native: bool = False,
) -> list[Path]:
    """Write the run's first output for the stored frames in [start, stop), every so many; returns the paths written.

    `video`: one video of the run instead of all. `output` is the file itself where that is one video and the name ends
    in the format, else a folder that gets NAME.npy and so on. `start`, `stop`: a frame number, seconds ("4.8s") or a
    timecode. `native`: as it is stored instead of at the displayed size. Raises UsageError, WriteError and what reading
    the run raises.

    npy  float32 (T, H, W), memory-mappable, and NAME.json with the frame numbers, times and units
    npz  frame, pts_seconds, status and the maps in one file
    png  a folder NAME of 16-bit grey pictures, 000123.png for frame 123; NAME/scale.json says what grey means
    csv  one line per frame: peak, centroid (displayed pixels; the frame's middle is W / 2, H / 2), entropy,
         central mass; with `native`, quicker, peak density and entropy count stored pixels instead. Of a classifier one
         line per clip: its first frame, when it begins and ends in seconds, and a column per class, "class NAME" where
         NAME is that of another column

    pysaliency  predictions.hdf5 (or `output`, where it ends in .hdf5) with all videos: see `pysaliency_file`
    bids        the folder `output` as a BIDS derivative with a table per video: see `bids`

    Outputs that are one number per frame come with npy, npz, csv and bids.
    """
    output = Path(output)
    with nullcontext(run) if isinstance(run, Run) else open_run(run) as opened:
        names = opened.chosen(video)
        if format in ("pysaliency", "bids"):
            frames_of = {name: (opened[name], _frames(opened, name, start, stop, every)) for name in names}
            return _together(format, output, frames_of, native)
        write = {"npy": _npy, "npz": _npz, "png": _png, "csv": _csv}[format]
        single = format != "png" and len(names) == 1 and output.suffix == f".{format}"
        make_folder(output.parent if single else output)
        suffix = "" if format == "png" else f".{format}"
        paths = [output if single else output / f"{name}{suffix}" for name in names]
        for name, path in zip(names, paths, strict=True):
            frames = _frames(opened, name, start, stop, every)
            with writing(path):
                if format == "csv" and opened[name].first.labels:
                    _csv_of_labels(opened, name, frames, path)
                else:
                    write(opened[name], frames, path, native)
    return paths


def _together(format: Format, output: Path, frames_of: dict[str, tuple[Maps, list[int]]], native: bool) -> list[Path]:
    """The formats that hold all videos of a run."""
    if format == "bids":
        from .bids import write_derivative

        return write_derivative(output, frames_of, native=native)
    from .pysaliency_file import write_predictions

    path = output if output.suffix in (".hdf5", ".h5") else make_folder(output) / "predictions.hdf5"
    make_folder(path.parent)
    with writing(path):
        write_predictions(path, frames_of, native=native)
    return [path]


def _frames(run: Run, name: str, start: int | str, stop: int | str | None, every: int) -> list[int]:
    first, last = _frame(run, name, start), None if stop is None else _frame(run, name, stop)
    frames = list(run[name].frames(first, last, every))
    if not frames:
        raise UsageError(f"{name} has no stored frames from {start} to {'the end' if stop is None else stop}")
    return frames


def _frame(run: Run, name: str, position: int | str) -> int:
    """A position as a frame number; times are looked up in the video's index, which not every frame needs."""
    if str(position).isdecimal():
        return int(position)
    from .prepare import frame_at

    return frame_at(_index(run, name), position, name)


def _index(run: Run, name: str) -> VideoIndex:
    from .index import VideoIndex
    from .prepare import index_path

    return VideoIndex.load(index_path(run.folder, name))


def describe(maps: Maps, frames: list[int], native: bool) -> dict[str, Any]:
    """What a file of bare numbers does not say."""
    first = exported(maps, native)
    rows = np.searchsorted(maps.frame, frames)
    return {
        "video": maps.name,
        "model": str(maps.info["model"]),
        "weights_sha256": str(maps.info["weights_sha256"]),
        "output": first.name,
        "kind": first.kind,
        "units": first.units,
        "displayed_size": [maps.height, maps.width],
        "frame": frames,
        "pts_seconds": maps.pts_seconds[rows].tolist(),
        "status": maps.status[rows].tolist(),
        **({"labels": list(first.labels)} if first.labels else {}),
        **{name: [_number(value) for value in values[rows]] for name, values in maps.scalars.items()},
    }


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)  # JSON knows no NaN


def _npy(maps: Maps, frames: list[int], path: Path, native: bool) -> None:
    with replacing(path) as part, open(part, "wb") as file:
        _write_array(file, maps, frames, native)
    write_bytes(path.with_suffix(".json"), _json(describe(maps, frames, native)))


def _npz(maps: Maps, frames: list[int], path: Path, native: bool) -> None:
    rows = np.searchsorted(maps.frame, frames)
    small = {"frame": maps.frame, "pts_seconds": maps.pts_seconds, "status": maps.status, **maps.scalars}
    with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array[rows])
        with archive.open(f"{exported(maps, native).name}.npy", "w", force_zip64=True) as file:
            _write_array(file, maps, frames, native)


def _write_array(file: Any, maps: Maps, frames: list[int], native: bool) -> None:
    """(T, ...) float32 in .npy format, one frame in memory at a time."""
    shape = (len(frames), *read_map(maps, frames[0], native).shape)
    np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for frame in frames:
        file.write(np.ascontiguousarray(read_map(maps, frame, native), "<f4").tobytes())


def _png(maps: Maps, frames: list[int], folder: Path, native: bool) -> None:
    first = exported(maps, native)
    if first.kind not in ("log_density", "saliency_map"):
        raise UsageError(why_not(maps))
    if folder.exists() and not (folder / "scale.json").exists():
        raise UsageError(f"{folder} holds something else than exported pictures: give another folder")
    density, holes = first.kind == "log_density", set(maps.holes)
    seen = [frame for frame in frames if frame not in holes]
    peaks = np.array([read_map(maps, frame, native).max() for frame in seen], np.float32)
    highest = float(np.nanmax(peaks)) if np.isfinite(peaks).any() else float("nan")  # a model may have none to give
    grey = (
        f"density relative to the film's highest: exp(log_density - {highest!r}) * 65535"
        if density
        else f"{first.name} relative to the film's highest: value / {highest!r} * 65535"
    )
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        for frame in frames:
            values = read_map(maps, frame, native)
            relative = np.exp(values - highest) if density else np.maximum(values, 0) / highest
            samples = np.rint(np.nan_to_num(relative) * 65535).clip(0, 65535).astype(np.uint16)
            (unfinished / f"{frame:06d}.png").write_bytes(encode_png(samples))
        (unfinished / "scale.json").write_bytes(
            _json({**describe(maps, frames, native), "grey": grey, "holes": "black", "highest": highest})
        )
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _csv(maps: Maps, frames: list[int], path: Path, native: bool) -> None:
    first = exported(maps, native)
    if first.kind != "log_density":
        raise UsageError(why_not(maps))
    with replacing(path) as part, open(part, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*COLUMNS, *maps.scalars])
        for frame in frames:
            scalars = [f"{maps.output(name, frame):g}" for name in maps.scalars]
            table.writerow(["" if cell == "nan" else cell for cell in (*summary(maps, frame, native), *scalars)])


def _csv_of_labels(run: Run, name: str, frames: list[int], path: Path) -> None:
    from .vectors.embed import seconds_of, stored_clips

    maps, index = run[name], _index(run, name)
    seconds = np.stack(seconds_of(stored_clips(run, name, index), index), axis=1)
    with replacing(path) as part, open(part, "w", newline="") as file:
        table = csv.writer(file)
        known = ["start_frame", "start_seconds", "end_seconds", *maps.scalars]
        table.writerow([*known, *(f"class {label}" if label in known else label for label in maps.first.labels)])
        for frame, row in zip(frames, np.searchsorted(maps.frame, frames), strict=True):
            values = [*(scalar[row] for scalar in maps.scalars.values()), *maps.native(frame)]
            cells = ["" if np.isnan(value) else f"{value:g}" for value in values]
            table.writerow([frame, *(f"{time:.6f}" for time in seconds[row]), *cells])


def _json(facts: dict[str, Any]) -> bytes:
    return (json.dumps(facts, indent=1) + "\n").encode()
