"""Validation gets whole scenes, about the share that was asked for, and the same ones for ever."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsal.actions import split
from streamsal.actions.config import Config, Data
from streamsal.actions.config import Test as Judging
from streamsal.actions.manifest import LabeledClip, Manifest
from streamsal.actions.split import clips_of, drawn_by_class, drawn_by_scene, split_of
from streamsal.errors import BadInput, MissingInput, PlanMismatch

FIXTURES = Path(__file__).parents[1] / "fixtures/lowres_action"
MINI = FIXTURES / "mini_tinyvirat"


def clips(*scenes_and_labels: tuple[str, Sequence[int]]) -> tuple[LabeledClip, ...]:
    return tuple(
        LabeledClip(id=str(number), path=Path(f"{number}.mp4"), labels=tuple(labels), scene=scene)
        for number, (scene, labels) in enumerate(scenes_and_labels)
    )


def manifest(found: tuple[LabeledClip, ...]) -> Manifest:
    return Manifest(classes=tuple("abcdefgh"), clips=found)


def mini(**data: object) -> Config:
    return Config(data=Data(train=str(MINI / "tiny_train.json"), **data))  # type: ignore[arg-type]


some_clips = st.lists(
    st.tuples(st.sampled_from([f"scene {n}" for n in range(12)]), st.sets(st.integers(0, 7), max_size=3)),
    min_size=2,
    max_size=80,
).map(lambda found: clips(*((scene, sorted(labels)) for scene, labels in found)))


@settings(deadline=None)
@given(found=some_clips, share=st.floats(0.05, 0.5), seed=st.integers(0, 9))
def test_scenes_stay_whole_and_no_class_is_lost_to_training(
    found: tuple[LabeledClip, ...], share: float, seed: int
) -> None:
    chosen = drawn_by_scene(found, share, seed)
    rows_of_scene, scenes_of_class = defaultdict(set), defaultdict(set)
    for row, clip in enumerate(found):
        rows_of_scene[clip.scene].add(row)
        for label in clip.labels:
            scenes_of_class[label].add(clip.scene)
    assert all(rows <= chosen or not rows & chosen for rows in rows_of_scene.values())
    assert bool(chosen) == (len(rows_of_scene) > 1) and len(chosen) < len(found)
    kept = {found[row].scene for row in range(len(found)) if row not in chosen}
    if len(rows_of_scene) - len(kept) > 1:  # a single scene may have been taken for want of a better one
        assert all(scenes & kept for scenes in scenes_of_class.values())


def test_with_small_scenes_the_share_is_met_and_every_class_is_on_both_sides() -> None:
    found = clips(*((f"scene {n // 2}", [n % 7, 7] if n % 3 else [n % 7]) for n in range(400)))
    for seed in range(5):
        chosen = drawn_by_scene(found, 0.1, seed)
        assert len(chosen) == 40
        assert {label for row in chosen for label in found[row].labels} == set(range(8))


def test_a_rare_class_is_validated_although_most_draws_would_miss_it() -> None:
    found = clips(*((f"scene {n}", [1] if n in (17, 60) else [0]) for n in range(100)))
    for seed in range(5):
        chosen = drawn_by_scene(found, 0.1, seed)
        assert len(chosen) == 10 and len(chosen & {17, 60}) == 1


def test_another_seed_sets_other_scenes_aside_and_the_same_seed_the_same() -> None:
    found = clips(*((f"scene {n}", [n % 3]) for n in range(100)))
    assert drawn_by_scene(found, 0.1, 1) == drawn_by_scene(found, 0.1, 1) != drawn_by_scene(found, 0.1, 2)


def test_ten_thousand_clips_without_scenes_are_drawn_at_once() -> None:
    found = clips(*((f"{n}.mp4", [n % 8]) for n in range(10_000)))
    assert len(drawn_by_scene(found, 0.1, 0)) == 1000


def test_the_old_split_is_reproduced_clip_by_clip() -> None:
    measured = json.loads((FIXTURES / "split_legacy.json").read_text())
    chosen = drawn_by_class(measured["labels"], measured["test_perc"])
    assert sorted(chosen) == measured["val"]
    assert [row for row in range(len(measured["labels"])) if row not in chosen] == measured["train"]


def test_the_old_split_ignores_the_seed_of_the_training(tmp_path: Path) -> None:
    measured = json.loads((FIXTURES / "split_legacy.json").read_text())
    classes = tuple(sorted({name for names in measured["labels"] for name in names}))
    labels = [[classes.index(name) for name in names] for names in measured["labels"]]
    found = Manifest(classes=classes, clips=clips(*(("one scene", each) for each in labels)))
    data = Data(train="", split="legacy", validation=0.1)
    assert list(split_of(found, data, 5, tmp_path / "split.json").validation) == measured["val"]


def test_a_split_is_made_once_and_read_again_whatever_the_settings_say_then(tmp_path: Path) -> None:
    found = manifest(clips(*((f"scene {n}", [n % 3]) for n in range(30))))
    first = split_of(found, Data(train="", validation=0.2), 0, tmp_path / "split.json")
    assert sorted(first.train + first.validation) == list(range(30)) and len(first.validation) == 6
    assert split_of(found, Data(train="", validation=0.5), 1, tmp_path / "split.json") == first
    anew = split_of(found, Data(train="", validation=0.5), 1, tmp_path / "split.json", anew=True)
    assert len(anew.validation) == 15
    assert split_of(found, Data(train=""), 0, tmp_path / "split.json") == anew


def test_a_split_names_clips_so_that_their_rows_may_change(tmp_path: Path) -> None:
    found = manifest(clips(*((f"scene {n}", [n % 3]) for n in range(30))))
    first = split_of(found, Data(train=""), 0, tmp_path / "split.json")
    turned = split_of(replace(found, clips=found.clips[::-1]), Data(train=""), 0, tmp_path / "split.json")
    assert turned.validation == tuple(sorted(29 - row for row in first.validation))


def test_a_split_of_clips_that_the_manifest_lacks_is_refused(tmp_path: Path) -> None:
    found = manifest(clips(*((f"scene {n}", [n % 3]) for n in range(30))))
    split_of(found, Data(train=""), 0, tmp_path / "split.json")
    with pytest.raises(PlanMismatch, match=r"split\.json names 2 clips that the manifest lacks"):
        split_of(replace(found, clips=found.clips[2:]), Data(train=""), 0, tmp_path / "split.json")


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"train": ["0"]}', '{"train": ["0"], "validation": []}', '{"train": ["0"], "validation": ["0"]}'],
)
def test_what_is_no_split_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(PlanMismatch, match=r"split\.json is no split"):
        split_of(manifest(clips(("x", [0]), ("y", [0]))), Data(train=""), 0, tmp_path / "split.json")


def test_clips_of_one_scene_cannot_be_divided_nor_by_the_old_rule_one_clip_of_each_class(tmp_path: Path) -> None:
    for data, found in (
        (Data(train=""), clips(("x", [0]), ("x", [1]))),
        (Data(train="", split="legacy"), clips(("x", [0]), ("y", [1]))),
    ):
        with pytest.raises(BadInput, match="name a manifest of other clips as validation"):
            split_of(manifest(found), data, 0, tmp_path / "split.json")
        assert not (tmp_path / "split.json").exists()


def test_training_gets_its_clips_and_validation_its_own_of_the_same_manifest(tmp_path: Path) -> None:
    found = clips_of(mini(validation=0.3), tmp_path)
    assert found.train is found.validation
    assert (found.train_rows, found.validation_rows) == ((0, 1), (2,))
    assert json.loads((tmp_path / "split.json").read_text())["validation"] == ["2"]


def test_clips_to_be_judged_at_the_end_are_looked_for_at_the_beginning(tmp_path: Path) -> None:
    config = mini(test=str(tmp_path / "none.json"))
    clips_of(config, tmp_path)
    with pytest.raises(MissingInput, match=r"none\.json cannot be read"):
        clips_of(replace(config, test=Judging(at_end=True)), tmp_path)


def test_validation_may_be_a_manifest_of_its_own_in_the_classes_of_training(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(reversed((MINI / "classes.txt").read_text().split())))
    config = mini(validation=str(MINI / "tiny_test.json"), classes=str(tmp_path / "classes.txt"))
    found = clips_of(config, tmp_path)
    assert (found.train_rows, found.validation_rows) == ((0, 1, 2), (0, 1))
    assert found.validation.classes == found.train.classes == tuple(reversed(split.read_classes(MINI / "classes.txt")))
    assert not (tmp_path / "split.json").exists()


def test_short_clips_are_dropped_by_the_word_of_the_manifest_as_they_were(tmp_path: Path) -> None:
    found = clips_of(mini(validation=str(MINI / "tiny_test.json"), short="drop"), tmp_path)
    assert [clip.id for clip in found.train.clips] == ["0", "1"] and found.train_rows == (0, 1)
    with pytest.raises(BadInput, match=r"no clip of .* has 64 frames"):
        split.long_enough(found.train, 64, "tiny_train.json")


def test_clips_without_labels_can_be_judged_and_not_trained_on(tmp_path: Path) -> None:
    entries = [{"path": str(path)} for path in sorted(MINI.rglob("*.mp4"))]
    (tmp_path / "tiny_test.json").write_text(json.dumps(entries))
    config = mini(validation=str(tmp_path / "tiny_test.json"), test=str(tmp_path / "tiny_test.json"))
    judged = split.test_manifest(config, ("x",))
    assert judged is not None and len(judged.clips) == 5 and judged.classes == ("x",)
    with pytest.raises(BadInput, match="5 clips without labels, the first is"):
        clips_of(config, tmp_path)


def test_clips_that_came_after_the_split_are_counted(tmp_path: Path) -> None:
    found = clips_of(mini(validation=0.3), tmp_path)
    assert found.left_out == 0
    more = replace(found.train, clips=(*found.train.clips, replace(found.train.clips[0], id="new")))
    assert replace(found, train=more, validation=more).left_out == 1
    assert replace(found, train=more, train_rows=(0, 1, 2), validation_rows=(0,)).left_out == 1


def test_clips_with_the_same_labels_teach_nothing(tmp_path: Path) -> None:
    (tmp_path / "clips.json").write_text(
        json.dumps([{"path": str(path), "label": ["run"]} for path in sorted(MINI.rglob("*.mp4"))])
    )
    with pytest.raises(BadInput, match=r"clips\.json have the same labels: there is nothing to tell apart"):
        clips_of(Config(data=Data(train=str(tmp_path / "clips.json"))), tmp_path)


def test_no_manifest_of_test_clips_is_no_error() -> None:
    assert split.test_manifest(mini(), ("x",)) is None
