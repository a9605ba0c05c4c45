"""Cut texts into tokens, and know which characters each token covers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from skact.models._offsets import spans_from_bytes
from skact.models._processors import calling
from skact.rows import Array, offsets_of, segment_sum

__all__ = [
    "Encoded",
    "Token",
    "check_spans",
    "check_texts",
    "encode",
    "label_tokens",
    "list_tokens",
    "locate",
]

_CHUNK = 1024


class Token(NamedTuple):
    """One token of a text.

    Parameters
    ----------
    text : str
        The characters ``original[start:end]``; the tokenizer's name for a special token.
    start, end : int
        Code points of the original text; equal for a special token.
    """

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Encoded:
    """Token ids of many texts, end to end.

    Parameters
    ----------
    ids : ndarray of shape (n_positions,), dtype int64
        All that the model reads, special tokens included.
    offsets : ndarray of shape (n_samples + 1,), dtype int64
        Text i is ``ids[offsets[i]:offsets[i + 1]]``.
    is_token : ndarray of shape (n_positions,), dtype bool
        Positions that are tokens of the sample.
    spans : ndarray of shape (n_positions, 2), dtype int64, or None
        First and one-past-last character of each position.
    """

    ids: Array
    offsets: Array
    is_token: Array
    spans: Array | None

    @property
    def n_tokens(self) -> Array:
        """Tokens of each text, int64 of shape (n_samples,)."""
        return segment_sum(self.is_token, self.offsets)


def check_texts(samples: Sequence[Any], numbers: Sequence[int] | None = None) -> list[str]:
    """Refuse what is not a text with characters in it.

    Parameters
    ----------
    samples : sequence
        The samples.
    numbers : sequence of int or None, default=None
        Number of each sample in what the user gave; None counts from 0.

    Returns
    -------
    texts : list of str
        The same.

    Raises
    ------
    TypeError
        If a sample is not a string, naming its number.
    ValueError
        If a text is empty, naming its number.
    """
    numbers = range(len(samples)) if numbers is None else numbers
    for i, text in zip(numbers, samples, strict=True):
        if not isinstance(text, str):
            raise TypeError(f"sample {i} must be a string, got {type(text).__name__}.")
        if not text:
            raise ValueError(f"sample {i} is an empty text; it has no tokens.")
    return [str(text) for text in samples]


def _flat(rows: Iterable[Iterable[Any]], dtype: Any) -> Array:
    return np.fromiter(chain.from_iterable(rows), dtype)


def encode(
    texts: Sequence[str],
    tokenizer: Any,
    *,
    max_length: int | None,
    special_tokens: bool,
    with_spans: bool = False,
    numbers: Sequence[int] | None = None,
) -> Encoded:
    """Tokenise without padding.

    Parameters
    ----------
    texts : sequence of str
        The texts.
    tokenizer : tokenizer of transformers
        Its truncation and padding state may change: hand over a copy.
    max_length : int or None
        Positions to cut each text to, special tokens included.
    special_tokens : bool
        Whether special tokens count as tokens of the sample.
    with_spans : bool, default=False
        Whether to ask for the characters of each position.
    numbers : sequence of int or None, default=None
        Number of each text in what the user gave; None counts from 0.

    Returns
    -------
    encoded : Encoded
        The positions of all texts.

    Raises
    ------
    ValueError
        If no token of a text remains, naming its number, or if the tokenizer cannot say which
        characters a token covers.
    """
    if with_spans and not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} is a slow tokenizer, which does not know the characters "
            "of its tokens; use a fast one."
        )
    ids, special, spans = [], [], []
    lengths: list[int] = []
    for start in range(0, len(texts), _CHUNK):
        with calling(tokenizer):
            got = tokenizer(
                list(texts[start : start + _CHUNK]),
                padding=False,
                truncation=max_length is not None,
                max_length=max_length,
                return_attention_mask=False,
                return_token_type_ids=False,
                return_special_tokens_mask=True,
                return_offsets_mapping=with_spans,
            )
        lengths += map(len, got["input_ids"])
        ids.append(_flat(got["input_ids"], np.int64))
        special.append(_flat(got["special_tokens_mask"], bool))
        if with_spans:
            pairs = _flat(chain.from_iterable(got["offset_mapping"]), np.int64)
            spans.append(pairs.reshape(-1, 2))
    offsets = offsets_of(lengths)
    is_token = np.concatenate(special)
    is_token = np.ones_like(is_token) if special_tokens else ~is_token
    for i in np.flatnonzero(np.diff(offsets_of(is_token)[offsets]) == 0).tolist():
        raise ValueError(
            f"sample {i if numbers is None else numbers[i]}, {texts[i][:40]!r}, has no token left "
            f"(max_length={max_length}, special_tokens={special_tokens})."
        )
    return Encoded(np.concatenate(ids), offsets, is_token, np.concatenate(spans) if spans else None)


def locate(encoded: Encoded, texts: Sequence[str], tokenizer: Any, special: bool) -> list[Array]:
    """Say which characters each token covers, and repair or refuse what the tokenizer says.

    Parameters
    ----------
    encoded : Encoded
        With spans.
    texts : sequence of str
        The texts.
    tokenizer : tokenizer of transformers
        Names itself in errors, and says whether a token without characters is an empty one.
    special : bool
        Whether special tokens were kept; they cover nothing.

    Returns
    -------
    spans : list of ndarray of shape (n_tokens_i, 2), dtype int64
        First and one-past-last character of each token. Where the tokenizer is wrong about a
        text, they come from :func:`~skact.models._offsets.spans_from_bytes`.

    Raises
    ------
    ValueError
        If the characters leave the text, go backwards, or a token that has text covers none, and
        the tokens do not spell the text either.
    """
    assert encoded.spans is not None
    out = []
    for i, text in enumerate(texts):
        rows = slice(encoded.offsets[i], encoded.offsets[i + 1])
        is_token = encoded.is_token[rows]
        spans, ids = encoded.spans[rows][is_token], encoded.ids[rows][is_token]
        empty = spans[:, 0] >= spans[:, 1]
        silent = np.zeros_like(empty)
        if special:
            silent = empty & np.isin(ids, tokenizer.all_special_ids)
        inside = spans[~empty]
        bad = (
            (len(inside) and (inside.min() < 0 or inside.max() > len(text)))
            or np.any(np.diff(inside[:, 0]) < 0)
            or any(tokenizer.decode([t]).strip() for t in np.unique(ids[empty & ~silent]))
        )
        found = spans_from_bytes(text, ids, silent, tokenizer) if bad else spans
        if found is None:
            raise ValueError(
                f"{type(tokenizer).__name__} gives wrong character offsets for sample {i}, "
                f"{text[:40]!r}: {spans[:5].tolist()}... . Tokens can be embedded, but neither "
                "located nor labelled by spans, with this tokenizer."
            )
        out.append(found)
    return out


def list_tokens(encoded: Encoded, texts: Sequence[str], spans: list[Array], tokenizer: Any) -> Any:
    """Name the tokens of each text.

    Parameters
    ----------
    encoded : Encoded
        The positions.
    texts : sequence of str
        The texts.
    spans : list of ndarray of shape (n_tokens_i, 2)
        From :func:`locate`.
    tokenizer : tokenizer of transformers
        Names the tokens that cover no characters.

    Returns
    -------
    tokens : list of list of Token
        One list per text.
    """
    out = []
    for i, text in enumerate(texts):
        rows = slice(encoded.offsets[i], encoded.offsets[i + 1])
        names = tokenizer.convert_ids_to_tokens(encoded.ids[rows][encoded.is_token[rows]].tolist())
        out.append(
            [
                Token(text[start:end] if start < end else name, start, end)
                for name, (start, end) in zip(names, spans[i].tolist(), strict=True)
            ]
        )
    return out


LabelledSpan = tuple[int, int, int, Any]  # sample, start, end, label


def check_spans(
    texts: Sequence[str], spans: Any, concepts: Sequence[Any] | None
) -> tuple[list[LabelledSpan], list[Any]]:
    """Refuse spans that do not fit their texts.

    Parameters
    ----------
    texts : sequence of n_samples str
        The texts.
    spans : sequence of n_samples sequences of (start, end, label)
        Labelled spans of each text.
    concepts : sequence or None
        Labels to keep, in order; None keeps all that occur, sorted.

    Returns
    -------
    spans : list of (sample, start, end, label)
        All spans, each with the number of its text.
    concepts : list of n_concepts labels
        The labels to keep.

    Raises
    ------
    ValueError
        If a span does not fit its text, naming both, or there is no concept.
    """
    if len(spans) != len(texts):
        raise ValueError(f"spans must have one entry per text: got {len(spans)} for {len(texts)}.")
    out = []
    for i, text in enumerate(texts):
        for j, span in enumerate(spans[i]):
            try:
                start, end, label = span
            except (TypeError, ValueError):
                raise ValueError(
                    f"spans[{i}][{j}] must be (start, end, label), got {span!r}."
                ) from None
            if not 0 <= start < end <= len(text):
                raise ValueError(
                    f"spans[{i}][{j}] must satisfy 0 <= start < end <= {len(text)}, the length of "
                    f"its text; got ({start}, {end})."
                )
            out.append((i, int(start), int(end), label))
    names = sorted({span[3] for span in out}) if concepts is None else list(concepts)
    if not names:
        raise ValueError("there is no concept: no span is labelled and concepts is not given.")
    return out, names


def label_tokens(
    spans: Sequence[LabelledSpan], concepts: Sequence[Any], locations: Sequence[Array]
) -> Array:
    """Label the tokens whose characters overlap a labelled span.

    Parameters
    ----------
    spans : sequence of (sample, start, end, label)
        From :func:`check_spans`.
    concepts : sequence of n_concepts labels
        Labels to keep; others are passed over.
    locations : sequence of n_samples ndarray of shape (n_tokens_i, 2)
        Characters of the tokens, from :func:`locate`.

    Returns
    -------
    labels : ndarray of shape (n_tokens, n_concepts), dtype bool
        Labels of the tokens of all texts.
    """
    column = {name: c for c, name in enumerate(concepts)}
    offsets = offsets_of([len(spans) for spans in locations])
    labels = np.zeros((offsets[-1], len(concepts)), bool)
    for i, start, end, label in spans:
        if label in column:
            first, stop = locations[i].T
            hit = (first < end) & (stop > start) & (first < stop)
            labels[offsets[i] : offsets[i + 1], column[label]] |= hit
    return labels
