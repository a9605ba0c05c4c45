"""What a user says about samples, in whichever form, as labels of samples and of tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skact.auto._encoder import ConceptEncoder, encoder_of_names, read_labels
from skact.embedding import TransformerEmbedder
from skact.rows import Array
from skact.targets import (
    Targets,
    as_token_labels,
    check_label_lengths,
    check_token_labels,
    column_names,
)
from skact.tokens import TokenArray

__all__ = ["Labels", "read"]


class Labels(NamedTuple):
    """Labels of samples, and of tokens where there are some.

    Parameters
    ----------
    encoder : ConceptEncoder
        The concepts.
    present : ndarray of shape (n_samples, n_concepts), dtype float64
        0, 1, or NaN where it is unknown.
    tokens : TokenArray of bool or None
        Labels of tokens.
    """

    encoder: ConceptEncoder
    present: Array
    tokens: TokenArray | None

    def of_tokens(self, tokens: TokenArray) -> TokenArray:
        """Labels of these tokens; without any, every token of a sample counts as it does."""
        names = self.encoder.names
        if self.tokens is not None:
            return self.tokens.with_values(self.tokens.flat(), names).with_source(None)
        weak = np.repeat(self.present == 1, tokens.lengths, axis=0)
        return tokens.with_values(weak, names).with_source(None)


def read(
    embedder: TransformerEmbedder,
    samples: list[Any],
    y: Any,
    token_labels: Any,
    spans: Any,
    masks: Any,
) -> Labels:
    """Read what is said about samples.

    Parameters
    ----------
    embedder : TransformerEmbedder
        Knows tokens and patches.
    samples : list of n_samples raw samples
        Texts or images.
    y, token_labels, spans, masks : as in ConceptDetector.fit
        What is said.

    Returns
    -------
    labels : Labels
        Checked; nothing was embedded.

    Raises
    ------
    ValueError, TypeError
        If nothing is said, or what is said does not fit together.
    """
    there = {"token_labels": token_labels, "spans": spans, "masks": masks}
    given = [name for name, value in there.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"give one of token_labels, spans and masks, got {' and '.join(given)}.")
    if y is None and not given:
        raise ValueError("fit needs y, token_labels, spans or masks; got none of them.")
    encoder = None if y is None else read_labels(y, len(samples))
    if not given:
        assert encoder is not None
        return Labels(encoder, encoder.encode(y), None)
    names = None if encoder is None else encoder.names
    if masks is not None:
        tokens = embedder.align_masks(samples, masks, names)
    elif spans is not None:
        is_named = column_names(y) is not None or (
            encoder is not None and encoder.kind == "multiclass"
        )
        tokens = embedder.align_spans(samples, spans, names if is_named else None)
        if encoder is not None and not is_named:
            _check_only_one(tokens.n_features, len(encoder.names))
    else:
        tokens = as_token_labels(token_labels)
        check_label_lengths(tokens, embedder.prepare(samples).n_tokens, "raw")
    if encoder is None:
        encoder = encoder_of_names(tokens.feature_names, tokens.n_features)
        present = tokens.max().astype(np.float64)
    else:
        present = encoder.encode(y)
        unnamed = tokens.with_values(tokens.flat())
        check_token_labels(unnamed, unnamed, Targets(present != 0, encoder.names, None))
    return Labels(encoder, present, tokens)


def _check_only_one(n_labels: int, n_concepts: int) -> None:
    if n_labels != 1 or n_concepts != 1:
        raise ValueError(
            f"spans name {n_labels} labels, and the {n_concepts} concepts of y have no names to go "
            "with them: pass y as a data frame with a column per label, or leave y out; it then "
            "follows from spans."
        )
