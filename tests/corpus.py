"""Small, deliberately awkward videos, written by PyAV.

Every case is a function; its docstring says what is awkward about the file. A case is

    ok        a full sequential decode gives every picture that was encoded
    odd       decodes without error, but count or times differ from what was encoded (edit lists, packed B-frames, ...)
    damaged   decodes partly
    reject    no video can be read: a clear error is the right answer

Pictures are numbered: their top rows carry the number as 16 black or white blocks, so that a test can read from the
pixels which picture it got (`read_number`). All encoders run on one thread with fixed settings.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np

BITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    file: str
    kind: Literal["ok", "odd", "damaged", "reject"]
    stream: int | None
    write: Callable[[Path], int]


CASES: dict[str, Case] = {}


def case(file, kind="ok", stream=0):
    """Register a writer: it gets a path and returns the number of pictures that it encoded."""

    def add(write):
        CASES[write.__name__] = Case(file=file, kind=kind, stream=stream, write=write)
        return write

    return add


def picture(i, w=160, h=96, channels=3):
    """Picture number i: a number strip above a moving, textured scene."""
    yy, xx = np.mgrid[0:h, 0:w].astype(np.float32)
    r = 128 + 100 * np.sin((xx + 3 * i) / 11.0)
    g = 128 + 100 * np.sin((yy - 2 * i) / 7.0 + xx / 23.0)
    b = 128 + 100 * np.cos((xx + yy + 5 * i) / 17.0)
    img = np.stack([r, g, b], -1)
    rng = np.random.default_rng(1000 + i)
    img += rng.integers(-12, 13, size=(h, w, 1))  # texture, so that residuals are never zero
    y0, x0 = (7 * i) % max(1, h - 24), (11 * i) % max(1, w - 24)
    img[y0 : y0 + 20, x0 : x0 + 20] = (255, 220, 40)
    strip = max(8, h // 6)
    cell = w / BITS
    for k in range(BITS):
        on = 235.0 if (i >> k) & 1 else 20.0
        img[:strip, round(k * cell) : round((k + 1) * cell)] = on
    img = np.clip(img, 0, 255).astype(np.uint8)
    if channels == 4:
        alpha = np.broadcast_to((xx * 255 / max(1, w - 1)).astype(np.uint8), (h, w))
        img = np.dstack([img, alpha])
    return np.ascontiguousarray(img)


def read_number(rgb):
    """The picture number that picture() drew, read back from decoded pixels."""
    h, w = rgb.shape[:2]
    strip = max(8, h // 6)
    cell = w / BITS
    n = 0
    for k in range(BITS):
        a, b = round(k * cell), round((k + 1) * cell)
        m = max(1, (b - a) // 4)
        n |= int(rgb[strip // 4 : strip - strip // 4, a + m : b - m].mean() > 128) << k
    return n


def frame_of(i, w, h, pix_fmt, base=0):
    if pix_fmt in ("rgba", "yuva420p", "yuva444p10le"):
        f = av.VideoFrame.from_ndarray(picture(i + base, w, h, 4), format="rgba")
    else:
        f = av.VideoFrame.from_ndarray(picture(i + base, w, h), format="rgb24")
    return f


X264 = {"threads": "1", "preset": "veryfast", "crf": "20"}
VPX = {"g": "20", "b": "300k", "threads": "1"}


def x264(keyint=12, bframes=3, open_gop=False, **extra):
    params = (
        f"keyint={keyint}:min-keyint={keyint}:scenecut=0:bframes={bframes}:b-adapt=0:open-gop={int(open_gop)}:"
        "threads=1:mbtree=0:rc-lookahead=0"
    )
    for k, v in extra.items():
        params += f":{k.replace('_', '-')}={v}"
    return X264 | {"x264-params": params}


def x265(keyint=12, bframes=3, open_gop=False):
    return {
        "preset": "ultrafast",
        "x265-params": f"keyint={keyint}:min-keyint={keyint}:scenecut=0:bframes={bframes}:b-adapt=0:"
        f"open-gop={int(open_gop)}:pools=none:frame-threads=1:no-wpp=1:log-level=none:crf=24",
    }


def encode(
    path,
    codec="libx264",
    options=None,
    n=60,
    size=(160, 96),
    pix_fmt="yuv420p",
    rate=25,
    format=None,
    mux=None,
    pts=None,
    time_base=None,
    base=0,
    audio=None,
    color=None,
    rotate=None,
    still=False,
):
    """Encode n numbered pictures (`still`: always the first) into path, and `audio` seconds of a tone.

    `pts` are integers in `time_base`; without them pictures come at a constant rate.
    """
    w, h = size
    with av.open(str(path), "w", format=format, options=mux or {}) as out:
        out.flags |= av.container.Flags.bitexact.value  # no random identifiers, no dates
        s = out.add_stream(codec, rate=rate, options=dict(options or {}))
        s.width, s.height, s.pix_fmt = w, h, pix_fmt
        s.codec_context.thread_count = 1
        if time_base is not None:
            s.codec_context.time_base = time_base
            s.time_base = time_base
        if color:
            for k, v in color.items():
                setattr(s.codec_context, k, v)
        if rotate:
            s.set_display_rotation(rotate)
        a = out.add_stream("aac", rate=16000, layout="mono") if audio else None
        done = 0.0
        for i in range(n):
            f = frame_of(0 if still else i, w, h, pix_fmt, base)
            if color:
                matrix = COLORSPACE.get(color.get("colorspace"))
                f = f.reformat(format=pix_fmt, dst_colorspace=matrix, dst_color_range=color.get("color_range"))
            f.pts = pts[i] if pts is not None else i
            f.time_base = time_base if time_base is not None else Fraction(1, rate)
            out.mux(s.encode(f))
            if a is not None:
                done = _tone(out, a, done, min(audio, (i + 1) / rate))
        out.mux(s.encode(None))
        if a is not None:
            _tone(out, a, done, audio)
            out.mux(a.encode(None))
    return n


# AVCOL_SPC value -> swscale colour space name
COLORSPACE = {1: "ITU709", 5: "ITU601", 6: "ITU601", 9: "BT2020", None: None}


def _tone(out, a, start, stop, rate=16000, block=1024):
    k = round(start * rate)
    while k + block <= stop * rate:
        t = np.arange(k, k + block) / rate
        wave = (0.2 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)[None]
        f = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        f.sample_rate, f.pts, f.time_base = rate, k, Fraction(1, rate)
        out.mux(a.encode(f))
        k += block
    return k / rate


def remux(src, dst, format=None, options=None, edit=None, shift=0):
    """Copy the first video stream's packets; edit(k, packet) may change or drop."""
    with av.open(str(src)) as i, av.open(str(dst), "w", format=format, options=options or {}) as o:
        o.flags |= av.container.Flags.bitexact.value
        v = i.streams.video[0]
        s = o.add_stream_from_template(v)
        for k, p in enumerate(i.demux(v)):
            if p.size == 0 and p.dts is None:
                continue
            if shift:
                p.pts = None if p.pts is None else p.pts + shift
                p.dts = None if p.dts is None else p.dts + shift
            q = edit(k, p) if edit else p
            if q is not None:
                q.stream = s
                o.mux(q)


def cat(dst, *parts):
    with open(dst, "wb") as f:
        for p in parts:
            f.write(Path(p).read_bytes())
            os.unlink(p)


def tmp(path, name):
    p = Path(path)
    return p.with_name("~" + p.stem + "." + name)


@case("h264_closed.mp4")
def h264_closed(p):
    """B-frames with a pyramid, closed groups of 12."""
    return encode(p, options=x264())


@case("h264_open.mp4")
def h264_open(p):
    """Open groups: pictures shown before a key picture need the group before it."""
    return encode(p, options=x264(open_gop=True))


@case("h264_open.mkv")
def h264_open_mkv(p):
    """The same in Matroska (1 ms time base: 30000/1001 does not fit exactly)."""
    return encode(p, options=x264(open_gop=True), rate=30)


@case("h264_open.ts")
def h264_open_ts(p):
    """The same in MPEG-TS: no index, seeking is a search by byte position."""
    return encode(p, options=x264(open_gop=True))


@case("h264_nob.mp4")
def h264_nob(p):
    """No B-frames: decode order is presentation order."""
    return encode(p, options=x264(bframes=0))


@case("h264_refresh.mp4")
def h264_refresh(p):
    """Periodic intra refresh: packets flagged key that are not clean entry points."""
    return encode(p, options=x264(bframes=0, intra_refresh=1))


@case("h264_gop1000.mp4")
def h264_gop1000(p):
    """A single group of 1000 pictures: the only entry point is the first one."""
    return encode(p, options=x264(keyint=1000, bframes=2), n=1000, size=(96, 64))


@case("h264_liar.mp4")
def h264_liar(p):
    """The container flags every packet as key, which is false."""

    def lie(k, pkt):
        pkt.is_keyframe = True
        return pkt

    t = tmp(p, "mp4")
    n = encode(t, options=x264(bframes=2))
    remux(t, p, edit=lie)
    os.unlink(t)
    return n


@case("h264_noflags.mp4")
def h264_noflags(p):
    """The container flags only the first packet as key although more are."""

    def hide(k, pkt):
        pkt.is_keyframe = k == 0
        return pkt

    t = tmp(p, "mp4")
    n = encode(t, options=x264(bframes=2))
    remux(t, p, edit=hide)
    os.unlink(t)
    return n


@case("h264_raw.h264")
def h264_raw(p):
    """A bare Annex B stream: no container, no time stamps, no index."""
    return encode(p, options=x264(), format="h264")


@case("h264_frag.mp4")
def h264_frag(p):
    """Fragmented MP4: the sample tables are spread over the file."""
    return encode(p, options=x264(), mux={"movflags": "frag_keyframe+empty_moov+default_base_moof"}, audio=2.4)


@case("h264.flv")
def h264_flv(p):
    """FLV: 1 ms time base and no index."""
    return encode(p, options=x264(), format="flv")


@case("h264_10bit.mp4")
def h264_10bit(p):
    """10 bits per sample."""
    return encode(p, options=x264(), pix_fmt="yuv420p10le")


@case("h264_444.mp4")
def h264_444(p):
    """4:4:4 with odd dimensions."""
    return encode(p, options=x264(), pix_fmt="yuv444p", size=(161, 97))


@case("h264_422.mp4")
def h264_422(p):
    """4:2:2."""
    return encode(p, options=x264(), pix_fmt="yuv422p")


@case("h264_interlaced.mp4")
def h264_interlaced(p):
    """Interlaced coding (MBAFF)."""
    return encode(p, options=x264(interlaced=1, bframes=2))


@case("h264_709.mp4")
def h264_709(p):
    """Tagged BT.709, limited range."""
    return encode(p, options=x264(), color=dict(colorspace=1, color_range=1, color_primaries=1, color_trc=1))


@case("h264_601.mp4")
def h264_601(p):
    """Tagged BT.601 (SMPTE 170M), limited range."""
    return encode(p, options=x264(), color=dict(colorspace=6, color_range=1, color_primaries=6, color_trc=6))


@case("h264_fullrange.mp4")
def h264_fullrange(p):
    """Tagged BT.709, full range."""
    return encode(p, options=x264(), color=dict(colorspace=1, color_range=2, color_primaries=1, color_trc=1))


@case("hevc_2020_10bit.mp4")
def hevc_2020_10bit(p):
    """10 bits, tagged BT.2020 with the PQ curve (HDR)."""
    return encode(
        p,
        "libx265",
        x265(),
        pix_fmt="yuv420p10le",
        color=dict(colorspace=9, color_range=1, color_primaries=9, color_trc=16),
    )


@case("vfr.mp4")
def vfr(p):
    """Variable frame rate: gaps from 1 to 9000 ticks of 1/30000 s."""
    rng = np.random.default_rng(5)
    pts = np.cumsum(rng.choice([1001, 500, 1, 9000, 2002], size=60)).tolist()
    return encode(p, options=x264(), pts=pts, time_base=Fraction(1, 30000), rate=30)


@case("vfr.mkv")
def vfr_mkv(p):
    """The same in Matroska: ticks of 1 ms, so that some stamps collide."""
    rng = np.random.default_rng(5)
    pts = np.cumsum(rng.choice([1001, 500, 40, 9000, 2002], size=60)).tolist()
    return encode(p, options=x264(), pts=pts, time_base=Fraction(1, 30000), rate=30)


@case("dup_pts.mkv", kind="odd")
def dup_pts(p):
    """2000 pictures a second in a container of 1 ms ticks: pairs share a time stamp."""
    return encode(p, options=x264(bframes=0), rate=2000)


@case("edit_skip.mp4", kind="odd")
def edit_skip(p):
    """An edit list hides the first 7 pictures; decoding must still start before them."""
    t = tmp(p, "mp4")
    encode(t, options=x264(keyint=24), audio=None)
    with av.open(str(t)) as i:
        tick = int(Fraction(1, 25) / i.streams.video[0].time_base)
    remux(t, p, shift=-7 * tick, options={"avoid_negative_ts": "disabled", "use_editlist": "1"})
    os.unlink(t)
    return 60


@case("edit_delay.mp4")
def edit_delay(p):
    """Video starts two seconds after the audio (an empty edit)."""
    return encode(p, options=x264(), pts=[i + 50 for i in range(60)], time_base=Fraction(1, 25), audio=4.4)


@case("ts_offset.ts")
def ts_offset(p):
    """MPEG-TS whose first time stamp is ten hours."""
    t = tmp(p, "mkv")
    n = encode(t, options=x264(open_gop=True))
    remux(t, p, shift=36_000_000, format="mpegts", options={"mpegts_copyts": "1"})
    os.unlink(t)
    return n


@case("ts_wrap.ts")
def ts_wrap(p):
    """MPEG-TS whose 33-bit clock wraps in the middle."""
    t = tmp(p, "mkv")
    n = encode(t, options=x264())
    remux(t, p, shift=95_443_717 - 1200, format="mpegts", options={"mpegts_copyts": "1"})
    os.unlink(t)
    return n


@case("ts_jump_forward.ts", kind="odd")
def ts_jump_forward(p):
    """Two recordings joined: the clock jumps ahead by an hour."""
    a, b = tmp(p, "a.ts"), tmp(p, "b.ts")
    encode(a, options=x264(), n=30)
    m = tmp(p, "mkv")
    encode(m, options=x264(), n=30, base=30)
    remux(m, b, shift=3_600_000, format="mpegts", options={"mpegts_copyts": "1"})
    os.unlink(m)
    cat(p, a, b)
    return 60


@case("ts_jump_back.ts", kind="odd")
def ts_jump_back(p):
    """Two recordings joined: the second starts again at the same time stamps."""
    a, b = tmp(p, "a.ts"), tmp(p, "b.ts")
    encode(a, options=x264(), n=30)
    encode(b, options=x264(), n=30, base=30)
    cat(p, a, b)
    return 60


@case("hevc_closed.mp4")
def hevc_closed(p):
    """HEVC, closed groups."""
    return encode(p, "libx265", x265())


@case("hevc_open.mp4")
def hevc_open(p):
    """HEVC, open groups: clean random access pictures with skipped leading pictures."""
    return encode(p, "libx265", x265(open_gop=True))


@case("hevc_open.mkv")
def hevc_open_mkv(p):
    """The same in Matroska."""
    return encode(p, "libx265", x265(open_gop=True))


@case("vp9.webm")
def vp9(p):
    """VP9 with hidden alternate reference pictures."""
    return encode(
        p, "libvpx-vp9", VPX | {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "12"}
    )


@case("vp9_odd.webm")
def vp9_odd(p):
    """4:2:0 with odd width and height."""
    return encode(p, "libvpx-vp9", VPX | {"deadline": "realtime", "cpu-used": "8"}, size=(161, 97))


@case("vp8.webm")
def vp8(p):
    """VP8 with hidden alternate reference pictures (each a packet of its own)."""
    return encode(p, "libvpx", VPX | {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "12"})


@case("av1.mp4")
def av1(p):
    """AV1."""
    return encode(p, "libsvtav1", {"preset": "12", "crf": "40", "g": "20", "svtav1-params": "lp=1"}, size=(192, 128))


@case("mpeg4_bframes.avi", kind="odd")
def mpeg4_bframes(p):
    """MPEG-4 ASP with B-frames in AVI, which stores no presentation times."""
    return encode(p, "mpeg4", {"bf": "2", "g": "12", "b": "600k"}, format="avi")


@case("mpeg4_packed.avi", kind="odd")
def mpeg4_packed(p):
    """DivX "packed bitstream": a packet holds a P and a B picture, the next one is a dummy."""
    dummy = bytes([0, 0, 1, 0xB6, 0x5F])  # a P picture marked "not coded"
    t = tmp(p, "avi")
    n = encode(t, "mpeg4", {"bf": "1", "g": "12", "b": "600k", "b_strategy": "0"}, n=61, format="avi")
    with av.open(str(t)) as i, av.open(str(p), "w", format="avi") as o:
        o.flags |= av.container.Flags.bitexact.value
        v = i.streams.video[0]
        s = o.add_stream_from_template(v)
        packets = [q for q in i.demux(v) if q.size]
        chunks, k = [], 0
        while k < len(packets):
            data, key = bytes(packets[k]), packets[k].is_keyframe
            if k + 1 < len(packets) and _vop_type(bytes(packets[k + 1])) == "B":
                chunks += [(data + bytes(packets[k + 1]), key), (dummy, False)]
                k += 2
            else:
                chunks += [(data, key)]
                k += 1
        for slot, (data, key) in enumerate(chunks):
            q = av.Packet(_divx_tag(data) if slot == 0 else data)
            q.stream, q.time_base, q.pts, q.dts, q.is_keyframe = s, v.time_base, slot, slot, key
            o.mux(q)
    os.unlink(t)
    return n


def _vop_type(data):
    k = data.find(b"\x00\x00\x01\xb6")
    return "IPBS"[data[k + 4] >> 6] if k >= 0 else None


def _divx_tag(data):
    k = data.find(b"\x00\x00\x01\xb6")
    return data[:k] + b"\x00\x00\x01\xb2DivX503b1393p" + data[k:]


def _packet(data, like):
    q = av.Packet(data)
    q.pts, q.dts, q.time_base, q.is_keyframe = like.pts, like.dts, like.time_base, like.is_keyframe
    return q


@case("mpeg2.mpg", kind="odd")
def mpeg2(p):
    """MPEG-2 program stream, B-frames, open groups."""
    return encode(p, "mpeg2video", {"bf": "2", "g": "12", "b": "1500k"}, format="vob")


@case("mpeg2_interlaced.ts")
def mpeg2_interlaced(p):
    """MPEG-2 in MPEG-TS with interlaced flags."""
    return encode(p, "mpeg2video", {"bf": "2", "g": "12", "b": "1500k", "flags": "+ildct+ilme"}, format="mpegts")


@case("mjpeg.avi")
def mjpeg(p):
    """Every picture is a key picture; full-range 4:2:0; odd size."""
    return encode(p, "mjpeg", {"qscale": "4"}, pix_fmt="yuvj420p", size=(161, 97), format="avi")


@case("prores.mov")
def prores(p):
    """ProRes 4:2:2, 10 bits, every picture key."""
    return encode(p, "prores_ks", {"profile": "1", "vendor": "apl0"}, pix_fmt="yuv422p10le")


@case("alpha_png.mov")
def alpha_png(p):
    """RGBA pictures (PNG in QuickTime)."""
    return encode(p, "png", {}, pix_fmt="rgba", n=30)


@case("alpha_vp9.webm")
def alpha_vp9(p):
    """VP9 with an alpha plane carried beside the packets."""
    options = VPX | {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"}
    return encode(p, "libvpx-vp9", options, pix_fmt="yuva420p", n=30)


@case("gray_ffv1.mkv")
def gray_ffv1(p):
    """Lossless grey pictures."""
    return encode(p, "ffv1", {"level": "3", "g": "5"}, pix_fmt="gray", n=30)


@case("anim.gif")
def anim_gif(p):
    """Animated GIF: a palette, delays in hundredths of a second."""
    return encode(p, "gif", {}, pix_fmt="rgb8", n=30, rate=10)


@case("rotated90.mp4")
def rotated90(p):
    """A display matrix asks the player to turn the picture by 90 degrees."""
    return encode(p, options=x264(), rotate=90)


@case("one.mp4")
def one(p):
    """A single picture."""
    return encode(p, options=x264(), n=1)


@case("two.mp4")
def two(p):
    """Two pictures."""
    return encode(p, options=x264(), n=2)


@case("longer_video.mp4")
def longer_video(p):
    """Video of 2.4 s with audio of 1 s."""
    return encode(p, options=x264(), audio=1.0)


@case("longer_audio.mp4")
def longer_audio(p):
    """Video of 2.4 s with audio of 5 s."""
    return encode(p, options=x264(), audio=5.0)


@case("cover_first.mp4", stream=1)
def cover_first(p):
    """An attached cover picture is stream 0, the film is stream 1."""
    t = tmp(p, "mp4")
    with av.open(str(t), "w") as out:
        out.flags |= av.container.Flags.bitexact.value
        s = out.add_stream("libx264", rate=25, options=x264())
        s.width, s.height, s.pix_fmt = 160, 96, "yuv420p"
        c = out.add_stream("mjpeg", rate=25)
        c.width, c.height, c.pix_fmt = 64, 64, "yuvj420p"
        c.disposition = av.stream.Disposition.attached_pic
        f = av.VideoFrame.from_ndarray(picture(999, 64, 64), format="rgb24")
        f.pts = 0
        cover = c.encode(f) + c.encode(None)
        for i in range(60):
            f = frame_of(i, 160, 96, "yuv420p")
            f.pts, f.time_base = i, Fraction(1, 25)
            out.mux(s.encode(f))
        out.mux(s.encode(None))
        out.mux(cover)
    _udta_first(t, p)
    os.unlink(t)
    return 60


def _udta_first(src, dst):
    """Move moov/udta (which holds the cover) before the tracks."""
    data = Path(src).read_bytes()

    def boxes(a, b):
        while a < b:
            size = int.from_bytes(data[a : a + 4], "big")
            yield data[a + 4 : a + 8], a, a + size
            a += size

    for name, a, b in boxes(0, len(data)):
        if name == b"moov":
            inner = {"first": b"", "rest": b""}
            for child, x, y in boxes(a + 8, b):
                inner["first" if child in (b"mvhd", b"udta") else "rest"] += data[x:y]
            data = data[: a + 8] + inner["first"] + inner["rest"] + data[b:]
            break
    Path(dst).write_bytes(data)


@case("two_streams.mkv", stream=1)
def two_streams(p):
    """Two video streams of different size; the second is the default one."""
    with av.open(str(p), "w") as out:
        out.flags |= av.container.Flags.bitexact.value
        ss = []
        for k, (w, h) in enumerate([(96, 64), (160, 96)]):
            s = out.add_stream("libx264", rate=25, options=x264())
            s.width, s.height, s.pix_fmt = w, h, "yuv420p"
            s.disposition = av.stream.Disposition.default if k == 1 else av.stream.Disposition(0)
            ss.append((s, w, h))
        for i in range(60):
            for k, (s, w, h) in enumerate(ss):
                f = frame_of(i, w, h, "yuv420p", base=1000 * (1 - k))
                f.pts, f.time_base = i, Fraction(1, 25)
                out.mux(s.encode(f))
        for s, _, _ in ss:
            out.mux(s.encode(None))
    return 60


@case("resize.ts", kind="odd")
def resize(p):
    """The picture size changes in mid-stream (two recordings joined, time goes on)."""
    a, b, m = tmp(p, "a.ts"), tmp(p, "b.ts"), tmp(p, "mkv")
    encode(a, options=x264(), n=30)
    encode(m, options=x264(), n=30, base=30, size=(96, 64))
    remux(m, b, shift=1280, format="mpegts", options={"mpegts_copyts": "1"})
    os.unlink(m)
    cat(p, a, b)
    return 60


def _flip(path, seed, every, lo=0.2):
    """Flip one bit in each `every`-byte block after the first `lo` of the file."""
    data = bytearray(Path(path).read_bytes())
    rng = np.random.default_rng(seed)
    for a in range(int(len(data) * lo), len(data) - every, every):
        data[a + int(rng.integers(every))] ^= 1 << int(rng.integers(8))
    Path(path).write_bytes(bytes(data))


@case("flipped_packets.mkv", kind="damaged")
def flipped_packets(p):
    """One bit is wrong in every fifth packet's payload; the container is sound."""

    def damage(k, pkt):
        data = bytearray(bytes(pkt))
        if k % 5 == 3 and len(data) > 60:
            data[40 + (k * 13) % (len(data) - 50)] ^= 0x10
        return _packet(bytes(data), pkt)

    t = tmp(p, "mkv")
    n = encode(t, options=x264())
    remux(t, p, edit=damage)
    os.unlink(t)
    return n


@case("flipped_bytes.ts", kind="damaged")
def flipped_bytes(p):
    """Random bit errors anywhere in a transport stream."""
    n = encode(p, options=x264(open_gop=True))
    _flip(p, 3, 4000)
    return n


@case("lost_packets.mkv", kind="damaged")
def lost_packets(p):
    """Three reference packets are missing."""
    t = tmp(p, "mkv")
    n = encode(t, options=x264())
    remux(t, p, edit=lambda k, q: None if k in (13, 29, 30) else q)
    os.unlink(t)
    return n


@case("truncated.mkv", kind="damaged")
def truncated_mkv(p):
    """Cut off at 60 % in the middle of a packet."""
    n = encode(p, options=x264())
    d = Path(p).read_bytes()
    Path(p).write_bytes(d[: int(len(d) * 0.6)])
    return n


@case("truncated_faststart.mp4", kind="damaged")
def truncated_faststart(p):
    """The index comes first and promises 60 pictures; the data stops at 60 %."""
    n = encode(p, options=x264(), mux={"movflags": "faststart"})
    d = Path(p).read_bytes()
    Path(p).write_bytes(d[: int(len(d) * 0.6)])
    return n


@case("head_cut.ts", kind="odd")
def head_cut(p):
    """A recording that starts inside a group: seven packets come before anything can be decoded."""
    t = tmp(p, "ts")
    n = encode(t, options=x264())
    remux(t, p, format="mpegts", edit=lambda k, q: None if k < 5 else q)
    os.unlink(t)
    return n


@case("still.h264")
def still(p):
    """A still scene without time stamps: most packets are equal byte for byte."""
    return encode(p, options=x264(bframes=0), format="h264", n=48, still=True)


@case("truncated_nomoov.mp4", kind="reject")
def truncated_nomoov(p):
    """The index comes last and is cut off."""
    n = encode(p, options=x264())
    d = Path(p).read_bytes()
    Path(p).write_bytes(d[: int(len(d) * 0.6)])
    return n


@case("audio_only.mp4", kind="reject", stream=None)
def audio_only(p):
    """No video stream."""
    with av.open(str(p), "w") as out:
        out.flags |= av.container.Flags.bitexact.value
        a = out.add_stream("aac", rate=16000, layout="mono")
        _tone(out, a, 0.0, 1.0)
        out.mux(a.encode(None))
    return 0


@case("cover_only.mp4", kind="reject", stream=None)
def cover_only(p):
    """Music with a cover picture: the only "video" is the cover."""
    with av.open(str(p), "w") as out:
        out.flags |= av.container.Flags.bitexact.value
        a = out.add_stream("aac", rate=16000, layout="mono")
        c = out.add_stream("mjpeg", rate=25)
        c.width, c.height, c.pix_fmt = 64, 64, "yuvj420p"
        c.disposition = av.stream.Disposition.attached_pic
        f = av.VideoFrame.from_ndarray(picture(999, 64, 64), format="rgb24")
        f.pts = 0
        cover = c.encode(f) + c.encode(None)
        _tone(out, a, 0.0, 1.0)
        out.mux(a.encode(None))
        out.mux(cover)
    return 0


@case("no_frames.mp4", kind="reject")
def no_frames(p):
    """A video stream that holds no picture at all."""
    with av.open(str(p), "w") as out:
        s = out.add_stream("libx264", rate=25, options=x264())
        s.width, s.height, s.pix_fmt = 160, 96, "yuv420p"
        a = out.add_stream("aac", rate=16000, layout="mono")
        out.start_encoding()
        _tone(out, a, 0.0, 1.0)
        out.mux(a.encode(None))
    return 0


@case("empty.mp4", kind="reject", stream=None)
def empty(p):
    """Zero bytes."""
    Path(p).write_bytes(b"")
    return 0


@case("text.mp4", kind="reject", stream=None)
def text(p):
    """A text file with the wrong name."""
    Path(p).write_text("this is not a video\n" * 50)
    return 0
