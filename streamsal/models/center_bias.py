"""Center bias: where people look before they see anything, as a log density that a model adds to its own evidence.

In: a name or a user's file, and a frame's size. Out: float32 arrays in nats. Knows no model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import BadInput, MissingInput, UsageError
from .spec import Video

NAMES = ("mit1003", "ledov", "uniform", "gaussian")
GAUSSIAN_SIZE = 1024  # of the template, as that of mit1003
GAUSSIAN_SIGMA = 0.25  # of frame height and width; about the spread of fixations in free viewing (Tatler 2007)


def template(name_or_path: str | Path) -> np.ndarray:
    """Log density (h, w) of a center bias, to be `sampled` at a frame's size.

    `mit1003`, `ledov`: fixations of those data sets, as DeepGaze's authors publish them; `uniform`; `gaussian`; or a
    user's .npy file with a finite two-dimensional log density in nats, of any size (-inf where nobody ever looks).
    Raises MissingWeights, MissingInput, BadInput, UsageError.
    """
    name = str(name_or_path)
    if name == "uniform":
        return np.zeros((1, 1), np.float32)
    if name == "gaussian":
        return gaussian(GAUSSIAN_SIZE)
    if name == "mit1003":
        from ..weights.cache import find

        return read(find("centerbias_mit1003"))
    if name == "ledov":
        from ..weights.cache import find
        from ..weights.checkpoints import read_tensor

        with np.errstate(divide="ignore"):
            return np.log(read_tensor(find("centerbias_ledov")).numpy().astype(np.float64)).astype(np.float32)
    if not name.endswith(".npy"):
        raise UsageError(f"no center bias is named {name!r}: give {', '.join(NAMES)} or a .npy file of your own")
    return read(Path(name))


def read(path: Path) -> np.ndarray:
    """A log density from a .npy file, checked to be one."""
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise MissingInput(f"no center bias at {path}: name a .npy file that exists") from None
    except (OSError, ValueError):
        raise BadInput(f"{path} is no .npy file: save the center bias with numpy.save") from None
    if found.ndim != 2 or found.dtype.kind != "f" or not found.size:
        what = f"{found.dtype} {found.shape}"
        raise BadInput(f"{path} holds {what}, but a center bias is one log density (height, width) of floats")
    if np.isnan(found).any() or np.isposinf(found).any() or np.isneginf(found).all():
        raise BadInput(f"{path} holds NaN or no probability at all: a center bias is a log density in nats")
    if found.min() >= 0 and found.max() > found.min():
        raise BadInput(f"{path} looks like probabilities, all of it is at or above 0: save its logarithm")
    return found.astype(np.float32)


def gaussian(n: int) -> np.ndarray:
    position = (np.arange(n) + 0.5) / n - 0.5
    falloff = -(position**2) / (2 * GAUSSIAN_SIGMA**2)
    return (falloff[:, None] + falloff).astype(np.float32)


def sampled(template_hw: np.ndarray, height: int, width: int) -> np.ndarray:
    """The template at a frame's size, (height, width) float32, exponentials summing to 1.

    The nearest sample in a grid whose corners coincide, as scipy.ndimage.zoom of order 0 takes it: DeepGaze's own
    example resizes its center bias so.
    """
    rows, columns = (zoom_indices(n, size) for n, size in zip(template_hw.shape, (height, width), strict=True))
    found = template_hw[rows[:, None], columns].astype(np.float64)
    top = found.max()
    return (found - (top + np.log(np.exp(found - top).sum()))).astype(np.float32)


def of_video(usual_hw: np.ndarray, video: Video) -> np.ndarray:
    """A model's usual template, or the one that comes with the video, at the size that the model sees."""
    template_hw = usual_hw if video.center_bias is None else video.center_bias
    return sampled(template_hw, video.height, video.width)


def zoom_indices(n_in: int, n_out: int) -> np.ndarray:
    if n_out == 1:
        return np.zeros(1, np.int64)
    return np.floor(np.arange(n_out) * (n_in - 1) / (n_out - 1) + 0.5).astype(np.int64)
