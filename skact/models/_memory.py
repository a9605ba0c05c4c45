"""Go on with smaller batches where memory does not suffice.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

__all__ = ["out_of_memory", "run_batches"]

ResultT = TypeVar("ResultT")

_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory did not suffice, on whatever device.

    Parameters
    ----------
    error : exception
        What was raised.

    Returns
    -------
    out_of_memory : bool
        True for the errors made for it, and for those that only their message tells apart.
    """
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(known in message for known in _MESSAGES)
    )


def run_batches(
    cut: Callable[[int, int], Any],
    run: Callable[[Any], ResultT],
    budget: int,
    cost: Callable[[Any], int] = len,
) -> Iterator[tuple[Any, ResultT]]:
    """Run batch after batch, and halve them for good where memory does not suffice.

    Parameters
    ----------
    cut : callable
        Takes the number of samples that are done and a budget, returns the next batch; an empty
        one at the end.
    run : callable
        Takes a batch; called again with the first half of it if memory did not suffice.
    budget : int
        What a batch may cost.
    cost : callable, default=len
        Takes a batch, returns what it costs.

    Yields
    ------
    batch : sequence
        The batch.
    result : object
        What ``run`` returned for it.

    Raises
    ------
    RuntimeError, MemoryError
        If memory does not suffice for a single sample.
    """
    n_done = 0
    while len(batch := cut(n_done, budget)):
        try:
            result = run(batch)
        except (RuntimeError, MemoryError) as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
        else:
            n_done += len(batch)
            yield batch, result
            continue
        # Only now, when the error is gone, nothing holds the tensors of the batch.
        budget = cost(batch[: len(batch) // 2])
        torch.cuda.empty_cache()
