"""Pictures as PNG files: an array in, bytes out."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_GRAY, _RGB = 0, 2  # color types
_UP = 2  # filter: every row is stored as its difference to the one above


def encode_png(samples: np.ndarray) -> bytes:
    """(H, W) uint16 as 16-bit gray, (H, W, 3) uint8 as RGB."""
    if samples.dtype != (np.uint8 if samples.ndim == 3 else np.uint16):
        raise TypeError(f"{samples.dtype = } with {samples.ndim} axes is neither 16-bit gray nor 8-bit RGB")
    height, width = samples.shape[:2]
    rows = np.ascontiguousarray(samples.astype(samples.dtype.newbyteorder(">"))).view(np.uint8).reshape(height, -1)
    filtered = np.full((height, rows.shape[1] + 1), _UP, np.uint8)
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros((1, rows.shape[1]), np.uint8))
    depth, color = 8 * samples.itemsize, _RGB if samples.ndim == 3 else _GRAY
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), 3)
    return b"\x89PNG\r\n\x1a\n" + _block(b"IHDR", header) + _block(b"IDAT", data) + _block(b"IEND", b"")


def _block(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
