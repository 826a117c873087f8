"""A film at a glance: one frame of each shot with its map and the borders of the regions that hold half of it and 90 %.

In flow an index, maps and frame numbers; out come small RGB pictures and JPEG files of them. Draws at the size that is
looked at, so that lines are as thin at any size. Knows no page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..decode import VideoReader
from ..drawing.overlay import overlay_opacity
from ..index import VideoIndex

MASSES = {0.9: 0.62, 0.5: 0.97}  # probability in a region > place of its line's color in the table; last on top
OPACITY = 0.7
LINE_PX = 1.6
FLAT_SLOPE = 1e-4  # nats per pixel


def evenly(start: int, stop: int, n: int) -> list[int]:
    """Frames in the middle of n equal parts of [start, stop), fewer where there are not as many frames."""
    n = max(0, min(n, stop - start))
    return [start + (2 * k + 1) * (stop - start) // (2 * n) for k in range(n)]


def chosen_frames(shots: Sequence[tuple[int, int]], stored: np.ndarray, most: int) -> list[int]:
    """A stored frame in the middle of each shot; of more than `most` shots, evenly chosen ones, the longest kept.

    Fewer than three shots say little of a film: then the frames are evenly spread over them.
    """
    if len(shots) < 3:
        wanted = evenly(shots[0][0], shots[-1][1], min(most, 12))
    else:
        if len(shots) > most:
            groups = np.array_split(np.arange(len(shots)), most)
            shots = [max((shots[k] for k in group), key=lambda shot: shot[1] - shot[0]) for group in groups]
        wanted = [(start + stop) // 2 for start, stop in shots]
    nearest = np.clip(np.searchsorted(stored, wanted), 0, len(stored) - 1)
    return sorted({int(frame) for frame in stored[nearest]})


def pictures(index: VideoIndex, frames: Sequence[int], long_side: int) -> Iterator[tuple[int, np.ndarray | None]]:
    """(frame, (h, w, 3) uint8 as shown, its longer side `long_side` or as long as it is); None for a hole."""
    with VideoReader(index) as reader:
        for frame in reader.read(frames):
            rgb = frame.rgb
            yield frame.index, None if rgb is None else smaller(rgb, long_side)


def smaller(rgb: np.ndarray, long_side: int) -> np.ndarray:
    """(h, w, 3) uint8, averaged down; never enlarged."""
    import torch
    from torch.nn.functional import interpolate

    height, width = rgb.shape[:2]
    scale = min(1.0, long_side / max(height, width))
    if scale == 1.0:
        return rgb
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    planes = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
    small = interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False)
    return small[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()


def draw(rgb: np.ndarray, density_hw: np.ndarray, table: np.ndarray, maximum: float) -> np.ndarray:
    """The picture with a density (relative to uniform) over it, and lines around 50 % and 90 % of its mass."""
    import torch
    from torch.nn.functional import interpolate

    from ..density import mass_thresholds

    size = rgb.shape[:2]
    density = torch.from_numpy(np.ascontiguousarray(density_hw, np.float32))
    fine = interpolate(density[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()
    level = np.rint(np.clip(fine * (255 / maximum), 0, 255)).astype(np.uint8)
    alpha = (OPACITY * overlay_opacity())[level][..., None]
    drawn = rgb * (1 - alpha) + table[level] * alpha
    thresholds = mass_thresholds(density[None], tuple(MASSES))[0].tolist()
    log_fine = np.log(np.maximum(fine, float(density.max()) * 1e-6))
    slope = np.hypot(*np.gradient(log_fine)) if min(size) > 1 else np.zeros(size)
    slope = np.where(
        slope > FLAT_SLOPE, slope, 1e-30
    )  # a plateau at the threshold, such as a uniform map, has no border
    for threshold, place in zip(thresholds, MASSES.values(), strict=True):
        below = np.abs(log_fine - np.log(max(threshold, 1e-30)))
        distance = np.maximum(below, 1e-6) / slope  # in pixels, true near the line
        casing = 0.55 * np.clip(LINE_PX / 2 + 1.5 - distance, 0, 1)[..., None]
        core = np.clip(LINE_PX / 2 + 0.5 - distance, 0, 1)[..., None]
        drawn = drawn * (1 - casing) * (1 - core) + table[round(255 * place)] * core
    return np.rint(drawn).astype(np.uint8)


def mark(rgb: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The picture with a white ring, cased in black, at each of `places` (k, 2): x, y in units of width and height."""
    height, width = rgb.shape[:2]
    radius = max(3.0, min(height, width) / 45)
    drawn = rgb.astype(np.float32)
    row, column = np.mgrid[:height, :width]
    for x, y in places * (width, height):
        distance = np.abs(np.hypot(column + 0.5 - x, row + 0.5 - y) - radius)
        drawn *= 1 - 0.7 * np.clip(LINE_PX / 2 + 1.3 - distance, 0, 1)[..., None]
        core = np.clip(LINE_PX / 2 + 0.3 - distance, 0, 1)[..., None]
        drawn = drawn * (1 - core) + 255 * core
    return np.rint(drawn).astype(np.uint8)


def jpeg(rgb: np.ndarray, quality: int) -> bytes:
    import torch
    from torchvision.io import encode_jpeg

    encoded = encode_jpeg(torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1), quality)
    assert isinstance(encoded, torch.Tensor)  # a list only of several pictures
    return encoded.numpy().tobytes()
