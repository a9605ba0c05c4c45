"""SuperActivators from whatever wraps a detector."""

from __future__ import annotations

from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from skact.arguments import Such, checked

__all__ = ["superactivators"]


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
    if hasattr(estimator, "superactivators"):
        return estimator.superactivators(X)
    if isinstance(estimator, Pipeline):
        return superactivators(estimator[-1], estimator[:-1].transform(X))
    if isinstance(estimator, FrozenEstimator):
        return superactivators(estimator.estimator, X)
    if hasattr(estimator, "best_estimator_"):
        return superactivators(estimator.best_estimator_, X)
    raise TypeError(
        f"estimator must end in a detector: {type(estimator).__name__} does not end in a detector "
        "with superactivators(X)."
    )
