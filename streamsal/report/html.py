"""What a report looks like: films, curves and texts in, one HTML document out. Measures nothing and reads no run.

Whatever comes from a file name or a run is escaped, in text, attributes and the JSON that the page's script reads. The
template, the style sheet and the script lie in page/.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..drawing.colormaps import colormap
from .contact_sheet import MASSES
from .curves import Curve, thinned
from .looks import GRID, columns
from .methods import Measured, citations, facts, number, paragraph, rate

if TYPE_CHECKING:
    from ..index import VideoIndex

COLORS = 6  # --c0 ... --c5 of the style sheet
DASHES = ("", "7 4", "2 3", "9 3 2 3")  # tell runs apart where colors tell areas apart
SPEEDS = (0.1, 0.25, 0.5, 1, 2, 4)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thumb:
    """A frame of the contact sheet; it stands for the frames from `first` on. One image per run, (h, w, 3)
    uint8 and at last JPEG; None for a hole."""

    frame: int
    first: int
    images: Sequence[Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Film:
    """One video and all that the runs have of it; `curves` and pictures of `sheet` in the order of `measured`.

    `shots`: first frames; `shots_known` is false where they were not looked for. `maximum`: the density relative to
    uniform, or the map relative to its mean, that the last color of the sheet stands for. `sources`: (label, URL) of
    what can be played. `gaze`: whether it was given. `looks`: the fixations, as `looks.looks` gives them; None where
    they are too many for the page.
    """

    measured: Sequence[Measured]
    index: VideoIndex
    curves: Sequence[Sequence[Curve]]
    shots: Sequence[int]
    shots_known: bool
    borders: Sequence[int]
    sheet: Sequence[Thumb]
    maximum: float
    sources: Sequence[tuple[str, str]]
    gaze: bool = False
    looks: np.ndarray | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return Path(self.index.path).name

    @property
    def holes(self) -> list[int]:
        return sorted({int(frame) for each in self.measured for frame in each.maps.holes})


def page(films: Sequence[Film]) -> str:
    """The whole document."""
    here = files("streamsal.report") / "page"
    parts = {name: (here / f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    of_run = _by_run(films)
    main = [_film(film, number, len(films) > 1) for number, film in enumerate(films)]
    main += [_means(films), _methods(of_run), _facts(of_run), _reading()]
    return Template(parts["html"]).substitute(
        title=escape(_title(films)),
        lede=escape(_lede(films, of_run)),
        warning=_warning(of_run),
        css=parts["css"],
        js=parts["js"],
        main="\n".join(main),
        data=_json({"films": [_data(film) for film in films]}),
        version=__version__,
    )


def _json(value: Any) -> str:
    """As text of a script element, which ends at the first "</script" whatever the quotes around it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _by_run(films: Sequence[Film]) -> list[list[Measured]]:
    """The videos of each run."""
    found: dict[str, list[Measured]] = {}
    for film in films:
        for each in film.measured:
            found.setdefault(str(each.run.path), []).append(each)
    return list(found.values())


def _title(films: Sequence[Film]) -> str:
    if len(films) == 1:
        return films[0].name
    return f"{films[0].name} and {len(films) - 1} more"


def _lede(films: Sequence[Film], of_run: Sequence[Sequence[Measured]]) -> str:
    labels = [run[0].label for run in of_run]
    what = f"Where {labels[0]} expects people to look" if len(labels) == 1 else f"{_listed(labels)} compared"
    frames = number(sum(film.index.n_frames for film in films))
    seconds = sum(_duration(film.index) for film in films)
    if len(films) > 1:
        return f"{what}: {len(films)} films, {frames} frames, {_clock(seconds)} in all."
    index = films[0].index
    size = f"{index.display_width} × {index.display_height} px"
    return f"{what}: {frames} frames, {_clock(seconds)}, {size}, {rate(index)}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _warning(of_run: Sequence[Sequence[Measured]]) -> str:
    made_up = [run[0].label for run in of_run if run[0].stand_in]
    if not made_up:
        return ""
    text = f"{_listed(made_up)} ran with random stand-in weights: its maps and numbers have no meaning."
    return f'<p class="warning" role="note">{escape(text)}</p>'


def _duration(index: VideoIndex) -> float:
    return float(index.end_seconds[-1] - index.pts_seconds[0])


def _clock(seconds: float, digits: int = 0) -> str:
    scaled = round(seconds * 10**digits)
    whole, rest = divmod(scaled, 10**digits)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    tail = f".{rest:0{digits}}" if digits else ""
    return (f"{hours}:{minutes:02}:" if hours else f"{minutes}:") + f"{whole:02}{tail}"


def _film(film: Film, at: int, titled: bool) -> str:
    options = "".join(f'<option value="{k}">{escape(label)}</option>' for k, (label, _) in enumerate(film.sources))
    which = (
        f'<select class="which" aria-label="Which film is shown">{options}</select>' if len(film.sources) > 1 else ""
    )
    speeds = "".join(f'<option value="{s}"{" selected" * (s == 1)}>{s:g}×</option>' for s in SPEEDS)
    gaze = ""
    if film.looks is not None and len(film.looks):
        gaze = '<label class="toggle"><input type="checkbox" class="gaze" checked> Gaze</label>'
    name, last = escape(film.name), film.index.n_frames - 1
    sound = '<button type="button" class="sound" aria-pressed="false">Sound on</button>' if film.index.audio else ""
    panels = "\n".join(_panel(panel) for panel in _panels(film))
    title = f'<h2 id="film{at}">{name}</h2>' if titled else f'<h2 id="film{at}" hidden>{name}</h2>'
    return f"""\
<section aria-labelledby="film{at}">
{title}
<article class="film" data-number="{at}" aria-label="{name}">
<div class="screen">
<video src="{escape(film.sources[0][1])}" preload="metadata" playsinline aria-label="{name}"></video>
<svg class="looks" aria-hidden="true"><path class="casing"/><path class="core"/></svg>
<img alt="">
<p class="missing">This browser cannot play the film, or it is not beside this page: a picture of the shot is shown.
Films that <code>streamsal render</code> writes, and pages made with <code>--embed</code>, play everywhere.</p>
</div>
<div class="bar">
<button type="button" class="play">Play</button>
{_step("shotBack", "Shot before", "M3 3v10M13 3 6 8l7 5z")}
{_step("-1", "Frame before", "M11 3 4 8l7 5z")}
{_step("+1", "Next frame", "M5 3l7 5-7 5z")}
{_step("shotOn", "Next shot", "M13 3v10M3 3l7 5-7 5z")}
<select class="speed" aria-label="Speed">{speeds}</select>
{sound}
{gaze}
{which}
<span class="clock"><small>frame</small> <span class="frame">0</span><small> of 0 to {last}</small>
<span class="time">0:00.000</span></span>
</div>
<div class="timeline" role="slider" tabindex="0" aria-label="Position in {name}" aria-orientation="horizontal"
aria-valuemin="0" aria-valuemax="{last}" aria-valuenow="0">
{panels}
{_strip(film)}
<div class="axis" aria-hidden="true"></div>
</div>
</article>
{_sheet(film, at)}
</section>"""


def _step(step: str, name: str, shape: str) -> str:
    icon = f'<svg viewBox="0 0 16 16" aria-hidden="true"><path d="{shape}"/></svg>'
    return f'<button type="button" data-step="{step}" aria-label="{name}" title="{name}">{icon}</button>'


def _strip(film: Film) -> str:
    keys = []
    if film.shots_known:
        keys.append(f'<span class="key mark" style="--c:var(--shot-b)">{_count(len(film.shots), "shot")}</span>')
    if film.borders:
        n = _count(len(film.borders), "border") + " between tasks"
        keys.append(f'<span class="key mark" style="--c:var(--ink)">{n}</span>')
    holes = film.holes
    if holes:
        n = _count(len(holes), "hole") + ": no picture, no map"
        keys.append(f'<span class="key mark" style="--c:var(--hole)">{n}</span>')
    head = "".join(keys) or '<span class="unit">Time</span>'
    return f"""\
<div><p class="head">{head}</p>
<div class="plot strip"><svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true"></svg></div></div>"""


def _count(n: int, what: str) -> str:
    return f"{number(n)} {what}{'s' * (n != 1)}"


def _panels(film: Film) -> list[dict[str, Any]]:
    """What is drawn above one another: a quantity each, its curves with their looks."""
    quantities = dict.fromkeys((c.quantity, c.unit) for curves in film.curves for c in curves if c.drawn)
    series = list(dict.fromkeys(c.series for curves in film.curves for c in curves if c.series))
    found = []
    for quantity, unit in quantities:
        drawn = []
        for run, curves in enumerate(film.curves):
            for curve in (c for c in curves if c.drawn and (c.quantity, c.unit) == (quantity, unit)):
                color = series.index(curve.series) if curve.series else run
                names = [curve.series, film.measured[run].label if len(film.measured) > 1 or not curve.series else ""]
                drawn.append(
                    {
                        "label": ", ".join(filter(None, names)),
                        "color": color % COLORS,
                        "dash": DASHES[(run if curve.series else run // COLORS) % len(DASHES)],
                        "curve": curve,
                    }
                )
        low, high = _range([each["curve"] for each in drawn], unit)
        found.append(
            {
                "title": quantity,
                "unit": unit,
                "about": _about(each["curve"] for each in drawn),
                "low": low,
                "high": high,
                "digits": _digits(high - low),
                "curves": drawn,
            }
        )
    return found


def _about(curves: Iterable[Curve]) -> str:
    """How these were measured: once if all were measured alike."""
    return "; or: ".join(dict.fromkeys(curve.about for curve in curves))


def _range(curves: Iterable[Curve], unit: str) -> tuple[float, float]:
    known = np.concatenate([curve.known for curve in curves])
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    if unit == "%":
        low = 0.0
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _digits(span: float) -> int:
    """Decimals that tell a fiftieth of a range apart."""
    return max(0, min(5, math.ceil(-math.log10(span / 50))))


def _panel(panel: dict[str, Any]) -> str:
    digits = panel["digits"]
    keys = "".join(
        f'<span class="key" style="--c:var(--c{c["color"]});--dash:{"dashed" if c["dash"] else "solid"}">'
        f"{escape(c['label'])} <output>–</output></span>"
        for c in panel["curves"]
    )
    return f"""\
<div class="panel"><p class="head"><b>{escape(panel["title"])}</b>
<span class="unit">{escape(panel["unit"])}</span>{keys}
<span class="unit about">{escape(panel["about"])}</span></p>
<div class="plot"><svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true"></svg>
<span class="high">{panel["high"]:.{digits}f}</span><span class="low">{panel["low"]:.{digits}f}</span></div></div>"""


def _data(film: Film) -> dict[str, Any]:
    """What the script reads of a film."""
    index = film.index
    panels = []
    for panel in _panels(film):
        curves = []
        for each in panel["curves"]:
            frame, value = thinned(each["curve"].frame, each["curve"].value)
            curves.append(
                {
                    "color": each["color"],
                    "dash": each["dash"],
                    "frame": frame.tolist(),
                    "value": [round(v, panel["digits"] + 1) if math.isfinite(v) else None for v in value.tolist()],
                }
            )
        panels.append({**{name: panel[name] for name in ("low", "high", "digits")}, "curves": curves})
    return {
        "frames": index.n_frames,
        "rate": index.frame_rate,
        "aspect": index.display_width / index.display_height,
        "times": _times(index),
        "end": float(index.end_seconds[-1]),
        "films": [url for _, url in film.sources] if len(film.sources) > 1 else [],
        "shots": list(film.shots) if film.shots[0] == 0 else [0, *film.shots],
        "shards": list(film.borders),
        "holes": _stretches(film.holes),
        "panels": panels,
        "looks": {"grid": GRID, **columns(film.looks)} if film.looks is not None and len(film.looks) else None,
    }


def _times(index: VideoIndex) -> dict[str, Any]:
    """Presentation times: a step where that gives each to a millisecond, else how often which step in ticks comes."""
    seconds = np.maximum.accumulate(index.pts_seconds)
    first = float(seconds[0])
    if len(seconds) > 1:
        step = float(seconds[-1] - first) / (len(seconds) - 1)
        if np.abs(first + step * np.arange(len(seconds)) - seconds).max() <= 1e-3:
            return {"first": first, "step": step}
    unit = index.time_base[0] / index.time_base[1]
    steps = np.diff(np.rint((seconds - first) / unit).astype(np.int64)).tolist()
    return {"first": first, "unit": unit, "runs": [[step, len(list(same))] for step, same in groupby(steps)]}


def _stretches(frames: Sequence[int]) -> list[list[int]]:
    """[start, stop) of frames that follow one another."""
    found: list[list[int]] = []
    for frame in frames:
        if found and found[-1][1] == frame:
            found[-1][1] += 1
        else:
            found.append([frame, frame + 1])
    return found


def _sheet(film: Film, at: int) -> str:
    several = len(film.measured) > 1
    first = float(film.index.pts_seconds[0])
    items = []
    for thumb in film.sheet:
        when = _clock(float(film.index.pts_seconds[thumb.frame]) - first, 2)
        figures = "".join(
            f"<figure>{_picture(image, f'frame {thumb.frame}, {each.label}')}"
            + (f"<figcaption>{escape(each.label)}</figcaption>" if several else "")
            + "</figure>"
            for each, image in zip(film.measured, thumb.images, strict=True)
        )
        items.append(
            f'<li><button type="button" data-frame="{thumb.frame}" data-from="{thumb.first}">'
            f'<span class="side">{figures}</span>'
            f'<span class="when"><span>{when}</span><span>frame {thumb.frame}</span></span></button></li>'
        )
    what = "One frame of each shot"
    if not film.shots_known or len(film.shots) < 3:
        what = "Frames spread evenly over the film"
    elif len(film.sheet) < len(film.shots):
        what = f"One frame of each of {len(film.sheet)} of its {number(len(film.shots))} shots"
    return f"""\
<h3>Contact sheet</h3>
<p class="note">{what}, with the map over it. A click goes there.</p>
{_legend(film)}
<ul class="sheet{" several" * several}" data-film="{at}">
{"".join(items)}
</ul>"""


def _picture(image: bytes | None, alt: str) -> str:
    if image is None:
        return '<span class="when">no picture</span>'
    return f'<img decoding="async" alt="{escape(alt)}" src="data:image/jpeg;base64,{b64encode(image).decode()}">'


def _legend(film: Film) -> str:
    densities = [each.maps.first.is_density for each in film.measured]
    what, unit, held = "density, or map that is none,", "uniform, or its mean", "it"
    if all(densities):
        what, unit, held = "density", "uniform", "the probability"
    elif not any(densities):
        what, unit, held = "map, no density,", "its mean", "the map"
    table = colormap("inferno")
    ramp = "linear-gradient(90deg, " + ", ".join(_rgb(table[level]) for level in range(0, 256, 17)) + ")"
    rings = "".join(
        f'<span><span class="ring" style="border-color:{_rgb(table[round(255 * place)])}"></span>'
        f"{mass:.0%} of {held} lies inside</span>"
        for mass, place in reversed(MASSES.items())
    )
    gaze = '<span><span class="ring gaze"></span>fixations in that frame</span>' if film.gaze else ""
    if film.gaze and film.looks is None:
        gaze += "<span>too many to be drawn over the film here: <code>streamsal render --gaze</code> draws them</span>"
    return (
        f'<p class="legend"><span>{what} 0<span class="ramp" style="background:{ramp}"></span>'
        f"{film.maximum:.3g} × {unit}, one scale for all pictures</span>{rings}{gaze}</p>"
    )


def _rgb(color: np.ndarray) -> str:
    return "rgb({} {} {})".format(*color.tolist())


def _means(films: Sequence[Film]) -> str:
    """A table of means: a line for each quantity of each film, a column for each run."""
    labels = list(dict.fromkeys(each.label for film in films for each in film.measured))
    rows = []
    for film in films:
        of_run = {each.label: curves for each, curves in zip(film.measured, film.curves, strict=True)}
        names = dict.fromkeys((c.quantity, c.series, c.unit) for curves in film.curves for c in curves)
        for quantity, series, unit in names:
            alike = (c for curves in film.curves for c in curves if (c.quantity, c.series) == (quantity, series))
            cells = "".join(
                f"<td class=number>{_mean(of_run.get(label, ()), quantity, series)}</td>" for label in labels
            )
            name = f"<td>{escape(film.name)}</td>" if len(films) > 1 else ""
            title = escape(f"{quantity}: {series}, {unit}" if series else f"{quantity}, {unit}")
            rows.append(f'<tr>{name}<th scope="row">{title}<small>{escape(_about(alike))}</small></th>{cells}</tr>')
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels)
    film_head = '<th scope="col">Film</th>' if len(films) > 1 else ""
    return f"""\
<section><h2>Means over frames</h2>
<div class="scroll"><table><thead><tr>{film_head}<th scope="col">Measure</th>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div></section>"""


def _mean(curves: Iterable[Curve], quantity: str, series: str) -> str:
    for curve in curves:
        if (curve.quantity, curve.series) == (quantity, series) and len(known := curve.known):
            digits = _digits(float(np.ptp(known)) or 1.0)
            low, high = (f"{v:.{digits}f}" for v in (known.min(), known.max()))
            spread = f"SD {known.std():.{digits}f}, {low} to {high}, n = {number(len(known))}"
            return f"{known.mean():.{digits}f}<small>{spread}</small>"
    return "–"


def _methods(of_run: Sequence[Sequence[Measured]]) -> str:
    paragraphs = "".join(f"<p>{escape(paragraph(run))}</p>" for run in of_run)
    cited = "".join(f"<li>{escape(text)}</li>" for text in citations([each for run in of_run for each in run]))
    sources = f'<h3>To cite</h3><ul class="citations">{cited}</ul>' if cited else ""
    return f"""\
<section><h2>Methods</h2>
<p class="note">Written from what the run records; to be copied into a paper.</p>
<blockquote>{paragraphs}</blockquote>{sources}</section>"""


def _facts(of_run: Sequence[Sequence[Measured]]) -> str:
    """A table of what each run records of each of its videos, a column each; folded where there are many."""
    columns = [(each, facts(each)) for run in of_run for each in run]
    names = list(dict.fromkeys(name for _, found in columns for name in found))
    several = len({Path(each.index.path).name for each, _ in columns}) > 1
    tables = []
    for k in range(0, len(columns), 3):
        chosen = columns[k : k + 3]
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th>'
            + "".join(f"<td>{escape(found.get(name, '–'))}</td>" for _, found in chosen)
            + "</tr>"
            for name in names
        )
        heads = "".join(f'<th scope="col">{escape(_named(each, several))}</th>' for each, _ in chosen)
        head = f"<thead><tr><td></td>{heads}</tr></thead>"
        tables.append(f'<div class="scroll"><table class="facts">{head}<tbody>{rows}</tbody></table></div>')
    folded = "".join(tables)
    if len(columns) > 3:
        folded = f"<details><summary>{len(columns)} videos</summary>{folded}</details>"
    return f"<section><h2>Run</h2>{folded}</section>"


def _named(each: Measured, several: bool) -> str:
    return f"{each.label}: {Path(each.index.path).name}" if several else each.label


def _reading() -> str:
    return """\
<section><h2>Keys</h2>
<p class="note">With the timeline in focus: <kbd>←</kbd> <kbd>→</kbd> a frame, with <kbd>Shift</kbd> a second;
<kbd>Page Up</kbd> <kbd>Page Down</kbd> a shot; <kbd>Home</kbd> <kbd>End</kbd>; <kbd>Space</kbd> plays and pauses;
<kbd>G</kbd> shows and hides gaze, where there is some.</p>
</section>"""
