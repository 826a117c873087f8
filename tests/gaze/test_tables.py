"""Exports of eye trackers, as their programs write them, are read to the number; bad tables are named by line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from streamsal.errors import BadInput, UsageError
from streamsal.gaze.read import read_gaze
from streamsal.gaze.table import Gaze
from streamsal.gaze.tables import Columns

SIZE = {"talk.mp4": (640, 360)}


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows(gaze: Gaze) -> list[tuple[float, ...]]:
    columns = (gaze.t_seconds, gaze.duration_s, gaze.x_px, gaze.y_px)
    return [tuple(round(float(value), 6) for value in row) for row in zip(*columns, strict=True)]


def test_our_own_table(tmp_path: Path) -> None:
    text = "video,subject,t_seconds,x_px,y_px,duration_s\ntalk.mp4,anna,0.5,10,20,0.25\ntalk.mp4,ben,1,11.5,0,0\n"
    gaze = read_gaze(written(tmp_path / "gaze.csv", text), size_px=SIZE)
    assert rows(gaze) == [(0.5, 0.25, 10, 20), (1, 0, 11.5, 0)]
    assert gaze.subject.tolist() == ["anna", "ben"] and not gaze.notes


def test_the_table_that_deepgaze_iii_takes(tmp_path: Path) -> None:
    text = "start_seconds,end_seconds,x_px,y_px,scanpath\n0.1,0.4,5,6,0\n0.4,0.7,7,8,1\n"
    gaze = read_gaze(written(tmp_path / "gaze.csv", text), size_px=SIZE)
    assert rows(gaze) == [(0.1, 0.3, 5, 6), (0.4, 0.3, 7, 8)] and gaze.subject.tolist() == ["0", "1"]


def test_separators_decimal_commas_gzip_and_utf16(tmp_path: Path) -> None:
    expected = [(0.5, 0.0, 10.25, 20.0)]
    tab = "t_seconds\tx_px\ty_px\n0,5\t10,25\t20\n"
    assert rows(read_gaze(written(tmp_path / "a.tsv", tab))) == expected
    assert rows(read_gaze(written(tmp_path / "b.csv", tab.replace("\t", ";")))) == expected
    assert rows(read_gaze(written(tmp_path / "c.csv", "T_Seconds, x_px, y_px\n0.5, 10.25, 20\n"))) == expected
    (tmp_path / "d.tsv.gz").write_bytes(gzip.compress(tab.encode()))
    assert rows(read_gaze(tmp_path / "d.tsv.gz")) == expected
    (tmp_path / "e.tsv").write_bytes(tab.encode("utf-16"))
    assert rows(read_gaze(tmp_path / "e.tsv")) == expected


def test_pupil_fixations_are_normalized_upwards_on_the_clock_of_the_world_camera(
    tmp_path: Path,
) -> None:
    written(tmp_path / "world_timestamps.csv", "# timestamps [seconds],pts\n1000.5,0\n1000.54,1\n")
    text = (
        "id,start_timestamp,duration,start_frame_index,norm_pos_x,norm_pos_y,confidence\n"
        "1,1000.75,200.0,6,0.25,0.75,0.99\n2,1001.5,100,25,1.0,0.0,0.9\n"
    )
    gaze = read_gaze(written(tmp_path / "fixations.csv", text), size_px=SIZE)
    assert rows(gaze) == [(0.25, 0.2, 160, 90), (1.0, 0.1, 640, 360)]
    assert gaze.notes == (
        "fixations.csv was taken for an export of pupil: time from start_timestamp, places from norm_pos_x",
    )
    (tmp_path / "world_timestamps.csv").unlink()
    with pytest.raises(UsageError, match="--gaze-start"):
        read_gaze(tmp_path / "fixations.csv", size_px=SIZE)
    assert rows(read_gaze(tmp_path / "fixations.csv", size_px=SIZE, start_seconds=1000.5)) == rows(gaze)


def test_pupil_gaze_on_a_surface_counts_only_on_it(tmp_path: Path) -> None:
    text = (
        "world_timestamp,world_index,gaze_timestamp,x_norm,y_norm,x_scaled,y_scaled,on_surf,confidence\n"
        "5,0,5.25,0.5,0.25,1,1,True,1\n5,0,5.3,1.5,0.5,1,1,False,1\n"
    )
    gaze = read_gaze(written(tmp_path / "gaze.csv", text), size_px=SIZE, start_seconds=5.0)
    assert rows(gaze) == [(0.25, 0, 320, 270)]


def test_pupil_fixations_on_a_surface_have_a_row_per_world_frame_and_count_once(tmp_path: Path) -> None:
    text = (
        "world_timestamp,world_index,fixation_id,start_timestamp,duration,norm_pos_x,norm_pos_y,on_surf\n"
        "5,0,7,5.0,300,0.4,0.5,True\n5.03,1,7,5.0,300,0.6,0.5,True\n5.4,9,8,5.4,100,0.5,0.5,True\n"
    )
    gaze = read_gaze(written(tmp_path / "fixations_on_surface_screen.csv", text), size_px=SIZE, start_seconds=5.0)
    assert rows(gaze) == [(0, 0.3, 320, 180), (0.4, 0.1, 320, 180)]


def test_pupil_cloud_gives_pixels_downwards_in_nanoseconds(tmp_path: Path) -> None:
    written(tmp_path / "world_timestamps.csv", "section id,recording id,timestamp [ns]\na,b,1700000000000000000\n")
    text = (
        "section id,fixation id,start timestamp [ns],end timestamp [ns],duration [ms],fixation x [px],fixation y [px]\n"
        "a,1,1700000000250000000,1700000000500000000,250,320.5,10\n"
    )
    ((t, duration, x, y),) = rows(read_gaze(written(tmp_path / "fixations.csv", text), size_px=SIZE))
    assert (x, y) == (320.5, 10)
    assert (t, duration) == pytest.approx((0.25, 0.25), abs=1e-6)


TOBII = (
    "Recording timestamp [{unit}]\tParticipant name\tRecording name\tPresented Media name\tEye movement type\t"
    "Eye movement type index\tFixation point X ({place})\tFixation point Y ({place})\n"
    "{t[0]}\tP1\tR1\t\tFixation\t1\t{x[0]}\t{y[0]}\n"  # before the film
    "{t[1]}\tP1\tR1\ttalk.mp4\tSaccade\t1\t\t\n"
    "{t[2]}\tP1\tR1\ttalk.mp4\tFixation\t2\t{x[0]}\t{y[0]}\n"
    "{t[3]}\tP1\tR1\ttalk.mp4\tFixation\t2\t{x[0]}\t{y[0]}\n"
    "{t[4]}\tP1\tR1\ttalk.mp4\tEyesNotFound\t1\t\t\n"
    "{t[5]}\tP1\tR1\ttalk.mp4\tFixation\t3\t{x[1]}\t{y[1]}\n"
    "{t[0]}\tP2\tR2\ttalk.mp4\tFixation\t1\t{x[1]}\t{y[1]}\n"
)


@pytest.mark.parametrize(("unit", "per_second"), [("ms", 1000), ("μs", 1_000_000)])
def test_tobii_exports_begin_with_the_media_and_name_their_unit(tmp_path: Path, unit: str, per_second: int) -> None:
    t = [round(seconds * per_second) for seconds in (2.0, 3.0, 3.1, 3.3, 3.4, 3.5)]
    text = TOBII.format(unit=unit, place="MCSnorm", t=t, x=("0.5", "0.25"), y=("0.5", "0.1"))
    gaze = read_gaze(written(tmp_path / "export.tsv", text), size_px=SIZE)
    assert rows(gaze) == [(0.1, 0.2, 320, 180), (0.5, 0, 160, 36), (0, 0, 160, 36)]
    assert gaze.subject.tolist() == ["P1/R1", "P1/R1", "P2/R2"]


def test_tobii_pixels_of_the_media_are_taken_as_they_are_and_pixels_of_the_screen_are_not(tmp_path: Path) -> None:
    t = [2000, 3000, 3100, 3300, 3400, 3500]
    text = TOBII.format(unit="ms", place="MCSnorm", t=t, x=("320,5", "1"), y=("180", "2"))
    pixels = text.replace("(MCSnorm)", "[MCS px]")
    assert rows(read_gaze(written(tmp_path / "a.tsv", pixels), size_px=SIZE))[0] == (0.1, 0.2, 320.5, 180)
    screen = text.replace("(MCSnorm)", "[DACS px]")
    with pytest.raises(BadInput, match=r"b\.tsv has no column t_seconds and is no export we know .*--columns"):
        read_gaze(written(tmp_path / "b.tsv", screen), size_px=SIZE)


def test_any_other_table_is_read_by_a_map_of_its_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "Time [us];GX;GY;Who;Film\n2000000;0.5;0.75;a;talk\n2500000;0.25;1;a;talk\n")
    columns = "t=time,x=GX,y=GY,subject=Who,video=Film,normalized=yes,y_up=yes,zero=video"
    assert rows(read_gaze(path, columns=columns, size_px=SIZE)) == [(0, 0, 320, 90), (0.5, 0, 160, 0)]
    with pytest.raises(BadInput, match=r"x\.csv has no column 'Gaze'.*Time \[us\], GX"):
        read_gaze(path, columns="t=time,x=Gaze,y=GY")
    with pytest.raises(UsageError, match="size of talk is not known"):
        read_gaze(path, columns=columns)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x=a", "has to say which column is t"),
        ("t=a,x=b,y=c,z=d", "'z=d' is no NAME=COLUMN"),
        ("t=a,x=b,y=c,time_unit=min", "time_unit=min is none of s, ms"),
        ("t=a,x=b,y=c,zero=noon", "zero=noon is none of"),
        ("time", "'time' is no NAME=COLUMN"),
    ],
)
def test_a_map_of_columns_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Columns.parse(text)


def test_rows_without_a_place_are_left_out_and_counted(tmp_path: Path) -> None:
    text = "t_seconds,x_px,y_px\n0,1,2\n1,,\n2,NaN,5\n3,n/a,5\n\n4,1,1\n5,7\n"
    gaze = read_gaze(written(tmp_path / "gaze.csv", text))
    assert gaze.t_seconds.tolist() == [0, 4] and gaze.notes == ("gaze.csv: 4 rows without a place left out",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column t_seconds"),
        ("t_seconds,x_px,y\n0,1,2\n", "no column y_px"),
        ("t_seconds,x_px,y_px\n", "holds no fixation"),
        ("t_seconds,x_px,y_px\n0,,\n", "holds no fixation"),
        ("t_seconds,x_px,y_px\n0,1,2\n\n1,a,2\n", r"line 4 of .*gaze\.csv: x_px is 'a'"),
        ("t_seconds,x_px,y_px\n0,1,inf\n", r"line 2 of .*y_px is 'inf'"),
        ("t_seconds,x_px,y_px,duration_s\n0,1,2,-1\n", "line 2 of .*ends before it begins"),
        ("start_seconds,end_seconds,x_px,y_px\n0,1,2,3\n3,2,2,3\n", "line 3 of .*ends before it begins"),
        ("\0\xff\n", "no column|no table"),
    ],
)
def test_a_table_that_is_no_gaze_is_refused_naming_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "gaze.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadInput, match=says) as caught:
        read_gaze(path)
    assert str(path) in str(caught.value)


def test_damaged_gzip_is_named(tmp_path: Path) -> None:
    (tmp_path / "gaze.csv.gz").write_bytes(gzip.compress(b"t_seconds,x_px,y_px\n0,1,2\n", mtime=0)[:-12])
    with pytest.raises(BadInput, match=r"gaze\.csv\.gz is damaged"):
        read_gaze(tmp_path / "gaze.csv.gz")
