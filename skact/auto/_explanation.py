"""Scores and marks of tokens as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skact.extras import need
from skact.models import Patch
from skact.rows import Array, positions_of
from skact.tokens import TokenArray

__all__ = ["explanation"]


def explanation(
    pieces: Sequence[Sequence[Any]], names: Sequence[str], scores: TokenArray, marks: TokenArray
) -> Any:
    """Make a data frame with a row for each token and concept.

    Parameters
    ----------
    pieces : sequence of n_samples sequences of Token, ChatToken or Patch
        What the tokens are.
    names : sequence of n_concepts str
        Names of the concepts.
    scores, marks : TokenArray of shape (n_samples, n_concepts)
        Of the same tokens.

    Returns
    -------
    table : pandas.DataFrame
        Sample after sample, token after token, concept after concept.
    """
    pandas = need("pandas", "explain")
    lengths, n_concepts = scores.lengths, len(names)
    columns: dict[str, Any] = {
        "sample": np.repeat(np.arange(len(lengths)), lengths),
        "token": positions_of(lengths),
    }
    flat = [piece for sample in pieces for piece in sample]
    if isinstance(flat[0], Patch):
        boxes = np.array([piece.box for piece in flat], np.float64)
        columns |= dict(zip(("left", "top", "right", "bottom"), boxes.T, strict=True))
    else:
        fields = type(flat[0])._fields
        columns |= {name: [getattr(piece, name) for piece in flat] for name in fields}
    rows: dict[str, Array] = {
        name: np.repeat(np.asarray(column), n_concepts) for name, column in columns.items()
    }
    return pandas.DataFrame(
        rows
        | {
            "concept": np.tile(np.asarray(names, object), len(flat)),
            "score": scores.flat().ravel(),
            "mark": marks.flat().ravel(),
        }
    )
