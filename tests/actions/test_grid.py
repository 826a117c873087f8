"""A grid's cells: which there are, what each is told, and what is said of a wrong file. No training."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsal.actions.grid import (
    Grid,
    check_complete,
    print_cells,
    print_summary,
    read_grid,
    summary,
    wait_until_complete,
)
from streamsal.errors import IncompleteRun, PlanMismatch, UsageError

BASE = {"data": {"train": "clips.csv"}, "model": {"resizer": "transformer"}, "train": {"epochs": 2}}
TAPS = ["model.read <= model.apply"]


def grid_of(axes: dict[str, list[Any]], where: list[str] = [], **base: dict[str, Any]) -> Grid:  # noqa: B006
    return Grid(base={**BASE, **base}, axes=axes, where=where, source=Path("/data/grid.toml"))


def values_of(grid: Grid) -> list[tuple[Any, ...]]:
    return [tuple(cell.values.values()) for cell in grid.cells()]


def written(folder: Path, text: str) -> Path:
    path = folder / "grid.toml"
    path.write_text(f'[data]\ntrain = "clips.csv"\n[model]\nresizer = "transformer"\n{text}')
    return path


def test_a_grid_of_all_taps_has_45_cells_in_order_and_each_is_told_its_own() -> None:
    taps = list(range(9))
    cells = grid_of({"model.read": taps, "model.apply": taps}, TAPS).cells()
    assert [cell.index for cell in cells] == list(range(45))
    assert [tuple(cell.values.values()) for cell in cells] == list(itertools.combinations_with_replacement(taps, 2))
    assert all((cell.config.model.read, cell.config.model.apply) == tuple(cell.values.values()) for cell in cells)
    assert cells[7].name == "0007" and cells[0].config.data.train == "/data/clips.csv"


@given(
    axes=st.dictionaries(
        st.sampled_from(["model.blocks", "train.seed", "train.batch", "test.clips"]),
        st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True),
        min_size=1,
        max_size=2,
    )
)
@settings(max_examples=20, deadline=None)
def test_cells_are_the_product_with_the_first_axis_slowest(axes: dict[str, list[int]]) -> None:
    grid = grid_of(axes)
    assert values_of(grid) == list(itertools.product(*axes.values()))
    more = {**axes, next(iter(axes)): [*next(iter(axes.values())), 9]}
    assert values_of(grid_of(more))[: len(grid.cells())] == values_of(grid)  # what is added there renames no cell


@pytest.mark.parametrize(
    ("where", "left"),
    [
        (["train.seed == 1"], [1]),
        (["train.seed != 1"], [0, 2]),
        (["train.seed < 1"], [0]),
        (["train.seed<=1"], [0, 1]),
        (["train.seed > 1"], [2]),
        (["train.seed >= 1"], [1, 2]),
        (["train.seed > 0", "train.seed < 2"], [1]),
        (["train.seed < train.epochs"], [0, 1]),  # a setting that the file has for all
        (["train.seed <= train.accumulate"], [0, 1]),  # a default
        (['model.resizer == "transformer"'], [0, 1, 2]),
    ],
)
def test_conditions(where: list[str], left: list[int]) -> None:
    assert values_of(grid_of({"train.seed": [0, 1, 2]}, where)) == [(seed,) for seed in left]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("train.seed = 1", "'train.seed = 1' is no condition"),
        ("__import__('os')", "is no condition"),
        ("train.seed == one", "one is neither a setting nor a value"),
        ("train.sed == 1", "there is no setting train.sed"),
        ("seed == 1", "there is no setting seed"),
        ("train.seed == train.sed", "there is no setting train.sed"),
        ('train.seed < "1"', "have no order"),
        ("train.seed > 5", "no cell that its `where` allows"),
    ],
)
def test_conditions_that_say_nothing(where: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        grid_of({"train.seed": [0, 1, 2]}, [where]).cells()
    assert said in str(refused.value) and "\n" not in str(refused.value) and "/data/grid.toml" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid = 3", "[data]"),  # belongs to the table before it
        ("[grid]", "[grid] has no axis"),
        ("[grid]\nread = [0, 1]", "[grid] read is no setting: an axis is named as model.read"),
        ("[grid]\nmodl.read = [0, 1]", "[grid] modl.read is no setting"),
        ("[grid]\nmodel.read = 3", "[grid] model.read has to be a list"),
        ("[grid]\nmodel.read = []", "[grid] model.read has to be a list"),
        ("[grid]\nmodel.read = [0, 0]", "[grid] model.read has a value twice"),
        ('[grid]\n"model.raed" = [0, 1]', "no setting 'raed': did you mean read?"),
        ('[grid]\nmodel.read = ["x"]', "it has to be a whole number"),
        ('[grid]\nmodel.read = [0]\nwhere = "model.read <= 0"', "[grid] where is a list of conditions"),
    ],
)
def test_wrong_files_are_said_in_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    if text == "grid = 3":
        path.write_text("grid = 3")
        said = "grid is a table"
    with pytest.raises(UsageError) as refused:
        grid = read_grid(path)
        assert grid
        grid.cells()
    assert said in str(refused.value) and str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_no_table_below_an_axis_is_named(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text("train = 3\n[grid]\ntrain.lr = [1]")
    with pytest.raises(UsageError, match=r"grid\.toml: train is a table: write \[train\]"):
        read_grid(tmp_path / "grid.toml")


def test_keys_with_and_without_quotes_are_the_same(tmp_path: Path) -> None:
    quoted = read_grid(written(tmp_path, '[grid]\n"model.read" = [0, 1]\n"model.apply" = [1]'))
    plain = read_grid(written(tmp_path, "[grid]\nmodel.read = [0, 1]\nmodel.apply = [1]"))
    assert quoted == plain and quoted


def test_a_plain_configuration_is_no_grid(tmp_path: Path) -> None:
    assert read_grid(written(tmp_path, "")) is None


@pytest.mark.parametrize(
    ("axes", "where"),
    [
        ({"model.read": [0, 1, 2], "model.apply": [0, 1, 2]}, "model.read <= model.apply"),
        ({"model.side_in": [28, 30, 56], "model.blocks": [1, 2]}, "model.side_in != 30"),
        ({"model.frames": [12, 16]}, "model.frames != 12"),
        ({"model.apply": [0, 8, 9, 10]}, "model.apply < 9"),
    ],
)
def test_cells_that_cannot_be_built_are_named_with_the_condition_that_leaves_them_out(
    axes: dict[str, list[int]], where: str
) -> None:
    with pytest.raises(UsageError, match="no classifier can be built where") as refused:
        grid_of(axes).cells()
    assert str(refused.value).endswith(f"where = [{json.dumps(where)}]")
    assert grid_of(axes, [where]).cells()


def test_a_number_that_is_no_cell() -> None:
    grid = grid_of({"train.seed": [0, 1]})
    assert grid.cell(1).values == {"train.seed": 1}
    with pytest.raises(UsageError, match="has cells 0 to 1, no cell 2"):
        grid.cell(2)


def test_reading_a_grid_imports_no_torch() -> None:
    code = "import sys, streamsal.actions.grid; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def trained(folder: Path, grid: Grid, index: int, scores: list[float], *, tested: float | None = None) -> None:
    """The files of a training of this cell after an epoch for each score."""
    cell = folder / f"{index:04d}"
    cell.mkdir(parents=True)
    (cell / "config.json").write_text(json.dumps(grid.cell(index).config.to_dict()))
    best = [score > max(scores[:place], default=-1) for place, score in enumerate(scores)]
    lines = [{"epoch": 1, "step": 1, "loss": 0.5}]
    for epoch, score in enumerate(scores, 1):
        said = {"f1_macro": score, "f1_micro": 0.5, "map": 0.25}
        lines.append({"epoch": epoch, "step": epoch, "validation": said, "best": best[epoch - 1]})
    (cell / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '3\n{"epoch": 3, "val')
    if tested is not None:
        (cell / "test").mkdir()
        (cell / "test" / "metrics.json").write_text(json.dumps({"f1_macro": tested, "f1_micro": 0.5, "map": 0.25}))


def test_a_summary_says_of_each_cell_how_far_it_is_and_what_its_best_epoch_is_worth(tmp_path: Path) -> None:
    grid = grid_of({"train.seed": [0, 1, 2, 3, 4]})
    trained(tmp_path, grid, 0, [0.7, 0.3])
    trained(tmp_path, grid, 1, [0.2, 0.4], tested=0.9)
    trained(tmp_path, grid, 2, [0.2])
    trained(tmp_path, grid, 4, [])
    rows = summary(tmp_path, grid)
    assert [row.index for row in rows] == [0, 1, 2, 3, 4]
    assert [row.state for row in rows] == ["done", "done", "begun", "missing", "begun"]
    assert [row.best_epoch for row in rows] == [1, 2, 1, None, None]
    assert [row.validation.get("f1_macro") for row in rows] == [0.7, 0.4, 0.2, None, None]
    assert [row.test.get("f1_macro") for row in rows] == [None, 0.9, None, None, None]
    with pytest.raises(IncompleteRun, match="2 of 5 cells done; cells not done: 2-4"):
        check_complete(tmp_path, rows)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"train": {}}'])
def test_a_damaged_file_of_settings_is_of_another_cell_or_of_none(tmp_path: Path, text: str) -> None:
    grid = grid_of({"train.seed": [3]})
    trained(tmp_path, grid, 0, [0.7, 0.8])
    (tmp_path / "0000" / "config.json").write_text(text)
    if "train" in text:
        with pytest.raises(PlanMismatch, match=r"was trained with train\.seed = null"):
            summary(tmp_path, grid)
    else:
        assert [row.state for row in summary(tmp_path, grid)] == ["done"]


def test_a_cell_to_be_judged_at_its_end_is_not_done_before(tmp_path: Path) -> None:
    data = {"train": "clips.csv", "test": "test.csv"}
    grid = grid_of({"train.seed": [0, 1]}, data=data, test={"at_end": True})
    trained(tmp_path, grid, 0, [0.7, 0.8])
    trained(tmp_path, grid, 1, [0.7, 0.8], tested=0.75)
    assert [row.state for row in summary(tmp_path, grid)] == ["begun", "done"]


def test_a_complete_grid_needs_no_waiting(tmp_path: Path) -> None:
    grid, said = grid_of({"train.seed": [0]}), []
    trained(tmp_path, grid, 0, [0.7, 0.8])
    wait_until_complete(tmp_path, grid, said.append)
    check_complete(tmp_path, summary(tmp_path, grid))
    assert said == [f"{tmp_path}: 1 of 1 cell done"]


def test_a_folder_of_another_cell_is_not_taken_for_this_one(tmp_path: Path) -> None:
    trained(tmp_path, grid_of({"train.seed": [5, 6]}), 1, [0.7, 0.8])
    with pytest.raises(PlanMismatch, match=r"0001 was trained with train.seed = 6, and now its cell has 7"):
        summary(tmp_path, grid_of({"train.seed": [5, 7]}))


def test_the_table_has_a_line_for_each_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = grid_of({"train.seed": [0, 1]})
    trained(tmp_path, grid, 0, [0.7, 0.3])
    print_summary(summary(tmp_path, grid))
    head, done, missing = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["cell", "train.seed", "state"]
    assert done.split() == ["0", "0", "done", "2", "1", "0.7000", "0.5000", "0.2500"]
    assert missing.split() == ["1", "1", "missing", "0"]
    print_cells(grid.cells())
    assert capsys.readouterr().out.splitlines()[1:] == ["0     0", "1     1"]
