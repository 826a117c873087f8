"""Runs of given maps, for what is done with stored results: no video, no model, every number known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from streamsal.models.spec import Output, Readback
from streamsal.plan import Part, Plan, PlannedModel, PlannedVideo, Settings
from streamsal.store import PartInfo, ShardWriter, shard_path

LOG_DENSITY = Output(name="log_density", kind="log_density", units="nats", readback=Readback())
SALIENCY = Output(name="saliency", kind="saliency_map", units="arbitrary", readback=Readback())


def maps_run(
    run: Path,
    maps: Mapping[str, np.ndarray],
    output: Output = LOG_DENSITY,
    *,
    holes: tuple[int, ...] = (),
    every: int = 1,
    first_seconds: float = 0.0,
    size: tuple[int, int] | None = None,
) -> Path:
    """A run that holds these maps (n, h, w), float32 as they are, for videos of 25 frames a second.

    Map i is of frame i * every, and the frames have no more to show. `size`: displayed height and width, if not the
    maps'.
    """
    videos = tuple(_video(name, len(each) * every, size or each.shape[1:], every) for name, each in maps.items())
    plan = Plan(
        model=PlannedModel(name="given", sha256="ab" * 32),
        settings=Settings(store_dtype="float32"),
        batch_size=4,
        videos=videos,
        shards=tuple((Part(video=i, start=0, stop=video.stop),) for i, video in enumerate(videos)),
        version="0.1.0",
    )
    (run / "shards").mkdir(parents=True)
    plan.save(run / "plan.json")
    for number, (name, each) in enumerate(maps.items()):
        (part,) = (
            PartInfo.of(plan, part, outputs=[output], device="cpu", dtype="float32") for part in plan.shards[number]
        )
        assert part.video == name
        frames = np.array(part.frames)
        hole = np.isin(frames, holes)
        values = np.where(hole[:, None, None], np.nan, each).astype(np.float32)
        with ShardWriter(shard_path(run, number), [part]) as shard:
            times = first_seconds + frames / 25
            shard.append(part, frame=frames, pts_seconds=times, hole=hole, values={output.name: values})
            shard.commit()
            shard.finish()
    return run


def _video(name: str, n_frames: int, size: tuple[int, ...], every: int) -> PlannedVideo:
    height, width = size
    return PlannedVideo(
        name=name, path=f"/films/{name}", size=1, mtime_ns=1, fingerprint="0123", stream=0, n_frames=n_frames,
        frame_rate=25.0, height=height, width=width, model_height=height, model_width=width, start=0, stop=n_frames,
        every=every, past=0, future=0,
    )  # fmt: skip


def bump(n: int, height: int, width: int, x: np.ndarray, y: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """(n, h, w) log densities: Gaussians around x, y in pixels, and 1 % everywhere."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    squares = (rows - np.reshape(y, (n, 1, 1))) ** 2 + (columns - np.reshape(x, (n, 1, 1))) ** 2
    mass = np.exp(-squares / (2 * sigma**2))
    return np.log(0.99 * mass / mass.sum((1, 2), keepdims=True) + 0.01 / (height * width))
