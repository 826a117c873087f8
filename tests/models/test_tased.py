"""TASED-Net: the numbers of its authors' program, and one place for every maximum on every device."""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from streamsal.models import tased
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
