"""Pictures of a training and of what came of it, for a person to look at: PNG files.

In flow lines of a log, scores, predictions, frames before and after a resizer. Draws, and computes nothing that is not
in the picture alone. Colors are Okabe and Ito's (2002), which stay apart for every kind of color vision.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, MissingInput, UsageError
from ..extras import need
from ..files import write_bytes
from .log import read_log
from .predictions import Predictions
from .scores import Scores

BLUE, ORANGE, GREEN, VERMILION, GRAY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8C8C8C"
PALE = "#DDDDDD"
DPI = 150
CURVES = {"f1_macro": ("F1 macro", BLUE, "o"), "f1_micro": ("F1 micro", ORANGE, "s"), "map": ("mAP", GREEN, "^")}
CELLS_WITH_NUMBERS = 30  # classes up to which a number fits into a cell of the table of mistakes


def plot_classes(scores: Scores, path: Path, *, tuned: Scores | None = None) -> Path:
    """Bars of each class's F1, the classes with most clips on top; dots where thresholds were tuned."""
    order = np.argsort(-scores.support, kind="stable")
    rows = np.arange(len(order))
    figure = _figure(7.5, 1.6 + 0.26 * len(order))
    axes = figure.subplots()
    known = np.where(scores.support > 0, 1.0, np.nan)[order]
    axes.barh(rows, scores.f1[order] * known, height=0.7, color=BLUE, label=_with_macro(_threshold(scores), scores))
    if tuned is not None:
        label = _with_macro("thresholds tuned on validation", tuned)
        axes.plot(tuned.f1[order] * known, rows, "o", color=ORANGE, markeredgecolor="black", markersize=5, label=label)
    for row, n in zip(rows, scores.support[order], strict=True):
        axes.text(1.02, row, f"{n}", va="center", ha="left", color=GRAY if n else VERMILION, fontsize=8)
    axes.text(1.02, -1, "clips", va="center", ha="left", color=GRAY, fontsize=8)
    axes.set(xlim=(0, 1), ylim=(len(order) - 0.4, -0.6), xlabel="F1")
    axes.set_yticks(rows, [_legible(scores.classes[k]) for k in order], fontsize=8)
    axes.grid(axis="x", color=PALE)
    axes.set_title(f"How well each class is seen, in {scores.clips} clips", loc="left")
    _plain(axes)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return _written(figure, path)


def plot_mistakes(predictions: Predictions, scores: Scores, path: Path) -> Path:
    """A table: of the clips that show the class of a row, in how many the class of a column is seen.

    On the diagonal in blue what is right; beside it in orange classes that are seen and not labeled, so that clips
    which show both count as no mistake.
    """
    if predictions.targets is None:
        raise UsageError("clips without labels have no mistakes to draw: name a manifest with labels")
    target, seen = predictions.targets.astype(float), predictions.seen(scores.threshold).astype(float)
    wrong = seen * (1 - target)
    share = target.T @ wrong
    np.fill_diagonal(share, (target * seen).sum(0))
    share /= np.maximum(scores.support, 1)[:, None]
    n, names = len(scores.classes), [_legible(name) for name in scores.classes]

    longest = max(map(len, names))  # of letters 0.07 inches wide, in columns at an angle
    figure = _figure(max(1.6 + 0.07 * longest + 0.34 * n, 6), 1.6 + 0.06 * longest + 0.3 * n)
    axes = figure.subplots()
    axes.imshow(_two_hues(share, scores.support > 0), aspect="auto")
    if n <= CELLS_WITH_NUMBERS:
        for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
            dark = share[row, column] > 0.6
            text = f"{100 * share[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_xticks(range(n), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(n), [f"{name} ({k})" for name, k in zip(names, scores.support, strict=True)], fontsize=8)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="seen by the classifier", ylabel="labeled (clips)")
    axes.set_title(
        "Of the clips that show a class: percent in which it is seen (blue),\n"
        "and in which another class is seen that is not labeled (orange)",
        loc="left",
    )
    _plain(axes)
    return _written(figure, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Frames of one clip as RGB around [-1, 1]: what the resizer got, what it made of it, what bilinear would have."""

    title: str
    before_thwc: NDArray[np.float32]
    after_thwc: NDArray[np.float32]
    bilinear_thwc: NDArray[np.float32]


def plot_resized(strips: Sequence[Strip], path: Path, *, shown: int = 6) -> Path:
    """Three rows per clip: its frames, those the resizer makes of them, and how these differ from bilinear ones.

    A resizer's values have no bounds, so its frames are stretched between their 1st and 99th percentile.
    """
    columns = min(shown, *(len(strip.before_thwc) for strip in strips))
    figure = _figure(1.3 * columns + 1.6, 4.4 * len(strips))
    for part, strip in zip(figure.subfigures(len(strips), squeeze=False)[:, 0], strips, strict=True):
        part.suptitle(_legible(strip.title, 100), x=0.01, ha="left", fontsize=10)
        picked = np.linspace(0, len(strip.before_thwc) - 1, columns).round().astype(int)
        before, after = strip.before_thwc[picked], strip.after_thwc[picked]
        low, high = np.percentile(after, (1, 99))
        change = (after - strip.bilinear_thwc[picked]).mean(-1)
        most = max(float(np.percentile(np.abs(change), 99)), 1e-6)
        rows = [
            (f"given\n{before.shape[1]} px", (before + 1) / 2, {"interpolation": "nearest"}),
            (f"resized, {after.shape[1]} px\n{low:.1f} to {high:.1f}", (after - low) / max(high - low, 1e-6), {}),
            ("resized\nminus bilinear", change, {"cmap": "PuOr_r", "vmin": -most, "vmax": most}),
        ]
        axes = part.subplots(len(rows), columns, squeeze=False)
        for row, (name, frames, options) in enumerate(rows):
            for column, frame in enumerate(picked):
                one = axes[row, column]
                drawn = frames[column] if options.get("cmap") else np.clip(frames[column], 0, 1)
                one.imshow(drawn, **options)
                one.set(xticks=[], yticks=[])
                one.spines[:].set_visible(False)
                if row == 0:
                    one.set_title(f"frame {frame}", fontsize=8, color=GRAY)
            axes[row, 0].set_ylabel(name, fontsize=8)
        scale = axes[-1, -1].inset_axes((1.06, 0, 0.06, 1))
        part.colorbar(axes[-1, -1].images[0], cax=scale).ax.tick_params(labelsize=7)
    return _written(figure, path)


def plot_log(log: Path, path: Path) -> Path:
    """Loss of training and validation above, scores of validation below, over epochs; the best epoch is marked.

    `log`: log.jsonl of a training. Raises MissingInput, BadInput where it holds nothing yet.
    """
    steps, epochs = _lines_of(log)
    per_epoch = epochs[-1]["step"] / epochs[-1]["epoch"] if epochs else 1
    ends, validated = [line["epoch"] for line in epochs], [line["validation"] for line in epochs]
    figure = _figure(7.5, 5.5)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot([line["step"] / per_epoch for line in steps], [line["loss"] for line in steps], c=GRAY, label="training")
    if epochs:
        above.plot(ends, [each["loss"] for each in validated], "D-", c=VERMILION, markersize=4, label="validation")
        for name, (label, color, marker) in CURVES.items():
            below.plot(ends, [each[name] for each in validated], f"{marker}-", c=color, markersize=4, label=label)
    above.legend(frameon=False, fontsize=9)
    above.set(ylabel="loss")
    above.set_title("Loss and scores of a training", loc="left")
    best = [line["epoch"] for line in epochs if line["best"]]
    for one in (above, below):
        if best:
            one.axvline(best[-1], color="black", linestyle=":", label=f"best epoch: {best[-1]}")
        _plain(one)
        one.grid(color=PALE)
    below.set(ylim=(0, 1), ylabel="score on validation", xlabel="epochs" if epochs else "steps")
    below.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = below.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return _written(figure, path)


def _lines_of(log: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines of steps, lines of epochs."""
    if not log.is_file():
        raise MissingInput(f"{log} is not there: name the log.jsonl of a training")
    lines = read_log(log)
    if not lines:
        raise BadInput(f"{log} is no log of a training, or an empty one: train first")
    return [line for line in lines if "loss" in line], [line for line in lines if "validation" in line]


def _two_hues(share: NDArray[np.floating], known: NDArray[np.bool_]) -> NDArray[np.floating]:
    """(n, n, 3): white to blue on the diagonal, white to orange elsewhere; gray rows for classes without a clip."""
    white = np.ones(3)
    right, wrong = (np.array([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]) for color in (BLUE, VERMILION))
    hue = np.where(np.eye(len(share), dtype=bool)[..., None], right, wrong)
    colors = 0.97 * white + share[..., None] * (hue - 0.97 * white)
    return np.where(known[:, None, None], colors, 0.85)


def _with_macro(label: str, scores: Scores) -> str:
    return f"{label}: mean {scores.f1_macro:.3f}"


def _legible(name: str, most: int = 40) -> str:
    """As matplotlib shows it letter by letter: between two dollars it would read a formula."""
    shown = name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 + 1 :]}"
    return shown.replace("$", r"\$")


def _threshold(scores: Scores) -> str:
    one = np.unique(scores.threshold)
    return f"threshold {one[0]:g}" if len(one) == 1 else "thresholds of each class"


def _figure(width: float, height: float) -> Any:
    """In inches. Raises UsageError without matplotlib."""
    need("train", "drawing", "matplotlib")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")  # not pyplot, which keeps figures alive


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.title.set_fontsize(11)


def _written(figure: Any, path: Path) -> Path:
    whole = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # a box is drawn
        figure.savefig(whole, format="png", metadata={"Software": None})
    write_bytes(path, whole.getvalue())
    return path
