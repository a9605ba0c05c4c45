"""What edits of a live model do, against strength, with random directions and prompting."""

from __future__ import annotations

from typing import Any, Self

from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions

from skact.arguments import checked, instance
from skact.extras import need
from skact.inspection._display import AXES

__all__ = ["SteeringDisplay"]

_VALUES = {
    "concept": "concept score",
    "relative_perplexity": "relative perplexity",
    "harmonic_mean": "harmonic mean of concept and fluency",
    "distinct_2": "distinct-2",
    "kl": "divergence on neutral texts",
}


class SteeringDisplay:
    """One figure of a steering report against strength, with intervals over prompts.

    A line with its interval for each edit; beside it, dotted, the median of its random directions,
    over all that they came to; horizontally what prompting does, and the model as it is.

    Parameters
    ----------
    result : Bunch
        From :func:`skact.steering_report`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        Its figure.

    Raises
    ------
    ValueError
        If it is no such result.
    """

    ax_: Any
    figure_: Any

    @checked(result=[instance("a Bunch(...), or a dict of the same", dict)])
    def __init__(self, result: Any) -> None:
        if not hasattr(result.get("frame"), "groupby") or "harmonic_mean" not in result["frame"]:
            raise ValueError("result must be what steering_report returns, but lacks its 'frame'.")
        self.result = Bunch(**result)

    @checked(value=[StrOptions(set(_VALUES))], ax=[AXES, None])
    def plot(self, value: str = "harmonic_mean", *, ax: Any = None) -> Self:
        """Draw a figure.

        Parameters
        ----------
        value : str, default="harmonic_mean"
            "concept", "relative_perplexity", "harmonic_mean", "distinct_2" or "kl".
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : SteeringDisplay
            With ``ax_`` and ``figure_``.
        """
        plt = need("matplotlib.pyplot", "plot")
        if ax is None:
            _, ax = plt.subplots(figsize=(6, 4), layout="constrained")
        frame = self.result.frame
        for name, mine in frame[frame["kind"] == "edit"].groupby("name", sort=False):
            mine = mine.sort_values("strength")
            style: dict[str, Any] = {"marker": "o", "ms": 3, "label": name}
            (line,) = ax.plot(mine["strength"], mine[value], **style)
            low, high = mine[f"{value}_low"], mine[f"{value}_high"]
            ax.fill_between(mine["strength"], low, high, alpha=0.2, color=line.get_color(), lw=0)
            drawn = frame[(frame["kind"] == "random") & (frame["name"] == name)]
            by_strength = drawn.groupby("strength")[value]
            middle, least, most = by_strength.median(), by_strength.min(), by_strength.max()
            style = {"color": line.get_color(), "ls": ":", "label": f"{name}, random directions"}
            if len(drawn):
                ax.plot(middle.index, middle, **style)
                ax.fill_between(middle.index, least, most, alpha=0.1, color="0.5", lw=0)
        for _, row in frame[frame["kind"] == "prompting"].iterrows():
            (line,) = ax.plot([], [], ls="--", color="0.3", label=row["name"])
            ax.axhline(row[value], ls="--", color="0.3", lw=1)
            ax.axhspan(row[f"{value}_low"], row[f"{value}_high"], color="0.3", alpha=0.08, lw=0)
        (plain,) = frame[frame["kind"] == "none"][value]
        ax.axhline(plain, color="0.7", lw=1, label="not steered")
        ax.set(xlabel="strength", ylabel=_VALUES[value])
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
