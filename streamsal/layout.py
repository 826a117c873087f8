"""What a shard looks like inside: its groups' attributes, its datasets' names and types, one frame as bytes.

Whoever writes, merges or reads shards agrees on them here: values become datasets and bytes, and values again, with
checksums that tell whether they are the same. Knows no files, only groups in them, and no plan's progress.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import numpy as np

from .density import UINT16_STEP, StoreDtype, pack
from .errors import UsageError
from .models.spec import Output, Readback
from .plan import Part, Plan

FORMAT = "streamsal shard 1"
NOT_COMPUTED, DONE, HOLE = 0, 1, 2
STATUS_MEANING = "0 not computed, 1 done, 2 hole: the video has no picture for this frame, its values are missing"
H5 = Any  # h5py types each member of a group as Group | Dataset | Datatype
CONSTANTS = "constants"  # the subgroup that holds them
HISTORY = ("device", "dtype", "version")  # may differ between a run and its resumption; all are recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInfo:
    """What a group says of itself, written as its attributes: whose frames these are and how they came to be.

    `video` is the group's name. Rows are the frames start, start + every, ... below stop, or the clips of these
    numbers, which begin at the frames `clip_start`; `clips` says what they are. `height`, `width`: displayed
    size in pixels, the size maps are read back at; `model_height`, `model_width`: the size that the model saw.
    `derived`: what `merge` adds to the outputs. `device`, `dtype`: what the model ran on, in which precision.
    """

    plan_id: str
    video: str
    start: int
    stop: int
    every: int
    height: int
    width: int
    model_height: int
    model_width: int
    model: str
    weights_sha256: str
    outputs: tuple[Output, ...]
    derived: tuple[Output, ...] = ()
    constants: tuple[str, ...] = ()
    store_dtype: str = "float16"
    batch_size: int = 1
    device: str = ""
    dtype: str = ""
    version: str = ""
    time_base: str = ""
    orientation: str = "displayed"
    clips: str = ""
    clip_start: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.store_dtype not in ("float16", "uint16", "float32"):
            raise ValueError(f"{self.store_dtype = } is none of float16, uint16, float32")

    @classmethod
    def of(cls, plan: Plan, part: Part, *, outputs: Sequence[Output], **recorded: Any) -> PartInfo:
        """What the plan knows of a part; `recorded` is the rest (derived, constants, device, dtype, time_base ...)."""
        video, (clip, timing) = plan.videos[part.video], plan.of_clips or (None, None)
        return cls(
            plan_id=plan.id,
            video=video.name,
            start=part.start,
            stop=part.stop,
            every=video.every,
            height=video.height,
            width=video.width,
            model_height=video.model_height,
            model_width=video.model_width,
            model=plan.model.name,
            weights_sha256=plan.model.sha256,
            outputs=tuple(outputs),
            store_dtype=plan.settings.store_dtype,
            batch_size=plan.batch_size,
            version=plan.version,
            clips=json.dumps({**asdict(clip), **asdict(timing)}) if clip and timing else "",
            **recorded,
        )

    @property
    def rows(self) -> range:
        """Numbers that the plan gives to the rows: of frames, or of clips."""
        return range(self.start, self.stop, self.every)

    @property
    def frames(self) -> Sequence[int]:
        """The frame that owns each row."""
        return self.rows if self.clip_start is None else self.clip_start

    def attributes(self) -> dict[str, Any]:
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "clip_start"}
        values["outputs"], values["derived"] = dump_outputs(self.outputs), dump_outputs(self.derived)
        values["constants"] = json.dumps(self.constants)
        return values


def dump_outputs(outputs: Sequence[Output]) -> str:
    found = [asdict(output) for output in outputs]
    for item in found:
        if not item["labels"]:
            del item["labels"]  # so that a shard that was begun when there were none can be gone on with
    return json.dumps(found)


def load_outputs(text: str) -> tuple[Output, ...]:
    """Outputs from the JSON in a group's `outputs` or `derived` attribute."""
    outputs = []
    for item in json.loads(text):
        readback = item.pop("readback")
        if readback is not None:
            prior = readback.pop("gaussian_prior")
            readback = Readback(**readback, gaussian_prior=tuple(prior) if prior else None)
        labels = tuple(item.pop("labels", ()))
        outputs.append(Output(**item, readback=readback, labels=labels))
    return tuple(outputs)


def describe(output: Output, store_dtype: str) -> dict[str, Any]:
    """Attributes of an output's dataset: what a reader with h5py alone has to know."""
    readback = output.readback and json.dumps(asdict(output.readback))
    found: dict[str, Any] = {"kind": output.kind, "units": output.units, "readback": readback or ""}
    if output.rule:
        found["rule"] = output.rule
    if output.labels:
        found["labels"] = list(output.labels)
    if output.kind in ("log_density", "priority"):
        found["how_to_read"] = _how_to_read(output, stored_dtype(output, store_dtype))
    return found


def _how_to_read(output: Output, dtype: np.dtype) -> str:
    """Begins with an expression in the names of the group's datasets."""
    name, readback = output.name, output.readback or Readback()
    if readback.interpolation == "matrices":
        return (
            f"constants['rows'][:] @ {name}[k] @ constants['columns'][:].T + constants['prior'][:] is the natural-log "
            "density of frame[k], up to a constant, at the size that the model saw (model_height, model_width); where "
            "the displayed size (height, width) is another one enlarge it bilinearly with half-pixel centers; then "
            "subtract the logsumexp"
        )
    value = f"-numpy.expm1({name} * {UINT16_STEP})" if dtype.kind == "u" else f"{name}.astype('float32')"
    offsets = offset_name(output)
    found = f"{value} is the natural-log density on the stored grid, up to a constant; "
    if offsets:
        value += f" + {offsets}[:, None, None]"
        found = f"{value} is the natural-log density on the stored grid, summing to 1 there; "
    if readback.interpolation == "nearest":
        block = readback.block
        return found + (
            f"where that is h = height // {block} by w = width // {block} cells, displayed row i shows stored row "
            "min(int(numpy.float32(i) * (numpy.float32(h) / numpy.float32(height))), h - 1), and columns alike; else "
            "enlarge it bilinearly with half-pixel centers; then subtract the logsumexp"
        )
    return found + "for the displayed size enlarge it as `readback` says and normalize again"


def offset_name(output: Output) -> str | None:
    """The dataset that holds a density's offsets: `log_offset` for `log_density`, `NAME_log_offset` for any other."""
    if output.kind != "log_density":
        return None
    return "log_offset" if output.name == "log_density" else f"{output.name}_log_offset"


def stored_dtype(output: Output, store_dtype: str) -> np.dtype:
    """Only densities are quantized to uint16; what has no natural range is kept whole instead."""
    wide = output.exact or output.scalar or (store_dtype == "uint16" and output.kind != "log_density")
    return np.dtype("float32" if wide else store_dtype).newbyteorder("<")


def create_output(group: H5, output: Output, store_dtype: str, n_rows: int, shape: tuple[int, ...]) -> Any:
    """The dataset of an output and those that go with it, for `n_rows` frames; nothing is in it yet."""
    dtype = stored_dtype(output, store_dtype)
    if output.scalar:
        dataset = group.create_dataset(output.name, data=np.full(n_rows, np.nan, dtype))
    else:
        dataset = create_chunked(group, output.name, (n_rows, *shape), dtype)
        group.create_dataset(f"{output.name}_crc32", data=np.zeros(n_rows, np.uint32))
        if offsets := offset_name(output):
            group.create_dataset(offsets, data=np.full(n_rows, np.nan, np.float32))
    dataset.attrs.update(describe(output, store_dtype))
    return dataset


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One frame of one output as it goes into a file."""

    chunk: bytes
    crc32: int
    offset: float


def pack_frame(output: Output, dtype: np.dtype, values: np.ndarray, frame: int) -> Packed:
    """Of one frame's values, (1, ...) float32. Raises UsageError for what `dtype` cannot hold."""
    offset = np.nan
    if output.kind == "log_density":
        stored, offsets = pack(values, cast(StoreDtype, dtype.name))
        offset = float(offsets[0])
    else:
        with np.errstate(over="ignore"):
            stored = values.astype(dtype)
        if not np.array_equal(np.isinf(stored), np.isinf(values)):
            raise UsageError(
                f"{output.name} of frame {frame} is too large for {dtype.name}: plan again with --store-dtype float32"
            )
    chunk, crc32 = compress(np.asarray(stored, dtype))
    return Packed(chunk=chunk, crc32=crc32, offset=offset)


def write_rows(group: H5, output: Output, row: int, packed: Sequence[Packed | None]) -> None:
    """Put frames into the rows row, row + 1, ... of an output's datasets; None is a hole."""
    dataset, stop = group[output.name], row + len(packed)
    rest = (0,) * (dataset.ndim - 1)
    for i, item in enumerate(packed):
        if item is not None:
            dataset.id.write_direct_chunk((row + i, *rest), item.chunk)
    group[f"{output.name}_crc32"][row:stop] = [item.crc32 if item else 0 for item in packed]
    if offsets := offset_name(output):
        group[offsets][row:stop] = [item.offset if item else np.nan for item in packed]


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
        if output.scalar:
            continue
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


def write_constant(group: H5, name: str, array: np.ndarray) -> None:
    """What is the same for all frames of a video: a dataset of its own, with the checksum of its bytes."""
    array = np.ascontiguousarray(array, "<f4")
    packing = {"shuffle": True, "compression": "gzip", "compression_opts": 1} if array.size else {}
    dataset = group.require_group(CONSTANTS).create_dataset(name, data=array, **packing)
    dataset.attrs["crc32"] = np.uint32(zlib.crc32(array.data))


def read_constant(group: H5, name: str) -> np.ndarray:
    """Raises ValueError where it is not what was written, KeyError where it is not there."""
    dataset = group[CONSTANTS][name]
    try:
        array = np.ascontiguousarray(dataset[...], "<f4")
    except (OSError, RuntimeError) as error:
        raise ValueError(str(error)) from None
    if zlib.crc32(array.data) != dataset.attrs["crc32"]:
        raise ValueError(f"the checksum of {name} is wrong")
    return array


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two computations of a constant agree; its last bits may depend on the machine."""
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)
