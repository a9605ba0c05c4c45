"""Folds of a cross-validation, from all that a user may say about them."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
)
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.multiclass import type_of_target

from skact.arguments import check_groups
from skact.rows import Array

__all__ = ["consumed", "make_folds"]

Fold = tuple[Array, Array]


def make_folds(
    cv: Any,
    y: Any,
    groups: Any,
    n_samples: int,
    *,
    shuffle: bool = False,
    random_state: Any = None,
) -> list[Fold]:
    """Make the training and test rows of each fold.

    Parameters
    ----------
    cv : int, cross-validation splitter, iterable of splits or None
        An int makes stratified folds for class labels and plain ones otherwise; with groups, folds
        that keep each group together. None is 5.
    y : array-like of n_samples or None
        Targets.
    groups : array-like of shape (n_samples,) or None
        Samples that belong together.
    n_samples : int
        Number of samples.
    shuffle : bool, default=False
        Whether an int shuffles.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling.

    Returns
    -------
    folds : list of (ndarray of int, ndarray of int)
        Rows to fit on, rows to score.

    Raises
    ------
    ValueError
        If groups do not fit the samples, the splitter needs some and there are none, or splits
        that are listed are no splits of these samples.
    """
    if groups is not None:
        check_groups(groups, n_samples)
    if cv is None or isinstance(cv, Integral):
        labels = _holds_classes(y)
        if groups is None:
            build = StratifiedKFold if labels else KFold
        else:
            build = StratifiedGroupKFold if labels else GroupKFold
        seed = random_state if shuffle else None
        splitter = build(5 if cv is None else int(cv), shuffle=shuffle, random_state=seed)
    elif hasattr(cv, "split") and not isinstance(cv, str | bytes):
        splitter = cv
    else:
        return _check_splits(list(cv), n_samples)
    if groups is None and consumed(splitter, "split", ["groups"]):
        raise ValueError(
            f"cv={splitter} needs groups: pass groups=..., one entry per sample. In a pipeline or "
            "a search they arrive only with sklearn.set_config(enable_metadata_routing=True)."
        )
    return list(splitter.split(np.zeros(n_samples), y, groups))


def _holds_classes(y: Any) -> bool:
    try:
        # A hole in y is not worth the warning of a cast.
        with np.errstate(invalid="ignore"):
            return y is not None and type_of_target(y) in ("binary", "multiclass")
    except (TypeError, ValueError):  # whoever is fitted says what is wrong with y
        return False


def consumed(estimator: Any, method: str, names: list[str]) -> set[str]:
    """Tell which metadata a method of an estimator or splitter asks for.

    Parameters
    ----------
    estimator : object
        With metadata routing or without, which asks for nothing.
    method : str
        Name of the method.
    names : list of str
        What there is.

    Returns
    -------
    names : set of str
        What of it is asked for.
    """
    with config_context(enable_metadata_routing=True):
        return set(get_routing_for_object(estimator).consumes(method, names))


def _check_splits(splits: list[Any], n_samples: int) -> list[Fold]:
    """Refuse what lists no splits of so many samples."""
    folds = []
    for k, split in enumerate(splits):
        try:
            train, test = (np.asarray(rows) for rows in split)
        except (TypeError, ValueError):
            train = test = np.zeros(0)
        if not all(rows.ndim == 1 and rows.dtype.kind in "iub" for rows in (train, test)):
            raise ValueError(
                "cv must be an int, a splitter, or list splits (rows to fit on, rows to score); "
                f"its item {k} is {str(split)[:40]}. (A calibration split, which ConceptSearchCV "
                "takes, is a numpy array of bools.)"
            )
        pair = [np.flatnonzero(rows) if rows.dtype.kind == "b" else rows for rows in (train, test)]
        largest = max(rows.max(initial=-1) for rows in pair)
        if largest >= n_samples:
            raise _other_samples(f"speaks of sample {largest}", n_samples)
        folds.append((pair[0], pair[1]))
    if not folds:
        raise ValueError("cv lists no splits.")
    return folds


def _other_samples(what: str, n_samples: int) -> ValueError:
    return ValueError(
        f"cv lists splits and {what}, but X has {n_samples} samples: the splits are those of other "
        "data, as where an outer cross-validation hands on a part of them. Say of each sample "
        "which fold it is in: groups=folds with cv=LeaveOneGroupOut(), which an outer "
        "cross-validation cuts like the samples."
    )
