"""Films, pages and files of a run, where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsal.cli import main
from streamsal.commands.show import film_path


def test_films_of_videos_that_differ_in_their_suffix_keep_apart() -> None:
    names = ["talk.mp4", "talk.mkv", "walk.webm", "a__talk.mov"]
    films = [film_path(Path("r"), name, names, "side").name for name in names]
    assert films == ["talk.mp4.side.mp4", "talk.mkv.side.mkv", "walk.side.mkv", "a__talk.side.mp4"]


def test_render_makes_films_and_pages_where_they_belong(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gaze.csv").write_text("who,when,x,y\na,100,8,8\n")
    gaze = ["--gaze", str(tmp_path / "gaze.csv"), "--columns", "subject=who,t=when,x=x,y=y,time_unit=ms"]
    assert main(["render", "film.streamsal", "--style", "contact", *gaze, "-q"]) == 0
    assert Path(capsys.readouterr().out.strip()) == Path("film.streamsal/film.contact.png")
    assert Path("film.streamsal/film.contact.png").read_bytes().startswith(b"\x89PNG")
    shown = ["--compare", "film.streamsal", "--frame-number", "--timestamp", "--legend", "--end", "3"]
    assert main(["render", "film.streamsal", "-o", str(tmp_path / "both.mp4"), *shown, "-q"]) == 0
    assert (tmp_path / "both.mp4").exists()
    assert main(["render", "film.streamsal", "--style", "contact", *shown[:2]]) == 2
    assert "leave --compare out" in capsys.readouterr().err


def test_a_video_that_a_run_does_not_hold_is_said_to_be_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["export", "--format", "npy"], ["render"], ["stats"]):
        assert main([command[0], "film.streamsal", *command[1:], "--video", "other.mp4"]) == 2
        assert "other.mp4: no such videos in film.streamsal: ['film.mp4']" in capsys.readouterr().err


def test_export_has_a_place_for_each_kind(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, path in {
        "pysaliency": "export/predictions.hdf5",
        "bids": "bids/stimuli/stim-film_desc-center_saliency.tsv",
    }.items():
        assert main(["export", "film.streamsal", "--format", kind, "--end", "2"]) == 0
        assert Path(capsys.readouterr().out.strip()) == Path("film.streamsal", path)
        assert Path("film.streamsal", path).exists()
