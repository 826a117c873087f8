"""How long does it take to merge a thousand shards?

Measured: `merge` (every shard opened and checked, one virtual dataset written) of a synthetic run of 1 000 shards of
1 000 frames each, file cache warm, and the peak of memory in a process of its own; beside it opening the merged file
and reading single frames from it. The shards have the structure and chunk sizes of sigmotion's; one is written by the
store, the others are copies of it with their own frame numbers.

    python benchmarks/merge.py [--shards 1000] [--frames 1000] [--rounds 5] [-o results/merge.json]
"""

from __future__ import annotations

import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from measure import Report, arguments, interleaved, median, peak_megabytes, rounded, table

from streamsal import __version__
from streamsal.merge import merge, open_run
from streamsal.models import spec_of
from streamsal.plan import Part, Plan, PlannedModel, PlannedVideo, Settings
from streamsal.store import PartInfo, ShardWriter, shard_path

SECONDS = 3.0
HEIGHT, WIDTH = 36, 64  # of sigmotion's maps of a 16:9 film
MAPS = 50  # different ones
H5 = Any


def make_plan(n_shards: int, frames: int) -> Plan:
    n_frames = n_shards * frames
    video = PlannedVideo(
        name="film.mp4",
        path="film.mp4",
        size=1,
        mtime_ns=1,
        fingerprint="0" * 16,
        stream=0,
        n_frames=n_frames,
        frame_rate=25.0,
        height=1080,
        width=1920,
        model_height=1080,
        model_width=1920,
        start=0,
        stop=n_frames,
        every=1,
        past=0,
        future=0,
    )
    return Plan(
        model=PlannedModel(name="sigmotion", weights="", sha256="", options={}),
        settings=Settings(dtype="auto", store_dtype="float16", long_side=None, px_per_degree=None),
        batch_size=8,
        videos=(video,),
        shards=tuple((Part(video=0, start=start, stop=start + frames),) for start in range(0, n_frames, frames)),
        version=__version__,
    )


def write_shards(run: Path, plan: Plan) -> None:
    """The first shard through the store, the others as its copies."""
    shutil.rmtree(run, ignore_errors=True)
    (run / "shards").mkdir(parents=True)
    plan.save(run / "plan.json")
    outputs = spec_of("sigmotion").outputs
    infos = [PartInfo.of(plan, shard[0], outputs=outputs, time_base="1/25") for shard in plan.shards]
    first = infos[0]
    maps = np.random.default_rng(0).normal(size=(MAPS, HEIGHT, WIDTH)).cumsum(1).cumsum(2).astype(np.float32) / 100
    with ShardWriter(shard_path(run, 0), [first]) as shard:
        for base in range(0, len(first.frames), MAPS):
            frame = np.array(first.frames[base : base + MAPS])
            shard.append(
                first,
                frame=frame,
                pts_seconds=frame / 25,
                hole=np.zeros(len(frame), bool),
                values={outputs[0].name: maps[: len(frame)]},
            )
            shard.commit()
        shard.finish()
    for number, info in enumerate(infos[1:], 1):
        shutil.copyfile(shard_path(run, 0), shard_path(run, number))
        with h5py.File(shard_path(run, number), "r+", libver="earliest") as file:
            group: H5 = file[info.video]
            frame = np.array(info.frames)
            group["frame"][...], group["pts_seconds"][...] = frame, frame / 25
            for name in ("start", "stop"):
                group.attrs.modify(name, np.int64(getattr(info, name)))


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=1000, help="per shard (default: 1000)")
    options = parser.parse_args()

    run = options.work_dir / f"merge_{options.shards}x{options.frames}.streamsal"
    plan = make_plan(options.shards, options.frames)
    if not (run / "complete").exists():
        print(f"writing {run}", file=sys.stderr, flush=True)
        write_shards(run, plan)
        (run / "complete").touch()
    n_frames = plan.videos[0].n_frames
    some = np.random.default_rng(1).integers(0, n_frames, 50).tolist()

    def read_some() -> None:
        with open_run(run) as opened:
            maps = opened["film.mp4"]
            for frame in some:
                maps.log_density(frame)

    report = Report(benchmark="merge", options=options)
    merge(run)
    cases = {
        "merge": lambda: merge(run),
        "open the run": lambda: open_run(run).close(),
        f"open, read {len(some)} single frames at full size": read_some,
    }
    samples = interleaved(cases, options.rounds)
    merged = run / "film.mp4.h5"
    peaks = [peak_megabytes(f"from streamsal.merge import merge; merge({str(run)!r})") for _ in range(3)]
    size = sum(path.stat().st_size for path in (run / "shards").iterdir())
    print(f"{options.shards} shards of {options.frames} frames, {size / 1e9:.2f} GB")
    print(f"merged file {merged.stat().st_size / 1e6:.1f} MB; peak memory {statistics.median(peaks):.0f} MB\n")
    table(
        ["seconds", "wall", "cpu"],
        [[name, f"{median(found):.3f}", f"{median(found, 'cpu'):.3f}"] for name, found in samples.items()],
    )
    report.finish(
        targets={"seconds to merge": (median(samples["merge"]), "<=", SECONDS)},
        shards=options.shards,
        frames_per_shard=options.frames,
        shard_bytes=size,
        merged_bytes=merged.stat().st_size,
        peak_megabytes=round(statistics.median(peaks), 1),
        seconds=rounded(samples),
    )


if __name__ == "__main__":
    main()
