"""A film on one page: a picture of each shot with its map and the borders of its half and its 90 %, in one PNG.

In flow a run; out comes the sheet, every picture with its frame number and time under it. How a single picture is drawn
is `contact_sheet`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UsageError
from ..files import write_bytes
from ..gaze.table import Gaze
from ..index import VideoIndex
from ..merge import open_run
from ..prepare import Position, frame_at
from ..progress import Progress
from ..render import clock, seconds_from_start, usual_colormap
from ..report.contact_sheet import chosen_frames, draw, pictures
from ..shots import shots
from ..signals import Stop, stopped
from .colormaps import colormap as color_table
from .content import Content, content_of, index_of, opened, the_video
from .gaze_marks import draw_rings_rgb
from .lettering import text
from .png import encode_png
from .shown_maps import Between, Shown, film_maximum

MOST_PICTURES = 40
WIDTH_PX = 1920
GAP_PX = 16
CAPTION_PX = 26
HEADER_PX = 64
PAPER, INK, FAINT = (24, 24, 27), (235, 235, 235), (160, 160, 165)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One picture of the sheet; `seconds` from the first frame of the video, `rgb` (h, w, 3) uint8, None for a hole."""

    frame: int
    seconds: float
    rgb: np.ndarray | None


def contact_sheet(
    run: str | Path,
    output: str | Path,
    *,
    video: str | None = None,
    start: Position = 0,
    stop: Position | None = None,
    colormap: str | None = None,
    between: Between = "interpolate",
    gaze: Gaze | str | Path | None = None,
    gaze_density: str | None = None,
    should_stop: Stop = lambda: "",
    progress: Progress | None = None,
) -> Path:
    """Write a PNG with at most 40 pictures of the film from `start` up to `stop`, and return its path.

    One for each shot; 12 evenly spaced ones where there are fewer than three shots. Options as of `render`. Raises
    UsageError, PlanMismatch, MissingInput, IncompleteRun, WriteError, Stopped.
    """
    output, progress = Path(output), progress or Progress(quiet=True)
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output}: a contact sheet is a .png file")
    table = color_table(colormap or usual_colormap(None))

    def check_stop() -> None:
        if reason := should_stop():
            raise stopped(reason, f"{output.name} is not written")

    def on_frame(done: int) -> None:
        progress.update(done)
        check_stop()

    with open_run(run) as stored:
        name = the_video(stored, video)
        index, maps = index_of(stored, name), stored[name]
        first = frame_at(index, start, name)
        last = index.n_frames if stop is None else min(index.n_frames, frame_at(index, stop, name))
        known = maps.frame[(maps.frame >= first) & (maps.frame < last)]
        if not len(known):
            raise UsageError(f"no stored frames from {start} to {stop or 'the end'} of {name}")
        content = content_of(
            stored, name, index, between=between, gaze=gaze, gaze_density=gaze_density, note=progress.say
        )
        title = f"{name}  {maps.info['model'] if content.gaze_sigma_px is None else 'recorded gaze'}"
    with opened(content) as (index, shown):
        with progress.track(f"shots of {name}", last - first):
            found = shots(index, start=first, stop=last, on_frame=on_frame)
        frames = chosen_frames(found, known, MOST_PICTURES)
        maximum = film_maximum(shown, check_stop)
        tiles = _tiles(content, index, shown, frames, maximum, table, check_stop)
    write_bytes(output, encode_png(laid_out(tiles, title, table, f"{maximum:.3g} {shown.unit}")))
    return output


def columns_of(height: int, width: int, n: int) -> int:
    """Pictures beside each other: four, more where they are upright, not more than there are."""
    return min(n, 4 if width >= height else 7)


def _tiles(
    content: Content,
    index: VideoIndex,
    shown: Shown,
    frames: list[int],
    maximum: float,
    table: np.ndarray,
    check_stop: Callable[[], None],
) -> list[Tile]:
    height, width = index.display_height, index.display_width
    columns = columns_of(height, width, max(4, len(frames)))
    across = (WIDTH_PX - GAP_PX * (columns + 1)) // columns
    tiles = []
    for frame, rgb in pictures(index, frames, max(across, round(across * height / width))):
        density = shown.at(frame)
        if rgb is not None and density is not None and density.any():
            rgb = draw(rgb, density, table, maximum)
        if rgb is not None and content.track is not None and content.gaze_sigma_px is None:
            marks = content.track.during(index.pts_seconds[frame], index.end_seconds[frame])
            rgb = draw_rings_rgb(rgb, marks, rgb.shape[1] / width)
        tiles.append(Tile(frame=frame, seconds=seconds_from_start(index, frame), rgb=rgb))
        check_stop()
    return tiles


def laid_out(tiles: list[Tile], title: str, table: np.ndarray, scale: str) -> np.ndarray:
    """(H, W, 3) uint8: a line that says what is seen, and the pictures row by row with their numbers and times."""
    height, width = next((tile.rgb.shape[:2] for tile in tiles if tile.rgb is not None), (90, 160))
    columns = columns_of(height, width, len(tiles))
    rows = -(-len(tiles) // columns)
    down, across = height + CAPTION_PX + GAP_PX, width + GAP_PX
    header = _header(title, table, scale, max(columns * across - GAP_PX, 560))
    sheet = np.full((HEADER_PX + rows * down, header.shape[1] + 2 * GAP_PX, 3), PAPER, np.uint8)
    sheet[GAP_PX : GAP_PX + header.shape[0], GAP_PX:-GAP_PX] = header
    for number, tile in enumerate(tiles):
        top, left = HEADER_PX + number // columns * down, GAP_PX + number % columns * across
        if tile.rgb is not None:
            sheet[top : top + height, left : left + width] = tile.rgb
        says = f"{tile.frame}  {clock(tile.seconds)}" + ("" if tile.rgb is not None else "  no picture")
        caption = sheet[top + height + 6 : top + height + CAPTION_PX, left : left + width]
        _write(caption, says, FAINT, 0, 2 if 12 * len(says) <= width else 1)
    return sheet


def _header(title: str, table: np.ndarray, scale: str, width: int) -> np.ndarray:
    """Title at the left; what lines and colors mean at the right, in letters half as large where there is no room."""
    header = np.full((HEADER_PX - 2 * GAP_PX, width, 3), PAPER, np.uint8)
    lines = "lines hold 50% and 90%"
    dot = 2 if 12 * (len(title) + len(lines) + len(scale)) + 200 < width else 1
    bar = width - 6 * dot * (len(scale) + 1) - 120
    _write(header[8:], title, INK, 0, dot)
    _write(header[8:], lines, FAINT, bar - 6 * dot * (len(lines) + 2), dot)
    header[8 : 8 + 7 * dot, bar : bar + 120] = table[np.linspace(0, 255, 120).astype(int)]
    _write(header[8:], scale, FAINT, bar + 120 + 6 * dot, dot)
    return header


def _write(target: np.ndarray, line: str, rgb: tuple[int, int, int], left: int, dot: int) -> None:
    """A line of text, `dot` pixels to a dot, cut at the right border."""
    dots = np.repeat(np.repeat(text(line), dot, axis=0), dot, axis=1)[: target.shape[0], : target.shape[1] - left]
    target[: dots.shape[0], left : left + dots.shape[1]][dots] = rgb
