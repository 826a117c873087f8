"""What does exact reading cost beside plain decoding?

Measured: seconds per frame to read a whole 1080p film by frame number (packet index, a tag and a checksum for every
packet, the decoder reset at each entry point) and to decode it with PyAV from the first frame to the last, both with
the same conversion to RGB into one buffer. Once on one thread; once on two cores, two runs decoded at once beside
PyAV's frame threads (which are faster, but conceal damage differently from run to run, so they are not used). A ratio
is our speed divided by PyAV's, the median over the rounds.

    python benchmarks/decode.py [--seconds 24] [--rounds 7] [-o results/decode.json]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from clips import clip
from measure import Report, arguments, interleaved, median, ratio, rounded, table

from streamsal.color import RgbConverter
from streamsal.decode import VideoReader
from streamsal.index import VideoIndex, index_video

ONE_THREAD, TWO_CORES = 0.95, 0.9


def converter(index: VideoIndex, rgb: bool) -> Callable[[av.VideoFrame], object]:
    """To RGB into one buffer, as the engine does it; or nothing."""
    if not rgb:
        return lambda picture: None
    convert = RgbConverter(display_matrix=index.display_matrix, size=(index.display_height, index.display_width))
    buffer = np.empty((index.display_height, index.display_width, 3), np.uint8)
    return lambda picture: convert(picture, out=buffer)


def read(index: VideoIndex, *, workers: int, rgb: bool) -> None:
    convert, n_read = converter(index, rgb), 0
    with VideoReader(index, workers=workers) as reader:
        for frame in reader.read(range(index.n_frames)):
            assert frame.picture is not None
            convert(frame.picture)
            n_read += 1
    assert n_read == index.n_frames


def plain(index: VideoIndex, *, threads: int, thread_type: str, rgb: bool) -> None:
    convert, n_read = converter(index, rgb), 0
    with av.open(index.path) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = thread_type, threads
        for picture in container.decode(stream):
            convert(picture)
            n_read += 1
    assert n_read == index.n_frames


def main() -> None:
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--seconds", type=float, default=24, help="length of the film (default: 24)")
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    options = parser.parse_args()

    path: Path = clip(options.work_dir, seconds=options.seconds, width=options.width, height=options.height)
    index = index_video(path)
    report = Report(benchmark="decode", options=options)
    samples = {}
    for rgb, what in ((True, "decode and convert"), (False, "decode only")):
        cases = {
            f"{what}, 1 thread, streamsal": lambda rgb=rgb: read(index, workers=1, rgb=rgb),
            f"{what}, 1 thread, PyAV": lambda rgb=rgb: plain(index, threads=1, thread_type="SLICE", rgb=rgb),
            f"{what}, 2 cores, streamsal": lambda rgb=rgb: read(index, workers=2, rgb=rgb),
            f"{what}, 2 cores, PyAV": lambda rgb=rgb: plain(index, threads=2, thread_type="FRAME", rgb=rgb),
        }
        samples |= interleaved(cases, options.rounds)
    speed, cpu_speed = (
        {
            name.removesuffix(", streamsal"): ratio(samples[name.replace("streamsal", "PyAV")], found, of)
            for name, found in samples.items()
            if name.endswith("streamsal")
        }
        for of in ("wall", "cpu")
    )
    print(f"{index.n_frames} frames {index.display_width}x{index.display_height}, {len(index.entry_frame)} runs\n")
    rows = [
        [name, f"{1000 * median(found) / index.n_frames:.2f}", f"{1000 * median(found, 'cpu') / index.n_frames:.2f}"]
        for name, found in samples.items()
    ]
    table(["milliseconds per frame", "wall", "cpu"], rows)
    table(
        ["speed, streamsal / PyAV", "wall", "cpu"],
        [[name, f"{value:.3f}", f"{cpu_speed[name]:.3f}"] for name, value in speed.items()],
    )
    report.finish(
        targets={
            "speed on one thread": (speed["decode and convert, 1 thread"], ">=", ONE_THREAD),
            "speed on two cores": (speed["decode and convert, 2 cores"], ">=", TWO_CORES),
        },
        frames=index.n_frames,
        runs=len(index.entry_frame),
        seconds_per_frame=rounded(samples, per=index.n_frames),
        speed_ratio={name: round(value, 4) for name, value in speed.items()},
        speed_ratio_cpu={name: round(value, 4) for name, value in cpu_speed.items()},
    )


if __name__ == "__main__":
    main()
