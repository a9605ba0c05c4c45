"""Loops that numba compiles take the place of numpy's where there is enough for them to do.

Such loops stand in modules of their own, whose import needs numba and takes a moment.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["compiled"]

# Numbers to go through from which on compiling is worth its time; numpy takes 0.2 s for as many.
_WORTH_COMPILING = 2**28


def compiled(module: str, n_numbers: int) -> Any:
    """Import compiled loops, if there is numba and so many numbers are worth it.

    Parameters
    ----------
    module : str
        Name of the module.
    n_numbers : int
        Numbers that the loops will go through in all.

    Returns
    -------
    loops : module or None
        None where numpy should do it.
    """
    return _imported(module) if n_numbers >= _WORTH_COMPILING else None


@cache
def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:  # no numba, or one for another numpy
        return None
