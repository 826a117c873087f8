"""Center bias: names, a user's file, and the authors' rule for a frame's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamsal.errors import BadInput, MissingInput, UsageError
from streamsal.models.center_bias import sampled, template, zoom_indices

FIXTURES = Path(__file__).parents[1] / "fixtures/deepgaze"


def test_the_template_is_sampled_where_the_authors_sample_it() -> None:
    wanted = np.load(FIXTURES / "centerbias_zoom_indices.npz")
    assert len(wanted.files) > 15
    for name in wanted.files:
        np.testing.assert_array_equal(zoom_indices(1024, int(name.removeprefix("idx_"))), wanted[name])


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (720, 1280), (1500, 17)])
@pytest.mark.parametrize("name", ["uniform", "gaussian"])
def test_a_sampled_center_bias_is_a_density(name: str, size: tuple[int, int]) -> None:
    found = sampled(template(name), *size)
    assert found.shape == size
    assert found.dtype == np.float32
    assert abs(np.exp(found.astype(np.float64)).sum() - 1) < 1e-5


def test_gaussian_peaks_in_the_middle_and_is_symmetric() -> None:
    found = sampled(template("gaussian"), 60, 80)
    assert found[29:31, 39:41].min() == found.max()
    np.testing.assert_allclose(found, found[::-1, ::-1], atol=1e-4)


def test_a_density_of_the_frames_own_size_is_taken_as_it_is() -> None:
    given = np.random.default_rng(0).normal(size=(45, 61)).astype(np.float32)
    found = sampled(given, 45, 61)
    np.testing.assert_allclose(found - given, (found - given)[0, 0], atol=1e-5)


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    given = np.log(np.random.default_rng(0).dirichlet(np.ones(12)).reshape(3, 4))
    given[0, 0] = -np.inf
    np.save(tmp_path / "mine.npy", given)
    np.testing.assert_array_equal(template(str(tmp_path / "mine.npy")), given.astype(np.float32))


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (np.zeros((3, 4, 5)), BadInput, r"float64 \(3, 4, 5\).*one log density"),
        (np.zeros((3, 4), np.uint8), BadInput, "uint8"),
        (np.full((3, 4), np.nan), BadInput, "NaN"),
        (np.full((3, 4), -np.inf), BadInput, "no probability at all"),
        (np.arange(12.0).reshape(3, 4), BadInput, "looks like probabilities"),
        (None, MissingInput, "no center bias at"),
        (b"<html>", BadInput, "no .npy file"),
    ],
)
def test_what_is_no_center_bias_is_named(tmp_path: Path, content: object, error: type[Exception], words: str) -> None:
    path = tmp_path / "mine.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(error, match=words) as caught:
        template(str(path))
    assert str(path) in str(caught.value)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"'mit'.*mit1003.*\.npy"):
        template("mit")
