"""A map drawn onto a decoded picture: relative density, or difference of two, and picture in, new picture out.

All on the picture's own planes. Colors are converted to its matrix, range and depth once; after that a picture costs
one enlargement of a small 8-bit map, table look-ups and integer arithmetic. Where nothing is drawn the samples stay as
they were decoded.
Knows no files, no frame numbers and no models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from .canvas import Canvas, plane_of, plane_views
from .gaze_marks import Marks, draw_rings
from .legend import Stamp, contour_legend, difference_legend, line_panel, scale_legend

Style = Literal["overlay", "side", "heatmap", "contour"]
STYLES: tuple[Style, ...] = get_args(Style)
MASSES = {0.9: 0.55, 0.75: 0.75, 0.5: 0.97}  # probability in a region > place of its color in the table; last on top
LINE_STEPS = 24  # levels per width of a contour line
MAP_CELLS = 480 * 270  # a map is averaged down to about this many cells: 1080p / 4, finer than a density ever is
BAND = 32  # rows blended at a time: 3.9 ms for 1080p luma, 6.2 ms without bands (one core of an AMD EPYC)
KEEP = 256  # opacity is in 1/256


@dataclass(frozen=True, slots=True, kw_only=True)
class Ink:
    """Table from map level (0 to 255) to what is drawn: sample = (sample * keep[level] + add[plane][level]) >> 8.

    Exact where keep is 256 and add is 128: the sample comes back as it was.
    """

    keep: np.ndarray
    add: np.ndarray

    @classmethod
    def of(cls, rgb: np.ndarray, opacity: np.ndarray, canvas: Canvas) -> Ink:
        """From (256, 3) colors and (256,) opacities, 0 to 1."""
        wide = np.uint16 if canvas.depth == 8 else np.uint32  # 255 * 256 + 128 is just below 2^16
        alpha = np.rint(np.clip(opacity, 0, 1) * KEEP).astype(np.int64)
        return cls(keep=(KEEP - alpha).astype(wide), add=(canvas.samples(rgb).T * alpha + KEEP // 2).astype(wide))


class Painter:
    """Draws maps in one style. Holds swscale contexts, so make one per thread.

    `difference_of`: the names of two models; maps are then differences, from -maximum to maximum, and the film below is
    gray, because no two colors stand out from every film. `unit`: of the maps, for the legend.
    """

    def __init__(
        self,
        canvas: Canvas,
        *,
        style: Style,
        table: np.ndarray,
        opacity: float,
        legend: bool,
        difference_of: tuple[str, str] | None = None,
        unit: str = "x uniform",
    ) -> None:
        self.canvas = canvas
        self.style: Style = style
        self.legend = legend
        self.difference_of = difference_of
        self._unit = unit
        self._table = table
        self._enlarge = VideoReformatter()
        self._conform = VideoReformatter()
        self._stamps: dict[tuple[float, str], Stamp] = {}
        if style == "contour":
            self._inks = [_line_ink(self._line_color(mass), canvas) for mass in MASSES]
        elif style == "heatmap":
            self._inks = [Ink.of(self._table, np.ones(256), canvas)]
        elif difference_of:  # either end's own color: the dark middle would darken what hardly differs
            ends = np.repeat(table[[0, 255]], 128, axis=0)
            self._inks = [Ink.of(ends, opacity * overlay_opacity(difference=True), canvas)]
        else:
            self._inks = [Ink.of(self._table, opacity * overlay_opacity(), canvas)]

    def __call__(
        self,
        picture: av.VideoFrame,
        density: np.ndarray | None,
        *,
        maximum: float,
        caption: str = "",
        marks: Marks | None = None,
        note: str = "",
        over: Callable[[Sequence[np.ndarray]], None] | None = None,
    ) -> av.VideoFrame:
        """A new picture. `density` (h, w) is relative to uniform, turned as shown; None leaves the picture plain.

        `marks` of gaze lie on top of the map, `note` in the corner top left; `over` draws onto the planes before these.
        """
        picture = self.conform(picture)
        double = self.style == "side"
        along = 0 if self.canvas.orientation.transpose else 1
        height, width = self.canvas.height, self.canvas.width
        size = ((width, height * 2) if along == 0 else (width * 2, height)) if double else (width, height)
        drawn = av.VideoFrame(*size, self.canvas.pixel_format)
        sources, targets = plane_views(picture), plane_views(drawn)
        if double:
            first, second = _halves(targets, along)
            flipped = self.canvas.orientation.flip_x
            original, targets = (second, first) if flipped else (first, second)
            _copy(sources, original)
        _copy(sources, targets)
        if self.difference_of:
            for chroma in targets[1:]:
                chroma[...] = 1 << self.canvas.depth - 1
        if density is not None:
            for level, ink in zip(self._levels(density, maximum), self._inks, strict=False):
                self._blend(targets, self.canvas.orientation.decoded(level), ink)
        if over is not None:
            over(targets)
        if marks is not None:
            draw_rings(targets, self.canvas, marks)
        if density is not None and self.legend:
            self._stamp(maximum, caption).press(targets)
        if note:
            panel = line_panel(note, *self.canvas.displayed_size)
            Stamp.of(*panel, self.canvas, corner="top left").press(targets)
        return drawn

    def conform(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture in the canvas' size and layout; itself where it is so already."""
        canvas = self.canvas
        same_size = (picture.width, picture.height) == (canvas.width, canvas.height)
        if same_size and picture.format.name.replace("yuvj", "yuv") == canvas.pixel_format:
            return picture
        full_range = 2 if canvas.full_range else 1
        # Luma means the same before and after, whatever the picture's own tags say: else swscale goes through RGB.
        has_luma = not (picture.format.is_rgb or picture.format.has_palette)
        as_it_is = {"src_colorspace": canvas.meant_matrix, "src_color_range": full_range} if has_luma else {}
        return self._conform.reformat(
            picture,
            width=canvas.width,
            height=canvas.height,
            format=canvas.pixel_format,
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
            dst_colorspace=canvas.meant_matrix,
            dst_color_range=full_range,
            threads=1,
            **as_it_is,
        )

    def _levels(self, density: np.ndarray, maximum: float) -> list[np.ndarray]:
        if self.style == "contour":
            return self._distances(density) if density.any() else []
        if self.difference_of:
            return [np.rint(np.clip(density * (127.5 / maximum) + 127.5, 0, 255)).astype(np.uint8)]
        return [np.rint(np.clip(density * (255 / maximum), 0, 255)).astype(np.uint8)]

    def _distances(self, density: np.ndarray) -> list[np.ndarray]:
        """Per mass, how far every cell lies inside (> 128) or outside the border of the region, LINE_STEPS per pixel.

        Distance = height over the threshold / slope, which is true near the border, where alone it is looked at.
        """
        import torch  # only this style needs it, and it takes seconds

        from ..density import mass_thresholds

        log_density = np.log(np.maximum(density, density.max() * 1e-6), dtype=np.float32)
        thresholds = mass_thresholds(torch.from_numpy(density)[None], tuple(MASSES))[0].tolist()
        rows, columns = log_density.shape
        height, width = self.canvas.displayed_size
        fine = (max(rows, -(-height // 4)), max(columns, -(-width // 4)))
        log_density = self._resample(log_density, fine)
        slope_y, slope_x = np.gradient(log_density) if min(fine) > 1 else (np.zeros(fine), np.zeros(fine))
        slope = np.hypot(slope_y * (fine[0] / height), slope_x * (fine[1] / width))
        steps = LINE_STEPS / line_width(height) / np.maximum(slope, 1e-6)
        return [
            np.rint(np.clip((log_density - np.log(max(threshold, 1e-30))) * steps + 128, 0, 255)).astype(np.uint8)
            for threshold in thresholds
        ]

    def _resample(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if values.shape == size:
            return values
        low, high = float(values.min()), float(values.max())
        # SPLINE is exact and smooth; from BICUBIC, GAUSS and LANCZOS contours get a wave per cell (FFmpeg 8.1).
        unit = ((values - low) / max(high - low, 1e-6)).astype(np.float32)  # swscale clips floats to 0 ... 1
        frame = av.VideoFrame.from_ndarray(unit, format="grayf32le")
        scaled = self._enlarge.reformat(
            frame, width=size[1], height=size[0], format="grayf32le", interpolation="SPLINE", threads=1
        )
        return plane_of(scaled, 0, np.float32) * (high - low) + low

    def _line_color(self, mass: float) -> np.ndarray:
        return self._table[round(255 * MASSES[mass])]

    def _blend(self, targets: Sequence[np.ndarray], level: np.ndarray, ink: Ink) -> None:
        box = _drawn_box(level, ink)
        if box is None:
            return
        small = av.VideoFrame.from_ndarray(np.ascontiguousarray(level), format="gray8")
        enlarged: dict[tuple[int, ...], np.ndarray] = {}
        for target, add in zip(targets, ink.add, strict=True):
            if target.shape not in enlarged:
                height, width = target.shape
                big = self._enlarge.reformat(
                    small, width=width, height=height, format="gray8", interpolation="BILINEAR", threads=1
                )
                enlarged[target.shape] = plane_of(big, 0)
            rows, columns = _enlarged_box(box, level.shape, target.shape)
            blend(target[rows, columns], enlarged[target.shape][rows, columns], ink.keep, add)

    def _stamp(self, maximum: float, caption: str) -> Stamp:
        key = (0.0, "") if self.style == "contour" else (float(f"{maximum:.3g}"), caption)
        if key not in self._stamps:
            if len(self._stamps) > 64:  # with a scale of its own per frame every frame needs another
                self._stamps.clear()
            height, width = self.canvas.displayed_size
            if self.style == "contour":
                colors = {f"{mass:.0%}": self._line_color(mass) for mass in reversed(MASSES)}
                rgb, opacity = contour_legend(colors, height, width)
            elif self.difference_of:
                rgb, opacity = difference_legend(self._table, key[0], self.difference_of, height, width)
            else:
                rgb, opacity = scale_legend(self._table, key[0], self._unit, key[1], height, width)
            self._stamps[key] = Stamp.of(rgb, opacity, self.canvas)
        return self._stamps[key]


def overlay_opacity(difference: bool = False) -> np.ndarray:
    """(256,) opacity per level: rises with the value, so that low values show the film and not the table's dark end.

    `difference`: rises from the two levels in the middle, where nothing is drawn, to both ends.
    """
    level = np.arange(256)
    value = np.maximum(np.abs(level - 127.5) - 0.5, 0) / 127 if difference else level / 255
    return value * (2 - value)


def line_width(height: int) -> float:
    """Contour lines in pixels of a picture so many rows high: 3 at 1080p."""
    return max(1.5, height / 360)


def _line_ink(rgb: np.ndarray, canvas: Canvas) -> Ink:
    """A colored line of width 1 where the level is 128, cased in black so that it stands out from any picture."""
    pixel = 1 / line_width(canvas.displayed_size[0])  # one pixel in line widths: edges fade over it
    distance = np.abs(np.arange(256) - 128) / LINE_STEPS
    core = np.clip((0.5 + pixel / 2 - distance) / pixel, 0, 1)
    casing = 0.6 * np.clip((0.5 + 1.5 * pixel - distance) / pixel, 0, 1)
    opacity = np.maximum(core, casing)
    return Ink.of(rgb * (core / np.maximum(opacity, 1e-9))[:, None], opacity, canvas)


def blend(target: np.ndarray, level: np.ndarray, keep: np.ndarray, add: np.ndarray) -> None:
    """target = (target * keep[level] + add[level]) >> 8, in place."""
    factor = np.empty((BAND, target.shape[1]), keep.dtype)
    offset = np.empty_like(factor)
    for start in range(0, target.shape[0], BAND):
        rows, levels = target[start : start + BAND], level[start : start + BAND]
        f, o = factor[: len(rows)], offset[: len(rows)]
        np.take(keep, levels, out=f, mode="clip")  # the levels fit; with mode "raise" take copies its output
        np.take(add, levels, out=o, mode="clip")
        f *= rows
        f += o
        f >>= 8
        rows[...] = f


def _copy(sources: Iterable[np.ndarray], targets: Iterable[np.ndarray]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target[...] = source


def _halves(planes: Sequence[np.ndarray], along: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    pairs = [np.split(plane, 2, axis=along) for plane in planes]
    return [first for first, _ in pairs], [second for _, second in pairs]


_Box = tuple[int, int, int, int]


def _drawn_box(level: np.ndarray, ink: Ink) -> _Box | None:
    """First and last row and column of the cells where something is drawn."""
    drawn = (ink.keep != KEEP)[level]
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    return (rows[0], rows[-1], columns[0], columns[-1]) if len(rows) else None


def _enlarged_box(box: _Box, small: tuple[int, ...], big: tuple[int, ...]) -> tuple[slice, slice]:
    """The samples of an enlarged map that the cells of `box` reach: interpolation carries one cell further."""
    top, bottom, left, right = box
    rows = slice(max(0, (top - 1) * big[0] // small[0]), min(big[0], -(-(bottom + 2) * big[0] // small[0])))
    columns = slice(max(0, (left - 1) * big[1] // small[1]), min(big[1], -(-(right + 2) * big[1] // small[1])))
    return rows, columns


def reduced_size(height: int, width: int) -> tuple[int, int]:
    """A size of about MAP_CELLS for a map, its own where it has no more."""
    factor = max(1, round((height * width / MAP_CELLS) ** 0.5))
    return max(1, height // factor), max(1, width // factor)


def reduced(density: np.ndarray) -> np.ndarray:
    """Averaged over blocks of cells, down to about MAP_CELLS."""
    size = reduced_size(*density.shape)
    if size == density.shape:
        return density
    edges = [np.arange(fewer) * n // fewer for n, fewer in zip(density.shape, size, strict=True)]
    sums = np.add.reduceat(np.add.reduceat(density, edges[0], axis=0), edges[1], axis=1)
    counts = [np.diff(edge, append=n) for edge, n in zip(edges, density.shape, strict=True)]
    return sums / (counts[0][:, None] * counts[1]).astype(np.float32)
