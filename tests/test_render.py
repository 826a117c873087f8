from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import two_passes
from corpus import CASES
from films import destroy_packets, write_film
from talk import START, TAGS, log_bump, make_run, write_talk

from streamsal.decode import decode
from streamsal.drawing.canvas import plane_views
from streamsal.drawing.shown_maps import FLAT, Densities, film_maximum
from streamsal.errors import PlanMismatch, Stopped, UsageError, WriteError
from streamsal.index import VideoIndex
from streamsal.merge import open_run
from streamsal.prepare import Request, make_plan
from streamsal.progress import Progress
from streamsal.render import clock, render, rising_pts
from streamsal.task import infer

pytest_plugins = ("small_disk",)

N_FRAMES = 40
LOSSLESS = {"codec": "h264", "crf": 0, "preset": "ultrafast"}  # decoded samples are those that were encoded
QUICK = {"codec": "h264", "preset": "ultrafast"}


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talk(tmp_path_factory.mktemp("talk") / "talk.mp4", N_FRAMES, subtitles="mov_text")


@pytest.fixture(scope="module")
def run(talk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "talk.streamsal"
    make_run(talk, folder)
    return folder


def index_of(run: Path) -> VideoIndex:
    return VideoIndex.load(next((run / "index").iterdir()))


def films_planes(path: Path) -> list[list[np.ndarray]]:
    with av.open(str(path)) as film:
        return [plane_views(picture) for picture in film.decode(video=0)]


def times(path: Path) -> list[int | None]:
    with av.open(str(path)) as film:
        return [picture.pts for picture in film.decode(video=0)]


def copied_packets(path: Path) -> list[list[tuple]]:
    with av.open(str(path)) as film:
        found = {s.index: [] for s in film.streams if s.type in ("audio", "subtitle")}
        for packet in film.demux([film.streams[number] for number in found]):
            if packet.size:
                found[packet.stream_index].append((bytes(packet), packet.pts, packet.dts, packet.duration))
    return list(found.values())


def changed(path: Path, source: Path, number: int) -> float:
    """Share of luma samples of a frame that are not those of the source."""
    before = [plane_views(frame.picture) for frame in decode(source, rotate=False) if frame.picture is not None]
    return float((films_planes(path)[number][0] != before[number][0]).mean())


@pytest.mark.parametrize("style", ["overlay", "side", "heatmap", "contour"])
def test_times_sound_and_subtitles_are_those_of_the_source(run: Path, talk: Path, tmp_path: Path, style: str) -> None:
    film = render(run, tmp_path / "film.mp4", style=style, legend=True, **QUICK)
    assert times(film) == times(talk)
    assert times(film)[0] == START
    assert copied_packets(film) == copied_packets(talk)
    with av.open(str(film)) as after:
        context = after.streams.video[0].codec_context
        assert {tag: getattr(context, tag) for tag in TAGS} == TAGS
        assert (context.width, context.height) == ((320, 96) if style == "side" else (160, 96))
        assert after.metadata["title"] == "A talk"
        assert [chapter["metadata"]["title"] for chapter in after.chapters()] == ["Question", "Answer"]


def test_any_number_of_processes_gives_the_same_film(run: Path, tmp_path: Path) -> None:
    one = render(run, tmp_path / "one.mp4", jobs=1, **LOSSLESS)
    three = render(run, tmp_path / "three.mp4", jobs=3, **LOSSLESS)
    assert times(three) == times(one) and len(times(one)) == N_FRAMES
    assert copied_packets(three) == copied_packets(one)
    for a, b in zip(films_planes(one), films_planes(three), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert {path.name for path in tmp_path.iterdir()} == {"one.mp4", "three.mp4"}


def test_every_frame_shows_its_own_map(run: Path, talk: Path, tmp_path: Path) -> None:
    film = render(run, tmp_path / "film.mp4", style="heatmap", **LOSSLESS)
    for number, (luma, _, _) in enumerate(films_planes(film)):
        columns = np.flatnonzero(luma.max(axis=0) == luma.max())
        assert columns.mean() == pytest.approx((number % 16 + 0.5) * 10, abs=6)


def test_samples_far_from_the_map_s_mass_are_those_of_the_source(run: Path, talk: Path, tmp_path: Path) -> None:
    film = render(run, tmp_path / "film.mp4", **LOSSLESS)
    before = [plane_views(frame.picture) for frame in decode(talk, rotate=False) if frame.picture is not None]
    for number, (after, source) in enumerate(zip(films_planes(film), before, strict=True)):
        far = slice(0, 50) if number % 16 > 8 else slice(130, 160)
        np.testing.assert_array_equal(after[0][:, far], source[0][:, far])
        far_chroma = slice(far.start // 2, far.stop // 2)
        np.testing.assert_array_equal(after[1][:, far_chroma], source[1][:, far_chroma])
        assert 0.05 < (after[0] != source[0]).mean() < 0.6


@pytest.mark.parametrize("rotation", [-90, 180, 90])
def test_turned_videos_stay_turned_and_maps_lie_as_shown(tmp_path: Path, rotation: int) -> None:
    talk = write_talk(tmp_path / "turned.mp4", 6, rotation=rotation)
    make_run(talk, tmp_path / "run")
    film = render(tmp_path / "run", tmp_path / "film.mp4", style="heatmap", **LOSSLESS)
    for frame in decode(film):
        assert frame.rgb is not None
        height, width = frame.rgb.shape[:2]
        assert (height, width) == ((96, 160) if rotation == 180 else (160, 96))
        light = frame.rgb.sum(axis=2).astype(float)
        y, x = np.unravel_index(light.argmax(), light.shape)
        assert (y / height, x / width) == pytest.approx((5.5 / 9, (frame.index + 0.5) / 16), abs=0.1)


def test_holes_are_shown_plain_and_keep_their_number_and_time(tmp_path: Path) -> None:
    video = write_film(tmp_path / "damaged.mp4", 12, codec="mjpeg")
    destroy_packets(video, [5])
    index = make_run(video, tmp_path / "run", holes=(5,))
    film = render(tmp_path / "run", tmp_path / "film.mp4", **LOSSLESS)
    assert times(film) == index.pts.tolist() and len(times(film)) == 12
    before = list(decode(video, rotate=False))
    assert [frame.index for frame in before if frame.hole] == [5]
    assert changed(film, video, 4) > 0.05
    picture = before[5].picture
    assert picture is not None
    np.testing.assert_array_equal(films_planes(film)[5][0], plane_views(picture)[0])


def test_between_computed_frames_maps_are_interpolated_in_time_held_or_left_out(talk: Path, tmp_path: Path) -> None:
    index = make_run(talk, tmp_path / "run", every=4)
    with open_run(tmp_path / "run") as opened:
        maps = opened[talk.name]
        seconds = index.pts_seconds
        weight = (seconds[6] - seconds[4]) / (seconds[8] - seconds[4])
        assert weight != pytest.approx(0.5, abs=0.01)  # a variable rate
        density = {k: np.exp(log_bump(k)) * log_bump(k).size for k in (4, 8)}
        mixed = Densities(maps, index, "interpolate").at(6)
        np.testing.assert_allclose(mixed, density[4] * (1 - weight) + density[8] * weight, rtol=0.02, atol=1e-3)
        held = Densities(maps, index, "hold").at(6)
        np.testing.assert_allclose(held, density[4], rtol=0.02, atol=1e-3)
        assert Densities(maps, index, "none").at(6) is None
        assert Densities(maps, index, "interpolate").at(39) is not None  # held behind the last computed frame
    film = render(tmp_path / "run", tmp_path / "film.mp4", between="none", **LOSSLESS)
    assert [changed(film, talk, k) > 0 for k in range(4, 9)] == [True, False, False, False, True]


def test_beside_a_hole_the_other_map_is_held(talk: Path, tmp_path: Path) -> None:
    index = make_run(talk, tmp_path / "run", every=4, holes=(8,))
    with open_run(tmp_path / "run") as opened:
        densities = Densities(opened[talk.name], index, "interpolate")
        np.testing.assert_array_equal(densities.at(6), densities.at(4))
        np.testing.assert_array_equal(densities.at(10), densities.at(12))
        assert densities.at(8) is None


def test_one_scale_serves_the_whole_film_and_noise_is_not_stretched(run: Path) -> None:
    with open_run(run) as opened:
        densities = Densities(opened[opened.videos[0]], index_of(run), "interpolate")
        peaks = [float(np.exp(log_bump(k)).max()) * 144 for k in range(N_FRAMES)]
        assert film_maximum(densities) == pytest.approx(np.quantile(peaks, 0.95), rel=0.01)
        assert film_maximum(densities) > FLAT


@pytest.mark.parametrize("long_side", [None, 80])
def test_a_priority_map_is_shown_as_the_density_it_becomes(talk: Path, tmp_path: Path, long_side: int | None) -> None:
    request = Request(model=two_passes.__file__, options={"derived": False}, long_side=long_side, stop=6)
    make_plan([talk], tmp_path / "run", request)
    infer(tmp_path / "run", 0, device="cpu")
    with open_run(tmp_path / "run") as opened:
        maps = opened[talk.name]
        seen = (96, 160) if long_side is None else (48, 80)
        expected = np.exp(maps.log_density(4, size=seen)) * (seen[0] * seen[1])
        shown = Densities(maps, index_of(tmp_path / "run"), "none").at(4)
        np.testing.assert_allclose(shown, expected, rtol=1e-3)
    film = render(tmp_path / "run", tmp_path / "film.mp4", stop=6, **QUICK)
    assert changed(film, talk, 4) > 0.05


def test_a_part_of_a_film_begins_at_zero(run: Path, talk: Path, tmp_path: Path) -> None:
    film = render(run, tmp_path / "film.mp4", start=10, stop=30, **QUICK)
    pts = index_of(run).pts
    assert times(film) == (pts[10:30] - pts[10]).tolist()
    whole, part = ([data for data, *_ in copied_packets(path)[0]] for path in (talk, film))
    first = whole.index(part[1]) - 1  # the first one may be silent, as others are
    assert part == whole[first : first + len(part)] and 0 < first < len(whole) - len(part)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("vp9_odd", ".mp4"),
        ("h264_10bit", ".mp4"),
        ("h264_422", ".mkv"),
        ("gray_ffv1", ".mp4"),
        ("anim_gif", ".mp4"),
        ("ts_wrap", ".mp4"),
        ("ts_jump_back", ".mp4"),
        ("dup_pts", ".mkv"),
        ("resize", ".mp4"),
        ("edit_skip", ".mp4"),
    ],
)
def test_awkward_videos_keep_their_frames_and_size(tmp_path: Path, name: str, suffix: str) -> None:
    video = tmp_path / CASES[name].file
    CASES[name].write(video)
    index = make_run(video, tmp_path / "run")
    film = render(tmp_path / "run", tmp_path / f"film{suffix}", **QUICK)
    with av.open(str(film)) as container:
        shown = [(picture.width, picture.height, picture.time) for picture in container.decode(video=0)]
    assert {size[:2] for size in shown} == {(index.width, index.height)}
    expected = (rising_pts(index) - min(0, int(index.pts[0]))) * float(Fraction(*index.time_base))
    assert [time for *_, time in shown] == pytest.approx(expected.tolist(), abs=6e-4 if suffix == ".mkv" else 1e-6)


def test_rising_times_are_the_video_s_own_where_they_rise(run: Path) -> None:
    index = index_of(run)
    np.testing.assert_array_equal(rising_pts(index), index.pts)
    assert (np.diff(index.pts) != index.pts[1] - index.pts[0]).any()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_stop_leaves_nothing_behind(run: Path, tmp_path: Path, jobs: int) -> None:
    def stop() -> str:
        return "SIGTERM" if list(tmp_path.rglob("*.mp4")) else ""  # once there is something to leave behind

    with pytest.raises(Stopped, match="SIGTERM"):
        render(run, tmp_path / "film.mp4", jobs=jobs, should_stop=stop, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_an_old_film_stays_when_a_new_one_is_stopped(run: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"old")
    with pytest.raises(Stopped):
        render(run, film, should_stop=lambda: True, **QUICK)
    assert film.read_bytes() == b"old"


def test_a_full_disk_is_a_write_error_without_debris(run: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=40k")
    with pytest.raises(WriteError, match="disk is full"):
        render(run, disk / "film.mp4", **LOSSLESS)
    assert list(disk.iterdir()) == []


def test_a_folder_that_is_missing_is_a_write_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="folder does not exist"):
        render(run, tmp_path / "no" / "film.mp4", **QUICK)


def test_what_cannot_be_meant_is_refused(run: Path, talk: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the video itself"):
        render(run, talk)
    with pytest.raises(UsageError, match=r"\.mkv"):
        render(run, tmp_path / "film.avi")
    with pytest.raises(UsageError, match="no such video"):
        render(run, tmp_path / "film.mp4", video="other.mp4")
    with pytest.raises(UsageError, match="no frames"):
        render(run, tmp_path / "film.mp4", start=40)
    with pytest.raises(ValueError, match="jobs"):
        render(run, tmp_path / "film.mp4", jobs=0)
    with pytest.raises(ValueError, match="mosaic"):
        render(run, tmp_path / "film.mp4", style="mosaic")  # pyright: ignore[reportArgumentType]


def test_a_changed_video_is_refused(talk: Path, tmp_path: Path) -> None:
    video = tmp_path / "talk.mp4"
    video.write_bytes(talk.read_bytes())
    make_run(video, tmp_path / "run")
    video.write_bytes(talk.read_bytes() + b"x")
    with pytest.raises(PlanMismatch, match="changed"):
        render(tmp_path / "run", tmp_path / "film.mp4")


def test_progress_counts_every_frame(run: Path, tmp_path: Path) -> None:
    class Counting(Progress):
        seen = 0

        def update(self, done: int, meter: object = None) -> None:
            self.seen = max(self.seen, done)

    for jobs in (1, 2):
        counting = Counting(quiet=True)
        render(run, tmp_path / f"{jobs}.mp4", jobs=jobs, progress=counting, **QUICK)
        assert counting.seen == N_FRAMES


def test_gaze_number_and_time_are_drawn_where_they_belong(run: Path, tmp_path: Path) -> None:
    gaze = tmp_path / "gaze.csv"
    gaze.write_text("subject,t_seconds,x_px,y_px,duration_s\na,0,120,20,9\n")
    options = LOSSLESS | {"between": "none", "stop": 4}
    plain = films_planes(render(run, tmp_path / "plain.mp4", **options))
    ringed = films_planes(render(run, tmp_path / "ringed.mp4", gaze=gaze, **options))
    noted = films_planes(render(run, tmp_path / "noted.mp4", frame_number=True, timestamp=True, **options))
    for before, ring, note in zip(plain, ringed, noted, strict=True):
        rows, columns = np.nonzero(ring[0] != before[0])
        assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((120, 20), abs=0.6)
        rows, columns = np.nonzero(note[0] != before[0])
        assert rows.max() < 24 and columns.min() < 8
    assert (noted[0][0] != noted[1][0]).any()


def test_a_run_compared_with_itself_is_the_film_in_gray(run: Path, talk: Path, tmp_path: Path) -> None:
    film = render(run, tmp_path / "film.mp4", compare=run, **LOSSLESS)
    assert changed(film, talk, 5) == 0
    assert {int(sample) for planes in films_planes(film) for plane in planes[1:] for sample in np.unique(plane)} == {
        128
    }
    with pytest.raises(UsageError, match="no mass to draw contours"):
        render(run, tmp_path / "film.mp4", compare=run, style="contour")


@pytest.mark.parametrize("style", ["heatmap", "contour"])
def test_the_density_of_gaze_takes_the_place_of_the_model_s(run: Path, talk: Path, tmp_path: Path, style: str) -> None:
    gaze = tmp_path / "gaze.csv"
    gaze.write_text("subject,t_seconds,x_px,y_px,duration_s\na,0.5,120,20,0.3\n")
    film = render(run, tmp_path / "film.mp4", gaze=gaze, gaze_density="6px", style=style, legend=True, **LOSSLESS)
    index = index_of(run)
    frame = int(np.searchsorted(index.pts_seconds, index.pts_seconds[0] + 0.6))
    luma = films_planes(film)[frame][0][:60].astype(float)
    if style == "heatmap":
        y, x = np.unravel_index(luma.argmax(), luma.shape)
        assert (x, y) == pytest.approx((120, 20), abs=4)
    else:
        assert changed(film, talk, frame) > changed(film, talk, 0) > 0  # at first the legend alone


def test_a_clock_shows_what_a_time_option_takes() -> None:
    assert [clock(seconds) for seconds in (0, 62.5, 3599.9996, -0.0001, -0.5)] == [
        "0:00:00.000",
        "0:01:02.500",
        "1:00:00.000",
        "0:00:00.000",
        "-0:00:00.500",
    ]
