"""The film in a page: small, played by every browser, with times and sound of its source and the maps over it."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from talk import START, TICK, make_run, write_talk

from streamsal.drawing.shown_maps import Densities
from streamsal.merge import open_run
from streamsal.render import rising_pts
from streamsal.report.small_film import LONG_SIDE_PX, write_small_film

N_FRAMES = 30


def made(folder: Path, **talk: object) -> Path:
    make_run(write_talk(folder / "talk.mp4", N_FRAMES, **talk), folder / "talk.streamsal")
    with open_run(folder / "talk.streamsal") as run:
        from streamsal.prepare import checked_index

        assert run.plan is not None
        index = checked_index(run.path, run.plan.videos[0])
        done: list[int] = []
        densities = Densities(run["talk.mp4"], index, "interpolate")
        write_small_film(folder / "small.mp4", index, densities, maximum=20, on_frame=done.append)
        assert done == list(range(1, N_FRAMES + 1))
        with av.open(str(folder / "small.mp4")) as film:
            pts = [picture.pts * picture.time_base for picture in film.decode(video=0)]
        assert pts == [tick * TICK for tick in rising_pts(index).tolist()]
    return folder / "small.mp4"


def test_it_is_small_and_of_the_kind_that_browsers_play(tmp_path: Path) -> None:
    path = made(tmp_path, size=(720, 1280))
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.format.name) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (LONG_SIDE_PX, 360)
        assert len(film.streams.audio) == 1
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert not list(tmp_path.glob("*.segment.mp4"))


def test_times_are_those_of_the_source_also_where_it_is_turned(tmp_path: Path) -> None:
    path = made(tmp_path, rotation=90)
    with av.open(str(path)) as film:
        picture = next(film.decode(video=0))
        assert picture.pts * picture.time_base == START * TICK
        assert picture.rotation in (90, -270)


def test_the_map_is_over_the_picture(tmp_path: Path) -> None:
    with av.open(str(made(tmp_path))) as film:
        pictures = [picture.to_ndarray(format="rgb24").astype(int) for picture in film.decode(video=0)]
    for number in (3, 12):
        red_over_blue = (pictures[number][..., 0] - pictures[number][..., 2])[40:70].max(axis=0)
        assert abs(float(np.argmax(red_over_blue)) / 10 - 0.5 - number) < 1.6  # column k of 16 over 160 pixels
