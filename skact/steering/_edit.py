"""The base class of edits, and what several of them learn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number, checked, float_array, instance
from skact.base import TokenTransformer, concept_names
from skact.concepts import BaseConcepts, check_separable, labelled_sums
from skact.rows import Array, as_floats, row_chunks, segment_max
from skact.steering._gates import gate_of
from skact.steering._map import EditMap, Gate
from skact.steering._origin import check_origin
from skact.targets import check_targets, check_token_labels
from skact.tokens import TokenArray
from skact.validation import check_tokens

__all__ = [
    "CONCEPT",
    "DIRECTION",
    "GATE",
    "STRENGTH",
    "UNITS",
    "BaseEdit",
    "Labelled",
    "Unit",
    "as_rows",
    "directions_of",
    "labelled_means",
    "median_norm",
    "pick_concept",
    "size_of",
]

Unit = Literal["norm", "raw"]
UNITS = StrOptions({"norm", "raw"})
STRENGTH = Number(Real, None, None, closed="neither")
#: What a concept is asked for by.
CONCEPT = [Number(Integral, 0, None, closed="left"), str]
#: A direction, or what finds one.
DIRECTION = [
    "array-like",
    instance("a concept method, such as DifferenceInMeans(), or a frozen one", BaseConcepts),
    instance("a FrozenEstimator(...)", FrozenEstimator),
    None,
]
#: What says on which tokens an edit acts.
GATE = [
    instance("a fitted Pipeline(...) that ends in a detector", Pipeline),
    instance("a FrozenEstimator(...) of it", FrozenEstimator),
    None,
]
# Norms beyond this multiple of the median are those of attention sinks and registers.
_OUTLIER = 20


class Labelled(NamedTuple):
    """Which samples (n_samples, n_concepts) and which of their tokens hold which concept."""

    present: Array
    tokens: TokenArray
    names: Array


class BaseEdit(OneToOneFeatureMixin, TokenTransformer):
    """An edit of activations: tokens in, edited tokens out.

    ``fit`` checks everything and calls the hook ``_learn(tokens, labelled)``; ``transform`` applies
    what the hook ``_map(strength, unit)`` makes of what was learnt: one frozen affine map with an
    optional gate, see :class:`~skact.steering.EditMap`.

    Attributes
    ----------
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts of ``y``; empty where none was needed.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.
    """

    strength: float
    concept_names_: Array

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__fit: ClassVar = {"token_labels": True}

    def fit(self, X: Any, y: Any = None, token_labels: Any = None) -> Self:
        """Learn the edit.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Tokens of the layer that is to be edited.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
            Class labels (two classes: one concept, the larger class; more: one concept a class)
            or an indicator matrix. Not read where the direction is given.
        token_labels : TokenArray or list of arrays of bool, default=None
            For each sample (n_tokens, n_concepts). None counts every token of a positive sample.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            If X, y and token_labels do not fit together, a direction is zero or of another width,
            or the gate was fitted on another layer, width or concept.
        """
        self._validate_params()
        tokens = check_tokens(self, X)
        labelled = None
        self.concept_names_ = np.empty(0, object)
        if self._needs_labels():
            targets = check_targets(self, y, len(tokens))
            labels, targets = check_token_labels(token_labels, tokens, targets)
            self.concept_names_ = concept_names(targets.names, targets.n_concepts)
            labelled = Labelled(targets.present, labels, self.concept_names_)
        self._learn(tokens, labelled)
        self._gates()
        return self

    def _needs_labels(self) -> bool:
        """Tell whether ``fit`` reads y."""
        return True

    @abstractmethod
    def _learn(self, tokens: TokenArray, labelled: Any) -> None:
        """Set the fitted attributes; ``labelled`` is None where no labels are needed."""

    @abstractmethod
    def _map(self, strength: float, unit: Any) -> EditMap:
        """Make the map, without the gate of a detector."""

    def _gates(self) -> tuple[Gate, ...]:
        """Gate of a detector, where the edit has one."""
        gate = getattr(self, "gate", None)
        if gate is None:
            return ()
        concept: Any = getattr(self, "concept", None)
        name = concept if isinstance(concept, str) else None
        if len(self.concept_names_) and concept is not None:
            name = str(self.concept_names_[pick_concept(self.concept_names_, concept)])
        return (gate_of(gate, self.n_features_in_, self.source_, name),)

    @checked(strength=[STRENGTH, None], unit=[UNITS, None])
    def edit_map(self, strength: float | None = None, *, unit: Unit | None = None) -> EditMap:
        """Give what ``transform`` does to a token as one frozen map.

        Parameters
        ----------
        strength : float, default=None
            In place of the parameter.
        unit : {"norm", "raw"}, default=None
            In place of the parameter, for edits that add a vector.

        Returns
        -------
        edit : EditMap
            It stays as it is when the estimator is fitted again.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If a unit is asked for, and the strength is a share.
        """
        check_is_fitted(self)
        self._validate_params()
        own = getattr(self, "unit", None)
        if unit is not None and own is None:
            raise ValueError(
                f"unit={unit!r} says what a strength of 1 adds, and the strength of "
                f"{type(self).__name__} is a share of its change; leave unit out."
            )
        made = self._map(self.strength if strength is None else float(strength), unit or own)
        gates = (*made.gates, *self._gates())
        return replace(made, gates=gates).converted(np.array)

    def _transform(self, tokens: TokenArray) -> TokenArray:
        edit = self.edit_map()
        about: dict[str, Any] = {"feature_names": tokens.feature_names, "source": tokens.source}
        if not edit.per_sample:
            return tokens.map(edit, **about)
        fired = [_any_fires(edit, tokens[samples]) for samples, _ in tokens.blocks()]
        whole = replace(edit, gates=(), per_sample=False)
        values = np.concatenate(
            [
                np.where(np.repeat(fires, tokens.lengths[samples])[:, None], whole(block), block)
                for fires, (samples, block) in zip(fired, tokens.blocks(), strict=True)
            ]
        )
        return tokens.with_values(values, **about)

    def _function(self) -> Callable[[Array], Array]:
        return self.edit_map()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self._needs_labels()
        tags.target_tags.multi_output = True
        return tags


def _any_fires(edit: EditMap, tokens: TokenArray) -> Array:
    """Tell which samples have a token that fires, (n_samples,)."""
    fires = edit.fires(as_floats(tokens.flat()))
    offsets = np.concatenate([[0], np.cumsum(tokens.lengths)])
    return segment_max(fires[:, None].astype(np.float32), offsets)[:, 0] > 0


def pick_concept(names: Array, concept: int | str, what: str = "concept") -> int:
    """Return the number of a concept that is asked for by number or name."""
    known = [str(name) for name in names]
    if isinstance(concept, str):
        if concept in known:
            return known.index(concept)
    elif concept < len(known):
        return int(concept)
    shown = ", ".join(known[:10]) + ", ..." * (len(known) > 10)
    raise ValueError(f"{what}={concept!r} is none of the {len(known)} that there are: {shown}.")


def median_norm(tokens: TokenArray) -> float:
    """Median norm of the tokens, without zero ones and those beyond 20 times the median."""
    norms = np.concatenate(
        [
            np.linalg.norm(chunk.astype(np.float64), axis=1)
            for _, block in tokens.blocks()
            for chunk in row_chunks(block)
        ]
    )
    norms = norms[norms > 0]
    if not len(norms):
        return 0.0
    return float(np.median(norms[norms <= _OUTLIER * np.median(norms)]))


def size_of(direction: Array, unit: Unit, norm: float) -> float:
    """By what a direction is multiplied so that a strength of 1 is the unit."""
    return 1.0 if unit == "raw" else norm / float(np.linalg.norm(direction))


def labelled_means(tokens: TokenArray, labelled: Labelled, concept: int) -> tuple[Array, Array]:
    """Mean of the tokens without a concept, and of those with it."""
    sums, counts = labelled_sums(tokens, labelled.tokens.columns([concept]))
    check_separable(counts, tokens.n_tokens, labelled.names[[concept]], "token", "an edit")
    total = np.sum([chunk.sum(axis=0, dtype=np.float64) for chunk in tokens.float_chunks()], axis=0)
    return (total - sums[0]) / (tokens.n_tokens - counts[0]), sums[0] / counts[0]


def directions_of(
    direction: Any, default: Any, tokens: TokenArray, labelled: Labelled | None
) -> tuple[Array, Array]:
    """Directions that are given or learnt, with their names; none where they are numbers.

    Parameters
    ----------
    direction : array-like, concept method, FrozenEstimator of one, or None
        None takes the default.
    default : concept method
        Not fitted.
    tokens, labelled
        What it is fitted on, unless it is frozen.

    Returns
    -------
    directions : ndarray of shape (n_directions, n_features), dtype float64
        The directions.
    names : ndarray of shape (n_directions,) or (0,), dtype object
        Names of the concepts.

    Raises
    ------
    ValueError
        If they are of another width, or one is zero.
    """
    method = default if direction is None else direction
    names: Array = np.empty(0, object)
    if isinstance(method, FrozenEstimator):
        check_is_fitted(method.estimator)
        if not hasattr(method.estimator, "concept_vectors_"):
            raise TypeError(
                "direction must hold a concept method, got a frozen "
                f"{type(method.estimator).__name__}."
            )
        check_origin("direction", method.estimator, tokens.n_features, tokens.source)
        rows = np.asarray(method.estimator.concept_vectors_, np.float64)
        names = np.array([str(n) for n in method.estimator.concept_names_], object)
    elif isinstance(method, BaseConcepts):
        assert labelled is not None
        fitted = clone(method).fit(tokens, labelled.present, labelled.tokens)
        rows, names = np.asarray(fitted.concept_vectors_, np.float64), labelled.names
    else:
        rows = as_rows(method, tokens.n_features)
    zero = np.flatnonzero(~rows.any(axis=1))
    if len(zero):
        raise ValueError(f"direction {zero[0]} is zero, so it leads nowhere.")
    return rows, names


def as_rows(direction: Any, width: int, what: str = "direction") -> Array:
    """Check directions that are numbers, (n_directions, width)."""
    rows = np.atleast_2d(float_array(direction, what))
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise ValueError(
            f"{what} must have {width} features, as the tokens have; it has shape "
            f"{np.shape(direction)}."
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{what} must be finite, but holds NaN or infinity.")
    return rows
