"""What does drawing the maps add to the time of re-encoding a film?

Measured on a 1080p film, in turns: `render` from beginning to end (scale of the film, decoding, drawing, encoding, the
other streams copied), and decoding and encoding alone, one loop over the same number of frames with the same encoder,
settings and threads. What is encoded matters to an encoder, so the loop runs over two films: the original, and the
finished overlay, which the target is about because its pictures are those that `render` encodes. The ratio is the
median over the rounds.

    python benchmarks/render.py [--seconds 12] [--rounds 5] [--style overlay] [-o results/render.json]
"""

from __future__ import annotations

from pathlib import Path

import av
import torch
from clips import clip, computed
from measure import Report, arguments, interleaved, median, ratio, rounded, table

from streamsal.cores import usable_cores
from streamsal.encoders import choose_encoder
from streamsal.index import VideoIndex, index_video
from streamsal.mux import Encoder, SegmentWriter
from streamsal.render import render

RATIO = 1.3


def decode_and_encode(index: VideoIndex, encoder: Encoder, output: Path) -> None:
    with av.open(index.path) as container, SegmentWriter(output, encoder) as writer:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # as the reader does
        for number, picture in enumerate(container.decode(stream)):
            picture.pict_type = 0  # the encoder would take over the source's key pictures
            writer.write(picture, int(index.pts[number]))


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--seconds", type=float, default=12, help="length of the film (default: 12)")
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--style", default="overlay", help="overlay, heatmap or contour (default: overlay)")
    options = parser.parse_args()

    video = clip(options.work_dir, seconds=options.seconds, width=options.width, height=options.height)
    run = computed(video, options.work_dir / f"render_{video.stem}.streamsal")
    torch.set_num_threads(max(1, usable_cores() - 1))  # as the command line does
    film, scratch = options.work_dir / "render_film.mp4", options.work_dir / "render_scratch.mp4"
    render(run, film, style=options.style)
    index, drawn = index_video(video), index_video(film)
    _, encoder = choose_encoder(index, codec="auto", crf=None, preset=None)

    report = Report(benchmark="render", options=options)
    cases = {
        "render": lambda: render(run, scratch, style=options.style),
        "decode and encode the original": lambda: decode_and_encode(index, encoder, scratch),
        "decode and encode the finished film": lambda: decode_and_encode(drawn, encoder, scratch),
    }
    samples = interleaved(cases, options.rounds)
    scratch.unlink()
    ratios = {name: ratio(samples["render"], found) for name, found in samples.items() if name != "render"}
    print(f"{options.style}, {encoder.name} {dict(encoder.options)}, {index.n_frames} frames\n")
    table(
        ["milliseconds per frame", "wall", "cpu", "render is"],
        [
            [
                name,
                *(f"{1000 * median(found, of) / index.n_frames:.2f}" for of in ("wall", "cpu")),
                f"{ratios[name]:.3f}" if name in ratios else "",
            ]
            for name, found in samples.items()
        ],
    )
    report.finish(
        targets={
            "render / decode and encode of the same pictures": (
                ratios["decode and encode the finished film"],
                "<=",
                RATIO,
            )
        },
        frames=index.n_frames,
        encoder={"name": encoder.name, **encoder.options},
        film_bytes=film.stat().st_size,
        seconds_per_frame=rounded(samples, per=index.n_frames),
        ratios={name: round(value, 4) for name, value in ratios.items()},
    )


if __name__ == "__main__":
    main()
