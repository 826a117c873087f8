"""A classifier of low-resolution clips: a resizer in front of an I3D, and the one file that holds both.

In: a `Design` and weights, or clips (n, channels, frames, side_in, side_in) in [-1, 1]. Out: a score for every class,
before the sigmoid, or the vector that the scores are made of. Knows no video and no training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import BadInput, UsageError
from ..weights import cache, checkpoints, formats, synthetic
from ..weights.assets import ASSETS
from . import bilinear
from .design import Design
from .i3d import I3D, weights_of
from .resizer import Resizer, told_by

FORMAT = "streamsal classifier 1"


class Classifier(nn.Module):
    """`dropout`: share of the features that is dropped before the scores, in training."""

    def __init__(self, design: Design, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.design = design
        self.resizer = Resizer.of(design)
        self.i3d = I3D(
            len(design.classes),
            frames=design.frames,
            pool_early=design.pool_early,
            channels=design.channels,
            width=design.width,
            dropout=dropout,
        )

    def forward(self, clips_ncthw: Tensor) -> Tensor:
        """(n, classes), before the sigmoid: the mean over the positions of I3D's scores."""
        return self.i3d(self.resizer(clips_ncthw))

    def features(self, clips_ncthw: Tensor) -> Tensor:
        """(n, 1024 width): the mean over the positions of I3D's features."""
        return self.i3d.features(self.resizer(clips_ncthw)).mean((2, 3, 4))

    def logits_of(self, features: Tensor) -> Tensor:
        """(..., 1024 width) -> (..., classes): what `forward` gives, if nothing is dropped."""
        projection = self.i3d.logits.conv3d
        return functional.linear(features, projection.weight.flatten(1), projection.bias)

    def resized(self, clips_ncthw: Tensor) -> Tensor:
        """(n, channels, frames, side, side): what I3D sees, around [-1, 1]."""
        return self.resizer(clips_ncthw)

    def thetas(self, clips_ncthw: Tensor) -> Tensor | None:
        """(n frames, 2, 3): through which part of its picture a transformer sees each frame; None without one."""
        return self.resizer.thetas(clips_ncthw)


def prepared(frames_nhwc: Tensor, design: Design, size: tuple[int, int] | None = None) -> Tensor:
    """Frames of bytes, of any size, as the resizer wants them: (n, 3, side_in, side_in) in [-1, 1], where they are.

    `size` is the height and width of whole frames where these are `bilinear.thinned` for side_in; the bits are the
    same. Raises UsageError for a design of flow, which pictures are not.
    """
    if design.channels != 3:
        raise UsageError("this classifier takes optical flow, not pictures")
    frames = bilinear.squares(frames_nhwc, design.side_in, size)
    return (frames.flip(1) if design.colors == "bgr" else frames) / 255 * 2 - 1


def save(path: Path, classifier: Classifier, **facts: Any) -> None:
    """Writes the classifier's file, with any further facts that are plain values. Raises WriteError."""
    weights = {key: value.detach().cpu() for key, value in classifier.state_dict().items()}
    found = {"format": FORMAT, "design": classifier.design.to_dict(), "weights": weights, **facts}
    checkpoints.write(path, found)


def load(source: str | Path | Mapping[str, Any], design: Design | None = None) -> Classifier:
    """The classifier in a file, or in what such a file holds, or "synthetic": stand-ins for a design; in eval mode.

    Raises BadInput for another file, MissingInput where there is none.
    """
    if isinstance(source, str) and source == cache.SYNTHETIC:
        if design is None:
            raise UsageError("a classifier with stand-in weights needs a design")
        weights = synthetic.state_dict(template(design))
    else:
        found, where = _found(source)
        design = _design_in(found, where)
        if not isinstance(source, Mapping):
            formats.check_intact(Path(source))
        weights = checkpoints.fitted("the design beside it", found["weights"], template(design), where)
        if broken := [key for key, value in weights.items() if not value.isfinite().all()]:
            raise BadInput(f"{where} is of a training that went astray: {broken[0]} holds values that are no numbers")
    classifier = Classifier(design)
    classifier.load_state_dict(weights)
    return classifier.eval()


def begin_with(classifier: Classifier, weights: str | Path, say: Callable[[str], None]) -> None:
    """Fills a new classifier from the file of another, or of an I3D of either layout, or from a published I3D by name.

    What the file has not keeps its values: the logits of other classes, a resizer of another design. `say` is told.
    Raises MissingWeights, MissingInput, and BadInput for another network, or an I3D of another width.
    """
    path = cache.find(weights) if isinstance(weights, str) and weights in ASSETS else Path(weights)
    found = checkpoints.read(path)
    if "format" in found:
        formats.check_intact(path)
        classes, own = _design_in(found, str(path)).classes, classifier.design.classes
        entries, resizer = _part(found["weights"], "i3d."), _part(found["weights"], "resizer.")
    else:
        entries, resizer = weights_of(found, str(path)), {}
        classes, own = len(entries["logits.conv3d.weight"]), len(classifier.design.classes)
    if classes != own:
        say(f"{path.name} knows other classes: the logits begin anew")
        entries |= {key: value for key, value in classifier.i3d.state_dict().items() if key.startswith("logits.")}
    _fill(classifier.i3d, "the I3D of this design", entries, str(path))
    wanted = classifier.resizer.state_dict()
    if {key: value.shape for key, value in resizer.items()} == {key: value.shape for key, value in wanted.items()}:
        classifier.resizer.load_state_dict(resizer)
    else:
        say(f"{path.name} has no resizer of this design: it begins anew")


def design_of_pair(
    i3d: Path,
    resizer: Path | None = None,
    *,
    classes: Sequence[str] = (),
    side_in: int = 56,
    side: int = 112,
    read: int | None = None,
    apply: int | None = None,
    natural: bool = False,
    **fields: Any,
) -> Design:
    """The design that two such files are of: what their shapes tell, and what is given.

    `classes`: their names; without, they are called by their numbers. `natural`: trained on frames in their order, in
    RGB, and warped frame by frame; else as that program did. An I3D alone sees clips as they are. Raises UsageError
    where shapes contradict what is given, or a tap is neither told nor given; BadInput and MissingInput for a file.
    """
    weights = weights_of(checkpoints.read(i3d), str(i3d))
    first, last = weights["Conv3d_1a_7x7.conv3d.weight"], weights["logits.conv3d.weight"]
    if classes and len(classes) != len(last):
        raise UsageError(f"{i3d} knows {len(last)} classes, not {len(classes)}: give their names in its order")
    told: dict[str, Any] = {
        "classes": tuple(classes) or tuple(map(str, range(len(last)))),
        "width": len(first) / 64,
        "channels": first.shape[1],
        "side_in": side_in,
        "side": side,
        **({} if natural else {"colors": "bgr", "order": "legacy"}),
    }
    if resizer is None:
        return Design(**{**told, "resizer": "none", "side_in": side}, **fields)
    found = checkpoints.bare(checkpoints.read(resizer))
    if "c1.conv3d.weight" not in found:
        raise BadInput(f"{resizer} is no resizer of clips: it is {checkpoints.identity(found) or 'something unknown'}")
    told |= told_by(found, side_in=side_in, side=side)
    reads = told.pop("reads")
    if told["resizer"] == "transformer":
        told |= {"legacy_layout": not natural} | _taps(resizer, reads, read, apply)
    elif (read, apply) != (None, None):
        raise UsageError(f"{resizer} has no transformer: leave --read and --apply out")
    return Design(**told, **fields)


def _taps(resizer: Path, reads: Sequence[int], read: int | None, apply: int | None) -> dict[str, int]:
    able = f"{resizer} can read at {' or '.join(map(str, reads)) or 'no tap for these sides'}"
    if not reads or read not in (None, *reads) or (read is None and len(reads) > 1):
        raise UsageError(f"{able}: say with --read, --side-in and --side how it was trained")
    if apply is None:
        raise UsageError(f"{resizer} does not tell at which tap it warps: say so with --apply")
    return {"read": reads[0] if read is None else read, "apply": apply}


def read_pair(i3d: Path, resizer: Path | None, design: Design) -> Classifier:
    """The classifier in the two files that the program of 2022 wrote, in eval mode; None for the resizer "none".

    Raises BadInput where a file is not of this design, MissingInput, and UsageError for a design without its file.
    """
    if (resizer is None) != (design.resizer == "none"):
        what = "has no resizer" if resizer else "needs the file of its resizer"
        raise UsageError(f"this design (resizer {design.resizer!r}) {what}")
    classifier = Classifier(design)
    _fill(classifier.i3d, "the I3D of this design", weights_of(checkpoints.read(i3d), str(i3d)), str(i3d))
    if resizer is not None:
        found = checkpoints.bare(checkpoints.read(resizer))
        _fill(classifier.resizer, "the resizer of this design", found, str(resizer))
    return classifier.eval()


def write_pair(classifier: Classifier, prefix: str | Path) -> list[Path]:
    """Writes the files PREFIX_i3d.pt and, if there is one, PREFIX_resizer.pt for that program. Raises WriteError."""
    i3d = {key if key.startswith("logits.") else f"model.{key}": x for key, x in classifier.i3d.state_dict().items()}
    parts = {"i3d": i3d, "resizer": dict(classifier.resizer.state_dict())}
    written = []
    for name, weights in parts.items():
        if weights:
            written.append(Path(f"{prefix}_{name}.pt"))
            checkpoints.write(written[-1], {key: value.cpu() for key, value in weights.items()})
    return written


def design_of(source: str | Path | Mapping[str, Any]) -> Design:
    """The design in a classifier's file, or in what such a file holds. Raises BadInput, MissingInput."""
    return _design_in(*_found(source))


def template(design: Design) -> dict[str, Tensor]:
    """Every entry of the weights, as meta tensors."""
    with torch.device("meta"):
        return Classifier(design).state_dict()


def _found(source: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    if isinstance(source, Mapping):
        return source, "the mapping given as a classifier"
    return checkpoints.read(Path(source)), str(source)


def _fill(part: nn.Module, name: str, found: Mapping[str, Any], where: str) -> None:
    part.load_state_dict(checkpoints.fitted(name, found, part.state_dict(), where))


def _part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _design_in(found: Mapping[str, Any], where: str) -> Design:
    if found.get("format") != FORMAT or not isinstance(found.get("weights"), Mapping):
        what = checkpoints.identity(found) or f"something unknown ({len(found)} entries)"
        raise BadInput(f"{where} is no classifier of clips: it is {what}")
    try:
        return Design.from_dict(found.get("design"))
    except BadInput as error:
        raise BadInput(f"{where} holds no design of a classifier: {error}") from error
