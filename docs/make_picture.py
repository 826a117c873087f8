"""The README's picture: what cutting a film into pieces does to a model with a memory, and what streamsal does.

A film flows in (the demo's clip unless one is named), a picture flows out. All in it is measured here, with
`sigmotion`, which remembers half a second: the film undivided, which is the truth; as tasks of streamsal; and as the
pieces that scripts make of it, each behind black frames, drawn in jet from each map's own minimum to its own maximum.

    python docs/make_picture.py [FILM] [--tasks 8] [-o docs/pieces.jpg]      needs matplotlib: pip install '.[bench]'
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

matplotlib.use("agg")
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from streamsal.decode import VideoReader
from streamsal.density import full_size
from streamsal.drawing.colormaps import colormap
from streamsal.drawing.shown_maps import Densities, film_maximum
from streamsal.engine import predict
from streamsal.index import VideoIndex, index_video
from streamsal.merge import Run, merge, open_run
from streamsal.models import create_model
from streamsal.prepare import Request, make_plan
from streamsal.report.contact_sheet import draw, pictures
from streamsal.sample_clip import write_demo_clip
from streamsal.task import infer

MODEL = "sigmotion"
BLACK_FRAMES = 15  # in front of every piece
BEHIND = 15  # frames behind a border among which the worst is shown

WIDTH, MARGIN, GAP, HEAD, PLOT = 1660, 36, 18, 96, 310  # pixels, twice those on the page
COLUMN = (WIDTH - 2 * MARGIN - 2 * GAP) // 3
DPI = 200
INK, QUIET, RULE = "#1f2328", "#6e7781", "#d8dee4"
WRONG, RIGHT = "#c2410c", "#0f766e"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Total variation to the undivided run of `pieces` and of `ours`, (n,) each, 0 to 1.

    `borders`: where each task but the first begins. `shown`: the last frame before a border and the worst behind it; of
    each the pictures (h, w, 3): the film, the pieces' map, ours.
    """

    seconds: np.ndarray
    borders: list[int]
    pieces: np.ndarray
    ours: np.ndarray
    shown: dict[int, list[np.ndarray]]


def compare(film: Path, folder: Path, *, tasks: int) -> Comparison:
    index = index_video(film)
    with computed(film, folder, 1) as undivided, computed(film, folder, tasks) as divided:
        assert divided.plan is not None
        borders = [shard[0].start for shard in divided.plan.shards[1:]]
        truth, ours = (
            np.stack([run[film.name].native(k) for k in range(index.n_frames)]) for run in (undivided, divided)
        )
        pieces = in_pieces(index, borders)
        difference = total_variation(pieces, truth)
        maps = divided[film.name]
        densities = Densities(maps, index, "none")
        maximum, shown = film_maximum(densities), {}
        for frame, rgb in pictures(index, before_and_behind(difference, borders), COLUMN):
            right, readback = densities.computed(frame), maps.first.readback
            assert rgb is not None and right is not None and readback is not None
            wrong = full_size(torch.from_numpy(pieces[frame][None]), rgb.shape[0], rgb.shape[1], readback, {})
            shown[frame] = [rgb, jet(rgb, wrong[0].numpy()), draw(rgb, right, colormap("inferno"), maximum)]
    return Comparison(
        seconds=index.pts_seconds - index.pts_seconds[0],
        borders=borders,
        pieces=difference,
        ours=total_variation(ours, truth),
        shown=shown,
    )


def computed(film: Path, folder: Path, tasks: int) -> Run:
    run = folder / f"{tasks}.streamsal"
    make_plan([film], run, Request(model=MODEL, tasks=tasks, store_dtype="float32"))
    for task in range(tasks):
        infer(run, task)
    merge(run)
    return open_run(run)


def in_pieces(index: VideoIndex, borders: Sequence[int]) -> np.ndarray:
    """(n, h, w) log density of every frame, each piece a film of its own behind black frames.

    Raises SystemExit for a film with holes, which pieces cannot tell.
    """
    model, found = create_model(MODEL, device="cpu"), []
    rate = (index.n_frames - 1) / float(index.pts_seconds[-1] - index.pts_seconds[0])
    with VideoReader(index) as reader:
        for start, stop in pairwise([0, *borders, index.n_frames]):
            piece = [frame.rgb for frame in reader.read(range(start, stop)) if frame.rgb is not None]
            black = [np.zeros_like(piece[0])] * BLACK_FRAMES
            maps = predict(np.stack([*black, *piece]), model=model, fps=rate, native=True)
            found.append(maps[BLACK_FRAMES:])
    if sum(map(len, found)) != index.n_frames:
        raise SystemExit(f"{index.path} has frames that cannot be decoded: choose another film")
    return np.concatenate(found)


def total_variation(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """(n,) share of the probability that lies elsewhere, of two (n, h, w) log densities."""
    p, q = (np.exp(each, dtype=np.float64) for each in (log_p, log_q))
    return np.abs(p - q).sum((1, 2)) / 2


def before_and_behind(difference: np.ndarray, borders: Sequence[int]) -> list[int]:
    """The frame before the border behind which the difference is largest, and the frame where it is."""
    behind = {border: border + int(np.argmax(difference[border : border + BEHIND])) for border in borders}
    border = max(borders, key=lambda border: difference[behind[border]])
    return [border - 1, behind[border]]


def jet(rgb: np.ndarray, log_density: np.ndarray) -> np.ndarray:
    """The map from its own minimum to its own maximum, over the picture."""
    level = np.rint(255 * (log_density - log_density.min()) / np.ptp(log_density)).astype(np.uint8)
    return np.rint(0.4 * rgb + 0.6 * colormap("jet")[level]).astype(np.uint8)


def picture(found: Comparison, *, about: str) -> Figure:
    """The page; `about` says what is to be seen in the film."""
    film = next(iter(found.shown.values()))[0]
    tall = round(COLUMN * film.shape[0] / film.shape[1])
    height = HEAD + len(found.shown) * (tall + GAP) + PLOT
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    page = figure.add_axes((0, 0, 1, 1))
    page.axis("off")
    columns = (
        ("The film", about, INK),
        ("Cut into pieces", "no history, and a scale for each frame", WRONG),
        ("streamsal", f"{len(found.borders) + 1} tasks on one film, and one scale for all", RIGHT),
    )
    for k, (title, note, color) in enumerate(columns):
        left = MARGIN + k * (COLUMN + GAP)
        write(page, left, 40, title, color, 9.5, weight="bold")
        write(page, left, 72, note, QUIET, 6.8)
        for row, images in enumerate(found.shown.values()):
            put(page, images[k], left, HEAD + row * (tall + GAP), tall)
    page.set(xlim=(0, WIDTH), ylim=(height, 0), aspect="auto")
    for row, (letter, frame) in enumerate(zip("AB", found.shown, strict=True)):
        plate = {"boxstyle": "round,pad=0.5,rounding_size=0.4", "fc": "black", "ec": "none", "alpha": 0.6}
        bottom = HEAD + row * (tall + GAP) + tall
        write(page, MARGIN + 24, bottom - 28, f"{letter}   {place(frame, found.borders)}", "white", 6.4, bbox=plate)
    top, most = height - PLOT + 26, found.ours.max()
    ours = f"streamsal: at most {most:.2g}" if most else "streamsal: 0 in every frame"
    write(page, MARGIN, top, "Share of each map that is not where it belongs", INK, 7.8, weight="bold")
    write(page, WIDTH - MARGIN - 330, top, "cut into pieces", WRONG, 7, weight="bold", ha="right")
    write(page, WIDTH - MARGIN, top, ours, RIGHT, 7, weight="bold", ha="right")
    across = MARGIN / WIDTH
    timeline(figure.add_axes((across, 56 / height, 1 - 2 * across, (PLOT - 118) / height)), found)
    return figure


def write(page: Any, x: float, y: float, text: str, color: str, size: float, **more: Any) -> None:
    page.text(x, y, text, color=color, size=size, va="center", **more)


def put(page: Any, image: np.ndarray, left: float, top: float, tall: float) -> None:
    """An image as wide as a column, with round corners."""
    inside = (left + 9, top + 9), COLUMN - 18, tall - 18
    corners = page.add_patch(FancyBboxPatch(*inside, boxstyle="round,pad=9", fc="none", ec="none"))
    page.imshow(image, extent=(left, left + COLUMN, top + tall, top), clip_path=corners)


def place(frame: int, borders: Sequence[int]) -> str:
    if frame + 1 in borders:
        return f"frame {frame}, the last of its piece"
    number = frame + 1 - max(border for border in borders if border <= frame)
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number, "th")
    return f"frame {frame}, the {number}{ending} of the next"


def timeline(axes: Any, found: Comparison) -> None:
    """The differences over time, frames as steps, with the borders and the frames that are shown."""
    end = found.seconds[-1] + found.seconds[1]
    edges = [*found.seconds, end]
    pieces, ours = (100 * np.append(each, each[-1]) for each in (found.pieces, found.ours))
    top = max(pieces.max(), 1)
    axes.set(xlim=(0, end), ylim=(-0.05 * top, 1.3 * top))
    for percent in range(10, int(top) + 1, 10):
        axes.axhline(percent, color=RULE, lw=0.5, zorder=0)
        axes.text(0, percent, f"{percent} %", color=QUIET, size=6.2, va="bottom")
    starts = [0, *(found.seconds[border] for border in found.borders)]
    for task, (start, stop) in enumerate(pairwise([*starts, end])):
        axes.axvline(start, color=RULE, lw=0.8, zorder=0, visible=task > 0)
        axes.text((start + stop) / 2, 1.3 * top, f"task {task}", color=QUIET, size=6.2, ha="center", va="top")
    axes.fill_between(edges, pieces, step="post", color=WRONG, alpha=0.14, lw=0, zorder=1)
    axes.step(edges, pieces, where="post", color=WRONG, lw=1, zorder=2)
    axes.step(edges, ours, where="post", color=RIGHT, lw=1.8, zorder=3)
    for letter, frame, side in zip("AB", found.shown, (-1, 1), strict=True):
        x, y = (edges[frame] + edges[frame + 1]) / 2, pieces[frame]
        axes.plot(x, y, "o", ms=3.6, color=INK, mec="white", mew=0.7, zorder=4)
        axes.text(x + 0.014 * side * end, y + 0.07 * top, letter, color=INK, size=7, weight="bold", ha="center")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=6.2, labelcolor=QUIET, pad=3)
    axes.set_xticks(starts, [f"{start:.3g} s" for start in starts])
    axes.set_yticks([])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", nargs="?", type=Path, metavar="FILM", help="default: the demo's clip")
    parser.add_argument("--tasks", type=int, default=8, help="and pieces, two or more (default: 8)")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("pieces.jpg"), metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        film = options.film or write_demo_clip(Path(folder) / "clip.mp4", width=1280, height=720)
        found = compare(film, Path(folder), tasks=options.tasks)
    about = "two frames, before and behind a border" if options.film else "one ball moves against all others"
    picture(found, about=about).savefig(options.output, pil_kwargs={"quality": 80, "subsampling": 0})
    for name, difference in (("in pieces", found.pieces), ("streamsal", found.ours)):
        wrong = f"{np.count_nonzero(difference)} of {len(difference)} frames"
        print(f"{name}: {wrong} differ from the undivided run, by at most {difference.max():.2%}")
    print(options.output)


if __name__ == "__main__":
    main()
