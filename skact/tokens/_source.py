"""Where activations come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal, get_args

from skact.arguments import check_characters

__all__ = ["Columns", "Site", "Source", "common", "rescaled"]

Columns = Literal["features", "concepts", "units"]
Labels = Literal["samples", "tokens"]
# What is said of scores, not of the activations behind them.
_OF_SCORES = ("columns", "labels")
Site = Literal["residual", "attention", "mlp", "heads"]


@dataclass(frozen=True)
class Source:
    """Where activations come from; a field that is None is unknown.

    Parameters
    ----------
    model : str or None
        Name or folder of the model.
    revision : str or None
        Commit of the model, or a fingerprint of its weights and active adapters.
    block : int or None
        0-based transformer block after which the activations were taken.
    convention : str or None
        What was read there, e.g. ``"residual stream, tokens"``.
    scaling : str or None
        Fingerprint of the scaler the activations went through.
    columns : {"features", "concepts", "units"}
        What a column is: a feature of the model, the score of a labelled concept, or the score of
        a unit that was found without labels.
    site : {"residual", "attention", "mlp", "heads"} or None
        The residual stream after the block, what a branch of the block adds to it, or what enters
        the output projection of its attention.
    labels : {"samples", "tokens"} or None
        Whether the concept method that the columns are scores of was given labels of tokens, or of
        samples alone.
    """

    model: str | None = None
    revision: str | None = None
    block: int | None = None
    convention: str | None = None
    scaling: str | None = None
    columns: Columns = "features"
    site: Site | None = None
    labels: Labels | None = None

    def __post_init__(self) -> None:
        for name in ("model", "revision", "convention", "scaling"):
            value = getattr(self, name)
            if not isinstance(value, str | None):
                raise TypeError(f"{name} must be a str or None, got {value!r}.")
            check_characters(value, name)
        if isinstance(self.block, bool) or not isinstance(self.block, Integral | None):
            raise TypeError(f"block must be an int or None, got {self.block!r}.")
        if not isinstance(self.columns, str) or self.columns not in get_args(Columns):
            raise ValueError(f"columns must be one of {get_args(Columns)}, got {self.columns!r}.")
        if not isinstance(self.site, str | None) or self.site not in (None, *get_args(Site)):
            raise ValueError(f"site must be one of {get_args(Site)} or None, got {self.site!r}.")
        if not isinstance(self.labels, str | None) or self.labels not in (None, *get_args(Labels)):
            raise ValueError(
                f"labels must be one of {get_args(Labels)} or None, got {self.labels!r}."
            )

    def conflict(self, other: Source) -> str | None:
        """Name the first field in which two known sources disagree.

        Parameters
        ----------
        other : Source
            The source to compare with.

        Returns
        -------
        field : str or None
            None if everything that both sides know agrees. The same revision under two names is
            the same model: a folder may have moved.
        """
        if not isinstance(other, Source):
            raise TypeError(f"other must be a Source(...), got {other!r}.")
        same_weights = self.revision is not None and self.revision == other.revision
        for field in ("model", "revision", "block", "site", "convention", "scaling"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if None not in (mine, theirs) and mine != theirs:
                if field == "model" and same_weights:
                    continue
                return field
        return None

    def __str__(self) -> str:
        known = {k: v for k, v in vars(self).items() if v is not None and k not in _OF_SCORES}
        return ", ".join(f"{k} {v}" for k, v in known.items()) or "unknown"


def common(sources: Iterable[Source | None]) -> Source | None:
    """Keep what all sources agree on; the rest is unknown.

    Parameters
    ----------
    sources : iterable of Source or None
        One or more.

    Returns
    -------
    source : Source or None
        None if nothing is agreed on, one is None, or columns are not of one kind.
    """
    first, *others = set(sources)
    if not others:
        return first
    known = [vars(source) for source in (first, *others) if source is not None]
    agreed = {k: v for k, v in known[0].items() if all(v == other[k] for other in known)}
    if len(known) <= len(others) or "columns" not in agreed:
        return None
    source = Source(**agreed)
    return None if source == Source() else source


def rescaled(source: Source | None, scaling: str) -> Source:
    """Return a source whose activations went through a scaler."""
    source = source or Source()
    return replace(
        source, scaling=scaling if source.scaling is None else f"{source.scaling}, {scaling}"
    )
