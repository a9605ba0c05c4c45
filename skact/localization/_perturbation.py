r"""Attribution by taking players away: LIME, KernelSHAP, RISE and SHAP-IQ on games.

A game :math:`v` gives the value of a coalition, a set :math:`S` of kept players (see
:class:`~skact.localization.Game`). All methods draw one set of masks, evaluate the game **once** on
all of them, and read the attributions of all targets from these values: twenty concepts cost the
forward passes of one.

Every method draws from its own seed, so equal seeds give equal maps, and none touches the global
random state of numpy or torch.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import lstsq
from sklearn.linear_model import LinearRegression

from skact.localization._game import Game

__all__ = [
    "Interactions",
    "kernel_shap",
    "lime",
    "rise",
    "rise_map",
    "shapiq",
    "shapley_interactions",
]

Array = npt.NDArray[Any]


def need(library: str, method: str) -> Any:
    """Import a library that a method needs, or say how to get it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(
            f'method="{method}" needs {library.split(".")[0]}, which is not installed: '
            "pip install skact[attribution]."
        ) from error


def check_budget(n_players: int, n_masks: int, what: str = "the sample") -> None:
    """Raise a ValueError if there are not more masks than players."""
    if n_masks <= n_players:
        raise ValueError(
            f"n_masks={n_masks} is too small: {what} has {n_players} players (tokens, patches or "
            "words), and perturbation needs more masks than players. Raise n_masks, shorten the "
            'samples, or use unit="word" for texts.'
        )


class _SharedSurrogate:
    """Captum's interpretable model for all targets at once: weighted least squares on the game."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.values = np.empty((0, game.n_targets))
        self.coefficients = self.values

    def evaluate(self, masks: Any) -> Any:
        """Captum's forward function: evaluates all targets, hands out the first."""
        self.values = self.game(masks.numpy().astype(bool))
        return masks.new_tensor(self.values[:, 0])

    def fit(self, train_data: Any) -> None:
        masks, _, weights = next(iter(train_data))
        model = LinearRegression().fit(
            masks.numpy().astype(np.float64), self.values, weights.numpy().astype(np.float64)
        )
        self.coefficients = model.coef_.T

    def representation(self) -> Array:
        return self.coefficients


def _surrogate(game: Game, method: str, n_masks: int, random_state: int) -> Array:
    check_budget(game.n_players, n_masks)
    attr = need("captum.attr", method)
    import torch

    surrogate = _SharedSurrogate(game)
    explainer = (attr.Lime if method == "lime" else attr.KernelShap)(surrogate.evaluate)
    explainer.interpretable_model = surrogate
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        return explainer.attribute(
            torch.ones(1, game.n_players),
            n_samples=n_masks,
            perturbations_per_eval=n_masks,
            return_input_shape=False,
        )


def lime(game: Game, *, n_masks: int, random_state: int) -> Array:
    r"""Coefficients of a linear model around the untouched sample.

    .. math:: \min_{\beta_0, \beta} \sum_m \pi(m) \big(v(m) - \beta_0 - \beta' m\big)^2, \qquad
              \pi(m) = \exp\big(-\tfrac12 (1 - \cos(m, 1))^2\big)

    over masks :math:`m` in which each player is kept with probability one half [1]_; the masks and
    the kernel are those of captum's ``Lime``. There is no penalty, which would shrink small values.

    Parameters
    ----------
    game : Game
        What is explained.
    n_masks : int
        Evaluations of the game; more than it has players.
    random_state : int
        Seed.

    Returns
    -------
    attributions : ndarray of shape (n_players, n_targets), dtype float64
        The coefficients.

    Raises
    ------
    ValueError
        If there are not more masks than players.
    ImportError
        If captum is not installed.

    References
    ----------
    .. [1] M. T. Ribeiro, S. Singh and C. Guestrin, "Why Should I Trust You? Explaining the
       Predictions of Any Classifier", KDD 2016.
    """
    return _surrogate(game, "lime", n_masks, random_state)


def kernel_shap(game: Game, *, n_masks: int, random_state: int) -> Array:
    r"""Shapley values as a weighted regression.

    The least-squares fit of an additive function under the Shapley kernel,

    .. math:: \mu(S) = \frac{n - 1}{\binom{n}{|S|} |S| (n - |S|)},

    that is exact for no player and for all of them, has the Shapley values as its coefficients
    [1]_. Coalitions are drawn with probability proportional to the kernel, by captum's
    ``KernelShap``. What is taken away takes the baseline: these are baseline Shapley values.

    Parameters
    ----------
    game : Game
        What is explained.
    n_masks : int
        Evaluations of the game; more than it has players.
    random_state : int
        Seed.

    Returns
    -------
    attributions : ndarray of shape (n_players, n_targets), dtype float64
        They add up to the value of all players minus that of none.

    Raises
    ------
    ValueError
        If there are not more masks than players.
    ImportError
        If captum is not installed.

    References
    ----------
    .. [1] S. M. Lundberg and S.-I. Lee, "A Unified Approach to Interpreting Model Predictions",
       NeurIPS 2017.
    """
    if game.n_players == 1:
        return _only_player(game)
    return _surrogate(game, "kernel_shap", n_masks, random_state)


def _only_player(game: Game) -> Array:
    """All of the gain is that of the one player there is."""
    return np.diff(game(np.array([[False], [True]])), axis=0)


def rise(game: Game, *, n_masks: int, random_state: int) -> Array:
    r"""Mean value of the masks that keep a player, over random masks.

    Each player is kept with probability one half, independently: see :func:`rise_map`.

    Parameters
    ----------
    game : Game
        What is explained.
    n_masks : int
        Evaluations of the game; more than it has players.
    random_state : int
        Seed.

    Returns
    -------
    attributions : ndarray of shape (n_players, n_targets), dtype float64
        In units of the game.

    Raises
    ------
    ValueError
        If there are not more masks than players.
    """
    check_budget(game.n_players, n_masks)
    rng = np.random.default_rng(random_state)
    masks = rng.random((n_masks, game.n_players)) < 0.5
    return rise_map(masks, game(masks))


def rise_map(masks: Array, values: Array) -> Array:
    r"""RISE from masks and their values [1]_.

    .. math:: A_i = \frac{\sum_m v(m)\, m_i}{\sum_m m_i}

    the estimate of :math:`E[v(m) \mid m_i = 1]`; the published form divides by the expected number
    of masks that keep a player instead of the number itself, which only adds noise.

    Parameters
    ----------
    masks : ndarray of shape (n_masks, n_players), dtype bool
        Kept players.
    values : ndarray of shape (n_masks, n_targets)
        Values of the masks.

    Returns
    -------
    attributions : ndarray of shape (n_players, n_targets), dtype float64
        0 for a player that no mask keeps.

    References
    ----------
    .. [1] V. Petsiuk, A. Das and K. Saenko, "RISE: Randomized Input Sampling for Explanation of
       Black-box Models", BMVC 2018.
    """
    kept = masks.astype(np.float64)
    return kept.T @ values / np.maximum(kept.sum(axis=0), 1)[:, None]


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
    sampling = need("shapiq.approximator.sampling", "shapiq")
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
    check_budget(game.n_players, n_masks)
    if n == 1:
        need("shapiq", "shapiq")
        nothing = np.empty((0, 1), bool)
        return _Fit(_only_player(game), np.empty((0, game.n_targets)), nothing, np.empty(0))
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
    pairs = np.zeros((n_targets, n, n))
    if n < 2:
        return pairs
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
