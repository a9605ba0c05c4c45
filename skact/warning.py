"""Warnings that point at the line of the user, however deep below it they are given."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["at_users_line", "warn"]

_HERE = str(Path(__file__).parent) + os.sep
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


@contextmanager
def at_users_line() -> Iterator[None]:
    """Give the warnings of another library, which would name a line of ours or its own, by `warn`.

    Yields
    ------
    None
        While the library is called. If it raises, what it warned of is given as well.
    """
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        for one in caught:
            warn(str(one.message), one.category)


def _passes_on(names: dict[str, object], filename: str) -> bool:
    package = str(names.get("__name__", "")).partition(".")[0]
    return package in _BETWEEN or filename.startswith(_HERE)
