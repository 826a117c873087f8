"""What a shard looks like inside: its groups' attributes, its datasets' names and types, one frame as bytes.

Whoever writes, merges or reads shards agrees on them here. Pure but for `read_row`, which reads one stored frame.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from .density import UINT16_STEP
from .models.spec import Output, Readback
from .plan import Part, Plan

FORMAT = "streamsal shard 1"
NOT_COMPUTED, DONE, HOLE = 0, 1, 2
STATUS_MEANING = "0 not computed, 1 done, 2 hole: the video has no picture for this frame, its values are missing"
H5 = Any  # h5py types each member of a group as Group | Dataset | Datatype
HISTORY = ("device", "dtype", "version")  # may differ between a run and its resumption; all are recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInfo:
    """What a group says of itself, written as its attributes: whose frames these are and how they came to be.

    `video` is the group's name. Rows are the frames start, start + every, ... below stop. `height`, `width`: displayed
    size in pixels, the size maps are read back at. `device`, `dtype`: what the model ran on, in which precision.
    """

    plan_id: str
    video: str
    start: int
    stop: int
    every: int
    height: int
    width: int
    model: str
    weights_sha256: str
    outputs: tuple[Output, ...]
    store_dtype: str = "float16"
    batch_size: int = 1
    device: str = ""
    dtype: str = ""
    version: str = ""
    time_base: str = ""
    orientation: str = "displayed"

    def __post_init__(self) -> None:
        if self.store_dtype not in ("float16", "uint16", "float32"):
            raise ValueError(f"{self.store_dtype = } is none of float16, uint16, float32")

    @classmethod
    def of(cls, plan: Plan, part: Part, *, outputs: Sequence[Output], **recorded: Any) -> PartInfo:
        """What the plan knows of a part; `recorded` is the rest (device, dtype, time_base ...)."""
        video = plan.videos[part.video]
        return cls(
            plan_id=plan.id,
            video=video.name,
            start=part.start,
            stop=part.stop,
            every=video.every,
            height=video.height,
            width=video.width,
            model=plan.model.name,
            weights_sha256=plan.model.sha256,
            outputs=tuple(outputs),
            store_dtype=plan.settings.store_dtype,
            batch_size=plan.batch_size,
            version=plan.version,
            **recorded,
        )

    @property
    def frames(self) -> range:
        return range(self.start, self.stop, self.every)

    def attributes(self) -> dict[str, Any]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["outputs"] = json.dumps([asdict(output) for output in self.outputs])
        return values


def describe(output: Output, store_dtype: str, offsets: str | None) -> dict[str, str]:
    """Attributes of an output's dataset: what a reader with h5py alone has to know."""
    readback = output.readback and json.dumps(asdict(output.readback))
    found = {"kind": output.kind, "units": output.units, "readback": readback or ""}
    if offsets:
        value = f"{output.name}.astype('float32')"
        if store_dtype == "uint16":
            value = f"-numpy.expm1({output.name} * {UINT16_STEP})"
        found["how_to_read"] = (
            f"{value} + {offsets}[:, None, None] is the natural-log density on the stored grid, summing to 1 there; "
            "for the displayed size enlarge it as `readback` says and normalize again"
        )
    return found


def load_outputs(text: str) -> tuple[Output, ...]:
    """Outputs from the JSON in a group's `outputs` attribute."""
    outputs = []
    for item in json.loads(text):
        readback = item.pop("readback")
        if readback is not None:
            prior = readback["gaussian_prior"]
            readback = Readback(interpolation=readback["interpolation"], gaussian_prior=tuple(prior) if prior else None)
        outputs.append(Output(**item, readback=readback))
    return tuple(outputs)


def offset_name(outputs: Sequence[Output], name: str) -> str | None:
    """The dataset that holds an output's offsets: `log_offset` for the first density, `NAME_log_offset` for others."""
    densities = [output.name for output in outputs if output.kind == "log_density"]
    if name not in densities:
        return None
    return "log_offset" if name == densities[0] else f"{name}_log_offset"


def stored_dtype(output: Output, store_dtype: str) -> np.dtype:
    """Only densities are quantized to uint16; what has no natural range is kept whole instead."""
    wide = store_dtype == "uint16" and output.kind != "log_density"
    return np.dtype("float32" if wide else store_dtype).newbyteorder("<")


def create_chunked(group: H5, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """A dataset whose chunks, one frame each, are written as `compress` gives them; a row never written is NaN or 0."""
    return group.create_dataset(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
        shuffle=True,
        compression="gzip",
        compression_opts=1,
        fillvalue=np.nan if dtype.kind == "f" else 0,
    )


def compress(stored: np.ndarray) -> tuple[bytes, int]:
    """One frame as HDF5's shuffle and gzip-1 filters would write it, and the CRC-32 of its bytes before that."""
    flat = np.ascontiguousarray(stored).reshape(-1)
    planes = flat.view(np.uint8).reshape(-1, flat.dtype.itemsize).T
    return zlib.compress(planes.tobytes(), 1), zlib.crc32(flat.data)


def decompress(chunk: bytes, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, int]:
    """Inverse of `compress`. Raises ValueError where the bytes are no such chunk."""
    try:
        planes = np.frombuffer(zlib.decompress(chunk), np.uint8).reshape(dtype.itemsize, -1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    flat = np.ascontiguousarray(planes.T).reshape(-1).view(dtype)
    return flat.reshape(shape), zlib.crc32(flat.data)


def damaged(group: H5, outputs: Sequence[Output], row: int) -> str | None:
    """Name of the first output whose stored frame in `row` is not what was written; None where all are sound."""
    if group["status"][row] != DONE:
        return None
    for output in outputs:
        dataset = group[output.name]
        try:
            _, crc32 = read_row(dataset, row)
        except ValueError:
            return output.name
        if crc32 != group[f"{output.name}_crc32"][row]:
            return output.name
    return None


def read_row(dataset: H5, row: int) -> tuple[np.ndarray, int]:
    """One frame as stored and the CRC-32 of its bytes. Raises ValueError where it cannot be read."""
    try:
        _, chunk = dataset.id.read_direct_chunk((row,) + (0,) * (dataset.ndim - 1))
    except (OSError, RuntimeError) as error:
        raise ValueError(str(error)) from None
    return decompress(chunk, dataset.shape[1:], dataset.dtype)
