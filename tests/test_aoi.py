"""Areas of interest: outlines at any time, the cells they cover to the last share, and files that say what is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsal.aoi import Aoi, Coverage, KeyFrame, Kind, Outline, cover, read_aois, visits
from streamsal.errors import BadInput, MissingInput

SIZE = (48, 80)


def outline(kind: Kind, *numbers: float) -> Outline:
    return Outline(kind=kind, numbers=tuple(map(float, numbers)))


def moving(*keys: KeyFrame) -> Aoi:
    return Aoi(name="a", kind="rectangle", keys=keys)


def key(seconds: float, *numbers: float, hidden: bool = False) -> KeyFrame:
    return KeyFrame(seconds=seconds, numbers=tuple(map(float, numbers)), hidden=hidden)


def whole(covered: Coverage, grid: tuple[int, int]) -> np.ndarray:
    array = np.zeros(grid)
    array[covered.rows, covered.columns] = covered.share
    return array


def test_a_rectangle_covers_cells_with_the_share_of_their_area_inside() -> None:
    covered = cover(outline("rectangle", 1.5, 2, 2.25, 1.75), (6, 8), (6, 8))
    expected = np.zeros((6, 8))
    expected[2:4, 1:4] = np.outer([1, 0.75], [0.5, 1, 0.75])
    np.testing.assert_allclose(whole(covered, (6, 8)), expected)
    assert covered.area_fraction((6, 8)) == pytest.approx(2.25 * 1.75 / 48)


@given(
    box=st.tuples(*[st.floats(-30, 90)] * 2, *[st.floats(0.1, 120)] * 2),
    grid=st.sampled_from([SIZE, (24, 40), (7, 11), (1, 1)]),
)
def test_a_rectangle_has_its_area_on_every_grid_as_far_as_it_lies_in_the_frame(
    box: tuple[float, float, float, float], grid: tuple[int, int]
) -> None:
    x, y, width, height = box
    inside = max(0.0, min(x + width, 80) - max(x, 0)) * max(0.0, min(y + height, 48) - max(y, 0))
    covered = cover(outline("rectangle", *box), SIZE, grid)
    assert covered.area_fraction(grid) == pytest.approx(inside / (48 * 80), abs=1e-12)


@pytest.mark.parametrize("grid", [SIZE, (24, 40), (7, 11)])
def test_a_polygon_that_is_a_rectangle_covers_what_the_rectangle_does(grid: tuple[int, int]) -> None:
    # Its level edges lie between the lines on which polygons are cut, at a sixteenth of a cell.
    top, bottom = 2 * 48 / grid[0], 5.5 * 48 / grid[0]
    polygon = outline("polygon", 10.3, top, 60.9, top, 60.9, bottom, 10.3, bottom)
    rectangle = outline("rectangle", 10.3, top, 50.6, bottom - top)
    one, other = (whole(cover(each, SIZE, grid), grid) for each in (polygon, rectangle))
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_a_triangle_covers_half_of_every_cell_on_its_slope() -> None:
    covered = whole(cover(outline("polygon", 0, 0, 8, 8, 0, 8), (8, 8), (8, 8)), (8, 8))
    np.testing.assert_allclose(covered, np.tri(8) - np.eye(8) / 2, atol=1e-12)


def test_an_ellipse_has_its_area_and_its_symmetries() -> None:
    covered = whole(cover(outline("ellipse", 10, 8, 60, 32), SIZE, SIZE), SIZE)
    assert covered.sum() == pytest.approx(math.pi * 30 * 16, rel=2e-4)
    np.testing.assert_allclose(covered, covered[::-1], atol=1e-12)
    np.testing.assert_allclose(covered, covered[:, ::-1], atol=1e-12)


def test_the_inside_of_a_polygon_that_crosses_itself_is_where_an_odd_number_of_edges_is_to_the_left() -> None:
    bow_tie = outline("polygon", 0, 0, 8, 8, 8, 0, 0, 8)
    x, y = np.array([1.0, 7.0, 4.0, 4.0]), np.array([4.0, 4.0, 1.0, 7.0])
    assert bow_tie.contains(x, y).tolist() == [True, True, False, False]


@pytest.mark.parametrize("kind", ["rectangle", "ellipse", "polygon"])
def test_what_contains_points_agrees_with_what_covers_pixels(kind: Kind) -> None:
    numbers = (5.2, 3.1, 40.4, 30.7) if kind != "polygon" else (5.2, 3.1, 70.3, 20.9, 30.4, 44.2)
    covered = whole(cover(outline(kind, *numbers), SIZE, SIZE), SIZE)
    y, x = (axis.ravel() + 0.5 for axis in np.mgrid[: SIZE[0], : SIZE[1]])
    inside = outline(kind, *numbers).contains(x, y).reshape(SIZE)
    assert inside[covered == 1].all() and not inside[covered == 0].any()


def test_points_on_the_left_and_top_edge_are_inside_and_those_on_the_others_are_not() -> None:
    square = outline("rectangle", 2, 2, 4, 4)
    x, y = np.array([2.0, 6.0, 4.0, 4.0, np.nan]), np.array([4.0, 4.0, 2.0, 6.0, 4.0])
    assert square.contains(x, y).tolist() == [True, False, True, False, False]


def test_an_area_moves_linearly_between_key_frames() -> None:
    aoi = moving(key(1, 0, 0, 10, 10), key(3, 20, 40, 30, 10))
    found = [aoi.at(seconds, height=48, width=80) for seconds in (0.9, 1, 2, 3, 99)]
    assert found[0] is None
    assert [each.numbers for each in found[1:] if each] == [
        (0, 0, 10, 10),
        (10, 20, 20, 10),
        (20, 40, 30, 10),
        (20, 40, 30, 10),
    ]


def test_a_hidden_area_is_gone_until_its_next_key_frame() -> None:
    aoi = moving(key(1, 0, 0, 10, 10), key(2, 4, 0, 10, 10, hidden=True), key(3, 8, 0, 10, 10))
    there = {t: aoi.at(t, height=48, width=80) for t in (1.5, 2.0, 2.9, 3.0)}
    assert {t: each and each.numbers[0] for t, each in there.items()} == {1.5: 2, 2.0: None, 2.9: None, 3.0: 8}


def test_fractions_are_of_the_displayed_frame() -> None:
    aoi = Aoi(name="a", kind="polygon", unit="fraction", keys=(key(-math.inf, 0, 0, 0.5, 0, 0.5, 1),))
    found = aoi.at(0, height=48, width=80)
    assert found and found.numbers == (0, 0, 40, 0, 40, 48)


def seen(aoi: Aoi, t: list[float], x: list[float], duration: list[float]) -> tuple[list[bool], list[float]]:
    """Frames appear at 0, 1 and 2 s, the last one goes at 3 s."""
    inside, dwell = visits(
        aoi,
        np.array(t),
        np.array(x),
        np.full(len(t), 5.0),
        np.array(duration),
        pts_seconds=np.arange(3.0),
        end_seconds=3.0,
        height=48,
        width=80,
    )
    return inside.tolist(), dwell.round(9).tolist()


def test_a_fixation_dwells_in_a_static_area_as_long_as_it_lasts_while_frames_are_shown() -> None:
    static = moving(key(-math.inf, 0, 0, 10, 10))
    assert seen(static, [0.5, 0.5, 2.5, 9.0, -1.0], [5, 50, 5, 5, 5], [1, 1, 1, 1, 0.5]) == (
        [True, False, True, False, False],
        [1, 0, 0.5, 0, 0],
    )


def test_a_fixation_dwells_in_a_moving_area_in_the_frames_in_which_it_is_inside() -> None:
    passing = moving(key(0, 0, 0, 10, 10), key(2, 40, 0, 10, 10))  # at 0, 20 and 40 px in the three frames
    assert seen(passing, [0.25, 0.25, 1.5], [25, 5, 25], [2.0, 2.0, 0.0]) == ([True, True, True], [1, 0.75, 0])


JSON = """
{"unit": "px", "aois": [
  {"name": "screen", "rectangle": [10, 20, 30, 40]},
  {"name": "face", "video": "talk.mp4", "unit": "fraction", "ellipse": [0.1, 0.2, 0.3, 0.4]},
  {"name": "car", "keyframes": [
    {"seconds": 1, "polygon": [[0, 0], [10, 0], [0, 10]]},
    {"seconds": 2.5, "polygon": [[5, 0], [15, 0], [5, 10]]},
    {"seconds": 4, "hidden": true}]}]}
"""
CSV = """\
name,shape,x,y,width,height,points,unit,seconds,hidden,video
screen,rectangle,10,20,30,40,,,,,
face,ellipse,0.1,0.2,0.3,0.4,,fraction,,,talk.mp4
car,polygon,,,,,"0,0 10,0 0,10",,1,,
car,polygon,,,,,5 0; 15 0; 5 10,,2.5,,
car,,,,,,,,4,true,
"""


def test_json_and_csv_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(JSON)
    (tmp_path / "a.csv").write_text(CSV)
    found = read_aois(tmp_path / "a.json")
    assert found == read_aois(tmp_path / "a.csv")
    assert [(aoi.name, aoi.kind, aoi.unit, aoi.video, aoi.static) for aoi in found] == [
        ("screen", "rectangle", "px", None, True),
        ("face", "ellipse", "fraction", "talk.mp4", True),
        ("car", "polygon", "px", None, False),
    ]
    assert found[2].keys == (
        key(1, 0, 0, 10, 0, 0, 10),
        key(2.5, 5, 0, 15, 0, 5, 10),
        key(4, 5, 0, 15, 0, 5, 10, hidden=True),
    )


def test_areas_of_different_videos_may_have_one_name(tmp_path: Path) -> None:
    areas = [{"name": "a", "video": video, "rectangle": [0, 0, 1, 1]} for video in ("x.mp4", "y.mp4")]
    (tmp_path / "a.json").write_text(json.dumps(areas))
    assert [aoi.video for aoi in read_aois(tmp_path / "a.json")] == ["x.mp4", "y.mp4"]


def test_a_list_alone_is_a_file_of_areas_in_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"name": "a", "rectangle": [0, 0, 1, 1]}]))
    assert read_aois(tmp_path / "a.json") == [moving(key(-math.inf, 0, 0, 1, 1))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("{}", "the file: aois has to be a list"),
        ('{"aois": [], "units": "px"}', "the file: units is none of aois, unit"),
        ('[{"rectangle": [0, 0, 1, 1]}]', "entry 1 (None): name is missing"),
        ('[{"name": "a"}]', "entry 1 (a): has no shape"),
        ('[{"name": "a", "rectangle": [0, 0, 1]}]', "entry 1 (a): rectangle has to be [x, y, width, height]"),
        ('[{"name": "a", "rectangle": [0, "x", 1, 1]}]', "entry 1 (a): y is 'x', no number"),
        ('[{"name": "a", "rectangle": [0, 0, 1, -1]}]', "entry 1 (a): height is -1, not above 0"),
        ('[{"name": "a", "rectangle": [0, 0, 1, 1], "ellipse": [0, 0, 1, 1]}]', "entry 1 (a): has ellipse, rectangle"),
        ('[{"name": "a", "polygon": [[0, 0], [1, 1]]}]', "entry 1 (a): polygon has to be at least three points"),
        ('[{"name": "a", "polygon": [[0, 0], [1, 1], [1, null]]}]', "entry 1 (a): polygon is None, no number"),
        ('[{"name": "a", "circle": [0, 0, 1]}]', "entry 1 (a): circle is none of"),
        ('[{"name": "a", "unit": "cm", "rectangle": [0, 0, 1, 1]}]', "entry 1 (a): unit is 'cm'"),
        (
            '[{"name": "a", "rectangle": [0.1, 0, 1, 1]}]',
            "entry 1 (a): unit is px, but its numbers look like fractions",
        ),
        ('[{"name": "a", "unit": "fraction", "rectangle": [0, 0, 640, 1]}]', "unit is fraction, but 640 is no part"),
        ('[{"name": "a", "video": 3, "rectangle": [0, 0, 1, 1]}]', "entry 1 (a): video is 3, no name"),
        ('[{"name": "a", "rectangle": [0, 0, 1, 1]}, {"name": "a", "ellipse": [0, 0, 1, 1]}]', "two areas are named a"),
        (
            '[{"name": "a", "video": "x", "rectangle": [0, 0, 1, 1]}, {"name": "a", "rectangle": [0, 0, 1, 1]}]',
            "two areas are named a",
        ),
        ('[{"name": "a", "keyframes": [{"rectangle": [0, 0, 1, 1]}]}]', "entry 1 (a): seconds is missing"),
        ('[{"name": "a", "keyframes": []}]', "entry 1 (a): keyframes has to be a list"),
        (
            '[{"name": "a", "keyframes": [{"seconds": 1, "rectangle": [0, 0, 1, 1]}, {"seconds": 1, "hidden": true}]}]',
            "entry 1 (a), key frame 2: seconds is 1, not after",
        ),
        ('[{"name": "a", "keyframes": [{"seconds": 1, "hidden": "no", "rectangle": [0, 0, 1, 1]}]}]', "hidden is 'no'"),
        (
            '[{"name": "a", "keyframes": [{"seconds": 1, "polygon": [[0, 0], [1, 0], [1, 1]]},'
            ' {"seconds": 2, "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]}]}]',
            "entry 1 (a), key frame 2: polygon has 4 points and 3 before",
        ),
    ],
)
def test_a_bad_json_file_is_one_sentence_that_names_entry_and_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_aois(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and said in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no line"),
        ("name,shape,x,y,w,h\n", "the header line: w is none of"),
        ("name,shape,x,y,width,height\na,rectangle,1,2,3\n", "line 2 (a): height is missing"),
        ("name,shape,x,y,width,height\na,rectangle,1,2,3,4,5\n", "line 2 (a): has more fields"),
        ("name,shape,x,y,width,height\na,square,1,2,3,4\n", "line 2 (a): has square where one of"),
        ("name,shape,points\na,polygon,1 2 3 4 5\n", "line 2 (a): polygon has to be at least three points"),
        ("name,shape,x,y,width,height\na,ellipse,1,2,3,4\na,ellipse,1,2,3,4\n", "line 3 (a): seconds is missing"),
        (
            "name,shape,x,y,width,height,unit,seconds\na,ellipse,1,2,3,4,px,1\na,ellipse,1,2,3,4,fraction,2\n",
            "line 3 (a): unit has to be the same",
        ),
    ],
)
def test_a_bad_csv_file_is_one_sentence_that_names_line_and_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_aois(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and said in message and "\n" not in message


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"a\.json"):
        read_aois(tmp_path / "a.json")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"b\.csv cannot be read"):
        read_aois(tmp_path / "b.csv")
