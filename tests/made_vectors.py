"""Vectors of a video that never was, with a hole in the middle."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamsal.vectors.intervals import Vectors


def make_vectors(video: str = "talk.mp4", n: int = 5, width: int = 7, **facts: Any) -> Vectors:
    rng = np.random.default_rng(len(video) + n)
    features = rng.standard_normal((n, width)).astype(np.float32)
    features[n // 2] = np.nan
    return Vectors(
        video=video,
        features=features,
        start_seconds=np.arange(n) / 3,
        end_seconds=np.arange(n) / 3 + 2.002,
        frames=np.arange(n)[:, None] * 10 + np.arange(4),
        valid=np.linspace(0.5, 1, n).astype(np.float32),
        facts={
            "model": "x3d_s",
            "weights_sha256": None,
            "stride": "1/3 s",
            "fps": 29.97,
            "frames_per_clip": 4,
            **facts,
        },
        more={"features_salient": features * 2},
    )
