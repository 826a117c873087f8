"""A planned video in, the path of its copy on this machine's own disk out: a shared file system is read once, in order.

Copies are named by what is in them, so that processes and runs on one machine share them, and checked like the
original. Knows no plan beyond the video's identity; whoever owns the folder empties it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import WriteError
from ..files import make_folder, replacing
from ..locks import lock
from ..plan import PlannedVideo

SHARE_OF_FREE_SPACE = 0.5  # what others on the machine may need meanwhile


def staged(video: PlannedVideo, folder: Path) -> str:
    """Path of the copy in `folder`, made now if need be; of the original where the copy would not fit."""
    copy = make_folder(folder) / f"streamsal-{video.fingerprint[:16]}{Path(video.path).suffix}"
    with lock(copy.with_suffix(".lock"), wait=True):
        if copy.exists() and copy.stat().st_size == video.size:
            return str(copy)
        if video.size > SHARE_OF_FREE_SPACE * shutil.disk_usage(folder).free:
            return video.path
        try:
            with replacing(copy) as part:
                shutil.copyfile(video.path, part)
        except WriteError:  # others filled the disk meanwhile, or there is no original, which the reader will say
            return video.path
    return str(copy)
