"""TASED-Net: the numbers of its authors' program, and one place for every maximum on every device."""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from streamsal.errors import UsageError
from streamsal.models import spec_of, tased
from streamsal.weights import synthetic

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video_saliency"
TOLERANCE = 2e-5  # of the range of the values
frames_of = runpy.run_path(str(FIXTURES / "inputs.py"))["frames"]


@cache
def network() -> tuple[tased.Encoder, tased.Decoder]:
    weights = synthetic.state_dict(tased.template(), adjust={})
    return tased.Encoder(weights), tased.Decoder(weights)


def logits(frames: np.ndarray) -> np.ndarray:
    encoder, decoder = network()
    with torch.no_grad():
        x = tased.normalized(torch.from_numpy(np.ascontiguousarray(frames)))
        return decoder(*encoder(encoder.base1(x))).numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_map_matches_the_fixture() -> None:
    with np.load(FIXTURES / "tased_s0.npz") as wanted:
        assert np.array_equal(wanted["frames"], frames_of(1, 32, 64, 96))
        forward, backward = logits(wanted["frames"]), logits(wanted["frames"][::-1])
        for found, key in ((forward, "logit"), (sigmoid(forward), "out"), (sigmoid(backward), "out_reversed")):
            np.testing.assert_allclose(found, wanted[key], rtol=0, atol=TOLERANCE * np.ptp(wanted[key]), err_msg=key)


def test_template_lists_the_entries_of_the_official_checkpoint() -> None:
    wanted = json.loads((FIXTURES / "tased_keys.json").read_text())
    assert [(key, list(value.shape)) for key, value in tased.template().items()] == list(wanted.items())


def test_of_maxima_that_share_a_place_the_last_one_is_written() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 4, (2, 3, 8, 12), generator=rng).float()  # so few values that many windows share one
    highest, index = functional.max_pool2d(x, 3, 2, 1, return_indices=True)
    values = torch.rand(highest.shape, generator=rng)
    wanted = np.zeros((2, 3, 8 * 12), np.float32)
    written = 0
    for t, c in np.ndindex(2, 3):
        for place, value in zip(index[t, c].flatten().tolist(), values[t, c].flatten().tolist(), strict=True):
            wanted[t, c, place] = value
            written += 1
    assert written > np.count_nonzero(wanted)
    np.testing.assert_array_equal(tased.unpooled(values, index).flatten(2).numpy(), wanted)


def test_the_authors_picture_is_the_map_cut_off_blurred_and_divided_by_its_maximum() -> None:
    with np.load(FIXTURES / "tased_s0.npz") as fixture:
        logits_hw, wanted = torch.from_numpy(fixture["logit"]), fixture["png"]
    rows, columns = (tased.gaussian(n) for n in logits_hw.shape)
    found = tased.finished(logits_hw, rows=rows, columns=columns).numpy()
    assert abs((255 * found / found.max()).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("n", [5, 28, 224])
def test_a_blur_keeps_what_there_is_and_is_mirrored_at_the_border(n: int) -> None:
    matrix = tased.gaussian(n).double().numpy()
    np.testing.assert_allclose(matrix.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    impulse = np.eye(n)[0]
    mirrored = np.concatenate([np.tile(np.r_[impulse[::-1], impulse], 40)] * 2)
    kernel = np.exp(-0.5 * (np.arange(-28, 29) / 7) ** 2)
    around = np.convolve(mirrored, kernel / kernel.sum(), "same")
    np.testing.assert_allclose(matrix @ impulse, around[40 * n + n : 40 * n + 2 * n], atol=1e-6)


def test_post_processing_is_none_or_that_of_the_authors() -> None:
    assert spec_of("tased", post="upstream").outputs == spec_of("tased").outputs
    with pytest.raises(UsageError, match=r"'blur': choose none, upstream"):
        spec_of("tased", post="blur")


def test_a_frame_is_resized_as_opencv_does() -> None:
    frame = torch.tensor([[0, 100], [200, 40]], dtype=torch.uint8)[None, :, :, None].expand(1, 2, 2, 3)
    # Pixels count at their centers: a quarter and three quarters of the way, the border repeated.
    share = np.array([1, 0.75, 0.25, 0])
    corners = np.array([[0, 100], [200, 40]])
    wanted = np.stack([share, 1 - share], 1) @ corners @ np.stack([share, 1 - share])
    found = tased.resized(frame, 4, 4, antialias=False)[0, :, :, 0].numpy()
    assert abs(found - wanted).max() <= 0.5
