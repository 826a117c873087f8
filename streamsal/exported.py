"""One frame of a run's first output, as files for other programs hold it: the map, and what a table says of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .layout import DONE
from .maps import Maps
from .models.spec import Output

COLUMNS = (
    "frame",
    "pts_seconds",
    "status",
    "peak_x_px",
    "peak_y_px",
    "peak_log_density",
    "centroid_x_px",
    "centroid_y_px",
    "entropy_bits",
    "mass_central_third",
)


def read_map(maps: Maps, frame: int, native: bool) -> np.ndarray:
    """One frame of the first output, float32: (H, W), or as stored for what is no map."""
    if native or maps.first.readback is None:
        return maps.native(frame)
    return maps.full_size(frame)


def exported(maps: Maps, native: bool) -> Output:
    """What `read_map` gives: the first output, or the density that a priority map becomes at full size."""
    first = maps.first
    if first.kind == "priority" and first.is_density and not native:
        return replace(first, name="log_density", kind="log_density", units="nats")
    return first


def why_not(maps: Maps) -> str:
    """What the first output is instead of a density, and the formats that hold it."""
    first = maps.first
    if first.labels:
        return f"{first.name} has a number for each class: export it as csv, npy or npz"
    if first.is_density:
        return f"{first.name} is a density only without --native: export it as npy or npz"
    if first.kind == "saliency_map":
        return f"{first.name} is no density (see --as-density): export it as npy or npz"
    return f"{first.name} is no map: export it as npy or npz"


def summary(maps: Maps, frame: int, native: bool) -> list[int | str]:
    """One line of the table; at a hole what depends on the picture is empty."""
    import torch

    from . import density

    row = int(np.searchsorted(maps.frame, frame))
    known = [frame, f"{maps.pts_seconds[row]:.6f}"]
    if maps.status[row] != DONE:
        return [*known, "hole", *[""] * (len(COLUMNS) - 3)]
    log_density = torch.from_numpy(read_map(maps, frame, native))[None]
    scale = np.array([maps.width, maps.height]) / log_density.shape[:0:-1]
    peak = density.peak(log_density)[0].numpy() * scale
    centroid = density.centroid(log_density)[0].numpy() * scale
    return [
        *known,
        "done",
        *(f"{value:g}" for value in peak),
        f"{float(log_density.max()):.4f}",
        *(f"{value:.3f}" for value in centroid),
        f"{float(density.entropy_bits(log_density)):.4f}",
        f"{float(density.central_third_mass(log_density)):.6f}",
    ]
