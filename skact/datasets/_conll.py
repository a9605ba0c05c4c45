"""Texts of tagged words, one a line: BIO, IOB, BILOU and BIOES, as CoNLL files have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from numbers import Integral
from pathlib import Path

from sklearn.utils import Bunch

from skact.arguments import Number, checked
from skact.datasets._gather import (
    ASKED,
    FILES,
    Asked,
    Files,
    by_split,
    gather_texts,
    own_name,
    spanned,
)
from skact.datasets._span import Span
from skact.datasets._tables import read_fields

_TAG = re.compile(r"O|([BIESLU])-(.+)", re.DOTALL)
_COMMENT = re.compile(r"#\s.*=|#\s*$")
_COLUMN = [Number(Integral, None, None, closed="neither")]

Word = tuple[str, str, str]  # where it stands, the word, its tag


@checked(files=FILES, word=_COLUMN, tag=_COLUMN, **ASKED)
def load_conll(
    files: Files,
    *,
    word: int = 0,
    tag: int = -1,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    r"""Read sentences of tagged words: a word a line, an empty line after each sentence.

    Columns are parted by tabs, or by any white space where a line has no tab. Tags are ``O``, or
    ``B-``, ``I-``, ``E-``, ``S-``, ``L-`` or ``U-`` and a label; ``I-`` after another label begins
    a span. Lines ``-DOCSTART-`` part documents, which are the groups. A line like ``# id = 1``
    before a sentence is passed over.

    Parameters
    ----------
    files : path or dict of paths by split
        The files; splits are drawn by :func:`draw_splits` if there is one.
    word, tag : int, default=0 and -1
        Columns of the words and of the tags, from the end if negative.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        Labels to keep, in the order of the columns wanted; all labels if None.
    min_samples : int, default=0
        Labels of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_spans`; words are joined by single spaces.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line lacks a column, or its tag is none; the message names file and line.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from skact.datasets import load_conll
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "news.conll")
    ...     _ = path.write_text("Ann B-PER\nLee I-PER\nleft O\n\nRain O\n")
    ...     news = load_conll(path)
    >>> news.data, news.spans
    (['Ann Lee left', 'Rain'], [[Span(start=0, end=7, label='PER')], []])
    """
    samples = []
    for own, path in by_split(files):
        document: str | None = None
        for number, words in enumerate(_sentences(path, word, tag), start=1):
            if words[0][1] == "-DOCSTART-":
                document = own_name(own, path, number)
                words = words[1:]
            if words:
                text, spans = _join(words)
                samples.append(spanned(own_name(own, path, number), text, spans, own, document))
    return gather_texts(samples, Asked(split, concepts, min_samples), files)


def _sentences(path: Path, word: int, tag: int) -> Iterator[list[Word]]:
    words: list[Word] = []
    for where, fields in read_fields(path, "\t"):
        if not fields:
            if words:
                yield words
            words = []
            continue
        if not words and len(fields) == 1 and _COMMENT.match(fields[0]):
            continue
        fields = fields if len(fields) > 1 else fields[0].split()
        try:
            words.append((where, fields[word], fields[tag]))
        except IndexError:
            raise ValueError(
                f"{where}: expected columns {word} and {tag}, got {len(fields)} columns."
            ) from None
        if len(fields) == 1 and fields[0] != "-DOCSTART-":
            raise ValueError(f"{where}: expected a word and a tag, got {fields[0]!r:.80}.")
    if words:
        yield words


def _join(words: list[Word]) -> tuple[str, list[Span]]:
    """Join words to a text, and their tags to spans."""
    spans: list[Span] = []
    end, last = -1, None  # end of the text so far, label that a next word may go on with
    for where, word, tag in words:
        match = _TAG.fullmatch(tag)
        if match is None or not word.strip():
            raise ValueError(
                f"{where}: expected a word and a tag such as O or B-x, got {tag!r:.80}."
            )
        kind, label = match.groups()
        start, end = end + 1, end + 1 + len(word)
        if label is not None and kind in "IEL" and label == last:
            spans[-1] = spans[-1]._replace(end=end)
        elif label is not None:
            spans.append(Span(start, end, label))
        last = None if kind is None or kind in "ESLU" else label
    return " ".join(word for _, word, _ in words), spans
