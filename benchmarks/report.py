"""How long does the page of a film take, and how large is it?

Measured for a film of ten minutes at 640x360, whose maps of sigmotion are there: `report` from beginning to end (curves
measured on the maps, cuts looked for in the film, contact sheet, page), and, as a scale, `render` of the same film, in
turns, file cache warm; the size of the page, which links its film; and the largest resident memory of a new process
that makes it.

    python benchmarks/report.py [--seconds 600] [--rounds 3] [-o results/report.json]
"""

from __future__ import annotations

import statistics

import torch
from clips import computed, long_clip
from measure import Report, arguments, interleaved, median, peak_megabytes, ratio, rounded, table

from streamsal.cores import usable_cores
from streamsal.render import render
from streamsal.report.report import report

SECONDS = 60.0
PAGE_MEGABYTES = 5.0
RATE = 25  # of the clip

MAKE = """
import torch
from streamsal.report.report import report
torch.set_num_threads({threads})
report([{run!r}], {page!r})
"""


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--seconds", type=int, default=600, help="length of the film (default: 600)")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    options = parser.parse_args()

    frames = RATE * options.seconds
    threads = max(1, usable_cores() - 1)  # as the command line does
    torch.set_num_threads(threads)
    video = long_clip(options.work_dir, frames=frames, width=options.width, height=options.height)
    run = computed(video, options.work_dir / f"report_{video.stem}.streamsal")
    page, film = options.work_dir / "report.html", options.work_dir / "report_film.mp4"

    measured = Report(benchmark="report", options=options)
    cases = {"report": lambda: report([run], page), "render": lambda: render(run, film)}
    samples = interleaved(cases, options.rounds)
    film.unlink()
    make = MAKE.format(run=str(run), page=str(page), threads=threads)
    peak = statistics.median(peak_megabytes(make) for _ in range(options.rounds))
    size = page.stat().st_size
    to_render = ratio(samples["report"], samples["render"])
    print(f"{frames} frames of {options.width}x{options.height}; page {size / 1e6:.2f} MB; peak memory {peak:.0f} MB")
    print(f"the page takes {to_render:.3f} of the time of the film with its maps\n")
    table(
        ["seconds", "wall", "cpu"],
        [[name, f"{median(found):.2f}", f"{median(found, 'cpu'):.2f}"] for name, found in samples.items()],
    )
    measured.finish(
        targets={
            "seconds to report": (median(samples["report"]), "<=", SECONDS),
            "megabytes of the page": (size / 1e6, "<=", PAGE_MEGABYTES),
        },
        frames=frames,
        page_bytes=size,
        peak_megabytes=round(peak, 1),
        report_to_render=round(to_render, 4),
        seconds=rounded(samples),
    )


if __name__ == "__main__":
    main()
