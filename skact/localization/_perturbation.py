r"""Attribution by taking players away: LIME, KernelSHAP and RISE on games.

A game :math:`v` gives the value of a coalition, a set :math:`S` of kept players (see
:class:`~skact.localization.Game`). All methods draw one set of masks, evaluate the game **once** on
all of them, and read the attributions of all targets from these values: twenty concepts cost the
forward passes of one. LIME and RISE keep each player with probability one half, and draw the same
masks from the same seed, so that the values of one serve the other. KernelSHAP and SHAP-IQ have
laws of their own.

Every method draws from its own seed, so equal seeds give equal maps, and none touches the global
random state of numpy or torch.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression

from skact.arguments import Number, checked, float_array
from skact.extras import need
from skact.localization._game import A_GAME, Game
from skact.rows import Array

__all__ = [
    "check_budget",
    "explains_a_game",
    "halves",
    "kernel_shap",
    "lime",
    "only_player",
    "rise",
    "rise_map",
]


explains_a_game = checked(
    game=[A_GAME],
    n_masks=[Number(Integral, 1, None, closed="left")],
    random_state=[Number(Integral, 0, None, closed="left")],
)


def halves(n_players: int, n_masks: int, random_state: int) -> Array:
    """Masks (n_masks, n_players) that keep each player with probability one half."""
    rng = np.random.default_rng(random_state)
    return rng.random((n_masks, n_players)) < 0.5


def check_budget(n_players: int, n_masks: int, what: str = "the sample") -> None:
    """Raise a ValueError if there are not more masks than players."""
    if n_masks <= n_players:
        raise ValueError(
            f"n_masks={n_masks} is too small: {what} has {n_players} players, and "
            "perturbation needs more masks than players. Raise n_masks, shorten the samples, or "
            'take larger players: unit="word" for texts, "grid" or "segments" for images.'
        )


class _Drawn:
    """Captum's interpretable model that only takes the masks and weights of captum."""

    masks: Array
    weights: Array

    def fit(self, train_data: Any) -> None:
        masks, _, weights = (part.numpy().astype(np.float64) for part in next(iter(train_data)))
        self.masks, self.weights = masks, weights

    def representation(self) -> Array:
        return self.masks[:1]


def _surrogate(game: Game, method: str, n_masks: int, random_state: int) -> Array:
    """Weighted least squares on values of masks with captum's weights, for all targets at once."""
    check_budget(game.n_players, n_masks)
    attr = need("captum.attr", f'method="{method}"')
    import torch

    from skact.models import drawing

    def nothing(masks: Any) -> Any:
        return masks[:, 0]

    drawn = _Drawn()
    if method == "lime":
        own = iter(torch.from_numpy(halves(game.n_players, n_masks, random_state))[:, None])
        explainer = attr.Lime(nothing, perturb_func=lambda *args, **kwargs: next(own))
    else:
        explainer = attr.KernelShap(nothing)
    explainer.interpretable_model = drawn
    with drawing():
        torch.manual_seed(random_state)
        explainer.attribute(
            torch.ones(1, game.n_players),
            n_samples=n_masks,
            perturbations_per_eval=n_masks,
            return_input_shape=False,
        )
    values = game(drawn.masks.astype(bool))
    coefficients: Array = LinearRegression().fit(drawn.masks, values, drawn.weights).coef_.T
    return coefficients


@explains_a_game
def lime(game: Game, *, n_masks: int, random_state: int) -> Array:
    r"""Coefficients of a linear model around the untouched sample.

    .. math:: \min_{\beta_0, \beta} \sum_m \pi(m) \big(v(m) - \beta_0 - \beta' m\big)^2, \qquad
              \pi(m) = \exp\big(-\tfrac12 (1 - \cos(m, 1))^2\big)

    over masks :math:`m` in which each player is kept with probability one half [1]_, those of
    :func:`rise` for the same seed; the kernel is that of captum's ``Lime``. There is no penalty,
    which would shrink small values.

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


@explains_a_game
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
        return only_player(game)
    return _surrogate(game, "kernel_shap", n_masks, random_state)


def only_player(game: Game) -> Array:
    """All of the gain is that of the one player there is."""
    return np.diff(game(np.array([[False], [True]])), axis=0)


@explains_a_game
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
    masks = halves(game.n_players, n_masks, random_state)
    return rise_map(masks, game(masks))


@checked(masks=["array-like"], values=["array-like"])
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

    Raises
    ------
    ValueError
        If masks and values do not fit each other.

    References
    ----------
    .. [1] V. Petsiuk, A. Das and K. Saenko, "RISE: Randomized Input Sampling for Explanation of
       Black-box Models", BMVC 2018.
    """
    kept, values = float_array(masks, "masks"), float_array(values, "values")
    if kept.ndim != 2 or values.ndim != 2 or len(kept) != len(values):
        raise ValueError(
            "masks must be (n_masks, n_players) and values (n_masks, n_targets) of the same masks, "
            f"got shapes {kept.shape} and {values.shape}."
        )
    return kept.T @ values / np.maximum(kept.sum(axis=0), 1)[:, None]
