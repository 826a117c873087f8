"""Classifiers of clips: resizer and I3D together against measured numbers, and the files that hold them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lowres_networks import clips, fixture, stand_ins
from torch import Tensor

from streamsal.errors import BadInput, MissingInput, MissingWeights, UsageError
from streamsal.models import classifier as module
from streamsal.models.bilinear import thinned
from streamsal.models.classifier import (
    Classifier,
    begin_with,
    design_of,
    design_of_pair,
    load,
    prepared,
    read_pair,
    save,
    write_pair,
)
from streamsal.models.design import Design

SMALL = Design(classes=("run", "walk"), frames=8, side_in=16, side=28, width=0.125)
RESIZERS: dict[str, dict[str, Any]] = {
    "v4_2d_res3": {"resizer": "2d", "blocks": 3},
    "v4_3d_res1": {"resizer": "3d", "blocks": 1},
    "twr_res3_1_2": {"resizer": "transformer", "blocks": 3, "read": 1, "apply": 2, "legacy_layout": True},
}
KEYS = {
    "v4_2d_res3": "resizer_v4_2d_res3",
    "v4_3d_res1": "resizer_v4_3d_res1",
    "twr_res3_1_2": "transformer_resizer_56to112_res3_read1",
}


def small(seed: int = 0, **fields: Any) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(replace(SMALL, **fields)).eval()


def some_clips(n: int = 2) -> Tensor:
    return clips(*range(n), size=(8, 16, 16))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    found, wanted = one.state_dict(), other.state_dict()
    return list(found) == list(wanted) and all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", RESIZERS)
def test_old_files_score_clips_as_measured(name: str, tmp_path: Path) -> None:
    design = Design(classes=tuple(map(str, range(26))), **RESIZERS[name])
    torch.save(stand_ins("i3d_fork_26"), tmp_path / "i3d.pt")
    torch.save(stand_ins(KEYS[name]), tmp_path / "resizer.pt")
    classifier = read_pair(tmp_path / "i3d.pt", tmp_path / "resizer.pt", design)
    number = list(RESIZERS).index(name) % 2  # one clip each is enough, and they take their time
    with torch.inference_mode():
        found = classifier(clips(31 + number, size=(32, 56, 56)))[0]
    wanted = fixture("classifier_end_to_end")
    torch.testing.assert_close(found, wanted[f"logits_{name}"][number], rtol=0, atol=1e-3)
    torch.testing.assert_close(found.sigmoid(), wanted[f"probs_{name}"][number], rtol=0, atol=1e-3)


@pytest.mark.parametrize("resizer", ["none", "2d", "3d", "transformer"])
def test_scores_are_those_of_the_vector(resizer: Any) -> None:
    classifier = small(resizer=resizer)
    vectors = classifier.features(some_clips())
    assert vectors.shape == (2, 128)
    torch.testing.assert_close(classifier.logits_of(vectors), classifier(some_clips()))
    assert classifier.resized(some_clips()).shape == (2, 3, 8, 28, 28)
    thetas = classifier.thetas(some_clips())
    assert (thetas is None) == (resizer != "transformer")
    assert thetas is None or thetas.shape == (16, 2, 3)


def test_only_in_training_features_are_dropped() -> None:
    torch.manual_seed(0)
    classifier = Classifier(SMALL, dropout=0.9).eval()
    once = classifier(some_clips())
    assert torch.equal(classifier(some_clips()), once)
    classifier.i3d.dropout.train()
    assert not torch.equal(classifier(some_clips()), once)


def test_every_weight_learns() -> None:
    designs: list[dict[str, Any]] = [{"resizer": "3d"}, {"resizer": "transformer", "read": 1, "apply": 4}]
    for fields in designs:
        classifier = small(**fields).train()
        for name, value in classifier.named_parameters():
            if name.startswith(("resizer.fc_loc", "resizer.scalar")):
                torch.nn.init.normal_(value)  # where they are 0, what is before them learns from the second step on
        classifier(some_clips()).square().sum().backward()
        still = [name for name, value in classifier.named_parameters() if value.grad is None or not value.grad.any()]
        assert not still


def test_frames_are_resized_as_they_are_and_scaled() -> None:
    frames = torch.arange(2 * 5 * 9 * 3).reshape(2, 5, 9, 3).mul(7).remainder(256).to(torch.uint8)
    found = prepared(frames, SMALL)
    assert found.shape == (2, 3, 16, 16) and found.dtype == torch.float32
    wanted = torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2) / 255 * 2 - 1, (16, 16), mode="bilinear")
    torch.testing.assert_close(found, wanted)
    assert prepared(torch.tensor([0, 255, 255], dtype=torch.uint8).expand(1, 4, 4, 3), SMALL)[0, :, 0, 0].tolist() == [
        -1.0,
        1.0,
        1.0,
    ]


def test_red_and_blue_are_exchanged_where_weights_want_it() -> None:
    frames = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(prepared(frames, replace(SMALL, colors="bgr")), prepared(frames, SMALL)[:, [2, 1, 0]])


def test_frames_without_the_pixels_that_do_not_count_are_prepared_to_the_same_bits() -> None:
    design = replace(SMALL, colors="bgr")
    frames = torch.randint(0, 256, (3, 50, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    left = torch.from_numpy(np.stack([thinned(frame, design.side_in) for frame in frames.numpy()]))
    assert left.shape[1:3] == (32, 32)
    assert torch.equal(prepared(left, design, (50, 70)), prepared(frames, design))


def test_pictures_are_no_flow() -> None:
    with pytest.raises(UsageError, match="optical flow"):
        prepared(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), replace(SMALL, channels=2))


def test_a_classifier_of_flow_scores_flow() -> None:
    assert small(channels=2)(some_clips()[:, :2]).shape == (2, 2)


@pytest.mark.parametrize("resizer", ["none", "2d", "3d", "transformer"])
def test_a_classifier_comes_back_from_its_file(resizer: Any, tmp_path: Path) -> None:
    classifier, path = small(resizer=resizer, read=1, apply=3, colors="bgr"), tmp_path / "best.pt"
    save(path, classifier, epoch=3, scores={"f1_macro": 0.5})
    found = load(path)
    assert found.design == classifier.design == design_of(path)
    assert same(found, classifier) and not found.training
    assert torch.load(path, weights_only=True)["scores"] == {"f1_macro": 0.5}
    assert same(load(torch.load(path, weights_only=True)), classifier)


def test_a_new_file_takes_the_place_of_the_old_one_at_once(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    save(path, small(seed=1))
    with pytest.raises(AttributeError):
        save(path, small(seed=2), broken=lambda: None)  # what pickle cannot write
    assert same(load(path), small(seed=1))
    assert [file.name for file in tmp_path.iterdir()] == ["best.pt"]


def test_stand_ins_are_the_same_for_everybody() -> None:
    assert same(load("synthetic", SMALL), load("synthetic", SMALL))
    with pytest.raises(UsageError, match="needs a design"):
        load("synthetic")


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "some.pt"
    with pytest.raises(MissingInput):
        load(path)
    for found, what in [
        (stand_ins("i3d_fork_26"), "an Inception-I3D"),
        (stand_ins("i3d_classic_157"), "an Inception-I3D"),
        (stand_ins("resizer_v4_2d_res1"), "a resizer of clips"),
        (stand_ins(KEYS["twr_res3_1_2"]), "a resizer of clips with a spatial transformer"),
        (stand_ins("spatial_transformer_28"), "a spatial transformer"),
        (small().state_dict(), "weights of a classifier of clips without its design"),
        ({"a": torch.zeros(1)}, r"something unknown \(1 entries\)"),
    ]:
        torch.save(found, path)
        with pytest.raises(BadInput, match=rf"some\.pt is no classifier of clips: it is {what}$"):
            load(path)
        with pytest.raises(BadInput, match="is no classifier of clips"):
            design_of(path)
    save(path, small())
    with pytest.raises(BadInput, match=r"is no checkpoint of I3D: it is a classifier of clips$"):
        module.weights_of(torch.load(path), str(path))


@pytest.mark.parametrize("design", [{}, {"design": [3]}, {"design": {"classes": ["run"], "frames": "32"}}], ids=str)
def test_a_file_whose_design_is_none_is_named(tmp_path: Path, design: dict[str, Any]) -> None:
    path = tmp_path / "some.pt"
    torch.save({"format": module.FORMAT, "weights": {}, **design}, path)
    with pytest.raises(BadInput, match=r"some\.pt holds no design of a classifier: "):
        load(path)
    with pytest.raises(BadInput, match=r"holds no design of a classifier: "):
        design_of(torch.load(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    classifier = small()
    torch.nn.init.constant_(classifier.i3d.logits.conv3d.weight[:1], value)
    save(tmp_path / "some.pt", classifier)
    with pytest.raises(
        BadInput, match=r"some\.pt is of a training that went astray: i3d\.logits\.conv3d\.weight holds"
    ):
        load(tmp_path / "some.pt")


def test_a_file_in_which_a_bit_has_changed_is_refused(tmp_path: Path) -> None:
    path, classifier = tmp_path / "some.pt", small()
    save(path, classifier)
    whole = bytearray(path.read_bytes())
    whole[whole.index(classifier.i3d.logits.conv3d.weight.detach().numpy().tobytes())] ^= 1
    path.write_bytes(whole)
    for reading in (load, lambda path: begin_with(small(), path, print)):
        with pytest.raises(BadInput, match=r"some\.pt is damaged or cut off \(the checksum .*\): get or make it"):
            reading(path)


def test_a_file_whose_weights_are_not_of_its_design_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "some.pt", small())
    found = torch.load(tmp_path / "some.pt")
    found["design"]["side"], found["design"]["blocks"] = 28, 2
    with pytest.raises(
        BadInput,
        match=r"^the mapping given .* is no checkpoint of the design beside it: .* 12 of \d+ tensors missing",
    ):
        load(found)


@pytest.mark.parametrize("resizer", ["none", "2d", "3d", "transformer"])
def test_a_pair_of_files_comes_back_as_it_was(resizer: Any, tmp_path: Path) -> None:
    classifier = small(resizer=resizer, read=2, apply=5)
    written = write_pair(classifier, tmp_path / "old")
    assert [path.name for path in written] == ["old_i3d.pt", "old_resizer.pt"][: 1 if resizer == "none" else 2]
    found = read_pair(written[0], written[1] if resizer != "none" else None, classifier.design)
    assert same(found, classifier) and not found.training
    again = write_pair(found, tmp_path / "again")
    for one, other in zip(written, again, strict=True):
        before, after = torch.load(one), torch.load(other)
        assert list(before) == list(after) and all(torch.equal(before[key], after[key]) for key in before)


def test_the_old_i3d_has_the_old_programs_keys(tmp_path: Path) -> None:
    path, _ = write_pair(Classifier(Design(classes=tuple(map(str, range(26))))), tmp_path / "old")
    assert set(torch.load(path, mmap=True)) == set(stand_ins("i3d_fork_26"))


def test_a_pair_that_is_not_of_the_design_is_refused(tmp_path: Path) -> None:
    i3d, resizer = write_pair(small(), tmp_path / "old")
    with pytest.raises(UsageError, match="needs the file of its resizer"):
        read_pair(i3d, None, SMALL)
    with pytest.raises(UsageError, match="has no resizer"):
        read_pair(i3d, resizer, replace(SMALL, resizer="none"))
    with pytest.raises(BadInput, match=r"old_resizer\.pt is no checkpoint of the resizer of this design"):
        read_pair(i3d, resizer, replace(SMALL, resizer="3d"))
    with pytest.raises(BadInput, match=r"old_i3d\.pt is no checkpoint of the I3D of this design"):
        read_pair(i3d, resizer, replace(SMALL, classes=("one",)))
    with pytest.raises(BadInput, match="it is a resizer of clips"):
        read_pair(resizer, i3d, SMALL)


def trunk(classifier: Classifier) -> torch.nn.Module:
    return torch.nn.ModuleDict({name: part for name, part in classifier.i3d.named_children() if name != "logits"})


@pytest.mark.parametrize("name", RESIZERS)
def test_shapes_tell_the_design_of_old_files(name: str, tmp_path: Path) -> None:
    torch.save(stand_ins("i3d_fork_26"), tmp_path / "i3d.pt")
    torch.save({f"module.{key}": value for key, value in stand_ins(KEYS[name]).items()}, tmp_path / "resizer.pt")
    apply = RESIZERS[name].get("apply")
    found = design_of_pair(tmp_path / "i3d.pt", tmp_path / "resizer.pt", apply=apply)
    wanted = Design(classes=tuple(map(str, range(26))), colors="bgr", order="legacy", **RESIZERS[name])
    assert found == wanted
    natural = design_of_pair(tmp_path / "i3d.pt", tmp_path / "resizer.pt", apply=apply, natural=True)
    assert natural == replace(wanted, colors="rgb", order="natural", legacy_layout=False)
    read_pair(tmp_path / "i3d.pt", tmp_path / "resizer.pt", natural)


def test_an_i3d_alone_sees_clips_as_they_are(tmp_path: Path) -> None:
    (path,) = write_pair(small(resizer="none", channels=2), tmp_path / "old")
    found = design_of_pair(path, side=28, frames=8, classes=("run", "walk"), natural=True)
    assert found == replace(SMALL, resizer="none", channels=2, side_in=28)
    with pytest.raises(UsageError, match=r"old_i3d\.pt knows 2 classes, not 1"):
        design_of_pair(path, classes=("run",))


def test_what_shapes_do_not_tell_has_to_be_said(tmp_path: Path) -> None:
    i3d, resizer = write_pair(small(resizer="transformer", read=7, apply=8), tmp_path / "old")
    sizes: dict[str, Any] = {"side_in": 16, "side": 28, "frames": 8}
    with pytest.raises(UsageError, match="can read at 7 or 8: say with --read"):
        design_of_pair(i3d, resizer, apply=8, **sizes)
    with pytest.raises(UsageError, match="can read at 7 or 8: say with --read"):
        design_of_pair(i3d, resizer, read=0, apply=8, **sizes)
    with pytest.raises(UsageError, match="does not tell at which tap it warps"):
        design_of_pair(i3d, resizer, read=7, **sizes)
    with pytest.raises(UsageError, match="can read at no tap for these sides"):
        design_of_pair(i3d, resizer, read=7, apply=8)
    assert design_of_pair(i3d, resizer, read=7, apply=8, **sizes).read == 7
    with pytest.raises(UsageError, match=r"plain_resizer\.pt has no transformer: leave --read and --apply out"):
        design_of_pair(*write_pair(small(), tmp_path / "plain"), read=0)
    with pytest.raises(BadInput, match=r"old_i3d\.pt is no resizer of clips: it is an Inception-I3D"):
        design_of_pair(i3d, i3d)


def begun(weights: Path, **fields: Any) -> tuple[Classifier, Classifier, list[str]]:
    """A new classifier, the same after it was filled, and what was said."""
    said: list[str] = []
    filled = small(seed=9, **fields)
    begin_with(filled, str(weights), said.append)
    return small(seed=9, **fields), filled, said


def test_training_begins_with_another_classifier(tmp_path: Path) -> None:
    save(tmp_path / "one.pt", small(seed=1))
    _, filled, said = begun(tmp_path / "one.pt")
    assert same(filled, small(seed=1)) and not said


def test_logits_of_other_classes_begin_anew(tmp_path: Path) -> None:
    save(tmp_path / "one.pt", small(seed=1))
    for classes in (("run", "swim"), ("run", "walk", "swim")):
        new, filled, said = begun(tmp_path / "one.pt", classes=classes)
        assert same(filled.i3d.logits, new.i3d.logits)
        assert same(trunk(filled), trunk(small(seed=1))) and same(filled.resizer, small(seed=1).resizer)
        assert said == ["one.pt knows other classes: the logits begin anew"]


def test_a_resizer_of_another_design_begins_anew(tmp_path: Path) -> None:
    save(tmp_path / "one.pt", small(seed=1))
    new, filled, said = begun(tmp_path / "one.pt", resizer="3d")
    assert same(filled.resizer, new.resizer) and same(filled.i3d, small(seed=1).i3d)
    assert said == ["one.pt has no resizer of this design: it begins anew"]


def test_training_begins_with_an_i3d_of_either_layout(tmp_path: Path) -> None:
    path, _ = write_pair(small(seed=1), tmp_path / "old")
    new, filled, _ = begun(path)
    assert same(filled.i3d, small(seed=1).i3d) and same(filled.resizer, new.resizer)
    torch.save({key.removeprefix("model."): value for key, value in torch.load(path).items()}, path)
    _, filled, _ = begun(path, resizer="none", classes=("a", "b", "c"))
    assert same(trunk(filled), trunk(small(seed=1)))


def test_a_published_i3d_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSAL_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match="streamsal weights fetch i3d_rgb_charades"):
        begin_with(small(), "i3d_rgb_charades", print)


def test_an_i3d_of_another_width_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "one.pt", small(width=0.25))
    with pytest.raises(BadInput, match=r"one\.pt is no checkpoint of the I3D of this design: .* of another shape"):
        begun(tmp_path / "one.pt")
