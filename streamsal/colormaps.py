"""Color tables as (256, 3) uint8: a name in, a table out; what they are used for is not known here.

Each table is kept as base 85 of zlib of the steps from one entry to the next, channel by channel (uint8, wrapping).
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

COLORMAPS = tuple(_TABLES)


@lru_cache
def colormap(name: str) -> np.ndarray:
    """The (256, 3) uint8 RGB table `name`, read-only; a name we do not have is a UsageError listing those we have."""
    if name not in _TABLES:
        raise UsageError(f"there is no colormap {name!r}; choose one of {', '.join(COLORMAPS)}")
    steps = np.frombuffer(zlib.decompress(b85decode(_TABLES[name])), np.uint8).reshape(3, 256)
    table = np.ascontiguousarray(steps.cumsum(axis=1, dtype=np.uint8).T)
    table.flags.writeable = False
    return table
