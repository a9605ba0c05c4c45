"""Labels of samples as the estimator that is reported on understands them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skact.base import SEARCHES, unwrapped
from skact.detection import BaseDetector
from skact.rows import Array
from skact.targets import in_order_of_fit, label_array, missing_labels

__all__ = ["presence"]


def presence(
    estimator: Any, detector: BaseDetector, names: Sequence[str], y: Any, n_samples: int
) -> Array:
    """Say of each sample and concept whether it is there.

    Parameters
    ----------
    estimator : ConceptDetector, ConceptSearchCV, Pipeline or search
        Fitted. One that has ``encode`` is asked.
    detector : BaseDetector
        One at the end of it, which knows what y was like.
    names : sequence of n_concepts str
        Names of the concepts.
    y : array-like of shape (n_samples,) or (n_samples, n_columns), or None
        Labels; what is missing is unknown.
    n_samples : int
        Samples that there are.

    Returns
    -------
    present : ndarray of shape (n_samples, n_concepts), dtype float64
        1, 0, or NaN where it is unknown.

    Raises
    ------
    ValueError
        If y has another length or form than the estimator was fitted on.
    """
    if y is None:
        return np.full((n_samples, len(names)), np.nan)
    inner = unwrapped(estimator, SEARCHES)
    table = label_array(y)
    if len(table) != n_samples:
        raise ValueError(f"y has {len(table)} samples, samples has {n_samples}.")
    if hasattr(inner, "encode"):
        present: Array = inner.encode(y)
        return present
    if detector.multilabel_:
        table = label_array(in_order_of_fit(y, names))
    missing = missing_labels(table)
    if not detector.multilabel_:
        table, missing = table.reshape(len(table), -1), missing.reshape(len(table), -1)
        if table.shape[1] != 1:
            raise ValueError(f"y has {table.shape[1]} columns, and was a vector in fit.")
        known = detector.classes_.tolist()
        # Of two classes the larger one is the concept, of more each one.
        concepts = known[1:] if len(known) == 2 else known
        present = (table == np.asarray(concepts)).astype(np.float64)
    else:
        table, missing = np.atleast_2d(table.T).T, np.atleast_2d(missing.T).T
        if table.shape[1] != len(names):
            raise ValueError(
                f"y must have a column per concept, {list(names)[:10]}; it has {table.shape[1]}."
            )
        known = [0, 1]
        present = (table == 1).astype(np.float64)
    strange = [v for v in table[~missing].tolist() if v not in known]
    if strange:
        raise ValueError(f"y holds {strange[0]!r}, fit had only {known}.")
    return np.where(missing, np.nan, present)
