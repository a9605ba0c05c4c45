"""Which samples, and which tokens, hold which concept: checked once for all estimators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from skact.arguments import check_characters
from skact.rows import Array, as_numpy
from skact.tokens import SampleView, TokenArray
from skact.warning import at_users_line

__all__ = [
    "Targets",
    "as_token_labels",
    "check_label_lengths",
    "check_more_targets",
    "check_targets",
    "check_token_labels",
    "column_names",
    "in_order_of_fit",
    "label_array",
    "label_classes",
    "missing_labels",
    "rarest_concepts",
    "refuse_empty_names",
]


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


def check_targets(estimator: Any, y: Any, n_samples: int) -> Targets:
    """Check sample-level targets.

    Parameters
    ----------
    estimator : estimator
        The caller, for messages.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts)
        Class labels, of which the larger one of two is the concept and of more each one, or an
        indicator matrix with a column per concept. Column names of a data frame become names of
        concepts.
    n_samples : int
        Samples in X.

    Returns
    -------
    targets : Targets
        The indicator matrix and the names.

    Raises
    ------
    ValueError
        If y is missing, has another length than X, is no classification target, or has a single
        class, a concept without a positive sample, or an empty name of a concept.

    Examples
    --------
    >>> from skact import SuperActivator
    >>> from skact.targets import check_targets
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
        lack = "classes lacks" if known is None else f"{first} did not know"
        raise ValueError(
            f"y holds the classes {new.tolist()}, which {lack}: {all_classes.tolist()}; pass all "
            f"of them to {first} as classes."
        )
    if len(all_classes) < 2:
        raise ValueError(f"y has one class only ({all_classes[0]!r}); pass all of them as classes.")
    return _of_classes(y, all_classes)


def _of_classes(y: Array, classes: Array) -> Targets:
    concepts = classes if len(classes) > 2 else classes[1:]
    names = [str(c) for c in concepts.tolist()]
    refuse_empty_names(names, "class")
    return Targets(y[:, None] == concepts, names, classes)


def _read_targets(y: Any, n_samples: int, name: str) -> tuple[Array, list[str] | None]:
    """Return class labels, or an indicator matrix of bools with the names of its columns."""
    if y is None:
        raise ValueError(
            f"This {name} estimator requires y to be passed, but the target y is None."
        )
    if isinstance(y, SampleView):
        raise TypeError(
            f"y must hold a label per sample, got a {type(y).__name__}; labels of tokens are "
            "token_labels, and their y is token_labels.max()."
        )
    names = column_names(y)
    _check_unique("y", names)
    y = _one_type(label_array(y), names)
    if len(y.shape) and len(y) != n_samples:
        raise ValueError(
            f"y has {len(y)} samples, X has {n_samples}: inconsistent numbers of samples."
        )
    if y.ndim == 2:
        if not y.shape[1]:
            raise ValueError(f"y has no columns, shape {y.shape}; it needs one for each concept.")
        bad = np.argwhere(~np.isin(y, (0, 1)) if y.dtype.kind in "biuf" else np.ones(y.shape))
        if not len(bad):
            refuse_empty_names(names or [], "column")
            return y.astype(bool), names
        if y.shape[1] != 1:
            raise ValueError(
                "y should be a 1d array of classes, or a matrix of 0 and 1 with a column per "
                f"concept; {_place(bad[0], names)} is {_shown(y, bad[0])}. (MultiLabelBinarizer of "
                "scikit-learn makes such a matrix of lists of labels.)"
            )
    with at_users_line():
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
    return y, None


def column_names(y: Any) -> list[str] | None:
    """Names of the columns of a data frame; None for what has none."""
    columns = getattr(y, "columns", None)
    return None if columns is None or callable(columns) else [str(c) for c in columns]


def in_order_of_fit(y: Any, names: Any, *, others_may_do: bool = False) -> Any:
    """Order the columns of a table as fit had them, by their names.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_columns)
        Labels; without names of columns they stay as they are.
    names : sequence of str, or None
        Names that the columns had in fit. None, or ``concept0``, ``concept1``, ..., had none, so
        that columns go by position.
    others_may_do : bool, default=False
        Whether columns of other names go by position too.

    Returns
    -------
    y : array-like
        The same, or an ndarray of its columns in the order of names.

    Raises
    ------
    ValueError
        If the columns have other names.
    """
    said = column_names(y)
    known = None if names is None else [str(name) for name in names]
    if said is None or known is None or said == known:
        return y
    if sorted(said) == sorted(known):
        return label_array(y)[:, [said.index(name) for name in known]]
    if others_may_do or known == [f"concept{c}" for c in range(len(known))]:
        return y
    raise ValueError(
        f"y names its columns {said[:10]}, in fit they were {known[:10]}; give a table of the same "
        "names, or an array in the order of fit."
    )


def refuse_empty_names(names: Sequence[str], what: str) -> None:
    """Refuse names of concepts that are empty texts.

    Parameters
    ----------
    names : sequence of str
        Names that y gives.
    what : {"column", "class"}
        What of y they name.

    Raises
    ------
    ValueError
        If one is empty or blank, or holds half of a surrogate pair, which no file can hold.
    """
    for number, name in enumerate(names):
        if not name.strip():
            raise ValueError(
                f"{what} {number} of y must have a name, which becomes that of a concept; it is "
                f"called {name!r}."
            )
        check_characters(name, f"{what} {number} of y")


def _check_unique(what: str, names: list[str] | None) -> None:
    for name in names or []:
        if names and names.count(name) > 1:
            raise ValueError(f"{what} names two concepts {name!r}; names tell concepts apart.")


_NO_LISTS = (
    "y holds lists of labels; make an indicator matrix of them, with a column per concept, for "
    "instance by scikit-learn's MultiLabelBinarizer. (Columns of labels go into a data frame.)"
)


def label_array(y: Any) -> Array:
    """Read labels of any form.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_columns)
        Labels.

    Returns
    -------
    y : ndarray
        Of objects where numpy would make strings of numbers.

    Raises
    ------
    ValueError
        If y holds lists of labels, or is no array.
    """
    if isinstance(y, str | bytes | Mapping | Set | Iterator):
        raise ValueError(
            "y must be an array, list, Series or table with an entry per sample, got a "
            f"{type(y).__name__}."
        )
    if hasattr(y, "toarray"):
        y = y.toarray()
    try:
        array = as_numpy(y)
    except ValueError as error:
        raise ValueError(_NO_LISTS) from error
    if isinstance(y, np.ma.MaskedArray):
        array = array.astype(object)
        array[np.ma.getmaskarray(y)] = None
    elif array.dtype.kind == "U" and isinstance(y, list | tuple):
        objects = np.asarray(y, object)
        array = array if all(isinstance(one, str) for one in objects.flat) else objects
    if _holds_lists(y, array):
        raise ValueError(_NO_LISTS)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"y should be a 1d array, or 2-D with a column per concept; got {array.ndim}-D."
        )
    return array.astype(object) if array.dtype.kind == "T" else array


def _holds_lists(y: Any, array: Array) -> bool:
    """Tell lists of labels, which may all be equally long, from the rows of a table."""
    if array.ndim == 2 and array.shape[1] > 1 and isinstance(y, list | tuple):
        return any(isinstance(value, str) for row in y for value in row)
    kinds = (list, tuple, set, frozenset, np.ndarray)
    return array.dtype == object and any(isinstance(value, kinds) for value in array.flat)


def _one_type(y: Array, names: list[str] | None) -> Array:
    """Refuse missing values and mixed types; of objects, make numbers where they are some."""
    missing = np.argwhere(missing_labels(y))
    if len(missing):
        raise ValueError(
            f"Input y contains NaN, infinity or no value at {_place(missing[0], names)} "
            f"({_shown(y, missing[0])}), {len(missing)} of {y.size} in all; leave these samples "
            "out of X and y."
        )
    if y.dtype != object or not y.size:
        return y
    kinds: dict[str, Any] = {}
    for at, value in np.ndenumerate(y):
        number = isinstance(value, Number | np.bool_)
        kind = "number" if number else "str" if isinstance(value, str) else type(value).__name__
        kinds.setdefault(kind, at)
    if len(kinds) > 1:
        seen = " and ".join(f"{_shown(y, at)} at {_place(at, names)}" for at in kinds.values())
        raise ValueError(f"y mixes types, as {seen}; use one type for all labels.")
    return np.array(y.tolist()) if "number" in kinds else y


def rarest_concepts(present: Array) -> Array:
    """Tell by which concept a sample is dealt into folds, so that each gets its part of the rare.

    Parameters
    ----------
    present : ndarray of shape (n_samples, n_concepts), dtype bool
        Which sample holds which concept.

    Returns
    -------
    rarest : ndarray of shape (n_samples,), dtype int64
        The rarest of the concepts of each sample, the first of equals; ``n_concepts`` where there
        is none.
    """
    counts = present.sum(axis=0)
    rarest = np.where(present, counts, counts.sum() + 1).argmin(axis=1)
    rarest[~present.any(axis=1)] = len(counts)
    return rarest


def missing_labels(y: Array) -> Array:
    """Find labels that are NaN, infinite, or the missing value of a library.

    Parameters
    ----------
    y : ndarray
        As from :func:`label_array`.

    Returns
    -------
    missing : ndarray of the same shape, dtype bool
        True where there is no label.
    """
    if y.dtype.kind == "f":
        return ~np.isfinite(y)
    if y.dtype != object:
        return np.zeros(y.shape, bool)
    return np.array([_is_missing(value) for value in y.ravel()], bool).reshape(y.shape)


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value) or value in (np.inf, -np.inf)
    except (TypeError, ValueError):  # the missing value of pandas has no truth value
        return True


def _place(at: Any, names: list[str] | None) -> str:
    """Name an entry of y."""
    sample, *columns = map(int, at)
    return f"sample {sample}" + "".join(f", column {names[c] if names else c!r}" for c in columns)


def _shown(y: Array, at: Any) -> str:
    return repr(y[tuple(at)].item() if isinstance(y[tuple(at)], np.generic) else y[tuple(at)])


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
    labels = as_token_labels(token_labels)
    check_label_lengths(labels, tokens.lengths)
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
        raise ValueError(
            f"concept {targets.label(missing[0])} has no positive token in token_labels; label "
            "some of its tokens, or leave the concept out of y and token_labels."
        )
    return labels, targets


def check_label_lengths(labels: TokenArray, lengths: Array, X: str = "X") -> None:
    """Refuse labels of other samples, or of another number of tokens.

    Parameters
    ----------
    labels : TokenArray
        Labels of tokens.
    lengths : ndarray of shape (n_samples,)
        Tokens of each sample.
    X : str, default="X"
        What the samples are called.

    Raises
    ------
    ValueError
        If they do not match; names the first sample.
    """
    if len(labels) != len(lengths):
        raise ValueError(f"token_labels has {len(labels)} samples, {X} has {len(lengths)}.")
    wrong = np.flatnonzero(labels.lengths != lengths)
    if len(wrong):
        i = wrong[0]
        raise ValueError(
            f"token_labels does not match the tokens: sample {i} has {labels.lengths[i]} labelled "
            f"tokens and {lengths[i]} tokens."
        )


def as_token_labels(token_labels: Any) -> TokenArray:
    """Read labels of tokens of any form.

    Parameters
    ----------
    token_labels : TokenArray, list of arrays, 2-D or 3-D array of bool or 0 and 1
        For each sample (n_tokens, n_concepts).

    Returns
    -------
    labels : TokenArray of bool
        The same.

    Raises
    ------
    ValueError, TypeError
        If they are of no such form, or neither bool nor 0 and 1.
    """
    labels = token_labels
    if not isinstance(labels, TokenArray):
        if getattr(labels, "ndim", None) == 2:
            labels = [row[None, :] for row in as_numpy(labels)]
        if not isinstance(labels, Sequence | np.ndarray) or isinstance(labels, str):
            raise TypeError(
                "token_labels must be a TokenArray or a list with one array per sample, got "
                f"{type(labels).__name__}."
            )
        if not len(labels):
            raise ValueError("token_labels has no samples.")
        arrays = [as_numpy(sample) for sample in labels]
        for i, array in enumerate(arrays):
            if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
                raise TypeError(
                    "token_labels must hold for each sample an array (n_tokens, n_concepts) of "
                    f"bool or 0 and 1; sample {i} has shape {array.shape} and dtype {array.dtype}."
                )
        try:
            labels = TokenArray.from_list([a[:, None] if a.ndim == 1 else a for a in arrays])
        except ValueError as error:
            raise ValueError(f"token_labels: {error}") from error
    if labels.dtype.kind != "b":
        if not all(np.isin(block, (0, 1)).all() for _, block in labels.blocks()):
            raise TypeError(f"token_labels must be bool or 0 and 1, got dtype {labels.dtype}.")
        as_bool = partial(np.asarray, dtype=bool)
        labels = labels.map(as_bool, feature_names=labels.feature_names)
    return labels


def _agree_on_names(labels: TokenArray, targets: Targets) -> Targets:
    if labels.feature_names is None or targets.classes is not None:
        return targets
    names = list(labels.feature_names)
    _check_unique("token_labels", names)
    if targets.names is not None and targets.names != names:
        raise ValueError(f"token_labels names the concepts {names}, y names {targets.names}.")
    return Targets(targets.present, names, None)


def label_classes(targets: Targets) -> Array:
    """Class labels in the form that scikit-learn's scorers expect of a multilabel classifier."""
    if targets.classes is not None:
        return targets.classes
    # One column is a binary problem to the scorers, which take the last class as the positive one.
    return np.arange(max(targets.n_concepts, 2))
