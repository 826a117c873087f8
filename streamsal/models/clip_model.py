"""One model for every clip network: prepared clips in, one vector per clip out.

The network says what its vector is, its file says what frames it wants; the rest is the same for all: frames prepared
as they come, batches of clips under autocast, class scores where asked for, and, where a saliency run lies beside, a
second vector that counts places by how much people would look at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError
from ..timing import Clip
from ..weights.assets import ASSETS
from .clip_frames import Recipe, crop_box, prepared
from .spec import ClipBatch, ModelSpec, Output, Result, Video

CELL_PX = 4  # pixels of the prepared frame per cell that saliency is counted in: no map here is finer
# Activations of the first layers, in copies of the clip as float32: 8 (s3d) to 15 (x3d_s), counted on a CPU.
BYTES_PER_VALUE = 4 * 16


class ClipNetwork(Protocol):
    """In eval mode. `features`: (n, 3, T, h, w) prepared clips -> (n, D); `logits`: (n, D) -> (n, classes)."""

    def features(self, clips_ncthw: Tensor) -> Tensor: ...

    def logits(self, features: Tensor) -> Tensor: ...


class PoolingNetwork(ClipNetwork, Protocol):
    """One whose vector comes of averages: `maps` (n, C, t, y, x) per pathway, whose means (n, C) `vector` takes."""

    def maps(self, clips_ncthw: Tensor) -> list[Tensor]: ...

    def vector(self, pooled: list[Tensor]) -> Tensor: ...


def clip_spec(
    name: str, clip: Clip, recipe: Recipe, *, logits: bool = False, pool: str = "", averages: bool = True
) -> ModelSpec:
    """The spec of the clip model that the asset of that name is of. `logits`: with class scores.

    `pool` "saliency": with `features_salient`. Raises UsageError for another, and for a network that `averages` no map.
    """
    if pool not in ("", "saliency"):
        raise UsageError(f"no way of pooling is named {pool!r}: give --pool saliency:RUN")
    if pool and not averages:
        raise UsageError(f"{name} has no map to pool by saliency: its vector is that of a class token")
    outputs = [Output(name="features", kind="features", units="as the network gives them", exact=True)]
    if pool:
        outputs.append(Output(name="features_salient", kind="features", units="as features", exact=True))
    if logits:
        outputs.append(Output(name="logits", kind="logits", units="before softmax", exact=True))
    outputs.append(Output(name="valid", kind="features", units="share of frames", scalar=True))
    return ModelSpec(
        name=name,
        summary=f"vectors of clips: {ASSETS[name].about}",
        licence=ASSETS[name].licence,
        citation=ASSETS[name].citation,
        outputs=tuple(outputs),
        clip=clip,
        bytes_per_clip=BYTES_PER_VALUE * 3 * clip.length * recipe.crop**2,
        autocast=True,
    )


class ClipModel:
    """A network with its recipe, as the engine wants it."""

    def __init__(self, spec: ModelSpec, network: ClipNetwork, recipe: Recipe) -> None:
        self.spec, self.network, self.recipe = spec, network, recipe
        names = {output.name for output in spec.outputs}
        self.with_logits, self.with_salient = "logits" in names, "features_salient" in names

    @property
    def cells(self) -> int:
        """Rows and columns in which saliency is counted."""
        return -(-self.recipe.crop // CELL_PX)

    def crop_box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of what the network sees, in fractions of the frame's sides."""
        return crop_box(height, width, self.recipe)

    def prepare(self, frames_nhwc: Tensor) -> Tensor:
        return prepared(frames_nhwc, self.recipe)

    def begin(self, video: Video) -> None:
        return None

    def step(self, batch: ClipBatch, state: None) -> Result:
        values = {"valid": torch.from_numpy(batch.valid)}
        if self.with_salient:
            network = cast(PoolingNetwork, self.network)
            maps = network.maps(batch.clips_ncthw)
            values["features"] = network.vector([x.float().mean((2, 3, 4)) for x in maps])
            if batch.weights_ntyx is None:
                raise UsageError(
                    f"{self.spec.name} is to pool by saliency, of no run: plan it with --pool saliency:RUN"
                )
            values["features_salient"] = network.vector(salient_means(maps, batch.weights_ntyx))
        else:
            values["features"] = self.network.features(batch.clips_ncthw)
        if self.with_logits:
            values["logits"] = self.network.logits(values["features"])
        kept = {name: value[batch.present] for name, value in values.items()}
        return Result(frame=batch.frame[batch.present], values=kept)

    def end(self, state: None) -> None:
        return None


def salient_means(maps: Sequence[Tensor], weights_ntyx: Tensor) -> list[Tensor]:
    """(n, C) per pathway: the mean over times and places, each weighted by the saliency in it.

    Where the cells of the weights are finer than a map's, the weights of a position are the mean over its cells. A clip
    without any saliency in what the network sees counts all places alike.
    """
    pooled = []
    for x in maps:
        t, rows, columns = x.shape[2:]
        weights = functional.adaptive_avg_pool3d(weights_ntyx[:, None].float(), (t, rows, columns))
        total = weights.sum((2, 3, 4), keepdim=True)
        weights = torch.where(total > 0, weights / total, 1 / weights[0].numel())
        pooled.append((x.float() * weights).sum((2, 3, 4)))
    return pooled
