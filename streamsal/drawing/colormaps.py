"""Color tables as (256, 3) uint8: a name in, a table out; what they are used for is not known here.

Each table is kept as base 85 of zlib of the steps from one entry to the next, channel by channel (uint8, wrapping);
those that are formulas of our own are computed.
"""

from __future__ import annotations

import zlib
from base64 import b85decode
from functools import lru_cache

import numpy as np

from streamsal.errors import UsageError

# Read from matplotlib 3.11.2 and rounded to 8 bits. inferno, magma, viridis: N. Smith and S. van der Walt, 2015, CC0.
# cividis: Nuñez, Anderton and Renslow, 2018, published as data with the paper. turbo: A. Mikhailov, Google, 2019,
# Apache-2.0. coolwarm: K. Moreland, 2009, computed from his formula. gray and jet are formulas.
_TABLES = {
    "inferno": (
        "c-nnYff9uv2!rhX{~u?`HW6PJ%pqLTG0e>d{DJHs!U>Qs;e$R4<q|F;;(*eOB!nkOv@Yrca*^RRewRH^w6*urP6u^geWN|pynv!x9d(YM"
        "%G6!t7O)v|#%cbNLw)LdoUU&gNobki>0F5>sw(}<pOS}zaOtF1yLP_vOejQK(?U6N(<p5Kb`Gcg5T42nM;>jU"
    ),
    "viridis": (
        "c-n<hi4lY#3{0@KE8+St<xsL4Sjp&Rzu+jyOg`opECkc)X`Q6qnhK3HNo_OG;RhV>kb4UegZDb1pdhW1hA(9608i7%o<`5u+O6#W6MI|R"
        "-q~_nLKyo3Fq1@l=e3($blyl0DjP1z=#&|HsQxfvb9OjPgHv1mpkyG8q{bp%?-(;)vb7T{kBAB"
    ),
    "magma": (
        "c-nnZ0TRO?2ov1@zwB-SL$G!b1Lv7mfnj3+W>_$1*l-6$vculB^q1sG_f&LnT*IwwB;bXl<Uh79*?xVvf`0)m>K0|9YP!<*pnj$WHo~<B"
        "T6(W=N!o!IuJjWh_vy5m1SCzK_+2Be79*q0Xg#o_&`SykB*7c7NQn@fO{<x$$z{pxF?9O+h+oRdEx7"
    ),
    "cividis": (
        "c-oCp0TO^92m|ybJ*fY`MiW5;#j7#KtPU>}AOz-=Qz8LMC~@csu(_o|`0~&r2K{(Un<G<L+K*nk893UNFaH;(4yG)2%Y)gipR5@le9V+?"
        "<nv{!@JY7;K<)RSPEmbpcx}8vCz^w}e(oDD`<v{vGDFy8rih@Z6b?ok2t7^bLmv"
    ),
    "turbo": (
        "c-mc(TNcA02t@Ijes?AP@BVjXw88+=3?t_>G4=v}a*850CxSK6LRzee*jiZo7kj@Ye33Fo;n=DiRhFt$dA8r>V-L0oCpnyiX(5zK(GH#v"
        "LN{CDmc<&f#=DrZ=UgIHL<=FD0k<%$5N}*C=SN=+KN-K5;Pj3j=&giMgjeyWd1J#vcHpu>P3;ux`?^HEU%mD1)>_@hn6xE23yeU4^$vvA"
        "n(@#O$MMj%V;}DV(n1?la`8^0)2uV<>Fx4jre6Y5<4`x9zaYQZ=?AISX^{"
    ),
    "gray": "c-muN9NB<j)c+$I004fx0{#",
    "coolwarm": (
        "c-noD*%8Aa3`D_grG*rozG9F;2a*=XXb+EntY<!To-0ML7wg#g616O`>TrsfRZ8V4@(71m!z3|A#rC4^CGHY3-)k(syh+2VhDvxFRM~KR"
        "3~DC9_OLvz-x0uKiY*bkc@4KFy8kji<pVC@$ut2&Dbl@|5iL?tq=G9ks_^huhe;7`UjJqfpML-#{!;D"
    ),
    "jet": (
        "c-muNpcP<ZVP<9qVP*^lc2WG&jO4rI_a88XQm9OVnpr3V%v1=;zkmMz0U=Zh8w-yV4zn9rSYeQrg%yoMzLWp|1v(mnF&WrJ@k#%qSt<npF%q$X"
    ),
}

# Okabe and Ito, Color Universal Design, 2002: colors that stay apart for every kind of color vision.
SUBJECT_COLORS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0))
_SKY_BLUE, _ORANGE = SUBJECT_COLORS[:2]
_MIDDLE_LIGHTNESS = 0.25
# Oklab: B. Ottosson, 2020; linear sRGB > cone responses, and their cube roots > lightness and two color axes.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

COLORMAPS = (*_TABLES, "blue_orange")


@lru_cache
def colormap(name: str) -> np.ndarray:
    """The (256, 3) uint8 RGB table `name`, read-only; a name we do not have is a UsageError listing those we have."""
    if name not in COLORMAPS:
        raise UsageError(f"there is no colormap {name!r}; choose one of {', '.join(COLORMAPS)}")
    if name == "blue_orange":
        table = _blue_orange()
    else:
        steps = np.frombuffer(zlib.decompress(b85decode(_TABLES[name])), np.uint8).reshape(3, 256)
        table = np.ascontiguousarray(steps.cumsum(axis=1, dtype=np.uint8).T)
    table.flags.writeable = False
    return table


def _blue_orange() -> np.ndarray:
    """Sky blue over dark gray to orange, straight in Oklab, the ends about equally light.

    Dark in the middle, as the other tables are dark at 0, so that what is large stands out from any film.
    """
    low, high = (np.cbrt(_linear(np.array(color)) @ _TO_CONES.T) @ _TO_LAB.T for color in (_SKY_BLUE, _ORANGE))
    value = np.linspace(-1, 1, 256)[:, None]
    lab = np.abs(value) * np.where(value < 0, low, high) + (1 - np.abs(value)) * np.array([_MIDDLE_LIGHTNESS, 0, 0])
    linear = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


def _linear(rgb: np.ndarray) -> np.ndarray:
    """Light of sRGB colors, 0 to 255, as IEC 61966-2-1 encodes it."""
    srgb = rgb / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
