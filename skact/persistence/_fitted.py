"""What an estimator of a file must be, so that it answers as it did or is refused.

numpy stretches arrays of one row over many, so thresholds that lost all entries but one still give
numbers, and other ones. Therefore parameters obey the rules of their class, and fitted attributes
have the kinds and shapes of :data:`RULES`, with sizes that agree with one another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import validate_parameter_constraints

from skact.persistence._rules import RULES
from skact.rows import Array
from skact.tokens import Source

__all__ = ["check_estimator"]

_RULE = re.compile(r"(\w+)(<=?\w+)?(\?)?((?: \w+)*)( \(optional\))?")
_DTYPES = {"float": "f", "int": "iu", "bool": "b", "array": "biufUO", "names": "OU"}
_OBJECTS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda it: isinstance(it, bool | np.bool_),
    "int": lambda it: isinstance(it, Integral) and not isinstance(it, bool),
    "count": lambda it: isinstance(it, Integral) and not isinstance(it, bool) and int(it) >= 0,
    "float": lambda it: isinstance(it, Real) and not isinstance(it, bool),
    "str": lambda it: isinstance(it, str),
    "dict": lambda it: isinstance(it, dict),
    "source": lambda it: isinstance(it, Source),
    "estimator": lambda it: isinstance(it, BaseEstimator),
    "transformer": lambda it: isinstance(it, BaseEstimator) and hasattr(it, "transform"),
}
_MOST_JOBS = 1024
_LONGEST = 300  # characters of what scikit-learn says of a parameter


def check_estimator(made: Any) -> None:
    """Refuse an estimator whose parameters or fitted attributes cannot be its own.

    Parameters
    ----------
    made : estimator
        As it was read.

    Raises
    ------
    ValueError
        If a parameter is none that its class takes, a step is no estimator with a name, or a fitted
        attribute is missing, of another kind, or of a shape that disagrees with the others.
    """
    _check_parameters(made)
    name, state = type(made).__name__, vars(made)
    _check_settings(name, state)
    for key in {"steps", "transformer_list"} & state.keys():
        _check_steps(f"{name}.{key}", state[key], last_may_end=key == "steps")
    rules = RULES.get(name, {})
    if not any(key in state for key in rules):
        return  # not fitted
    sizes = {"n_features": state.get("n_features_in_")}
    sizes = {key: int(n) for key, n in sizes.items() if _OBJECTS["count"](n)}
    for key, rule in rules.items():
        said = _RULE.fullmatch(rule)
        assert said is not None
        if key in state:
            _check_attribute(f"{name}.{key}", state[key], said, sizes, state)
        elif not said[5]:
            raise ValueError(f"{name} lacks its fitted attribute {key!r}")
    _check_answers(name, state)


def _check_parameters(made: Any) -> None:
    constraints = getattr(made, "_parameter_constraints", {})
    params = {key: getattr(made, key) for key in constraints if hasattr(made, key)}
    if type(params.get("model")).__name__ in ("DetachedPair", "DetachedModel"):
        del params["model"]  # stands for a loaded one, until that is given
    try:
        validate_parameter_constraints(constraints, params, caller_name=type(made).__name__)
    except ValueError as error:
        said = " ".join(str(error).split())
        raise ValueError(said[:_LONGEST]) from error


def _check_settings(name: str, state: Mapping[str, Any]) -> None:
    """Refuse settings that scikit-learn does not check."""
    n_jobs, weights = state.get("n_jobs"), state.get("transformer_weights")
    may_be = n_jobs is None or (_OBJECTS["int"](n_jobs) and 0 < abs(n_jobs) <= _MOST_JOBS)
    if not may_be:
        raise ValueError(f"{name}.n_jobs is {n_jobs!r:.60}, expected up to {_MOST_JOBS} or None")
    if not isinstance(weights, dict | None):
        raise ValueError(f"{name}.transformer_weights is {weights!r:.60}, expected a dict or None")


def _check_steps(where: str, steps: Any, *, last_may_end: bool) -> None:
    """Refuse steps of a Pipeline or FeatureUnion that are no pairs of a name and an estimator."""
    pairs = steps if isinstance(steps, list) else []
    if not pairs or not all(isinstance(p, tuple) and len(p) == 2 for p in pairs):
        raise ValueError(f"{where} must be pairs of a name and an estimator")
    for i, (name, step) in enumerate(pairs):
        ends = last_may_end and i == len(pairs) - 1
        known = isinstance(step, BaseEstimator) and (ends or hasattr(step, "transform"))
        if not isinstance(name, str) or not (known or step in (None, "passthrough", "drop")):
            raise ValueError(f"{where}[{i}] must be a name and an estimator that transforms")


def _check_attribute(
    where: str, value: Any, rule: re.Match[str], sizes: dict[str, int], state: Mapping[str, Any]
) -> None:
    kind, limit, may_be_none, dimensions, _ = rule.groups()
    if value is None and may_be_none:
        return
    if kind == "by":
        _check_by_concept(where, value, state)
    elif not dimensions:
        if not _OBJECTS[kind](value):
            raise ValueError(f"{where} is {type(value).__name__} {value!r:.60}, expected {kind}")
        _check_below(where, value, limit, sizes)
    else:
        _check_array(where, value, kind, dimensions.split(), sizes)
        _check_below(where, value, limit, sizes)


def _check_array(
    where: str, value: Any, kind: str, expected: list[str], sizes: dict[str, int]
) -> None:
    is_one = isinstance(value, np.ndarray) and value.dtype.kind in _DTYPES[kind]
    if not is_one or (kind == "names" and not all(isinstance(one, str) for one in value.flat)):
        what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"{value!r:.60}"
        raise ValueError(f"{where} is {what}, expected an array of {kind}")
    shape = value.shape
    for size, name in zip(shape, expected, strict=False):
        if not name.isdigit() and name != "any":
            sizes.setdefault(name, size)
    known = [int(n) if n.isdigit() else sizes.get(n) for n in expected]
    if len(shape) != len(known) or any(
        n not in (None, size) for n, size in zip(known, shape, strict=True)
    ):
        names = ", ".join(expected)
        raise ValueError(
            f"{where} has shape {shape}, which disagrees with the rest: expected ({names}) with "
            f"{', '.join(f'{n} = {sizes[n]}' for n in expected if n in sizes) or 'as many axes'}"
        )


def _check_below(where: str, value: Any, limit: str | None, sizes: dict[str, int]) -> None:
    name = (limit or "").lstrip("<=")
    if limit is not None and name in sizes:
        numbers: Array = np.asarray(value)
        odd = numbers[(numbers < 0) | (numbers >= sizes[name] + ("=" in limit))]
        if odd.size:
            raise ValueError(f"{where} has {odd.flat[0]}, and {name} is {sizes[name]}")


def _check_by_concept(where: str, value: Any, state: Mapping[str, Any]) -> None:
    names = [str(name) for name in np.ravel(state.get("concept_names_", ()))]
    if not isinstance(value, dict) or list(map(str, value)) != names:
        raise ValueError(f"{where} must have an entry for each of the {len(names)} concepts")


def _check_answers(name: str, state: Mapping[str, Any]) -> None:
    """Refuse as many classes as the concepts cannot have, and one cut where there are two."""
    if not state.get("multilabel_", True):
        n_concepts, n_classes = len(state["concept_names_"]), len(state["classes_"])
        if n_classes != max(n_concepts, 2):
            raise ValueError(f"{name} has {n_classes} classes_ of {n_concepts} concepts")
    names = state.get("concept_names_", ())
    two = isinstance(state.get("cut"), tuple)
    if "thresholds_" in state and "cut" in state and two != ("unsure_thresholds_" in state):
        cut = state.get("cut")
        raise ValueError(f"{name} has cut={cut!r:.60} and other thresholds than that")
    if "best_estimators_" in state:
        winners = _pairs(name, state.get("_winners"))
        found = sorted(c for _, alike in winners for one in alike for c in one)
        if found != list(range(len(names))):
            raise ValueError(f"{name}._winners must hold a detector of each concept")


def _pairs(name: str, winners: Any) -> list[Any]:
    pairs: list[Any] = winners if isinstance(winners, list) else [None]
    for one in pairs:
        is_pair = isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], list)
        if not is_pair or not all(isinstance(found, dict) and found for found in one[1]):
            raise ValueError(f"{name}._winners must be pairs of a head and detectors")
    return pairs
