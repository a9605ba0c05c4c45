"""SHAP-IQ: Shapley values and pairwise interactions of games, from one set of coalitions.

As in :mod:`~skact.localization._perturbation`, the game is evaluated once for all targets, and the
seed alone decides the coalitions.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from scipy.linalg import lstsq

from skact.extras import need
from skact.localization._game import Game
from skact.localization._perturbation import check_budget, explains_a_game, only_player
from skact.rows import Array

__all__ = ["Interactions", "shapiq", "shapley_interactions"]


class Interactions(NamedTuple):
    """Shapley values and pairwise interactions.

    Parameters
    ----------
    values : ndarray of shape (n_players, n_targets), dtype float64
        Shapley value of each player.
    pairs : ndarray of shape (n_targets, n_players, n_players), dtype float64
        Shapley interaction of each pair; symmetric, 0 on the diagonal.
    """

    values: Array
    pairs: Array


class _Coalitions(NamedTuple):
    """Coalitions without the two borders, and what each stands for.

    ``weights`` times the number of coalitions of the size sums to the number of sizes it stands
    for: an average over these rows estimates a sum over all coalitions, in proportion to
    ``binom(n, size)`` so that no binomial coefficient is ever formed.
    """

    masks: Array
    weights: Array


def _draw(n: int, n_masks: int, random_state: int) -> _Coalitions:
    """Draw coalitions by the Shapley kernel; small and large ones all, if possible."""
    sampling = need("shapiq.approximator.sampling", 'method="shapiq"')
    sizes = np.arange(1, n)
    weights = np.zeros(n + 1)
    weights[1:-1] = 1 / (sizes * (n - sizes))
    # A coalition and its complement say the same about an additive function: pairs need twice the
    # budget to determine it.
    paired = n_masks >= 4 * n
    sampler = sampling.CoalitionSampler(n, weights, pairing_trick=paired, random_state=random_state)
    with warnings.catch_warnings():
        # It says that it needs fewer masks than it may draw.
        warnings.simplefilter("ignore", UserWarning)
        sampler.sample(n_masks)
    masks = sampler.coalitions_matrix.astype(bool)
    counts = sampler.coalitions_counter.astype(np.float64)
    sampled = sampler.is_coalition_sampled
    size = masks.sum(axis=1)
    # All coalitions of a size are there: each stands for its share of the size.
    per_size = np.bincount(size, minlength=n + 1)[size]
    drawn = counts / (max(counts[sampled].sum(), 1) * sampler.coalitions_size_probability)
    inner = (size > 0) & (size < n)
    return _Coalitions(masks[inner], np.where(sampled, drawn, 1 / per_size)[inner])


@explains_a_game
def shapley_interactions(game: Game, *, n_masks: int, random_state: int) -> Interactions:
    r"""Shapley values and pairwise interactions from one set of coalitions.

    SHAP-IQ [1]_ writes every interaction index as one sum over coalitions, for the Shapley
    interaction of :math:`U` with :math:`u = |U|`

    .. math:: \phi_U = \sum_T v(T)\, (-1)^{u - k} \frac{(t - k)!\,(n - t - u + k)!}{(n - u + 1)!},
              \qquad t = |T|,\ k = |T \cap U|,

    and estimates it from coalitions drawn with known probability; a size of which all coalitions
    fit into the budget is enumerated. Here the sum is taken of what an additive function leaves
    over: :math:`v = f + r` with :math:`f` the weighted least-squares fit under the Shapley kernel,
    which agrees with :math:`v` for no player and for all. An additive function has no interactions
    and its coefficients are its Shapley values, so that additive games are exact, and games close
    to additive have little variance. First-order sums of :math:`r` are the same for all players
    and vanish, because the fit is to the same weights: the coefficients are the Shapley values.

    Weights are formed as ratios,
    :math:`\binom{n}{t} \frac{(t - 2)!\,(n - t)!}{(n - 1)!} = \frac{n}{t (t - 1)}` for :math:`k = 2`
    and likewise for 1 and 0, so that no factorial overflows for any number of players. Coalitions
    come from shapiq's sampler; its own estimator goes through pairs one by one, for each target,
    and forms binomial coefficients that overflow from 1,030 players.

    Parameters
    ----------
    game : Game
        What is explained.
    n_masks : int
        Evaluations of the game; more than it has players. Exact from ``2 ** n_players``.
    random_state : int
        Seed.

    Returns
    -------
    interactions : Interactions
        ``values`` and ``pairs``.

    Raises
    ------
    ValueError
        If there are not more masks than players.
    ImportError
        If shapiq is not installed.

    References
    ----------
    .. [1] F. Fumagalli, M. Muschalik, P. Kolpaczki, E. Hüllermeier and B. Hammer, "SHAP-IQ: Unified
       Approximation of any-order Shapley Interactions", NeurIPS 2023.
    """
    fit = _additive_fit(game, n_masks, random_state)
    return Interactions(fit.values, _pairs(fit))


@explains_a_game
def shapiq(game: Game, *, n_masks: int, random_state: int) -> Array:
    """Shapley values of :func:`shapley_interactions`, without the pairs.

    Parameters
    ----------
    game : Game
        What is explained.
    n_masks : int
        Evaluations of the game; more than it has players. Exact from ``2 ** n_players``.
    random_state : int
        Seed.

    Returns
    -------
    attributions : ndarray of shape (n_players, n_targets), dtype float64
        They add up to the value of all players minus that of none.
    """
    return _additive_fit(game, n_masks, random_state).values


class _Fit(NamedTuple):
    """Additive fit and what it leaves over at the drawn coalitions."""

    values: Array
    residuals: Array
    masks: Array
    weights: Array


def _additive_fit(game: Game, n_masks: int, random_state: int) -> _Fit:
    n = game.n_players
    check_budget(n, n_masks)
    if n == 1:
        need("shapiq", 'method="shapiq"')
        nothing = np.empty((0, 1), bool)
        return _Fit(only_player(game), np.empty((0, game.n_targets)), nothing, np.empty(0))
    masks, weights = _draw(n, n_masks, random_state)
    ends = np.array([[False] * n, [True] * n])
    values = game(np.concatenate([ends, masks]))
    nobody, gain = values[0], values[1] - values[0]
    share = masks.mean(axis=1)
    # The coefficients add up to the gain: fit what the even split of the gain leaves, in the
    # space of vectors that add up to nothing.
    rest = values[2:] - nobody - share[:, None] * gain
    kernel = np.sqrt(weights / (share * (1 - share)))[:, None]
    centred = masks - share[:, None]
    # By orthogonal factors: much faster than singular values for many players. The rows of the
    # design add up to nothing, so its rank is not full, and the cut must tell that from rounding.
    solution = lstsq(kernel * centred, kernel * rest, cond=1e-10, lapack_driver="gelsy")[0]
    solution -= solution.mean(axis=0)
    return _Fit(gain / n + solution, rest - centred @ solution, masks, weights)


def _pairs(fit: _Fit) -> Array:
    """Pairwise Shapley interactions of the residuals: one matrix product per target."""
    n, n_targets = fit.values.shape
    pairs = np.empty((n_targets, n, n))
    masks = fit.masks.astype(np.float64)
    t = masks.sum(axis=1)
    # A coalition that holds both, one or none of a pair; impossible cases meet zeros below.
    both = n / np.maximum(t * (t - 1), 1)
    one = -n / (t * (n - t))
    none = n / np.maximum((n - t) * (n - t - 1), 1)
    for c in range(n_targets):
        scale = fit.weights * fit.residuals[:, c]
        # both z z' + one (z (1-z)' + (1-z) z') + none (1-z)(1-z)', sorted by powers of z.
        square = masks.T @ ((scale * (both - 2 * one + none))[:, None] * masks)
        linear = masks.T @ (scale * (one - none))
        pairs[c] = square + linear[:, None] + linear[None, :] + (scale * none).sum()
        np.fill_diagonal(pairs[c], 0)
    return pairs
