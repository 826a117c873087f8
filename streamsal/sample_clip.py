"""The sample clip: scenes of visual search, drawn with numpy and filmed with sound; nothing is downloaded.

A size and a length flow in, a video file flows out, the same one every time. The scenes are textbook cases: a bar of
another color and orientation, a disc that moves against the others, a face that leads another. Every scene says where
its target is, so that a map can be judged by eye and by number. This module knows nothing of models or runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from .files import replacing

SCENE_SECONDS = 8 / 3
SOUND_RATE_HZ = 48_000
SUBPIXELS = 4  # positions of a sprite between two pixels: a quarter pixel is below what the eye sees moving

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One scene of the clip: frames [start, stop), which kind, and the seed that makes each repetition its own."""

    start: int
    stop: int
    kind: str
    seed: int

    @property
    def n_frames(self) -> int:
        return self.stop - self.start


class Scene(Protocol):
    """What can be filmed: the picture at a frame of the shot, and the target's (x, y) in fractions of width, height."""

    def paint(self, frame: int) -> Pixels: ...

    def target(self, frame: int) -> tuple[float, float]: ...


def shot_list(n_frames: int, frame_rate: Fraction | int = 25) -> list[Shot]:
    """The clip's shots in order, three or more, each about `SCENE_SECONDS` long; a hard cut between two of them."""
    n_shots = max(3, round(float(n_frames / frame_rate) / SCENE_SECONDS))
    borders = [n_frames * i // n_shots for i in range(n_shots + 1)]
    kinds = list(SCENES)
    return [
        Shot(start=start, stop=stop, kind=kinds[i % len(kinds)], seed=i)
        for i, (start, stop) in enumerate(pairwise(borders))
    ]


def write_demo_clip(
    path: str | Path,
    *,
    seconds: float = 8,
    width: int = 640,
    height: int = 360,
    frame_rate: Fraction | int = 25,
    preset: str = "veryfast",
    on_frame: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes the sample clip, H.264 with B-frames and AAC stereo sound, the same pictures on every call.

    `on_frame(done, total)` is called after each frame. The file's name decides the container (mp4, mkv, mov).
    """
    if width % 2 or height % 2 or min(width, height) < 64:
        raise ValueError(f"the clip needs even sides of at least 64 pixels: {width = }, {height = }")
    n_frames = round(seconds * frame_rate)
    if n_frames < 3:
        raise ValueError(f"the clip needs at least three frames, one per scene: {seconds = }, {frame_rate = }")
    path = Path(path)
    with replacing(path) as part, av.open(part, "w") as container:
        video = container.add_stream("libx264", rate=frame_rate)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        # One thread and no macroblock tree: with either, x264 (as in av 18.1) writes other pictures in some runs.
        video.options = {"preset": preset, "crf": "20", "g": str(2 * round(frame_rate)), "bf": "3", "threads": "1"}
        video.options |= {"x264-params": "mbtree=0:rc-lookahead=0"}
        video.codec_context.colorspace = Colorspace.ITU709
        video.codec_context.color_range = ColorRange.MPEG
        video.codec_context.color_primaries, video.codec_context.color_trc = 1, 1  # BT.709
        sound = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo")
        for frame, (picture, samples) in enumerate(film(n_frames, width, height, frame_rate)):
            image = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            image.pts, image.time_base = frame, 1 / Fraction(frame_rate)
            container.mux(video.encode(image))
            audio = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            audio.sample_rate, audio.pts = SOUND_RATE_HZ, _sample(frame, frame_rate)
            container.mux(sound.encode(audio))
            if on_frame:
                on_frame(frame + 1, n_frames)
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


def film(
    n_frames: int, width: int, height: int, frame_rate: Fraction | int
) -> Iterator[tuple[Pixels, NDArray[np.float32]]]:
    """Pictures, each with the sound (2, n) of its time, which comes from where the target is."""
    for shot in shot_list(n_frames, frame_rate):
        scene = open_scene(shot, width, height)
        for frame in range(shot.start, shot.stop):
            samples = np.arange(_sample(frame, frame_rate), _sample(frame + 1, frame_rate))
            t = (samples - _sample(shot.start, frame_rate)) / SOUND_RATE_HZ
            last = float(shot.n_frames / frame_rate)
            yield scene.paint(frame - shot.start), tone(shot, t, last, scene.target(frame - shot.start)[0])


def open_scene(shot: Shot, width: int, height: int) -> Scene:
    """The scene of a shot, ready to be painted; its frames count from 0."""
    return SCENES[shot.kind](width, height, shot.n_frames, np.random.default_rng(shot.seed))


@lru_cache(maxsize=2)  # both grounds of a clip, which all its shots share
def natural_texture(height: int, width: int, *, stretch: float = 1, finest: float = 120) -> NDArray[np.float32]:
    """Periodic noise (H, W) with the 1/f amplitude spectrum of natural scenes, mean 0, standard deviation 1.

    `finest` is where the spectrum ends, in cycles per frame height; `stretch` widens the pattern sideways.
    """
    spectrum = np.fft.rfft2(np.random.default_rng(1).standard_normal((height, width), dtype=np.float32))
    cycles = height * np.hypot(np.fft.fftfreq(height)[:, None], stretch * np.fft.rfftfreq(width)[None, :])
    spectrum *= np.exp(-((cycles / finest) ** 2)) / np.maximum(cycles, 3)
    spectrum[0, 0] = 0
    texture = np.fft.irfft2(spectrum, (height, width)).astype(np.float32)
    return texture / texture.std()


def tone(shot: Shot, t: NDArray[np.float64], last: float, x: float) -> NDArray[np.float32]:
    """Sound at times `t` of a shot `last` seconds long: a soft chord, and a bell that marks the cut; `x` pans it."""
    root = 110 * 2 ** ((0, 5, 3, 7)[shot.seed % 4] / 12)
    swell = np.clip(t / 0.4, 0, 1) * np.clip((last - t) / 0.15, 0, 1)
    chord = sum(np.sin(2 * np.pi * root * ratio * t) / ratio for ratio in (1, 1.5, 2, 2.5)) * swell
    bell = sum(
        np.exp(-t * decay) * np.sin(2 * np.pi * 4 * root * ratio * t) for ratio, decay in ((1, 4), (2.76, 7), (5.4, 12))
    ) * np.clip(t / 0.004, 0, 1)
    angle = np.pi / 2 * np.clip(x, 0, 1)
    return ((0.06 * chord + 0.10 * bell) * np.array([[np.cos(angle)], [np.sin(angle)]])).astype(np.float32)


class OddBar:
    """A field of bars over texture, one of them of another orientation and color; the camera pans slowly."""

    def __init__(self, width: int, height: int, n_frames: int, rng: np.random.Generator) -> None:
        self.width, self.height = width, height
        self.step = max(1, round(0.10 * width / n_frames))
        pan = self.step * n_frames
        self.canvas = ground(height, width + pan, (40, 58, 74), 7, rng)
        pitch = height / 7.5
        rows, columns = int(height / pitch) + 1, int((width + pan) / pitch) + 1
        odd = (int(rng.integers(2, rows - 3)), int((width * rng.uniform(0.25, 0.75) + pan / 2) / pitch))
        tilt = rng.uniform(0, np.pi)
        for row in range(rows):
            for column in range(columns):
                center = (np.array([column, row]) + 0.5 + rng.uniform(-0.14, 0.14, 2)) * pitch
                angle = tilt + rng.normal(0, 0.06)
                color = np.array([206, 202, 186]) + rng.normal(0, 5)
                if (row, column) == odd:
                    angle, color, self.center = tilt + np.pi / 2, np.array([246, 118, 62]), center
                draw(self.canvas, bar(0.34 * pitch, 0.085 * pitch, angle, color), *center)

    def paint(self, frame: int) -> Pixels:
        return self.canvas[:, frame * self.step :][:, : self.width].copy()

    def target(self, frame: int) -> tuple[float, float]:
        return (self.center[0] - frame * self.step) / self.width, self.center[1] / self.height


class OddMotion:
    """Discs that drift one way over a panning texture, and one of the same kind that moves against them."""

    def __init__(self, width: int, height: int, n_frames: int, rng: np.random.Generator) -> None:
        self.width, self.height = width, height
        self.step = max(1, round(0.12 * width / n_frames))
        self.ground = ground(height, width + self.step * n_frames, (196, 184, 160), 11, rng)
        self.way = 1 if rng.random() < 0.5 else -1
        self.speed = 0.45 * height / n_frames
        self.disc = sphere(0.047 * height, (38, 96, 112))
        lane, gap = height / 4.4, height / 5
        columns = int(width / gap) + 2
        self.span = columns * gap
        lanes = np.array([(x + y % 2 / 2, y + 0.6) for y in range(4) for x in range(columns)])
        # Lanes are so far apart that the odd disc passes between two of them without touching a disc.
        self.discs = (lanes + rng.uniform((-0.15, -0.07), (0.15, 0.07), lanes.shape)) * (gap, lane)
        self.odd = np.array([width * (0.5 + self.way * rng.uniform(0.1, 0.25)), lane * (rng.integers(1, 3) + 1.1)])

    def paint(self, frame: int) -> Pixels:
        picture = self.ground[:, frame * self.step :][:, : self.width].copy()
        x = (self.discs[:, 0] + self.way * self.speed * frame) % self.span - self.height / 10
        for position in zip(x, self.discs[:, 1], strict=True):
            draw(picture, self.disc, *position)
        draw(picture, self.disc, self.odd[0] - self.way * self.speed * frame, self.odd[1])
        return picture

    def target(self, frame: int) -> tuple[float, float]:
        return (self.odd[0] - self.way * self.speed * frame) / self.width, self.odd[1] / self.height


class Leader:
    """A bright face that crosses a landscape at dusk, and a smaller one that follows it."""

    def __init__(self, width: int, height: int, n_frames: int, rng: np.random.Generator) -> None:
        self.width, self.height, self.n_frames = width, height, n_frames
        self.step = max(1, round(0.08 * width / n_frames))
        self.far = dusk(height, width + self.step * n_frames, rng)
        ridge = (0.80 + hills(width + 3 * self.step * n_frames, height, rng, 0.045)) * height
        self.near = ground(height, len(ridge), (34, 52, 50), 5, rng)
        self.top, self.full = int(ridge.min()), int(ridge.max()) + 1  # the rows where the ridge line runs
        cover = np.clip(np.arange(self.top, self.full)[:, None] + 0.5 - ridge, 0, 1)
        self.edge = _premultiply(self.near[self.top : self.full], cover)
        self.lead, self.follow = face(0.115 * height, (255, 214, 120)), face(0.07 * height, (236, 170, 140))

    def paint(self, frame: int) -> Pixels:
        picture = self.far[:, frame * self.step :][:, : self.width].copy()
        for sprite, late in ((self.follow, 0.22), (self.lead, 0.0)):
            x, y = self._flight(frame / self.n_frames - late)
            draw(picture, sprite, x * self.width, y * self.height)
        seen = slice(3 * self.step * frame, 3 * self.step * frame + self.width)
        _over(picture[self.top : self.full], *(part[:, seen] for part in self.edge))
        picture[self.full :] = self.near[self.full :, seen]
        return picture

    def target(self, frame: int) -> tuple[float, float]:
        return self._flight(frame / self.n_frames)

    def _flight(self, time: float) -> tuple[float, float]:
        return 0.22 + 0.62 * time, 0.62 - 0.30 * np.sin(np.pi * (0.1 + 0.85 * time)) + 0.012 * np.sin(18 * time)


SCENES: dict[str, Callable[..., Scene]] = {"odd bar": OddBar, "odd motion": OddMotion, "leader": Leader}


def ground(height: int, width: int, color: tuple[int, int, int], contrast: float, rng: np.random.Generator) -> Pixels:
    """A ground of one color (H, W, 3) whose brightness follows the natural texture by `contrast` levels."""
    shade = _strip(natural_texture(height, _tile(height)), width, rng)[..., None]
    return np.clip(np.array(color, np.float32) + contrast * shade, 0, 255).astype(np.uint8)


def hills(width: int, height: int, rng: np.random.Generator, relief: float) -> NDArray[np.float64]:
    """A ridge line (width,), in fractions of the height: octaves of sines with random phases."""
    x = np.arange(width) / height
    octaves = ((1.7, 1), (3.9, 0.5), (8.3, 0.2), (19, 0.06), (47, 0.03))
    waves = [gain * np.sin(rate * x + rng.uniform(0, 2 * np.pi)) for rate, gain in octaves]
    return relief * np.sum(waves, axis=0)


def dusk(height: int, width: int, rng: np.random.Generator) -> Pixels:
    """Sky with clouds, and two ranges of hills in haze (H, W, 3)."""
    y = (np.arange(height) + 0.5) / height
    stops, colors = (0, 0.45, 0.72, 1), np.array([(52, 62, 104), (126, 110, 142), (226, 160, 128), (244, 196, 150)])
    sky = np.stack([np.interp(y, stops, channel) for channel in colors.T], axis=-1)[:, None, :].astype(np.float32)
    banks = _strip(natural_texture(height, _tile(height), stretch=4, finest=40), width, rng)
    clouds = np.clip(0.18 * banks - 0.02, 0, 0.4)[..., None]
    picture = sky + clouds * (np.array([255, 226, 210], np.float32) - sky)
    for base, relief, color in ((0.66, 0.05, (122, 104, 128)), (0.74, 0.04, (78, 82, 98))):
        ridge = (base + hills(width, height, rng, relief)) * height
        top = max(0, int(ridge.min()))
        cover = np.clip(np.arange(top, height)[:, None] + 0.5 - ridge, 0, 1)[..., None].astype(np.float32)
        picture[top:] += cover * (ground(height, width, color, 3, rng)[top:] - picture[top:])
    return np.clip(picture, 0, 255).astype(np.uint8)


def _tile(height: int) -> int:
    return 4 * height  # after which the texture repeats: wider than any picture, so nobody sees it


def _strip(texture: NDArray[np.float32], width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    start = int(rng.integers(texture.shape[1]))
    return np.take(texture, range(start, start + width), axis=1, mode="wrap")


# A sprite paints itself around a point given in fractions of a pixel: (dx, dy) in [0, 1) > (color x alpha, 256 - alpha)
# with alpha in 0..256, both (h, w, 3) uint16, so that it is drawn with three integer operations per value.
Sprite = Callable[[float, float], tuple[NDArray[np.uint16], NDArray[np.uint16]]]


def draw(picture: Pixels, sprite: Sprite, x: float, y: float) -> None:
    """Puts a sprite onto a picture with its center at (x, y), pixel centers at half-integers, clipped at the border."""
    qx, qy = round(x * SUBPIXELS), round(y * SUBPIXELS)
    paint, keep = sprite(qx % SUBPIXELS / SUBPIXELS, qy % SUBPIXELS / SUBPIXELS)
    top, left = qy // SUBPIXELS - len(keep) // 2, qx // SUBPIXELS - keep.shape[1] // 2
    cut_y, cut_x = (
        slice(max(0, -top), max(0, len(picture) - top)),
        slice(max(0, -left), max(0, picture.shape[1] - left)),
    )
    paint, keep = paint[cut_y, cut_x], keep[cut_y, cut_x]
    if keep.size:
        y0, x0 = max(0, top), max(0, left)
        _over(picture[y0 : y0 + len(keep), x0 : x0 + keep.shape[1]], paint, keep)


def _premultiply(color: NDArray, alpha: NDArray) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    weight = np.repeat(np.round(alpha * 256)[..., None], 3, axis=-1)  # whole, because broadcasting costs twice the time
    return (color * weight).astype(np.uint16), (256 - weight).astype(np.uint16)


def _over(patch: Pixels, paint: NDArray[np.uint16], keep: NDArray[np.uint16]) -> None:
    blended = patch * keep
    blended += paint
    blended >>= 8
    patch[...] = blended


def sprite(radius: float, shade: Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]) -> Sprite:
    """A sprite from `shade(x, y) -> (color (h, w, 3) in 0..255, alpha (h, w) in 0..1)`, in pixels from its center."""
    half = int(np.ceil(radius)) + 2

    @cache
    def at(dx: float, dy: float) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        grid = np.arange(-half, half) + 0.5
        color, alpha = shade(grid[None, :] - dx, grid[:, None] - dy)
        return _premultiply(np.clip(color, 0, 255), alpha)

    return at


def bar(half_length: float, half_width: float, angle: float, color: NDArray) -> Sprite:
    """A bar with round ends."""

    def shade(x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        outside = np.hypot(np.maximum(np.abs(along) - half_length + half_width, 0), across) - half_width
        return np.broadcast_to(color, (*outside.shape, 3)), np.clip(0.5 - outside, 0, 1)

    return sprite(half_length, shade)


@cache
def sphere(radius: float, color: tuple[int, int, int]) -> Sprite:
    """A matte ball lit from the upper left, with a soft shadow below it."""

    def shade(x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        r = np.hypot(x, y) / radius
        light = (-0.45 * x - 0.6 * y) / radius + 0.66 * np.sqrt(np.maximum(1 - r**2, 0))
        lit = (
            np.array(color) * (0.55 + 0.75 * np.maximum(light, 0))[..., None]
            + 46 * np.clip(light, 0, 1)[..., None] ** 6
        )
        solid = np.clip((1 - r) * radius + 0.5, 0, 1)
        shadow = 0.42 * np.exp(-((np.hypot(x - 0.18 * radius, y - 0.3 * radius) / (0.95 * radius)) ** 4))
        alpha = solid + (1 - solid) * shadow
        return lit * (solid / np.maximum(alpha, 1e-6))[..., None], alpha

    return sprite(1.5 * radius, shade)


@cache
def face(radius: float, color: tuple[int, int, int]) -> Sprite:
    """A round face in a halo that looks where it goes, to the right."""

    def shade(x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        x, y = x / radius, y / radius
        soft = radius  # one pixel of transition, in units of the radius
        r = np.hypot(x, y)
        lit = np.array(color) * (0.86 + 0.14 * np.clip(1 - np.hypot(x + 0.25, y + 0.35), 0, 1))[..., None]
        eyes = np.minimum(np.hypot(x + 0.18, (y + 0.16) * 0.8), np.hypot(x - 0.46, (y + 0.16) * 0.8)) - 0.13
        mouth = np.maximum(np.abs(np.hypot(x - 0.14, y - 0.02) - 0.48) - 0.055, 0.22 - y + np.abs(x - 0.14) * 0.1)
        ink = np.clip(0.5 - np.minimum(eyes, mouth) * soft, 0, 1)[..., None]
        lit = lit + ink * (np.array([60, 40, 48]) - lit)
        solid = np.clip((1 - r) * soft + 0.5, 0, 1)
        halo = 0.5 * np.exp(-((np.maximum(r - 0.9, 0) / 0.45) ** 2)) * np.clip((2.2 - r) * 2, 0, 1)
        alpha = solid + (1 - solid) * halo
        share = (solid / np.maximum(alpha, 1e-6))[..., None]
        return lit * share + np.array([255, 232, 190]) * (1 - share), alpha

    return sprite(2.2 * radius, shade)


def _sample(frame: int, frame_rate: Fraction | int) -> int:
    return round(frame * SOUND_RATE_HZ / Fraction(frame_rate))
