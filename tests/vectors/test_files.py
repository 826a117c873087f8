"""What other programs read is what the vectors are: with plain numpy, plain h5py, and as the Multimodal SDK reads."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from made_vectors import make_vectors

from streamsal.errors import UsageError, WriteError
from streamsal.vectors.files import CSD_METADATA, csd_ids, file_stems, write_csd, write_vectors
from streamsal.vectors.intervals import Means, Rows, aggregated

pytest_plugins = ("small_disk",)

ODD_NAMES = [
    "a__x.mp4",
    "b__x.mp4",
    "my lecture, part 1.5 (final).mkv",
    "Übung 目の動き.webm",
    "Title [dQw4w9WgXcQ].mp4",
    "Title [xvFZjo5PgG0].mp4",
    "-n %s 100%.mov",
    "..mp4",
    ".mp4",
    "noextension",
]


def parts_of(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


@pytest.mark.parametrize("how", ["clip", "interval:0.5", "video"])
def test_npy_is_read_with_numpy_and_described_beside(tmp_path: Path, how: str) -> None:
    rows = aggregated(make_vectors(), how)
    (path,) = write_vectors([rows], tmp_path / "new" / "folder", format="npy", stems=file_stems(["talk.mp4"]))
    assert path.name == "talk_x3d_s.npy"
    features = np.load(path, mmap_mode="r")
    times = np.load(path.with_name("talk_x3d_s_timestamps.npy"))
    assert features.dtype == np.float32 and times.dtype == np.float64
    np.testing.assert_array_equal(features, rows.features)
    np.testing.assert_array_equal(times, rows.intervals)
    np.testing.assert_array_equal(
        np.load(path.with_name("talk_x3d_s_features_salient.npy")), rows.more["features_salient"]
    )
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["video"] == "talk.mp4" and facts["fps"] == 29.97 and facts["weights_sha256"] is None
    for name, column in rows.columns.items():
        np.testing.assert_array_equal(np.array(facts[name], column.dtype), column)
    assert set(rows.columns) == ({"frames", "valid"} if how == "clip" else {"clips", "weight"})
    assert len(list(path.parent.iterdir())) == 4


@pytest.mark.parametrize("how", ["clip", "interval:0.5", "video"])
def test_h5_holds_everything_of_one_video(tmp_path: Path, how: str) -> None:
    rows = aggregated(make_vectors(nested={"crop": 160}), how)
    (path,) = write_vectors([rows], tmp_path, format="h5", stems=file_stems(["talk.mp4"]))
    assert [file.name for file in tmp_path.iterdir()] == ["talk_x3d_s.h5"]
    with h5py.File(path) as h5:
        stored: Any = {name: h5[name] for name in h5}
        assert set(stored) == {"features", "intervals", "features_salient", *rows.columns}
        assert stored["features"].dtype == np.float32 and stored["intervals"].dtype == np.float64
        for name, array in {"features": rows.features, "intervals": rows.intervals, **rows.columns}.items():
            np.testing.assert_array_equal(stored[name][()], array)
        assert h5.attrs["video"] == "talk.mp4" and h5.attrs["model"] == "x3d_s" and h5.attrs["fps"] == 29.97
        assert json.loads(str(h5.attrs["nested"])) == {"crop": 160} and "weights_sha256" not in h5.attrs


@pytest.mark.parametrize("format", ["npy", "h5"])
def test_facts_may_come_from_attributes_of_a_file(tmp_path: Path, format: Any) -> None:
    rows = make_vectors(height=np.int64(720), exact=np.bool_(True), size=np.array([1, 2]))
    (path,) = write_vectors([rows], tmp_path, format=format, stems={"talk.mp4": "talk"})
    if format == "npy":
        facts = json.loads(path.with_suffix(".json").read_text())
        assert facts["height"] == 720 and facts["exact"] is True and facts["size"] == [1, 2]
    else:
        with h5py.File(path) as h5:
            assert h5.attrs["height"] == 720 and json.loads(str(h5.attrs["size"])) == [1, 2]


def sdk_read(path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """As mmsdk.mmdatasdk reads: the first root, its data, and metadata of one JSON text each."""
    h5: Any = h5py.File(path, "r")
    root = next(iter(h5.keys()))
    metadata = {name: json.loads(h5[root]["metadata"][name][0]) for name in h5[root]["metadata"]}
    return root, dict(h5[root]["data"]), metadata


def test_csd_passes_what_the_multimodal_sdk_checks(tmp_path: Path) -> None:
    videos = [make_vectors(name, n) for name, n in (("-QQ0Lv4_--4.mp4", 6), ("_T3uHSwRgdU.mp4", 3))]
    path = write_csd(videos, tmp_path / "x3d_s.csd", stems=file_stems([rows.video for rows in videos]))
    root, data, metadata = sdk_read(path)
    assert root == metadata["root name"] == "x3d_s"
    assert set(CSD_METADATA) <= set(metadata) and "x3d_s" in metadata["computational sequence description"]
    assert metadata["featureset bib citation"] + metadata["dataset bib citation"] == ""  # the SDK joins texts
    assert list(data) == ["-QQ0Lv4_--4", "_T3uHSwRgdU"]
    for rows, entry in zip(videos, data.values(), strict=True):
        features, intervals = entry["features"], entry["intervals"]
        assert features.ndim == intervals.ndim == 2 and len(features) == len(intervals) == len(rows.features) - 1
        assert features.dtype == np.float32 and intervals.dtype == np.float64
        known = ~np.isnan(rows.features).any(1)
        np.testing.assert_array_equal(features[()], rows.features[known])
        np.testing.assert_array_equal(intervals[()], rows.intervals[known])


def test_csd_holds_means_too_and_a_video_without_any_vector(tmp_path: Path) -> None:
    rows = aggregated(make_vectors(), "interval:1")
    blind = make_vectors("blind.mp4")
    blind.features[:] = np.nan
    path = write_csd([rows, blind], tmp_path / "v.csd", stems=file_stems(["talk.mp4", "blind.mp4"]))
    _, data, _ = sdk_read(path)
    np.testing.assert_array_equal(data["talk"]["features"][()], rows.features)
    assert data["blind"]["features"].shape == (0, 7) and data["blind"]["intervals"].shape == (0, 2)


def test_csd_holds_what_was_computed_beside_the_features(tmp_path: Path) -> None:
    rows = make_vectors()
    path = write_csd([rows], tmp_path / "s.csd", stems={"talk.mp4": "talk"}, array="features_salient")
    np.testing.assert_array_equal(sdk_read(path)[1]["talk"]["features"][:2], rows.more["features_salient"][:2])


def test_the_page_on_embeddings_reads_the_files_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/embeddings.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    videos, stems = [make_vectors()], {"talk.mp4": "talk"}
    folder = tmp_path / "talks.streamsal" / "vectors"
    write_vectors(videos, folder, format="npy", stems=stems)
    write_vectors(videos, folder, format="h5", stems=stems)
    write_csd(videos, folder / "talks.csd", stems=stems)
    monkeypatch.chdir(tmp_path)
    assert len(snippets) == 3
    for snippet in snippets:
        names: dict[str, Any] = {}
        exec(snippet, names)
        known = ~np.isnan(names["features"]).any(1)
        whole = ~np.isnan(videos[0].features).any(1)
        np.testing.assert_array_equal(names["features"][known], videos[0].features[whole])
        np.testing.assert_array_equal(names["intervals"][known], videos[0].intervals[whole])


def test_the_same_vectors_give_the_same_csd(tmp_path: Path) -> None:
    paths = [tmp_path / name / "x.csd" for name in "ab"]
    for path in paths:
        write_csd([make_vectors()], path, stems=file_stems(["talk.mp4"]))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_long_csd_goes_to_disk_video_by_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsal.vectors.files.COMMIT_BYTES", 1)
    names = [f"{i}.mp4" for i in range(20)]
    path = write_csd(map(make_vectors, names), tmp_path / "x.csd", stems=file_stems(names))
    _, data, _ = sdk_read(path)
    for name in names:
        np.testing.assert_array_equal(data[name.removesuffix(".mp4")]["features"][:2], make_vectors(name).features[:2])


@pytest.mark.parametrize("format", ["npy", "h5"])
def test_odd_names_keep_apart(tmp_path: Path, format: Any) -> None:
    paths = write_vectors(map(make_vectors, ODD_NAMES), tmp_path, format=format, stems=file_stems(ODD_NAMES))
    assert len({path.name for path in paths}) == len(ODD_NAMES)
    for path, name in zip(paths, ODD_NAMES, strict=True):
        if format == "npy":
            stored: Any = np.load(path)
        else:
            with h5py.File(path) as h5:
                found: Any = h5["features"]
                assert h5.attrs["video"] == name
                stored = found[()]
        np.testing.assert_array_equal(stored, make_vectors(name).features)
    assert not [name for name in parts_of(tmp_path) if ".part" in name]


def test_odd_names_keep_apart_in_a_csd_and_have_no_brackets(tmp_path: Path) -> None:
    stems = file_stems(ODD_NAMES)
    ids = csd_ids(stems)
    _, data, _ = sdk_read(write_csd(map(make_vectors, ODD_NAMES), tmp_path / "all of them.csd", stems=stems))
    assert set(data) == set(ids.values()) and len(data) == len(ODD_NAMES)
    assert not any(c in id for id in data for c in "[]/")
    np.testing.assert_array_equal(data["Title (dQw4w9WgXcQ)"]["features"][:2], make_vectors(ODD_NAMES[4]).features[:2])


def test_extensions_stay_where_they_tell_videos_apart() -> None:
    assert file_stems(["a.mp4", "b.mp4"]) == {"a.mp4": "a", "b.mp4": "b"}
    assert file_stems(["a.mp4", "a.mkv", "b.mp4"]) == {"a.mp4": "a.mp4", "a.mkv": "a.mkv", "b.mp4": "b"}
    names = ["a.mp4", "a.mkv", "a.mp4.avi"]
    assert file_stems(names) == {name: name for name in names}


def test_ids_that_become_the_same_are_refused(tmp_path: Path) -> None:
    names = ["a[1].mp4", "a(1).mp4"]
    with pytest.raises(UsageError, match="same id"):
        write_csd(map(make_vectors, names), tmp_path / "x.csd", stems=file_stems(names))
    assert not list(tmp_path.iterdir())


def test_a_model_of_the_user_s_own_is_named_by_its_file(tmp_path: Path) -> None:
    (path,) = write_vectors([make_vectors(model="models/my net.py")], tmp_path, format="h5", stems={"talk.mp4": "talk"})
    assert path.name == "talk_my_net.py.h5"


def test_a_set_of_npy_files_that_was_not_finished_has_no_description(tmp_path: Path) -> None:
    stems = {"talk.mp4": "talk"}
    write_vectors([make_vectors()], tmp_path, format="npy", stems=stems)
    times = tmp_path / "talk_x3d_s_timestamps.npy"
    times.unlink()
    times.mkdir()
    with pytest.raises(WriteError, match=r"timestamps\.npy: a folder of that name is in the way"):
        write_vectors([make_vectors(n=6)], tmp_path, format="npy", stems=stems)
    assert not (tmp_path / "talk_x3d_s.json").exists() and not parts_of(tmp_path)


def test_an_error_in_the_middle_leaves_the_old_csd(tmp_path: Path) -> None:
    path = write_csd([make_vectors()], tmp_path / "x.csd", stems={"talk.mp4": "talk"})
    before = path.read_bytes()

    def failing() -> Iterator[Rows]:
        yield make_vectors()
        raise RuntimeError("the second video")

    with pytest.raises(RuntimeError, match="the second video"):
        write_csd(failing(), path, stems={"talk.mp4": "talk"})
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["x.csd"]


def test_kill_9_in_the_middle_leaves_the_old_csd_and_the_next_process_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "x.csd"
    path.write_bytes(b"old")
    program = (
        "import os, signal, sys\n"
        "from streamsal.vectors import files\n"
        "from made_vectors import make_vectors\n"
        "files.COMMIT_BYTES = 1\n"
        "def killed():\n"
        "    yield make_vectors('a.mp4')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_csd(killed(), sys.argv[1], stems={'a.mp4': 'a'})\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], cwd=Path(__file__).parents[1])
    assert done.returncode == -signal.SIGKILL and path.read_bytes() == b"old" and len(parts_of(tmp_path)) == 1
    write_csd([make_vectors(n=9)], path, stems={"talk.mp4": "talk"})
    assert len(sdk_read(path)[1]["talk"]["features"]) == 8 and not parts_of(tmp_path)


@pytest.mark.parametrize("format", ["npy", "h5"])
def test_a_full_disk_is_a_write_error_without_debris(small_disk: Callable[[str], Path], format: Any) -> None:
    folder = small_disk("size=64k")
    with pytest.raises(WriteError, match="the disk is full"):
        write_vectors([make_vectors(n=100, width=2048)], folder, format=format, stems={"talk.mp4": "talk"})
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(WriteError, match="in the way"):
        write_vectors([make_vectors()], tmp_path / "out", format="h5", stems={"talk.mp4": "talk"})


def test_rows_of_means_do_not_depend_on_how_they_were_made(tmp_path: Path) -> None:
    found = aggregated(make_vectors(), "video")
    assert isinstance(found, Means)
    write_vectors([replace(found, more={})], tmp_path, format="npy", stems={"talk.mp4": "talk"})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "talk_x3d_s.json",
        "talk_x3d_s.npy",
        "talk_x3d_s_timestamps.npy",
    ]
