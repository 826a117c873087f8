"""What do overlapping clips cost, in time and in memory, beside the loop that programs for clips are written with?

Measured, in turns, for the clips of X3D-S (13 frames of 2.6 s) every 0.5 s of a film of 720p, from the file to the
batches that the network would get, which itself is left out:
- ours: every frame decoded once, every member converted and prepared once;
- a loop over clips: to the last keyframe before the clip, decode to its last member, convert and prepare its members.
  It opens the file once, converts no other frames, and prepares with the same function; its clips are compared with
  ours first;
- every member once: one plain decode of the film, its members converted and prepared, no clips made of them. Faster
  than that only who converts or decodes faster.
Once on one thread; once on two cores, two runs decoded at once beside PyAV's frame threads.

Then the largest resident memory of `streamsal embed` for a short and a long film, a new process each time, in batches
so small that the short film fills the queues between the stages, too; and whole tasks without their store, on all
cores: clips per second, and seconds of film per second. Weights are stand-ins.

    python benchmarks/embed.py [--seconds 120] [--rounds 5] [-o results/embed.json]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from clips import clip, long_clip
from measure import Report, Samples, arguments, interleaved, median, peak_megabytes, ratio, rounded, table
from torch import Tensor

from streamsal.batches import Job, assemble_clips
from streamsal.clips import Clips, needed
from streamsal.cores import usable_cores
from streamsal.devices import share_cores
from streamsal.engine import compute
from streamsal.index import index_video
from streamsal.models import create_model
from streamsal.prepare import auto_batch_size, plan_video, video_clips
from streamsal.progress import Meter
from streamsal.timing import Timing
from streamsal.weights.cache import SYNTHETIC

SPEED_UP, WITHIN = 3.0, 1.1
MODEL, STRIDE_SECONDS = "x3d_s", 0.5
LEVEL = 1 / 255 / 0.225  # one of 256 levels of a color, as that model is shown them
COMPARED = 8  # clips
FEW_ROUNDS = 3  # at most, of what takes long and differs little
OURS, LOOP, ONCE = "streamsal", "loop over clips", "every member once"
FPS = 25  # of the films

EMBED = """
import shutil
from streamsal.cli import main
shutil.rmtree({run!r}, ignore_errors=True)
assert main(["embed", {film!r}, "--weights", "synthetic", "--stride", "5s", "--batch-size", "2", "--quiet",
             "-o", {run!r}]) == 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """All clips of a film for a model, as a task has them."""

    job: Job
    clips: Clips

    @classmethod
    def of(cls, film: Path, model_name: str) -> Work:
        device = torch.device("cpu")
        model, index = create_model(model_name, weights=SYNTHETIC, device=device), index_video(film)
        assert model.spec.clip is not None
        timing = Timing(stride=f"{STRIDE_SECONDS}s")
        clips = video_clips(index, model.spec.clip, timing)
        video = plan_video(index, name=film.name, spec=model.spec, timing=timing)
        job = Job(
            index=index,
            video=video,
            model=model,
            batch_size=auto_batch_size([video], model.spec),
            device=device,
            dtype=torch.float32,
            clips=clips,
        )
        return cls(job=job, clips=clips)

    def ours(self, workers: int) -> Iterator[Tensor]:
        job = replace(self.job, decode_workers=workers)
        for batch in assemble_clips(job, 0, len(self.clips), set(), Meter()):
            yield batch.clips_ncthw[batch.present]

    def loop_over_clips(self, threads: int) -> Iterator[Tensor]:
        with av.open(self.job.index.path) as container:
            stream = container.streams.video[0]
            _set_threads(stream, threads)
            for pts in self.job.index.pts[self.clips.members].tolist():
                container.seek(pts[0], stream=stream)
                members: dict[int | None, np.ndarray] = {}
                for picture in container.decode(stream):
                    if picture.pts in pts:
                        members[picture.pts] = picture.to_ndarray(format="rgb24")
                    if picture.pts == pts[-1]:
                        break
                yield self._prepared(np.stack([members[one] for one in pts])).transpose(0, 1)[None]

    def every_member_once(self, threads: int) -> Iterator[Tensor]:
        wanted = set(needed(self.clips, range(len(self.clips))).tolist())
        with av.open(self.job.index.path) as container:
            stream = container.streams.video[0]
            _set_threads(stream, threads)
            for number, picture in enumerate(container.decode(stream)):
                if number in wanted:
                    yield self._prepared(picture.to_ndarray(format="rgb24")[None])

    def _prepared(self, frames_nhwc: np.ndarray) -> Tensor:
        return self.job.model.prepare(torch.from_numpy(frames_nhwc))  # type: ignore[attr-defined]

    def largest_difference(self) -> float:
        """Of the first clips, ours to the loop's, in levels of a color. Raises AssertionError where it is above one."""
        batches, loop = self.ours(workers=1), self.loop_over_clips(threads=1)
        ours: list[Tensor] = []
        while sum(map(len, ours)) < min(COMPARED, len(self.clips)):
            ours.append(next(batches).clone())
        theirs = torch.cat([clip for clip, _ in zip(loop, range(sum(map(len, ours))), strict=False)])
        levels = float((torch.cat(ours) - theirs).abs().max()) / LEVEL
        assert levels <= 1, f"the two do not prepare the same clips: they differ by {levels:.2f} levels"
        return levels

    def computed(self, n_clips: int, workers: int) -> None:
        """The first clips with their vectors, as a task computes them."""
        for _ in compute(replace(self.job, decode_workers=workers), 0, n_clips):
            pass


def _set_threads(stream: av.VideoStream, threads: int) -> None:
    stream.thread_type = "FRAME" if threads > 1 else "SLICE"
    stream.codec_context.thread_count = threads


def preparation(work: Work, rounds: int) -> dict[str, Samples]:
    """Of each number of cores the three ways."""
    ways = {OURS: work.ours, LOOP: work.loop_over_clips, ONCE: work.every_member_once}

    def exhaust(way: Callable[[int], Iterator[Tensor]], threads: int) -> None:
        for _ in way(threads):
            pass

    torch.set_num_threads(1)
    return {
        where: interleaved({name: partial(exhaust, way, n) for name, way in ways.items()}, rounds, warm_up=False)
        for n, where in ((1, "1 thread"), (2, "2 cores"))
    }


def peaks(options: argparse.Namespace) -> dict[float, list[float]]:
    """Megabytes of `streamsal embed` by minutes of film."""
    films = {
        minutes: long_clip(options.work_dir, frames=round(60 * FPS * minutes), width=192, height=108)
        for minutes in (options.short, options.long)
    }
    found: dict[float, list[float]] = {minutes: [] for minutes in films}
    for _ in range(min(options.rounds, FEW_ROUNDS)):
        for minutes, film in films.items():
            run = options.work_dir / f"embed_{minutes:g}.streamsal"
            found[minutes].append(peak_megabytes(EMBED.format(film=str(film), run=str(run))))
            shutil.rmtree(run)
    return found


def networks(film: Path, options: argparse.Namespace) -> Samples:
    """Of each model the first clips of the film, network included, with the threads that the command line gives it."""
    workers = share_cores(None)
    cases = {name: partial(Work.of(film, name).computed, options.clips, workers) for name in options.models}
    return interleaved(cases, min(options.rounds, FEW_ROUNDS))


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--seconds", type=float, default=120, help="length of the film (default: 120)")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--short", type=float, default=1, metavar="MINUTES", help="of film, for memory (default: 1)")
    parser.add_argument("--long", type=float, default=20, metavar="MINUTES", help="of film, for memory (default: 20)")
    parser.add_argument("--clips", type=int, default=16, help="clips that networks are timed with (default: 16)")
    parser.add_argument("--models", nargs="*", default=[MODEL, "slowfast_r50_4x16"], help="networks to time")
    options = parser.parse_args()

    film = clip(options.work_dir, seconds=options.seconds, width=options.width, height=options.height)
    work = Work.of(film, MODEL)
    n_clips, n_frames = len(work.clips), len(needed(work.clips, range(len(work.clips))))
    report = Report(benchmark="embed", options=options)
    levels = work.largest_difference()
    prepared = preparation(work, options.rounds)
    speed_up = {where: ratio(found[LOOP], found[OURS]) for where, found in prepared.items()}
    to_once = {where: ratio(found[OURS], found[ONCE]) for where, found in prepared.items()}
    memory = peaks(options)
    growth = statistics.median(memory[options.long]) / statistics.median(memory[options.short])
    network = networks(film, options)

    print(
        f"{MODEL}, {n_clips} clips of {n_frames} frames of {work.job.index.n_frames}, {options.width}x{options.height},"
        f" {len(work.job.index.entry_frame)} runs; colors differ by {levels:.2g} levels at most\n"
    )
    table(
        ["milliseconds per clip", "wall", "cpu"],
        [
            [f"{name}, {where}", *(f"{1000 * median(samples, of) / n_clips:.1f}" for of in ("wall", "cpu"))]
            for where, found in prepared.items()
            for name, samples in found.items()
        ],
    )
    table(
        ["", *prepared],
        [
            [f"{LOOP} / {OURS}", *(f"{value:.2f}" for value in speed_up.values())],
            [f"{OURS} / {ONCE}", *(f"{value:.2f}" for value in to_once.values())],
        ],
    )
    table(
        ["streamsal embed", *(f"{minutes:g} min" for minutes in memory)],
        [["peak memory in MB", *(f"{statistics.median(values):.0f}" for values in memory.values())]],
    )
    rates = {name: options.clips / median(samples) for name, samples in network.items()}
    table(
        [f"{usable_cores()} cores", "clips per second", "seconds of film per second"],
        [[name, f"{rate:.2f}", f"{rate * STRIDE_SECONDS:.2f}"] for name, rate in rates.items()],
    )
    report.finish(
        targets={
            **{f"{LOOP} / {OURS}, {where}": (value, ">=", SPEED_UP) for where, value in speed_up.items()},
            f"peak memory, {options.long:g} / {options.short:g} minutes": (growth, "<=", WITHIN),
        },
        clips=n_clips,
        frames=work.job.index.n_frames,
        members=n_frames,
        levels_between=round(levels, 4),
        seconds_per_clip={where: rounded(found, per=n_clips) for where, found in prepared.items()},
        to_every_member_once={where: round(value, 4) for where, value in to_once.items()},
        peak_megabytes={f"{minutes:g}": round(statistics.median(values), 1) for minutes, values in memory.items()},
        spread_megabytes={f"{minutes:g}": round(max(values) - min(values), 1) for minutes, values in memory.items()},
        clips_timed=options.clips,
        clips_per_second={name: round(rate, 3) for name, rate in rates.items()},
        realtime_factor={name: round(rate * STRIDE_SECONDS, 3) for name, rate in rates.items()},
    )


if __name__ == "__main__":
    main()
