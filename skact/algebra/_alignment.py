"""Tokens of two models that cut the same texts in other ways, brought together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skact.arguments import SEQUENCE, check_entries, checked, instance
from skact.rows import Array, as_floats, offsets_of
from skact.tokens import TokenArray

__all__ = ["align_tokens", "shared_pieces"]

_TOKENS = [instance("a TokenArray(...)", TokenArray)]


def shared_pieces(first: Array, second: Array) -> tuple[Array, Array, int]:
    """Find the smallest pieces of a text that both of two models cut it into.

    Parameters
    ----------
    first, second : ndarray of int of shape (n_tokens, 2)
        First and one-past-last character of each token.

    Returns
    -------
    pieces_of_first, pieces_of_second : ndarray of int of shape (n_tokens,)
        The piece of each token; -1 for those that share no character with one of the other model.
    n_pieces : int
        How many there are.
    """
    spans = np.concatenate([first, second])
    order = np.lexsort((-spans[:, 1], spans[:, 0]))
    starts, ends = spans[order].T
    reach = np.maximum.accumulate(ends)
    group = np.empty(len(spans), np.int64)
    group[order] = np.cumsum(np.r_[True, starts[1:] >= reach[:-1]]) - 1
    group[spans[:, 0] == spans[:, 1]] = -1  # covers nothing
    a, b = group[: len(first)], group[len(first) :]
    both = np.intersect1d(a[a >= 0], b[b >= 0])
    numbers = np.full(len(spans) + 1, -1)  # the last one is that of -1
    numbers[both] = np.arange(len(both))
    return numbers[a], numbers[b], len(both)


def _piece_means(values: Array, pieces: Array, n_pieces: int) -> Array:
    kept = pieces >= 0
    means = np.zeros((n_pieces, values.shape[1]), np.result_type(values, np.float32))
    np.add.at(means, pieces[kept], as_floats(values)[kept])
    return means / np.bincount(pieces[kept], minlength=n_pieces)[:, None].astype(means.dtype)


@checked(X=_TOKENS, y=_TOKENS, X_tokens=[SEQUENCE], y_tokens=[SEQUENCE])
def align_tokens(
    X: TokenArray, y: TokenArray, X_tokens: Sequence[Any], y_tokens: Sequence[Any]
) -> tuple[TokenArray, TokenArray]:
    """Bring together the tokens that two models cut the same texts into.

    Tokens whose characters overlap, directly or through others, are one piece of the text: as a
    rule one token of either model, else a word or so. Activations of the tokens of a piece are
    averaged, so that both results have a token for each piece, in order. Pieces that only one of
    the models reads are left out: special tokens, and what was cut off.

    Parameters
    ----------
    X, y : TokenArray of n_samples samples
        Activations of the same texts in two models.
    X_tokens, y_tokens : list of n_samples lists of Token
        From ``tokens_of(texts)`` of the embedders that made them.

    Returns
    -------
    X, y : TokenArray of n_samples samples
        Samples and tokens that belong together, as
        :class:`~skact.algebra.ActivationSpaceMap` needs them.

    Raises
    ------
    ValueError
        If samples or tokens differ in number from what says where they are, or nothing of a text
        was read by both.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import Token, TokenArray, align_tokens
    >>> words, pieces = [Token("unhappy", 0, 7)], [Token("un", 0, 2), Token("happy", 2, 7)]
    >>> X = TokenArray(np.array([[1.0]]), [0, 1])
    >>> y = TokenArray(np.array([[2.0], [4.0]]), [0, 2])
    >>> [tokens.flat().tolist() for tokens in align_tokens(X, y, [words], [pieces])]
    [[[1.0]], [[3.0]]]
    """
    if len(X) != len(y):
        raise ValueError(f"X and y must hold the same samples, got {len(X)} and {len(y)}.")
    sides = (("X_tokens", X, X_tokens), ("y_tokens", y, y_tokens))
    for name, tokens, said in sides:
        check_entries(name, said, len(tokens))
    found: tuple[list[Array], list[Array]] = ([], [])
    for i in range(len(X)):
        spans = [_spans(name, said[i], i, tokens.lengths[i]) for name, tokens, said in sides]
        *pieces, n_pieces = shared_pieces(*spans)
        if not n_pieces:
            raise ValueError(f"sample {i} has no characters that both X_tokens and y_tokens cover.")
        for means, tokens, of_token in zip(found, (X, y), pieces, strict=True):
            means.append(_piece_means(tokens[i], of_token, n_pieces))
    offsets = offsets_of([len(means) for means in found[0]])
    x_out, y_out = (
        TokenArray(
            np.concatenate(means), offsets, feature_names=one.feature_names, source=one.source
        )
        for means, one in zip(found, (X, y), strict=True)
    )
    return x_out, y_out


def _spans(name: str, said: Any, i: int, n_tokens: int) -> Array:
    try:
        spans = np.array([(token.start, token.end) for token in said], np.int64).reshape(-1, 2)
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"{name}[{i}] must be a list of tokens with start and end, from "
            f"TransformerEmbedder.tokens_of, got {said!r:.60}."
        ) from None
    if len(spans) != n_tokens:
        raise ValueError(f"{name}[{i}] has {len(spans)} tokens, and the sample {n_tokens}.")
    return spans
