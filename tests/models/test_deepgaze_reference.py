"""The authors' package behind our contract: it is run rightly, it downloads nothing, and it leaves no trace."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from films import write_film
from torch.nn import functional
from torch.utils import model_zoo

from streamsal.engine import predict, stream
from streamsal.errors import DeviceError, StreamsalError, UsageError
from streamsal.models import deepgaze_reference as reference
from streamsal.models.spec import Batch, Video

FIXTURES = Path(__file__).parents[1] / "fixtures" / "deepgaze"
TOLERANCE = 2e-5  # nats, on a CPU
NAMES = ("deepgaze_iie", "deepgaze_iii", "deepgaze_i")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, reference.Reference]]:
    """Each of the networks with stand-in weights, built without a network and without anything cached."""
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*arguments: object, **options: object) -> NoReturn:
            raise AssertionError("something was to be downloaded")

        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        yield {name: reference.build(name, "synthetic", device="cpu", center_bias="gaussian") for name in NAMES}


def log_density(model: reference.Reference, frames_nhwc: torch.Tensor, center_bias: np.ndarray) -> torch.Tensor:
    n, height, width = frames_nhwc.shape[:3]
    video = Video(name="clip", n_frames=n, frame_rate=25.0, height=height, width=width, center_bias=center_bias)
    batch = Batch(frames_nhwc=frames_nhwc, frame=np.arange(n), pts_seconds=np.arange(n) / 25, present=slice(0, n))
    with torch.no_grad():
        return model.step(batch, model.begin(video)).values["log_density"]


def load(fixture: str) -> dict[str, Any]:
    with np.load(FIXTURES / f"{fixture}.npz") as file:
        return {key: file[key] for key in ("image", "centerbias", "x_hist", "y_hist", "log_density") if key in file}


@pytest.mark.needs_reference
@pytest.mark.parametrize(
    ("name", "fixture"),
    [
        ("deepgaze_iie", "iie_96x128"),
        ("deepgaze_iie", "iie_101x135_b2"),
        ("deepgaze_iie", "iie_100x244_index_trap"),
        ("deepgaze_i", "i_195x262_b2"),
    ],
)
def test_reproduces_the_fixture(built: dict[str, reference.Reference], name: str, fixture: str) -> None:
    arrays = load(fixture)
    frames_nhwc = torch.from_numpy(arrays["image"]).permute(0, 2, 3, 1)
    for sample, center_bias in enumerate(arrays["centerbias"]):
        found = log_density(built[name], frames_nhwc[sample : sample + 1], center_bias)
        wanted = torch.from_numpy(arrays["log_density"][sample]).reshape(found.shape)
        torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.needs_reference
def test_float64_differs_by_the_rounding_of_float32_alone(built: dict[str, reference.Reference]) -> None:
    """Also where float64 by itself would take other pixels: at 100x244."""
    exact = reference.build("deepgaze_iii", "synthetic", device="cpu", center_bias="uniform", dtype=torch.float64)
    before = functional.interpolate
    frames_nhwc, bias = noise(1, 100, 244), np.zeros((1, 1), np.float32)
    found, wanted = (log_density(model, frames_nhwc, bias) for model in (exact, built["deepgaze_iii"]))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)
    assert functional.interpolate is before


@pytest.mark.parametrize(("size", "wanted"), [((8, 16), (122, 244)), ((20, 72), (305, 1146))])
def test_float64_takes_the_nearest_samples_of_float32(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    x = torch.arange(2 * size[0] * size[1], dtype=torch.float64).view(1, 2, *size)
    found = reference.interpolate_as_float32(x, size=wanted)
    assert torch.equal(found, functional.interpolate(x.float(), size=wanted).double())
    assert not torch.equal(found, functional.interpolate(x, size=wanted))


@pytest.mark.needs_reference
@pytest.mark.parametrize("fixture", ["iii_96x128_b3", "iii_101x135_b3"])
def test_scanpath_network_reproduces_the_fixture(built: dict[str, reference.Reference], fixture: str) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in load(fixture).items()}
    inputs = [arrays[key] for key in ("image", "centerbias", "x_hist", "y_hist")]
    with torch.no_grad():
        found = built["deepgaze_iii"].network(*inputs)
    torch.testing.assert_close(found, arrays["log_density"], rtol=0, atol=TOLERANCE)


@pytest.mark.needs_reference
def test_scanpath_of_a_video_is_one_fixation_in_the_middle(built: dict[str, reference.Reference]) -> None:
    model, frames_nhwc = built["deepgaze_iii"], noise(2, 96, 128)
    none = float("nan")
    x, y = torch.tensor([[64.0, none, none, none]] * 2), torch.tensor([[48.0, none, none, none]] * 2)
    with torch.no_grad():
        wanted = model.network(frames_nhwc.permute(0, 3, 1, 2).float(), torch.zeros(2, 96, 128), x, y)
    found = log_density(model, frames_nhwc, np.zeros((96, 128), np.float32))
    torch.testing.assert_close(found, wanted[:, 0], rtol=0, atol=TOLERANCE)


@pytest.mark.needs_reference
@pytest.mark.parametrize("name", NAMES)
def test_least_side_is_the_least_that_upstream_can_compute(built: dict[str, reference.Reference], name: str) -> None:
    model, flat = built[name], np.zeros((1, 1), np.float32)
    side = model.spec.min_side
    assert log_density(model, noise(1, side, side), flat).isfinite().all()
    # Half of an odd side is the half of the even one below it.
    with pytest.raises(RuntimeError, match=r"too small|greater than actual input"):
        log_density(model, noise(1, side - 1, side - 1), flat)


@pytest.mark.needs_reference
def test_float64_center_bias_changes_nothing(built: dict[str, reference.Reference]) -> None:
    frames_nhwc = noise(1, 126, 130)
    bias = np.random.default_rng(2).normal(size=(126, 130)).astype(np.float32)
    found, wanted = (log_density(built["deepgaze_i"], frames_nhwc, given) for given in (bias.astype(float), bias))
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


@pytest.mark.needs_reference
def test_runs_through_the_engine(built: dict[str, reference.Reference], tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 7, size=(128, 160))
    whole = list(stream(film, model=built["deepgaze_i"], device="cpu", batch_size=2))
    assert np.concatenate([chunk.frame for chunk in whole]).tolist() == list(range(7))
    maps = torch.cat([chunk.log_density for chunk in whole])
    torch.testing.assert_close(maps.logsumexp((1, 2)), torch.zeros(7), rtol=0, atol=1e-5)
    shard = list(stream(film, model=built["deepgaze_i"], device="cpu", batch_size=2, start=3))
    assert torch.equal(torch.cat([chunk.log_density for chunk in shard]), maps[3:])


@pytest.mark.needs_reference
def test_half_precision_is_that_of_autocast(built: dict[str, reference.Reference]) -> None:
    frames = noise(2, 126, 140).numpy()
    exact, rough = (predict(frames, model=built["deepgaze_i"], device="cpu", dtype=dtype) for dtype in ("fp32", "bf16"))
    assert 1e-4 < np.abs(exact - rough).max() < 0.5


@pytest.mark.needs_reference
def test_building_leaves_no_trace(capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    before = torch.hub.load, model_zoo.load_url
    reference.build("deepgaze_iie", "synthetic", device="cpu", center_bias="uniform")
    assert (torch.hub.load, model_zoo.load_url) == before
    assert capsys.readouterr() == ("", "")
    assert not recwarn.list
    assert not [name for name in reference.ONLY_NEWEST if isinstance(sys.modules.get(name), reference.Placeholder)]


def noise(n: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (n, height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", NAMES)
def test_spec_is_ours_with_one_full_size_density(name: str) -> None:
    spec = reference.reference_spec(name)
    assert spec.name == name
    assert [(output.name, output.is_density) for output in spec.outputs] == [("log_density", True)]
    assert (spec.pixel_step, spec.constants, spec.derived, spec.autocast) == (1, (), (), True)


def test_absent_package_is_a_usage_error_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepgaze_pytorch", None)  # Python's way to say that there is none
    with pytest.raises(
        UsageError, match=r"pip install --group reference .*git\+https://github\.com/matthias-k/DeepGaze"
    ):
        reference.build("deepgaze_iie", "synthetic", device="cpu")


def test_package_that_wants_what_only_its_newest_model_needs_is_imported_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "ONLY_NEWEST", ("no_clip", "no_einops"))
    write_package(tmp_path, monkeypatch, "import no_clip\nfrom no_einops import rearrange\nNETWORK = 1\n")
    modules = set(sys.modules)
    assert reference.import_upstream().NETWORK == 1
    assert set(sys.modules) - modules == {"deepgaze_pytorch"}


def test_package_that_lacks_what_it_needs_is_a_usage_error_that_says_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path, monkeypatch, "import no_such_module\n")
    with pytest.raises(UsageError, match=r"cannot be imported .*no_such_module.*pip install"):
        reference.import_upstream()


def write_package(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A package in the place of the real one, for as long as the test lasts."""
    (folder / "deepgaze_pytorch").mkdir()
    (folder / "deepgaze_pytorch" / "__init__.py").write_text(code)
    monkeypatch.setitem(sys.modules, "deepgaze_pytorch", ModuleType("deepgaze_pytorch"))  # puts back what there was
    del sys.modules["deepgaze_pytorch"]
    monkeypatch.syspath_prepend(str(folder))


def test_placeholder_is_gone_afterwards_and_says_what_it_stood_for() -> None:
    with reference.placeholders(("no_such_module",)):
        from no_such_module import function  # pyright: ignore[reportMissingImports]
    assert "no_such_module" not in sys.modules
    with pytest.raises(ImportError, match=r"no_such_module is not installed, and no_such_module\.function was called"):
        function(3)


def test_placeholder_never_hides_an_installed_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_that_is_here.py").write_text("ANSWER = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with reference.placeholders(("module_that_is_here", "json")):
        import module_that_is_here  # pyright: ignore[reportMissingImports]
    assert module_that_is_here.ANSWER == 42
    assert sys.modules["module_that_is_here"] is module_that_is_here
    assert "json" in sys.modules


def test_download_that_1_2_1_does_not_know_is_refused_by_name() -> None:
    before = torch.hub.load, model_zoo.load_url
    with (
        pytest.raises(StreamsalError, match=r"wants https://example\.org/other\.pth"),
        reference.no_downloads(ModuleType("deepgaze_pytorch")),
    ):
        model_zoo.load_url("https://example.org/other.pth")
    assert (torch.hub.load, model_zoo.load_url) == before


def test_model_without_a_reference_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="deepgaze_mr has no reference backend, only deepgaze_iie, deepgaze_iii"):
        reference.reference_spec("deepgaze_mr")


def test_mps_is_refused() -> None:
    with pytest.raises(DeviceError, match="use --device cpu"):
        reference.build("deepgaze_i", "synthetic", device="mps")
