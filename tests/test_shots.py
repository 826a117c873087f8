"""Cuts are found exactly where they are; flashes, fast motion, noise and slow changes are none."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from streamsal.index import VideoIndex, index_video
from streamsal.shots import Small, cuts, difference, find_cuts, shots, small_picture

HEIGHT, WIDTH = 90, 160
REACH = 4  # of 25 frames per second


def scenery(number: int) -> np.ndarray:
    """(HEIGHT, 4 WIDTH, 3) uint8: smooth blobs in colors of their own, wide enough to pan over."""
    random = np.random.default_rng(number)
    coarse = random.uniform(0, 1, (8, 40, 3)) * random.uniform(100, 255, 3)
    rows, columns = np.linspace(0, 7, HEIGHT), np.linspace(0, 39, 4 * WIDTH)
    across = np.stack([[np.interp(columns, np.arange(40), line) for line in coarse[..., c]] for c in range(3)], -1)
    down = rows[:, None, None] - np.arange(8)[:, None]
    weights = np.maximum(0, 1 - np.abs(down[..., 0]))
    return np.einsum("hr,rwc->hwc", weights, across).astype(np.uint8)


def shot(number: int, n_frames: int, px_per_frame: int = 1) -> list[np.ndarray]:
    wide = scenery(number)
    return [wide[:, (k * px_per_frame) % (3 * WIDTH) :][:, :WIDTH] for k in range(n_frames)]


def found(pictures: Iterable[np.ndarray], reach: int = REACH) -> list[int]:
    return [number for number, _ in find_cuts(map(small_picture, pictures), reach)]


def test_a_cut_is_the_first_frame_of_the_new_shot() -> None:
    film = [*shot(1, 20), *shot(2, 15), *shot(3, 30)]
    assert found(film) == [20, 35]


@pytest.mark.parametrize("length", [2, 3, 4, 5, 6, 12])
def test_every_cut_between_short_shots_is_found(length: int) -> None:
    film = [picture for number in range(6) for picture in shot(number, length)]
    assert found(film) == [length * number for number in range(1, 6)]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_no_cut(length: int) -> None:
    film = shot(1, 40)
    for number in range(20, 20 + length):
        film[number] = np.full_like(film[number], 250)
    assert found(film) == []


def test_a_shot_behind_a_flash_is_found() -> None:
    film = [*shot(1, 20), np.full((HEIGHT, WIDTH, 3), 250, np.uint8), *shot(2, 20)]
    assert found(film) in ([20, 21], [21])


@pytest.mark.parametrize("px_per_frame", [4, 16, 40])
def test_fast_motion_is_no_cut(px_per_frame: int) -> None:
    assert found(shot(1, 40, px_per_frame)) == []


def test_a_sudden_pan_between_still_pictures_is_no_cut() -> None:
    wide = scenery(4)
    positions = [*[0] * 15, *range(0, 3 * WIDTH, 48), *[3 * WIDTH] * 15]
    assert found(wide[:, x:][:, :WIDTH] for x in positions) == []


def test_a_cut_within_fast_motion_is_found() -> None:
    assert found([*shot(1, 25, 8), *shot(2, 25, 8)]) == [25]


def test_noise_and_slow_changes_are_no_cuts() -> None:
    random = np.random.default_rng(0)
    noisy = [np.clip(p + random.normal(0, 12, p.shape), 0, 255).astype(np.uint8) for p in shot(1, 30)]
    fading = [(p * (k / 40)).astype(np.uint8) for k, p in enumerate(shot(1, 40))]
    plain = [np.full((HEIGHT, WIDTH, 3), (90, 120, 50 + 2 * k), np.uint8) for k in range(60)]
    pairs = zip(shot(1, 30), shot(2, 30), strict=True)
    dissolve = [(a * (1 - k / 30) + b * (k / 30)).astype(np.uint8) for k, (a, b) in enumerate(pairs)]
    assert [found(film) for film in (noisy, fading, plain, dissolve)] == [[], [], [], []]


def test_a_film_of_few_frames_is_looked_at_whole() -> None:
    assert found([]) == [] and found(shot(1, 1)) == [] and found([*shot(1, 1), *shot(2, 1)]) == [1]


def test_difference_is_0_for_equal_pictures_and_1_for_black_and_white() -> None:
    black, white = (small_picture(np.full((9, 7, 3), value, np.uint8)) for value in (0, 255))
    assert difference(black, black) == 0 and difference(black, white) == pytest.approx(1)


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (90, 160), (143, 255)])
def test_pictures_of_any_size_have_mean_colors_and_shares_that_sum_to_1(size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    small: Small = small_picture(rgb)
    assert small.histogram.sum() == pytest.approx(1) and small.histogram.shape == (729,)
    rows, columns = (
        np.diff(np.unique(np.arange(n + 1) * extent // n)) for n, extent in zip((18, 32), size, strict=True)
    )
    mean = np.einsum("rwc,r,w->c", small.cells, rows, columns) / (size[0] * size[1])
    np.testing.assert_allclose(mean, rgb.mean((0, 1)) / 255, atol=1e-5)


CUTS = [30, 47, 48, 90, 131]
FLASH, PAN = 70, range(100, 112)


def write_cut_film(path: Path) -> None:
    """160 frames with hard cuts at `CUTS`, a flash of two frames, a fast pan and noise; B-frames and long GOPs."""
    random = np.random.default_rng(5)
    borders = [0, *CUTS, 160]
    film = [p for n, (a, b) in enumerate(pairwise(borders)) for p in shot(10 + n, b - a)]
    wide = scenery(10 + 4)
    for number in PAN:
        film[number] = wide[:, 10 + (number - PAN.start) * 24 :][:, :WIDTH]
    for number in range(PAN.stop, CUTS[4]):
        film[number] = wide[:, 10 + 11 * 24 :][:, :WIDTH]
    film[FLASH] = film[FLASH + 1] = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    options = {"crf": "20", "g": "250", "bf": "2", "sc_threshold": "0", "threads": "1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number, picture in enumerate(film):
            noisy = np.clip(picture + random.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(noisy, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    path = tmp_path_factory.mktemp("cuts") / "cuts.mp4"
    write_cut_film(path)
    return index_video(path)


def test_the_cuts_of_a_compressed_film_are_found_at_their_frames_and_nothing_else(film: VideoIndex) -> None:
    seen: list[int] = []
    all_cuts = cuts(film, on_frame=seen.append)
    assert [cut.frame for cut in all_cuts] == CUTS and seen == list(range(1, 161))
    assert [cut.pts_seconds for cut in all_cuts] == [pytest.approx(frame / 25) for frame in CUTS]
    assert all(0.27 <= cut.strength <= 1 for cut in all_cuts)


def test_a_part_of_a_film_has_the_cuts_that_the_whole_has_there(film: VideoIndex) -> None:
    whole = cuts(film, workers=2)
    for start, stop in ((0, 31), (30, 48), (48, 91), (31, 47), (71, 132), (40, None)):
        last = film.n_frames if stop is None else stop
        assert cuts(film, start=start, stop=stop) == [cut for cut in whole if start <= cut.frame < last]


def test_shots_tile_the_frames_that_are_asked_for(film: VideoIndex) -> None:
    assert shots(film) == [(0, 30), (30, 47), (47, 48), (48, 90), (90, 131), (131, 160)]
    assert shots(film, start=30, stop=60) == [(30, 47), (47, 48), (48, 60)]
    assert shots(film, start=5, stop=5) == []
