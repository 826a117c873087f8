"""Networks in the precision that the engine asks for, and back to float32 where float16 cannot hold a number.

The engine says what it wants by the autocast context around `Model.step`. Autocast itself would convert every weight
anew in each batch and would lower what has to stay float32, so models that use this keep their own converted copies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Precisions:
    """A network by dtype: `networks[torch.float16]` is made when it is first asked for."""

    def __init__(self, float32: nn.Module) -> None:
        self._made = {torch.float32: float32}

    def __getitem__(self, dtype: torch.dtype) -> nn.Module:
        if dtype not in self._made:
            self._made[dtype] = copy.deepcopy(self._made[torch.float32]).to(dtype)
        return self._made[dtype]


def at_wanted_precision(device: torch.device, compute: Callable[[torch.dtype], Tensor]) -> Tensor:
    """`compute` of the dtype that the autocast around it names, outside of that autocast.

    Where float16 gives a number that is not finite (a feature above 65504 is infinite in it), once more in float32.
    """
    dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
    with torch.autocast(device.type, enabled=False):
        found = compute(dtype)
        if dtype == torch.float16 and not bool(found.isfinite().all()):
            found = compute(torch.float32)
    return found
