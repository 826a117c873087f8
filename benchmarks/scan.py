"""What does the packet index cost beside bare reading?

Measured: seconds per packet of `index_video` with the decoder left out, and of a bare demux of the same stream with a
CRC-32 of each packet, in turns, file cache warm. What the proofs of entry points add (decoding a few packets at each)
is reported apart: a plan pays them once, tasks load the index. All read a long film, whose packets are those of the
sample clip over and over. The ratio is ours divided by the bare one, the median over the rounds.

    python benchmarks/scan.py [--frames 20000] [--rounds 7] [-o results/scan.json]
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import av
from av.stream import Discard
from clips import long_clip
from measure import Report, Sample, arguments, interleaved, median, now, ratio, rounded, table

import streamsal.scan
from streamsal.index import VideoIndex, index_video

RATIO = 1.3


def bare(path: Path) -> None:
    with av.open(path) as container:
        stream = container.streams.video[0]
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all
        for packet in container.demux(stream):
            zlib.crc32(memoryview(packet))


class FirstProofOnly(streamsal.scan._Prover):
    """Looks at every packet, and decodes at the first one alone, without which there is no index."""

    spent = Sample(wall=0, cpu=0)

    def feed(self, packet: av.Packet, number: int, **facts: bool) -> None:
        if number and self._candidate is None:
            super().feed(packet, number, **facts)
            return
        start = now()
        super().feed(packet, number, **facts)
        FirstProofOnly.spent += now() - start

    def finish(self) -> None:
        super().finish()
        self._spacing = sys.maxsize


def index_without_proofs(path: Path) -> Sample:
    """`index_video` without further proofs, less what was spent on the first.

    The proofs are left out rather than timed: after each of them the packets that follow are read with cold caches.
    """
    prover, streamsal.scan._Prover = streamsal.scan._Prover, FirstProofOnly
    FirstProofOnly.spent = Sample(wall=0, cpu=0)
    start = now()
    try:
        index_video(path)
    finally:
        streamsal.scan._Prover = prover
    return now() - start - FirstProofOnly.spent


def main() -> None:
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--frames", type=int, default=20000, help="length of the film (default: 20000)")
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    options = parser.parse_args()

    path = long_clip(options.work_dir, frames=options.frames, width=options.width, height=options.height)
    sidecar = options.work_dir / "scan.npz"
    index = index_video(path)
    index.save(sidecar)
    report = Report(benchmark="scan", options=options)
    cases = {
        "index without proofs": lambda: index_without_proofs(path),
        "demux and CRC-32": lambda: bare(path),
        "index with proofs": lambda: index_video(path),
        "loading a saved index": lambda: VideoIndex.load(sidecar).check_unchanged(),
    }
    names = list(cases)
    samples = interleaved(cases, options.rounds)
    with_proofs, without = samples["index with proofs"], samples["index without proofs"]
    samples["entry proofs"] = [whole - scan for whole, scan in zip(with_proofs, without, strict=True)]
    slowdown = ratio(samples["index without proofs"], samples["demux and CRC-32"])
    print(f"{index.n_packets} packets, {index.size / 1e6:.0f} MB, {len(index.entry_frame)} entries\n")
    rows = [
        [name, f"{median(found):.3f}", *(f"{1e6 * median(found, of) / index.n_packets:.1f}" for of in ("wall", "cpu"))]
        for name, found in samples.items()
    ]
    table(["", "seconds", "us per packet", "cpu"], rows)
    print(f"in processor time {ratio(samples[names[0]], samples[names[1]], 'cpu'):.3f} of the bare reading")
    report.finish(
        targets={"packet scan / bare demux": (slowdown, "<=", RATIO)},
        packets=index.n_packets,
        bytes=index.size,
        sidecar_bytes=sidecar.stat().st_size,
        entries=len(index.entry_frame),
        seconds=rounded(samples),
    )


if __name__ == "__main__":
    main()
