"""What was fitted on other tokens than an edit is refused."""

from __future__ import annotations

from typing import Any

from skact.tokens import Source

__all__ = ["check_origin", "check_source"]


def check_source(what: str, fitted: Source | None, here: Source | None) -> None:
    """Refuse what was fitted on another model, layer or scaling.

    Parameters
    ----------
    what : str
        What it is called.
    fitted, here : Source or None
        Where it comes from, and where it is used; None is unknown.

    Raises
    ------
    ValueError
        If both are known and differ.
    """
    if fitted is not None and here is not None and (field := fitted.conflict(here)):
        raise ValueError(
            f"{what} was fitted on another {field}: on ({fitted}), and is used on ({here})."
        )


def check_origin(what: str, fitted: Any, width: int, source: Source | None) -> None:
    """Refuse an estimator that reads tokens of another width or source; see `check_source`."""
    if fitted.n_features_in_ != width:
        raise ValueError(
            f"{what} was fitted on tokens of {fitted.n_features_in_} features, these have {width}."
        )
    check_source(what, getattr(fitted, "source_", None), source)
