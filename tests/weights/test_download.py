"""A file arrives whole over a bad line, or the reason is said and what is there is kept."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from file_server import Site, serving

from streamsal.errors import BadInput, UsageError, WriteError
from streamsal.weights import download
from streamsal.weights.download import DownloadFailed

pytest_plugins = ("small_disk",)

BODY = bytes(range(256)) * 12_000  # 3 MB
KEPT = 1_000_000


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as running:
        yield running


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.001)


def fetch(site: Site, part: Path, path: str = "/a/big.pth") -> list[tuple[int, int | None]]:
    return list(download.download(site.url + path, part))


def test_progress_ends_with_all_of_the_file(site: Site, tmp_path: Path) -> None:
    site.files["/a/big.pth"] = BODY
    seen = fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY
    assert seen[0] == (0, len(BODY)) and seen[-1] == (len(BODY), len(BODY)) and seen == sorted(seen)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_partial_file_is_gone_on_with(site: Site, tmp_path: Path, ranges: bool) -> None:
    site.files["/a/big.pth"], site.ranges = BODY, ranges
    (tmp_path / "part").write_bytes(BODY[:KEPT])
    seen = fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY
    assert seen[0] == (KEPT if ranges else 0, len(BODY))
    assert site.served == [("/a/big.pth", f"bytes={KEPT}-")]


def test_a_server_without_ranges_replaces_what_is_longer(site: Site, tmp_path: Path) -> None:
    site.files["/a/big.pth"], site.ranges = BODY, False
    (tmp_path / "part").write_bytes(bytes(2 * len(BODY)))
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY


@pytest.mark.parametrize("ranges", [True, False])
def test_a_line_that_breaks_is_dialled_again(site: Site, tmp_path: Path, ranges: bool) -> None:
    site.files["/a/big.pth"], site.ranges, site.cuts = BODY, ranges, [KEPT, 10]
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY
    assert [wanted for _, wanted in site.served] == [None, f"bytes={KEPT}-", f"bytes={KEPT + 10 if ranges else 10}-"]


def test_a_line_that_always_breaks_is_given_up_and_what_came_is_kept(site: Site, tmp_path: Path) -> None:
    site.files["/a/big.pth"], site.cuts = BODY, [500_000] + [0] * 20
    with pytest.raises(DownloadFailed, match=r"big\.pth was cut off at 0\.5 of 3\.1 MB"):
        fetch(site, tmp_path / "part")
    assert len(site.served) == download.ATTEMPTS
    assert (tmp_path / "part").read_bytes() == BODY[:500_000]


def test_progress_of_a_mebibyte_gives_new_attempts(site: Site, tmp_path: Path) -> None:
    site.files["/a/big.pth"], site.cuts = BODY, [0] * 4 + [2_000_000] + [0] * 3
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY and len(site.served) == 9


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.files["/a/big.pth"], site.statuses = BODY, [503, 429]
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY


@pytest.mark.parametrize("status", [403, 404, 500])
def test_errors_name_the_answer_and_the_address(site: Site, tmp_path: Path, status: int) -> None:
    site.statuses = [status] * 10
    with pytest.raises(DownloadFailed, match=rf"answers {status} \(.*\) to {site.url}/a/big\.pth"):
        fetch(site, tmp_path / "part")
    assert len(site.served) == (download.ATTEMPTS if status == 500 else 1)


def test_a_file_that_is_already_whole_needs_nothing(site: Site, tmp_path: Path) -> None:
    site.files["/a/big.pth"] = BODY
    (tmp_path / "part").write_bytes(BODY)
    assert fetch(site, tmp_path / "part") == []
    assert (tmp_path / "part").read_bytes() == BODY


def test_a_partial_file_that_is_too_long_is_thrown_away(site: Site, tmp_path: Path) -> None:
    site.files["/a/big.pth"] = BODY
    (tmp_path / "part").write_bytes(BODY + b"more")
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY


def test_a_server_that_does_not_say_the_length(site: Site, tmp_path: Path) -> None:
    site.files["/a/big.pth"], site.length = BODY, False
    assert fetch(site, tmp_path / "part")[-1] == (len(BODY), None)
    assert (tmp_path / "part").read_bytes() == BODY


def test_a_web_page_is_no_file(site: Site, tmp_path: Path) -> None:
    site.files["/a/big.pth"], site.content_type = b"<html>please log in", "text/html; charset=utf-8"
    with pytest.raises(BadInput, match="is a web page, not the file"):
        fetch(site, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_no_network_is_said(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(DownloadFailed, match=rf"no connection to {nobody}/a \(.*refused"):
            list(download.download(f"{nobody}/a", tmp_path / "part"))


def test_only_the_web_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"secret")
    with pytest.raises(UsageError, match="no http or https address"):
        list(download.download(f"file://{tmp_path}/file", tmp_path / "part"))


def test_a_full_disk_is_a_write_error_and_room_lets_it_go_on(
    site: Site, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    site.files["/a/big.pth"] = BODY
    disk = small_disk("size=2m")
    with pytest.raises(WriteError, match="the disk is full"):
        fetch(site, disk / "part")
    kept = (disk / "part").read_bytes()
    assert kept and BODY.startswith(kept)
    (tmp_path / "part").write_bytes(kept)
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY and site.served[-1][1] == f"bytes={len(kept)}-"
