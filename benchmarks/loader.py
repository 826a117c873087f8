"""What does decoding tiny clips from their videos cost, beside frames that were written as jpg files once?

Measured, in turns, on the same windows of 32 frames of clips made for this (H.264, 70x70, 90 frames at 30 per second,
moving gray squares with a camera's noise):
- ours: `streamsal.actions.reading.batches`, from the videos, their indexes remembered as from the second epoch on;
- jpg files, as the program of 2022 read them: `<clip>_frames/frame_<k>.jpg` in OpenCV's default quality, listed,
  sorted as text, 32 of them decoded; by torchvision here, in the same DataLoader, as uint8 too.
Both by one worker process and by two, started anew for every pass, as for an epoch; all files are in the page cache.
Resizing is left out, but ours drops rows and columns that do not count for 56 pixels, as in a training. Before that,
without workers: the first epoch, which makes the indexes, a later one, and what the jpg files cost to write, in
processor time, bytes and files.

    python benchmarks/loader.py [--clips 128] [--passes 8] [--rounds 5] [-o results/loader.json]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from measure import Report, Sample, arguments, interleaved, median, now, ratio, rounded, table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import decode_image, write_jpeg

from streamsal.actions import reading
from streamsal.actions.manifest import LabeledClip, Manifest
from streamsal.actions.reading import Wanted, batches
from streamsal.files import replacing
from streamsal.models.design import Design

SIDE, FRAMES, RATE, SHOWN, BATCH = 70, 90, 30, 32, 16
DESIGN = Design(classes=("any",), frames=SHOWN)
QUALITY = 95  # OpenCV's default
OURS, JPG = "videos", "jpg files"
WORKERS = (1, 2)


def write_clip(path: Path, seed: int) -> None:
    """Squares of 7 pixels that move by a pixel down and two to the right from frame to frame, and noise."""
    lots = np.random.default_rng(seed)
    cells = lots.integers(0, 224, (SIDE // 7, SIDE // 7, 1), dtype=np.uint8).repeat(7, 0).repeat(7, 1)
    with replacing(path) as part, av.open(str(part), "w") as film:
        stream = film.add_stream("libx264", rate=RATE, options={"threads": "1"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            moved = np.roll(cells, (number, 2 * number), axis=(0, 1))
            picture = moved + lots.integers(0, 32, (SIDE, SIDE, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))


def made(work_dir: Path, n: int) -> Manifest:
    folder = work_dir / f"clips_{SIDE}x{SIDE}_{FRAMES}f"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.mp4" for number in range(n)]
    for number, path in enumerate(paths):
        if not path.exists():
            write_clip(path, number)
    clips = (LabeledClip(id=path.stem, path=path, labels=(), scene=path.stem) for path in paths)
    return Manifest(classes=("any",), clips=tuple(clips))


def folder_of(video: Path) -> Path:
    return video.with_name(f"{video.stem}_frames")


def extract(video: Path) -> None:
    """A plain decode, every frame a jpg file."""
    folder = folder_of(video)
    folder.mkdir(exist_ok=True)
    with av.open(str(video)) as film:
        film.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(film.decode(video=0)):
            picture = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            write_jpeg(picture, str(folder / f"frame_{number}.jpg"), QUALITY)


def from_jpgs(video: Path, at: float) -> Tensor:
    """(32, H, W, 3) uint8: the window of our `at`, its files sorted by name as text."""
    folder = folder_of(video)
    n = len(os.listdir(folder))
    start = int(at * max(n - SHOWN + 1, 1))
    names = sorted(f"frame_{number}.jpg" for number in range(start, start + SHOWN))
    return torch.stack([decode_image(str(folder / name)) for name in names]).permute(0, 2, 3, 1)


class Jpgs(Dataset[np.ndarray]):
    def __init__(self, manifest: Manifest, wanted: Sequence[Wanted]) -> None:
        self.manifest, self.wanted = manifest, wanted

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, number: int) -> np.ndarray:
        wanted = self.wanted[number]
        assert isinstance(wanted.at, float)
        return from_jpgs(self.manifest.clips[wanted.row].path, wanted.at).numpy()


def read_videos(manifest: Manifest, wanted: Sequence[Wanted], workers: int) -> None:
    for _ in batches(manifest, wanted, DESIGN, batch=BATCH, workers=workers):
        pass


def read_jpgs(manifest: Manifest, wanted: Sequence[Wanted], workers: int) -> None:
    loader = DataLoader(Jpgs(manifest, wanted), batch_size=BATCH, num_workers=workers, collate_fn=list)
    for _ in loader:
        pass


def timed(call: Callable[[], object]) -> Sample:
    before = now()
    call()
    return now() - before


def levels_between(manifest: Manifest, wanted: Sequence[Wanted]) -> float:
    """Mean levels between a window from its video and from jpg files, in the order of the files; the worst window."""
    found = batches(manifest, wanted, replace(DESIGN, side_in=SIDE, order="legacy"), batch=1)  # no pixel is left out
    theirs = (from_jpgs(manifest.clips[one.row].path, float(one.at)) for one in wanted)
    both = zip((reads[0].windows_ktHWC[0] for reads in found), theirs, strict=True)
    return max(float((ours.float() - others.float()).abs().mean()) for ours, others in both)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    manifest, n = made(options.work_dir, options.clips), options.clips
    videos = [clip.path for clip in manifest.clips]
    lots = np.random.default_rng(0)
    rows = [row for _ in range(options.passes) for row in lots.permutation(n).tolist()]
    wanted = [Wanted(row=row, at=at) for row, at in zip(rows, lots.random(len(rows)).tolist(), strict=True)]

    written = timed(lambda: [extract(video) for video in videos])
    first = timed(partial(read_videos, manifest, wanted[:n], 0))
    again = timed(partial(read_videos, manifest, wanted[:n], 0))
    assert len(reading._indexes) == n
    difference = levels_between(manifest, [Wanted(row=row) for row in range(min(n, 8))])
    cases = {
        f"{name}, {workers} worker{'s' * (workers > 1)}": partial(read, manifest, wanted, workers)
        for workers in WORKERS
        for name, read in ((OURS, read_videos), (JPG, read_jpgs))
    }
    samples = interleaved(cases, options.rounds)
    jpgs = [file for video in videos for file in folder_of(video).iterdir()]
    bytes_of_videos, bytes_of_jpgs = (sum(file.stat().st_size for file in files) for files in (videos, jpgs))
    return {
        "clips_per_second": {name: round(len(wanted) / median(found), 1) for name, found in samples.items()},
        "seconds_per_clip": rounded(samples, per=len(wanted)),
        "time_relative_to_jpg": {
            of: {w: round(ratio(samples[ours], samples[jpg], of), 3) for w, ours, jpg in _pairs(list(samples))}
            for of in ("wall", "cpu")
        },
        "first_epoch_cpu_seconds_per_clip": round(first.cpu / n, 6),
        "later_epoch_cpu_seconds_per_clip": round(again.cpu / n, 6),
        "jpg_cpu_seconds_per_clip_to_write": round(written.cpu / n, 6),
        "jpg_wall_seconds_per_clip_to_write": round(written.wall / n, 6),
        "bytes_per_clip": {OURS: round(bytes_of_videos / n), JPG: round(bytes_of_jpgs / n)},
        "files_per_clip": {OURS: 1, JPG: len(jpgs) // n + 1},  # its folder is an inode, too
        "levels_between": round(difference, 3),
    }


def _pairs(names: Sequence[str]) -> list[tuple[int, str, str]]:
    return [(workers, names[2 * place], names[2 * place + 1]) for place, workers in enumerate(WORKERS)]


def show(found: dict[str, Any]) -> None:
    table(
        ["", "clips per second", "processor ms per clip"],
        [
            [name, f"{rate:.0f}", f"{1000 * found['seconds_per_clip'][name]['cpu']:.2f}"]
            for name, rate in found["clips_per_second"].items()
        ],
    )
    print(
        f"first epoch, which indexes: {1000 * found['first_epoch_cpu_seconds_per_clip']:.1f} ms per clip; later ",
        end="",
    )
    print(f"{1000 * found['later_epoch_cpu_seconds_per_clip']:.1f} ms, both without workers")
    print(f"writing the jpg files: {1000 * found['jpg_cpu_seconds_per_clip_to_write']:.1f} ms per clip\n")
    table(
        ["", "bytes per clip", "files per clip"],
        [[name, str(found["bytes_per_clip"][name]), str(found["files_per_clip"][name])] for name in (OURS, JPG)],
    )


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--clips", type=int, default=128, metavar="N", help="videos that are made (default: 128)")
    parser.add_argument("--passes", type=int, default=8, metavar="N", help="windows of each, per round (default: 8)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(benchmark="loader", options=options)
    found = measured(options)
    print(file=sys.stderr)
    show(found)
    report.finish(targets={}, clips=options.clips, passes=options.passes, **found)


if __name__ == "__main__":
    main()
