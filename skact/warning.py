"""Warnings that point at the line of the user, however deep below it they are given."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

__all__ = ["warn"]

_HERE = str(Path(__file__).parent)
# Packages whose code runs between the user's line and ours.
_BETWEEN = ("sklearn", "joblib", "contextlib", "functools", "threading", "concurrent")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that belongs neither to this package nor to what it runs in.

    Parameters
    ----------
    message : str
        What is said.
    category : type, default=UserWarning
        Class of the warning.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _passes_on(frame.f_globals, frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _passes_on(names: dict[str, object], filename: str) -> bool:
    package = str(names.get("__name__", "")).partition(".")[0]
    return package in _BETWEEN or filename.startswith(_HERE)
