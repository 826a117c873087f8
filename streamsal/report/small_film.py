"""A film small enough to lie in a page: the maps over a reduced picture, its times and sound as they are.

In flow an index and a run's densities; out comes one MP4 (H.264, 4:2:0, 8 bits) that every browser plays. Knows no
page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from ..decode import VideoReader
from ..drawing.canvas import Canvas, blank_picture
from ..drawing.colormaps import colormap
from ..drawing.overlay import Painter
from ..drawing.shown_maps import Densities
from ..encoders import choose_encoder
from ..index import VideoIndex
from ..mux import Encoder, SegmentWriter, Timeline, join
from ..render import rising_pts

LONG_SIDE_PX = 640
CRF, PRESET = 28, "veryfast"
OPACITY = 0.7


def write_small_film(
    path: Path,
    index: VideoIndex,
    densities: Densities,
    *,
    maximum: float,
    table: str = "inferno",
    on_frame: Callable[[int], None] = lambda done: None,
    note: Callable[[str], None] = lambda line: None,
) -> None:
    """Write it to `path` (.mp4). `maximum`: density relative to uniform that gets the last color. Raises WriteError."""
    canvas, encoder = _small(index)
    painter = Painter(canvas, style="overlay", table=colormap(table), opacity=OPACITY, legend=False)
    pts, blank = rising_pts(index), blank_picture(canvas)
    segment = path.with_name(f"{path.stem}.segment.mp4")
    try:
        with VideoReader(index, threads=2) as reader, SegmentWriter(segment, encoder) as writer:
            for frame in reader.read(range(index.n_frames)):
                density = None if frame.hole else densities.at(frame.index)
                drawn = painter(frame.picture or blank, density, maximum=maximum)
                writer.write(drawn, int(pts[frame.index] - pts[0]))
                on_frame(frame.index + 1)
        shift = min(0, int(pts[0]))
        timeline = Timeline(
            pts=pts - shift,
            last_duration=max(1, int(index.duration[-1])),
            time_base=Fraction(*index.time_base),
            shift_seconds=shift * Fraction(*index.time_base),
        )
        join([segment], timeline, Path(index.path), index.stream, path, display_matrix=index.display_matrix, note=note)
    finally:
        segment.unlink(missing_ok=True)


def _small(index: VideoIndex) -> tuple[Canvas, Encoder]:
    """What to draw on, in decoded orientation with even sides, and what to encode it with."""
    scale = min(1.0, LONG_SIDE_PX / max(index.width, index.height))
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (index.width, index.height))
    canvas, encoder = choose_encoder(
        replace(index, width=width, height=height), codec="libx264", crf=CRF, preset=PRESET, threads=0
    )
    return replace(canvas, pixel_format="yuv420p", depth=8), replace(encoder, pixel_format="yuv420p")
