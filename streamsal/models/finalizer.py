"""DeepGaze's last layer: small priority maps in, one density out.

Each of many components is enlarged, blurred, given its center bias and normalized over the frame; the density is the
mean of them all. Enlarging and blurring are linear and separable, so here they are two small matrices per component,
made once per frame size, and everything happens on the grid of `block` x `block` pixels on which the originals compute
before they repeat each value over its block. Knows no backbone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..density import nearest_indices, normalize

TRUNCATE = 3.0  # radius of the blur in sigmas


def blur_matrix(source: np.ndarray, n_source: int, sigma: float, radius: int) -> np.ndarray:
    """(n, n_source) float64: enlarging to n samples by repetition, then a Gaussian blur with replicated border.

    `source` (n,) says which of the n_source samples each of the n shows; `sigma` and `radius` count in the n samples.
    """
    n = len(source)
    offset = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    shown = source[np.clip(np.arange(n)[:, None] + offset, 0, n - 1)]
    flat = (np.arange(n)[:, None] * n_source + shown).ravel()
    matrix = np.bincount(flat, np.tile(kernel / kernel.sum(), n), minlength=n * n_source)
    return matrix.reshape(n, n_source)


def repeats(n: int, block: int) -> np.ndarray:
    """(n // block,) float64: over how many of n rows or columns of a frame each grid value is repeated."""
    return np.bincount(nearest_indices(n // block, n), minlength=n // block).astype(np.float64)


def on_grid(full_size: np.ndarray, block: int) -> np.ndarray:
    """(H // block, W // block): the value at each block's corner, of which alone the originals make use."""
    height, width = full_size.shape
    return full_size[: height // block * block : block, : width // block * block : block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What was learned, one of each per component: sigma in grid samples, and the weight of the center bias."""

    sigma: tuple[float, ...]
    center_bias_weight: tuple[float, ...]

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], prefixes: Sequence[str]) -> Parameters:
        """From a state dict; component k's entries begin with `prefixes[k]`."""
        return cls(
            sigma=tuple(float(weights[f"{prefix}.gauss.sigma"]) for prefix in prefixes),
            center_bias_weight=tuple(float(weights[f"{prefix}.center_bias_weight"]) for prefix in prefixes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalizer:
    """Matrices of K components for one frame size: grid (h, w) from priority maps (gh, gw)."""

    rows: Tensor  # K h gh
    columns: Tensor  # K w gw
    center_bias_weight: Tensor  # K
    center_bias: Tensor  # h w
    row_repeats: Tensor  # h
    column_repeats: Tensor  # w

    @classmethod
    def make(
        cls,
        parameters: Parameters,
        *,
        size: tuple[int, int],
        block: int,
        sources: tuple[np.ndarray, np.ndarray],
        center_bias: np.ndarray,
        device: torch.device,
    ) -> Finalizer:
        """For frames of `size` (H, W). `sources`: for rows and columns of the readout grid, which of the priority
        map's they show (the whole range where the maps have that grid). `center_bias` (H, W) log density."""
        grid = size[0] // block, size[1] // block

        def on_device(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.asarray(array, np.float32)).to(device)

        def matrices(axis: int) -> Tensor:
            readout = sources[axis]
            source = readout[nearest_indices(len(readout), grid[axis])]
            n_source = int(readout[-1]) + 1
            made = np.empty((len(parameters.sigma), grid[axis], n_source), np.float32)
            for k, sigma in enumerate(parameters.sigma):
                made[k] = blur_matrix(source, n_source, sigma, math.ceil(np.float32(TRUNCATE) * np.float32(sigma)))
            return on_device(made)

        return cls(
            rows=matrices(0),
            columns=matrices(1),
            center_bias_weight=on_device(np.array(parameters.center_bias_weight)),
            center_bias=on_device(on_grid(center_bias, block)),
            row_repeats=on_device(repeats(size[0], block)),
            column_repeats=on_device(repeats(size[1], block)),
        )

    def density_sum(self, priority_nkhw: Tensor) -> Tensor:
        """(n, h, w): sum over the components of their densities of a full-size pixel, each summing to 1 over all.

        What lies more than 87 nats below the peak of its component counts as 0.
        """
        n, n_components = priority_nkhw.shape[:2]
        h, w = self.center_bias.shape
        # A CPU takes frame by frame and a few components at a time, so that the maps stay in its cache.
        cpu = priority_nkhw.device.type == "cpu"
        at_once, budget = (1, 1 << 20) if cpu else (n, 128 << 20)
        chunk = max(1, budget // (4 * h * w * at_once))
        total = torch.zeros(n, h * w, device=priority_nkhw.device)
        for i in range(0, n, at_once):
            for k in range(0, n_components, chunk):
                total[i : i + at_once] += self._chunk(
                    priority_nkhw[i : i + at_once, k : k + chunk], slice(k, k + chunk)
                )
        return total.view(n, h, w)

    def _chunk(self, priority_nkhw: Tensor, which: slice) -> Tensor:
        """(n, h * w): the part of the sum that some of the components make."""
        across = priority_nkhw @ self.columns[which].mT
        maps = self.rows[which] @ across  # n k h w
        maps.addcmul_(self.center_bias_weight[which, None, None], self.center_bias)
        maps.sub_(maps.amax((2, 3), keepdim=True)).exp_()
        mass = (maps @ self.column_repeats) @ self.row_repeats  # n k
        return (mass.reciprocal()[:, None] @ maps.flatten(2))[:, 0]


def log_density(density_sum_nhw: Tensor) -> Tensor:
    """Log density of the mean of the summed densities, summing to 1 over the grid.

    The floor is the smallest normal float32, 87 nats below 1.
    """
    return normalize(density_sum_nhw.clamp_min(torch.finfo(torch.float32).tiny).log_())


def template(prefix: str) -> dict[str, Tensor]:
    """The entries of one finalizer in an official state dict, in order, as meta tensors."""
    shapes: dict[str, tuple[int, ...]] = {"center_bias_weight": (1,), "gauss.sigma": ()}
    return {f"{prefix}.{name}": torch.empty(shape, device="meta") for name, shape in shapes.items()}
