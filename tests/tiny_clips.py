"""Labeled clips that are drawn and encoded in a blink, and settings with which a classifier learns them in seconds."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

CLASSES = ("down", "right")
SETTINGS = """
[data]
train = "clips.csv"
validation = 0.4
workers = 0
[model]
frames = 8
side_in = 14
side = 28
width = 0.0625
[train]
epochs = 2
batch = 2
accumulate = 2
every = 1
seed = 3
[test]
batch = 2
"""


def write_clips(folder: Path, n: int = 10) -> Path:
    """`n` clips of a bright bar that moves down or to the right, clips.csv, and config.toml, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,labels,scene"]
    for number in range(n):
        label = CLASSES[number % 2]
        _encode(folder / f"{number}.mkv", _frames(label, number))
        lines.append(f"{number}.mkv,{label},scene{number // 2}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.toml").write_text(SETTINGS)
    return folder / "config.toml"


def _frames(label: str, number: int) -> np.ndarray:
    frames = np.full((10 + number % 3, 16, 16, 3), 40, np.uint8)
    for k, frame in enumerate(frames):
        at = (k + number) % 14
        bar = frame[at : at + 3] if label == "down" else frame[:, at : at + 3]
        bar[:] = 220
    return frames


def _encode(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv444p"
        for rgb in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        container.mux(stream.encode(None))
