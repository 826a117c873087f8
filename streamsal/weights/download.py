"""One file over HTTP, going on where an earlier attempt was cut off.

In: an address and the path of a partial file. Out: that file with all that the server has. Knows no weights; locks and
the last rename are its caller's.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import BadInput, UsageError
from ..files import writing

ATTEMPTS = 5  # in a row without a mebibyte of progress
PAUSE_SECONDS = 1.0  # before the second attempt, twice as long before each further one
TIMEOUT_SECONDS = 30.0  # without a byte
PIECE_BYTES = 1 << 20
BUSY = (408, 429, 500, 502, 503, 504)  # answers that may be another one in a moment


class DownloadFailed(Exception):
    """Says why; what is there of the file stays for another time."""


class _Interrupted(Exception):
    """An attempt that is worth repeating."""


def download(url: str, part: Path) -> Iterator[tuple[int, int | None]]:
    """Yields (bytes there, bytes in all or None where the server does not say) while `part` grows to its full length.

    Raises DownloadFailed, BadInput for a web page in place of the file, WriteError, UsageError.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is no http or https address: look at STREAMSAL_MIRROR")
    failures = 0
    while True:
        before = _size(part)
        try:
            yield from _attempt(url, part)
            return
        except _Interrupted as error:
            failures = failures + 1 if _size(part) - before < PIECE_BYTES else 1
            if failures == ATTEMPTS:
                raise DownloadFailed(str(error)) from error
            time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))


def _attempt(url: str, part: Path) -> Iterator[tuple[int, int | None]]:
    have = _size(part)
    headers = {"User-Agent": f"streamsal/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as response:
            if response.headers.get_content_type() == "text/html":
                raise BadInput(f"{url} is a web page, not the file: a proxy or a login is in the way")
            start, total = _extent(response, have)
            yield from _copy(response, part, start, total)
    except urllib.error.HTTPError as error:
        _refused(error, url, part, have)
    except urllib.error.URLError as error:
        raise _Interrupted(f"no connection to {url} ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(
            f"{url} was cut off at {_size(part) / 1e6:.1f} MB ({error or type(error).__name__})"
        ) from error


def _extent(response: Any, have: int) -> tuple[int, int | None]:
    """Where the answer begins, 0 from a server that ignores ranges, and the length of the whole file."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return 0, int(length) if length else None
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not match or int(match[1]) != have:
        raise DownloadFailed("the server sends another part of the file than was asked for")
    return have, None if match[2] == "*" else int(match[2])


def _copy(response: Any, part: Path, start: int, total: int | None) -> Iterator[tuple[int, int | None]]:
    done = start
    with writing(part), open(part, "r+b" if start else "wb") as file:
        file.seek(start)  # not appended: where there are no locks, two writers put the same bytes to the same places
        yield done, total
        while piece := response.read(PIECE_BYTES):
            file.write(piece)
            done += len(piece)
            yield done, total
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise _Interrupted(f"{response.url} was cut off at {done / 1e6:.1f} of {total / 1e6:.1f} MB")


def _refused(error: urllib.error.HTTPError, url: str, part: Path, have: int) -> None:
    """What an HTTP error means: nothing where the file turns out to be whole; else it raises."""
    if error.code == 416:  # asked for what is behind the end
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink()
        raise _Interrupted(f"{part} was no beginning of {url}") from error
    said = f"the server answers {error.code} ({error.reason}) to {url}"
    raise (_Interrupted if error.code in BUSY else DownloadFailed)(said) from error


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
