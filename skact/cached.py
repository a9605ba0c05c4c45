"""Properties that are computed once, in threads and in forked children alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

__all__ = ["cached_property"]

T = TypeVar("T")


class cached_property(functools.cached_property[T]):  # noqa: N801
    """That of the standard library, without the lock that Python 3.11 still has.

    All instances share that lock: a child that is forked while another thread holds it would wait
    for ever. Two threads may compute the same thing twice.
    """

    def __init__(self, func: Callable[[Any], T]) -> None:
        super().__init__(func)
        self.lock = nullcontext()
