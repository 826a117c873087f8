"""A film with everything that a render has to keep, and a run over any film with maps that say their frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Stream
from telltale import draw_number

from streamsal.index import VideoIndex, index_video
from streamsal.models.spec import Output, Readback
from streamsal.plan import Part, Plan, PlannedModel, PlannedVideo, Settings
from streamsal.store import PartInfo, ShardWriter, shard_path

TICK = Fraction(1, 12800)
START = 3840  # ticks: the first picture comes 0.3 s after the clock's zero
DENSITY = Output(name="log_density", kind="log_density", units="nat", readback=Readback())
MAP_HEIGHT, MAP_WIDTH = 9, 16
TAGS = {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}  # BT.709, limited
CHAPTERS = [
    {"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "Question"}},
    {"id": 2, "start": 1000, "end": 1900, "time_base": Fraction(1, 1000), "metadata": {"title": "Answer"}},
]


def write_talk(
    path: Path, n_frames: int = 40, *, size: tuple[int, int] = (96, 160), rotation: int = 0, subtitles: str = ""
) -> Path:
    """Variable rate, open groups with B-frames, sound, chapters, titles, color tags, a start offset."""
    clock = {"movie_timescale": "12800", "video_track_timescale": "12800"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=clock) as film:
        film.metadata["title"] = "A talk"
        film.set_chapters(CHAPTERS)
        x264 = {"preset": "veryfast", "crf": "12", "threads": "1", "x264-params": "open-gop=1:keyint=12:bframes=3"}
        video = film.add_stream("libx264", rate=25, options=x264)
        video.height, video.width = size
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = TICK
        for tag, value in TAGS.items():
            setattr(video.codec_context, tag, value)
        video.metadata["language"] = "swe"
        if rotation:
            video.set_display_rotation(rotation)
        sound = film.add_stream("aac", rate=48_000, layout="stereo")
        sound.metadata["language"] = "deu"
        text = film.add_mux_stream(subtitles) if subtitles else None
        if text:
            text.metadata["language"] = "fra"
            text.time_base = Fraction(1, 1000)
            for number in range(3):
                film.mux(_subtitle(f"line {number}", 300 + 400 * number, text, subtitles))
        pts = START
        for number in range(n_frames):
            film.mux(video.encode(_picture(number, size, pts)))
            pts += 700 if number % 3 == 0 else 512
        film.mux(video.encode(None))
        for block in range(round(48_000 * (pts - START) * TICK / 1024)):
            tone = 0.2 * np.sin((np.arange(1024) + 1024 * block) * 440 * 2 * np.pi / 48_000)
            frame = av.AudioFrame.from_ndarray(np.tile(tone, (2, 1)).astype(np.float32), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 1024 * block, Fraction(1, 48_000)
            film.mux(sound.encode(frame))
        film.mux(sound.encode(None))
    return path


def _picture(number: int, size: tuple[int, int], pts: int) -> av.VideoFrame:
    rgb = np.full((*size, 3), 90, np.uint8)
    rgb[..., 2] = np.linspace(40, 200, size[1]).astype(np.uint8)
    draw_number(rgb, number)
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=1, dst_color_range=1
    )
    picture.pts, picture.time_base = pts, TICK
    for tag, value in TAGS.items():
        setattr(picture, tag, value)
    return picture


def _subtitle(line: str, milliseconds: int, stream: Stream, codec: str) -> av.Packet:
    data = line.encode()
    packet = av.Packet(len(data).to_bytes(2, "big") + data if codec == "mov_text" else data)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = milliseconds
    packet.duration = 400
    return packet


def make_run(video: Path, run: Path, *, every: int = 1, holes: tuple[int, ...] = ()) -> VideoIndex:
    """A complete run over `video`: the density of frame k is one bump at column k of the map."""
    (run / "shards").mkdir(parents=True)
    (run / "index").mkdir()
    index = index_video(video)
    index.save(run / "index" / f"{video.name}.npz")
    planned = PlannedVideo(
        name=video.name,
        path=str(video),
        size=index.size,
        mtime_ns=index.mtime_ns,
        fingerprint=index.fingerprint,
        stream=index.stream,
        n_frames=index.n_frames,
        frame_rate=index.frame_rate,
        height=index.display_height,
        width=index.display_width,
        model_height=index.display_height,
        model_width=index.display_width,
        start=0,
        stop=index.n_frames,
        every=every,
        past=0,
        future=0,
    )
    plan = Plan(
        model=PlannedModel(name="bumps", sha256="ab" * 32),
        settings=Settings(),
        batch_size=4,
        videos=(planned,),
        shards=((Part(video=0, start=0, stop=index.n_frames),),),
        version="0.1.0",
    )
    plan.save(run / "plan.json")
    part = PartInfo.of(plan, plan.shards[0][0], outputs=(DENSITY,), device="cpu", dtype="float32")
    with ShardWriter(shard_path(run, 0), [part]) as shard:
        frames = np.array(part.frames)
        hole = np.isin(frames, holes)
        values = np.stack([log_bump(frame) for frame in frames])
        values[hole] = np.nan
        shard.append(
            part, frame=frames, pts_seconds=index.pts_seconds[frames], hole=hole, values={DENSITY.name: values}
        )
        shard.commit()
        shard.finish()
    return index


def log_bump(frame: int) -> np.ndarray:
    y, x = np.mgrid[:MAP_HEIGHT, :MAP_WIDTH]
    bump = -((y - 5) ** 2 + (x - frame % MAP_WIDTH) ** 2) / 2.0
    return (bump - np.log(np.exp(bump).sum())).astype(np.float32)
