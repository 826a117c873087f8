"""What the latent-vectors service, a fork of PySlowFast of 2022, did with every video: for those who have its vectors.

In flow a duration or the vectors of a video; out come the frames it looked at and files in its layout. Knows neither
the network nor how frames are cropped.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np

from ..clips import Clips, linspace_float32
from ..errors import BadInput
from ..files import make_folder, replacing, write_bytes
from .intervals import Vectors

FPS = 30
SLOT = 15  # frames: half a second
FAST = 4  # frames of its fast input; its slow input is one
SHORTEST_SECONDS = 5
NEAREST = 0.48  # frames: of two that are equally near, as at 60 per second, the earlier, however times are rounded
NOTE = "layout and sampling of the latent-vectors service; intervals are not those of the features"


def legacy_slots(duration_seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which frames the latent-vectors service looked at: slow (V, 1), fast (V, 4) int64, intervals (N, 2) seconds.

    Frames are counted at 30 per second from 0. N = 2 * whole seconds - 1 half-second slots, but V < N vectors; row i
    of the intervals is not the time of vector i. Raises BadInput below 5 s, where the service crashed (0, 3 and 4
    whole seconds) or wrote nothing (1 and 2).
    """
    if not duration_seconds >= SHORTEST_SECONDS:
        raise BadInput(
            f"the video lasts {duration_seconds:g} s, and the latent-vectors service had no vectors for less than "
            f"{SHORTEST_SECONDS} s: embed it without --preset"
        )
    slots = SLOT * np.arange(1, 2 * int(duration_seconds), dtype=np.int64)
    n = len(slots)
    chosen = slots[linspace_float32(0, n - 1, n // 4).astype(np.int64)]
    n_vectors = min(n - FAST, FAST * (n // 4 - 1) + 1)
    vector = np.arange(n_vectors)
    first = np.where(vector == n - FAST - 1, n - FAST, vector)  # one slot is skipped to end on the last
    fast = slots[first[:, None] + np.arange(FAST)]
    ends = slots / FPS
    return chosen[vector // FAST, None], fast, np.stack([np.append(0.0, ends[:-1]), ends], 1)


def legacy_clips(pts_seconds: np.ndarray, end_seconds: float) -> Clips:
    """The clips of that service, each the slow frame and the four fast ones; owned by the first fast one.

    A frame at 30 per second is the one nearest in time, as ffmpeg makes them. Raises BadInput as `legacy_slots`.
    """
    slow, fast, _ = legacy_slots(end_seconds - float(pts_seconds[0]))
    on_screen = np.searchsorted(pts_seconds - pts_seconds[0], (np.hstack([slow, fast]) + NEAREST) / FPS) - 1
    members = np.clip(on_screen, 0, len(pts_seconds) - 1)
    return Clips(start=members[:, 1].copy(), members=members, own=np.ones(members.shape, np.bool_))


def write_legacy(vectors: Vectors, intervals: np.ndarray, folder: str | Path, *, stem: str) -> Path:
    """Write output_latent_vec_STEM.pk as the latent-vectors service did, for programs that still read such files.

    A pickle of {STEM: {"features": float32 tensor (V, 1, 1, 1, 1, D), "intervals": float64 array (N, 2)}}, N rows for
    V vectors, as in the service's own files. The facts, and that this is a legacy, are in a .json beside it. Nothing
    in streamsal reads these files: unpickling runs whatever a file says. Raises WriteError.
    """
    import torch

    path = make_folder(folder) / f"output_latent_vec_{stem}.pk"
    n, width = vectors.features.shape
    features = torch.from_numpy(vectors.features.astype(np.float32).reshape(n, 1, 1, 1, 1, width))
    with replacing(path) as part:
        part.write_bytes(pickle.dumps({stem: {"features": features, "intervals": intervals.astype(np.float64)}}))
    facts = {"legacy": NOTE, "video": vectors.video, **vectors.facts}
    write_bytes(path.with_suffix(".json"), (json.dumps(facts) + "\n").encode())
    return path
