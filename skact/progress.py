"""A bar that counts tokens, and results of workers as they come, to be counted in it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from joblib import Parallel
from joblib.parallel import get_active_backend

__all__ = ["Bar", "as_they_come", "token_bar"]


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


def as_they_come(tasks: Iterable[Any], n_jobs: int | None) -> Iterable[Any]:
    """Hand tasks to the workers of joblib.

    Parameters
    ----------
    tasks : iterable of delayed
        What is done.
    n_jobs : int or None
        As joblib takes it.

    Returns
    -------
    results : iterable
        In the order in which they are done; all at the end where the backend cannot give them
        before, as that of ray.
    """
    backend, _ = get_active_backend()
    able = n_jobs == 1 or getattr(backend, "supports_return_generator", False)
    kind = "generator_unordered" if able else "list"
    results: Iterable[Any] = Parallel(n_jobs=n_jobs, return_as=kind, pre_dispatch="2*n_jobs")(tasks)
    return results
