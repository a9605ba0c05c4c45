"""A labelled piece of a text."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """A labelled piece of a text.

    Parameters
    ----------
    start, end : int
        Offsets in code points, as Python indexes strings: the piece is ``text[start:end]``.
    label : str
        The concept that the piece carries.

    Examples
    --------
    >>> from skact.datasets import Span
    >>> span = Span(2, 7, "joy")
    >>> "I cheer!"[span.start : span.end]
    'cheer'
    """

    start: int
    end: int
    label: str
