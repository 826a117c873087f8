"""Log densities in, log densities and their statistics out: pure numerics in float32.

A log density is in nats, one (H, W) map per frame, and its exponentials sum to 1 over the frame. Frames that are NaN
(holes) stay NaN in every function. Tensors stay on their device; packing for files is numpy and runs without torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from .models.spec import Output, Readback

if TYPE_CHECKING:
    import torch
    from torch import Tensor

StoreDtype = Literal["float16", "uint16", "float32"]

UINT16_STEP = 6e-5  # uint16: log density = log_offset - expm1(stored * UINT16_STEP)
# Probability 0 is -inf, and between samples 0 * -inf would be NaN; exp(-1e4) is 0 in every floating-point format.
FLOOR_NATS = -1e4


def normalize(log_density_nhw: Tensor) -> Tensor:
    """The same densities, each frame shifted so that its exponentials sum to 1; without any mass a frame is NaN."""
    log_density_nhw = log_density_nhw.float()
    # Rows first, then their sums: float32 is then good to 1e-6 for frames of any size.
    total = log_density_nhw.logsumexp(-1).logsumexp(-1)
    return log_density_nhw - total[..., None, None]


def gaussian_prior(
    height: int,
    width: int,
    sigma_y: float,
    sigma_x: float,
    weight: float = 1.0,
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """(H, W) log of a centered Gaussian in nats, not normalized; sigmas in units of frame height and width."""
    import torch

    def falloff(n: int, sigma: float) -> Tensor:
        position = (np.arange(n) + 0.5) / n - 0.5
        return torch.from_numpy((-weight * position**2 / (2 * sigma**2)).astype(np.float32)).to(device)

    return falloff(height, sigma_y)[:, None] + falloff(width, sigma_x)


def nearest_indices(n_in: int, n_out: int) -> np.ndarray:
    """int64 (n_out,): which of n_in samples each of n_out shows when a map is enlarged or reduced to the nearest.

    As torch.nn.functional.interpolate(mode="nearest") computes it: one division and one product in float32. In whole
    numbers, `k * n_in // n_out` differs at some sizes (8 to 122, 16 to 244, 20 to 305).
    """
    scale = np.float32(n_in) / np.float32(n_out)
    return np.minimum((np.arange(n_out, dtype=np.float32) * scale).astype(np.int64), n_in - 1)


def full_size(
    maps_nhw: Tensor, height: int, width: int, readback: Readback, constants: Mapping[str, Tensor] | None = None
) -> Tensor:
    """(N, height, width) log densities from stored (N, h, w) maps, as `readback` defines, normalized at full size.

    What the model defines at full size (a prior) is taken off before the interpolation and put back after it, so a
    density read back is the one that the model would have computed there. Nothing is below `FLOOR_NATS` before that.
    """
    import torch

    prior, device = readback.gaussian_prior, maps_nhw.device
    maps, block = maps_nhw.float(), readback.block
    if readback.interpolation == "matrices":
        rows, columns, added = ((constants or {})[name] for name in ("rows", "columns", "prior"))
        maps = rows @ maps @ columns.mT + added
    elif readback.interpolation == "nearest" and maps.shape[-2:] == (height // block, width // block):
        down, across = (nearest_indices(n // block, n) for n in (height, width))
        maps = maps[:, torch.from_numpy(down).to(device)][:, :, torch.from_numpy(across).to(device)]
    elif readback.interpolation not in ("bilinear", "nearest"):
        raise ValueError(f"unknown {readback.interpolation = }")
    maps = maps.clamp(min=FLOOR_NATS)
    if prior is not None:
        maps = maps - gaussian_prior(*maps.shape[-2:], *prior, device=device)
    if maps.shape[-2:] != (height, width):
        maps = torch.nn.functional.interpolate(maps[:, None], (height, width), mode="bilinear")[:, 0]
    if prior is not None:
        maps = maps + gaussian_prior(height, width, *prior, device=device)
    return normalize(maps)


def enlarged(
    maps_nhw: Tensor, height: int, width: int, output: Output, constants: Mapping[str, Tensor] | None = None
) -> Tensor:
    """(N, height, width) of stored (N, h, w) maps of an output with a read-back rule: densities, or maps as such."""
    from torch.nn.functional import interpolate

    if output.is_density:
        return full_size(maps_nhw, height, width, cast(Readback, output.readback), constants)
    return interpolate(maps_nhw[:, None].float(), (height, width), mode="bilinear", align_corners=False)[:, 0]


def entropy_bits(log_density_nhw: Tensor) -> Tensor:
    """(N,) entropy of the pixel that is looked at: 0 for one sure pixel, log2(H W) for the uniform density."""
    information = -log_density_nhw.clamp(min=FLOOR_NATS) / math.log(2)
    return (log_density_nhw.exp() * information).sum(-1).sum(-1)


def centroid(log_density_nhw: Tensor) -> Tensor:
    """(N, 2) mean x_px, y_px; as for gaze, pixel j spans j ... j + 1, so the middle of the frame is W / 2, H / 2."""
    import torch

    density = log_density_nhw.exp()
    height, width = density.shape[-2:]
    x = density.sum(-2) @ (torch.arange(width, dtype=density.dtype, device=density.device) + 0.5)
    y = density.sum(-1) @ (torch.arange(height, dtype=density.dtype, device=density.device) + 0.5)
    return torch.stack([x, y], -1) / density.sum(-1).sum(-1)[..., None]


def peak(log_density_nhw: Tensor) -> Tensor:
    """(N, 2) x_px, y_px of the middle of the densest pixel; of several, the first in reading order."""
    import torch

    flat = log_density_nhw.flatten(-2)
    at = flat.argmax(-1)
    width = log_density_nhw.shape[-1]
    found = torch.stack([at % width, at // width], -1) + 0.5
    return torch.where(flat.isnan().any(-1)[..., None], torch.nan, found)


def mass_in_box(log_density_nhw: Tensor, left: float, top: float, right: float, bottom: float) -> Tensor:
    """(N,) probability inside a box; edges in pixels from the frame's corner, so pixel j spans j ... j + 1.

    A pixel that an edge cuts counts with the share of its area inside.
    """
    import torch

    density = log_density_nhw.exp()

    def inside(n: int, start: float, stop: float) -> Tensor:
        edge = torch.arange(n + 1, dtype=density.dtype, device=density.device).clamp(start, stop)
        return edge.diff()

    height, width = density.shape[-2:]
    return (density @ inside(width, left, right)) @ inside(height, top, bottom)


def central_third_mass(log_density_nhw: Tensor) -> Tensor:
    """(N,) probability in the middle third of both height and width: 1/9 for the uniform density."""
    height, width = log_density_nhw.shape[-2:]
    return mass_in_box(log_density_nhw, width / 3, height / 3, 2 * width / 3, 2 * height / 3)


def mass_thresholds(density_nhw: Tensor, fractions: Sequence[float]) -> Tensor:
    """(N, F) levels: the pixels at or above level f are the fewest that hold fraction f of the mass (contours)."""
    import torch

    if not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"{fractions = } are not all in (0, 1]")
    falling = density_nhw.flatten(-2).sort(dim=-1, descending=True).values
    mass = falling.cumsum(-1, dtype=torch.float64)
    wanted = mass[..., -1:] * torch.tensor(fractions, dtype=torch.float64, device=mass.device)
    at = torch.searchsorted(mass, wanted.contiguous()).clamp(max=falling.shape[-1] - 1)
    levels = falling.gather(-1, at)
    return torch.where(mass[..., -1:].isnan(), torch.nan, levels)


def pack(log_density_nhw: np.ndarray, dtype: StoreDtype) -> tuple[np.ndarray, np.ndarray]:
    """What a file holds of float32 log densities (N, h, w): values of `dtype` and a float32 `log_offset` (N,).

    float16   log density below the frame's peak; error at most 2^-12 of the distance d to the peak (4e-3 nats at
              8 ... 16 nats); -inf is kept, and what is 65520 nats or more below the peak becomes -inf
    uint16    ln(1 + d) in steps of 6e-5: error 3e-5 nats at the peak, 3e-5 (1 + d) below it, whatever the frame's
              range, so one very low pixel costs the others nothing; the floor, and -inf too, is d = 50.0 nats
    float32   bits unchanged, offset 0

    The offset is such that what `unpack` gives sums to 1 over the stored grid. A frame with a NaN, or without any mass,
    gets the offset NaN and is read back as NaN.
    """
    if dtype == "float32":
        return log_density_nhw, np.zeros(len(log_density_nhw), np.float32)
    maximum = log_density_nhw.max(axis=(1, 2), keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        below_peak = maximum - log_density_nhw
        if dtype == "float16":
            stored = (-below_peak).astype(np.float16)
        elif dtype == "uint16":
            code = np.rint(np.log1p(below_peak, dtype=np.float32) * np.float32(1 / UINT16_STEP))
            stored = np.nan_to_num(np.minimum(code, 65535)).astype(np.uint16)
        else:
            raise ValueError(f"{dtype = } is none of float16, uint16, float32")
        mass = np.exp(_relative(stored)).sum(axis=(1, 2), dtype=np.float64)
        log_offset = np.where(np.isfinite(maximum[:, 0, 0]), -np.log(mass), np.nan)
    return stored, log_offset.astype(np.float32)


def unpack(stored: np.ndarray, log_offset: np.ndarray) -> np.ndarray:
    """float32 log densities (N, h, w) on the stored grid from what `pack` gave; the dtype of `stored` says how."""
    return _relative(stored) + np.asarray(log_offset, np.float32)[:, None, None]


def _relative(stored: np.ndarray) -> np.ndarray:
    if stored.dtype == np.uint16:
        return -np.expm1(stored * np.float32(UINT16_STEP))
    return stored.astype(np.float32)
