"""The comparison with the authors' package: its numbers, what it is done on, and what it says."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from films import write_film

from streamsal import selftest
from streamsal.errors import BadInput, MissingInput, UsageError

RGB = np.random.default_rng(5).integers(0, 256, (131, 160, 3), dtype=np.uint8)


def write_png(path: Path, rgb: np.ndarray) -> Path:
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png")
        stream.height, stream.width = rgb.shape[:2]
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_distances_are_those_of_the_densities() -> None:
    reference = np.log(np.array([[[0.5, 0.25, 0.25]], [[0.5, 0.5 - 1e-30, 1e-30]]], np.float32))
    ours = np.log(np.array([[[0.25, 0.5, 0.25]], [[0.5, 0.5 - 1e-30, 1e-30]]], np.float32))
    difference, kl_bits, sum_minus_one = selftest.distances(ours, reference)
    assert difference == pytest.approx(math.log(2))
    assert kl_bits == pytest.approx(0.5 * 1 + 0.25 * -1)
    assert abs(sum_minus_one) < 1e-6
    assert selftest.distances(ours + 0.01, ours)[2] == pytest.approx(math.expm1(0.01), rel=1e-5)


def test_a_difference_in_one_pixel_of_one_frame_is_found() -> None:
    reference = np.zeros((3, 4, 5), np.float32)
    ours = reference.copy()
    ours[1, 2, 3] = -0.5
    assert selftest.distances(ours, reference)[0] == 0.5
    assert math.isnan(selftest.distances(ours * np.nan, reference)[0])


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((100, 120), [(100, 120), (99, 119)]), ((99, 119), [(99, 119)]), ((101, 120), [(101, 120), (101, 119)])],
)
def test_pictures_are_compared_whole_and_with_odd_sides(shape: tuple[int, int], sizes: list[tuple[int, int]]) -> None:
    found = selftest.sizes("a.png", np.zeros((1, *shape, 3), np.uint8), 64)
    assert [frames.shape[1:3] for frames in found] == sizes


def test_odd_sides_below_the_least_are_left_out_and_smaller_pictures_refused() -> None:
    frames = np.zeros((1, 64, 80, 3), np.uint8)
    assert len(selftest.sizes("a.png", frames, 64)) == 1
    with pytest.raises(BadInput, match=r"a\.png is 80x64, and the model needs 65 both ways"):
        selftest.sizes("a.png", frames, 65)


def test_image_is_read_as_it_is(tmp_path: Path) -> None:
    np.testing.assert_array_equal(selftest.read_frames(write_png(tmp_path / "a.png", RGB)), RGB[None])


def test_first_frames_are_taken_of_a_video(tmp_path: Path) -> None:
    assert selftest.read_frames(write_film(tmp_path / "film.mp4", 5)).shape == (2, 64, 96, 3)


def test_picture_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"absent\.png"):
        selftest.read_frames(tmp_path / "absent.png")


def test_drawn_picture_is_the_same_every_time() -> None:
    first = selftest.drawn_picture()
    assert first.shape == (1, 360, 640, 3)
    assert first.std() > 10
    np.testing.assert_array_equal(first, selftest.drawn_picture())


def test_without_the_reference_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepgaze_pytorch", None)
    with pytest.raises(UsageError, match="pip install --group reference"):
        selftest.selftest("deepgaze_iie", weights="synthetic", device="cpu")


def test_model_that_has_no_reference_is_refused() -> None:
    with pytest.raises(UsageError, match="sigmotion has no reference backend"):
        selftest.selftest("sigmotion")


def row(program: selftest.Program, max_difference_nats: float, dtype: str = "fp32") -> selftest.Comparison:
    return selftest.Comparison(
        picture="a.png",
        height=100,
        width=120,
        center_bias="uniform",
        program=program,
        dtype=dtype,
        max_difference_nats=max_difference_nats,
        kl_bits=0.0,
        sum_minus_one=0.0,
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "good"),
    [
        (1e-7, 2e-5, True),  # within the tolerance
        (1e-7, 2.1e-5, False),
        (1e-5, 3.9e-5, True),  # rounding as theirs, on a large picture
        (1e-5, 4.1e-5, False),
        (1e-7, math.nan, False),
        (math.nan, 3e-5, False),
    ],
)
def test_verdict_is_on_every_pair_at_float32(theirs: float, ours: float, good: bool) -> None:
    sound = [row("reference", 1e-6), row("ours", 2e-6), row("ours", 0.3, "bf16")]
    pair = [row("reference", theirs), row("ours", ours)]
    assert selftest.within([*sound, *pair], 2e-5) is good
    assert selftest.within([*pair, *sound], 2e-5) is good
    assert selftest.largest([*sound, row("reference", 1e-7), row("ours", math.nan)], "reference") == 1e-6


@pytest.mark.needs_reference
@pytest.mark.parametrize("name", ["deepgaze_iie", "deepgaze_iii", "deepgaze_i"])
def test_ours_is_within_tolerance_of_the_reference(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, record = write_png(tmp_path / "a.png", RGB), tmp_path / "record.json"
    code = selftest.selftest(name, [picture], weights="synthetic", device="cpu", dtypes=("bf16",), output_json=record)
    out, _ = capsys.readouterr()
    assert code == 0, out
    facts = json.loads(record.read_text())
    assert (facts["model"], facts["weights"], facts["weights_sha256"]) == (name, "synthetic", None)
    assert facts["verdict"] == "within tolerance"
    rows = facts["comparisons"]
    assert [(row["height"], row["width"], row["dtype"]) for row in rows] == [
        (131, width, dtype) for width in (160, 159) for _ in range(2) for dtype in ("fp32", "fp32", "bf16")
    ]
    assert [row["program"] for row in rows] == ["reference", "ours", "ours"] * 4
    assert facts["max_difference_of_reference_nats"] == max(row["max_difference_nats"] for row in rows[::3]) <= 2e-5
    assert facts["max_difference_nats"] == max(row["max_difference_nats"] for row in rows[1::3]) <= 2e-5
    assert max(abs(row["sum_minus_one"]) for row in rows) < 1e-5
    assert all(abs(row["kl_bits"]) < 1e-6 for row in rows if row["dtype"] == "fp32")
    for text in ("a.png", "160x131", "159x131", "uniform", "reference fp32", "ours bf16", "verdict: within tolerance"):
        assert text in out


@pytest.mark.needs_reference
def test_outside_tolerance_is_said_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(selftest.TOLERANCE_NATS, "cpu", 0.0)
    monkeypatch.setattr(selftest, "OF_THEIR_ROUNDING", 0)
    assert selftest.selftest("deepgaze_i", [write_png(tmp_path / "a.png", RGB)], weights="synthetic", device="cpu") == 1
    assert "verdict: outside tolerance" in capsys.readouterr().out
