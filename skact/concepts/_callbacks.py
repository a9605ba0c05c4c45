"""Fits that report each epoch to scikit-learn's callbacks, where scikit-learn has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:  # scikit-learn < 1.9
    CallbackSupportMixin, _with_callbacks = object, None

__all__ = ["EpochsMixin", "Report", "reporting", "with_callbacks"]


Method = TypeVar("Method")

#: Called after each epoch with what gives the vectors, should anybody ask; tells whether to stop.
Report = Callable[[Callable[[], Any]], bool]


def with_callbacks(method: Method) -> Method:
    """Let callbacks clean up after a method, whatever happens in it."""
    return method if _with_callbacks is None else cast(Method, _with_callbacks(method))


class EpochsMixin(CallbackSupportMixin):
    """An estimator whose ``fit`` goes through epochs, passes or iterations.

    ``_fit_vectors`` calls ``_report(vectors)`` after each, a function that gives the vectors, which
    are computed only if a callback asks. A subclass says how many there are at
    most, ``_max_epochs``, and which fitted attributes ``transform`` needs for given vectors,
    ``_attributes``.
    """

    _epochs: Any

    def _max_epochs(self) -> int:
        raise NotImplementedError

    def _attributes(self, vectors: Any) -> dict[str, Any]:
        return {"concept_vectors_": np.array(vectors, dtype=np.float64)}

    def _is_watched(self) -> bool:
        """Tell whether there is a callback to report to."""
        return bool(getattr(self, "_skl_callbacks", None))

    def _report(self, vectors: Callable[[], Any]) -> bool:
        """Report an epoch; tell whether a callback wants to stop."""
        epochs = vars(self).get("_epochs")
        return epochs is not None and epochs.done(lambda: self._attributes(vectors()))


class _Epochs:
    """The callbacks' view of one fit: a task with a subtask per epoch."""

    def __init__(self, estimator: Any, X: Any, y: Any) -> None:
        self.estimator, self.data = estimator, {"X": X, "y": y}
        self.fit = estimator._init_callback_context(max_subtasks=estimator._max_epochs())
        self.fit.call_on_fit_task_begin(estimator=estimator, **self.data)

    def done(self, attributes: Callable[[], dict[str, Any]]) -> bool:
        # How many epochs there will be is known only afterwards, so one begins when it ends.
        epoch = self.fit.subcontext(task_name="epoch")
        epoch.call_on_fit_task_begin(estimator=self.estimator, **self.data)
        return bool(
            epoch.call_on_fit_task_end(
                estimator=self.estimator, reconstruction_attributes=attributes, **self.data
            )
        )

    def end(self) -> None:
        self.fit.call_on_fit_task_end(estimator=self.estimator, **self.data)


@contextmanager
def reporting(estimator: Any, X: Any, y: Any = None) -> Iterator[None]:
    """Report the epochs of a fit.

    Parameters
    ----------
    estimator : estimator
        Reports if it has epochs, and if scikit-learn has callbacks.
    X, y : object
        What it is fitted on, for callbacks that score.

    Yields
    ------
    None
        While it is fitted.
    """
    if not hasattr(estimator, "_init_callback_context") or not hasattr(estimator, "_max_epochs"):
        yield
        return
    estimator._epochs = _Epochs(estimator, X, y)
    try:
        yield
        estimator._epochs.end()
    finally:
        del estimator._epochs
