"""Stand-in weights, for tests and benchmarks on machines that cannot have a trained checkpoint.

Every value is a function of its key, its shape and the seed alone, so two implementations of one network that know the
same keys hold the same weights, and their outputs can be compared. What such a network computes means nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

# Regular expression on the key -> factor of the plain value: networks that amplify under plain He scaling are damped,
# or float32 and float64 would disagree. EfficientNet-B5's squeeze-and-excitation convolutions do from block 35 on.
# In residual networks for clips the sum over the blocks grows until the late tensors move the output by nothing.
ADJUST: dict[str, dict[str, float]] = {
    "deepgaze": {r"\._se_.*weight$": 0.1},
    "residual_video": {r"branch2\.(c_bn|norm_c)\.weight$": 0.25},
}


def state_dict(
    template: Mapping[str, Tensor], *, seed: int = 0, adjust: Mapping[str, float] = ADJUST["deepgaze"]
) -> dict[str, Tensor]:
    """Weights with the keys, shapes and dtypes of `template`, whose tensors may be on the meta device.

    Keys that end in `.grid` are constants of the network and keep the template's values; so do those that end in
    `.relative_position_index`, if the template has values.
    """
    weights = {}
    for key, like in template.items():
        if key.endswith(".grid") or (key.endswith(".relative_position_index") and not like.is_meta):
            weights[key] = like.clone()
            continue
        value = stand_in(key, tuple(like.shape), like.dtype, seed)
        for pattern, factor in adjust.items():
            if re.search(pattern, key):
                value = value * factor
        weights[key] = value
    return weights


def stand_in(key: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    """The value of one entry: He-scaled normal for kernels, near 1 for scales, positive for variances and widths."""
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    normal = np.asarray(rng.standard_normal(shape, dtype=np.float32))
    leaf = key.rsplit(".", 1)[-1]
    # Factors as float32 and float64 by hand: NumPy 1 and 2 disagree on what a Python number times an array is.
    small = np.float32(0.1) * normal
    if leaf == "running_var":
        value = np.float32(0.5) + np.asarray(rng.random(shape, dtype=np.float32))
    elif leaf == "running_mean":
        value = small
    elif "sigma" in leaf:
        value = np.float32(4) + np.float32(8) * np.asarray(rng.random(shape, dtype=np.float32))
    elif normal.ndim >= 2:
        scale = np.sqrt(2 / max(1, int(np.prod(shape[1:]))))
        value = np.multiply(normal, scale, out=normal, dtype=np.float64, casting="same_kind")
    elif leaf.endswith("weight"):
        value = np.float32(1) + small
    else:
        value = small
    return torch.from_numpy(np.asarray(value, dtype=np.float32)).to(dtype)
