"""Our DeepGaze against its authors' own package, on a user's pictures: how far apart are the two?

Pictures and a checkpoint flow in; a table, a verdict and a JSON record fit to be attached to an issue flow out. Both
sides get the same frames, weights and center bias through the same engine, and are measured against the authors'
package in float64: what is left of a difference is rounding, theirs beside ours. Knows nothing of how either computes.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchvision

from . import __version__
from .decode import decode
from .devices import resolve_device
from .engine import Dtype, predict
from .errors import BadInput, MissingWeights
from .files import write_bytes
from .models import center_bias, create_model, model_module
from .models.deepgaze_reference import build as build_reference
from .models.deepgaze_reference import import_upstream, peer
from .models.spec import Model
from .sample_clip import open_scene, shot_list
from .weights import cache as weight_files
from .weights import checkpoints

Program = Literal["ours", "reference"]

TOLERANCE_NATS = {"cpu": 2e-5, "cuda": 1e-4}  # of float32; other precisions are reported, not judged
# Rounding grows with the picture: ours may be so many times theirs where that is more. A mistake shows as 1e-3 or more.
OF_THEIR_ROUNDING = 4
FRAMES_OF_A_VIDEO = 2
DRAWN_SIZE = (360, 640)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One picture at one size by one program in one precision, against the reference in float64.

    `kl_bits` is what a code for the reference's fixations loses when it is made for this density; `sum_minus_one` is of
    the exponentials.
    """

    picture: str
    height: int
    width: int
    center_bias: str
    program: Program
    dtype: str
    max_difference_nats: float
    kl_bits: float
    sum_minus_one: float


def selftest(
    name: str,
    pictures: Sequence[Path] = (),
    *,
    weights: str | Path | None = None,
    dtypes: Sequence[Dtype] = ("fp32",),
    device: str = "auto",
    output_json: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """Prints the table and the verdict; 0 if ours is within tolerance at float32, else 1.

    `pictures`: images or videos, of which the first frames are taken; none: one that is drawn here. `weights` as for
    `create_model`. Raises UsageError where the reference is not installed, and what reading files raises.
    """
    peer(name)
    import_upstream()
    where = resolve_device(device)
    clips = [(path.name, read_frames(path)) for path in pictures] or [("drawn", drawn_picture())]
    rows = compare(name, clips, weights=weights, dtypes=dtypes, device=str(where), say=say)
    tolerance = TOLERANCE_NATS.get(where.type, TOLERANCE_NATS["cuda"])
    facts = {
        "model": name,
        "weights": "synthetic" if weights == "synthetic" else weights_file(name, weights).name,
        "weights_sha256": None if weights == "synthetic" else weight_files.checksum(weights_file(name, weights)),
        **surroundings(where),
        "tolerance_nats": tolerance,
        "max_difference_nats": largest(rows, "ours"),
        "max_difference_of_reference_nats": largest(rows, "reference"),
        "verdict": "within tolerance" if within(rows, tolerance) else "outside tolerance",
    }
    print_report(rows, facts)
    if output_json:
        record = {**facts, "comparisons": [asdict(row) for row in rows]}
        write_bytes(output_json, (json.dumps(record, indent=2) + "\n").encode())
    return 0 if within(rows, tolerance) else 1


def compare(
    name: str,
    clips: Sequence[tuple[str, np.ndarray]],
    *,
    weights: str | Path | None,
    dtypes: Sequence[Dtype],
    device: str,
    say: Callable[[str], None],
) -> list[Comparison]:
    """Every clip whole and cut to odd sides, with two center biases: both at float32, ours in `dtypes` as well."""
    loaded = checkpoints.load(name, weights, model_module(name).template())
    # Built with a center bias that needs no file; each comparison gives its own.
    built: dict[str, Any] = {"weights": loaded, "device": device, "center_bias": "uniform"}
    ours = create_model(name, **built)
    theirs, exact = (build_reference(name, **built, dtype=dtype) for dtype in (torch.float32, torch.float64))
    candidates: list[tuple[Program, Model, Dtype]] = [("reference", theirs, "fp32"), ("ours", ours, "fp32")]
    for dtype in dtypes:
        if dtype != "fp32":
            candidates.append(("ours", ours, dtype))
    rows = []
    for picture, whole in clips:
        for frames in sizes(picture, whole, max(ours.spec.min_side, theirs.spec.min_side)):
            n, height, width = frames.shape[:3]
            for bias_name, bias_hw in center_biases().items():
                say(f"{picture}, {width}x{height}, center bias {bias_name}")
                given: dict[str, Any] = {"device": device, "batch_size": n, "center_bias": bias_hw}
                wanted = predict(frames, model=exact, dtype="fp32", **given)
                for program, model, dtype in candidates:
                    found = distances(predict(frames, model=model, dtype=dtype, **given), wanted)
                    rows.append(
                        Comparison(
                            picture=picture,
                            height=height,
                            width=width,
                            center_bias=bias_name,
                            program=program,
                            dtype=dtype,
                            max_difference_nats=found[0],
                            kl_bits=found[1],
                            sum_minus_one=found[2],
                        )
                    )
    return rows


def within(rows: Sequence[Comparison], tolerance_nats: float) -> bool:
    """Whether ours is, at float32 and everywhere, within tolerance, or not much further off than the reference."""
    judged = [row for row in rows if row.dtype == "fp32"]
    theirs = [row.max_difference_nats for row in judged if row.program == "reference"]
    ours = [row.max_difference_nats for row in judged if row.program == "ours"]
    # So written that a NaN of ours is not within.
    return all(a <= max(tolerance_nats, OF_THEIR_ROUNDING * b) for a, b in zip(ours, theirs, strict=True))


def largest(rows: Sequence[Comparison], program: Program) -> float:
    """Of the differences at float32; NaN if there is one."""
    found = [row.max_difference_nats for row in rows if (row.program, row.dtype) == (program, "fp32")]
    return float(np.max(found))


def distances(found_nhw: np.ndarray, wanted_nhw: np.ndarray) -> tuple[float, float, float]:
    """Greatest |difference| in nats, KL(wanted || found) in bits, sum of exp minus 1: of the frame that is worst."""
    found, wanted = found_nhw.astype(np.float64), wanted_nhw.astype(np.float64)
    kl_bits = (np.exp(wanted) * (wanted - found)).sum(axis=(1, 2)) / math.log(2)
    sum_minus_one = np.exp(found).sum(axis=(1, 2)) - 1
    return float(np.abs(found - wanted).max()), _worst(kl_bits), _worst(sum_minus_one)


def _worst(values: np.ndarray) -> float:
    return float(values[np.abs(values).argmax()])


def sizes(picture: str, frames: np.ndarray, min_side: int) -> list[np.ndarray]:
    """The frames whole and, where their model can compute that, without the last row or column so as to be odd."""
    height, width = frames.shape[1:3]
    if min(height, width) < min_side:
        raise BadInput(f"{picture} is {width}x{height}, and the model needs {min_side} both ways: use a larger picture")
    odd = frames[:, : height - 1 + height % 2, : width - 1 + width % 2]
    return [frames] if odd.shape == frames.shape or min(odd.shape[1:3]) < min_side else [frames, odd]


def center_biases() -> dict[str, np.ndarray]:
    """A flat one, and the official one where it is cached, else a Gaussian."""
    try:
        peaked = {"mit1003": center_bias.template("mit1003")}
    except MissingWeights:
        peaked = {"gaussian": center_bias.template("gaussian")}
    return {"uniform": center_bias.template("uniform"), **peaked}


def read_frames(path: Path) -> np.ndarray:
    """(n, H, W, 3) uint8 RGB: an image, or the first frames of a video."""
    frames = [frame.rgb for frame in decode(path, 0, FRAMES_OF_A_VIDEO)]
    pictures = [rgb for rgb in frames if rgb is not None]
    if not pictures:
        raise BadInput(f"{path} has no picture among its first {FRAMES_OF_A_VIDEO} frames: use another file")
    return np.stack(pictures)


def drawn_picture() -> np.ndarray:
    """(1, H, W, 3): a frame of the sample clip, the same everywhere."""
    height, width = DRAWN_SIZE
    scene = open_scene(shot_list(200)[0], width, height)
    return scene.paint(10)[None]


def weights_file(name: str, weights: str | Path | None) -> Path:
    return weight_files.find(name) if weights is None else Path(weights)


def surroundings(device: torch.device) -> dict[str, Any]:
    """What the numbers may depend on, for whoever reads the record."""
    on_cuda = device.type == "cuda"
    return {
        "streamsal": __version__,
        "deepgaze_pytorch": upstream_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if on_cuda else device.type,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if on_cuda else None,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,
    }


def upstream_version() -> str:
    """Version of the reference and, where pip recorded it, the commit; a copy that was not installed has neither."""
    try:
        found = importlib.metadata.distribution("deepgaze-pytorch")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id")
    return f"{found.version} at {commit}" if commit else found.version


def print_report(rows: Sequence[Comparison], facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("picture", "size", "center bias", "computed by", "max, nats", "KL, bits", box=None, pad_edge=False)
    for row in rows:
        size, by = f"{row.width}x{row.height}", f"{row.program} {row.dtype}"
        table.add_row(row.picture, size, row.center_bias, by, f"{row.max_difference_nats:.1e}", f"{row.kl_bits:.1e}")
    print("Distance from the reference in float64")
    console.print(table)
    print(f"\nsum of exp - 1: at most {max(abs(row.sum_minus_one) for row in rows):.1e}")
    for key, value in facts.items():
        if value is not None:
            print(f"{key.replace('_', ' ')}: {value}")
