"""Questions to the detector at the end of whatever wraps it."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline

from skact.arguments import Such, checked
from skact.base import SEARCHES, unwrapped

__all__ = ["ask_detector", "superactivators"]


def ask_detector(estimator: Any, method: str, X: Any) -> Any:
    """Call a method of the detector that an estimator ends in, straight from what it reads.

    Parameters
    ----------
    estimator : detector, Pipeline, fitted search or FrozenEstimator
        Something fitted that ends in a detector.
    method : str
        Name of a method of one argument that detectors have and pipelines do not hand on.
    X : object
        What ``estimator.predict`` takes.

    Returns
    -------
    answer : object
        Of the method.

    Raises
    ------
    TypeError
        If there is no detector with this method at the end.
    """
    if hasattr(estimator, method):
        return getattr(estimator, method)(X)
    if isinstance(estimator, Pipeline):
        return ask_detector(estimator[-1], method, estimator[:-1].transform(X))
    if (inner := unwrapped(estimator, SEARCHES)) is not estimator:
        return ask_detector(inner, method, X)
    raise TypeError(
        f"estimator must end in a detector: {type(estimator).__name__} does not end in a detector "
        f"with {method}(X)."
    )


@checked(estimator=[Such("a fitted object", lambda value: not isinstance(value, type))])
def superactivators(estimator: Any, X: Any) -> Any:
    """Mark the SuperActivators of each concept, straight from raw samples if need be.

    Parameters
    ----------
    estimator : detector, Pipeline, fitted search or FrozenEstimator
        Something fitted that ends in a detector.
    X : object
        What ``estimator.predict`` takes.

    Returns
    -------
    marks : TokenArray of shape (n_samples, n_concepts), dtype bool
        True at the SuperActivators.

    Raises
    ------
    TypeError
        If there is no detector at the end.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from skact import MeanPrototype, SuperActivator, superactivators
    >>> X = [np.array([[1.0, 0.0], [0.9, 0.1]]), np.array([[0.0, 1.0]])]
    >>> pipe = make_pipeline(MeanPrototype(), SuperActivator(delta=0.5)).fit(X, [1, 0])
    >>> superactivators(pipe, X)[0].sum()
    np.int64(1)
    """
    return ask_detector(estimator, "superactivators", X)
