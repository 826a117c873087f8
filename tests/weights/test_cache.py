"""Weights get here once, stay what they were, and where they are missing the error says what to type."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from file_server import Site, serving
from program import end, run, start, wait_until

from streamsal.errors import BadInput, MissingInput, MissingWeights
from streamsal.progress import Progress
from streamsal.weights import cache as weights
from streamsal.weights import download

pytest_plugins = ("small_disk",)

IIE = weights.ASSETS["deepgaze_iie"]
PATH = "/matthias-k/DeepGaze/releases/download/v1.0.0/deepgaze2e.pth"
TEMPLATE = "/matthias-k/DeepGaze/releases/download/v1.0.0/centerbias_mit1003.npy"
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 2 MB that could be any checkpoint."""
    path = tmp_path_factory.mktemp("elsewhere") / "deepgaze2e.pth"
    torch.save({"weight": torch.arange(500_000.0)}, path)
    return path


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as running:
        yield running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site) -> Path:
    """An empty cache, and a mirror on this machine in place of the official hosts."""
    monkeypatch.setenv("STREAMSAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("STREAMSAL_MIRROR", site.url)
    monkeypatch.delenv("STREAMSAL_OFFLINE", raising=False)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.001)
    return tmp_path / "home"


def fetched(site: Site, checkpoint: Path) -> Path:
    site.files[PATH] = checkpoint.read_bytes()
    return weights.fetch("deepgaze_iie", progress=QUIET)


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert weights.home() == tmp_path / "home"
    monkeypatch.delenv("STREAMSAL_HOME")
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert (weights.home(), weights.hub()) == (Path("/x/streamsal"), Path("/x/torch/hub"))
    assert str(weights.hub()) == torch.hub.get_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert (weights.home(), weights.hub()) == (Path("/h/.cache/streamsal"), Path("/h/.cache/torch/hub"))
    assert str(weights.hub()) == torch.hub.get_dir()


def test_missing_weights_say_what_to_type() -> None:
    with pytest.raises(MissingWeights) as caught:
        weights.find("deepgaze_iie")
    said = str(caught.value).splitlines()
    assert "deepgaze2e.pth" in said[0] and "not on this machine" in said[0]
    assert said[1] == "  streamsal weights fetch deepgaze_iie"
    assert said[2].startswith("  streamsal weights import deepgaze_iie FILE ") and IIE.url in said[2]
    assert said[3] == "  --model sigmotion"
    with pytest.raises(MissingWeights) as caught:
        weights.find("x3d_s")
    said = str(caught.value).splitlines()
    assert said[0] == "x3d_s.pyth (X3D-S, Kinetics-400, 15 MB) is not on this machine; fetch or import:"
    assert said[1] == "  streamsal weights fetch x3d_s" and len(said) == 3


def test_what_is_fetched_is_found_and_nothing_else_is_left(site: Site, home: Path, checkpoint: Path) -> None:
    path = fetched(site, checkpoint)
    assert path == home / "deepgaze2e.pth" == weights.find("deepgaze_iie")
    assert path.read_bytes() == checkpoint.read_bytes()
    assert files(home) == [".deepgaze2e.pth.lock", "deepgaze2e.pth", "deepgaze2e.pth.json"]
    assert weights.fetch("deepgaze_iie", progress=QUIET) == path
    assert site.served == [(PATH, None)]


def archive_of(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_a_file_is_taken_out_of_the_archive_it_is_published_in(site: Site, home: Path, checkpoint: Path) -> None:
    asset, body = weights.ASSETS["stavis"], checkpoint.read_bytes()
    address = urlsplit(asset.url).path
    site.files[address] = archive_of(("models/resnet.pth", b"other"), (f"models/av/{asset.file}", body))
    assert weights.fetch("stavis", progress=QUIET).read_bytes() == body
    assert files(home) == [f".{asset.file}.lock", asset.file, f"{asset.file}.json"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (archive_of(("models/resnet.pth", b"other")), "is an archive without audiovisual_split1_save_60.pth in it"),
        (
            archive_of(("models/resnet.pth", b"other"))[:60],
            "is no archive, or one that is cut off: compressed with gzip",
        ),
        (b"no archive at all", "is no archive, or one that is cut off: a text"),
    ],
)
def test_an_archive_without_the_file_is_not_kept(site: Site, home: Path, body: bytes, said: str) -> None:
    asset = weights.ASSETS["stavis"]
    site.files[urlsplit(asset.url).path] = body
    with pytest.raises(BadInput, match=said):
        weights.fetch("stavis", progress=QUIET)
    assert files(home) == [f".{asset.file}.lock"]


def test_torch_hub_s_files_are_not_fetched_again(site: Site, home: Path, checkpoint: Path, tmp_path: Path) -> None:
    hub = tmp_path / "torch" / "hub"
    kept = hub / "checkpoints" / "deepgaze2e.pth"
    kept.parent.mkdir(parents=True)
    shutil.copy(checkpoint, kept)
    assert weights.fetch("deepgaze_iie", progress=QUIET) == kept == weights.find("deepgaze_iie")
    clone = hub / "mtangemann_deepgazemr_master" / "data" / "deepgazemr-ledov.pt"
    clone.parent.mkdir(parents=True)
    shutil.copy(checkpoint, clone)
    assert weights.find("deepgaze_mr") == clone
    assert site.served == [] and files(home) == ["deepgaze2e.pth.json", "deepgazemr-ledov.pt.json"]


def test_a_broken_line_is_gone_on_with_at_the_next_command(site: Site, home: Path, checkpoint: Path) -> None:
    site.cuts = [1_500_000] + [0] * download.ATTEMPTS
    with pytest.raises(MissingWeights, match=r"cut off at 1\.5 of 2\.0 MB.*Try again, it resumes"):
        fetched(site, checkpoint)
    assert (home / "deepgaze2e.pth.part").stat().st_size == 1_500_000
    site.cuts.clear()
    assert fetched(site, checkpoint).read_bytes() == checkpoint.read_bytes()
    assert site.served[-1] == (PATH, "bytes=1500000-") and "deepgaze2e.pth.part" not in files(home)


def test_errors_of_the_server_say_how_else_to_get_the_file(site: Site) -> None:
    with pytest.raises(MissingWeights, match=r"answers 404 .*deepgaze2e\.pth.*weights import deepgaze_iie FILE"):
        weights.fetch("deepgaze_iie", progress=QUIET)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>404</html>", "but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"PK\x03\x04 and then nothing", "cut off"),
        (b"", "an empty file"),
    ],
)
def test_something_else_in_place_of_the_file_is_not_kept(site: Site, home: Path, body: bytes, said: str) -> None:
    site.files[PATH] = body
    with pytest.raises(BadInput, match=said):
        weights.fetch("deepgaze_iie", progress=QUIET)
    assert files(home) == [".deepgaze2e.pth.lock"]


def test_another_file_than_at_first_is_refused(site: Site, home: Path, checkpoint: Path, tmp_path: Path) -> None:
    path = fetched(site, checkpoint)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    other = (tmp_path / "other.pth").read_bytes()
    path.unlink()
    site.files[PATH] = other
    with pytest.raises(BadInput, match=r"sent is not the file .* first used here \(sha256 .{8} then, .{8} now\)"):
        weights.fetch("deepgaze_iie", progress=QUIET)
    assert files(home) == [".deepgaze2e.pth.lock", "deepgaze2e.pth.json"]
    with pytest.raises(BadInput, match="first used here"):
        weights.import_file("deepgaze_iie", tmp_path / "other.pth")
    path.write_bytes(other)
    for ask in (weights.find, weights.verify):
        with pytest.raises(BadInput, match=rf"deepgaze2e\.pth is not the file .* delete {home}/deepgaze2e\.pth\.json"):
            ask("deepgaze_iie")
    (home / "deepgaze2e.pth.json").unlink()
    assert weights.find("deepgaze_iie") == path


def test_a_published_checksum_counts_from_the_beginning(
    site: Site, home: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(weights.ASSETS, "deepgaze_iie", replace(IIE, sha256="ab" * 32))
    with pytest.raises(BadInput, match="sha256 abababab"):
        fetched(site, checkpoint)
    monkeypatch.setitem(weights.ASSETS, "deepgaze_iie", replace(IIE, sha256=weights.file_sha256(checkpoint)))
    assert fetched(site, checkpoint).exists()


def test_the_beginning_of_a_checksum_that_is_published_counts_and_then_the_whole(
    site: Site, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s3d-d76dad2f.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    site.files["/models/s3d-d76dad2f.pth"] = path.read_bytes()
    said = r"not the s3d-d76dad2f\.pth that is published \(sha256 d76dad2f there, .{8} here\): get it again"
    with pytest.raises(BadInput, match="sent is " + said):
        weights.fetch("s3d", progress=QUIET)
    with pytest.raises(BadInput, match=said):
        weights.import_file("s3d", path)
    assert files(home) == [".s3d-d76dad2f.pth.lock"]
    asset = weights.ASSETS["s3d"]
    monkeypatch.setitem(weights.ASSETS, "s3d", replace(asset, sha256=weights.file_sha256(path)[:1]))
    kept = weights.fetch("s3d", progress=QUIET)
    assert weights.find("s3d") == kept
    first, number = weights.file_sha256(kept), 0
    while not (other := weights.file_sha256(path)).startswith(first[0]) or other == first:
        number += 1
        torch.save({"weight": torch.full((3,), float(number))}, path)
    with pytest.raises(BadInput, match=rf"first used here \(sha256 {first[:8]} then, {other[:8]} now"):
        weights.import_file("s3d", path)


def test_a_file_of_a_repository_is_known_by_what_git_calls_it(
    site: Site, home: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(weights.ASSETS, "deepgaze_iie", replace(IIE, git_blob="ab" * 20))
    with pytest.raises(BadInput, match="git blob abababab there"):
        fetched(site, checkpoint)
    with pytest.raises(BadInput, match="git blob abababab there"):
        weights.import_file("deepgaze_iie", checkpoint)
    assert not list(home.glob("*.pth"))
    monkeypatch.setitem(weights.ASSETS, "deepgaze_iie", replace(IIE, git_blob=weights.git_blob(checkpoint)))
    assert fetched(site, checkpoint).exists()


def test_the_name_of_a_blob_is_gits(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("what is up, doc?")
    assert weights.git_blob(tmp_path / "empty") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert weights.git_blob(tmp_path / "text") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"  # of the book Pro Git


def test_verify_reads_the_file_even_if_it_looks_unchanged(site: Site, checkpoint: Path) -> None:
    path = fetched(site, checkpoint)
    assert weights.verify("deepgaze_iie") == (path, weights.file_sha256(checkpoint))
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.find("deepgaze_iie") == path  # same size and time: not read again
    with pytest.raises(BadInput, match="is not the file that was first used here"):
        weights.verify("deepgaze_iie")
    with pytest.raises(MissingWeights, match="weights fetch deepgaze_iii"):
        weights.verify("deepgaze_iii")


def test_checksums_of_cached_and_of_other_files_agree(site: Site, checkpoint: Path) -> None:
    assert weights.checksum(fetched(site, checkpoint)) == weights.checksum(checkpoint)
    with pytest.raises(MissingInput):
        weights.checksum(checkpoint.with_name("no.pth"))


def test_a_read_only_cache_is_used_as_it_is(checkpoint: Path, small_disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = small_disk("size=8m")
    shutil.copy(checkpoint, disk)
    small_disk("ro")
    monkeypatch.setenv("STREAMSAL_HOME", str(disk))
    assert weights.find("deepgaze_iie") == disk / "deepgaze2e.pth"
    assert files(disk) == ["deepgaze2e.pth"]


def test_import_copies_what_fits(home: Path, checkpoint: Path, tmp_path: Path) -> None:
    renamed = Path(shutil.copy(checkpoint, tmp_path / "download (1)"))
    assert weights.import_file("deepgaze_iie", renamed) == weights.find("deepgaze_iie") == home / "deepgaze2e.pth"
    assert files(home) == ["deepgaze2e.pth", "deepgaze2e.pth.json"]
    assert weights.import_file("deepgaze_iie", home / "deepgaze2e.pth").read_bytes() == checkpoint.read_bytes()
    with pytest.raises(BadInput, match=r"is not an array in a \.npy file but a torch checkpoint"):
        weights.import_file("centerbias_mit1003", renamed)
    with pytest.raises(MissingInput):
        weights.import_file("deepgaze_iie", tmp_path / "no.pth")


def test_offline_means_no_network(site: Site, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSAL_OFFLINE", "1")
    with pytest.raises(MissingWeights, match="STREAMSAL_OFFLINE is set, so nothing is fetched"):
        fetched(site, checkpoint)
    assert site.served == []
    monkeypatch.setenv("STREAMSAL_OFFLINE", "0")
    assert fetched(site, checkpoint).exists()


def test_without_a_mirror_the_official_host_is_asked(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    assert weights.address(IIE) == site.url + PATH
    monkeypatch.delenv("STREAMSAL_MIRROR")
    assert weights.address(IIE) == "https://github.com" + PATH


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((4, 4), np.float32))
    return file.getvalue()


def environment(home: Path, site: Site, tmp_path: Path) -> dict[str, str]:
    return {"STREAMSAL_HOME": str(home), "STREAMSAL_MIRROR": site.url, "TORCH_HOME": str(tmp_path / "torch")}


def test_many_that_start_at_once_download_once(site: Site, home: Path, checkpoint: Path, tmp_path: Path) -> None:
    site.files = {PATH: checkpoint.read_bytes(), TEMPLATE: array()}
    site.pause_seconds = 0.03  # a second in all: they meet
    env = environment(home, site, tmp_path)
    fetchers = [start("weights", "fetch", "deepgaze_iie", env=env, cwd=tmp_path) for _ in range(6)]
    outputs = [end(fetcher, 0)[0] for fetcher in fetchers]
    assert sorted(site.served) == [(TEMPLATE, None), (PATH, None)]
    assert len(set(outputs)) == 1 and str(home / "deepgaze2e.pth") in outputs[0]
    assert (home / "deepgaze2e.pth").read_bytes() == checkpoint.read_bytes()


def test_a_fetch_that_is_killed_goes_on(site: Site, home: Path, checkpoint: Path, tmp_path: Path) -> None:
    site.files, site.pause_seconds = {PATH: checkpoint.read_bytes(), TEMPLATE: array()}, 0.1
    env = environment(home, site, tmp_path)
    victim = start("weights", "fetch", "deepgaze_iie", env=env, cwd=tmp_path)
    part = home / "deepgaze2e.pth.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 0, victim)
    victim.kill()
    victim.communicate()
    site.pause_seconds = 0.0
    run("weights", "fetch", "deepgaze_iie", env=env, cwd=tmp_path)
    assert (home / "deepgaze2e.pth").read_bytes() == checkpoint.read_bytes()
    assert re.fullmatch(r"bytes=\d+-", site.served[1][1] or "")
