"""How far the activations of two sets of samples lie apart, and whether by chance."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import comb
from numbers import Integral
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number, checked
from skact.rows import Array
from skact.tokens import LayerStack, TokenArray
from skact.validation import check_tokens
from skact.warning import warn

__all__ = ["activation_drift", "frechet", "wasserstein"]

# Numbers of sorted features that are held at a time.
_ROOM = 2**22
# Fewer deals of the samples never reach a p-value of .05.
_FEWEST_DEALS = 20


class _Tokens(BaseEstimator):
    """What errors about tokens name."""


def wasserstein(values: Array, is_first: Array) -> Array:
    r"""1-D Wasserstein distances of features between two parts of the tokens.

    .. math:: W_j = \int | F_j(t) - G_j(t) | \, dt

    with the distribution functions F and G of the parts.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features)
        All tokens.
    is_first : ndarray of shape (n_splits, n_tokens), dtype bool
        For each split which tokens are in the first part.

    Returns
    -------
    distances : ndarray of shape (n_splits, n_features), dtype float64
        One for each split and feature.
    """
    n_first = is_first.sum(axis=1, keepdims=True)
    steps = np.where(is_first, 1 / n_first, -1 / (is_first.shape[1] - n_first))
    out = np.empty((len(is_first), values.shape[1]))
    for j in range(values.shape[1]):
        column = values[:, j].astype(np.float64)
        order = np.argsort(column, kind="stable")
        gaps = np.diff(column[order])
        for split, step in enumerate(steps):
            out[split, j] = np.abs(np.cumsum(step[order])[:-1]) @ gaps
    return out


def frechet(mean: Array, covariance: Array, mean2: Array, covariance2: Array) -> float:
    r"""Squared Fréchet distance of two normal distributions.

    .. math:: \lVert \mu_1 - \mu_2 \rVert^2
        + \operatorname{tr}\big(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\big)

    Parameters
    ----------
    mean, mean2 : ndarray of shape (n_features,)
        :math:`\mu`.
    covariance, covariance2 : ndarray of shape (n_features, n_features)
        :math:`\Sigma`.

    Returns
    -------
    distance : float
        Not negative.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ covariance2 @ root)
    both = np.trace(covariance) + np.trace(covariance2)
    distance = ((mean - mean2) ** 2).sum() + both - 2 * np.sqrt(np.maximum(mixed, 0)).sum()
    return max(float(distance), 0.0)


def _by_wasserstein(values: Array, splits: Array) -> tuple[Array, Array]:
    """Distances of all splits, and those of the features of the first one."""
    step = max(_ROOM // len(values), 1)
    parts = [
        wasserstein(values[:, start : start + step], splits)
        for start in range(0, values.shape[1], step)
    ]
    distances = np.concatenate(parts, axis=1)
    return distances.mean(axis=1), distances[0]


def _by_frechet(values: Array, splits: Array) -> tuple[Array, None]:
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    total, square = centred.sum(axis=0), centred.T @ centred

    def normal(n: int, sums: Array, squares: Array) -> tuple[Array, Array]:
        mean = sums / n
        return mean, squares / n - np.outer(mean, mean)

    def distances() -> Iterator[float]:
        for is_first in splits:
            part = centred[is_first]
            n, sums, squares = len(part), part.sum(axis=0), part.T @ part
            rest = normal(len(centred) - n, total - sums, square - squares)
            yield frechet(*normal(n, sums, squares), *rest)

    return np.array(list(distances())), None


_METRICS: dict[str, Callable[[Array, Array], tuple[Array, Array | None]]] = {
    "wasserstein": _by_wasserstein,
    "frechet": _by_frechet,
}


@checked(
    metric=[StrOptions(set(_METRICS))],
    n_permutations=[Number(Integral, 1, None, closed="left")],
    random_state=["random_state"],
)
def activation_drift(
    X: Any,
    Y: Any,
    *,
    metric: Literal["wasserstein", "frechet"] = "wasserstein",
    n_permutations: int = 200,
    random_state: Any = None,
) -> Bunch:
    r"""Measure how far the activations of two sets of samples lie apart, and test it.

    "wasserstein" is the mean over features of the 1-D Wasserstein distance,
    :math:`\tfrac1d \sum_j \int |F_j - G_j|`, in units of the activations; "frechet" the squared
    Fréchet distance of normal distributions with their means and covariances, :math:`\lVert \mu_1 -
    \mu_2 \rVert^2 + \operatorname{tr}(\Sigma_1 + \Sigma_2 - 2(\Sigma_1 \Sigma_2)^{1/2})`
    [1]_, with covariances over n. Both are above 0 for any two sets, so they are compared with what
    they are when the samples are dealt to the sets at random. Whole samples are dealt, since tokens
    of one sample depend on each other; the p-value is
    :math:`(1 + \#\{d_\pi \geq d\}) / (1 + n_\pi)`.

    Parameters
    ----------
    X, Y : TokenArray, list of 2-D arrays, 3-D array or 2-D array, or LayerStack
        Activations of the two sets at one place, or at the same layers. They should come from
        samples of similar lengths, read by one model, unless the model is what has changed.
    metric : {"wasserstein", "frechet"}, default="wasserstein"
        The distance. A permutation takes for the first one a pass over all sorted activations, for
        the second one an eigendecomposition.
    n_permutations : int, default=200
        Random deals.
    random_state : int, RandomState instance or None, default=None
        Draws them.

    Returns
    -------
    result : Bunch
        ``metric``; ``layers``, a list, [None] where a layer is not known; ``distance`` and
        ``p_value``, ndarrays of shape (n_layers,); ``null``, the distances of random deals, of
        shape (n_layers, n_permutations); ``by_feature``, of shape (n_layers, n_features), with
        "wasserstein", else None. Layers share their deals.

    Raises
    ------
    ValueError
        If X and Y are not both tokens, or both stacks of the same layers, differ in width, come
        from another block, site or scaling, or are one sample in all.

    References
    ----------
    .. [1] Dowson, Landau, "The Fréchet distance between multivariate normal distributions", 1982.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import activation_drift
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> result = activation_drift(X, X + 2, random_state=0)
    >>> result.distance.round(6), result.p_value.round(3)
    (array([2.]), array([0.005]))
    """
    pairs = _pairs(X, Y)
    first, second = next(iter(pairs.values()))
    lengths = np.concatenate([first.lengths, second.lengths])
    n_first, n_all = len(first), len(lengths)
    _check_deals(n_first, n_all)
    draw = check_random_state(random_state)
    splits = np.zeros((1 + n_permutations, n_all), bool)
    splits[0, :n_first] = True
    for row in splits[1:]:
        row[draw.permutation(n_all)[:n_first]] = True
    of_tokens = np.repeat(splits, lengths, axis=1)
    found = [
        _METRICS[metric](np.concatenate([one.flat(), other.flat()]), of_tokens)
        for one, other in pairs.values()
    ]
    distances = np.stack([distance for distance, _ in found])
    # What is equal but for rounding is not smaller.
    reached = distances[:, 1:] >= distances[:, :1] * (1 - 1e-12)
    features = [by_feature for _, by_feature in found if by_feature is not None]
    return Bunch(
        metric=metric,
        layers=list(pairs),
        distance=distances[:, 0],
        null=distances[:, 1:],
        p_value=(1 + reached.sum(axis=1)) / (1 + n_permutations),
        by_feature=np.stack(features) if features else None,
    )


def _check_deals(n_first: int, n_all: int) -> None:
    """Warn where there are so few ways to deal the samples that no test can tell anything."""
    # Two sets of one size may change places.
    n_deals = comb(n_all, n_first) // (1 + (2 * n_first == n_all))
    if n_deals < _FEWEST_DEALS:
        warn(
            f"{n_first} and {n_all - n_first} samples can be dealt in {n_deals} "
            f"way{'s' * (n_deals > 1)} that differ{'s' * (n_deals == 1)}, so no p_value comes "
            f"below about {1 / n_deals:.2f}; give more samples."
        )


def _pairs(X: Any, Y: Any) -> dict[int | None, tuple[TokenArray, TokenArray]]:
    """Check both sets; give tokens of each layer."""
    stacks = [isinstance(one, LayerStack) for one in (X, Y)]
    if any(stacks):
        if not all(stacks) or X.layers != Y.layers:
            layers = [getattr(one, "layers", "no layers") for one in (X, Y)]
            raise ValueError(
                f"X and Y must be stacks of the same layers, got {layers[0]} and {layers[1]}."
            )
        pairs = {b: (_read("X", X.layer(b)), _read("Y", Y.layer(b))) for b in X.layers}
    else:
        first, second = _read("X", X), _read("Y", Y)
        pairs = {first.source.block if first.source else None: (first, second)}
    for first, second in pairs.values():
        _check_pair(first, second)
    ours, theirs = (one.source for one in next(iter(pairs.values())))
    if ours and theirs and ours.conflict(theirs) in ("model", "revision"):
        warn(
            f"X comes from ({ours}), Y from ({theirs}): their distance holds what differs between "
            "the models, besides what differs between the samples."
        )
    return pairs


def _read(name: str, tokens: Any) -> TokenArray:
    try:
        return check_tokens(_Tokens(), tokens)
    except (TypeError, ValueError) as error:
        said = re.sub(r"^(Input )?X ", f"{name} ", str(error)).replace(
            "_Tokens", "activation_drift"
        )
        raise type(error)(f"{name} must be tokens: {said}") from error


def _check_pair(first: TokenArray, second: TokenArray) -> None:
    if first.n_features != second.n_features:
        raise ValueError(
            f"X and Y must be equally wide, got {first.n_features} and {second.n_features} "
            "features; ActivationSpaceMap brings one space into another."
        )
    if first.source is None or second.source is None:
        return
    for field in ("block", "site", "scaling"):
        ours, theirs = getattr(first.source, field), getattr(second.source, field)
        if ours != theirs:
            raise ValueError(
                f"X and Y come from another {field}: from ({first.source}) and ({second.source})."
            )
