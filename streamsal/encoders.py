"""Which encoder makes the film, with which settings, in which pixel format: from the wish and the source's index.

Keeps what the encoder can hold (depth, chroma, matrix, range, aspect) and says in one line what it cannot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.codec.codec import UnknownCodecError

from .color import Orientation
from .drawing.canvas import Canvas
from .errors import UsageError
from .index import VideoIndex
from .mux import Encoder, opens


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    quality: str  # name of the option that `crf` sets
    crf: int
    preset: str
    options: Mapping[str, str] = field(default_factory=dict)
    instead: str = ""  # software encoder for a machine without the hardware


# Closed groups, so that a segment needs nothing of the one before it.
_SETTINGS = {
    "libx264": _Settings(quality="crf", crf=18, preset="medium", options={"x264-params": "open-gop=0"}),
    "libx265": _Settings(
        quality="crf",
        crf=20,
        preset="medium",
        options={"x265-params": "open-gop=0:repeat-headers=0:log-level=error"},
    ),
    "libsvtav1": _Settings(quality="crf", crf=30, preset="8"),
    "h264_nvenc": _Settings(quality="cq", crf=19, preset="p5", options={"rc": "vbr"}, instead="libx264"),
    "hevc_nvenc": _Settings(quality="cq", crf=21, preset="p5", options={"rc": "vbr"}, instead="libx265"),
    "av1_nvenc": _Settings(quality="cq", crf=30, preset="p5", options={"rc": "vbr"}, instead="libsvtav1"),
}
_NAMES = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "nvenc": "h264_nvenc"}
_BT709, _LIMITED, _FULL = 1, 1, 2  # ITU-T H.273, and FFmpeg's codes for ranges


def choose_encoder(
    index: VideoIndex,
    *,
    codec: str,
    crf: int | None,
    preset: str | None,
    threads: int = 0,
    double: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> tuple[Canvas, Encoder]:
    """What to draw on and what to encode it with; `double`: two pictures side by side as shown.

    `codec`: h264, hevc, av1, an encoder of FFmpeg, or auto: h264 by the GPU where it has an encoder, else by libx264.
    """
    name = _NAMES.get(codec, codec)
    if codec == "auto":
        _, nvenc = _build(index, "h264_nvenc", crf, None, threads, double)
        name = "h264_nvenc" if preset is None and opens(nvenc) else "libx264"  # their presets have other names
    canvas, encoder = _build(index, name, crf, preset, threads, double)
    instead = _SETTINGS[name].instead
    if instead and codec != "auto" and not opens(encoder):
        note(f"{name} does not work here: {instead} is used")
        canvas, encoder = _build(index, instead, crf, preset, threads, double)
    if canvas.pixel_format != index.pixel_format.replace("yuvj", "yuv"):
        note(f"pictures are encoded as {canvas.pixel_format}: {_why(index, canvas.pixel_format, encoder.name)}")
    return canvas, encoder


def _build(
    index: VideoIndex, name: str, crf: int | None, preset: str | None, threads: int, double: bool
) -> tuple[Canvas, Encoder]:
    if name not in _SETTINGS:
        raise UsageError(f"no encoder {name!r}: choose auto, {', '.join([*_NAMES, *_SETTINGS])}")
    try:
        accepted = [form.name for form in av.Codec(name, "w").video_formats or ()]
    except UnknownCodecError:
        raise UsageError(f"this build of FFmpeg has no encoder {name}: choose another --codec") from None
    if name == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # it writes its settings to stderr, whatever FFmpeg's log level is
    settings = _SETTINGS[name]
    pixel_format = _pixel_format(index, name, accepted)
    tags = _color_tags(index)
    width, height = index.width, index.height
    if double and Orientation.of(display_matrix=index.display_matrix).transpose:
        height *= 2
    elif double:
        width *= 2
    canvas = Canvas(
        width=index.width,
        height=index.height,
        pixel_format=pixel_format,
        matrix=tags["colorspace"],
        full_range=tags["color_range"] == _FULL,
        depth=av.VideoFormat(pixel_format).components[0].bits,
        orientation=Orientation.of(display_matrix=index.display_matrix),
    )
    quality = {settings.quality: str(settings.crf if crf is None else crf), "preset": preset or settings.preset}
    encoder = Encoder(
        name=name,
        options=quality | dict(settings.options),
        width=width,
        height=height,
        pixel_format=pixel_format,
        time_base=Fraction(*index.time_base),
        frame_rate=Fraction(index.frame_rate).limit_denominator(1001),
        sample_aspect=Fraction(*index.sample_aspect) if index.sample_aspect[0] else None,
        color_tags=tags,
        threads=threads,
    )
    return canvas, encoder


def _pixel_format(index: VideoIndex, name: str, accepted: list[str]) -> str:
    """The source's own chroma and depth if the encoder takes them, else the nearest that loses least."""
    form = av.VideoFormat(index.pixel_format)
    chroma = _chroma(form)
    # H.264 and HEVC crop subsampled pictures in steps of a chroma sample only; AV1 can have any size.
    odd = (index.width % 2 and chroma != "444") or (index.height % 2 and chroma == "420")
    if odd and name not in ("libsvtav1", "av1_nvenc"):
        chroma = "444"
    depth = form.components[0].bits
    suffixes = [suffix for bits, suffix in ((12, "12le"), (10, "10le"), (8, "")) if bits <= max(8, depth) or bits == 8]
    wished = [f"yuv{kind}p{suffix}" for kind in dict.fromkeys((chroma, "444" if odd else "420")) for suffix in suffixes]
    return next((each for each in wished if each in accepted), "yuv420p")


def _chroma(form: av.VideoFormat) -> str:
    if form.is_rgb or len(form.components) < 3:
        return "420"  # what every player shows
    steps = (64 // form.chroma_width(64), 64 // form.chroma_height(64))
    return {(1, 1): "444", (2, 1): "422"}.get(steps, "420")


def _why(index: VideoIndex, pixel_format: str, name: str) -> str:
    chroma = _chroma(av.VideoFormat(index.pixel_format))
    if pixel_format.startswith("yuv444p") and chroma != "444":
        return f"with {chroma} chroma {name} cannot keep the odd size {index.width}x{index.height}"
    return f"{name} takes no {index.pixel_format}"


def _color_tags(index: VideoIndex) -> dict[str, int]:
    """The source's tags; RGB is converted to BT.709, and gray is full range as it is."""
    form = av.VideoFormat(index.pixel_format)
    matrix, full = index.color_matrix, index.color_range
    if form.is_rgb or form.has_palette:
        matrix, full = _BT709, _LIMITED
    elif len(form.components) < 3 or index.pixel_format.startswith("yuvj"):
        full = _FULL
    return {
        "colorspace": matrix,
        "color_range": full,
        "color_primaries": index.color_primaries,
        "color_trc": index.color_transfer,
    }
