"""The scores of all heads of a model as a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Such, checked, float_array, instance
from skact.extras import need
from skact.heads import HeadPursuit
from skact.rows import Array

__all__ = ["HeadScoresDisplay"]

_AX = Such("matplotlib Axes", lambda value: hasattr(value, "add_patch"))


class HeadScoresDisplay:
    """One cell per head, blocks downwards, the chosen heads outlined.

    Parameters
    ----------
    scores : array-like of shape (n_layers, n_heads)
        Score of each head.
    layers : sequence of int, default=None
        Blocks of the rows; None counts them from 0.
    support : array-like of shape (n_layers, n_heads), dtype bool, default=None
        Heads to outline.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        Its figure.

    Raises
    ------
    ValueError
        If an argument is of another kind or shape.

    Examples
    --------
    >>> from skact.inspection import HeadScoresDisplay
    >>> HeadScoresDisplay([[0.1, 0.4], [0.2, 0.3]], layers=[3, 7]).plot().ax_.get_ylabel()
    'block'
    """

    ax_: Any
    figure_: Any

    @checked(scores=["array-like"], layers=["array-like", None], support=["array-like", None])
    def __init__(
        self,
        scores: npt.ArrayLike,
        layers: Sequence[int] | Array | None = None,
        support: npt.ArrayLike | None = None,
    ) -> None:
        self.scores = float_array(scores, "scores")
        if self.scores.ndim != 2 or not self.scores.size or not np.isfinite(self.scores).all():
            raise ValueError(
                "scores must be a matrix of finite numbers, one row per block, got shape "
                f"{self.scores.shape}."
            )
        n_layers = len(self.scores)
        self.layers = np.arange(n_layers) if layers is None else np.asarray(layers)
        if self.layers.shape != (n_layers,) or self.layers.dtype.kind not in "iu":
            raise ValueError(
                f"layers must be {n_layers} ints, one per row of scores, got {layers!r}."
            )
        marks = np.zeros(self.scores.shape, bool) if support is None else np.asarray(support)
        if marks.shape != self.scores.shape or marks.dtype != bool:
            raise ValueError(
                f"support must hold bools of shape {self.scores.shape}, as scores, got "
                f"{marks.dtype} of shape {marks.shape}."
            )
        self.support = marks

    @classmethod
    @checked(
        pursuit=[instance("a fitted HeadPursuit(...)", HeadPursuit)],
        ax=[_AX, None],
        title=[str, None],
    )
    def from_estimator(
        cls, pursuit: HeadPursuit, *, ax: Any = None, title: str | None = None
    ) -> Self:
        """Draw the scores of a pursuit, its ``top_k`` heads outlined.

        Parameters
        ----------
        pursuit : HeadPursuit
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        title : str, default=None
            Title.

        Returns
        -------
        display : HeadScoresDisplay
            With ``ax_`` and ``figure_``.

        Raises
        ------
        NotFittedError
            If it is not fitted.
        """
        check_is_fitted(pursuit)
        display = cls(pursuit.head_scores_, pursuit.layers_, pursuit.get_support())
        return display.plot(ax=ax, title=title)

    @checked(ax=[_AX, None], title=[str, None])
    def plot(self, *, ax: Any = None, title: str | None = None) -> Self:
        """Draw the grid.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        title : str, default=None
            Title.

        Returns
        -------
        self : HeadScoresDisplay
            With ``ax_`` and ``figure_``.
        """
        plt = need("matplotlib.pyplot", "plot")
        n_layers, n_heads = self.scores.shape
        if ax is None:
            size = 1.8 + 0.3 * n_heads, 1.2 + 0.2 * n_layers
            _, ax = plt.subplots(figsize=size, layout="constrained")
        image = ax.imshow(self.scores, aspect="auto", cmap="viridis")
        for row, column in np.argwhere(self.support):
            corner = column - 0.5, row - 0.5
            ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=1.5))
        step = max(1, n_layers // 15)
        ax.set_yticks(np.arange(0, n_layers, step), self.layers[::step])
        ax.set_xticks(np.arange(0, n_heads, max(1, n_heads // 15)))
        ax.set(xlabel="head", ylabel="block")
        if title is not None:
            ax.set_title(title, parse_math=False)
        ax.figure.colorbar(image, ax=ax, label="explained share")
        self.ax_, self.figure_ = ax, ax.figure
        return self
