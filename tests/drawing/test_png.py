from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from streamsal.drawing.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (40, 24), (1, 1, 3), (3, 7, 3), (40, 24, 3)])
def test_what_another_decoder_reads_are_the_same_samples(tmp_path: Path, shape: tuple[int, ...]) -> None:
    dtype, form = (np.uint16, "gray16be") if len(shape) == 2 else (np.uint8, "rgb24")
    samples = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)
    (tmp_path / "x.png").write_bytes(encode_png(samples))
    with av.open(str(tmp_path / "x.png")) as file:
        picture = next(file.decode(video=0))
    assert picture.format.name == form
    np.testing.assert_array_equal(picture.to_ndarray(), samples)


def test_what_has_no_meaning_as_a_picture_is_refused() -> None:
    with pytest.raises(TypeError, match="float32"):
        encode_png(np.zeros((2, 2), np.float32))
