"""Packages that few commands need and a plain installation lacks: asked for before hours are spent."""

from __future__ import annotations

import importlib.util

from .errors import UsageError


def need(extra: str, what: str, *packages: str) -> None:
    """Raises UsageError, saying what to install, where one of the packages of streamsal[extra] is not there."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"{what} needs {package.replace('_', '-')}: pip install 'streamsal[{extra}]'")
