"""Sources of fixations: what a frame's history is, when a new fixation is chosen, and where."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streamsal.errors import BadInput, MissingInput, StreamsalError, UsageError
from streamsal.fixations import (
    COLUMNS,
    Cells,
    Central,
    Chosen,
    Generated,
    Given,
    History,
    Nothing,
    Scanpaths,
    Source,
    cells,
    densest,
    follow,
    parse,
    read,
    sampled,
    uniform,
)

HEIGHT, WIDTH = 60, 100
HEADER = ",".join(COLUMNS)
NONE = [np.nan, np.nan]


def begun(source: Source, scale: tuple[float, float] = (1.0, 1.0)) -> Scanpaths:
    return follow(source, height=HEIGHT, width=WIDTH, scale=scale)


def moving(frame: int, n: int = 1) -> np.ndarray:
    """(n, 15, 25) log densities with a peak that is somewhere else in every frame."""
    y, x = np.mgrid[:15, :25]
    log_density = -((x - 3 * frame % 25) ** 2 + (y - 2 * frame % 15) ** 2) / 20.0
    return np.repeat((log_density - np.logaddexp.reduce(log_density, axis=None))[None], n, axis=0)


def walk(scanpaths: Scanpaths, seconds: Sequence[float]) -> tuple[np.ndarray, list[int]]:
    """The histories of all frames (T, S, 4, 2), and the frames at which a fixation was chosen."""
    histories, chosen = [], []
    for frame, time in enumerate(seconds):
        histories.append(scanpaths.history(time).copy())
        if scanpaths.choosing:
            chosen.append(frame)
            scanpaths.look(moving(frame, len(histories[-1])))
    return np.stack(histories), chosen


def saved(path: Path, rows: Sequence[dict[str, float]]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def test_constant_sources_give_every_frame_the_same_history() -> None:
    middle, _ = walk(begun(Central()), [0.0, 0.04, 9.0])
    assert np.array_equal(middle, np.tile([[50.0, 30.0], NONE, NONE, NONE], (3, 1, 1, 1)), equal_nan=True)
    nothing, chosen = walk(begun(Nothing()), [0.0, 0.04])
    assert np.isnan(nothing).all() and not chosen
    two = History(x_px=np.array([8, 6, np.nan, np.nan]), y_px=np.array([4, 2, np.nan, np.nan]))
    found, _ = walk(begun(two, scale=(2.0, 4.0)), [0.0])
    assert np.array_equal(found[0], [[[4, 1], [3, 0.5], NONE, NONE]], equal_nan=True)


def test_histories_of_single_frames_come_in_their_order() -> None:
    xy = np.arange(24.0).reshape(3, 4, 2)
    scanpaths = begun(History(x_px=xy[..., 0], y_px=xy[..., 1]))
    found, _ = walk(scanpaths, [0.0, 0.5, 0.6])
    assert np.array_equal(found[:, 0], xy)
    with pytest.raises(ValueError, match="3 frames"):
        scanpaths.history(0.7)


@pytest.mark.parametrize(
    "x", [np.zeros(3), np.zeros((2, 3, 4)), np.array([0, 1, 2, np.nan]), np.array([0, 1, 2, np.inf])]
)
def test_a_history_that_is_none_is_refused(x: np.ndarray) -> None:
    with pytest.raises(ValueError, match="history"):
        History(x_px=x, y_px=np.zeros(4))


def test_a_fixation_is_chosen_at_each_multiple_of_the_interval() -> None:
    _, chosen = walk(begun(Generated(interval_seconds=0.28)), np.arange(50) / 25)
    assert chosen == [0, 7, 14, 21, 28, 35, 42, 49]
    _, chosen = walk(begun(Generated(interval_seconds=0.28)), 1.4 + np.arange(30) / 30)
    assert chosen == [0, 9, 17, 26]


def test_the_clock_is_the_presentation_time_and_a_picture_gets_one_fixation_at_most() -> None:
    seconds = [0.0, 0.01, 0.29, 0.3, 0.9, 0.91, 1.11, 1.13]
    _, chosen = walk(begun(Generated(interval_seconds=0.28)), seconds)
    assert chosen == [0, 2, 4, 7]  # the clock stands at 0, 0, 1, 1, 3, 3, 3, 4


def test_a_fixation_is_known_from_the_frame_on_at_which_it_has_ended() -> None:
    scanpaths = begun(Generated(choice="argmax", interval_seconds=0.1, inhibition_px=1.0))
    seconds = np.arange(12) * 0.05
    histories, chosen = walk(scanpaths, seconds)
    assert chosen == [0, 2, 4, 6, 8, 10]
    assert histories[0, 0].tolist()[0] == [50, 30]
    for before, after in pairwise(chosen):
        newest = densest(moving(before)[0], cells(WIDTH, 25), cells(HEIGHT, 15), histories[before, 0], 1.0)
        assert np.array_equal(histories[after, 0, 0], newest)
        assert np.array_equal(histories[after, 0, 1:], histories[before, 0, :-1], equal_nan=True)
        assert np.array_equal(histories[before, 0], histories[before + 1, 0], equal_nan=True)


@pytest.mark.parametrize(
    "source", [Generated(scanpaths=3, seed=5), Generated(choice="argmax")], ids=["sample", "argmax"]
)
def test_the_table_given_back_gives_the_same_histories(source: Generated, tmp_path: Path) -> None:
    seconds = 2.5 + np.cumsum(np.random.default_rng(0).uniform(0.01, 0.4, 60))
    scanpaths = begun(source, scale=(1.5, 1.25))
    histories, _ = walk(scanpaths, seconds)
    given = read(saved(tmp_path / "film.scanpath.csv", scanpaths.table()))
    again = begun(given, scale=(1.5, 1.25))
    repeated, _ = walk(again, seconds)
    np.testing.assert_allclose(repeated, histories, rtol=1e-15)
    assert again.table() == scanpaths.table()


@pytest.mark.parametrize(
    "source", [Central(), History(x_px=np.arange(4.0), y_px=np.ones(4))], ids=["central", "history"]
)
def test_the_table_of_a_constant_source_given_back_is_that_source(source: Source, tmp_path: Path) -> None:
    scanpaths = begun(source)
    histories, _ = walk(scanpaths, [0.5, 0.6])
    repeated, _ = walk(begun(read(saved(tmp_path / "film.csv", scanpaths.table()))), [0.5, 0.6])
    assert np.array_equal(repeated, histories, equal_nan=True)


def test_the_same_seed_gives_the_same_scanpaths_and_another_seed_others() -> None:
    seconds = np.arange(100) / 25

    def run(**how: int) -> np.ndarray:
        return walk(begun(Generated(**how)), seconds)[0]

    assert np.array_equal(run(scanpaths=4, seed=1), run(scanpaths=4, seed=1), equal_nan=True)
    assert np.array_equal(run(scanpaths=4, seed=1)[:, :2], run(scanpaths=2, seed=1), equal_nan=True)
    assert not np.array_equal(run(seed=1), run(seed=2), equal_nan=True)
    last = run(scanpaths=4, seed=1)[-1]
    assert len({tuple(map(tuple, history)) for history in last}) == 4


def test_random_numbers_depend_on_their_key_alone() -> None:
    assert uniform(7, 3, 5) == 0.773387051932589  # for ever: stored scanpaths can be made again
    drawn = [uniform(7, scanpath, number) for scanpath in range(30) for number in range(30)]
    assert len(set(drawn)) == 900
    assert abs(np.mean(drawn) - 0.5) < 0.05


def test_samples_follow_the_density_over_pixels() -> None:
    x, y = cells(11, 3), cells(7, 2)  # cells of 4, 4, 3 and 4, 3 pixels
    assert x.width_px.tolist() == [4, 4, 3] and y.width_px.tolist() == [4, 3]
    assert x.middle_px.tolist() == [2, 6, 9.5] and y.middle_px.tolist() == [2, 5.5]
    per_pixel = np.array([[1.0, 2, 0], [4, 1, 3]])
    mass = per_pixel * np.outer(y.width_px, x.width_px)
    n, counts = 4000, dict.fromkeys([(a, b) for b in y.middle_px for a in x.middle_px], 0)
    for number in range(n):
        with np.errstate(divide="ignore"):
            counts[sampled(np.log(per_pixel), x, y, uniform(1, 0, number))] += 1
    expected = (mass / mass.sum() * n).ravel()
    found = np.array(list(counts.values()))
    assert found[2] == 0  # where nobody looks
    seen = expected > 0
    chi_square = ((found - expected)[seen] ** 2 / expected[seen]).sum()
    assert chi_square < 18.5  # 4 degrees of freedom: by chance once in a thousand seeds


def test_the_smallest_and_the_largest_share_fall_on_cells_that_have_mass() -> None:
    x, y = cells(8, 4), cells(2, 1)
    with np.errstate(divide="ignore"):
        log_density = np.log(np.array([[0.0, 0.3, 0.7, 0.0]], np.float32))
    assert sampled(log_density, x, y, 0.0) == (3, 1)
    assert sampled(log_density, x, y, 1.0) == (5, 1)


def test_argmax_does_not_return_to_the_last_four_fixations() -> None:
    scanpaths = follow(Generated(choice="argmax", interval_seconds=0.1, inhibition_px=40), height=300, width=500)
    y, x = np.mgrid[:75, :125]
    peaks = [(20, 20, 3.0), (60, 100, 2.9), (15, 90, 2.8), (55, 30, 2.7), (40, 65, 2.6), (5, 5, 2.5)]
    density = sum(height * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 50) for py, px, height in peaks)
    for frame in range(40):
        scanpaths.history(frame * 0.1)
        scanpaths.look(np.log(density)[None])
    places = np.array([(row["x_px"], row["y_px"]) for row in scanpaths.table()])
    assert len(places) == 40
    for number in range(1, len(places)):
        before = places[max(0, number - 4) : number]
        assert np.linalg.norm(before - places[number], axis=1).min() > 40
    assert len({tuple(place) for place in places[1:]}) >= 5


def test_argmax_leaves_a_place_that_was_looked_at_even_in_a_flat_map() -> None:
    x, y = cells(4, 1), cells(8, 2)
    found = densest(np.zeros((2, 1)), x, y, np.array([[2.0, 2.0], NONE, NONE, NONE]), 1e4)
    assert found == (2, 6)


def test_a_frame_sees_the_last_four_fixations_that_have_ended() -> None:
    rows = np.array([[0.0, 0.2, 1, 10], [0.2, 0.5, 2, 20], [0.5, 0.7, 3, 30], [0.8, 0.9, 4, 40], [1.0, 1.1, 5, 50]])
    scanpaths = begun(Given(scanpaths=(rows, rows[3:])))
    x = {time: scanpaths.history(time)[..., 0].tolist() for time in (0.1, 0.2, 0.69, 0.95, 1.1, 9)}
    nan = pytest.approx(np.nan, nan_ok=True)
    assert x[0.1] == [[nan] * 4, [nan] * 4]
    assert x[0.2] == [[1, nan, nan, nan], [nan] * 4]
    assert x[0.69] == [[2, 1, nan, nan], [nan] * 4]
    assert x[0.95] == [[4, 3, 2, 1], [4, nan, nan, nan]]
    assert x[1.1] == [[5, 4, 3, 2], [5, 4, nan, nan]]
    assert x[9] == [[5, 4, 3, 2], [5, 4, nan, nan]]


def test_a_table_of_gaze_may_have_its_columns_in_any_order_and_more_of_them(tmp_path: Path) -> None:
    path = tmp_path / "gaze.csv"
    path.write_bytes(
        b"\xef\xbb\xbfx_px, y_px,pupil,start_seconds,end_seconds,scanpath\r\n"
        b"1,2,,-0.1,0.2,anna\r\n3,4,,0,0.1,ben\r\n5,6,,0.2,0.3,anna\r\n"
    )
    given = read(path)
    assert [rows.tolist() for rows in given.scanpaths] == [[[-0.1, 0.2, 1, 2], [0.2, 0.3, 5, 6]], [[0, 0.1, 3, 4]]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column start_seconds"),
        ("start_seconds,end_seconds,x_px,y\n0,1,2,3\n", "no column y_px"),
        (f"{HEADER}\n", "no fixation"),
        (f"{HEADER}\n0,1,2,3\n1,2,a,3\n", r"line 3 of .*gaze\.csv: x_px is 'a'"),
        (f"{HEADER}\n0,1,2\n", r"line 2 .*y_px is None"),
        (f"{HEADER}\n0,1,2,nan\n", r"line 2 .*y_px is nan"),
        (f"{HEADER}\n0,inf,2,3\n", r"line 2 .*end_seconds is inf"),
        (f"{HEADER}\n1,0.5,2,3\n", r"line 2 .*ends at 0.5 s, before it begins at 1 s"),
        (f"{HEADER}\n1,2,2,3\n0,1,2,3\n", r"line 3 .*earlier than the one above"),
        (f"{HEADER}\n1,3,2,3\n2,2.5,2,3\n", r"line 3 .*earlier than the one above"),
        ("\0\xff", "no column|no table"),
    ],
)
def test_a_table_that_is_no_gaze_is_refused_naming_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "gaze.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadInput, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(MissingInput, match=str(path)):
            read(path)


def test_texts_of_the_command_line_name_their_source(tmp_path: Path) -> None:
    assert parse("central") == Central()
    assert parse("none") == Nothing()
    assert parse("generated") == Generated()
    assert parse("generated", scanpaths=8, seed=3) == Generated(scanpaths=8, seed=3)
    assert parse("generated:argmax") == Generated(choice="argmax")
    path = tmp_path / "gaze.csv"
    path.write_text(f"{HEADER}\n0,1,2,3\n")
    given = parse(str(path))
    assert isinstance(given, Given) and given.name == str(path)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: parse("centre"), "'centre' is none of central"),
        (lambda: parse("gaze.txt"), "csv"),
        (lambda: parse("central", scanpaths=2), "--scanpaths is for sampled"),
        (lambda: parse("none", seed=0), "--seed is for sampled"),
        (lambda: parse("generated:argmax", scanpaths=4), "--scanpaths is for sampled"),
        (lambda: Generated(choice="argmax", scanpaths=2), "one scanpath only"),
    ],
)
def test_options_that_would_do_nothing_are_refused(ask: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        ask()
    assert isinstance(caught.value, StreamsalError)


def test_generated_fixations_without_sense_are_refused() -> None:
    for how in ({"choice": "best"}, {"interval_seconds": 0.0}, {"scanpaths": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(how))):
            Generated(**how)  # type: ignore[arg-type]
    assert isinstance(begun(Generated()), Chosen) and isinstance(cells(4, 1), Cells)
