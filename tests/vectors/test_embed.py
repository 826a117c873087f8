"""`streamsal embed` as its users run it: vectors with the right frames and times, the same however work was divided."""

from __future__ import annotations

import json
import pickle
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from films import write_film, write_sound
from program import TELLCLIP, call, end, start, wait_until
from undisturbed import assert_tidy, datasets

from streamsal.cli import main

FRAME_RATE = 25
OFFSETS = np.array([0, 3, 7, 10, 14])  # of the tell-tale's members: 5 of a window of 15 frames, first and last included
STRIDE = 5
FILMS = {"a/talk.mp4": 40, "b/talk.mp4": 60, "my talk.v2.mp4": 55, "früh 講演.mp4": 31, "short.mp4": 9, "one.mp4": 1}
STEMS = {"a/talk.mp4": "a__talk", "b/talk.mp4": "b__talk"}
TELLTALE = ("--model", TELLCLIP, "--stride", "0.2s", "--batch-size", "4")
X3D = ("--model", "x3d_xs", "--weights", "synthetic", "--stride", "0.1s", "--batch-size", "2")


def stem(film: str) -> str:
    return STEMS.get(film, film.removesuffix(".mp4"))


def members(n_frames: int) -> np.ndarray:
    """(n, 5): every fifth frame begins a clip, as long as a window fits; one more ends with the last frame."""
    last = max(0, n_frames - 1 - OFFSETS[-1])
    starts = np.unique([*range(0, last + 1, STRIDE), last])
    return np.minimum(starts[:, None] + OFFSETS, n_frames - 1)


def embed(*arguments: str | Path, code: int = 0) -> None:
    assert main(["embed", *map(str, arguments), "--device", "cpu", "--quiet"]) == code


def written(run_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run_folder / "vectors").iterdir()}


def assert_same(run_folder: Path, other: Path) -> None:
    """The same files of vectors, and merged files that differ in their tasks alone."""
    assert written(run_folder) == written(other)
    merged = [path.name for path in sorted(run_folder.glob("*.h5"))]
    assert merged == [path.name for path in sorted(other.glob("*.h5"))] and merged
    for name in merged:
        found, wanted = datasets(run_folder / name), datasets(other / name)
        assert found.keys() == wanted.keys()
        assert [name for name in wanted if found[name] != wanted[name] and name != "shard"] == []


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films with odd names, two of them of the same one, beside files that are no videos."""
    folder = tmp_path_factory.mktemp("talks")
    for name, n_frames in FILMS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_film(folder / name, n_frames)
    whole = (folder / "a/talk.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("no video\n")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("not looked at\n")
    write_sound(folder / "sound.mp4")
    return folder


@pytest.fixture(scope="module")
def embedded(talks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of that folder, as one task."""
    run_folder = tmp_path_factory.mktemp("embedded") / "talks.streamsal"
    out, err = call("embed", talks, *TELLTALE, "--format", "npy", "-o", run_folder, code=1)
    assert {Path(line).name for line in out.splitlines()} == {f"{stem(film)}_tellclip.py.npy" for film in FILMS}
    said = [line for line in err.splitlines() if line.startswith("streamsal: ")]
    assert len(said) == 4
    for name in ("broken.mp4", "text.mp4", "empty.mp4", "sound.mp4"):
        assert any(str(talks / name) in line for line in said)
    return run_folder


@pytest.fixture(scope="module")
def x3d(talks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one film and a network, whose vectors mean nothing."""
    run_folder = tmp_path_factory.mktemp("x3d") / "film.streamsal"
    embed(talks / "b/talk.mp4", *X3D, "--option", "logits=true", "--format", "npy", "-o", run_folder)
    return run_folder


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory in an environment that names no run."""
    monkeypatch.delenv("STREAMSAL_RUN", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("film", FILMS)
def test_a_vector_is_of_the_frames_and_seconds_that_its_file_says(embedded: Path, film: str) -> None:
    base, wanted = embedded / "vectors" / f"{stem(film)}_tellclip.py", members(FILMS[film])
    seen = np.load(f"{base}.npy")
    facts = json.loads(Path(f"{base}.json").read_text())
    assert seen.astype(int).tolist() == facts["frames"] == wanted.tolist()
    seconds = np.stack([wanted.min(1), wanted.max(1) + 1], 1) / FRAME_RATE
    np.testing.assert_allclose(np.load(f"{base}_timestamps.npy"), seconds, atol=1e-9)
    own = wanted[:, :1] + OFFSETS < FILMS[film]
    np.testing.assert_array_equal(facts["valid"], own.mean(1, dtype=np.float32))
    assert (facts["stride"], facts["tail"], facts["frames_per_clip"]) == ("0.2s", "shift", 5)


@pytest.mark.parametrize("tasks", [2, 7])
def test_files_are_the_same_however_the_work_is_divided(
    talks: Path, embedded: Path, x3d: Path, tmp_path: Path, tasks: int
) -> None:
    for inputs, options, whole, code in (
        (talks, TELLTALE, embedded, 1),
        (talks / "b/talk.mp4", (*X3D, "--option", "logits=true"), x3d, 0),
    ):
        divided = tmp_path / whole.name
        embed(inputs, *options, "--tasks", str(tasks), "--format", "npy", "-o", divided, code=code)
        assert len(list((divided / "shards").glob("*.h5"))) == tasks
        assert_same(divided, whole)


def test_task_by_task_as_in_one_go(talks: Path, embedded: Path, silent: Path) -> None:
    assert main(["plan", str(talks), *TELLTALE, "--tasks", "3", "-o", "r", "--quiet"]) == 1
    for task in ("2", "0", "1"):
        assert main(["infer", "r", "--task-id", task, "--quiet"]) == 0
    embed("r", "--format", "npy")
    assert_same(Path("r"), embedded)


def test_killed_in_the_middle_and_run_again(talks: Path, tmp_path: Path) -> None:
    command = ("embed", talks / "b/talk.mp4", *TELLTALE[:2], "--stride", "1", "--batch-size", "2", "--format", "npy")
    call(*command, "-o", tmp_path / "whole")
    process = start(*command, "-o", tmp_path / "again", env={"STREAMSAL_TEST_DELAY_MS": "50"})
    shard = tmp_path / "again" / "shards" / "0000.h5"
    sizes: set[int] = set()

    def three_blocks_are_safe() -> bool:
        sizes.add(shard.stat().st_size if shard.exists() else 0)
        return len(sizes) > 4

    wait_until(three_blocks_are_safe, process)
    process.kill()
    end(process, -signal.SIGKILL)
    assert not (tmp_path / "again" / "vectors").exists()
    call(*command, "-o", tmp_path / "again")
    events = map(json.loads, (tmp_path / "again" / "logs" / "0000.jsonl").read_text().splitlines())
    safe = [event["done"] for event in events if event["event"] == "resume"]
    assert len(safe) == 1 and 0 < safe[0] < 46
    assert_same(tmp_path / "again", tmp_path / "whole")
    assert_tidy(tmp_path / "again", 1)


def test_listed_frames_are_those_that_the_model_saw(
    talks: Path, embedded: Path, silent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(talks, *TELLTALE, "--list-frames", "-o", "r", code=1)
    listed = capsys.readouterr().out
    embed(embedded, "--list-frames")
    assert capsys.readouterr().out == listed
    assert not list(Path("r").rglob("*.h5"))
    seen = 0
    for part in listed.split("# ")[1:]:
        name, heading, *lines = part.splitlines()
        assert heading == "clip\tstart_seconds\tend_seconds\tframes"
        base = f"{embedded / 'vectors' / name.removesuffix('.mp4')}_tellclip.py"
        rows = [line.split("\t") for line in lines]
        assert [int(number) for number, *_ in rows] == list(range(len(rows)))
        assert [[*map(int, row[3].split())] for row in rows] == np.load(f"{base}.npy").astype(int).tolist()
        np.testing.assert_allclose(
            [[float(row[1]), float(row[2])] for row in rows], np.load(f"{base}_timestamps.npy"), atol=1e-6
        )
        seen += 1
    assert seen == len(FILMS)


def test_of_a_part_of_a_video_the_clips_that_start_in_it(
    talks: Path, silent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(talks / "b/talk.mp4", *TELLTALE, "--start", "0.3s", "--end", "31", "--format", "npy", "-o", "r")
    wanted = [(start + OFFSETS).tolist() for start in (10, 15, 20, 25, 30)]
    facts = json.loads(Path("r/vectors/talk_tellclip.py.json").read_text())
    assert np.load("r/vectors/talk_tellclip.py.npy").astype(int).tolist() == facts["frames"] == wanted
    capsys.readouterr()
    embed("r", "--list-frames")
    listed = [line.split("\t")[3].split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [[*map(int, row)] for row in listed] == wanted


def test_every_format_holds_the_same_vectors(x3d: Path) -> None:
    folder = x3d / "vectors"
    features = np.load(folder / "talk_x3d_xs.npy")
    intervals = np.load(folder / "talk_x3d_xs_timestamps.npy")
    logits = np.load(folder / "talk_x3d_xs_logits.npy")
    assert (features.shape[1], logits.shape[1], features.dtype) == (2048, 400, np.float32)
    assert len(np.unique(features, axis=0)) == len(features) == len(intervals) > 2 and np.isfinite(features).all()
    embed(x3d, "--format", "h5")
    embed(x3d, "--format", "csd")
    embed(x3d, "--format", "csd", "--array", "logits")
    with h5py.File(folder / "talk_x3d_xs.h5") as h5:
        assert h5.attrs["model"] == "x3d_xs" and h5.attrs["window_seconds"] == 1.6
        np.testing.assert_array_equal(h5["features"], features)
        np.testing.assert_array_equal(h5["logits"], logits)
        np.testing.assert_array_equal(h5["intervals"], intervals)
    for name, array in (("film", features), ("film_logits", logits)):
        with h5py.File(folder / f"{name}.csd") as h5:
            np.testing.assert_array_equal(h5[f"{name}/data/talk/features"], array)
            np.testing.assert_array_equal(h5[f"{name}/data/talk/intervals"], intervals)


def test_means_are_those_of_the_clips(x3d: Path) -> None:
    folder = x3d / "vectors"
    clips = np.load(folder / "talk_x3d_xs.npy").astype(np.float64)
    start, end = np.load(folder / "talk_x3d_xs_timestamps.npy").T

    def file(*options: str) -> dict[str, np.ndarray]:
        embed(x3d, "--aggregate", *options)
        with h5py.File(folder / "talk_x3d_xs.h5") as h5:
            return {name: np.asarray(dataset) for name, dataset in h5.items()}

    found = file("interval:1", "--statistic", "max", "--statistic", "std")
    assert found["intervals"].tolist() == [[0, 1], [1, 2], [2, 2.4]]
    for row, (low, high) in enumerate(found["intervals"]):
        shared = np.clip(np.minimum(end, high) - np.maximum(start, low), 0, None)
        mean = np.average(clips, axis=0, weights=shared)
        std = np.sqrt(np.average((clips - mean) ** 2, axis=0, weights=shared))
        np.testing.assert_allclose(found["features"][row], mean, rtol=1e-6)
        np.testing.assert_allclose(found["features_std"][row], std, rtol=1e-5, atol=1e-9)
        np.testing.assert_array_equal(found["features_max"][row], clips[shared > 0].max(0).astype(np.float32))
        assert found["clips"][row] == np.count_nonzero(shared) and np.isclose(found["weight"][row], shared.sum())
    found = file("video")
    np.testing.assert_allclose(found["features"], clips.mean(0, keepdims=True), rtol=1e-6)
    assert found["intervals"].tolist() == [[0, 2.4]] and found["clips"].tolist() == [len(clips)]


def test_a_video_without_a_whole_clip_is_named_and_left_out(
    talks: Path, silent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = [talks / name for name in ("short.mp4", "a/talk.mp4")]
    for options, names in (
        (("--tail", "drop"), {"a__talk_tellclip.py.h5"}),
        (("--tail", "drop", "--aggregate", "video", "--format", "csd"), {"a__talk_tellclip.py.h5", "r.csd"}),
    ):
        embed(*films, *TELLTALE, *options, "-o", "r")
        assert "short.mp4: no whole clip is in what was asked for, so no vector" in capsys.readouterr().err
        assert {path.name for path in Path("r/vectors").iterdir()} == names
    assert main(["run", *map(str, films), *TELLTALE, "--tail", "drop", "-o", "r", "--quiet"]) == 0


def test_a_folder_of_videos_without_a_whole_clip_gives_no_file(talks: Path, silent: Path) -> None:
    embed(talks / "short.mp4", talks / "one.mp4", *TELLTALE, "--tail", "drop", "-o", "r")
    assert not list(Path("r/vectors").iterdir())


def test_clips_of_the_latent_vectors_service(silent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_film(silent / "film.mp4", 6 * FRAME_RATE)
    preset = ("--model", "slowfast_r50_16x8_ssv2", "--weights", "synthetic", "--preset", "latent-vectors-service")
    embed("film.mp4", *preset, "--format", "latent-vectors-service")
    with open("film.streamsal/vectors/output_latent_vec_film.pk", "rb") as file:
        ((name, found),) = pickle.load(file).items()
    assert name == "film" and found["features"].shape == (5, 1, 1, 1, 1, 2304)
    assert found["intervals"].tolist() == [[i / 2, (i + 1) / 2] for i in range(11)]
    embed("film.streamsal", "--format", "npy")
    features = np.load("film.streamsal/vectors/film_slowfast_r50_16x8_ssv2.npy")
    np.testing.assert_array_equal(found["features"].numpy()[:, 0, 0, 0, 0], features)
    assert np.isfinite(features).all() and len(np.unique(features, axis=0)) == 5
    capsys.readouterr()
    embed("film.streamsal", "--list-frames")
    looked_at = [line.split("\t")[3] for line in capsys.readouterr().out.splitlines()[2:]]
    half = [12, 25, 37, 50, 62, 75, 87, 100, 112, 125, 137]  # on screen every half second, at 25 per second
    slow, fast = [half[0]] * 4 + [half[10]], [half[0:4], half[1:5], half[2:6], half[3:7], half[4:8]]
    assert [[*map(int, line.split())] for line in looked_at] == [[a, *b] for a, b in zip(slow, fast, strict=True)]


PRESET = ("--preset", "latent-vectors-service")
REFUSED: dict[str, tuple[Sequence[str], str]] = {
    "a model of frames": (("--model", "sigmotion"), "sigmotion gives no vectors of clips"),
    "a model whose weights are missing": (("--model", "deepgaze_iie"), "deepgaze_iie gives no vectors of clips"),
    "no stride": ((*TELLTALE[:2], "--stride", "0"), "'0' is no stride"),
    "--every": ((*TELLTALE, "--every", "2"), "tellclip takes clips.*leave --every"),
    "--long-side": ((*X3D, "--long-side", "64"), "x3d_xs takes clips.*--long-side"),
    "a center bias": ((*X3D, "--center-bias", "mit1003"), "x3d_xs takes no --center-bias"),
    "no such pooling": ((*X3D, "--pool", "gaze:r"), "no way of pooling is named 'gaze:r'"),
    "no map to pool": (("--model", "mvit_v2_s", "--weights", "synthetic", "--pool", "saliency:r"), "no map to pool"),
    "one pathway": ((*X3D[:4], *PRESET), "x3d_xs has one pathway"),
    "a stride of its own": ((*X3D, *PRESET), "--preset latent-vectors-service sets --stride itself"),
    "a part for the preset": (
        ("--model", "slowfast_r50_4x16", "--weights", "synthetic", *PRESET, "--end", "50"),
        "looked at whole videos",
    ),
    "pooling with the preset": (
        ("--model", "slowfast_r50_4x16", "--weights", "synthetic", *PRESET, "--pool", "saliency:r"),
        "leave --pool out",
    ),
    "the format without the preset": ((*X3D, "--format", PRESET[1]), "is for vectors of --preset"),
    "no such aggregate": ((*X3D, "--aggregate", "hour"), "no such aggregate: hour"),
    "no such array": ((*X3D, "--format", "csd", "--array", "logits"), "x3d_xs gives no logits here: it gives features"),
    "an array of all": ((*X3D, "--array", "features_salient"), "--array says what a csd file holds"),
    "a statistic of one": ((*X3D, "--statistic", "std"), "--statistic is of several clips"),
    "no such range": ((*X3D, "--start", "9s"), "no frame from 9s to the end"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_said_in_a_sentence_before_anything_is_computed(
    talks: Path, silent: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    options, sentence = REFUSED[case]
    embed(talks / "b/talk.mp4", *options, "-o", "r", code=2)
    out, err = capsys.readouterr()
    *_, said = err.splitlines()
    assert not out and all("STAND-IN" in line for line in err.splitlines()[:-1])
    assert re.match(f"streamsal: .*{sentence}", said)
    assert not list(Path().rglob("*.h5"))


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--stride", "1s"), 2, "--stride would change the plan"),
        (("--model", "x3d_m"), 2, "--model would change the plan"),
        (PRESET, 2, "--preset would change the plan"),
        (("--tasks", "3"), 65, "is planned as 1 task, not 3"),
        (("-o", "elsewhere"), 2, "leave -o out"),
    ],
)
def test_a_run_is_what_it_was_planned_as(
    x3d: Path, capsys: pytest.CaptureFixture[str], options: Sequence[str], code: int, sentence: str
) -> None:
    embed(x3d, *options, code=code)
    assert sentence in capsys.readouterr().err


def test_a_run_without_a_whole_clip_says_so_and_holds_nothing_to_show(
    talks: Path, silent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = str(talks / "short.mp4")
    assert main(["run", short, *TELLTALE, "--tail", "drop", "-o", "r", "--quiet"]) == 0
    said = capsys.readouterr().err
    assert said == "streamsal: short.mp4: no whole clip is in what was asked for, so no result\n"
    for command in (["export", "--format", "npy"], ["export", "--format", "bids"], ["render"], ["stats"]):
        assert main([command[0], "r", *command[1:]]) == 2
        assert capsys.readouterr().err.endswith(
            "streamsal: r holds no results: no whole clip is in what was asked for\n"
        )


def test_what_else_cannot_be_done_with_such_a_run(x3d: Path, silent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, sentence in (
        (["render"], "no maps that a film could show"),
        (["export", "--format", "csv"], "export it as npy or npz"),
        (["export", "--format", "png"], "export it as npy or npz"),
    ):
        assert main([command[0], str(x3d), *command[1:], "--quiet"]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["submit", str(x3d), "--render", "--dry-run"]) == 2
    assert "no maps that a film could show: leave --render out" in capsys.readouterr().err


def test_no_vectors_of_a_run_of_frames(computed: Path, silent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embed(computed / "film.streamsal", code=2)
    assert "is a run of center, which gives no vectors of clips" in capsys.readouterr().err
    embed("nothing.streamsal", code=66)
