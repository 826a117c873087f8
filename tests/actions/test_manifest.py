"""Manifests of three kinds become the same clips; what is wrong with one is said in a sentence that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamsal.actions.manifest import Manifest, read_classes, read_manifest
from streamsal.errors import BadInput, MissingInput

MINI = Path(__file__).parents[1] / "fixtures/lowres_action/mini_tinyvirat"


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def written(path: Path, found: Any) -> Path:
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return path


def labels(manifest: Manifest) -> list[list[str]]:
    return [[manifest.classes[label] for label in clip.labels] for clip in manifest.clips]


def test_version_1_is_read_with_its_classes_files_and_recordings() -> None:
    found = read_manifest(MINI / "tiny_train.json")
    assert len(found.classes) == 26 and found.classes[16] == "activity_walking"
    assert labels(found) == [["activity_walking"], ["activity_walking", "activity_carrying"], ["Misc"]]
    assert [clip.id for clip in found.clips] == ["0", "1", "2"]
    assert [clip.scene for clip in found.clips] == ["VIRAT_S_000001", "VIRAT_S_000001", "VIRAT_S_000002"]
    assert [clip.frames for clip in found.clips] == [40, 32, 12]
    assert all(clip.labeled and clip.path.is_file() for clip in found.clips)
    assert found.clips[0].path == MINI / "videos/train/VIRAT_S_000001/0.mp4"


def test_test_clips_are_found_in_the_folder_of_test_clips() -> None:
    assert read_manifest(MINI / "tiny_test.json").clips[0].path == MINI / "videos/test/VIRAT_S_000003/0.mp4"


def test_targets_are_ones_at_the_labels() -> None:
    targets = read_manifest(MINI / "tiny_train.json").targets()
    assert targets.dtype == np.uint8 and targets.shape == (3, 26)
    assert [np.flatnonzero(row).tolist() for row in targets] == [[16], [12, 16], [5]]


def test_version_2_is_a_list_with_a_map_of_classes_and_a_test_without_labels(tmp_path: Path) -> None:
    touched(tmp_path / "videos", "train/a.mp4", "train/b.mp4", "test/00000.mp4", "val/c.mp4")
    written(tmp_path / "class_map.json", {"walking": 1, "running": 0})
    train = [
        {"id": 7, "path": "a.mp4", "dim": [9, 5, 5], "label": ["walking"]},
        {"id": 8, "path": "b.mp4", "dim": [9, 5, 5], "label": []},
    ]
    found = read_manifest(written(tmp_path / "tiny_train_v2.json", train))
    assert found.classes == ("running", "walking")
    assert [(clip.id, clip.labels, clip.labeled) for clip in found.clips] == [("7", (1,), True), ("8", (), True)]
    test = [{"id": "00000", "path": "00000.mp4", "dim": [9, 5, 5]}]
    (clip,) = read_manifest(written(tmp_path / "tiny_test_v2_public.json", test)).clips
    assert (clip.id, clip.labels, clip.labeled) == ("00000", (), False)
    assert clip.path == tmp_path / "videos/test/00000.mp4"
    (clip,) = read_manifest(written(tmp_path / "tiny_val_v2.json", [{"path": "c.mp4", "label": "walking"}])).clips
    assert (clip.id, clip.labels, clip.frames) == ("c.mp4", (1,), None)


def test_a_csv_has_paths_labels_and_perhaps_ids_and_scenes(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4", "day 1/b.mp4", "day 1/c.mp4", "d.mp4")
    text = "path,labels,id,scene\na.mp4,run; walk,x,\nday 1/b.mp4,walk|jump,,\nday 1/c.mp4,,z,garden\nd.mp4,run,,\n"
    found = read_manifest(written(tmp_path / "my.csv", text))
    assert found.classes == ("jump", "run", "walk")
    assert labels(found) == [["run", "walk"], ["walk", "jump"], [], ["run"]]
    assert [clip.id for clip in found.clips] == ["x", "day 1/b.mp4", "z", "d.mp4"]
    assert [clip.scene for clip in found.clips] == ["a.mp4", "day 1", "garden", "d.mp4"]
    assert all(clip.labeled and clip.path.is_file() for clip in found.clips)


def test_a_csv_without_a_column_of_labels_has_clips_to_be_judged(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    (clip,) = read_manifest(written(tmp_path / "my.csv", "path\na.mp4\n"), classes=("run",)).clips
    assert (clip.labels, clip.labeled) == ((), False)


def test_a_byte_order_mark_of_a_spreadsheet_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    (tmp_path / "my.csv").write_text("path,labels\na.mp4,run\n", encoding="utf-8-sig")
    assert labels(read_manifest(tmp_path / "my.csv")) == [["run"]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system_and_what_is_around_a_word_is_none_of_it(tmp_path: Path, end: str) -> None:
    touched(tmp_path, "a.mp4", "b, c.mp4")
    lines = ["path , labels, scene", "a.mp4 , run ; walk , s 0 ", '"b, c.mp4","fast, far\u2028run",s 0', ""]
    (tmp_path / "my.csv").write_bytes(end.join(lines).encode())
    found = read_manifest(tmp_path / "my.csv")
    assert labels(found) == [["run", "walk"], ["fast, far\u2028run"]]
    assert [(clip.id, clip.scene) for clip in found.clips] == [("a.mp4", "s 0"), ("b, c.mp4", "s 0")]


def test_root_names_another_place_for_the_tree_or_for_bare_files(tmp_path: Path) -> None:
    manifest = written(tmp_path / "tiny_train.json", [{"path": "a.mp4", "label": ["x"]}])
    tree, bare = touched(tmp_path / "tree", "videos/train/a.mp4"), touched(tmp_path / "bare", "a.mp4")
    assert read_manifest(manifest, root=tree).clips[0].path == tree / "videos/train/a.mp4"
    assert read_manifest(manifest, root=bare).clips[0].path == bare / "a.mp4"
    touched(tree, "train/a.mp4", "a.mp4")
    assert read_manifest(manifest, root=tree).clips[0].path == tree / "videos/train/a.mp4"
    with pytest.raises(MissingInput, match=r"none/videos/train/a\.mp4"):
        read_manifest(manifest, root=touched(tmp_path / "none", "videos/train/b.mp4"))


def test_segments_of_one_recording_are_one_scene(tmp_path: Path) -> None:
    names = (
        "VIRAT_S_000205_02_000409_000566/0.mp4",
        "VIRAT_S_000205_05_001092_001124/0.mp4",
        "VIRAT_S_000207_00/0.mp4",
    )
    touched(tmp_path, *names)
    found = read_manifest(written(tmp_path / "some.json", [{"path": name, "label": ["x"]} for name in names]))
    assert [clip.scene for clip in found.clips] == ["VIRAT_S_000205", "VIRAT_S_000205", "VIRAT_S_000207"]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("lines.txt", "b \n\n a\nc", ("b", "a", "c")),  # the last line may have no end
        ("map.json", '{"a": 1, "b": 0}', ("b", "a")),
        ("list.json", '["b", "a"]', ("b", "a")),
    ],
)
def test_classes_are_lines_or_a_map_or_a_list(tmp_path: Path, name: str, text: str, found: tuple[str, ...]) -> None:
    assert read_classes(written(tmp_path / name, text)) == found


@pytest.mark.parametrize("text", ['{"a": 0, "b": 2}', '{"a": 0, "b": "1"}', '["a", "a"]', "[]", "3", "[1]", "no json"])
def test_what_is_no_list_of_classes_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"map\.json"):
        read_classes(written(tmp_path / "map.json", text))


def test_a_label_that_is_no_class_is_named_with_its_clip_and_the_classes(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    manifest = written(tmp_path / "some.json", [{"id": 4, "path": "a.mp4", "label": ["rum"]}])
    with pytest.raises(BadInput, match=r"clip 4 of .*some\.json has the label 'rum', .*: run, walk$"):
        read_manifest(manifest, classes=("run", "walk"))


def test_all_missing_files_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    manifest = written(tmp_path / "my.csv", "path,labels\na.mp4,x\nb.mp4,x\nc.mp4,x\n")
    with pytest.raises(MissingInput, match=r"^2 of the 3 clips of .*my\.csv are not there, the first is .*b\.mp4"):
        read_manifest(manifest)


def test_an_id_that_comes_twice_is_named(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    manifest = written(tmp_path / "my.csv", "path,labels,id\na.mp4,x,1\na.mp4,x,2\na.mp4,x,1\n")
    with pytest.raises(BadInput, match="1 id more than once, the first is 1"):
        read_manifest(manifest)


@pytest.mark.parametrize(
    ("name", "found", "says"),
    [
        ("some.json", "{", "is no json"),
        ("some.json", {"clips": []}, "is no manifest"),
        ("some.json", [], "lists no clips"),
        ("some.json", [{"label": ["x"]}], "its entry 0"),
        ("some.json", [{"path": "a.mp4", "label": ["x"]}, "b.mp4"], "its entry 1"),
        ("some.json", [{"path": "a.mp4", "label": 3}], "its entry 0"),
        ("some.json", [{"path": "a.mp4", "label": ["x"], "dim": {"frames": 3}}], "its entry 0"),
        ("some.json", [{"path": "a.mp4", "label": ["x"], "dim": [float("inf")]}], "its entry 0"),
        ("some.json", [{"path": "a.mp4"}], "has no labels"),
        ("some.json", [{"path": "a.mp4", "label": [" "]}], "has no labels"),
        ("my.csv", "a.mp4,x\n", "its first line"),
        ("my.csv", "", "its first line"),
        ("my.csv", "path,labels\n", "lists no clips"),
        ("my.csv", "path,labels\na.mp4,x\na.mp4,x,y,z\n", "line 3"),
        ("my.csv", "path;labels\na.mp4;x\n", "separated by commas"),
        ("my.csv", "path,label\na.mp4,x\n", "column labels of a csv"),
        ("my.csv", 'path,labels\n"a.mp4,x\nb.mp4,x\n', "is no csv: unexpected end of data, in line 3 or above"),
        ("my.csv", f"path,labels\na.mp4,{'x' * 2_000_000}\n", "is no csv: field larger than"),
        ("my.csv", "path,labels\na.mp4,x\0y\n", "is no text"),
        ("some.json", "[" * 100_000, "is no json"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_named(tmp_path: Path, name: str, found: Any, says: str) -> None:
    touched(tmp_path, "a.mp4")
    with pytest.raises(BadInput, match=rf"{name}.*{says}|{says}.*{name}"):
        read_manifest(written(tmp_path / name, found))


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"none\.json cannot be read"):
        read_manifest(tmp_path / "none.json")
