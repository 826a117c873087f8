"""From a file of weights to the tensors of one network: read without running code, and checked key by key.

In: a name, a path or a mapping, and the template of what has to be there. Out: a state dict that fits it exactly, or
an error that says what the file is instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import synthetic, weights
from .errors import BadInput


def load(
    name: str,
    source: str | Path | Mapping[str, Tensor] | None,
    template: Mapping[str, Tensor],
    *,
    adjust: Mapping[str, float] = synthetic.ADJUST["deepgaze"],
    nested: str | None = None,
) -> dict[str, Tensor]:
    """The weights of the network `name`, with exactly the keys and shapes of `template`, on the CPU.

    `source` None: the cached official file (MissingWeights where there is none); "synthetic": stand-ins; a path: that
    file; a mapping: itself. `nested`: key of the file's dictionary under which the official checkpoint keeps them.
    """
    if isinstance(source, str) and source == "synthetic":
        return synthetic.state_dict(template, adjust=adjust)
    if isinstance(source, Mapping):
        found, where = dict(source), "the given mapping"
    else:
        path = weights.find(name) if source is None else Path(source)
        found, where = read(path), str(path)
        if nested and nested in found:
            found = found[nested]
    check(name, found, template, where)
    return {key: found[key] for key in template}


def read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def check(name: str, found: Mapping[str, Any], template: Mapping[str, Tensor], where: str) -> None:
    """Raises BadInput unless `found` has exactly the keys and shapes of `template`."""
    if missing := [key for key in template if key not in found]:
        raise BadInput(
            f"{where} is no {name}: {len(missing)} of {len(template)} tensors are missing ({missing[0]} ...)"
        )
    if unexpected := [key for key in found if key not in template]:
        raise BadInput(f"{where} is no {name}: {len(unexpected)} tensors too many ({unexpected[0]} ...)")
    for key, like in template.items():
        if found[key].shape != like.shape:
            raise BadInput(f"{where} is no {name}: {key} is {tuple(found[key].shape)}, not {tuple(like.shape)}")
