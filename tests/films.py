"""Films for tests, and ways to damage them. Every frame has its number drawn into it for the tell-tale model."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from telltale import draw_number

HEIGHT, WIDTH = 64, 96


def write_film(path: Path, n_frames: int, *, codec: str = "libx264", size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """A film of numbered frames at 25 per second; a key frame every 12, two B-frames where the codec has them."""
    options = {"crf": "12", "g": "12", "bf": "2", "sc_threshold": "0", "threads": "1"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(n_frames):
            picture = np.full((*size, 3), 90, np.uint8)
            draw_number(picture, number)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def destroy_packets(path: Path, numbers: list[int]) -> None:
    """Overwrite the data of these packets; in a film of independent pictures each becomes a hole."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for number in numbers:
        position, size = places[number]
        overwrite(path, position, b"\x55" * size)


def overwrite(path: Path, position: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)
