r"""Is a map faithful to the function it explains? Insertion and deletion curves.

Let a map order the :math:`n` tokens of a sample, the highest attribution first, and let
:math:`S_k` be the first :math:`k` of them. With :math:`g(S)` the explained function where only the
tokens of :math:`S` are kept, the curves are

.. math:: I(k/n) = g(S_k), \qquad D(k/n) = g(N \setminus S_k), \qquad k = 0, \dots, n,

and their areas over :math:`[0, 1]` by the trapezoidal rule. A faithful map has a large insertion
area and a small deletion area [1]_. Areas are in units of :math:`g`, as published; their difference
does not depend on the origin of :math:`g`. Where all tokens give more than none,

.. math:: \tilde g(S) = \frac{g(S) - g(\emptyset)}{g(N) - g(\emptyset)}

puts the ends at 0 and 1 [2]_. A mean over the tokens of a sample can be larger for the baseline
alone than for the sample, and then this scale means nothing: compare the differences instead.

Two controls come with the method. The **reversed** order swaps the two areas, because
:math:`N \setminus S_k` is the first :math:`n - k` of it. A **random** order says what the areas are
without any map. For an additive function, :math:`g(S) = b + \sum_{i \in S} a_i`, every order has
:math:`I + D = g(\emptyset) + g(N)`, a random order has half of that on average in each area, and no
order has a larger insertion area than that of :math:`a`.

References
----------
.. [1] V. Petsiuk, A. Das and K. Saenko, "RISE: Randomized Input Sampling for Explanation of
   Black-box Models", BMVC 2018.
.. [2] K. Schulz, L. Sixt, F. Tombari and T. Landgraf, "Restricting the Flow: Information
   Bottlenecks for Attribution", ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number, Such, checked, float_array
from skact.localization._game import A_GAME, Game
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = ["Curve", "FaithfulnessResult", "deletion_curve", "faithfulness", "insertion_curve"]


_SETTINGS = {
    "n_steps": [Number(Integral, 1, None, closed="left"), None],
    "order": [StrOptions({"attribution", "reversed", "random"})],
    "random_state": ["random_state"],
}


class Curve(NamedTuple):
    """Values of the explained function while tokens are added or removed.

    Parameters
    ----------
    shares : ndarray of shape (n_points,), dtype float64
        Share of the tokens added or removed, from 0 to 1.
    values : ndarray of shape (n_points, n_targets), dtype float64
        The function of each target, along the order of its own map; NaN where not asked for.
    """

    shares: Array
    values: Array

    @property
    def area(self) -> Array:
        """Area under each target's curve, of shape (n_targets,)."""
        return np.trapezoid(self.values, self.shares, axis=0)


@dataclass(frozen=True)
class FaithfulnessResult:
    """Insertion and deletion of many samples.

    Pairs of sample and target that were not asked for are NaN everywhere.

    Parameters
    ----------
    insertion_curves, deletion_curves : tuple of n_samples Curve
        The curves of each sample; samples of other lengths have other shares.

    Attributes
    ----------
    insertion, deletion : ndarray of shape (n_samples, n_targets), dtype float64
        Areas under the curves.
    gap : ndarray of shape (n_samples, n_targets), dtype float64
        Insertion minus deletion: the larger, the more faithful.
    empty, full : ndarray of shape (n_samples, n_targets), dtype float64
        The function of no token, and of all tokens.
    """

    insertion_curves: tuple[Curve, ...]
    deletion_curves: tuple[Curve, ...]

    @property
    def insertion(self) -> Array:
        """Areas under the insertion curves."""
        return np.stack([curve.area for curve in self.insertion_curves])

    @property
    def deletion(self) -> Array:
        """Areas under the deletion curves."""
        return np.stack([curve.area for curve in self.deletion_curves])

    @property
    def gap(self) -> Array:
        """Insertion areas minus deletion areas."""
        return self.insertion - self.deletion

    @property
    def empty(self) -> Array:
        """The function of no token."""
        return np.stack([curve.values[0] for curve in self.insertion_curves])

    @property
    def full(self) -> Array:
        """The function of all tokens."""
        return np.stack([curve.values[-1] for curve in self.insertion_curves])

    @checked(tolerance=[Number(Real, 0, None, closed="left")])
    def normalized(self, tolerance: float = 1e-6) -> FaithfulnessResult:
        """Put every curve on the scale from no token (0) to all tokens (1).

        Parameters
        ----------
        tolerance : float, default=1e-6
            A pair becomes NaN where all tokens give no more than this above none: it has no scale.

        Returns
        -------
        result : FaithfulnessResult
            The curves after the affine map of the module's formula.
        """
        empty = self.empty
        span = self.full - empty
        # A NaN stays NaN, so a comparison that is false for it will do.
        span[span <= tolerance] = np.nan

        def scaled(curves: tuple[Curve, ...]) -> tuple[Curve, ...]:
            return tuple(
                Curve(curve.shares, (curve.values - low) / wide)
                for curve, low, wide in zip(curves, empty, span, strict=True)
            )

        return FaithfulnessResult(scaled(self.insertion_curves), scaled(self.deletion_curves))


@checked(game=[A_GAME], attribution=["array-like"], **_SETTINGS)
def insertion_curve(
    game: Game,
    attribution: npt.ArrayLike,
    *,
    n_steps: int | None = None,
    order: str = "attribution",
    random_state: Any = None,
) -> Curve:
    """Add the tokens of one sample in the order of their attribution.

    Parameters
    ----------
    game : callable with n_players and n_targets
        ``game(masks)`` of bool masks (n_masks, n_players), True where a player is kept, gives the
        explained function as float64 (n_masks, n_targets). It is called once. Players are tokens,
        unless ``game.players`` says which player each token belongs to (a word).
    attribution : array-like of shape (n_tokens, n_targets)
        The map of each target. A player of several tokens has the mean of their attributions;
        among equal values the earlier player comes first.
    n_steps : int, default=None
        Largest number of steps, of near equal size; None adds the tokens one by one.
    order : {"attribution", "reversed", "random"}, default="attribution"
        The order, or a control: the same backwards, or one random order for all targets.
    random_state : int, RandomState instance or None, default=None
        Draws the random order.

    Returns
    -------
    curve : Curve
        From no token to all tokens.

    Raises
    ------
    ValueError
        If the map does not fit the game or is not finite, or a setting is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.localization import insertion_curve
    >>> class Sum:
    ...     n_players, n_targets = 3, 1
    ...
    ...     def __call__(self, masks):
    ...         return masks @ np.array([[1.0], [0.0], [3.0]])
    >>> insertion_curve(Sum(), [[0.1], [0.0], [0.3]]).values.ravel()
    array([0., 3., 4., 4.])
    """
    return _one_curve(game, attribution, "insertion", n_steps, order, random_state)


@checked(game=[A_GAME], attribution=["array-like"], **_SETTINGS)
def deletion_curve(
    game: Game,
    attribution: npt.ArrayLike,
    *,
    n_steps: int | None = None,
    order: str = "attribution",
    random_state: Any = None,
) -> Curve:
    """Remove the tokens of one sample in the order of their attribution.

    Parameters
    ----------
    game, attribution, n_steps, order, random_state : as in :func:`insertion_curve`
        The explained function, the map, the steps, the order.

    Returns
    -------
    curve : Curve
        From all tokens to no token.

    Raises
    ------
    ValueError
        As in :func:`insertion_curve`.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.localization import deletion_curve
    >>> class Sum:
    ...     n_players, n_targets = 3, 1
    ...
    ...     def __call__(self, masks):
    ...         return masks @ np.array([[1.0], [0.0], [3.0]])
    >>> deletion_curve(Sum(), [[0.1], [0.0], [0.3]]).area.round(3)
    array([1.])
    """
    return _one_curve(game, attribution, "deletion", n_steps, order, random_state)


@checked(
    games=[Such("an iterable of games", lambda value: isinstance(value, Iterable))],
    attributions=["array-like"],
    pairs=["array-like", None],
    **_SETTINGS,
)
def faithfulness(
    games: Iterable[Game],
    attributions: TokenArray | Sequence[npt.ArrayLike],
    *,
    pairs: npt.ArrayLike | None = None,
    n_steps: int | None = None,
    order: str = "attribution",
    random_state: Any = None,
) -> FaithfulnessResult:
    """Compute insertion and deletion of many samples.

    All masks of a sample, of both curves and of all targets, go through its game in one call, and
    equal masks only once.

    Parameters
    ----------
    games : iterable of n_samples games
        Explained functions as in :func:`insertion_curve`, e.g. ``localizer.games(X)``.
    attributions : TokenArray of shape (n_samples, n_targets), or list of arrays
        For each sample (n_tokens, n_targets), e.g. ``localizer.transform(X)``.
    pairs : array-like of shape (n_samples, n_targets), dtype bool, default=None
        Pairs of sample and target to compute; None is all of them. The map of another pair is not
        read, and a sample without any is not run.
    n_steps, order : as in :func:`insertion_curve`
        The steps and the order.
    random_state : int, RandomState instance or None, default=None
        Draws one random order per sample.

    Returns
    -------
    result : FaithfulnessResult
        Curves, areas and ends.

    Raises
    ------
    ValueError
        If games, maps and pairs differ in samples, tokens or targets, a map that is read is not
        finite, or a setting is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.localization import faithfulness
    >>> class Sum:
    ...     n_players, n_targets = 3, 1
    ...
    ...     def __call__(self, masks):
    ...         return masks @ np.array([[1.0], [0.0], [3.0]])
    >>> result = faithfulness([Sum(), Sum()], [[[1], [0], [3]], [[0], [1], [-1]]])
    >>> result.insertion.ravel().round(2)
    array([3., 1.])
    """
    n_samples = len(attributions)
    if not n_samples:
        raise ValueError("attributions has no samples.")
    wanted = None if pairs is None else np.asarray(pairs)
    if wanted is not None and (
        wanted.dtype != bool or wanted.ndim != 2 or len(wanted) != n_samples
    ):
        raise ValueError(
            f"pairs must be bool of shape ({n_samples}, n_targets), got shape {wanted.shape} of "
            f"dtype {wanted.dtype}."
        )
    rng = check_random_state(random_state)
    curves: list[tuple[Curve, Curve]] = []
    for i, game in enumerate(games):
        if i == n_samples:
            raise ValueError(f"games has more than the {n_samples} samples of attributions.")
        if not A_GAME.is_satisfied_by(game):
            raise ValueError(f"sample {i}: games must hold {A_GAME}, got {game!r}.")
        columns = np.ones(game.n_targets, bool) if wanted is None else wanted[i]
        try:
            both = _curves(game, attributions[i], columns, n_steps, order, rng)
        except ValueError as error:
            raise ValueError(f"sample {i}: {error}") from error
        curves.append((both["insertion"], both["deletion"]))
    if len(curves) < n_samples:
        raise ValueError(f"games has {len(curves)} samples, attributions has {n_samples}.")
    insertion, deletion = zip(*curves, strict=True)
    return FaithfulnessResult(insertion, deletion)


def _one_curve(
    game: Game,
    attribution: npt.ArrayLike,
    kind: str,
    n_steps: int | None,
    order: str,
    random_state: Any,
) -> Curve:
    columns, rng = np.ones(game.n_targets, bool), check_random_state(random_state)
    return _curves(game, attribution, columns, n_steps, order, rng, (kind,))[kind]


def _curves(
    game: Game,
    attribution: npt.ArrayLike,
    columns: Array,
    n_steps: int | None,
    order: str,
    rng: np.random.RandomState,
    kinds: Sequence[str] = ("insertion", "deletion"),
) -> dict[str, Curve]:
    """Curves of some columns of one sample, from one call of its game."""
    scores = _of_players(float_array(attribution, "attribution"), game, columns)
    counts = _counts(len(scores), n_steps)
    ranks = _ranks(scores, order, rng)
    added = ranks.T[:, None, :] < counts[:, None]
    masks = {"insertion": added, "deletion": ~added}
    values = np.full((len(kinds), len(counts), len(columns)), np.nan)
    if columns.any():
        stacked = np.concatenate([masks[kind].reshape(-1, len(scores)) for kind in kinds])
        found = _values(game, stacked).reshape(len(kinds), -1, *values.shape[1:])
        # Of each order, only the column of its own target is read.
        for row, column in enumerate(np.flatnonzero(columns)):
            values[:, :, column] = found[:, row, :, column]
    return {kind: Curve(counts / len(scores), v) for kind, v in zip(kinds, values, strict=True)}


def _of_players(attribution: Array, game: Game, columns: Array) -> Array:
    """Attributions of the players, (n_players, n_columns)."""
    players = getattr(game, "players", np.arange(game.n_players))
    shape = (len(players), game.n_targets)
    if attribution.shape != shape:
        raise ValueError(f"the attribution must have shape {shape}, got {attribution.shape}.")
    if columns.shape != shape[1:]:
        raise ValueError(f"pairs has {len(columns)} targets, the game has {shape[1]}.")
    scores = attribution[:, columns]
    if not np.isfinite(scores).all():
        raise ValueError("the attribution holds NaN or infinity; leave the pair out with pairs.")
    totals = np.zeros((game.n_players, scores.shape[1]))
    np.add.at(totals, players, scores)
    return totals / np.bincount(players, minlength=game.n_players)[:, None]


def _counts(n_players: int, n_steps: int | None) -> Array:
    """Numbers of tokens added at the points of a curve."""
    steps = n_players if n_steps is None else min(n_steps, n_players)
    return np.rint(np.linspace(0, n_players, steps + 1)).astype(np.int64)


def _ranks(scores: Array, order: str, rng: np.random.RandomState) -> Array:
    """Place of each token in the order of each column, (n_players, n_columns)."""
    if order == "random":
        # One order for all targets: they then share their masks.
        return np.repeat(rng.permutation(len(scores))[:, None], scores.shape[1], axis=1)
    ranks = np.argsort(np.argsort(-scores, axis=0, kind="stable"), axis=0)
    return len(scores) - 1 - ranks if order == "reversed" else ranks


def _values(game: Game, masks: Array) -> Array:
    """Ask the game for each mask, but for equal masks once."""
    _, first, place = np.unique(
        np.packbits(masks, axis=1), axis=0, return_index=True, return_inverse=True
    )
    values = np.asarray(game(masks[first]), dtype=np.float64)
    if values.shape != (len(first), game.n_targets):
        raise ValueError(
            f"the game must return shape ({len(first)}, {game.n_targets}), got {values.shape}."
        )
    return values[place.reshape(-1)]
