"""Cut texts into tokens, and know which characters each token covers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from skact.arguments import check_characters, check_entries, is_name
from skact.models._offsets import spans_from_bytes
from skact.models._processors import calling
from skact.rows import Array, offsets_of, segment_sum
from skact.tokens import check_segments

__all__ = [
    "Encoded",
    "Token",
    "check_span",
    "check_spans",
    "check_texts",
    "each_span",
    "encode",
    "label_tokens",
    "list_tokens",
    "locate",
    "own_characters",
]

_CHUNK = 1024
_BLANKS = re.compile(r"\s+")


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
    is_cut : ndarray of shape (n_samples,), dtype bool
        Whether a text was too long and lost some of its tokens.
    """

    ids: Array
    offsets: Array
    is_token: Array
    spans: Array | None
    is_cut: Array

    @property
    def n_tokens(self) -> Array:
        """Tokens of each text, int64 of shape (n_samples,)."""
        return segment_sum(self.is_token, self.offsets)

    @property
    def segments(self) -> Array | None:
        """Run of adjacent tokens that each token lies in, int32 of shape (n_tokens,), or None."""
        places = np.flatnonzero(self.is_token)
        return check_segments(places - np.arange(len(places)), offsets_of(self.n_tokens))

    @classmethod
    def joined(cls, parts: Sequence[Encoded]) -> Encoded:
        """Join texts end to end."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        spans = [part.spans for part in parts if part.spans is not None]
        return cls(
            np.concatenate([part.ids for part in parts]),
            offsets_of(lengths),
            np.concatenate([part.is_token for part in parts]),
            np.concatenate(spans) if spans else None,
            np.concatenate([part.is_cut for part in parts]),
        )

    def after(self, token: int) -> Encoded:
        """Put a token that is none of the sample before each text."""
        starts = self.offsets[:-1]
        return Encoded(
            np.insert(self.ids, starts, token),
            self.offsets + np.arange(len(self.offsets)),
            np.insert(self.is_token, starts, False),
            None if self.spans is None else np.insert(self.spans, starts, 0, axis=0),
            self.is_cut,
        )


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
        If a text is empty or holds half of a surrogate pair, naming its number.
    """
    numbers = range(len(samples)) if numbers is None else numbers
    for i, text in zip(numbers, samples, strict=True):
        if not isinstance(text, str):
            raise TypeError(
                f"sample {i} must be a string, got {type(text).__name__}."
                + (
                    " A single chat goes into a list."
                    if isinstance(text, Mapping)
                    else " (The samples are texts here; images need a model of images.)"
                )
            )
        if not text:
            raise ValueError(f"sample {i} is an empty text; it has no tokens.")
        check_characters(text, f"sample {i}")
    return [str(text) for text in samples]


def _flat(rows: Iterable[Iterable[Any]], dtype: Any) -> Array:
    return np.fromiter(chain.from_iterable(rows), dtype)


def encode(
    texts: Sequence[str],
    tokenizer: Any,
    *,
    max_length: int | None,
    special_tokens: bool,
    sink: int | None = None,
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
        Positions to cut each text to, special tokens and sink included.
    special_tokens : bool
        Whether special tokens count as tokens of the sample.
    sink : int or None, default=None
        Token to put before each text; it is none of the sample.
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
    room = _room(tokenizer, max_length, sink)
    parts = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
    encoded = Encoded.joined([_tokenise(part, tokenizer, room, with_spans) for part in parts])
    if special_tokens:
        encoded.is_token[:] = True
    for i in np.flatnonzero(encoded.n_tokens == 0).tolist():
        raise ValueError(
            f"sample {i if numbers is None else numbers[i]}, {texts[i][:40]!r}, has no token left "
            f"(max_length={max_length}, special_tokens={special_tokens})."
        )
    return encoded if sink is None else encoded.after(sink)


def _tokenise(texts: Sequence[str], tokenizer: Any, room: int | None, with_spans: bool) -> Encoded:
    with calling(tokenizer):
        got = tokenizer(
            list(texts),
            padding=False,
            truncation=room is not None,
            max_length=room,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_special_tokens_mask=True,
            return_offsets_mapping=with_spans,
        )
        is_cut = _were_cut(got["input_ids"], texts, tokenizer, room)
    spans = None
    if with_spans:
        pairs = chain.from_iterable(got["offset_mapping"])
        spans = _flat(pairs, np.int64).reshape(-1, 2)
    ids, special = _flat(got["input_ids"], np.int64), _flat(got["special_tokens_mask"], bool)
    offsets = offsets_of(list(map(len, got["input_ids"])))
    return Encoded(ids, offsets, ~special, spans, np.array(is_cut))


def _room(tokenizer: Any, max_length: int | None, sink: int | None) -> int | None:
    """Positions that a text and the special tokens around it may take."""
    if max_length is None:
        return None
    room, taken = max_length - (sink is not None), tokenizer.num_special_tokens_to_add()
    if room <= taken:
        raise ValueError(
            f"max_length={max_length} leaves no token of a text, of which special tokens take "
            f"{taken + max_length - room}."
        )
    return room


def _were_cut(rows: Any, texts: Sequence[str], tokenizer: Any, room: int | None) -> list[bool]:
    """Whether each text has more tokens than there was room for."""
    full = [room is not None and len(row) >= room for row in rows]
    long = [text for text, is_full in zip(texts, full, strict=True) if is_full]
    if not long:
        return full
    whole = iter(tokenizer(long, truncation=False, verbose=False)["input_ids"])
    return [is_full and len(next(whole)) > (room or 0) for is_full in full]


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
        First and one-past-last character of each token, without the white space before a word.
        Where the tokenizer is wrong about a text, they come from
        :func:`~skact.models._offsets.spans_from_bytes`.

    Raises
    ------
    ValueError
        If the characters leave the text, go backwards, or a token that has text covers none, and
        the tokens do not spell the text either.
    """
    if encoded.spans is None:
        raise ValueError("the characters of tokens were not asked for; prepare with_spans=True.")
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
        out.append(_without_blanks(found, text))
    return out


def own_characters(encoded: Encoded, texts: Sequence[str]) -> list[Array]:
    """Characters of each token, as the positions have them, one array (n_tokens_i, 2) per text."""
    assert encoded.spans is not None
    bounds = offsets_of(encoded.n_tokens)
    spans = encoded.spans[encoded.is_token]
    return [_without_blanks(spans[slice(*bounds[i : i + 2])], t) for i, t in enumerate(texts)]


def _without_blanks(spans: Array, text: str) -> Array:
    """Let no token count the white space before its word."""
    word = np.arange(len(text) + 1)
    for blanks in _BLANKS.finditer(text):
        word[blanks.start() : blanks.end()] = blanks.end()
    start = word[spans[:, 0]]
    return np.stack([np.where(start < spans[:, 1], start, spans[:, 0]), spans[:, 1]], axis=1)


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
        If a span does not fit its text, naming both, its label is no name, or there is no concept.
    TypeError
        If start or end is no int.
    """
    out = []
    for i, where, span in each_span(spans, len(texts), "text"):
        try:
            start, end, label = (
                (span[name] for name in ("start", "end", "label"))
                if isinstance(span, Mapping)
                else span
            )
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{where} must be (start, end, label), or a dict with these keys; got {span!r}."
            ) from None
        check_span(where, start, end, label, len(texts[i]))
        out.append((i, int(start), int(end), label))
    names = sorted({span[3] for span in out}) if concepts is None else list(concepts)
    if not names:
        raise ValueError("there is no concept: no span is labelled and concepts is not given.")
    return out, names


def each_span(spans: Any, n_samples: int, sample: str) -> Iterator[tuple[int, str, Any]]:
    """Give each span with the number of its sample, and say where it stands."""
    spans = check_entries("spans", spans, n_samples, sample)
    for i in range(n_samples):
        if isinstance(spans[i], str) or not isinstance(spans[i], Iterable):
            raise TypeError(f"spans[{i}] must be a list of spans, got {spans[i]!r}.")
        for j, span in enumerate(spans[i]):
            yield i, f"spans[{i}][{j}]", span


def check_span(where: str, start: Any, end: Any, label: Any, length: int) -> None:
    """Refuse what is no labelled span of a text of that length; ``where`` says which it is."""
    for name, number in (("start", start), ("end", end)):
        if isinstance(number, bool | np.bool_) or not isinstance(number, Integral):
            raise TypeError(f"{where} must have an int as its {name}, got {number!r}.")
    if not 0 <= start < end <= length:
        raise ValueError(
            f"{where} must satisfy 0 <= start < end <= {length}, the length of its text; got "
            f"({start}, {end})."
        )
    if not is_name(label):
        raise ValueError(f"{where} must have a name as its label, got {label!r}.")
    check_characters(label, f"the label of {where}")


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
