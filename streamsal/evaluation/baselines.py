"""Densities that a model is compared with: of where people look whatever is shown, or one from a file.

In flow places of fixations, or a path; out comes a log density (H, W), float64, in nats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..density import full_size
from ..errors import BadInput, MissingInput, UsageError
from ..models.spec import Readback
from . import metrics

UNIFORM_SHARE = 0.01  # of a center bias, so that no place is impossible


def center_bias(places: np.ndarray, height: int, width: int) -> Tensor:
    """(H, W) float64 log density of these places, in units of width and height, under a Gaussian.

    Its bandwidth follows Scott's rule (1992, Multivariate Density Estimation) within 3 to 20 % of the frame; 1 % of it
    is uniform.
    """
    n = len(places)
    bandwidth = float(np.clip(places.std(0).mean() * n ** (-1 / 6), 0.03, 0.2))
    ratio = UNIFORM_SHARE * n / (1 - UNIFORM_SHARE)  # `metrics.center_bias` mixes eps with counts, not with shares
    return metrics.center_bias(places[:, 0], places[:, 1], height, width, bandwidth=bandwidth, eps=ratio / (1 + ratio))


def read_log_density(path: Path) -> Tensor:
    """(H, W) from a .npy file. Raises UsageError, MissingInput, BadInput where its exponentials do not sum to 1."""
    if path.suffix != ".npy":
        raise UsageError(f"--baseline {path} is none of center-bias, uniform or a .npy file of a log density")
    try:
        array = np.load(path)
    except FileNotFoundError:
        raise MissingInput(f"no baseline at {path}: name a .npy file that exists") from None
    except (OSError, ValueError):
        raise BadInput(f"{path} is no array of numpy: save a log density (H, W) with numpy.save") from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise BadInput(f"{path} is {array.dtype} of shape {array.shape} and has to be a log density (H, W)")
    found = torch.from_numpy(array.astype(np.float64))
    try:
        metrics.check_log_density(found[None])
    except ValueError:
        total = float(found.logsumexp((0, 1)))
        raise BadInput(f"{path} is no log density: its logsumexp is {total:.4g} nats, not 0: subtract that") from None
    return found


def resized(log_density_hw: Tensor, height: int, width: int) -> Tensor:
    if log_density_hw.shape == (height, width):
        return log_density_hw
    return full_size(log_density_hw[None], height, width, Readback())[0].double()
