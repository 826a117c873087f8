"""Means over intervals weigh every clip by the time it shares with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsal.errors import MissingInput, UsageError
from streamsal.vectors.intervals import Aggregation, Means, Vectors, aggregated, frame_lines, read_intervals

WIDTH = 3


def make_vectors(
    starts: list[float], length: float, features: np.ndarray | None = None, more: dict[str, np.ndarray] | None = None
) -> Vectors:
    start = np.array(starts, np.float64)
    n = len(start)
    return Vectors(
        video="talk.mp4",
        features=np.arange(n * WIDTH, dtype=np.float32).reshape(n, WIDTH) if features is None else features,
        start_seconds=start,
        end_seconds=start + length,
        frames=np.arange(n * 4).reshape(n, 4),
        valid=np.ones(n, np.float32),
        facts={"model": "x3d_s", "stride": "0.5s"},
        more=more or {},
    )


def means(vectors: Vectors, how: str | Aggregation, **options) -> Means:
    found = aggregated(vectors, how, **options)
    assert isinstance(found, Means)
    return found


@st.composite
def clips(draw: st.DrawFn) -> Vectors:
    """Windows of one length, overlapping or with gaps between them, some of them without a vector."""
    steps = draw(st.lists(st.floats(0, 4), min_size=1, max_size=12))
    vectors = make_vectors(list(draw(st.floats(-5, 1e4)) + np.cumsum(steps)), draw(st.floats(0.01, 5)))
    value = st.floats(-1e6, 1e6, width=32)
    rows = draw(
        st.lists(st.tuples(value, value, value), min_size=len(steps), max_size=len(steps)).map(
            lambda rows: np.array(rows, np.float32)
        )
    )
    rows[draw(st.lists(st.booleans(), min_size=len(steps), max_size=len(steps)))] = np.nan
    vectors.features[:] = rows
    return vectors


seconds = st.floats(0.05, 20)


@settings(deadline=None)
@given(clips(), seconds)
def test_a_mean_is_the_sum_of_the_clips_times_the_seconds_they_share_with_the_interval(
    vectors: Vectors, length: float
) -> None:
    found = means(vectors, f"interval:{length!r}")
    for row, (low, high) in enumerate(found.intervals):
        weights = [
            max(0.0, min(end, high) - max(start, low)) * (not np.isnan(vector).any())
            for start, end, vector in zip(vectors.start_seconds, vectors.end_seconds, vectors.features, strict=True)
        ]
        assert found.clips[row] == np.count_nonzero(weights)
        assert found.weight[row] == pytest.approx(sum(weights))
        if not any(weights):
            assert np.isnan(found.features[row]).all()
        else:
            expected = np.nansum(vectors.features.astype(np.float64) * np.array(weights)[:, None], 0) / sum(weights)
            np.testing.assert_allclose(found.features[row], expected, rtol=1e-6, atol=1e-3)


@settings(deadline=None)
@given(clips(), seconds)
def test_intervals_follow_each_other_from_the_first_clip_to_the_end_of_the_last(
    vectors: Vectors, length: float
) -> None:
    found = means(vectors, f"interval:{length!r}")
    assert found.start_seconds[0] == vectors.start_seconds[0]
    assert found.end_seconds[-1] == vectors.end_seconds.max()
    np.testing.assert_array_equal(found.start_seconds[1:], found.end_seconds[:-1])
    lasts = found.end_seconds - found.start_seconds
    np.testing.assert_allclose(lasts[:-1], length, atol=1e-6)
    assert 0 < lasts[-1] <= length * (1 + 1e-5)
    assert len(found.features) == len(found.intervals) == len(found.clips) == len(found.weight)


@settings(deadline=None)
@given(clips(), seconds)
def test_every_second_of_every_clip_with_a_vector_is_counted_once(vectors: Vectors, length: float) -> None:
    found = means(vectors, f"interval:{length!r}")
    known = ~np.isnan(vectors.features).any(1)
    assert found.weight.sum() == pytest.approx((vectors.end_seconds - vectors.start_seconds)[known].sum())


@settings(deadline=None)
@given(clips(), seconds, st.floats(-(2.0**99), 2.0**99, width=32))
def test_constant_features_stay_what_they_are(vectors: Vectors, length: float, value: float) -> None:
    vectors.features[~np.isnan(vectors.features)] = value
    for how in (f"interval:{length!r}", "video"):
        found = means(vectors, how, statistics=("max",))
        touched = found.clips > 0
        np.testing.assert_array_equal(found.features[touched], np.float32(value))
        np.testing.assert_array_equal(found.more["features_max"][touched], np.float32(value))
        assert np.isnan(found.features[~touched]).all()
        assert found.facts["rows_without_clips"] == np.count_nonzero(~touched)


@settings(deadline=None)
@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=WIDTH, max_size=WIDTH), seconds, st.floats(0.01, 5))
def test_of_one_clip_every_mean_is_that_clip(values: list[float], length: float, lasts: float) -> None:
    vectors = make_vectors([1.5], lasts, np.array([values], np.float32))
    for how in (f"interval:{length!r}", "video"):
        found = means(vectors, how, statistics=("std",))
        np.testing.assert_array_equal(found.features, np.repeat(vectors.features, len(found.intervals), 0))
        np.testing.assert_array_equal(found.more["features_std"], 0)


def test_clips_by_themselves_are_what_they_were() -> None:
    vectors = make_vectors([0, 1], 2)
    assert aggregated(vectors, "clip") is vectors


def test_a_video_is_the_plain_mean_of_its_clips_and_ends_with_the_last() -> None:
    features = np.array([[0, 1, 2], [np.nan] * 3, [4, 5, 9]], np.float32)
    found = means(make_vectors([2, 3, 4.5], 2, features), "video", statistics=("max", "std"))
    np.testing.assert_array_equal(found.intervals, [[2, 6.5]])
    np.testing.assert_array_equal(found.features, [[2, 3, 5.5]])
    np.testing.assert_array_equal(found.more["features_max"], [[4, 5, 9]])
    np.testing.assert_array_equal(found.more["features_std"], [[2, 2, 3.5]])
    assert found.clips.tolist() == [2] and found.weight.tolist() == [2]
    assert found.facts["aggregate"] == "video" and found.facts["model"] == "x3d_s"


def test_statistics_are_weighted_like_the_mean() -> None:
    vectors = make_vectors([0, 1], 2, np.array([[0] * WIDTH, [3] * WIDTH], np.float32))
    found = means(vectors, Aggregation(kind="interval", intervals=((0.0, 2.0),)), statistics=("std", "max"))
    np.testing.assert_allclose(found.features, 1)  # two seconds of the first, one of the second
    np.testing.assert_allclose(found.more["features_std"], np.sqrt(2), rtol=1e-6)
    np.testing.assert_array_equal(found.more["features_max"], 3)


def test_what_was_computed_beside_the_features_has_gaps_of_its_own() -> None:
    salient = np.array([[np.nan], [7.0], [9.0]], np.float32)
    found = means(make_vectors([0, 1, 2], 1, more={"features_salient": salient}), "interval:2")
    np.testing.assert_array_equal(found.more["features_salient"], [[7], [9]])
    np.testing.assert_array_equal(found.features[0], [1.5, 2.5, 3.5])


def test_the_span_of_the_video_reaches_beyond_its_clips() -> None:
    found = means(make_vectors([0.5], 2), "interval:1", span_seconds=(0.0, 4.2))
    np.testing.assert_allclose(found.intervals, [[0, 1], [1, 2], [2, 3], [3, 4], [4, 4.2]])
    assert found.clips.tolist() == [1, 1, 1, 0, 0] and found.facts["rows_without_clips"] == 2
    assert np.isnan(found.features[3:]).all()


def test_rounding_makes_no_interval_of_nothing() -> None:
    found = means(make_vectors([0.1], 0.2), "interval:0.1")  # 0.1 + 0.2 is a little more than 0.3
    assert len(found.features) == 2


def test_a_clip_without_a_duration_is_still_in_an_interval() -> None:
    picture = make_vectors([4.0], 0.0)
    for how in ("interval:2", "video", Aggregation(kind="interval", intervals=((3.0, 5.0),))):
        np.testing.assert_array_equal(means(picture, how).features, picture.features)


def test_a_video_without_clips_has_intervals_only_where_its_span_is_known() -> None:
    nothing = make_vectors([], 1)
    found = means(nothing, "interval:1", span_seconds=(0, 2))
    assert found.clips.tolist() == [0, 0] and np.isnan(found.features).all()
    assert np.isnan(means(nothing, "video", span_seconds=(0, 2)).features).all()
    with pytest.raises(ValueError, match="span_seconds"):
        aggregated(nothing, "video")


def test_rows_that_do_not_fit_are_refused() -> None:
    vectors = make_vectors([0, 1], 2)
    facts = {name: getattr(vectors, name) for name in Vectors.__dataclass_fields__}
    with pytest.raises(ValueError, match="2 rows of features, but 1 of valid"):
        Vectors(**{**facts, "valid": vectors.valid[:1]})
    with pytest.raises(ValueError, match="1 of features_salient"):
        Vectors(**{**facts, "more": {"features_salient": vectors.features[:1]}})
    with pytest.raises(ValueError, match="order"):
        Vectors(**{**facts, "start_seconds": vectors.start_seconds[::-1]})
    with pytest.raises(ValueError, match="rows, D"):
        Vectors(**{**facts, "features": vectors.valid})


@pytest.mark.parametrize("text", ["interval:0.5", "interval:0.5s"])
def test_seconds_are_understood(text: str) -> None:
    assert Aggregation.parse(text) == Aggregation(kind="interval", seconds=0.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "clips",
        "interval",
        "interval:",
        "interval:0",
        "interval:-1",
        "interval:nan",
        "interval:inf",
        "interval:a.txt",
    ],
)
def test_what_is_no_aggregate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="interval"):
        Aggregation.parse(text)


@pytest.mark.parametrize("heading", ["", "start,end\n", "\ufeffstart,end,label\n"])
def test_intervals_of_a_file_are_taken_as_they_are(tmp_path: Path, heading: str) -> None:
    path = tmp_path / "my intervals é.csv"
    path.write_text(heading + "3,4.5\r\n\r\n 0.0 , 10 ,smile\n", encoding="utf-8")
    assert read_intervals(path) == ((3.0, 4.5), (0.0, 10.0))
    found = means(make_vectors([0, 4], 4), f"interval:{path}")
    np.testing.assert_array_equal(found.intervals, [[3, 4.5], [0, 10]])
    np.testing.assert_allclose(found.features, [[1, 2, 3], [1.5, 2.5, 3.5]], rtol=1e-6)


@pytest.mark.parametrize(
    "text, says",
    [
        ("start,end\n", "no intervals"),
        ("0,1\n2\n", "line 2"),
        ("0,1\n2,2\n", "line 2"),
        ("0,1\n\nx,3\n", "line 3"),
        ("nan,1\n", "line 1"),
        ("0;1\n1;2\n", "line 2"),
    ],
)
def test_a_file_that_is_no_list_of_intervals_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "intervals.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"intervals.csv.*{says}"):
        read_intervals(path)


def test_a_file_of_intervals_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"absent\.csv"):
        Aggregation.parse(f"interval:{tmp_path}/absent.csv")
    (tmp_path / "sheet.csv").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(UsageError, match=r"sheet\.csv"):
        read_intervals(tmp_path / "sheet.csv")


def test_frame_lines_say_what_each_clip_is_made_of() -> None:
    vectors = make_vectors([0, 0.5], 2.002)
    assert list(frame_lines(vectors.start_seconds, vectors.end_seconds, vectors.frames)) == [
        "clip\tstart_seconds\tend_seconds\tframes",
        "0\t0.000000\t2.002000\t0 1 2 3",
        "1\t0.500000\t2.502000\t4 5 6 7",
    ]
