"""The model that heads belong to, by whatever it is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from skact import models
from skact.arguments import instance
from skact.embedding import TransformerEmbedder
from skact.models import DetachedPair
from skact.tokens import Source
from skact.warning import warn

__all__ = ["MODEL", "check_model", "check_vectors", "loaded_of", "warn_of_blocks"]

#: What names a model: all that an embedder takes, or an embedder.
MODEL = instance(
    "a name, a folder, a loaded pair (model, tokenizer or image processor), or an embedder "
    "TransformerEmbedder(...)",
    *(str, Path, tuple, DetachedPair, TransformerEmbedder),
)


def loaded_of(model: Any) -> models.Loaded:
    """Load a model, or that of an embedder, to be read at its residual stream."""
    embedder = model if isinstance(model, TransformerEmbedder) else TransformerEmbedder(model)
    return clone(embedder).set_params(site="residual").reader.loaded


def check_vectors(vectors: Any, loaded: models.Loaded) -> int | None:
    """Refuse a concept method that was not fitted on the stream of a model as it is.

    Parameters
    ----------
    vectors : concept method or array-like
        Numbers say nothing of where they are from, and pass.
    loaded : Loaded
        The model.

    Returns
    -------
    block : int or None
        After which the tokens were read that the method was fitted on; None if it is not known.

    Raises
    ------
    NotFittedError
        If the method is not fitted.
    ValueError
        If its tokens are of another model or site, or were scaled.
    """
    if not isinstance(vectors, BaseEstimator):
        return None
    check_is_fitted(vectors)
    source: Source | None = getattr(vectors, "source_", None)
    if source is None:
        return None
    here = Source(loaded.name, loaded.revision, site="residual")
    if field := replace(source, block=None, convention=None).conflict(here):
        raise ValueError(
            f"vectors were fitted on another {field}: on ({source}), and are used on ({here})."
        )
    if source.scaling is not None:
        raise ValueError(
            f"vectors were fitted on scaled tokens ({source}), and heads read raw ones; fit the "
            "method on tokens without a scaler."
        )
    return source.block


def warn_of_blocks(fitted: Mapping[int, int | None]) -> None:
    """Warn once of blocks whose vectors were not fitted on what enters them.

    Parameters
    ----------
    fitted : mapping of int to int or None
        By block, the one after which the tokens of its vectors were read; None is not known.
    """
    others = {block: at for block, at in fitted.items() if at not in (None, block - 1)}
    if others:
        block, at = next(iter(others.items()))
        warn(
            f"vectors of {len(others)} of {len(fitted)} blocks, {list(others)}, were not fitted on "
            f"the stream that enters the block: those of block {block} on that after block {at}, "
            f"not after block {block - 1}. Fit a method on the block before each."
        )


def check_model(source: Source | None, loaded: models.Loaded) -> None:
    """Refuse activations of another model.

    Raises
    ------
    ValueError
        If model or revision of the source are known and not those of the model.
    """
    if source is None:
        return
    here = Source(loaded.name, loaded.revision)
    if field := Source(source.model, source.revision).conflict(here):
        raise ValueError(
            f"X comes from another {field} than the model given: from ({source}), this is ({here})."
        )
