"""Runs without a video or a model: every value is a function of its frame number, so that each loss or mix-up shows.

As a program it is a task that can be killed: `python synthetic_run.py RUN TASK [batch]` computes or resumes a shard.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from streamsal.models.spec import Output, Readback
from streamsal.plan import Part, Plan, PlannedModel, PlannedVideo, Settings
from streamsal.store import PartInfo, ShardWriter, shard_path

DENSITY = Output(name="log_density", kind="log_density", units="nat", readback=Readback())
MAP = Output(name="saliency", kind="saliency_map", units="arbitrary", readback=Readback())
FEATURES = Output(name="features", kind="features", units="arbitrary")
OUTPUTS = (DENSITY, MAP, FEATURES)
HEIGHT, WIDTH = 24, 40  # stored at half of this
PRIOR = np.linspace(-5, 0, 12 * 20, dtype=np.float32).reshape(12, 20)  # a constant
HOLES = (7, 31)
VIDEOS = {"a__talk.mp4": 50, "b__50%b off.mkv": 30}
CUTS = {"a__talk.mp4": [4, 20, 33], "b__50%b off.mkv": [10]}


def make_plan(
    n_frames: dict[str, int], cuts: dict[str, list[int]], *, every: int = 1, store_dtype: str = "float16"
) -> Plan:
    """A plan for videos of these lengths, a shard beginning at 0 and at each of `cuts`."""
    videos, shards = [], []
    for number, (name, length) in enumerate(n_frames.items()):
        videos.append(
            PlannedVideo(
                name=name,
                path=f"/films/{name.split('__')[-1]}",
                size=1,
                mtime_ns=1,
                fingerprint="0123",
                stream=0,
                n_frames=length,
                frame_rate=25.0,
                height=HEIGHT,
                width=WIDTH,
                model_height=HEIGHT,
                model_width=WIDTH,
                start=0,
                stop=length,
                every=every,
                past=0,
                future=0,
            )
        )
        borders = [0, *cuts[name], length]
        shards += [(Part(video=number, start=a, stop=b),) for a, b in pairwise(borders)]
    return Plan(
        model=PlannedModel(name="synthetic", sha256="ab" * 32),
        settings=Settings(store_dtype=store_dtype),
        batch_size=4,
        videos=tuple(videos),
        shards=tuple(shards),
        version="0.1.0",
    )


def make_run(run: Path, plan: Plan, *, skip: tuple[int, ...] = ()) -> Path:
    (run / "shards").mkdir(parents=True)
    plan.save(run / "plan.json")
    for number in range(len(plan.shards)):
        if number not in skip:
            compute_shard(run, number)
    return run


def parts_of(plan: Plan, number: int, device: str = "cpu", constants: tuple[str, ...] = ()) -> list[PartInfo]:
    return [
        PartInfo.of(plan, part, outputs=OUTPUTS, constants=constants, device=device, dtype="float32")
        for part in plan.shards[number]
    ]


def values_of(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Densities not normalized, maps and features, float32: all of them say which frame they belong to."""
    y, x = np.mgrid[: HEIGHT // 2, : WIDTH // 2]
    k = np.asarray(frames)[:, None, None]
    bump = -((y - k % 11) ** 2 + (x - k % 19) ** 2) / 20.0 - k * 1e-3
    log_density = bump - np.log(np.exp(bump).sum((1, 2), keepdims=True))
    return {
        "log_density": log_density.astype(np.float32),
        "saliency": np.exp(bump).astype(np.float32),
        "features": (k[:, 0] + np.arange(5) / 8).astype(np.float32),
    }


def append_frames(shard: ShardWriter, part: PartInfo, frames: np.ndarray) -> None:
    hole = np.isin(frames, HOLES)
    values = values_of(frames)
    for value in values.values():
        value[hole] = np.nan
    shard.append(part, frame=frames, pts_seconds=frames / 25, hole=hole, values=values)


def compute_shard(run: Path, number: int, batch: int = 4, constants: Mapping[str, np.ndarray] | None = None) -> None:
    plan, constants = Plan.load(run / "plan.json"), constants or {}
    with ShardWriter(shard_path(run, number), parts_of(plan, number, constants=tuple(constants))) as shard:
        for part in shard.parts:
            shard.put_constants(part, constants)
            frames = np.array(part.frames)
            for row in range(shard.committed(part), len(frames), batch):
                append_frames(shard, part, frames[row : row + batch])
                shard.commit()
        shard.finish()


def run_with_constants(folder: Path, *priors: np.ndarray) -> Path:
    """A run of one video in as many shards as there are constants."""
    cuts = list(range(4, 4 * len(priors), 4))
    run = make_run(folder / "r", make_plan({"a.mp4": 4 * len(priors)}, {"a.mp4": cuts}), skip=tuple(range(len(priors))))
    for number, prior in enumerate(priors):
        compute_shard(run, number, constants={"prior": prior})
    return run


def contents(path: Path) -> dict[str, bytes]:
    """Every dataset of a file, by path."""
    found: dict[str, bytes] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[...].tobytes()}) if hasattr(item, "shape") else None
        )
    return found


if __name__ == "__main__":
    compute_shard(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 4)
