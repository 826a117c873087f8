"""Our DeepGaze against its authors' own package, on a user's pictures: how far apart are the two?

Pictures and a checkpoint flow in; a table, a verdict and a JSON record fit to be attached to an issue flow out. Both
sides get the same frames, weights and center bias through the same engine. Knows nothing of how either computes.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from . import __version__
from . import weights as weight_files
from .decode import decode
from .devices import resolve_device
from .engine import Dtype, predict
from .errors import BadInput, MissingWeights
from .files import write_bytes
from .models import center_bias, create_model
from .models.deepgaze_reference import import_upstream, peer
from .sample_clip import open_scene, shot_list

TOLERANCE_NATS = {"cpu": 2e-5, "cuda": 1e-4}  # of float32; other precisions are reported, not judged
FRAMES_OF_A_VIDEO = 2
DRAWN_SIZE = (360, 640)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One picture at one size: ours in `dtype` against the reference in float32.

    `kl_bits` is what a code for the reference's fixations loses when it is made for our density; `sum_minus_one` is of
    the exponentials of ours.
    """

    picture: str
    height: int
    width: int
    center_bias: str
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
    """Prints the table and the verdict; 0 if ours is within tolerance of the reference at float32, else 1.

    `pictures`: images or videos, of which the first frames are taken; none: one that is drawn here. `weights` as for
    `create_model`. Raises UsageError where the reference is not installed, and what reading files raises.
    """
    peer(name)
    import_upstream()
    where = resolve_device(device)
    clips = [(path.name, read_frames(path)) for path in pictures] or [("drawn", drawn_picture())]
    rows = compare(name, clips, weights=weights, dtypes=dtypes, device=str(where), say=say)
    tolerance = TOLERANCE_NATS.get(where.type, TOLERANCE_NATS["cuda"])
    worst = float(np.max([row.max_difference_nats for row in rows if row.dtype == "fp32"]))
    passed = worst <= tolerance  # a NaN is not
    facts = {
        "model": name,
        "weights": "synthetic" if weights == "synthetic" else weights_file(name, weights).name,
        "weights_sha256": None if weights == "synthetic" else weight_files.checksum(weights_file(name, weights)),
        **surroundings(where),
        "tolerance_nats": tolerance,
        "max_difference_nats": worst,
        "verdict": "within tolerance" if passed else "outside tolerance",
    }
    print_report(rows, facts)
    if output_json:
        record = {**facts, "comparisons": [asdict(row) for row in rows]}
        write_bytes(output_json, (json.dumps(record, indent=2) + "\n").encode())
    return 0 if passed else 1


def compare(
    name: str,
    clips: Sequence[tuple[str, np.ndarray]],
    *,
    weights: str | Path | None,
    dtypes: Sequence[Dtype],
    device: str,
    say: Callable[[str], None],
) -> list[Comparison]:
    """Every clip whole and cut to odd sides, with two center biases, in float32 and in `dtypes`."""
    # Built with a center bias that needs no file; each comparison gives its own.
    ours = create_model(name, weights=weights, device=device, center_bias="uniform")
    theirs = create_model(name, weights=weights, device=device, center_bias="uniform", backend="reference")
    biases = center_biases()
    rows = []
    for picture, whole in clips:
        for frames in sizes(picture, whole, max(ours.spec.min_side, theirs.spec.min_side)):
            n, height, width = frames.shape[:3]
            for bias_name, bias_hw in biases.items():
                say(f"{picture}, {width}x{height}, center bias {bias_name}")
                given: dict[str, Any] = {"device": device, "batch_size": n, "center_bias": bias_hw}
                reference = predict(frames, model=theirs, dtype="fp32", **given)
                for dtype in dict.fromkeys(("fp32", *dtypes)):
                    difference, kl_bits, sum_minus_one = distances(
                        predict(frames, model=ours, dtype=dtype, **given), reference
                    )
                    rows.append(
                        Comparison(
                            picture=picture,
                            height=height,
                            width=width,
                            center_bias=bias_name,
                            dtype=dtype,
                            max_difference_nats=difference,
                            kl_bits=kl_bits,
                            sum_minus_one=sum_minus_one,
                        )
                    )
    return rows


def distances(ours_nhw: np.ndarray, reference_nhw: np.ndarray) -> tuple[float, float, float]:
    """Greatest |difference| in nats, KL(reference || ours) in bits, sum of exp minus 1: of the frame that is worst."""
    ours, reference = ours_nhw.astype(np.float64), reference_nhw.astype(np.float64)
    kl_bits = (np.exp(reference) * (reference - ours)).sum(axis=(1, 2)) / math.log(2)
    sum_minus_one = np.exp(ours).sum(axis=(1, 2)) - 1
    return float(np.abs(ours - reference).max()), _largest(kl_bits), _largest(sum_minus_one)


def _largest(values: np.ndarray) -> float:
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
    columns = ("picture", "size", "center bias", "dtype", "max difference, nats", "KL, bits", "sum of exp - 1")
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        numbers = (f"{number:.1e}" for number in (row.max_difference_nats, row.kl_bits, row.sum_minus_one))
        table.add_row(row.picture, f"{row.width}x{row.height}", row.center_bias, row.dtype, *numbers)
    console.print(table)
    print()
    for key, value in facts.items():
        if value is not None:
            print(f"{key.replace('_', ' ')}: {value}")
