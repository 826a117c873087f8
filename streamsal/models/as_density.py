"""A density made of a saliency map, by one stated rule, for whoever needs a density of a model that gives none.

A model goes in, and the same model with a log density in place of its map comes out; the rule is stored with every
result. It is a convention, not a prediction: how peaked a map is says nothing of how sure its model is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ..errors import UsageError
from .spec import Batch, Model, ModelSpec, Output, Readback, Result, Video

UNIFORM_SHARE = 0.01  # so that no place is impossible: a fixation on a zero of the map costs at most log2(100) bits
RULE = (
    f"density = {1 - UNIFORM_SHARE:g} * map / sum(map) + {UNIFORM_SHARE:g} / cells, on the model's own grid; uniform "
    "where the map is zero everywhere"
)


def spec_as_density(spec: ModelSpec) -> ModelSpec:
    """The spec of `AsDensity`. Raises UsageError for a model whose first output is no saliency map."""
    first, *others = spec.outputs
    if first.kind != "saliency_map":
        raise UsageError(f"--as-density is for saliency maps, and {first.name} of {spec.name} is a {first.kind}")
    readback = first.readback or Readback()
    density = Output(name="log_density", kind="log_density", units="nats", readback=readback, rule=RULE)
    return replace(spec, outputs=(density, *others))


class AsDensity:
    """A model of saliency maps that gives log densities."""

    def __init__(self, model: Model) -> None:
        self.spec = spec_as_density(model.spec)
        self._model, self._map = model, model.spec.outputs[0].name

    def begin(self, video: Video) -> Any:
        return self._model.begin(video)

    def step(self, batch: Batch, state: Any) -> Result:
        return self._converted(self._model.step(batch, state))

    def end(self, state: Any) -> Result | None:
        waiting = self._model.end(state)
        return waiting and self._converted(waiting)

    def _converted(self, result: Result) -> Result:
        values = dict(result.values)
        if self._map in values:
            values = {"log_density": log_density(values.pop(self._map)), **values}
        return replace(result, values=values)


def log_density(map_nhw: Tensor) -> Tensor:
    """(n, h, w) natural-log density of maps >= 0 by `RULE`, float32; NaN stays NaN."""
    maps = map_nhw.float().clamp(min=0)
    cells = maps[0].numel() if len(maps) else 1
    total = maps.sum((1, 2), keepdim=True)
    share = (maps / total).where(total != 0, 1 / cells)
    return ((1 - UNIFORM_SHARE) * share + UNIFORM_SHARE / cells).log()
