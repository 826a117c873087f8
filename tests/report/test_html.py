"""The page as a document: whole, self-contained, escaped, with a unit to every number."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from talk import make_run, write_talk

from streamsal.index import VideoIndex
from streamsal.merge import open_run
from streamsal.report.curves import Curve
from streamsal.report.html import Film, Thumb, page
from streamsal.report.methods import Measured

EVIL = "</script><img src=x onerror=alert(1)>\"'&amp;.mp4"
VOID = {"meta", "img", "br", "link", "input"}


class Elements(HTMLParser):
    """Every element with its attributes, and a check that all are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def curve(quantity: str, unit: str, value: object, **more: object) -> Curve:
    values = np.asarray(value, float)
    return Curve(quantity=quantity, unit=unit, about="as told", frame=np.arange(len(values)), value=values, **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    make_run(write_talk(folder / "talk.mp4", 30), folder / "talk.streamsal", holes=(4, 5, 9))
    return folder / "talk.streamsal"


def film(run: Path, labels: tuple[str, ...] = ("bumps",), *, path: str = "talk.mp4", **more: object) -> Film:
    with open_run(run) as opened:
        index = replace(VideoIndex.load(run / "index" / "talk.mp4.npz"), path=path)
        measured = [Measured(label=each, run=opened, maps=opened["talk.mp4"], index=index) for each in labels]
        entropy = curve("Entropy", "bits", np.linspace(8, 12, 30))
        found = Film(
            measured=measured,
            index=index,
            curves=[[entropy] for _ in labels],
            shots=[0, 12, 20],
            shots_known=True,
            borders=[16],
            sheet=[Thumb(frame=6, first=0, images=[b"jpeg"] * len(labels))],
            maximum=12.5,
            sources=[("original", "./talk.mp4")],
        )
        return replace(found, **more)


def data(text: str) -> dict:
    return json.loads(re.findall(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[0])


def test_it_is_a_whole_document_that_asks_for_nothing_but_the_film(run: Path) -> None:
    elements = Elements(page([film(run)]))
    assert not elements.open
    sources = [
        value for _, attributes in elements.found for name, value in attributes.items() if name in ("src", "href")
    ]
    assert sorted(value.split(",")[0] for value in sources if value) == ["./talk.mp4", "data:image/jpeg;base64"]
    policy = next(a["content"] for t, a in elements.found if t == "meta" and a.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'") and "http" not in policy
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        (["log_density"], "density 0 12.5 × uniform, one scale for all pictures 50% of the probability lies inside"),
        (["saliency_map"], "map, no density, 0 12.5 × its mean, one scale for all pictures 50% of the map lies inside"),
        (["log_density", "saliency_map"], "density, or map that is none, 0 12.5 × uniform, or its mean, one scale"),
    ],
)
def test_what_colors_and_lines_mean_is_said_of_what_is_shown(run: Path, kinds: list[str], says: str) -> None:
    measured = [film(run, (label,)).measured[0] for label in "ab"[: len(kinds)]]
    for each, kind in zip(measured, kinds, strict=True):
        each.maps.outputs = {"log_density": replace(each.maps.first, kind=kind)}
    found = replace(film(run, tuple("ab"[: len(kinds)])), measured=measured)
    assert says.replace(" ", "") in Elements(page([found])).text.replace(" ", "")


def test_names_from_files_are_text_wherever_they_stand(run: Path) -> None:
    several = film(run, (EVIL, "b"), path=EVIL, sources=[(EVIL, "a"), (EVIL, "b")])
    several = replace(several, curves=[[curve(EVIL, EVIL, [1, 2], series=EVIL)], [curve("b", "c", [1, 2])]])
    plain = Elements(page([film(run, ("a", "b"), sources=[("a", "a"), ("b", "b")], curves=several.curves)]))
    elements = Elements(page([several]))
    assert [tag for tag, _ in elements.found].count("img") == [tag for tag, _ in plain.found].count("img")
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert not [1 for _, attributes in elements.found if "onerror" in attributes]
    assert EVIL in elements.text


def test_the_script_is_small_strict_and_leaves_no_globals() -> None:
    script = (Path(__file__).parents[2] / "streamsal/report/page/page.js").read_text()
    assert script.startswith('"use strict";') and len(script.splitlines()) < 300
    assert re.findall(r"^\S.*", script, re.MULTILINE)[2:] == ["(() => {", "})();"]
    assert "http" not in script.replace("http://www.w3.org/2000/svg", "")


def test_curves_shots_borders_and_holes_reach_the_script(run: Path) -> None:
    (found,) = data(page([film(run)]))["films"]
    assert (found["frames"], found["shots"], found["shards"], found["holes"]) == (
        30,
        [0, 12, 20],
        [16],
        [[4, 6], [9, 10]],
    )
    (panel,) = found["panels"]
    assert (panel["low"], panel["high"], panel["digits"]) == (8, 12, 2)
    assert panel["curves"][0]["frame"] == list(range(30))
    assert panel["curves"][0]["value"] == pytest.approx(np.linspace(8, 12, 30), abs=6e-4)


def test_times_of_a_variable_rate_are_exact(run: Path) -> None:
    plain = film(run)
    ticks = np.cumsum([3840, *([426, 427, 427] * 7), *([800] * 8)])
    index = replace(plain.index, pts_seconds=ticks / 12800)
    times = data(page([replace(plain, index=index)]))["films"][0]["times"]
    assert times["runs"][-1] == [800, 8]
    steps = [step for step, count in times["runs"] for _ in range(count)]
    seconds = times["first"] + np.cumsum([0, *steps]) * times["unit"]
    np.testing.assert_allclose(seconds, index.pts_seconds, atol=1e-9)


def test_times_of_a_steady_rate_are_a_step(run: Path) -> None:
    plain = film(run)
    steady = replace(plain.index, pts_seconds=0.3 + np.arange(30) / 25 + np.tile([0, 1e-4, -1e-4], 10))
    assert data(page([replace(plain, index=steady)]))["films"][0]["times"] == pytest.approx(
        {"first": 0.3, "step": 0.04}, abs=1e-5
    )


def test_what_is_not_known_is_null_and_long_curves_are_thinned(run: Path) -> None:
    value = np.sin(np.arange(20_000))
    value[[7, 8]] = np.nan
    short = data(page([film(run, curves=[[curve("a", "b", [1, np.nan, 3])]])]))["films"][0]["panels"][0]["curves"][0]
    assert short["value"] == [1, None, 3]
    text = page([film(run, curves=[[curve("a", "b", value)]])])
    assert len(data(text)["films"][0]["panels"][0]["curves"][0]["frame"]) <= 4000


def test_means_have_unit_way_of_measuring_and_number(run: Path) -> None:
    score = curve("NSS", "SD", [1.0, 2.0, np.nan], drawn=False)
    text = Elements(page([film(run, curves=[[score]])])).text
    assert re.search(r"NSS, SD\s*as told\s*1\.50\s*SD 0\.50, 1\.00 to 2\.00, n = 2", text)
    assert data(page([film(run, curves=[[score]])]))["films"][0]["panels"] == []


def test_runs_that_were_measured_differently_say_so_in_one_line(run: Path) -> None:
    other = replace(curve("Entropy", "bits", [1, 2]), about="otherwise")
    text = Elements(page([film(run, ("a", "b"), curves=[[curve("Entropy", "bits", [3, 5])], [other]])])).text
    assert len(re.findall(r"Entropy, bits\s*as told; or: otherwise\s*4\.00\D[\s\S]*?n = 2\s*1\.50", text)) == 1
    assert text.count("Entropy, bits") == 1


def test_areas_have_a_color_and_runs_a_dash(run: Path) -> None:
    areas = [curve("Mass in areas", "%", [20.0, 40], series=name) for name in ("left", "right")]
    (panel,) = data(page([film(run, ("a", "b"), curves=[areas, areas])]))["films"][0]["panels"]
    assert [each["color"] for each in panel["curves"]] == [0, 1, 0, 1]
    assert [bool(each["dash"]) for each in panel["curves"]] == [False, False, True, True]
    assert panel["low"] == 0


def test_random_weights_are_a_warning_at_the_top(run: Path) -> None:
    plain = film(run)
    assert "stand-in" not in Elements(page([plain])).text
    opened = plain.measured[0].run
    assert opened.plan is not None
    opened.plan = replace(opened.plan, model=replace(opened.plan.model, weights="synthetic"))
    assert "random stand-in weights: its maps and numbers have no meaning" in Elements(page([plain])).text


def test_several_films_have_a_player_each(run: Path) -> None:
    elements = Elements(page([film(run), film(run, path="other.mp4")]))
    assert [a["data-number"] for t, a in elements.found if t == "article"] == ["0", "1"]
    assert [a["data-film"] for _, a in elements.found if "data-film" in a] == ["0", "1"]
    assert "other.mp4" in elements.text
