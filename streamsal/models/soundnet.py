"""SoundNet: a vector of 1024 numbers for every stretch of sound, shared by STAViS and AViNet.

Aytar, Vondrick & Torralba 2016, SoundNet: Learning Sound Representations from Unlabeled Video. A row of samples in,
features over time out. Batch norms are folded into the kernels; what follows the features is their users' matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbones import Weights, affine, constant

# Channels and kernel of each convolution, stride 2, and the length of the pool behind it; the paper's table 1.
LAYERS = ((16, 64, 8), (32, 32, 8), (64, 16, 1), (128, 8, 1), (256, 4, 4), (512, 4, 1), (1024, 4, 1))
FEATURES = 1024


class SoundNet(nn.Module):
    """`names`: the keys of each layer's kernel and batch norm, as each user's checkpoint has them."""

    def __init__(self, weights: Weights, names: Sequence[tuple[str, str]]):
        super().__init__()
        self.kernels, self.biases = nn.ParameterList(), nn.ParameterList()
        for kernel, norm in names:
            scale, shift = affine(weights, norm)
            weight = weights[f"{kernel}.weight"].double().flatten(2)
            self.kernels.append(constant(weight * scale[:, None, None]))
            self.biases.append(constant(weights[f"{kernel}.bias"].double() * scale + shift))

    def forward(self, sound_n: Tensor) -> Tensor:
        """(n,) samples -> (1024, t): 2 of 35280, 3 of 70560."""
        x = sound_n[None, None]
        for kernel, bias, (_, size, pool) in zip(self.kernels, self.biases, LAYERS, strict=True):
            x = functional.conv1d(x, kernel, bias, stride=2, padding=size // 2).relu_()
            x = functional.max_pool1d(x, pool) if pool > 1 else x
        return x[0]


def template(names: Sequence[tuple[str, str]], *, across: bool) -> dict[str, Tensor]:
    """Keys, shapes and dtypes in a checkpoint, as meta tensors; `across`: its kernels lie along the last axis."""
    entries: dict[str, Tensor] = {}
    inside = 1
    for (kernel, norm), (channels, size, _) in zip(names, LAYERS, strict=True):
        entries[f"{kernel}.weight"] = torch.empty(
            (channels, inside, *((1, size) if across else (size, 1))), device="meta"
        )
        entries[f"{kernel}.bias"] = torch.empty(channels, device="meta")
        norms = nn.BatchNorm2d(channels, device="meta").state_dict()
        entries |= {f"{norm}.{leaf}": value for leaf, value in norms.items()}
        inside = channels
    return entries
