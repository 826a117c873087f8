"""What a classifier says of labeled clips, and the files that hold it.

In flow one row of scores per clip, out come predictions.h5 and the files that other programs want of it. Knows neither
networks nor scores of scores: a class is seen in a clip where its probability reaches a threshold.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import __version__
from ..errors import BadInput, MissingInput
from ..files import make_folder, write_bytes
from ..layout import H5

FORMAT = "streamsal predictions 1"
NPY = ("predictions", "actuals", "logits", "confusion")  # files of the program of 2022 that this replaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Rows are clips in the order of their manifest, columns are classes.

    ids             of the clips, as in the manifest
    targets         uint8 (n, C), 1 where a class was labeled; None where nothing was
    logits          float32 (n, C)
    probabilities   float32 (n, C), sigmoid of the logits
    facts           what else the file says: model, settings
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    targets: NDArray[np.uint8] | None = field(repr=False)
    logits: NDArray[np.float32] = field(repr=False)
    probabilities: NDArray[np.float32] = field(repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        shape = (len(self.ids), len(self.classes))
        for name in ("targets", "logits", "probabilities"):
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"{name} of {array.shape}: ids and classes ask for {shape}")

    def seen(self, thresholds: ArrayLike) -> NDArray[np.uint8]:
        """(n, C), 1 where a probability is at least its threshold: one number, or one for each class.

        Both are compared as float32: 0.7 is more in float64 than the probability 0.7 in float32 is.
        """
        return (self.probabilities >= np.asarray(thresholds, np.float32)).astype(np.uint8)

    def save(self, path: str | Path) -> Path:
        """Write predictions.h5: a dataset for each field, `facts` as an attribute in JSON.

        The file appears whole. Raises WriteError.
        """
        path, whole = Path(path), io.BytesIO()
        with h5py.File(whole, "w") as h5:
            h5.attrs.update({"format": FORMAT, "version": __version__, "facts": json.dumps(dict(self.facts))})
            h5.create_dataset("classes", data=np.array(self.classes, h5py.string_dtype()))
            h5.create_dataset("ids", data=np.array(self.ids, h5py.string_dtype()))
            for name in ("targets", "logits", "probabilities"):
                if getattr(self, name) is not None:
                    h5.create_dataset(name, data=getattr(self, name))
        make_folder(path.parent)
        write_bytes(path, whole.getvalue())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Raises MissingInput, BadInput."""
        try:
            with h5py.File(path) as h5:
                if h5.attrs.get("format") != FORMAT:
                    raise BadInput(f"{path} holds no predictions of this program: name a predictions.h5")
                return _read(h5)
        except FileNotFoundError:
            raise MissingInput(f"{path} is not there: name a predictions.h5") from None
        except (OSError, KeyError) as error:
            raise BadInput(f"{path} cannot be read as predictions ({error}): make it anew") from None


def _read(h5: H5) -> Predictions:
    return Predictions(
        classes=tuple(h5["classes"].asstr()[:]),
        ids=tuple(h5["ids"].asstr()[:]),
        targets=h5["targets"][:] if "targets" in h5 else None,
        logits=h5["logits"][:],
        probabilities=h5["probabilities"][:],
        facts=json.loads(h5.attrs["facts"]),
    )


def write_npy(
    folder: str | Path, predictions: Predictions, seen: NDArray[np.uint8], confusion: NDArray[np.int64] | None
) -> list[Path]:
    """Write the four files `NPY`, for notebooks that read them.

    predictions.npy and actuals.npy (n, C) are 0 and 1, confusion.npy is (C, 2, 2): [[TN, FP], [FN, TP]]. logits.npy
    (n, C) holds probabilities: so it did there, whatever its name says. Clips without labels have only two of them.
    """
    folder = make_folder(folder)
    arrays = {"predictions": seen.astype(np.int64), "logits": predictions.probabilities}
    if predictions.targets is not None and confusion is not None:
        arrays |= {"actuals": predictions.targets.astype(np.int64), "confusion": confusion}
    for name, array in arrays.items():
        whole = io.BytesIO()
        np.save(whole, array)
        write_bytes(folder / f"{name}.npy", whole.getvalue())
    return [folder / f"{name}.npy" for name in arrays]


def write_answer(path: str | Path, predictions: Predictions, seen: NDArray[np.uint8]) -> Path:
    """Write what the TinyAction challenge wants: a line "00000 0 1 0 ..." per clip, in the order of the manifest.

    The first number is the clip's id with five digits; where ids are no numbers, it is that of the row.
    """
    numbers = (
        predictions.ids if all(id.isdecimal() for id in predictions.ids) else map(str, range(len(predictions.ids)))
    )
    lines = (" ".join([number.zfill(5), *map(str, row)]) for number, row in zip(numbers, seen, strict=True))
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    return Path(path)
