"""Transport of activations: each coordinate of tokens without a concept goes to those with it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata
from sklearn.utils._param_validation import StrOptions

from skact.concepts import check_separable
from skact.rows import Array
from skact.steering._edit import CONCEPT, STRENGTH, BaseEdit, Labelled, pick_concept
from skact.steering._map import EditMap
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = ["ActivationTransport", "sorted_pairs", "transport"]

Kind = Literal["mean", "gaussian", "linear", "damping"]
# Values that are sorted at a time.
_VALUES = 2**24


def sorted_pairs(source: Array, target: Array) -> tuple[Array, Array]:
    """Sort two sets of numbers and pair them off; of the larger one, evenly spread ones are taken.

    Parameters
    ----------
    source : ndarray of shape (n_source, n_features)
        One set per column.
    target : ndarray of shape (n_target, n_features)
        The other.

    Returns
    -------
    a, b : ndarray of shape (min(n_source, n_target), n_features)
        Sorted along each column.
    """
    n = min(len(source), len(target))
    a, b = (
        np.sort(one, axis=0)[((np.arange(n) + 0.5) * len(one) / n).astype(np.int64)]
        for one in (source, target)
    )
    return a, b


def transport(source: Array, target: Array, kind: Kind) -> tuple[Array, Array]:
    r"""Slope and intercept by which each coordinate is moved.

    With sorted pairs :math:`(a_i, b_i)` of a coordinate, "linear" is the regression of b on a,
    :math:`w = \operatorname{cov}(a, b) / \operatorname{var}(a)`; "gaussian" has
    :math:`w = \sigma_+ / \sigma_-`, "mean" :math:`w = 1`; the intercept is
    :math:`\mu_+ - w \mu_-`. "damping" has :math:`w = 1 - 2 (A - \tfrac12)` where the area A under
    the ROC curve, of the coordinate as a score of the concept, is above a half, and no intercept.

    Parameters
    ----------
    source : ndarray of shape (n_source, n_features)
        Tokens without the concept.
    target : ndarray of shape (n_target, n_features)
        Tokens with it.
    kind : {"mean", "gaussian", "linear", "damping"}
        The map.

    Returns
    -------
    slope, intercept : ndarray of shape (n_features,)
        w and b; a slope of 1 where the source does not vary.
    """
    if kind == "damping":
        n_in, n_out = len(target), len(source)
        ranks = rankdata(np.concatenate([target, source]), axis=0)[:n_in].sum(axis=0)
        area = (ranks - n_in * (n_in + 1) / 2) / (n_in * n_out)
        return 1 - 2 * np.maximum(area - 0.5, 0), np.zeros(source.shape[1])
    a, b = (source, target) if kind != "linear" else sorted_pairs(source, target)
    left, right = a.mean(axis=0), b.mean(axis=0)
    slope = np.ones(source.shape[1])
    spread = a.std(axis=0)
    varies = spread > 0
    if kind == "gaussian":
        slope[varies] = b.std(axis=0)[varies] / spread[varies]
    elif kind == "linear":
        products = ((a - left) * (b - right)).mean(axis=0)
        slope[varies] = products[varies] / spread[varies] ** 2
    return slope, right - slope * left


class ActivationTransport(BaseEdit):
    r"""Carry each coordinate of tokens from where it lies without a concept to where it lies with.

    .. math:: T(h_j) = (1 - a) \, h_j + a \, (w_j h_j + b_j)

    for coordinates inside of the range that tokens without the concept have; others stay [1]_.
    "linear" takes w and b from the regression on sorted pairs of tokens without and with the
    concept, of equally many: :math:`w_j = \operatorname{cov} / \operatorname{var}`,
    :math:`b_j = \mu_{+j} - w_j \mu_{-j}`; "gaussian" :math:`w_j = \sigma_{+j} / \sigma_{-j}`,
    "mean" :math:`w_j = 1`. "damping" pulls coordinates that tell the concept towards 0,
    :math:`w_j = 1 - 2 (A_j - 1/2)` and :math:`b_j = 0`, with the area :math:`A_j > 1/2` under the
    ROC curve [2]_. Not idempotent.

    Parameters
    ----------
    kind : {"linear", "gaussian", "mean", "damping"}, default="linear"
        The map.
    concept : int or str, default=0
        Number or name of the concept.
    strength : float, default=1.0
        a; 0 changes nothing.
    within_support : bool, default=True
        Whether coordinates outside of the range of the tokens without the concept stay.

    Attributes
    ----------
    slope_, intercept_ : ndarray of shape (n_features,), dtype float64
        w and b.
    support_ : ndarray of shape (2, n_features), dtype float64
        Smallest and largest coordinates of the tokens without the concept.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Rodriguez et al., "Controlling Language and Diffusion Models by Transporting
       Activations", ICLR 2025.
    .. [2] Suau et al., "Whispering Experts: Neural Interventions for Toxicity Mitigation in
       Language Models", ICML 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import ActivationTransport
    >>> X = np.array([[0.0], [1.0], [2.0], [10.0], [12.0], [14.0]])
    >>> ActivationTransport().fit(X, [0, 0, 0, 1, 1, 1]).transform(X[:4]).ravel()
    array([10., 12., 14., 10.])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "kind": [StrOptions({"mean", "gaussian", "linear", "damping"})],
        "concept": CONCEPT,
        "strength": [STRENGTH],
        "within_support": ["boolean"],
    }

    slope_: Array
    intercept_: Array
    support_: Array

    def __init__(
        self,
        kind: Kind = "linear",
        *,
        concept: int | str = 0,
        strength: float = 1.0,
        within_support: bool = True,
    ) -> None:
        self.kind = kind
        self.concept = concept
        self.strength = strength
        self.within_support = within_support

    def _learn(self, tokens: TokenArray, labelled: Labelled) -> None:
        concept = pick_concept(labelled.names, self.concept)
        inside = labelled.tokens.columns([concept]).flat()[:, 0]
        counts, names = np.array([inside.sum()]), labelled.names[[concept]]
        check_separable(counts, len(inside), names, "token", "a transport")
        step = max(_VALUES // tokens.n_tokens, 1)
        found = []
        for start in range(0, tokens.n_features, step):
            columns = np.arange(start, min(start + step, tokens.n_features))
            values = tokens.columns(columns).flat().astype(np.float64)
            source, target = values[~inside], values[inside]
            slope, intercept = transport(source, target, self.kind)
            found.append(np.stack([slope, intercept, source.min(axis=0), source.max(axis=0)]))
        self.slope_, self.intercept_, *support = np.concatenate(found, axis=1)
        self.support_ = np.stack(support)
        if np.all(self.slope_ == 1) and not np.any(self.intercept_):
            warn(
                f"ActivationTransport found nothing to carry: the {inside.sum()} tokens with "
                f"{names[0]!r} lie where the {(~inside).sum()} without it do, so nothing changes."
            )

    def _map(self, strength: float, unit: None) -> EditMap:
        bounds = dict(zip(("low", "high"), self.support_, strict=True))
        return EditMap(
            strength * self.intercept_,
            slope=strength * (self.slope_ - 1),
            **(bounds if self.within_support else {}),
        )
