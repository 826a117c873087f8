from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsal.sample_clip import SCENES, SOUND_RATE_HZ, open_scene, shot_list, write_demo_clip

SMALL = {"seconds": 3, "width": 192, "height": 108}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_clip(tmp_path_factory.mktemp("demo") / "clip.mp4", **SMALL)


def pictures(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def sound(path: Path) -> np.ndarray:
    """(2, n) float32 at SOUND_RATE_HZ."""
    with av.open(path) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def test_clip_is_the_same_every_time(clip: Path, tmp_path: Path) -> None:
    again = write_demo_clip(tmp_path / "again.mp4", **SMALL)
    np.testing.assert_array_equal(pictures(again), pictures(clip))
    np.testing.assert_array_equal(sound(again), sound(clip))


def test_clip_is_ordinary_h264_with_b_frames_and_stereo_sound(clip: Path) -> None:
    with av.open(clip) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height) == ("h264", 192, 108)
        assert (video.average_rate, video.frames) == (25, 75)
        assert (audio.codec_context.name, audio.channels, audio.rate) == ("aac", 2, SOUND_RATE_HZ)
        packets = [packet for packet in container.demux(video) if packet.size]
    assert [packet.pts for packet in packets] != sorted(packet.pts for packet in packets), "no B-frames"
    assert sum(packet.is_keyframe for packet in packets) > 1, "nothing to seek to"
    assert len(pictures(clip)) == 75
    assert abs(sound(clip).shape[1] / SOUND_RATE_HZ - 3) < 0.04


def test_pictures_cut_where_the_shot_list_says_and_nowhere_else(clip: Path) -> None:
    change = np.abs(np.diff(pictures(clip).astype(float), axis=0)).mean(axis=(1, 2, 3))
    cuts = [shot.start for shot in shot_list(75)][1:]
    assert list(np.flatnonzero(change > 30) + 1) == cuts
    assert np.delete(change, np.array(cuts) - 1).max() < 16


def test_sound_marks_every_cut_and_comes_from_the_target(clip: Path) -> None:
    samples = sound(clip)
    for shot in shot_list(75):
        start = shot.start * SOUND_RATE_HZ // 25
        power = (samples[:, start : start + SOUND_RATE_HZ // 10] ** 2).mean(axis=1)
        if shot.start:
            before = (samples[:, start - SOUND_RATE_HZ // 50 : start - SOUND_RATE_HZ // 100] ** 2).mean()
            assert power.mean() > 4 * before, shot
        x = open_scene(shot, 192, 108).target(0)[0]
        assert (power[1] > power[0]) == (x > 0.5), shot


@given(st.integers(3, 5000), st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(60)]))
def test_shots_tile_the_clip(n_frames: int, frame_rate: Fraction) -> None:
    shots = shot_list(n_frames, frame_rate)
    assert [frame for shot in shots for frame in range(shot.start, shot.stop)] == list(range(n_frames))
    assert all(shot.n_frames for shot in shots)
    assert {shot.kind for shot in shots} == set(SCENES)


@pytest.mark.parametrize("repetition", range(3))
def test_target_is_what_differs_from_its_neighbors(repetition: int) -> None:
    colors = {"odd bar": (246, 118, 62), "odd motion": (45, 110, 125), "leader": (250, 208, 115)}
    for shot in shot_list(600)[3 * repetition : 3 * repetition + 3]:
        scene = open_scene(shot, 640, 360)
        for frame in (0, shot.n_frames // 2, shot.n_frames - 1):
            x, y = scene.target(frame)
            assert 0.1 < x < 0.9 and 0.1 < y < 0.9
            around = scene.paint(frame)[int(y * 360) - 1 : int(y * 360) + 1, int(x * 640) - 1 : int(x * 640) + 1]
            assert np.abs(around.mean(axis=(0, 1)) - colors[shot.kind]).max() < 25, (shot, frame)


def test_clip_of_another_rate_and_container_keeps_its_times(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    path = write_demo_clip(tmp_path / "ntsc.mkv", seconds=1, width=128, height=64, frame_rate=rate)
    with av.open(path) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(30) / float(rate), atol=6e-4)  # Matroska counts milliseconds


@pytest.mark.parametrize("wrong", [{"width": 193}, {"height": 32}, {"seconds": 0.04}])
def test_impossible_clip_is_refused_by_value(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        write_demo_clip(tmp_path / "never.mp4", **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())
