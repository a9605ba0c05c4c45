"""A bar that counts tokens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

__all__ = ["Bar", "token_bar"]


class Bar(Protocol):
    """Something that counts tokens, as tqdm does."""

    def update(self, n: int) -> Any:
        """Count n more."""


class _NoBar:
    """A bar that shows nothing. tqdm's own has a lock that a killed process would take with it."""

    n = total = 0

    def update(self, n: int) -> None:
        pass


def token_bar(
    progress: bool | Bar, n_tokens: int | None = None, *, unit: str = "token"
) -> AbstractContextManager[Any]:
    """Return the bar to count in while the context is open.

    Parameters
    ----------
    progress : bool or Bar
        Whether to show a bar, or one that is there already and stays open.
    n_tokens : int or None, default=None
        How many there will be, if it is known.
    unit : str, default="token"
        What is counted, if not tokens.

    Returns
    -------
    bar : context manager
        Gives the bar.
    """
    if not isinstance(progress, bool):
        return nullcontext(progress)
    if not progress:
        return nullcontext(_NoBar())
    from tqdm.auto import tqdm

    bar: AbstractContextManager[Any] = tqdm(
        total=n_tokens, desc="Embedding" if unit == "token" else None, unit=unit, unit_scale=True
    )
    return bar
