"""The films that the benchmarks run on, drawn by the demo's generator, and their maps, kept in the work directory."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import av

from streamsal.files import replacing
from streamsal.merge import merge
from streamsal.prepare import Request, make_plan
from streamsal.sample_clip import write_demo_clip
from streamsal.task import infer


def clip(work_dir: Path, *, seconds: float, width: int, height: int) -> Path:
    """The sample clip, H.264 with B-frames and AAC sound; made once per size and length."""
    path = work_dir / f"clip_{width}x{height}_{seconds:g}s.mp4"
    if not path.exists():
        work_dir.mkdir(parents=True, exist_ok=True)
        print(f"drawing {path}", file=sys.stderr, flush=True)
        write_demo_clip(path, seconds=seconds, width=width, height=height)
    return path


def long_clip(work_dir: Path, *, frames: int, width: int, height: int, seconds: float = 16) -> Path:
    """`frames` frames: the packets of a sample clip of `seconds`, over and over, nothing encoded again."""
    path = work_dir / f"clip_{width}x{height}_{frames}f.mp4"
    if path.exists():
        return path
    source = clip(work_dir, seconds=seconds, width=width, height=height)
    with replacing(path) as part, av.open(part, "w") as target:
        outputs, latest = {}, {}
        written = turn = 0
        while written < frames:
            with av.open(source) as film:
                video, sound = film.streams.video[0], film.streams.audio[0]
                outputs = outputs or {one.index: target.add_stream_from_template(one) for one in (video, sound)}
                for packet in film.demux(video, sound):
                    stream = packet.stream
                    if not packet.size or (stream is video and written == frames):
                        continue
                    assert stream.time_base and packet.dts is not None and packet.pts is not None
                    shift = round(turn * seconds / stream.time_base)
                    dts = packet.dts + shift
                    if dts <= latest.get(stream.index, dts - 1):
                        continue  # sound overlaps itself by a packet at each joint
                    latest[stream.index] = packet.dts = dts
                    packet.pts += shift
                    written += stream is video
                    packet.stream = outputs[stream.index]
                    target.mux(packet)
            turn += 1
    return path


def computed(video: Path, run: Path) -> Path:
    """A run with the maps of sigmotion; made once."""
    if not list(run.glob("*.h5")):
        shutil.rmtree(run, ignore_errors=True)
        make_plan([video], run, Request(model="sigmotion", tasks=1))
        infer(run, 0)
        merge(run)
    return run
