"""The report in a real browser, from a file: it plays, seeks to exact frames, and stays within its window."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, chromium
from talk import make_run, write_talk

from streamsal.index import index_video
from streamsal.prepare import Request, make_plan
from streamsal.render import render
from streamsal.report.report import report
from streamsal.sample_clip import write_demo_clip
from streamsal.task import infer

N_FRAMES = 75
RATE = 25
SEEN = "document.querySelector('.frame').textContent"
FRAME = f"Number({SEEN})"
VIDEO = "document.querySelector('video')"
SETTLED = f"!{VIDEO}.seeking && {VIDEO}.readyState >= 2"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """Whatever a test does: nothing is asked of the network, and nothing goes wrong on the page."""
    browser.requests.clear()
    browser.said.clear()
    yield
    browser.evaluate("document.querySelectorAll('video').forEach((video) => video.pause())")
    assert browser.said == []
    assert [url for url in browser.requests if not re.match("file:|data:|blob:", url)] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a clip, and their pages: one run, both compared with gaze and areas, the film embedded, and none."""
    folder = tmp_path_factory.mktemp("chromium")
    clip = write_demo_clip(folder / "clip.mp4", seconds=N_FRAMES / RATE, width=320, height=180)
    for model in ("signature", "center"):
        make_plan([clip], folder / model, Request(model=model, tasks=3))
        for task in range(3):
            infer(folder / model, task)
    report([folder / "signature"], folder / "one.html")
    report([folder / "signature"], folder / "embedded.html", embed=True)
    (folder / "alone").mkdir()
    shutil.copy(folder / "one.html", folder / "alone" / "one.html")
    shutil.copy(folder / "embedded.html", folder / "alone" / "embedded.html")
    with open(folder / "gaze.csv", "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["video", "subject", "t_seconds", "x_px", "y_px", "duration_s"])
        lines.writerows(["clip.mp4", f"s{k % 3}", k / 20, 40 + 4 * k, 90, 0.1] for k in range(50))
    (folder / "areas.csv").write_text(
        "name,shape,x,y,width,height\na long name of an area,rectangle,0,0,160,180\nb,ellipse,9,9,99,99\n"
    )
    render(folder / "center", folder / "center" / "clip.overlay.mp4", codec="h264", preset="ultrafast")
    runs = [folder / "signature", folder / "center"]
    report(runs, folder / "compared.html", gaze=folder / "gaze.csv", aois=folder / "areas.csv")
    return folder


def opened(browser: Browser, page: Path, **window: object) -> None:
    browser.open(page, **window)
    browser.until(SETTLED)


def box(browser: Browser, selector: str) -> dict[str, float]:
    """Where an element is in the window, into which it is scrolled."""
    return browser.evaluate(
        f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
        "const b = e.getBoundingClientRect(); return {x: b.x, y: b.y, width: b.width, height: b.height}; })()"
    )


def at(browser: Browser, frame: int) -> None:
    """The page says this frame, and the film rests within its time."""
    time = f"{VIDEO}.currentTime * {RATE}"
    browser.until(f"{SEEN} === '{frame}' && {SETTLED} && {time} >= {frame} && {time} < {frame + 1}")


def test_the_film_plays_and_the_frame_number_follows(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "one.html")
    place = box(browser, ".play")
    browser.click(place["x"] + 10, place["y"] + 10)
    browser.until(f"{FRAME} > 10")
    assert browser.evaluate("document.querySelector('.play').textContent") == "Pause"
    browser.evaluate(f"{VIDEO}.pause()")
    at(browser, int(browser.until(f"{VIDEO}.paused && {SEEN}")))
    assert browser.evaluate("Number(document.querySelector('.timeline').getAttribute('aria-valuenow'))") >= 10


def test_a_click_on_the_timeline_shows_that_frame(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "one.html")
    for share, frame in ((0.5, 37), (0.999, 74), (0.101, 7), (0.001, 0)):
        place = box(browser, ".plot")
        browser.click(place["x"] + share * place["width"], place["y"] + 20)
        at(browser, frame)
    shown = browser.evaluate("document.querySelector('.time').textContent")
    assert shown == "0:00.000"


def test_dragging_ends_where_the_mouse_is_let_go(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "one.html")
    place = box(browser, ".strip")
    x = [place["x"] + share * place["width"] for share in (0.1, 0.61)]
    browser.click(x[0], place["y"] + 5, to=(x[1], place["y"] + 5))
    at(browser, 45)


def test_keys_step_jump_and_play(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "one.html")
    browser.evaluate("document.querySelector('.timeline').focus()")
    for key, shift, frame in (
        ("ArrowRight", False, 1), ("ArrowRight", True, 26), ("ArrowLeft", False, 25), ("Home", False, 0),
        ("ArrowLeft", False, 0), ("End", False, 74), ("ArrowRight", False, 74), ("PageUp", False, 50),
        ("Home", False, 0), ("PageDown", False, 25),
    ):  # fmt: skip
        browser.press(key, shift=shift)
        at(browser, frame)
    text = browser.evaluate("document.querySelector('.timeline').getAttribute('aria-valuetext')")
    assert text == "frame 25 of 75, 0:01.000"
    browser.press(" ")
    browser.until(f"!{VIDEO}.paused && {FRAME} > 27")
    browser.press(" ")
    browser.until(f"{VIDEO}.paused")


def test_everything_can_be_reached_with_the_tabulator_and_the_focus_is_seen(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "one.html")
    reached = []
    for _ in range(40):
        browser.press("Tab")
        reached.append(
            browser.evaluate(
                "(() => { const e = document.activeElement; return [e.className || e.dataset.step || e.dataset.frame,"
                "e.getAttribute('aria-label') || e.textContent, getComputedStyle(e).outlineStyle]; })()"
            )
        )
        if reached[-1][0] is None:
            break
    names = [name for name, _, _ in reached]
    for wanted in ("play", "shotBack", "-1", "+1", "shotOn", "speed", "sound", "timeline"):
        assert wanted in names
    assert all(label and outline != "none" for name, label, outline in reached if name in ("play", "timeline", "+1"))


def test_a_picture_of_the_contact_sheet_leads_into_the_film(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "one.html")
    place = box(browser, ".sheet li:nth-child(2) button")
    browser.click(place["x"] + 20, place["y"] + 20)
    at(browser, 37)
    assert browser.evaluate("document.querySelector('.here').dataset.frame") == "37"


def test_values_are_those_of_the_frame(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "compared.html")
    browser.evaluate("document.querySelector('.timeline').focus()")
    browser.press("PageDown")
    at(browser, 25)
    shown = browser.evaluate("[...document.querySelectorAll('.panel output')].map((each) => each.textContent)")
    curves = browser.evaluate(
        "JSON.parse(document.getElementById('data').textContent).films[0].panels.flatMap("
        "(panel) => panel.curves.map((curve) => [curve.value[curve.frame.indexOf(25)], panel.digits]))"
    )
    assert len(shown) == len(curves) >= 8
    assert shown == ["none" if value is None else f"{value:.{digits}f}" for value, digits in curves]


RINGS = "document.querySelector('.looks .core').getAttribute('d').split('M').length - 1"
CENTERS = (  # of the rings, in pixels of the film: each begins at its left end
    "document.querySelector('.looks .core').getAttribute('d').split('M').slice(1).map((ring) => {"
    "const [x, y, r] = ring.match(/[\\d.]+/g).map(Number); return [x + r, y]; })"
)


def test_gaze_is_drawn_over_the_frame_it_was_on(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "compared.html")
    browser.evaluate("document.querySelector('.timeline').focus()")
    for key, frame in (("PageDown", 25), ("ArrowRight", 26), ("Home", 0), ("End", 74)):
        browser.press(key)
        at(browser, frame)
        begun = np.arange(50) / 20
        shown = np.flatnonzero((begun < (frame + 1) / RATE - 1e-6) & (begun + 0.1 > frame / RATE + 1e-6))
        found = np.array(browser.evaluate(CENTERS)).reshape(-1, 2)
        np.testing.assert_allclose(sorted(found[:, 0]), 40 + 4 * shown, atol=0.2)
        np.testing.assert_allclose(found[:, 1], 90, atol=0.2)
    film, drawn = box(browser, "video"), box(browser, ".looks")
    assert film == drawn


def test_gaze_can_be_hidden_by_a_key_and_by_its_box(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "compared.html")
    visible = "getComputedStyle(document.querySelector('.looks')).display !== 'none'"
    checked = "document.querySelector('input.gaze').checked"
    assert browser.evaluate(f"[{visible}, {checked}]") == [True, True]
    browser.evaluate("document.querySelector('.timeline').focus()")
    browser.press("g")
    assert browser.evaluate(f"[{visible}, {checked}]") == [False, False]
    place = box(browser, "input.gaze")
    browser.click(place["x"] + 5, place["y"] + 5)
    assert browser.evaluate(f"[{visible}, {checked}]") == [True, True]


def test_a_film_beside_its_maps_has_gaze_in_its_left_half(browser: Browser, tmp_path: Path, folder: Path) -> None:
    run = shutil.copytree(folder / "signature", tmp_path / "run")
    render(run, run / "clip.side.mp4", style="side", codec="h264", preset="ultrafast")
    opened(browser, report([run], tmp_path / "page.html", gaze=folder / "gaze.csv"))
    assert browser.evaluate(f"[{VIDEO}.videoWidth, {VIDEO}.videoHeight]") == [640, 180]
    browser.until(f"{RINGS} === 1")
    assert browser.evaluate(CENTERS) == [[pytest.approx(40, abs=0.2), pytest.approx(90, abs=0.2)]]


def test_without_gaze_there_is_no_box_and_its_key_does_nothing(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "one.html")
    browser.evaluate("document.querySelector('.timeline').focus()")
    browser.press("g")
    assert browser.evaluate("document.querySelector('input.gaze')") is None
    assert not browser.evaluate("document.querySelector('.looks .core').getAttribute('d')")


def test_another_film_can_be_chosen_and_goes_on_at_the_same_frame(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "compared.html")
    browser.evaluate("document.querySelector('.timeline').focus()")
    browser.press("PageDown")
    at(browser, 25)
    assert browser.evaluate(f"{VIDEO}.currentSrc").endswith("/center/clip.overlay.mp4")
    browser.evaluate(
        "(() => { const e = document.querySelector('.which'); e.value = '1'; e.dispatchEvent(new Event('change')); })()"
    )
    at(browser, 25)
    assert browser.evaluate(f"{VIDEO}.currentSrc").endswith("/clip.mp4")


def test_an_embedded_film_plays_and_seeks_with_nothing_beside_it(browser: Browser, folder: Path) -> None:
    opened(browser, folder / "alone" / "embedded.html")
    browser.evaluate("document.querySelector('.timeline').focus()")
    browser.press("End")
    at(browser, 74)
    assert browser.evaluate(f"{VIDEO}.videoWidth") == 320


def test_without_its_film_the_page_shows_pictures_of_the_shots(browser: Browser, folder: Path) -> None:
    browser.open(folder / "alone" / "one.html")
    browser.until("document.querySelector('article').classList.contains('nofilm')")
    browser.evaluate("document.querySelector('.timeline').focus()")
    stills = []
    for key in ("Home", "PageDown", "End"):
        browser.press(key)
        stills.append(browser.evaluate("document.querySelector('.screen img').src"))
    assert len(set(stills)) == 3 and all(still.startswith("data:image/jpeg") for still in stills)
    assert browser.evaluate(SEEN) == "74"
    assert browser.evaluate("getComputedStyle(document.querySelector('.missing')).display") == "block"
    browser.said[:] = [line for line in browser.said if "ERR_FILE_NOT_FOUND" not in line]


def test_frames_are_exact_where_the_rate_varies_and_the_clock_begins_late(browser: Browser, tmp_path: Path) -> None:
    film = write_talk(tmp_path / "talk.mp4", 40)
    make_run(film, tmp_path / "run")
    render(tmp_path / "run", tmp_path / "run" / "talk.overlay.mp4", codec="h264", preset="ultrafast")
    opened(browser, report([tmp_path / "run"], tmp_path / "page.html"))
    assert browser.evaluate(f"{VIDEO}.currentSrc").endswith("/run/talk.overlay.mp4")
    browser.evaluate("document.querySelector('.timeline').focus()")
    pts = index_video(film).pts_seconds
    assert pts[0] > 0 and np.ptp(np.diff(pts)) > 0.01
    browser.evaluate(
        f"(() => {{ const video = {VIDEO}; const note = (now, facts) => {{ window.presented = facts.mediaTime;"
        "video.requestVideoFrameCallback(note); }; video.requestVideoFrameCallback(note); })()"
    )
    for frame in [*range(1, 40), 0]:
        browser.press("ArrowRight" if frame else "Home")
        browser.until(f"{SEEN} === '{frame}' && Math.abs(window.presented - {pts[frame]}) < 1e-5")


def test_a_film_that_the_browser_cannot_seek_in_gives_way_to_pictures(browser: Browser, tmp_path: Path) -> None:
    """Chromium 156 stops at the second of two open groups of pictures."""
    make_run(write_talk(tmp_path / "talk.mp4", 40), tmp_path / "run")
    opened(browser, report([tmp_path / "run"], tmp_path / "page.html"))
    browser.evaluate("document.querySelector('.timeline').focus()")
    browser.press("End")
    browser.until("document.querySelector('article').classList.contains('nofilm')")
    browser.press("ArrowLeft")
    assert browser.evaluate(SEEN) == "38"
    assert browser.evaluate("document.querySelector('.screen img').src").startswith("data:image/jpeg")


@pytest.mark.parametrize("page", ["one", "compared"])
def test_a_phone_scrolls_in_one_direction_only(browser: Browser, folder: Path, page: str) -> None:
    opened(browser, folder / f"{page}.html", width=360, height=740)
    assert browser.evaluate("document.documentElement.scrollWidth") == 360
    too_wide = browser.evaluate(
        "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > 361"
        " && !e.closest('.scroll') && !e.closest('svg')).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert too_wide == []


def test_colors_follow_the_readers_wish_and_texts_stand_out(browser: Browser, folder: Path) -> None:
    ground = {}
    for dark in (False, True):
        opened(browser, folder / "compared.html", dark=dark)
        colors = browser.evaluate(
            "(() => { const s = (e, p) => getComputedStyle(e).getPropertyValue(p).match(/[\\d.]+/g)"
            ".map(Number).slice(0, 3); const f = document.querySelector('.film');"
            "return { ground: s(document.body, 'background-color'), card: s(f, 'background-color'),"
            "ink: s(document.body, 'color'),"
            "quiet: s(document.querySelector('.unit'), 'color'), play: s(document.querySelector('.play'), 'color'),"
            "button: s(document.querySelector('.play'), 'background-color'),"
            "curve: s(document.querySelector('.plot path'), 'stroke') }; })()"
        )
        ground[dark] = luminance(colors["ground"])
        assert contrast(colors["ink"], colors["ground"]) > 12
        assert contrast(colors["quiet"], colors["card"]) > 4.5
        assert contrast(colors["play"], colors["button"]) > 4.5
        assert contrast(colors["curve"], colors["card"]) > 3
    assert ground[False] > 0.8 and ground[True] < 0.05


def luminance(rgb: list[float]) -> float:
    """Relative luminance as in WCAG 2.2."""
    linear = [c / 12.92 if (c := value / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for value in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
