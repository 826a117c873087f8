"""Shards become one file per video, or one object to read from.

In flow a plan and its shards; out comes RUN/NAME.h5 per video: small datasets copied, large ones a virtual dataset over
the shards, nothing recomputed or recompressed; what the model derives of them in a second pass is written beside them.
First every shard is checked to be whole; a run with gaps is refused, saying which tasks are missing, and what was
merged before stays as it is. Knows no pixels, and a model only where the shards say that it derives something.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from .blockfile import COMMIT_BYTES, BlockFile, open_h5
from .errors import BadInput, MissingInput, UsageError
from .files import replacing
from .layout import CONSTANTS, H5, STATUS_MEANING, create_chunked, dump_outputs, load_outputs, write_constant
from .maps import Maps, Segment
from .plan import Plan
from .progress import Progress
from .shards import (
    StoredPart,
    check_bytes,
    joined_arrays,
    joined_attributes,
    joined_chunks,
    shared_constants,
    whole_shards,
)
from .signals import Stop
from .store import shard_path

if TYPE_CHECKING:
    from .fixations import Source
    from .second_pass import SecondPass

MERGED_FORMAT = "streamsal video 1"


def merge(
    run_dir: str | Path,
    *,
    materialise: bool = False,
    verify: bool = False,
    fixations: Source | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    stop: Stop = lambda: "",
) -> list[Path]:
    """Write RUN/NAME.h5 for every video of the plan and return the paths.

    `materialise`: files that hold all data themselves, the compressed chunks copied as they are. `verify`: read every
    stored frame first. Where the model derives outputs in a second pass, that is made here, on `device`, with the
    `fixations` given (None: as the model does by itself); a file that was made of the same is kept, but for `verify`.
    Raises IncompleteRun naming the tasks to run, BadInput naming a damaged frame, WriteError; UsageError for fixations
    that the model has no use for; Stopped when `stop` says so.
    """
    run = Path(run_dir)
    plan = Plan.load(run / "plan.json")
    shards = whole_shards(run, plan)
    if verify:
        for parts in shards.values():
            check_bytes(parts)
    of_video: dict[str, list[StoredPart]] = {video.name: [] for video in plan.videos}
    for number in sorted(shards):
        for video, part in shards[number].items():
            of_video[video].append(part)
    second_pass = None
    if any(part.derived for parts in of_video.values() for part in parts):
        from .second_pass import SecondPass  # takes seconds: imports torch

        second_pass = SecondPass(
            plan=plan, fixations=fixations, device=device, progress=progress or Progress(quiet=True), stop=stop
        )
    elif fixations is not None:
        raise UsageError(f"{plan.model.name} does not depend on fixations: merge without them")
    written = []
    for video, parts in of_video.items():
        if parts:
            path = run / f"{video}.h5"
            if verify or not (second_pass and _up_to_date(path, parts, materialise, second_pass.settings)):
                _write(path, parts, materialise=materialise, second_pass=second_pass)
            written.append(path)
    return written


def _up_to_date(path: Path, parts: list[StoredPart], materialise: bool, settings: str) -> bool:
    """Whether a second pass over these parts is what is in the file."""
    wanted: dict[str, Any] = {**joined_attributes(parts), "derived_from": settings}
    del wanted["outputs"]
    try:
        with open_h5(path) as file:
            h5: H5 = file
            return (
                all(h5.attrs[name] == value for name, value in wanted.items())
                and all(np.array_equal(h5[name], array, equal_nan=True) for name, array in joined_arrays(parts).items())
                and all(h5[name].is_virtual != materialise for name in parts[0].datasets)
            )
    except (OSError, RuntimeError, KeyError):
        return False


def _write(path: Path, parts: list[StoredPart], *, materialise: bool, second_pass: SecondPass | None) -> None:
    """Write one merged file, and before it takes its place the table of the second pass."""
    with replacing(path) as temporary:
        file = BlockFile(temporary)
        try:
            with h5py.File(file, "w") as h5:
                h5.attrs.update({"format": MERGED_FORMAT, **joined_attributes(parts)})
                for name, array in joined_arrays(parts).items():
                    h5.create_dataset(name, data=array)
                h5["status"].attrs["meaning"] = STATUS_MEANING
                for name, array in shared_constants(parts).items():
                    write_constant(h5, name, array)
                for output in parts[0].outputs:
                    if output.scalar:
                        _describe(h5[output.name], output.name, parts[0])
                    elif materialise:
                        _copy(h5, file, output.name, parts)
                    else:
                        _link(h5, output.name, parts)
                if second_pass and parts[0].derived:
                    h5.attrs["outputs"] = dump_outputs([*parts[0].derived, *parts[0].outputs])
                    h5.attrs["derived_from"] = second_pass.settings
                    with closing(_joined_maps(parts)) as maps:
                        table = second_pass.write(h5, file, maps)
                    _write_table(path.with_suffix(".scanpath.csv"), table)
                h5.flush()
                file.commit()
        finally:
            file.close()


def _write_table(path: Path, table: list[dict[str, float]]) -> None:
    """As csv; without rows there is no file, and one that was there is gone."""
    if not table:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as part, open(part, "w", newline="") as file:
        lines = csv.DictWriter(file, list(table[0]))
        lines.writeheader()
        lines.writerows(table)


def _describe(dataset: H5, name: str, part: StoredPart) -> None:
    """Give a merged dataset the attributes it has in a shard."""
    with open_h5(part.path) as h5:
        dataset.attrs.update(h5[f"{part.video}/{name}"].attrs)


def _link(h5: H5, name: str, parts: list[StoredPart]) -> None:
    shape, dtype = parts[0].datasets[name]
    layout = h5py.VirtualLayout((sum(part.n_rows for part in parts), *shape), dtype)
    row = 0
    for part in parts:
        # "%b" in a source name would be a block number to HDF5, "%%" is a percent sign.
        source = f"{part.video}/{name}".replace("%", "%%")
        path = f"shards/{part.path.name}"
        layout[row : row + part.n_rows] = h5py.VirtualSource(path, source, (part.n_rows, *shape), dtype)
        row += part.n_rows
    dataset = h5.create_virtual_dataset(name, layout, fillvalue=np.nan if dtype.kind == "f" else 0)
    _describe(dataset, name, parts[0])


def _copy(h5: H5, file: BlockFile, name: str, parts: list[StoredPart]) -> None:
    shape, dtype = parts[0].datasets[name]
    dataset = create_chunked(h5, name, (sum(part.n_rows for part in parts), *shape), dtype)
    _describe(dataset, name, parts[0])
    for row, chunk in joined_chunks(name, parts):
        dataset.id.write_direct_chunk((row,) + (0,) * len(shape), chunk)
        if file.pending_bytes > COMMIT_BYTES:
            file.commit()


class Run(Mapping[str, Maps]):
    """The stored results of a run, read as they are asked for: `run["talk.mp4"].log_density(1200)`.

    A video is named as in the plan or by its file name. A context manager; closing it closes the files.
    """

    def __init__(self, path: Path, plan: Plan | None, merged: Mapping[str, Path]) -> None:
        self.path = path
        self.plan = plan
        self._merged = merged
        self._maps: dict[str, Maps] = {}
        planned = [video.name for video in plan.videos if video.selection.frames] if plan else None
        self.videos = tuple(merged if planned is None else planned)  # a video without a whole clip has no results

    @property
    def folder(self) -> Path:
        """The run directory, also where one merged file in it was opened."""
        return self.path.parent if self.path.is_file() else self.path

    def __getitem__(self, video: str | Path) -> Maps:
        name = self._name(str(video))
        if name not in self._maps:
            self._maps[name] = self._open(name)
        return self._maps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.videos)

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, videos={list(self.videos)})"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._maps:
            self._maps.popitem()[1].close()

    def chosen(self, video: str | None) -> list[str]:
        """The name of a video, or of all. Raises UsageError where there is no such video, or none with results."""
        if not self.videos:
            raise UsageError(f"{self.path} holds no results: no whole clip is in what was asked for")
        try:
            return list(self.videos) if video is None else [self._name(video)]
        except KeyError as error:
            raise UsageError(str(error.args[0])) from None

    def _name(self, wanted: str) -> str:
        if wanted in self.videos:
            return wanted
        files = {v.name: Path(v.path).name for v in self.plan.videos} if self.plan else {}
        found = [name for name in self.videos if files.get(name, name.split("__")[-1]) == Path(wanted).name]
        if len(found) != 1:
            raise KeyError(f"{wanted}: {'several' if found else 'no'} such videos in {self.path}: {list(self.videos)}")
        return found[0]

    def _open(self, name: str) -> Maps:
        if name in self._merged:
            maps = read_merged(self._merged[name])
            if self.plan is None or maps.info["plan_id"] == self.plan.id:
                return maps
        assert self.plan is not None
        number = [video.name for video in self.plan.videos].index(name)
        shards = whole_shards(self.path, self.plan, number)
        return _joined_maps([parts[name] for parts in shards.values()])


def open_run(path: str | Path) -> Run:
    """Open a run directory, or one merged RUN/NAME.h5, for reading; nothing is read before a video is asked for.

    A run that is complete but not merged yet is read from its shards. Raises MissingInput, and on first use of a video
    IncompleteRun where tasks are missing.
    """
    path = Path(path)
    if path.is_file():
        return Run(path, None, {read_merged(path).name: path})
    if not path.is_dir():
        raise MissingInput(f"no run at {path}: give the directory that `streamsal plan` or `streamsal run` made")
    plan = Plan.load(path / "plan.json") if (path / "plan.json").exists() else None
    if plan:
        names = [video.name for video in plan.videos]
    else:
        names = [file.name.removesuffix(".h5") for file in sorted(path.glob("*.h5"))]
        if not names:
            raise MissingInput(f"{path} is no run: it has neither a plan.json nor merged files")
    merged = {name: path / f"{name}.h5" for name in names}
    return Run(path, plan, {name: file for name, file in merged.items() if file.is_file()})


def read_merged(path: Path) -> Maps:
    """One merged file. Raises BadInput where it is none."""
    try:
        with open_h5(path) as file:
            h5: H5 = file
            if h5.attrs["format"] != MERGED_FORMAT:
                raise BadInput(f"{path} is a shard or of another version: open the run's directory instead")
            info = dict(h5.attrs)
            outputs = load_outputs(info["outputs"])
            large = {output.name for output in outputs if not output.scalar}
            arrays = {name: h5[name][...] for name in h5 if name not in large and name != CONSTANTS}
            shapes = {output.name: h5[output.name].shape[1:] for output in outputs}
            segments = {name: _segments(path, h5[name], arrays["shard"]) for name in large}
    except FileNotFoundError:
        raise MissingInput(f"{path} does not exist: merge the run first") from None
    except (OSError, RuntimeError, KeyError, ValueError):
        raise BadInput(f"{path} is not readable as a merged run: delete it and merge again") from None
    home = Segment(first_row=0, path=path, group="/")
    return Maps(info=info, outputs=outputs, arrays=arrays, shapes=shapes, segments=segments, home=home)


def _segments(path: Path, dataset: H5, shard: np.ndarray) -> list[Segment]:
    if not dataset.is_virtual:
        return [Segment(first_row=0, path=path, group="/")]
    first_rows = np.flatnonzero(np.diff(shard, prepend=-1))
    group = dataset.file.attrs["video"]
    return [
        Segment(first_row=int(row), path=shard_path(path.parent, int(shard[row])), group=group, shard=int(shard[row]))
        for row in first_rows
    ]


def _joined_maps(parts: list[StoredPart]) -> Maps:
    first_rows = np.cumsum([0, *(part.n_rows for part in parts)])
    segments = [replace(part.segment, first_row=int(row)) for row, part in zip(first_rows, parts, strict=False)]
    scalars = {output.name: () for output in parts[0].outputs if output.scalar}
    return Maps(
        info=joined_attributes(parts),
        outputs=parts[0].outputs,
        arrays=joined_arrays(parts),
        shapes={**scalars, **{name: shape for name, (shape, _) in parts[0].datasets.items()}},
        segments=dict.fromkeys(parts[0].datasets, segments),
        home=segments[0],
    )
