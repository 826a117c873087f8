"""Checkpoints of Caffe2: pickles of Python 2 with NumPy arrays in them, read without running code.

In: a path. Out: the blobs, tensors by name. A pickle can name any function to be called; the few names that arrays
need are answered by stand-ins of this module, not even by NumPy's own, and every other name is refused.
"""

from __future__ import annotations

import collections
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import BadInput, MissingInput
from . import formats

NUMBERS = re.compile(r"f[248]|[iu][1248]|b1")


class _NumberType:
    """numpy.dtype: a code such as f4, and then the byte order."""

    def __init__(self, code: str, *_: object) -> None:
        if not NUMBERS.fullmatch(code):
            raise pickle.UnpicklingError(f"values of type {code!r}, which are no numbers")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="


class _Array:
    """numpy.ndarray: made empty, and then given its shape, type of numbers and bytes."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *_, shape, numbers, fortran, data = state
        raw = np.frombuffer(_latin1(data), dtype=f"{numbers.order}{numbers.code}")
        array = raw.reshape(shape, order="F" if fortran else "C")
        self.tensor = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _empty(*_: object) -> _Array:
    return _Array()


def _scalar(numbers: _NumberType, data: str | bytes) -> _Array:
    number = _Array()
    number.__setstate__(((), numbers, False, data))
    return number


def _latin1(data: str | bytes, *_: object) -> bytes:
    """The bytes of Python 2's str, which arrive as characters of the same numbers."""
    return data.encode("latin1") if isinstance(data, str) else data


ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "_reconstruct"): _empty,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "_reconstruct"): _empty,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _latin1,
}


class _Refused(pickle.UnpicklingError):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in ADMITTED:
            raise _Refused(f"{module_name}.{global_name}")
        return ADMITTED[module_name, global_name]


def read(path: Path) -> dict[str, Any]:
    """The blobs of a checkpoint: tensors, and other values as they are. Raises BadInput, MissingInput."""
    try:
        with path.open("rb") as file:
            found = _Unpickler(file, encoding="latin1").load()
    except _Refused as error:
        raise BadInput(
            f"{path} is a pickle that names {error}, and that is not loaded, because it could run code"
        ) from error
    except OSError as error:
        raise MissingInput(f"{path} cannot be read ({error.strerror}): name a file that exists") from error
    except Exception as error:  # a pickle whose bytes are wrong can raise anything
        raise formats.damaged(path, error) from error
    blobs = found.get("blobs") if isinstance(found, Mapping) else None
    if not isinstance(blobs, Mapping):
        raise BadInput(f"{path} is a pickle without the blobs of a Caffe2 checkpoint: is it the right file?")
    return {str(name): blob.tensor if isinstance(blob, _Array) else blob for name, blob in blobs.items()}
