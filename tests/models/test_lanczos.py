"""Frames resized with the very bytes of Pillow's LANCZOS filter."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from streamsal.models.backbones import MEAN, STD
from streamsal.models.lanczos import PRECISION, Lanczos, lanczos_matrix

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video_saliency"


def resized(frames_nhwc: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    resize = Lanczos((frames_nhwc.shape[1], frames_nhwc.shape[2]), size, device=torch.device("cpu"))
    return resize(torch.from_numpy(frames_nhwc)).permute(0, 2, 3, 1).numpy()


def test_enlarged_frame_is_that_of_the_authors_program() -> None:
    fixture = np.load(FIXTURES / "unisal_pipeline_dhf1k_s0.npz")
    wanted = 255 * (fixture["network_input_first"].astype(np.float64).transpose(1, 2, 0) * STD + MEAN)
    found = resized(fixture["frames"][:1], (288, 384))[0, ::4, ::4]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("frame", "size", "checksum"),  # of what Pillow 13.0 gives
    [
        ((128, 192), (32, 64), "e1718450ae805f27"),
        ((97, 161), (64, 96), "6639e7f6eb25bdb9"),
        ((48, 33), (64, 160), "fbb0e047a200499f"),
        ((64, 40), (64, 96), "f492fa98e8e939be"),
        ((128, 1), (32, 32), "e29fe6ac0d9d4ddd"),
    ],
)
def test_bytes_are_those_of_pillow(frame: tuple[int, int], size: tuple[int, int], checksum: str) -> None:
    frames = np.load(FIXTURES / "unisal_dynamic_s0.npz")["frames"]
    found = resized(np.ascontiguousarray(frames[:2, : frame[0], : frame[1]]), size)
    assert hashlib.sha256(found.astype(np.uint8).tobytes()).hexdigest()[:16] == checksum


@pytest.mark.parametrize(("n_in", "n_out"), [(1920, 416), (100, 224), (7, 7), (1, 32)])
def test_weights_sum_to_one(n_in: int, n_out: int) -> None:
    np.testing.assert_allclose(lanczos_matrix(n_in, n_out).sum(1), 2**PRECISION, atol=n_in)
    if n_in == n_out:
        np.testing.assert_array_equal(lanczos_matrix(n_in, n_out), 2**PRECISION * np.eye(n_in))
