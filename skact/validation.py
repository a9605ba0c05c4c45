"""Checks of tokens, targets and token labels: every input passes here, before any work starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from sklearn.base import clone
from sklearn.utils._indexing import _safe_indexing
from sklearn.utils.validation import validate_data

from skact.arguments import check_entries, check_sample_weight
from skact.rows import (
    Array,
    Mapped,
    all_finite,
    as_numpy,
    offsets_of,
    on_disk,
    segment_at,
)
from skact.tokens import LayerStack, Source, TokenArray

__all__ = [
    "check_outputs",
    "check_tokens",
    "first_token",
    "like_input",
    "weighted_samples",
]


Samples = TypeVar("Samples", TokenArray, list[Any])


def check_tokens(estimator: Any, X: Any, *, reset: bool = True) -> TokenArray:
    """Turn anything that is accepted as tokens into a TokenArray, and check it.

    Parameters
    ----------
    estimator : estimator
        The caller. Gets ``n_features_in_`` and ``source_`` if ``reset``, else is compared to them.
    X : TokenArray, list of 2-D arrays or tensors, 3-D array or 2-D array
        Tokens. A 3-D array is (n_samples, n_tokens, n_features); in a 2-D array each row is a
        sample with one token.
    reset : bool, default=True
        True in ``fit``, False afterwards.

    Returns
    -------
    tokens : TokenArray
        Finite and not empty, a view where X allows it. Half precision stays as it is; whoever
        computes widens it by :func:`skact.rows.as_floats`. Tokens on disk that take more than half
        of scikit-learn's ``working_memory`` are checked whenever they are read, not now, so that a
        check costs no pass of its own.

    Raises
    ------
    TypeError
        If X is a LayerStack, or holds text.
    ValueError
        If X has no samples, an empty sample, a wrong number of features, NaN or infinity (the
        first sample and token are named), or comes from another model, layer or scaling than the
        one the estimator was fitted on.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import MeanPrototype, check_tokens
    >>> check_tokens(MeanPrototype(), np.ones((4, 7, 3))).lengths
    array([7, 7, 7, 7])
    """
    name = type(estimator).__name__
    if isinstance(estimator, type) or not hasattr(estimator, "__sklearn_tags__"):
        raise TypeError(f"estimator must be an estimator, got {estimator!r}.")
    if not isinstance(reset, bool):
        raise TypeError(f"reset must be True or False, got {reset!r}.")
    if isinstance(X, LayerStack):
        raise TypeError(
            f"X is a LayerStack of blocks {X.layers}, but {name} takes one layer; put "
            "SelectLayer(layer=...) or JoinLayers() before it, or pass X.layer(block)."
        )
    if _is_text(X):
        raise TypeError(
            f"X holds text, but {name} takes token activations; put TransformerEmbedder before it."
        )
    if not _is_ragged(X):
        values = X if hasattr(X, "columns") or not hasattr(X, "detach") else as_numpy(X)
        _check_names(list(getattr(X, "columns", ())), name)
        values = _matrix(estimator, values, reset)
        tokens = TokenArray(values, np.arange(len(values) + 1))
    else:
        tokens = X if isinstance(X, TokenArray) else TokenArray.from_list(list(X))
        if len(tokens) == 0:
            raise ValueError(f"X has 0 samples, {name} needs at least one.")
        if tokens.n_features == 0:
            raise ValueError(f"X has 0 features, {name} needs at least one.")
        validate_data(estimator, tokens, skip_check_array=True, reset=reset)
    _check_names(tokens.feature_names or (), name)
    tokens = _finite(tokens, name)
    if reset:
        estimator.source_ = tokens.source
    elif getattr(estimator, "source_", None) is not None:
        _check_source(estimator.source_, tokens.source, name)
    return tokens


def weighted_samples(
    sample_weight: Any, samples: Samples, **beside: Any
) -> tuple[Samples, list[Any], Array | None]:
    """Leave out samples of weight 0, and say how often each of the others counts.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,) or None
        Weights: a sample of weight 2 counts as two samples. Those that average less than 1 are
        scaled to an average of 1, so that their sum is not taken for a number of samples.
    samples : TokenArray of shape (n_samples, n_features), or list of raw samples
        Samples.
    **beside : array-like of n_samples, or None
        What belongs to them, by the names of arguments.

    Returns
    -------
    samples : TokenArray of shape (n_kept, n_features), or list
        Samples that count.
    beside : list
        What belongs to these.
    weight : ndarray of shape (n_kept,), dtype float64, or None
        Their weights; None where each counts once.

    Raises
    ------
    TypeError, ValueError
        If the weights are no weights of these samples.
    """
    if sample_weight is None:
        return samples, list(beside.values()), None
    weight = check_sample_weight(sample_weight, len(samples))
    rows = np.flatnonzero(weight)
    if len(rows) < len(weight):
        there = {name: part for name, part in beside.items() if part is not None}
        for name, part in there.items():
            check_entries(name, part, len(samples))
        beside |= {name: _safe_indexing(part, rows) for name, part in there.items()}
        samples, weight = _safe_indexing(samples, rows), weight[rows]
    once = bool((weight == 1).all())
    weight = weight * max(1.0, len(weight) / weight.sum())
    return samples, list(beside.values()), None if once else weight


def _check_names(columns: Sequence[Any], name: str) -> None:
    for column, n in Counter(columns).items():
        if n > 1:
            raise ValueError(
                f"X names {n} columns {column!r}, but {name} tells columns apart by their names; "
                "name each once, or none: X.with_values(X.flat()), or X.to_numpy() of a frame."
            )


def _matrix(estimator: Any, values: Any, reset: bool) -> Array:
    try:
        matrix: Array = validate_data(
            estimator,
            values,
            dtype=[np.float64, np.float32, np.float16],
            order="C",
            ensure_all_finite=False,
            reset=reset,
        )
    except (TypeError, ValueError) as error:
        if not str(error).startswith(("could not convert", "float() argument")):
            raise
        raise type(error)(f"X must hold numbers: {error}") from error
    return matrix


def _is_text(X: Any) -> bool:
    if isinstance(X, list | tuple) or (getattr(X, "ndim", None) == 1 and len(X)):
        return len(X) > 0 and isinstance(next(iter(X)), str)
    return isinstance(X, str)


def check_outputs(estimator: Any, X: Any, n_features: int) -> TokenArray:
    """Check what an estimator has put out, before it is turned back into what it was.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
        Its output.
    n_features : int
        Columns of its output.

    Returns
    -------
    outputs : TokenArray
        As from :func:`check_tokens`, with its errors.
    """
    # An estimator of the same name that expects them.
    expects = clone(estimator)
    expects.n_features_in_, expects.source_ = n_features, estimator.source_
    return check_tokens(expects, X, reset=False)


def _is_ragged(X: Any) -> bool:
    """Tell samples of several tokens from a matrix, whose rows are samples of one token."""
    if isinstance(X, TokenArray) or getattr(X, "ndim", None) == 3:
        return True
    is_list = isinstance(X, list | tuple)
    if is_list or (getattr(getattr(X, "dtype", None), "kind", "") == "O" and X.ndim == 1):
        return len(X) == 0 or any(getattr(sample, "ndim", None) == 2 for sample in X)
    return False


def _finite(tokens: TokenArray, name: str) -> TokenArray:
    check = partial(_finite_rows, tokens=tokens, name=name)
    if on_disk(tokens.values) and not tokens.may_be_held:
        checked = Mapped(tokens.values, check)
        return tokens.with_stored_values(checked, tokens.feature_names, tokens.source)
    for _, block in tokens.blocks():
        check(block)
    return tokens


def _finite_rows(values: Array, tokens: TokenArray, name: str) -> Array:
    """Return some of the stored tokens as they are, unless one that is shown is not finite."""
    if not all_finite(values):
        where = first_token(tokens, lambda block: ~np.isfinite(block))
        if where is not None:
            what = "NaN" if np.isnan(where.value) else "infinity"
            raise ValueError(
                f"Input X contains {what}, first at {where}; {name} needs finite values."
            )
    return values


@dataclass(frozen=True)
class Place:
    """Where an entry is, and what it is."""

    sample: int
    token: int
    feature: int
    value: float

    def __str__(self) -> str:
        return f"sample {self.sample}, token {self.token}, feature {self.feature}"


def first_token(tokens: TokenArray, is_bad: Callable[[Array], Array]) -> Place | None:
    """Find the first entry that is not as it should be.

    Parameters
    ----------
    tokens : TokenArray
        Tokens.
    is_bad : callable
        Takes (n_tokens, n_features), returns bools of this shape.

    Returns
    -------
    place : Place or None
        None if there is none.
    """
    for samples, block in tokens.blocks():
        bad = is_bad(block)
        if bad.any():
            row, feature = np.argwhere(bad)[0]
            offsets = offsets_of(tokens.lengths[samples])
            sample = int(segment_at(offsets, row))
            token, value = int(row - offsets[sample]), float(block[row, feature])
            return Place(samples.start + sample, token, int(feature), value)
    return None


def _check_source(fitted: Source, source: Source | None, name: str) -> None:
    field = None if source is None else fitted.conflict(source)
    if field is not None:
        raise ValueError(
            f"X comes from another {field} than {name} was fitted on: fitted on ({fitted}), "
            f"got ({source})."
        )


def like_input(X: Any, tokens: TokenArray) -> TokenArray | Array:
    """Give tokens back in the form X had: a matrix for a matrix.

    Parameters
    ----------
    X : object
        What the user passed.
    tokens : TokenArray
        The result.

    Returns
    -------
    result : TokenArray or ndarray
        The values alone if X was a matrix, one token per sample.
    """
    return tokens if _is_ragged(X) else tokens.flat()
