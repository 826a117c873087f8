"""Predictions are what the network says of each clip, whoever computes them and beside whatever else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from side_by_side import end_all, start_two

from streamsal.actions.config import Test as Settings
from streamsal.actions.manifest import LabeledClip, Manifest, read_manifest
from streamsal.actions.predict import clip_of, pooled, predict
from streamsal.actions.predictions import Predictions
from streamsal.actions.processes import Processes
from streamsal.actions.reading import At, Read, Wanted, batches
from streamsal.errors import Stopped, VideoError
from streamsal.models.classifier import Classifier, load
from streamsal.models.design import Design

MINI = Path(__file__).parents[1] / "fixtures/lowres_action/mini_tinyvirat"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Five clips, one of them shorter than what the network takes."""
    train, test = read_manifest(MINI / "tiny_train.json"), read_manifest(MINI / "tiny_test.json")
    return Manifest(classes=train.classes, clips=(*train.clips, *test.clips))


@pytest.fixture(scope="module")
def classifier(manifest: Manifest) -> Classifier:
    return load("synthetic", Design(classes=manifest.classes, frames=16, side_in=14, side=28, width=0.125))


def said(classifier: Classifier, manifest: Manifest, rows: list[int], **options: object) -> Predictions:
    test = Settings(**{"batch": 2, **options})  # type: ignore[arg-type]
    return predict(classifier, manifest, rows, test, processes=Processes(), workers=0)


def alone(classifier: Classifier, clip: LabeledClip, at: At = 0.0, flip: bool = False) -> np.ndarray:
    """(k, C) logits of each window, which goes through the network by itself."""
    manifest, wanted, design = Manifest(classes=(), clips=(clip,)), [Wanted(row=0, at=at, flip=flip)], classifier.design
    ((read,),) = batches(manifest, wanted, design, batch=1)
    clips = [clip_of(read, window, design, torch.device("cpu")) for window in range(len(read.windows_ktHWC))]
    with torch.inference_mode():
        return torch.cat([classifier(one[None]) for one in clips]).numpy()


def test_rows_are_what_the_network_says_of_each_clip(classifier: Classifier, manifest: Manifest) -> None:
    rows = [3, 0, 4, 1, 2]
    found = said(classifier, manifest, rows)
    assert (found.classes, found.ids) == (manifest.classes, tuple(manifest.clips[row].id for row in rows))
    np.testing.assert_array_equal(found.targets, manifest.targets()[rows])
    one_by_one = np.concatenate([alone(classifier, manifest.clips[row]) for row in rows])
    assert np.ptp(one_by_one, axis=0).max() > 1e-2
    np.testing.assert_allclose(found.logits, one_by_one, atol=1e-4)
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-found.logits)), atol=1e-6)


@pytest.mark.parametrize("clips", [3, "all"])
@pytest.mark.parametrize("pool", ["max", "mean"])
def test_windows_of_a_video_become_one_row(classifier: Classifier, manifest: Manifest, clips: At, pool: str) -> None:
    found = said(classifier, manifest, [0, 1, 2], clips=clips, pool=pool)
    windows = [1 / (1 + np.exp(-alone(classifier, manifest.clips[row], clips))) for row in (0, 1, 2)]
    assert max(map(len, windows)) > 2
    expected = [each.max(0) if pool == "max" else each.mean(0) for each in windows]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def test_batches_are_always_full(classifier: Classifier, manifest: Manifest) -> None:
    shapes = []
    hook = classifier.register_forward_pre_hook(lambda _, clips: shapes.append(tuple(clips[0].shape)))
    said(classifier, manifest, [0, 1, 2, 3, 4], batch=4, clips="all")
    hook.remove()
    assert len(shapes) > 2 and set(shapes) == {(4, 3, 16, 14, 14)}


WORK = """
import sys
from pathlib import Path
import torch
from streamsal.actions.config import Test
from streamsal.actions.manifest import Manifest, read_manifest
from streamsal.actions.predict import predict
from streamsal.actions.processes import joined
from streamsal.models.classifier import load
from streamsal.models.design import Design

mini, folder = map(Path, sys.argv[1:])
parts = [read_manifest(mini / name) for name in ("tiny_train.json", "tiny_test.json")]
manifest = Manifest(classes=parts[0].classes, clips=parts[0].clips + parts[1].clips)
classifier = load("synthetic", Design(classes=manifest.classes, frames=16, side_in=14, side=28, width=0.125))
with joined("cpu") as processes:
    for clips, rows in ((1, range(5)), ("all", range(5)), (1, [2])):
        test = Test(batch=2, clips=clips, pool="mean")
        found = predict(classifier, manifest, rows, test, processes=processes, workers=0)
        found.save(folder / f"{clips}_{len(rows)}_{processes.rank}.h5")
"""


def test_two_processes_say_to_the_last_bit_what_one_says(
    classifier: Classifier, manifest: Manifest, tmp_path: Path, one_core: None
) -> None:
    end_all(start_two("-c", WORK, MINI, tmp_path))
    for clips, rows in ((1, [0, 1, 2, 3, 4]), ("all", [0, 1, 2, 3, 4]), (1, [2])):
        one = said(classifier, manifest, rows, clips=clips, pool="mean")
        first, second = (Predictions.load(tmp_path / f"{clips}_{len(rows)}_{rank}.h5") for rank in (0, 1))
        assert one.ids == first.ids == second.ids
        for of in ("targets", "logits", "probabilities"):
            assert getattr(one, of).tobytes() == getattr(first, of).tobytes() == getattr(second, of).tobytes()


@pytest.fixture
def one_core() -> Iterator[None]:
    """As each of the processes side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_who_decodes_does_not_matter(classifier: Classifier, manifest: Manifest) -> None:
    test = Settings(batch=2)
    two = predict(classifier, manifest, [0, 1, 2], test, processes=Processes(), workers=2)
    np.testing.assert_array_equal(two.logits, said(classifier, manifest, [0, 1, 2]).logits)


def test_neighbors_in_a_batch_do_not_matter(classifier: Classifier, manifest: Manifest) -> None:
    together = said(classifier, manifest, [0, 1, 2])
    other = said(classifier, manifest, [0, 4])
    np.testing.assert_array_equal(together.logits[0], other.logits[0])
    np.testing.assert_allclose(together.logits[2], said(classifier, manifest, [1, 2]).logits[1], atol=1e-4)


def test_the_old_program_mirrored_half_of_the_clips(classifier: Classifier, manifest: Manifest) -> None:
    many = replace(manifest, clips=manifest.clips[:2] * 4)
    found = predict(classifier, many, range(8), Settings(batch=8), processes=Processes(), workers=0, legacy_flip=True)
    kinds = [[alone(classifier, clip, flip=flip)[0] for flip in (False, True)] for clip in many.clips]
    mirrored = [np.abs(both - row).max(1).argmin() for both, row in zip(kinds, found.logits, strict=True)]
    assert 0 < sum(mirrored) < 8


def test_a_mirrored_clip_has_left_and_right_exchanged(classifier: Classifier) -> None:
    frames_nhwc = torch.zeros(16, 14, 14, 3, dtype=torch.uint8)
    frames_nhwc[5, 2, 3, 0] = 255  # of red, at time 5, row 2, column 3
    read = Read(row=0, windows_ktHWC=frames_nhwc[None], size=(14, 14), flip=True)
    clip = clip_of(read, 0, classifier.design, torch.device("cpu"))
    assert clip.shape == (3, 16, 14, 14)
    assert (clip == 1).nonzero().tolist() == [[0, 5, 2, 10]]


def test_a_network_in_training_is_in_training_again(manifest: Manifest) -> None:
    network = Classifier(Design(classes=manifest.classes, frames=8, side_in=14, side=28, width=0.125))
    network.train()
    network.i3d.eval()  # as where it is frozen
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first, second = said(network, manifest, [0]), said(network, manifest, [0])
    np.testing.assert_array_equal(first.logits, second.logits)
    assert network.training and network.resizer.training and not any(m.training for m in network.i3d.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_lower_precision_is_close(classifier: Classifier, manifest: Manifest) -> None:
    low = predict(classifier, manifest, [0], Settings(), processes=Processes(), workers=0, dtype=torch.bfloat16)
    exact = said(classifier, manifest, [0])
    assert low.logits.dtype == np.float32 and not np.array_equal(low.logits, exact.logits)
    np.testing.assert_allclose(low.probabilities, exact.probabilities, atol=0.05)


def test_unlabeled_clips_have_predictions_without_targets(classifier: Classifier, manifest: Manifest) -> None:
    clips = tuple(replace(clip, labels=(), labeled=False) for clip in manifest.clips[:1])
    assert said(classifier, replace(manifest, clips=clips), [0]).targets is None


def test_no_rows_give_no_predictions(classifier: Classifier, manifest: Manifest) -> None:
    assert said(classifier, manifest, []).logits.shape == (0, len(manifest.classes))


def test_who_is_asked_to_stop_stops(classifier: Classifier, manifest: Manifest) -> None:
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        predict(
            classifier, manifest, range(5), Settings(batch=2), processes=Processes(), workers=0, stop=lambda: "SIGTERM"
        )


def test_a_damaged_clip_is_named(classifier: Classifier, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    clips = (*manifest.clips[:1], replace(manifest.clips[0], path=tmp_path / "broken.mp4"))
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        said(classifier, replace(manifest, clips=clips), [0, 1])


LOGITS = st.lists(st.floats(-15, 15), min_size=1, max_size=6)


@settings(max_examples=50)
@given(LOGITS)
def test_pooled_logits_are_those_of_pooled_probabilities(logits: list[float]) -> None:
    x = torch.tensor(logits, dtype=torch.float64)[:, None]
    for pool, of in (("max", x.sigmoid().amax()), ("mean", x.sigmoid().mean())):
        found = pooled(x, pool)  # type: ignore[arg-type]
        assert torch.allclose(found.sigmoid(), of, rtol=1e-9, atol=0)


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_logits_of_sure_windows_are_not_lost(pool: str) -> None:
    for sure in (-200.0, 200.0):
        x = torch.full((3, 2), sure, dtype=torch.float64)
        assert torch.allclose(pooled(x, pool), x[0])  # type: ignore[arg-type]
