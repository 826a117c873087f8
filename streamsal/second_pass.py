"""What a model derives of its stored outputs: frame after frame over a whole video, in order and without pixels.

In flow stored values of consecutive frames; out come derived ones, NaN at holes, as values while a video is streamed
(`Deriver`) or as datasets of a merged file (`SecondPass`). Holds one batch, however long the video. Knows no model by
name, and passes on the fixations that a model is given without looking at them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .batches import model_video
from .blockfile import COMMIT_BYTES, BlockFile
from .devices import device_name, resolve_device
from .layout import H5, HOLE, create_output, pack_frame, write_rows
from .maps import Maps
from .models import create_model, naming_the_file
from .models.spec import Model, Output, Video
from .plan import Plan
from .prepare import check_model
from .progress import Progress
from .signals import Stop, stopped

if TYPE_CHECKING:
    from .fixations import Source

PACKING_THREADS = 2


class Deriver:
    """The derived outputs of one video, some consecutive frames at a time.

    `fixations` None: as the model does by itself. `model_name`: the name or file that the model was made from, empty
    where the model itself was given.
    """

    def __init__(self, model: Model, video: Video, fixations: Source | None = None, *, model_name: str = "") -> None:
        self._name, self._where = model_name, f"in the second pass over {video.name}"
        self._shapes: dict[str, tuple[int, ...]] = {}
        with naming_the_file(model_name, self._where):
            self._derivation = model.derive(video, fixations)  # type: ignore[attr-defined]

    def step(self, values: Mapping[str, Tensor], pts_seconds: np.ndarray, hole: np.ndarray) -> dict[str, Tensor]:
        """Derived values (n, ...) float32 of the next n frames, NaN where `hole`; the model sees the others alone."""
        device = next(iter(values.values())).device
        seen = torch.from_numpy(np.flatnonzero(~hole)).to(device)
        found: dict[str, Tensor] = {}
        if len(seen) or not self._shapes:
            given = {name: value[seen] for name, value in values.items()} if hole.any() else values
            with torch.no_grad(), naming_the_file(self._name, self._where):
                made = self._derivation.step(given, pts_seconds[~hole])
            found = {name: value.float() for name, value in made.items()}
            self._shapes = {name: tuple(value.shape[1:]) for name, value in found.items()}
        if not hole.any():
            return found
        whole = {
            name: torch.full((len(hole), *shape), torch.nan, device=device) for name, shape in self._shapes.items()
        }
        for name, value in found.items():
            whole[name][seen] = value
        return whole

    def table(self) -> list[dict[str, float]]:
        with naming_the_file(self._name, self._where):
            return self._derivation.table()


@dataclass(frozen=True, kw_only=True)
class SecondPass:
    """The second pass over videos of a run, by the plan's model, which is loaded when the first of them needs it."""

    plan: Plan
    fixations: Source | None
    device: str
    progress: Progress
    stop: Stop

    @property
    def settings(self) -> str:
        """What the numbers depend on beside the stored ones, as JSON."""
        if self.fixations is None:
            return json.dumps({"fixations": "the model's default"})
        settings = {"fixations": type(self.fixations).__name__.lower(), **asdict(self.fixations)}
        return json.dumps(settings, default=lambda array: f"sha256 {sha256(array.tobytes()).hexdigest()}")

    @cached_property
    def _model(self) -> Model:
        planned = self.plan.model
        check_model(planned)
        device = resolve_device(self.device)
        return create_model(planned.name, weights=planned.weights or None, device=device, **planned.options)

    def write(self, h5: H5, file: BlockFile, maps: Maps) -> list[dict[str, float]]:
        """Write the derived outputs of one video into its merged file; returns the model's table."""
        plan, device = self.plan, resolve_device(self.device)
        h5.attrs["derived_on"] = device_name(device)
        video = model_video(next(video for video in plan.videos if video.name == maps.name))
        deriver = Deriver(self._model, video, self.fixations, model_name=plan.model.name)
        outputs, store_dtype = self._model.spec.derived, str(maps.info["store_dtype"])
        with (
            self.progress.track(f"{maps.name} {outputs[0].name}", len(maps)),
            ThreadPoolExecutor(PACKING_THREADS, "store") as pool,
        ):
            # A grid over the whole video, whatever shards it was computed in.
            for first in range(0, len(maps), plan.batch_size):
                rows = slice(first, min(first + plan.batch_size, len(maps)))
                values = {name: _read(maps, name, rows).to(device) for name in maps.outputs}
                found = deriver.step(values, maps.pts_seconds[rows], maps.status[rows] == HOLE)
                for output in outputs:
                    value = found[output.name].cpu().numpy()
                    if first == 0:
                        create_output(h5, output, store_dtype, len(maps), value.shape[1:])
                    _write(h5, output, rows, value, maps, pool)
                if file.pending_bytes > COMMIT_BYTES:
                    file.commit()
                self.progress.update(rows.stop)
                if reason := self.stop():
                    raise stopped(reason, f"{maps.name} is not merged")
        return deriver.table()


def _read(maps: Maps, name: str, rows: slice) -> Tensor:
    return torch.from_numpy(np.stack([maps.output(name, int(frame)) for frame in maps.frame[rows]]))


def _write(h5: H5, output: Output, rows: slice, values: np.ndarray, maps: Maps, pool: ThreadPoolExecutor) -> None:
    dataset = h5[output.name]
    if output.scalar:
        dataset[rows] = values
        return
    frames, holes = maps.frame[rows], maps.status[rows] == HOLE
    packing = [
        None if hole else pool.submit(pack_frame, output, dataset.dtype, values[i : i + 1], int(frame))
        for i, (frame, hole) in enumerate(zip(frames, holes, strict=True))
    ]
    write_rows(h5, output, rows.start, [future and future.result() for future in packing])
