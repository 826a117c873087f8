"""An example to learn from: tiny clips in which a bright spot moves twice, a recipe that learns them, and a grid.

A folder flows in, a data set of H.264 clips with its manifests and two configurations flow out, the same on every call.
This module knows nothing of networks.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from ..errors import UsageError
from ..files import make_folder, write_bytes, writing

MOVES = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}  # (rows, columns)
CLASSES = {f"{first}_then_{second}": (first, second) for first, second in itertools.permutations(MOVES, 2)}
SCENES = {"train": range(24), "test": range(24, 34)}  # of each class, every scene has one clip
RECIPE, GRID = "recipe.toml", "order.toml"

SIDE = 14  # pixels
FRAME_RATE = 30
WINDOW = 32  # frames that the recipe's network sees: both moves happen in any of a clip's windows
LENGTHS = range(28, 37)  # frames
STEPS, REST = 8, 2  # frames of a move, and at least between two
SPEED = 1.1  # pixels per frame
SPOT = 1.2  # pixels, standard deviation
NOISE = 14  # levels, standard deviation

SETTINGS = """\
# Twelve kinds of clips, 14 pixels high: a spot moves in one direction, then in another.

[data]
train = "train.csv"
validation = 0.125  # of the training clips: three of 24 scenes
test = "test.csv"
flip = 0.0          # in a mirror, right is left
workers = 1

[model]             # an I3D with an eighth of the channels; the bilinear resizer learns nothing, and costs nothing
frames = 32
side_in = 14
side = 28
width = 0.125
resizer = "none"
dropout = 0.0

[train]
epochs = 16
batch = 6
lr = 1.5e-3         # at twice of this one training in four learnt nothing in as many epochs
momentum = 0.1      # of the running statistics: I3D's own 0.01 is for trainings of many more steps
"""
AXIS = """
[grid]              # cell 0: frames in order; cell 1: 0 1 10 11 ... 19 2 20 ...
"data.order" = ["natural", "legacy"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """The spot in one frame: (row, column) of its center, in pixels."""

    frame: int
    center: tuple[float, float]


def write_example(folder: str | Path, scenes: Mapping[str, range] = SCENES) -> list[Path]:
    """Writes the data set, RECIPE and GRID, and names what was written: the two configurations first.

    Raises WriteError, and UsageError where one of these texts is there and says something else.
    """
    folder = Path(folder)
    texts = {RECIPE: SETTINGS, GRID: SETTINGS + AXIS} | {f"{part}.csv": _csv(some) for part, some in scenes.items()}
    for name, text in texts.items():
        if (folder / name).is_file() and (folder / name).read_bytes() != text.encode():
            raise UsageError(f"{folder / name} is there and says something else: name another folder")
    clips = []
    for scene, name in itertools.product(itertools.chain(*scenes.values()), CLASSES):
        clips.append(make_folder(folder / f"clips/scene_{scene:02d}") / f"{name}.mp4")
        write_clip(clips[-1], pictures(scene, name))
    for name, text in texts.items():
        write_bytes(folder / name, text.encode())
    return [*(folder / name for name in texts), *clips]


def pictures(scene: int, name: str) -> NDArray[np.uint8]:
    """(frames, 14, 14, 3) RGB: the clip of a scene that shows a class."""
    background, color = _look(scene)
    generator = _generator(scene, name)
    n_frames = int(generator.choice(LENGTHS))
    film = background + generator.normal(0, NOISE, (n_frames, SIDE, SIDE, 1))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for motion in motions(scene, name):
        row, column = motion.center
        film[motion.frame] += np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * SPOT**2))[..., None] * color
    return np.clip(film, 0, 255).astype(np.uint8)


def motions(scene: int, name: str) -> list[Motion]:
    """Where the spot is, in every frame of the clip that has one. Both moves have their own places and times."""
    generator = _generator(scene, name)
    n_frames = int(generator.choice(LENGTHS))
    generator = _generator(scene, name, 1)
    begin, end = max(n_frames - WINDOW, 0), min(n_frames, WINDOW)
    waits = np.sort(generator.integers(0, end - begin - 2 * STEPS - REST + 1, 2))
    found = []
    for number, (wait, move) in enumerate(zip(waits, CLASSES[name], strict=True)):
        step = SPEED * np.array(MOVES[move])
        margin, way = SPOT, np.abs(step) * (STEPS - 1)
        first = generator.uniform(margin, SIDE - 1 - margin - way) + np.where(step < 0, way, 0)
        start = begin + int(wait) + number * (STEPS + REST)
        for i in range(STEPS):
            row, column = first + step * i
            found.append(Motion(frame=start + i, center=(float(row), float(column))))
    return found


def write_clip(path: Path, film: NDArray[np.uint8]) -> None:
    """Writes RGB frames as H.264 with all of their colors, the same pictures on every call. Raises WriteError."""
    # Not by way of a file that is synced to disk and renamed: of hundreds that would take most of a minute.
    with writing(path), av.open(path, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE)
        video.width, video.height, video.pix_fmt = film.shape[2], film.shape[1], "yuv444p"
        # One thread and no macroblock tree: with either, x264 (as in av 18.1) writes other pictures in some runs.
        video.options = {"preset": "veryfast", "crf": "12", "threads": "1", "x264-params": "mbtree=0:rc-lookahead=0"}
        colors = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.MPEG}
        video.codec_context.colorspace, video.codec_context.color_range = colors.values()
        reformatter = VideoReformatter()  # one for all: each begins threads of its own
        for picture in film:
            frame = av.VideoFrame.from_ndarray(picture)
            container.mux(video.encode(reformatter.reformat(frame, format="yuv444p", **colors)))
        container.mux(video.encode())


def _look(scene: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A smooth background (14, 14, 3), and what the middle of the spot adds to it (3,)."""
    generator = np.random.default_rng([scene])
    corners = generator.uniform(40, 110, (3, 3, 3))
    places = np.linspace(0, 2, SIDE)
    weights = np.maximum(1 - np.abs(places[:, None] - np.arange(3)), 0)  # of three corners, for each place between them
    background = np.einsum("yi,xj,ijc->yxc", weights, weights, corners)
    return background, generator.uniform(100, 160) * generator.uniform(0.6, 1, 3)


def _generator(scene: int, name: str, *more: int) -> np.random.Generator:
    return np.random.default_rng([scene, list(CLASSES).index(name), *more])


def _csv(scenes: range) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "labels", "scene"))
    for number, name in itertools.product(scenes, CLASSES):
        scene = f"scene_{number:02d}"
        table.writerow((f"clips/{scene}/{name}.mp4", name, scene))
    return text.getvalue()
