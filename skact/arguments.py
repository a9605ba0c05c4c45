"""Arguments of public functions, checked as scikit-learn checks the parameters of estimators.

A function says beside its signature what each argument may be, in the words of
``_parameter_constraints``, and :func:`checked` refuses anything else before the function begins, in
one sentence that names the argument, what it must be, and what it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import wraps
from inspect import signature
from numbers import Integral
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    validate_parameter_constraints,
)

__all__ = [
    "N_JOBS",
    "PATH",
    "SEQUENCE",
    "Number",
    "Such",
    "check_characters",
    "check_concepts",
    "check_entries",
    "check_groups",
    "check_sample_weight",
    "checked",
    "float_array",
    "instance",
    "is_name",
]

P = ParamSpec("P")
R = TypeVar("R")

_SURROGATE = re.compile("[\ud800-\udfff]")


def checked(**constraints: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check the arguments of a function or method; those of a constructor name the class made.

    Parameters
    ----------
    **constraints : list, or "no_validation"
        What each argument may be, as in ``_parameter_constraints`` of an estimator.

    Returns
    -------
    decorator : callable
        The function raises scikit-learn's ``InvalidParameterError``, which is a ValueError and a
        TypeError, before it begins.

    Examples
    --------
    >>> from numbers import Integral
    >>> from skact.arguments import Number, checked
    >>> @checked(n_steps=[Number(Integral, 1, None, closed="left"), None])
    ... def walk(n_steps=None): ...
    >>> walk(0)
    Traceback (most recent call last):
        ...
    sklearn.utils._param_validation.InvalidParameterError: The 'n_steps' parameter of walk must be
    an int in the range [1, inf) or None. Got 0 instead.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        arguments = signature(function)
        builds = function.__name__ == "__init__"

        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = arguments.bind(*args, **kwargs).arguments
            except TypeError:  # said better by the call itself
                return function(*args, **kwargs)
            name = type(args[0]).__name__ if builds else function.__qualname__
            validate_parameter_constraints(constraints, given, caller_name=name)
            return function(*args, **kwargs)

        # Under scikit-learn's name, so that what reads its functions reads these.
        wrapper._skl_parameter_constraints = constraints  # type: ignore[attr-defined]
        return wrapper

    return decorate


class Number(Interval):
    """An interval of numbers, to which True and False do not belong."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Tell whether a value is one of the numbers."""
        return not isinstance(val, bool | np.bool_) and bool(super().is_satisfied_by(val))


class Such(HasMethods):
    """What a function accepts, called by words of ours.

    Parameters
    ----------
    words : str
        What comes after "must be".
    accepts : callable
        Takes a value, tells whether it is such a one.
    """

    def __init__(self, words: str, accepts: Callable[[Any], Any]) -> None:
        self.words, self.accepts, self.hidden = words, accepts, False

    def is_satisfied_by(self, val: Any) -> bool:
        """Tell whether a value is such a one."""
        return bool(self.accepts(val))

    def __str__(self) -> str:
        return self.words


def instance(words: str, *classes: type) -> Such:
    """Accept instances of classes, which are called by public names instead of private modules.

    An empty text, which names nothing, is none of them.

    Parameters
    ----------
    words : str
        What comes after "must be"; with the parentheses of a call, so that it is seen that no class
        is meant.
    *classes : type
        The classes.

    Returns
    -------
    constraint : Such
        The constraint.
    """
    return Such(words, lambda value: isinstance(value, classes) and not _is_empty_text(value))


def _is_empty_text(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _is_path(value: Any) -> bool:
    """Tell whether a value can name a file: systems take no NUL and no half of a character."""
    if not isinstance(value, str | os.PathLike) or _is_empty_text(value):
        return False
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


#: A list of things that are no numbers.
SEQUENCE = Such(
    "a list", lambda value: isinstance(value, Sequence) and not isinstance(value, str | bytes)
)
#: A path of a file or folder.
PATH = Such("a path", lambda value: _is_path(value))
_ANY_INT = Number(Integral, None, None, closed="neither")
#: Workers of joblib, -1 for one per core.
N_JOBS = Such("an int other than 0", lambda value: _ANY_INT.is_satisfied_by(value) and value != 0)


def float_array(values: Any, name: str) -> npt.NDArray[np.float64]:
    """Turn an argument into float64, or say which one holds something else.

    Parameters
    ----------
    values : array-like
        The argument.
    name : str
        Its name.

    Returns
    -------
    array : ndarray, dtype float64
        Of any shape.

    Raises
    ------
    ValueError
        If it is no array of numbers.
    """
    try:
        array = np.asarray(values)
        if not np.iscomplexobj(array):  # whose imaginary part would be dropped
            return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from error
    raise ValueError(f"{name} must be an array of numbers: these are complex")


def check_entries(name: str, values: Any, n_samples: int, sample: str = "sample") -> Any:
    """Refuse what does not hold an entry for each sample.

    Parameters
    ----------
    name : str
        What the argument is called.
    values : object
        The argument.
    n_samples : int
        Number of samples.
    sample : str, default="sample"
        What a sample is called.

    Returns
    -------
    entries : object
        The argument, of which ``entries[i]`` is entry number i; a column of pandas would look i up
        in its index.

    Raises
    ------
    TypeError
        If it has no length.
    ValueError
        If it has another.
    """
    try:
        n_entries = len(values)
    except TypeError:
        raise TypeError(f"{name} must have one entry per {sample}, got {values!r}.") from None
    if n_entries != n_samples:
        raise ValueError(
            f"{name} must have one entry per {sample}: got {n_entries} for {n_samples}."
        )
    return getattr(values, "iloc", values)


def check_groups(groups: Any, n_samples: int) -> None:
    """Refuse groups that are no vector with an entry for each sample.

    Parameters
    ----------
    groups : object
        The argument.
    n_samples : int
        Number of samples.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_entries`; or if it is no vector.
    """
    check_entries("groups", groups, n_samples)
    if np.ndim(groups) != 1:
        raise ValueError(f"groups must be 1-D, got shape {np.shape(groups)}.")


def check_sample_weight(sample_weight: Any, n_samples: int) -> npt.NDArray[np.float64]:
    """Check how much each sample counts.

    Parameters
    ----------
    sample_weight : object
        The argument.
    n_samples : int
        Number of samples.

    Returns
    -------
    weight : ndarray of shape (n_samples,), dtype float64
        Finite and not negative, one at least above 0.

    Raises
    ------
    ValueError
        If it is nothing of the kind; names the first sample.
    """
    weight = float_array(sample_weight, "sample_weight")
    if weight.ndim != 1:
        raise ValueError(f"sample_weight must be 1-D, got shape {weight.shape}.")
    check_entries("sample_weight", weight, n_samples)
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if len(bad):
        raise ValueError(
            f"sample_weight must be finite and not negative; that of sample {bad[0]} is "
            f"{weight[bad[0]]}."
        )
    if not weight.any():
        raise ValueError("sample_weight must not be zero for every sample.")
    return weight


def check_characters(text: Any, where: str) -> None:
    """Refuse half of a surrogate pair, which is no character: no file and no tokenizer takes it.

    Parameters
    ----------
    text : object
        A text; anything else is passed over.
    where : str
        What it is called, for errors.

    Raises
    ------
    ValueError
        If there is one; says at which character.
    """
    if half := isinstance(text, str) and _SURROGATE.search(text):
        raise ValueError(
            f"{where} holds {half.group()!r} at character {half.start()}, half of a surrogate pair "
            "and no character; decode its bytes anew, or replace it: "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
        )


def is_name(value: Any) -> bool:
    """Tell whether a value can name a concept: a text that is not empty, or a number, say."""
    if value is None or not isinstance(value, Hashable) or _is_empty_text(value):
        return False
    return bool(value == value)  # NaN is not


def check_concepts(concepts: Iterable[Any], what: str = "concepts") -> list[Any]:
    """Check names of concepts: one column each.

    Parameters
    ----------
    concepts : iterable
        The names.
    what : str, default="concepts"
        What the argument is called.

    Returns
    -------
    names : list
        The same.

    Raises
    ------
    ValueError
        If they are one string, whose letters would be taken for names, or no iterable; if there is
        none, one is an empty text, None, NaN or an array, holds half of a surrogate pair, or comes
        twice.
    """
    if isinstance(concepts, str | bytes) or not isinstance(concepts, Iterable):
        raise ValueError(f"{what} must be a list of names, got {concepts!r}.")
    names = list(concepts)
    if not names:
        raise ValueError(f"{what} must hold at least one name.")
    for c, name in enumerate(names):
        if not is_name(name):
            raise ValueError(f"{what}[{c}] must be a name, got {name!r}.")
        check_characters(name, f"{what}[{c}]")
        if name in names[:c]:
            raise ValueError(f"{what} must differ from each other, but {name!r} comes twice.")
    return names
