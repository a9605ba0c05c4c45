"""The base class of every step that maps tokens to tokens."""

from __future__ import annotations

import copy
import re
import reprlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skact.rows import Array
from skact.tokens import TokenArray
from skact.validation import check_tokens, like_input

__all__ = [
    "MergeMixin",
    "NestedParamsMixin",
    "SharedModelMixin",
    "TokenTransformer",
    "TokensOutMixin",
    "concept_names",
    "steps_of",
    "unwrapped",
]


class NestedParamsMixin:
    """An estimator that says so where a parameter has no parameters of its own."""

    def set_params(self, **params: Any) -> Self:
        """Set parameters, and those of parameters by ``solver__tol``.

        Parameters
        ----------
        **params : dict
            Values by name.

        Returns
        -------
        self : estimator
            The same instance.

        Raises
        ------
        ValueError
            If a parameter does not exist, or a name goes into one that is no object with
            parameters, such as the string "lbfgs".
        """
        now = self.get_params(deep=False) | params  # type: ignore[attr-defined]
        for key in params:
            name, goes_inside, _ = key.partition("__")
            if goes_inside and name in now and not hasattr(now[name], "set_params"):
                raise ValueError(
                    f"{key} cannot be set: {name} of {type(self).__name__} is {now[name]!r}, which "
                    f"has no parameters; set {name} to an object that has some, before or in the "
                    "same call."
                )
        super().set_params(**params)  # type: ignore[misc]
        return self


class MergeMixin:
    """An estimator of which fits on parts, on other machines say, join to the fit on all.

    A subclass writes the hook ``_join(other)``, which adds what the other has learned.
    """

    def _merges(self) -> bool:
        """Tell whether the parameters allow to merge; if not, there is no ``merge``."""
        return True

    @available_if(lambda self: self._merges())  # type: ignore[untyped-decorator]
    def merge(self, *others: Self) -> Self:
        """Take in what others have learned from other tokens, as if all had been in one fit.

        Parameters
        ----------
        *others : estimators
            Fitted, with the same parameters, on tokens of the same model, layer and scaling; of a
            concept method, for the same concepts (``partial_fit`` takes parts in which some have
            no sample). They stay as they are.

        Returns
        -------
        self : estimator
            Equal to a fit on all tokens, up to rounding, in whatever order.

        Raises
        ------
        NotFittedError
            If this one or one of the others is not fitted.
        TypeError
            If one of the others is of another class.
        ValueError
            If one of them has other parameters, features, concepts, or tokens of another source;
            nothing is taken in then.
        """
        check_is_fitted(self)
        for number, other in enumerate(others):
            if type(other) is not type(self):
                raise TypeError(
                    f"others[{number}] must be a fitted {type(self).__name__}, got "
                    f"{reprlib.repr(other)}."
                )
            check_is_fitted(other)
            for what, mine, its in _compared(self, other):
                if mine != its:
                    raise ValueError(
                        f"others[{number}] was fitted with another {what}: {mine} here, {its} "
                        "there; only fits that differ in their tokens alone can be merged."
                    )
        for other in others:
            self._join(other)
        return self

    @abstractmethod
    def _join(self, other: Self) -> None:
        """Add what another one has learned."""


def _compared(one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield what two fits must have in common: its name, and its value in either."""
    for name, value in one.get_params().items():
        yield name, value, other.get_params()[name]
    yield "number of features", one.n_features_in_, other.n_features_in_
    for name in ("feature_names_in_", "concept_names_"):
        yield name, *(np.asarray(getattr(e, name, ())).tolist() for e in (one, other))
    sources = one.source_, other.source_
    if None not in sources and (field := one.source_.conflict(other.source_)):
        yield field, *sources


class TokensOutMixin(TransformerMixin):
    """A transformer whose output is ragged, which no data frame can hold."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(auto_wrap_output_keys=None, **kwargs)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Do nothing: tokens are never wrapped in a data frame.

        Parameters
        ----------
        transform : str, default=None
            Accepted so that ``Pipeline.set_output`` works.

        Returns
        -------
        self : estimator
            The same instance.
        """
        return self


class SharedModelMixin(NestedParamsMixin):
    """An estimator whose ``model`` may be a loaded model, which clones and copies share."""

    model: Any
    trust_remote_code: bool
    revision: str | None

    def _check_remote_code(self) -> None:
        if self.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError(
                "trust_remote_code=True needs a full commit hash (40 hexadecimal digits) as "
                f"revision, so that the code cannot change; got revision={self.revision!r}."
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self.model)] = self.model
        memo[id(self)] = twin = type(self).__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def __dir__(self) -> list[str]:
        # Whoever displays an estimator asks for the value of all that is listed; a property of
        # these would load the model.
        kind = type(self)
        return [n for n in object.__dir__(self) if not isinstance(getattr(kind, n, None), property)]

    def _html_repr(self) -> str:
        # That of scikit-learn asks for the names of the features, which would load the model.
        return f"<pre>{escape(repr(self))}</pre>"

    def __sklearn_clone__(self) -> Self:
        params = self.get_params(deep=False)  # type: ignore[attr-defined]
        model = params.pop("model")
        model = clone(model) if hasattr(model, "get_params") else model
        twin = type(self)(model, **{k: clone(v, safe=False) for k, v in params.items()})  # type: ignore[call-arg]
        if hasattr(self, "_metadata_request"):
            vars(twin)["_metadata_request"] = clone(self._metadata_request, safe=False)
        return twin


class TokenTransformer(NestedParamsMixin, TokensOutMixin, BaseEstimator):
    """A transformer whose ``transform`` gives tokens for tokens, and a matrix for a matrix.

    A subclass writes ``fit`` and the hook ``_transform``.
    """

    def transform(self, X: Any) -> TokenArray | Array:
        """Map tokens.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Tokens with ``n_features_in_`` features; a row of a 2-D array is a one-token sample.

        Returns
        -------
        tokens : TokenArray of shape (n_samples, n_features_out), or ndarray for a 2-D array
            The mapped tokens.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X does not fit what the estimator was fitted on.
        """
        check_is_fitted(self)
        tokens = check_tokens(self, X, reset=False)
        return like_input(X, self._transform(tokens))

    @abstractmethod
    def _transform(self, tokens: TokenArray) -> TokenArray:
        """Map checked tokens."""

    def token_function(self) -> Callable[[Array], Array]:
        """Give what ``transform`` does to single tokens as a function of arrays, without checks.

        Returns
        -------
        function : callable
            Takes floats (n_tokens, n_features), returns (n_tokens, n_features_out). What can be
            prepared is prepared, for float32; it goes on as fitted when the estimator is fitted
            again.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        return self._function()

    def _function(self) -> Callable[[Array], Array]:
        # What a subclass has not said is read from what it does to tokens.
        frozen = copy.copy(self)
        return lambda values: frozen._transform(
            TokenArray(values, np.arange(len(values) + 1))
        ).flat()


#: Where a wrapper holds the estimator that works for it.
HOLDERS = ("best_estimator_", "estimator_")


def unwrapped(estimator: Any, holders: tuple[str, ...] = HOLDERS) -> Any:
    """Return what does the work inside of wrappers.

    Parameters
    ----------
    estimator : estimator
        Perhaps in a ``FrozenEstimator``, or in one that holds it as one of ``holders``.
    holders : tuple of str, default=HOLDERS
        Names of attributes.

    Returns
    -------
    inner : estimator
        No wrapper.
    """
    while True:
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif held := [name for name in holders if hasattr(estimator, name)]:
            estimator = getattr(estimator, held[0])
        else:
            return estimator


def steps_of(estimator: Any, holders: tuple[str, ...] = HOLDERS) -> list[Any]:
    """List what does the work, in order: steps of pipelines in pipelines, without wrappers.

    Parameters
    ----------
    estimator, holders : as in :func:`unwrapped`
        What is taken apart.

    Returns
    -------
    steps : list
        Those that are None or "passthrough" are left out.
    """
    inner = unwrapped(estimator, holders)
    if isinstance(inner, Pipeline):
        return [step for _, one in inner.steps for step in steps_of(one, holders)]
    return [] if inner is None or (isinstance(inner, str) and inner == "passthrough") else [inner]


def concept_names(names: list[str] | None, n_concepts: int) -> Array:
    """Return names as an object array, ``concept0``, ``concept1``, ... where there are none."""
    names = [f"concept{c}" for c in range(n_concepts)] if names is None else names
    return np.array(names, dtype=object)
