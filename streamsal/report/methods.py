"""What a paper has to say of a run: facts for a table, a paragraph, what to cite. Only what the run itself records.

In flow a run's maps, plan and index; out come texts. Knows no HTML and computes nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import StreamsalError
from ..index import VideoIndex
from ..maps import Maps
from ..merge import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One video of one run."""

    label: str
    run: Run
    maps: Maps
    index: VideoIndex

    @property
    def stand_in(self) -> bool:
        """Whether the weights are made up, so that the numbers mean nothing."""
        return self.run.plan is not None and self.run.plan.model.weights == "synthetic"


def facts(of: Measured) -> dict[str, str]:
    """What the run records, in words."""
    maps, index, info, plan = of.maps, of.index, of.maps.info, of.run.plan
    step = int(info["every"])
    selected = "every frame" if step == 1 else f"every {step} frames"
    stored = " × ".join(map(str, maps.shape()))
    found = {
        "Run": of.run.path.name,
        "Model": str(info["model"]),
        "Weights, SHA-256": str(info["weights_sha256"]) or "no weights",
        "Video": f"{Path(index.path).name}, {index.codec}, fingerprint {index.fingerprint}",
        "Frames": f"{number(index.n_frames)} at {rate(index)}; results for {number(len(maps))} ({selected} from "
        f"{int(maps.frame[0])} to {int(maps.frame[-1])})",
        "Size shown": f"{maps.width} × {maps.height} px",
        "Size the model saw": f"{int(info['model_width'])} × {int(info['model_height'])} px",
        "Stored maps": f"{maps.first.name}, {stored} (rows × columns), {info['store_dtype']}",
        "Device": str(info["device"]) or "not recorded",
        "Precision": str(info["dtype"]) or "not recorded",
        "Batch size": str(int(info["batch_size"])),
        "Holes": holes(maps),
        "Frame numbers from": index.trust,
        "streamsal": str(info["version"]) or "not recorded",
        "Plan": str(info["plan_id"])[:16],
    }
    if plan:
        found["Tasks"] = str(len(plan.shards))
        if plan.model.center_bias:
            found["Center bias"] = f"{Path(plan.model.center_bias).name}, SHA-256 {plan.model.center_bias_sha256}"
        if plan.model.options:
            found["Options"] = json.dumps(dict(plan.model.options), sort_keys=True)
        if plan.model.weights:
            found["Weights"] = Path(plan.model.weights).name
    if "derived_from" in info:
        found["Second pass"] = str(info["derived_from"])
    return found


def holes(maps: Maps) -> str:
    frames = maps.holes.tolist()
    if not frames:
        return "none"
    named = ", ".join(map(str, frames[:8])) + (" ..." if len(frames) > 8 else "")
    return f"{number(len(frames))} without a picture: {named}"


def paragraph(measured: Sequence[Measured]) -> str:
    """The methods of one run, for its videos in `measured`, as a paper would say them."""
    first = measured[0]
    info, plan = first.maps.info, first.run.plan
    weights = str(info["weights_sha256"])
    of_weights = f" (weights SHA-256 {weights})" if weights else " (a model without weights)"
    if plan and plan.model.center_bias:
        bias = Path(plan.model.center_bias).name
        of_weights = f"{of_weights[:-1]}; center bias {bias}, SHA-256 {plan.model.center_bias_sha256})"
    what = "Fixation densities" if first.maps.first.is_density else f"Maps ({first.maps.first.kind})"
    step = int(info["every"])
    per = "each frame" if step == 1 else f"every {ordinal(step)} frame"
    sentences = [f"{what} were predicted with {info['model']}{of_weights} for {per} of {_videos(measured)}."]
    if first.maps.first.rule:
        sentences.append(f"Densities were made of the model's maps: {first.maps.first.rule}.")
    seen = sorted({(int(m.maps.info["model_width"]), int(m.maps.info["model_height"])) for m in measured})
    shown = sorted({(m.maps.width, m.maps.height) for m in measured})
    if seen == shown:
        sentences.append("The model saw frames at their displayed size.")
    else:
        sentences.append(f"The model saw frames of {', '.join(f'{w} × {h}' for w, h in seen)} px.")
    computed = f"Computation used streamsal {info['version']} on {info['device']} in {info['dtype']}"
    if plan:
        n = len(plan.shards)
        tasks = "as one task" if n == 1 else f"as {n} tasks, each with the warm-up frames that its model needs"
        computed += f", with batches of {int(info['batch_size'])} frames, {tasks}"
    sentences.append(f"{computed}. Maps were stored as {info['store_dtype']}.")
    missing = sum(len(m.maps.holes) for m in measured)
    if missing:
        sentences.append(f"{number(missing)} frame{'s' * (missing > 1)} could not be decoded and have no value.")
    if first.stand_in:
        sentences.append("The weights were random stand-ins, so that no number of this run has a meaning.")
    return " ".join(sentences)


def citations(measured: Sequence[Measured]) -> list[str]:
    """What to cite: the model, and files of others that it read."""
    from ..models import MODELS, spec_of
    from ..weights.assets import ASSETS

    found = []
    for each in measured:
        name, plan = str(each.maps.info["model"]), each.run.plan
        if name in MODELS:  # a model file of the user's own may be gone by now, and says nothing of papers
            with contextlib.suppress(StreamsalError, TypeError):
                weights, options = (plan.model.weights or None, plan.model.options) if plan else (None, {})
                found.append(spec_of(name, weights, **options).citation)
        files = {Path(plan.model.center_bias).name, Path(plan.model.weights).name} if plan else set()
        found += [asset.citation for asset in ASSETS.values() if asset.file in files]
    return list(dict.fromkeys(text for text in found if text))


def number(value: int) -> str:
    """With thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def rate(index: VideoIndex) -> str:
    varies = ", variable" if index.variable_rate else ""
    return f"{index.frame_rate:.6g} frames/s{varies}"


def ordinal(n: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(n % 10 if n % 100 not in (11, 12, 13) else 0, "th")
    return f"{n}{suffix}"


def _videos(measured: Sequence[Measured]) -> str:
    total = sum(len(m.maps) for m in measured)
    if len(measured) == 1:
        index = measured[0].index
        return (
            f"{Path(index.path).name} ({number(total)} frames, {rate(index)}, "
            f"{measured[0].maps.width} × {measured[0].maps.height} px)"
        )
    rates = sorted({f"{m.index.frame_rate:.6g}" for m in measured})
    return f"{len(measured)} videos ({number(total)} frames at {', '.join(rates)} frames/s)"
