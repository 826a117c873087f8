"""The documentation is true: its example model runs, its names exist, its commands parse, its links lead somewhere."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

import streamsal
from streamsal import cli
from streamsal.actions.config import TABLES, config_of
from streamsal.errors import StreamsalError

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("benchmarks/*.md")]
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_example_model_runs_as_it_stands(tmp_path):
    (source,) = (text for text in blocks(ROOT / "docs/models.md", "python") if "def build" in text)
    (tmp_path / "contrast.py").write_text(source)
    model = streamsal.create_model(str(tmp_path / "contrast.py"))
    frames = np.random.default_rng(0).integers(0, 255, (5, 40, 61, 3), np.uint8)
    maps = streamsal.predict(frames, model=model, device="cpu", batch_size=2)
    assert maps.shape == (5, 40, 61)
    np.testing.assert_allclose(np.exp(maps.astype(np.float64)).sum((1, 2)), 1, atol=1e-5)


def test_every_public_name_is_in_the_readme_and_can_be_had():
    text = (ROOT / "README.md").read_text()
    for name in streamsal.__all__:
        assert f"`{name}`" in text
        assert callable(getattr(streamsal, name)) and callable(getattr(streamsal, name))  # its module bears that name


COMMANDS = [
    (page.name, line)
    for page in PAGES
    for block in blocks(page, "sh")
    for line in block.splitlines()
    for line in re.findall(r"(?:^|&& )(?:\.venv/bin/)?(streamsal [^&#]+)", line)
]


@pytest.mark.parametrize("page, line", COMMANDS)
def test_every_documented_command_is_understood(page, line):
    cli.parser().parse_args(shlex.split(line)[1:])


def test_some_commands_are_documented():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_documented_exit_codes_are_those_of_the_errors():
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", (ROOT / "docs/faults.md").read_text(), re.MULTILINE)}
    kinds = [StreamsalError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.exit_code for kind in kinds} | {0, 1} == table


def test_every_module_has_a_test_of_its_name():
    modules = [path.relative_to(ROOT / "streamsal") for path in (ROOT / "streamsal").rglob("[!_]*.py")]
    assert not [str(path) for path in modules if not (ROOT / "tests" / path.with_name(f"test_{path.name}")).exists()]


@pytest.mark.parametrize("script", sorted((ROOT / "scripts/sbatch").iterdir()), ids=lambda path: path.name)
def test_the_batch_scripts_are_sound_shell(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("name", TABLES)
def test_every_setting_of_a_training_is_documented_with_its_default(name):
    page = (ROOT / "docs/action.md").read_text()
    (section,) = re.findall(rf"^\| `\[{name}\]` \| default \| \|\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    documented = dict(re.findall(r"^\| `(\w+)` \| (\S+) \| \S.* \|$", section, re.MULTILINE))
    defaults = {field.name: field.default for field in dataclasses.fields(TABLES[name])}
    assert documented == {
        key: "needed" if default is dataclasses.MISSING else f"`{json.dumps(default)}`"
        for key, default in defaults.items()
    }


def test_every_configuration_in_the_documentation_is_understood():
    for block in blocks(ROOT / "docs/action.md", "toml"):
        tables = {"data": {"train": "clips.csv"}} | tomllib.loads(block)
        tables.pop("grid", None)
        config_of(tables, ROOT / "docs/action.md")
