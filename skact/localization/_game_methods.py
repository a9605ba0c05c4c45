"""Methods that run copies of a sample of which some players are taken away.

The maths lies in functions on games; these objects hold what makes a game of a sample.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number
from skact.localization._game import Game
from skact.localization._interactions import shapiq, shapley_interactions
from skact.localization._method import AttributionMethod
from skact.localization._perturbation import check_budget, kernel_shap, lime, rise
from skact.localization._unit import UNITS, Unit
from skact.rows import Array

if TYPE_CHECKING:
    from skact.localization._samples import Sample, Samples

__all__ = ["LIME", "RISE", "SHAPIQ", "KernelSHAP", "PerturbationMethod"]


class PerturbationMethod(AttributionMethod):
    """A method that plays the game of which players of the sample are kept."""

    needs_copies = True

    _parameter_constraints = {
        "n_masks": [Number(Integral, 2, None, closed="left")],
        "baseline": [StrOptions({"auto", "mean", "black", "blur", "mask", "pad", "delete"})],
        "unit": [StrOptions({name for names in UNITS.values() for name in names})],
        "cell_size": [Number(Integral, 1, None, closed="left")],
        "n_segments": [Number(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_masks: int = 1000,
        *,
        baseline: str = "auto",
        unit: str = "token",
        cell_size: int = 2,
        n_segments: int = 50,
    ) -> None:
        self.n_masks = n_masks
        self.baseline = baseline
        self.unit = unit
        self.cell_size = cell_size
        self.n_segments = n_segments

    @property
    def players(self) -> Unit:
        """What is one player, from the settings."""
        return Unit(self.unit, self.cell_size, self.n_segments)

    @abstractmethod
    def _attribute(self, game: Game, random_state: int) -> Array:
        """Attributions of the players."""

    def _explain(self, sample: Sample, random_state: int) -> Array:
        game = sample.game(self.baseline, self.players)
        return self._attribute(game, random_state)[game.players]

    def _probe(self, sample: Sample) -> None:
        sample.game(self.baseline, self.players)

    def _check_budget(self, samples: Samples) -> None:
        for i, n_players in enumerate(samples.n_players(self.players).tolist()):
            check_budget(n_players, self.n_masks, f"sample {i}")


class RISE(PerturbationMethod):
    r"""Mean value of the random masks that keep a player: :func:`~skact.localization.rise`.

    .. math:: A_i = \frac{\sum_m v(m)\, m_i}{\sum_m m_i}

    over masks m that keep each player with probability one half, with the explained function v of
    what is kept.

    Parameters
    ----------
    n_masks : int, default=1000
        Perturbed copies per sample, for all concepts; more than it has players.
    baseline : {"auto", "mean", "black", "blur", "mask", "pad", "delete"}, default="auto"
        What takes the place of a player. Images: the mean colour of the image ("auto"), black, or
        the blurred image. Texts: the mask token ("auto" where there is one), padding that is not
        attended to, or nothing ("auto" elsewhere). The mean of the explained function is over the
        tokens that are left, 0 where none is.
    unit : {"token", "word", "grid", "segments"}, default="token"
        What is one player: a token or patch; for texts, a run of characters without white space;
        for images, a square of patches, or a superpixel of what the model is shown, by SLIC
        (needs scikit-image). The value of a player is given to each of its tokens.
    cell_size : int, default=2
        Patches along each side of a square of ``unit="grid"``; at most those of the image.
    n_segments : int, default=50
        Superpixels that ``unit="segments"`` asks for; there may be a few more or fewer.

    References
    ----------
    V. Petsiuk, A. Das and K. Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models", BMVC 2018.

    Examples
    --------
    >>> from skact.localization import RISE
    >>> RISE(n_masks=500)
    RISE(n_masks=500)
    """

    name = "rise"

    def _attribute(self, game: Game, random_state: int) -> Array:
        return rise(game, n_masks=self.n_masks, random_state=random_state)


class LIME(PerturbationMethod):
    r"""Coefficients of a linear model around the sample: :func:`~skact.localization.lime`.

    .. math:: A = \beta, \qquad \min_{\beta_0, \beta} \sum_m \pi(m) \big(v(m) - \beta_0 - \beta'
              m\big)^2, \qquad \pi(m) = \exp\big(-\tfrac12 (1 - \cos(m, 1))^2\big)

    over masks m that keep each player with probability one half. Needs captum.

    Parameters
    ----------
    n_masks, baseline, unit, cell_size, n_segments : as in :class:`~skact.localization.RISE`
        Copies, what takes the place of a player, and what is one.

    References
    ----------
    M. T. Ribeiro, S. Singh and C. Guestrin, "Why Should I Trust You? Explaining the Predictions of
    Any Classifier", KDD 2016.

    Examples
    --------
    >>> from skact.localization import LIME
    >>> LIME(n_masks=200, unit="word")
    LIME(n_masks=200, unit='word')
    """

    name = "lime"
    library = "captum.attr"

    def _attribute(self, game: Game, random_state: int) -> Array:
        return lime(game, n_masks=self.n_masks, random_state=random_state)


class KernelSHAP(PerturbationMethod):
    r"""Shapley values as a weighted regression: :func:`~skact.localization.kernel_shap`.

    .. math:: A_i = \sum_{S \not\ni i} \frac{|S|!\,(n - |S| - 1)!}{n!}
              \big(v(S \cup \{i\}) - v(S)\big)

    estimated by the additive fit to random sets S of the n players under the Shapley kernel. Needs
    captum.

    Parameters
    ----------
    n_masks, baseline, unit, cell_size, n_segments : as in :class:`~skact.localization.RISE`
        Copies, what takes the place of a player, and what is one.

    References
    ----------
    S. M. Lundberg and S.-I. Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS
    2017.

    Examples
    --------
    >>> from skact.localization import KernelSHAP
    >>> KernelSHAP(baseline="delete")
    KernelSHAP(baseline='delete')
    """

    name = "kernel_shap"
    library = "captum.attr"

    def _attribute(self, game: Game, random_state: int) -> Array:
        return kernel_shap(game, n_masks=self.n_masks, random_state=random_state)


class SHAPIQ(PerturbationMethod):
    r"""Shapley values and interactions by SHAP-IQ: :func:`~skact.localization.shapiq`.

    .. math:: \phi_U = \sum_T v(T)\, (-1)^{u - k} \frac{(t - k)!\,(n - t - u + k)!}{(n - u + 1)!},
              \qquad t = |T|,\ u = |U|,\ k = |T \cap U|,

    with sets U of one player for the map, and of two for interactions. Needs shapiq, for the
    coalitions.

    Parameters
    ----------
    n_masks, baseline, unit, cell_size, n_segments : as in :class:`~skact.localization.RISE`
        Copies, what takes the place of a player, and what is one.

    References
    ----------
    F. Fumagalli, M. Muschalik, P. Kolpaczki, E. Hüllermeier and B. Hammer, "SHAP-IQ: Unified
    Approximation of any-order Shapley Interactions", NeurIPS 2023.

    Examples
    --------
    >>> from skact.localization import SHAPIQ
    >>> SHAPIQ(baseline="blur")
    SHAPIQ(baseline='blur')
    """

    name = "shapiq"
    library = "shapiq"

    def _attribute(self, game: Game, random_state: int) -> Array:
        return shapiq(game, n_masks=self.n_masks, random_state=random_state)

    def interactions(self, samples: Samples, random_state: int) -> Iterator[Array]:
        """Pairwise interactions of the players of all samples.

        Parameters
        ----------
        samples : Samples
            The samples.
        random_state : int
            Seed of each of them.

        Yields
        ------
        pairs : ndarray of shape (n_concepts, n_players, n_players), dtype float64
            One per sample; NaN where it has no target.
        """
        self._check_budget(samples)
        for i, missing in enumerate(samples.missing):
            game = samples.sample(i).game(self.baseline, self.players)
            pairs = np.full((len(missing), game.n_players, game.n_players), np.nan)
            if not missing.all():
                found = shapley_interactions(game, n_masks=self.n_masks, random_state=random_state)
                pairs[~missing] = found.pairs
            yield pairs
