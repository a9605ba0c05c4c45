"""The base class of every step that maps tokens to tokens."""

from __future__ import annotations

import copy
import re
import reprlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from html import escape
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skact.rows import Array
from skact.targets import in_order_of_fit
from skact.tokens import SampleView, TokenArray, with_row_labels
from skact.validation import check_tokens, like_input

__all__ = [
    "SEARCHES",
    "AnswersMixin",
    "ConceptNamesOutMixin",
    "MergeMixin",
    "NestedParamsMixin",
    "SharedModelMixin",
    "TokenTransformer",
    "TokensOutMixin",
    "concept_names",
    "has_many_classes",
    "one_of_many",
    "steps_of",
    "summing_to_one",
    "unwrapped",
    "winners_of",
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
    """A transformer of which ``set_output`` governs matrices; tokens stay tokens.

    Tokens carry the index of a pandas input along, so that a matrix made of them gets it back.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # scikit-learn would put whatever comes out into a data frame, which can hold no tokens.
        super().__init_subclass__(auto_wrap_output_keys=None, **kwargs)
        for name in ("transform", "fit_transform"):
            if name in vars(cls):
                setattr(cls, name, _framing_matrices(vars(cls)[name]))

    def set_output(self, *, transform: str | None = None) -> Self:
        """Say in what a matrix comes out; tokens come out as tokens.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            The container of a matrix; None changes nothing.

        Returns
        -------
        self : estimator
            The same instance.
        """
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self


def _framing_matrices(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``transform`` or ``fit_transform`` follow ``set_output`` where it gives a matrix."""

    @wraps(method)
    def framed(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        out = method(self, X, *args, **kwargs)
        labels = X.row_labels if isinstance(X, SampleView) else None
        if isinstance(out, SampleView):
            labels = X.index if hasattr(X, "iloc") else labels
            return out if labels is None else with_row_labels(out, labels)
        container = _get_output_config("transform", self)["dense"]
        if container == "default":
            return out
        # scikit-learn reads the index of a Series or frame alone, and joins frames by it.
        origin = X if labels is None else labels.to_series()
        adapter = ADAPTERS_MANAGER.adapters[container]
        return adapter.create_container(out, origin, columns=self.get_feature_names_out)

    return framed


def has_many_classes(estimator: Any) -> bool:
    """Tell whether a fitted estimator gives each sample one of more than two classes."""
    return not estimator.multilabel_ and len(estimator.classes_) > 2


def one_of_many(odds: Array) -> Array:
    """Say which class each sample has: of log-odds (n_samples, n_classes) the largest, as bool."""
    return np.arange(odds.shape[1]) == odds.argmax(axis=1)[:, None]


def summing_to_one(chances: Array) -> Array:
    """Give probabilities (n_samples, n_classes) of which one holds, each calibrated by itself."""
    whole: Array = chances / chances.sum(axis=1, keepdims=True)
    return whole


class AnswersMixin(ClassifierMixin):
    """Answers in the form of y: classes of a vector, or 0 and 1 per concept of a matrix."""

    classes_: Array
    concept_names_: Array
    multilabel_: bool
    #: Whether concepts may be called otherwise than the columns of y.
    _has_own_names = False

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Tell how many samples are answered right, of a matrix in all concepts.

        Parameters
        ----------
        X : as in ``predict``
            Samples.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Labels as in ``fit``. Columns of a data frame are found by the names they had there.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights.

        Returns
        -------
        accuracy : float
            In [0, 1].

        Raises
        ------
        ValueError
            If the columns of y have other names than in ``fit``.
        """
        check_is_fitted(self)
        if self.multilabel_:
            y = in_order_of_fit(y, self.concept_names_, others_may_do=self._has_own_names)
        return float(super().score(X, y, sample_weight))

    @property
    def _has_many_classes(self) -> bool:
        return has_many_classes(self)

    def _like_y(self, said: Array) -> Array:
        """Make a vector of what is said of the only concept of two classes."""
        return said if self.multilabel_ or self._has_many_classes else said[:, 0]

    def _chances(self, chances: Array) -> Array:
        """Give probabilities of concepts (n_samples, n_concepts) as those of all classes."""
        if self.multilabel_:
            return chances
        if self._has_many_classes:
            return summing_to_one(chances)
        return np.column_stack([1 - chances, chances])

    def _answers(self, decision: Array) -> Array:
        """Read a decision: of several classes the largest, else what is above 0."""
        if self._has_many_classes:
            return self.classes_[decision.argmax(axis=1)]
        present = (decision > 0).astype(np.int64)
        return present if self.multilabel_ else self.classes_[present]


class ConceptNamesOutMixin:
    """Columns that come out are called as the concepts are."""

    concept_names_: Array

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return the names of the columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of shape (n_concepts,), dtype object
            ``concept_names_``.
        """
        check_is_fitted(self)
        return self.concept_names_


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
            again, and can be pickled.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        return self._function()

    def _function(self) -> Callable[[Array], Array]:
        # What a subclass has not said is read from what it does to tokens.
        return partial(_transformed, copy.copy(self))


def _transformed(step: TokenTransformer, values: Array) -> Array:
    return step._transform(TokenArray(values, np.arange(len(values) + 1))).flat()


#: Where a wrapper holds the estimator that works for it.
HOLDERS = ("best_estimator_", "estimator_")
#: Those that decide as what they hold does; another wrapper may decide in another way.
SEARCHES = ("best_estimator_",)


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


def winners_of(estimator: Any) -> Mapping[str, Any] | None:
    """Return the fitted line that decides each concept, by its name.

    Parameters
    ----------
    estimator : estimator
        Fitted, no wrapper.

    Returns
    -------
    winners : mapping of str to estimator, or None
        None where one line decides all concepts.
    """
    found = (getattr(estimator, name, None) for name in ("pipelines_", "best_estimators_"))
    return next((winners for winners in found if winners is not None), None)


def concept_names(names: list[str] | None, n_concepts: int) -> Array:
    """Return names as an object array, ``concept0``, ``concept1``, ... where there are none."""
    names = [f"concept{c}" for c in range(n_concepts)] if names is None else names
    return np.array(names, dtype=object)
