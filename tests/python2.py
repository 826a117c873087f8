"""Files as Python 2 wrote them: text and bytes are one type, and arrays carry their numbers in it."""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Mapping

import numpy as np


def pickled(value: object) -> bytes:
    return b"\x80\x02" + _written(value) + b"."


def torch_file(legacy: bytes) -> bytes:
    """A file that torch.save wrote in the format of before 1.6, with its text as Python 2 has it."""
    file, written = io.BytesIO(legacy), b""
    for _ in range(5):  # the magic number, the version, the machine, the dictionary and the names of its storages
        start = file.tell()
        ops = [*pickletools.genops(file)]
        ends = [*(position for _, _, position in ops[1:]), file.tell()]
        for (op, argument, position), end in zip(ops, ends, strict=True):
            written += _written(argument) if op.name == "BINUNICODE" else legacy[position:end]
        assert ops[0][2] == start
    return written + legacy[file.tell() :]


def _written(value: object) -> bytes:
    if isinstance(value, Mapping):
        return b"}(" + b"".join(_written(key) + _written(inner) for key, inner in value.items()) + b"u"
    if isinstance(value, str | bytes):
        data = value.encode("latin1") if isinstance(value, str) else value
        return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, np.generic):
        return b"cnumpy.core.multiarray\nscalar\n" + _numbers(value.dtype) + _written(value.tobytes()) + b"\x86R"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    raise TypeError(type(value))


def _array(array: np.ndarray) -> bytes:
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _written("b") + b"\x87R"
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    shape = b"(" + b"".join(map(_written, array.shape)) + b"t"
    order = b"\x88" if fortran else b"\x89"
    data = _written(array.tobytes("F" if fortran else "C"))
    return made + b"(" + _written(1) + shape + _numbers(array.dtype) + order + data + b"tb"


def _numbers(dtype: np.dtype) -> bytes:
    made = b"cnumpy\ndtype\n" + _written(dtype.str[1:]) + b"K\x00K\x01\x87R"
    return made + b"(" + _written(3) + _written(dtype.str[0]) + b"NNN" + _written(-1) * 2 + _written(0) + b"tb"
