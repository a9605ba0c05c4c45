"""Edits along directions: add one, take them out, set a level, reach a probability."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

import numpy as np
from scipy.special import logit
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number
from skact.concepts import BaseConcepts, DifferenceInMeans, LinearSeparator
from skact.rows import Array
from skact.steering._edit import (
    CONCEPT,
    DIRECTION,
    GATE,
    STRENGTH,
    UNITS,
    BaseEdit,
    Labelled,
    Unit,
    directions_of,
    labelled_means,
    median_norm,
    pick_concept,
    size_of,
)
from skact.steering._map import EditMap, Gate
from skact.tail import fit_sigmoid
from skact.tokens import TokenArray

__all__ = ["Ablation", "Addition", "AffineEdit", "MinimalNormEdit"]

# A direction that has not much of its norm beyond the others is theirs.
_RANK = 1e-9


def _learns(direction: Any) -> bool:
    return direction is None or isinstance(direction, BaseConcepts)


def _one(direction: Any, default: Any, tokens: TokenArray, labelled: Any, concept: Any) -> Array:
    """One direction of those that are given or learnt."""
    rows, names = directions_of(direction, default, tokens, labelled)
    if len(names):
        return rows[pick_concept(names, concept)]
    if len(rows) > 1:
        raise ValueError(
            f"direction must be one vector of {tokens.n_features} features, got {len(rows)}."
        )
    return rows[0]


class Addition(BaseEdit):
    r"""Add a direction to every token.

    .. math:: h' = h + a \, m \, \frac{v}{\lVert v \rVert}

    with the strength a and the median norm m of the tokens; :math:`h' = h + a v` with
    ``unit="raw"`` [1]_. The change does not depend on the token, so it is not idempotent.

    Parameters
    ----------
    direction : array-like of shape (n_features,), concept method, or None, default=None
        v, or what finds it: a concept method is fitted on the tokens, one in a
        ``FrozenEstimator`` is taken as it is, None stands for :class:`~skact.DifferenceInMeans`.
    concept : int or str, default=0
        Number or name of the concept whose direction is taken.
    strength : float, default=1.0
        a.
    unit : {"norm", "raw"}, default="norm"
        What a strength of 1 adds: a vector as long as the median token, outliers left out, or
        the direction as it is.
    gate : fitted Pipeline that ends in a detector, or FrozenEstimator of it, default=None
        The edit acts only on tokens whose score reaches the detector's threshold. Clones keep one
        in a ``FrozenEstimator``.

    Attributes
    ----------
    direction_ : ndarray of shape (n_features,), dtype float64
        v.
    median_norm_ : float
        m, without zero tokens and those beyond 20 times the median.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts; empty where the direction was given.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Turner et al., "Steering Language Models With Activation Engineering", 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import Addition
    >>> X = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    >>> Addition([0, 5], strength=0.5).fit(X).transform(X[:1])
    array([[1., 1.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "direction": DIRECTION,
        "concept": CONCEPT,
        "strength": [STRENGTH],
        "unit": [UNITS],
        "gate": GATE,
    }

    direction_: Array
    median_norm_: float

    def __init__(
        self,
        direction: Any = None,
        *,
        concept: int | str = 0,
        strength: float = 1.0,
        unit: Unit = "norm",
        gate: Any = None,
    ) -> None:
        self.direction = direction
        self.concept = concept
        self.strength = strength
        self.unit = unit
        self.gate = gate

    def _needs_labels(self) -> bool:
        return _learns(self.direction)

    def _learn(self, tokens: TokenArray, labelled: Labelled | None) -> None:
        found = DifferenceInMeans()
        self.direction_ = _one(self.direction, found, tokens, labelled, self.concept)
        self.median_norm_ = median_norm(tokens)

    def _map(self, strength: float, unit: Unit) -> EditMap:
        size = size_of(self.direction_, unit, self.median_norm_)
        return EditMap(strength * size * self.direction_)


class Ablation(BaseEdit):
    r"""Take directions out of every token.

    .. math:: h' = h - a \, U^\top U h

    with an orthonormal basis U of the directions, for one of them :math:`h - a \langle h, u \rangle
    u` [1]_. With a strength of 1 nothing of them is left, :math:`\lVert h' \rVert^2 = \lVert h
    \rVert^2 - \lVert U h \rVert^2`, and doing it again changes nothing.

    Parameters
    ----------
    direction : array-like, concept method, or None, default=None
        The directions, of shape (n_features,) or (n_directions, n_features), or what finds one
        per concept: a concept method is fitted on the tokens, one
        in a ``FrozenEstimator`` is taken as it is, None stands for
        :class:`~skact.DifferenceInMeans`.
    concept : int, str or None, default=None
        Number or name of the concept whose direction is taken out; None takes out those of all.
    strength : float, default=1.0
        a, the share that is taken out.
    gate : fitted Pipeline that ends in a detector, or FrozenEstimator of it, default=None
        As in :class:`Addition`.

    Attributes
    ----------
    basis_ : ndarray of shape (n_directions, n_features), dtype float64
        U.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts; empty where the directions were given.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Ravfogel et al., "Null It Out: Guarding Protected Attributes by Iterative Nullspace
       Projection", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import Ablation
    >>> X = np.array([[1.0, 4.0], [3.0, 2.0]])
    >>> Ablation([0, 5]).fit(X).transform(X)
    array([[1., 0.],
           [3., 0.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "direction": DIRECTION,
        "concept": [*CONCEPT, None],
        "strength": [STRENGTH],
        "gate": GATE,
    }

    basis_: Array

    def __init__(
        self,
        direction: Any = None,
        *,
        concept: int | str | None = None,
        strength: float = 1.0,
        gate: Any = None,
    ) -> None:
        self.direction = direction
        self.concept = concept
        self.strength = strength
        self.gate = gate

    def _needs_labels(self) -> bool:
        return _learns(self.direction)

    def _learn(self, tokens: TokenArray, labelled: Labelled | None) -> None:
        rows, names = directions_of(self.direction, DifferenceInMeans(), tokens, labelled)
        if self.concept is not None and len(names):
            rows = rows[[pick_concept(names, self.concept)]]
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        _, sizes, basis = np.linalg.svd(units, full_matrices=False)
        self.basis_ = basis[sizes > _RANK * sizes[0]]

    def _map(self, strength: float, unit: None) -> EditMap:
        n_directions, width = self.basis_.shape
        offset = np.zeros(n_directions)
        return EditMap(np.zeros(width), self.basis_, offset, -strength * self.basis_)


class AffineEdit(BaseEdit):
    r"""Set the level of a concept: 0 for that of tokens without it, 1 for that of tokens with it.

    .. math:: h' = h - \langle h, u \rangle u + \langle \mu_-, u \rangle u + a (\mu_+ - \mu_-),
        \qquad u = \frac{\mu_+ - \mu_-}{\lVert \mu_+ - \mu_- \rVert}

    with the means :math:`\mu_\pm` of the tokens with and without the concept [1]_. Each token comes
    to exactly the level that was asked for, and doing it again changes nothing.

    Parameters
    ----------
    concept : int or str, default=0
        Number or name of the concept.
    strength : float, default=1.0
        The level a.
    gate : fitted Pipeline that ends in a detector, or FrozenEstimator of it, default=None
        As in :class:`Addition`.

    Attributes
    ----------
    means_ : ndarray of shape (2, n_features), dtype float64
        Mean of the tokens without the concept, and of those with it.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Marshall, Scherlis, Belrose, "Refusal in LLMs is an Affine Function", 2024, section on
       affine concept editing.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import AffineEdit
    >>> X = np.array([[5.0, 1.0], [5.0, 3.0], [1.0, 0.0], [1.0, 4.0]])
    >>> AffineEdit(strength=0).fit(X, [1, 1, 0, 0]).transform(X[:2])
    array([[1., 1.],
           [1., 3.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "concept": CONCEPT,
        "strength": [STRENGTH],
        "gate": GATE,
    }

    means_: Array

    def __init__(self, *, concept: int | str = 0, strength: float = 1.0, gate: Any = None) -> None:
        self.concept = concept
        self.strength = strength
        self.gate = gate

    def _learn(self, tokens: TokenArray, labelled: Labelled) -> None:
        concept = pick_concept(labelled.names, self.concept)
        self.means_ = np.stack(labelled_means(tokens, labelled, concept))
        if np.array_equal(*self.means_):
            raise ValueError(
                f"tokens with and without concept {labelled.names[concept]!r} have the same mean, "
                "so it has no level."
            )

    def _map(self, strength: float, unit: None) -> EditMap:
        without, inside = self.means_
        way = inside - without
        u = way / np.linalg.norm(way)
        return EditMap(strength * way, u[None], np.array([-u @ without]), -u[None])


class MinimalNormEdit(BaseEdit):
    r"""Move tokens just as far as a separator needs to give a probability.

    .. math:: h' = h + a \, \frac{\operatorname{logit}(p_0) - b - \langle w, h \rangle}
        {\lVert w \rVert^2} \, w

    where the probability :math:`\sigma(\langle w, h \rangle + b)` is on the wrong side of
    :math:`p_0`; other tokens stay. It is the smallest change that reaches :math:`p_0`, it reaches
    it exactly, and doing it again changes nothing [1]_.

    Parameters
    ----------
    direction : array-like of shape (n_features,), concept method, or None, default=None
        w, or what finds it, as in :class:`Addition`; None stands for
        :class:`~skact.LinearSeparator`.
    concept : int or str, default=0
        Number or name of the concept.
    probability : float, default=0.9
        :math:`p_0`, in (0, 1).
    side : {"auto", "below", "above"}, default="auto"
        Which side is the wrong one; "auto" takes the one that is farther from it: "below" for a
        :math:`p_0` of 0.5 and more.
    calibrate : bool, default=True
        Whether w is scaled and b found by Platt's method on the training tokens, with Platt's
        smoothed targets, (n + 1) / (n + 2) for the n tokens with the concept and 1 / (n + 2) for
        the n without it, in place of 1 and 0. Separators of this package have no intercept;
        without calibration b is 0 and w as it is.
    strength : float, default=1.0
        a, the share of the way.
    gate : fitted Pipeline that ends in a detector, or FrozenEstimator of it, default=None
        As in :class:`Addition`.

    Attributes
    ----------
    separator_ : ndarray of shape (n_features,), dtype float64
        w.
    intercept_ : float
        b.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts; empty where no labels were needed.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Singh et al., "Representation Surgery: Theory and Practice of Affine Steering", 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import MinimalNormEdit
    >>> X = np.array([[2.0, 1.0], [-3.0, 5.0]])
    >>> edit = MinimalNormEdit([1, 0], probability=0.5, calibrate=False).fit(X)
    >>> edit.transform(X)
    array([[2., 1.],
           [0., 5.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "direction": DIRECTION,
        "concept": CONCEPT,
        "probability": [Number(Real, 0, 1, closed="neither")],
        "side": [StrOptions({"auto", "below", "above"})],
        "calibrate": ["boolean"],
        "strength": [STRENGTH],
        "gate": GATE,
    }

    separator_: Array
    intercept_: float

    def __init__(
        self,
        direction: Any = None,
        *,
        concept: int | str = 0,
        probability: float = 0.9,
        side: Literal["auto", "below", "above"] = "auto",
        calibrate: bool = True,
        strength: float = 1.0,
        gate: Any = None,
    ) -> None:
        self.direction = direction
        self.concept = concept
        self.probability = probability
        self.side = side
        self.calibrate = calibrate
        self.strength = strength
        self.gate = gate

    def _needs_labels(self) -> bool:
        return self.calibrate or _learns(self.direction)

    def _learn(self, tokens: TokenArray, labelled: Labelled | None) -> None:
        found = LinearSeparator()
        separator = _one(self.direction, found, tokens, labelled, self.concept)
        self.separator_, self.intercept_ = separator, 0.0
        if not self.calibrate:
            return
        assert labelled is not None
        concept = pick_concept(labelled.names, self.concept)
        labelled_means(tokens, labelled, concept)  # refuses concepts without both kinds of tokens
        scores = np.concatenate([chunk @ separator for chunk in tokens.float_chunks()])
        inside = labelled.tokens.columns([concept]).flat()
        ((middle, slope, intercept),) = fit_sigmoid(scores[:, None], inside)
        if not slope > 0:
            raise ValueError(
                f"tokens of concept {labelled.names[concept]!r} score no higher along direction "
                "than others, so no change reaches a probability; use calibrate=False or another."
            )
        self.separator_ = slope * separator
        self.intercept_ = float(intercept - slope * middle)

    def _map(self, strength: float, unit: None) -> EditMap:
        w, level = self.separator_[None], float(logit(self.probability))
        offset = np.array([self.intercept_ - level])
        below = self.side == "below" or (self.side == "auto" and self.probability >= 0.5)
        wrong = Gate(-w if below else w, -offset if below else offset, closed=False)
        writes = -strength * w / (w @ w.T)
        return EditMap(np.zeros(w.shape[1]), w, offset, writes, gates=(wrong,))
