"""Canvases to draw on, noise to draw over, and gaze to draw."""

from __future__ import annotations

import av
import numpy as np

from streamsal.color import Orientation
from streamsal.drawing.canvas import Canvas, plane_views
from streamsal.drawing.colormaps import colormap
from streamsal.drawing.overlay import Painter, Style
from streamsal.gaze.table import Gaze

HEIGHT, WIDTH = 120, 200
TABLE = colormap("inferno")
TURNS = [
    Orientation(transpose=t, flip_y=y, flip_x=x) for t in (False, True) for y in (False, True) for x in (False, True)
]


def canvas_of(pixel_format: str = "yuv420p", orientation: Orientation | None = None, **changes: int) -> Canvas:
    return Canvas(
        **{"width": WIDTH, "height": HEIGHT, "matrix": 1, "full_range": False} | changes,
        pixel_format=pixel_format,
        depth=av.VideoFormat(pixel_format).components[0].bits,
        orientation=orientation or Orientation(),
    )


def noise(canvas: Canvas) -> av.VideoFrame:
    picture = av.VideoFrame(canvas.width, canvas.height, canvas.pixel_format)
    random = np.random.default_rng(0)
    for plane in plane_views(picture):
        plane[...] = random.integers(0, 1 << canvas.depth, plane.shape)
    return picture


def painter(canvas: Canvas, style: Style = "overlay", *, legend: bool = False, opacity: float = 0.7) -> Painter:
    return Painter(canvas, style=style, table=TABLE, opacity=opacity, legend=legend)


def gaze_of(*rows: tuple[str, float, float, float, float]) -> Gaze:
    subject, t, x, y, duration = zip(*rows, strict=True)
    return Gaze(
        video=np.array(["talk.mp4"] * len(rows)),
        subject=np.array(subject),
        t_seconds=np.array(t),
        x_px=np.array(x),
        y_px=np.array(y),
        duration_s=np.array(duration),
    )
