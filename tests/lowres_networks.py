"""What the networks for low-resolution clips were measured with: clips, and stand-in weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamsal.weights import synthetic

FOLDER = Path(__file__).parent / "fixtures/lowres_action"


def fixture(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Every key of an official state dict, in order, and its shape."""
    return {key: tuple(shape) for key, shape in json.loads((FOLDER / f"{name}.keys.json").read_text()).items()}


def stand_ins(name: str) -> dict[str, Tensor]:
    """Under the official keys."""
    counters = torch.int64, torch.float32
    like = {
        key: torch.empty(shape, dtype=counters[not key.endswith("num_batches_tracked")], device="meta")
        for key, shape in shapes(name).items()
    }
    return synthetic.state_dict(like, adjust={})


def clips(*seeds: int, size: tuple[int, int, int]) -> Tensor:
    """(n, 3, T, H, W) in [-1, 1]: a pattern of cells that moves by (1, 2) pixels a frame, under noise."""
    return torch.stack([torch.from_numpy(_clip(seed, *size)).permute(3, 0, 1, 2) for seed in seeds]) / 255 * 2 - 1


def _clip(seed: int, times: int, height: int, width: int) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(key=seed))
    cells = random.integers(0, 256, size=(-(-height // 7), -(-width // 7), 3), dtype=np.uint8)
    picture = cells.repeat(7, 0).repeat(7, 1)[:height, :width]
    moved = np.stack([np.roll(picture, (t, 2 * t), axis=(0, 1)) for t in range(times)])
    return moved // 8 * 7 + random.integers(0, 32, size=moved.shape, dtype=np.uint8)
