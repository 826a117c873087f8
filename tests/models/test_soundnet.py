"""SoundNet: the features of both programs that use it, and the sound that a row has room for."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from streamsal.errors import UsageError
from streamsal.models import avinet, soundnet, stavis
from streamsal.models.spec import Window
from streamsal.weights import synthetic

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video_saliency"
TOLERANCE = 1e-5  # of the largest value
audio_of = runpy.run_path(str(FIXTURES / "inputs.py"))["audio"]


def features(names: tuple[tuple[str, str], ...], *, across: bool, seed: int, n: int) -> np.ndarray:
    network = soundnet.SoundNet(synthetic.state_dict(soundnet.template(names, across=across), adjust={}), names)
    with torch.no_grad():
        return network(torch.from_numpy(audio_of(seed, n))).numpy()


def test_features_match_the_fixture_of_avinet() -> None:
    with np.load(FIXTURES / "avinet_s0.npz") as z:
        wanted = z["audionet"]
    found = features(avinet.SOUND_NAMES, across=False, seed=2, n=70560)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


@pytest.mark.parametrize(("row", "seed"), [(0, 3), (1, 4)])
def test_the_highest_features_match_the_fixture_of_stavis(row: int, seed: int) -> None:
    with np.load(FIXTURES / "stavis_s0.npz") as z:
        wanted = z["soundnet"][row, :, 0]
    found = features(stavis.SOUND_NAMES, across=True, seed=seed, n=35280)
    assert found.shape == (1024, 2)
    np.testing.assert_allclose(found.max(1), wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


def test_a_row_has_room_for_its_frames_at_10_per_second() -> None:
    for window, samples in ((Window(past=8, future=7), 35280), (Window(past=31), 70560)):
        heard = soundnet.heard("x", "time", window)
        assert heard is not None
        assert (heard.samples, heard.past, heard.future) == (samples, window.past, window.future)
        assert samples == 22050 * window.length // 10


def test_hearing_is_by_time_as_upstream_or_off() -> None:
    by_time = soundnet.heard("x", "time", Window())
    assert by_time is not None and by_time.rate_hz == 22050
    assert soundnet.heard("x", "off", Window()) is None
    upstream = soundnet.heard("x", "upstream", Window())
    assert upstream is not None and upstream.rate_hz is None
    with pytest.raises(UsageError, match="x has no audio 'loud': choose time, upstream, off"):
        soundnet.heard("x", "loud", Window())  # type: ignore[arg-type]
