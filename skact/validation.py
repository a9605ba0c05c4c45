"""Checks of tokens, targets and token labels: every input passes here, before any work starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import validate_data

from skact.floats import as_floats, finite_floats
from skact.reading import may_hold, on_disk
from skact.shards import Mapped
from skact.tokens import LayerStack, Source, TokenArray, as_numpy

__all__ = [
    "Targets",
    "check_more_targets",
    "check_outputs",
    "check_targets",
    "check_token_labels",
    "check_tokens",
    "first_token",
    "like_input",
]

Array = npt.NDArray[Any]


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
        Finite and not empty. A view where X allows it. Tokens on disk that take more than half of
        scikit-learn's ``working_memory`` are checked whenever they are read, not now, so that a
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
    if isinstance(X, LayerStack):
        raise TypeError(
            f"X is a LayerStack of blocks {X.layers}, but {name} takes one layer; put "
            "SelectLayer(layer=...) before it, or pass X.layer(block)."
        )
    if _is_text(X):
        raise TypeError(
            f"X holds text, but {name} takes token activations; put TransformerEmbedder before it."
        )
    if not _is_ragged(X):
        values = X if hasattr(X, "columns") or not hasattr(X, "detach") else as_numpy(X)
        values = validate_data(
            estimator,
            values,
            dtype=[np.float64, np.float32, np.float16],
            order="C",
            ensure_all_finite=False,
            reset=reset,
        )
        tokens = TokenArray(values, np.arange(len(values) + 1))
    else:
        tokens = X if isinstance(X, TokenArray) else TokenArray.from_list(list(X))
        if len(tokens) == 0:
            raise ValueError(f"X has 0 samples, {name} needs at least one.")
        if tokens.n_features == 0:
            raise ValueError(f"X has 0 features, {name} needs at least one.")
        validate_data(estimator, tokens, skip_check_array=True, reset=reset)
    tokens = _finite(tokens, name)
    if reset:
        estimator.source_ = tokens.source
    elif getattr(estimator, "source_", None) is not None:
        _check_source(estimator.source_, tokens.source, name)
    return tokens


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
        return any(getattr(sample, "ndim", None) == 2 for sample in X)
    return False


def _finite(tokens: TokenArray, name: str) -> TokenArray:
    n_numbers = tokens.n_tokens * tokens.n_features
    check = partial(_finite_rows, tokens=tokens, name=name, n_in_all=n_numbers)
    if on_disk(tokens.values) and not may_hold(4 * n_numbers):
        return tokens.over(Mapped(tokens.values, check), tokens.feature_names, tokens.source)
    for _, block in tokens.blocks():
        check(block)
    return tokens


def _finite_rows(values: Array, tokens: TokenArray, name: str, n_in_all: int) -> Array:
    """Widen values, which are some of the tokens, unless one of them is not finite."""
    floats = finite_floats(values, n_in_all)
    if floats is None:
        where = first_token(tokens, lambda block: ~np.isfinite(block))
        if where is not None:
            what = "NaN" if np.isnan(where.value) else "infinity"
            raise ValueError(
                f"Input X contains {what}, first at {where}; {name} needs finite values."
            )
        # They are stored beside the tokens shown.
        return as_floats(values)
    return floats


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
            ends = np.cumsum(tokens.lengths[samples])
            sample = int(np.searchsorted(ends, row, side="right"))
            token = int(row - (ends[sample - 1] if sample else 0))
            return Place(samples.start + sample, token, int(feature), float(block[row, feature]))
    return None


def _check_source(fitted: Source, given: Source | None, name: str) -> None:
    field = None if given is None else fitted.conflict(given)
    if field is not None:
        raise ValueError(
            f"X comes from another {field} than {name} was fitted on: fitted on ({fitted}), "
            f"got ({given})."
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


@dataclass(frozen=True)
class Targets:
    """Which samples hold which concept.

    Parameters
    ----------
    present : ndarray of shape (n_samples, n_concepts), dtype bool
        True where the concept is in the sample.
    names : list of str or None
        Names of the concepts, if y has any.
    classes : ndarray or None
        Class labels where y is 1-D, None for an indicator matrix.
    """

    present: Array
    names: list[str] | None
    classes: Array | None

    @property
    def n_concepts(self) -> int:
        """Number of concepts."""
        return int(self.present.shape[1])

    def without_samples(self) -> Targets:
        """Only the concepts."""
        return replace(self, present=self.present[:0].copy())

    def label(self, concept: int) -> str:
        """Name a concept in a message."""
        return f"{concept}" if self.names is None else f"{concept} ({self.names[concept]!r})"


def check_targets(estimator: Any, y: Any, n_samples: int, *, multiclass: bool = False) -> Targets:
    """Check sample-level targets.

    Parameters
    ----------
    estimator : estimator
        The caller, for messages.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts)
        Two classes (the larger one is the concept), or an indicator matrix with a column per
        concept. Column names of a data frame become names of concepts.
    n_samples : int
        Samples in X.
    multiclass : bool, default=False
        Also take more than two classes, one concept each.

    Returns
    -------
    targets : Targets
        The indicator matrix and the names.

    Raises
    ------
    ValueError
        If y is missing, has another length than X, is no classification target, has a single
        class, more classes than allowed, or a concept without a positive sample.

    Examples
    --------
    >>> from skact import SuperActivator
    >>> from skact.validation import check_targets
    >>> check_targets(SuperActivator(), ["no", "yes"], 2).present.tolist()
    [[False], [True]]
    """
    name = type(estimator).__name__
    y, names = _read_targets(y, n_samples, name)
    if y.ndim == 2:
        targets = Targets(y, names, None)
        missing = np.flatnonzero(~targets.present.any(axis=0))
        if len(missing):
            raise ValueError(f"concept {targets.label(missing[0])} has no positive sample in y.")
        return targets
    classes = np.unique(y)
    if len(classes) == 1:
        raise ValueError(
            f"y has one class only ({classes[0]!r}); {name} needs samples with and without the "
            "concept. (A single concept that all samples hold is an indicator of shape (n, 1).)"
        )
    if len(classes) > 2 and not multiclass:
        raise ValueError(
            f"Only binary classification is supported (or an indicator matrix of several "
            f"concepts). The type of the target is {type_of_target(y)}, with "
            f"{len(classes)} classes."
        )
    return _of_classes(y, classes)


def check_more_targets(
    estimator: Any,
    y: Any,
    n_samples: int,
    *,
    known: Targets | None = None,
    classes: npt.ArrayLike | None = None,
) -> Targets:
    """Check the sample-level targets of one of several calls of ``partial_fit``.

    Parameters
    ----------
    estimator : estimator
        The caller, for messages.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts)
        Class labels, a concept each (the larger one of two), or an indicator matrix. Not every
        concept needs a sample.
    n_samples : int
        Samples in X.
    known : Targets, default=None
        Those of the first call; None if this is the first.
    classes : array-like of shape (n_classes,), default=None
        All classes there will be, for the first call; None takes those in y.

    Returns
    -------
    targets : Targets
        The indicator matrix, with the concepts of the first call.

    Raises
    ------
    ValueError
        If y is no classification target, or holds other concepts than the first call did.
    """
    y, names = _read_targets(y, n_samples, type(estimator).__name__)
    first = "the first call of partial_fit"
    if y.ndim == 2:
        targets = Targets(y, names, None)
        if known is None:
            return targets
        if known.classes is not None or known.n_concepts != targets.n_concepts:
            had = "class labels" if known.classes is not None else f"{known.n_concepts} concepts"
            raise ValueError(f"y has {targets.n_concepts} concepts, {first} had {had}.")
        if names is not None and known.names is not None and names != known.names:
            raise ValueError(f"y names the concepts {names}, {first} named {known.names}.")
        return replace(targets, names=known.names)
    if known is not None:
        if known.classes is None:
            raise ValueError(f"y has class labels, {first} had {known.n_concepts} concepts.")
        classes = known.classes
    all_classes = np.unique(y if classes is None else np.asarray(classes))
    new = np.setdiff1d(y, all_classes)
    if len(new):
        raise ValueError(
            f"y holds the classes {new.tolist()}, which {first} did not know: "
            f"{all_classes.tolist()}; pass all of them to it as classes."
        )
    if len(all_classes) < 2:
        raise ValueError(f"y has one class only ({all_classes[0]!r}); pass all of them as classes.")
    return _of_classes(y, all_classes)


def _of_classes(y: Array, classes: Array) -> Targets:
    concepts = classes if len(classes) > 2 else classes[1:]
    return Targets(y[:, None] == concepts, [str(c) for c in concepts.tolist()], classes)


def _read_targets(y: Any, n_samples: int, name: str) -> tuple[Array, list[str] | None]:
    """Return class labels, or an indicator matrix of bools with the names of its columns."""
    if y is None:
        raise ValueError(
            f"This {name} estimator requires y to be passed, but the target y is None."
        )
    columns = getattr(y, "columns", None)
    y = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    if len(y.shape) and len(y) != n_samples:
        raise ValueError(
            f"y has {len(y)} samples, X has {n_samples}: inconsistent numbers of samples."
        )
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("Input y contains NaN or infinity.")
    if y.ndim == 2 and y.dtype.kind in "biuf" and np.isin(y, (0, 1)).all():
        names = None if columns is None else [str(c) for c in columns]
        return y.astype(bool), names
    if y.ndim > 2:
        raise ValueError(f"y must be 1-D, or 2-D with a column per concept; got {y.ndim}-D.")
    y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    return y, None


def check_token_labels(
    token_labels: Any, tokens: TokenArray, targets: Targets, *, all_present: bool = True
) -> tuple[TokenArray, Targets]:
    """Check token labels, or derive weak ones from the sample labels.

    Parameters
    ----------
    token_labels : TokenArray, list of arrays, 2-D or 3-D array of bool, or None
        For each sample (n_tokens, n_concepts), True where the token belongs to the concept. None
        counts every token of a positive sample: the weak reading.
    tokens : TokenArray
        The tokens that are labelled.
    targets : Targets
        Sample-level targets. A token may be labelled only where its sample is.
    all_present : bool, default=True
        Whether each concept must have a labelled token.

    Returns
    -------
    labels : TokenArray of bool
        Labels of exactly these tokens.
    targets : Targets
        With names taken from the labels if y had none.

    Raises
    ------
    ValueError
        If labels and tokens differ in samples, lengths or number of concepts, the names disagree,
        a token is labelled in a sample that y calls negative, or a concept has no labelled token.
    TypeError
        If the labels are neither bool nor 0 and 1.
    """
    if token_labels is None:
        weak = np.repeat(targets.present, tokens.lengths, axis=0)
        return tokens.with_values(weak), targets
    labels = _as_labels(token_labels)
    if len(labels) != len(tokens):
        raise ValueError(f"token_labels has {len(labels)} samples, X has {len(tokens)}.")
    wrong = np.flatnonzero(labels.lengths != tokens.lengths)
    if len(wrong):
        i = wrong[0]
        raise ValueError(
            f"token_labels does not match the tokens: sample {i} has {labels.lengths[i]} labelled "
            f"tokens and {tokens.lengths[i]} tokens."
        )
    if labels.n_features != targets.n_concepts:
        raise ValueError(
            f"token_labels has {labels.n_features} concepts, y has {targets.n_concepts}."
        )
    targets = _agree_on_names(labels, targets)
    in_sample = labels.max()
    astray = np.argwhere(in_sample & ~targets.present)
    if len(astray):
        i, c = astray[0]
        raise ValueError(
            f"token_labels marks tokens of concept {targets.label(c)} in sample {i}, but y says "
            "that the sample does not hold it."
        )
    missing = np.flatnonzero(~in_sample.any(axis=0))
    if all_present and len(missing):
        raise ValueError(f"concept {targets.label(missing[0])} has no positive token.")
    return labels, targets


def _as_labels(token_labels: Any) -> TokenArray:
    labels = token_labels
    if not isinstance(labels, TokenArray):
        if getattr(labels, "ndim", None) == 2:
            labels = [row[None, :] for row in as_numpy(labels)]
        if not isinstance(labels, Sequence | np.ndarray) or isinstance(labels, str):
            raise TypeError(
                "token_labels must be a TokenArray or a list with one array per sample, got "
                f"{type(labels).__name__}."
            )
        arrays = [as_numpy(sample) for sample in labels]
        labels = TokenArray.from_list([a[:, None] if a.ndim == 1 else a for a in arrays])
    if labels.dtype.kind != "b":
        if not all(np.isin(block, (0, 1)).all() for _, block in labels.blocks()):
            raise TypeError(f"token_labels must be bool or 0 and 1, got dtype {labels.dtype}.")
        labels = labels.map(lambda block: block.astype(bool), feature_names=labels.feature_names)
    return labels


def _agree_on_names(labels: TokenArray, targets: Targets) -> Targets:
    if labels.feature_names is None or targets.classes is not None:
        return targets
    names = list(labels.feature_names)
    if targets.names is not None and targets.names != names:
        raise ValueError(f"token_labels names the concepts {names}, y names {targets.names}.")
    return Targets(targets.present, names, None)
