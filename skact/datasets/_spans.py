"""Texts whose concepts have a place: character spans, inline tags and the folder format."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from sklearn.utils import Bunch

from skact.arguments import checked
from skact.datasets import _files
from skact.datasets._gather import Asked, Sample, check_new_id, gather_texts, spanned
from skact.datasets._span import Span
from skact.files import check_link

_NAME = "[A-Za-z][A-Za-z0-9_-]*"
_TAG = re.compile(f"<(/?)({_NAME})>")


@checked(text=[str])
def parse_tags(text: str) -> tuple[str, list[Span]]:
    """Take inline tags such as ``<JOY>...</JOY>`` out of a text and return them as spans.

    A tag is ``<NAME>`` or ``</NAME>`` without any white space inside; NAME starts with an ASCII
    letter and goes on with ASCII letters, digits, ``_`` and ``-``. Anything else, such as ``a < b``
    or ``<3``, is text. Names do not depend on case. Tags of different names may be nested.

    White space that touches a tag on its inner side does not belong to the span. Where one or more
    tags meet, separated by nothing but white space, only the white space that lies outside all of
    them stays, as it is. If there is none, the first white space found inside takes its place,
    unless the tags stand at the start or the end of the text, where it is dropped. So words stay
    apart and no white space is doubled by taking tags out.

    Parameters
    ----------
    text : str
        Text with or without tags.

    Returns
    -------
    clean : str
        The text without tags; `text` itself if it has none.
    spans : list of Span
        One span per pair of tags in the order of the opening tags. Offsets are those of `clean`,
        the label is the tag's name in lower case.

    Raises
    ------
    TypeError
        If `text` is not a string.
    ValueError
        If a tag is never closed, was never opened, closes while a later one is still open, stands
        inside another tag of its own name, or holds no text. The message gives the tag's position
        in `text`.

    Examples
    --------
    >>> from skact.datasets import parse_tags
    >>> parse_tags("Rain again. <SARCASM> Just perfect. </SARCASM> I stay in.")
    ('Rain again. Just perfect. I stay in.', [Span(start=12, end=25, label='sarcasm')])
    """
    # Of one text that no tag interrupts, then a slash or nothing, a name, a text, and so on.
    parts = _TAG.split(text)
    texts, slashes, names = parts[::3], parts[1::3], parts[2::3]
    pieces: list[str] = []
    length = place = first = 0
    rest = texts[0]
    opened: dict[str, tuple[int, int]] = {}  # label: place of the tag, number of the span
    starts, ends, labels = list[int](), list[int](), list[str]()
    while first < len(names):
        words = rest.rstrip()
        pieces.append(words)
        length += len(words)
        # Tags that meet: number `first` up to, and without, `last`.
        gaps, last = [rest[len(words) :]], first + 1
        while last < len(names) and (not texts[last] or texts[last].isspace()):
            gaps.append(texts[last])
            last += 1
        rest = texts[last].lstrip()
        gaps.append(texts[last][: len(texts[last]) - len(rest)])

        # In a valid text closing tags come first where tags meet, or an element would be empty.
        n_closing = slashes[first:last].count("/")
        at_edge = not length or (last == len(names) and not rest)
        kept = gaps[n_closing] or ("" if at_edge else next(filter(None, gaps), ""))
        start = length + len(kept)
        for tag in range(first, last):
            place += len(texts[tag])
            if slashes[tag]:
                ends[_close(names[tag], place, opened, starts, length)] = length
            else:
                labels.append(_open(names[tag], place, opened, len(starts)))
                starts.append(start)
                ends.append(start)
            place += len(slashes[tag]) + len(names[tag]) + 2
        pieces.append(kept)
        length, first = start, last
    if opened:
        label, (place, _) = opened.popitem()
        raise ValueError(f"Tag <{label}> at position {place} is never closed.")
    return "".join([*pieces, rest]), list(map(Span, starts, ends, labels))


def _open(name: str, place: int, opened: dict[str, tuple[int, int]], number: int) -> str:
    label = name.lower()
    if label in opened:
        raise ValueError(
            f"Tag <{name}> at position {place} stands inside another <{label}>, "
            f"opened at position {opened[label][0]}."
        )
    opened[label] = place, number
    return label


def _close(
    name: str, at: int, opened: dict[str, tuple[int, int]], starts: list[int], end: int
) -> int:
    label = name.lower()
    if label not in opened:
        raise ValueError(f"Tag </{name}> at position {at} closes what was never opened.")
    last, (place, number) = opened.popitem()
    if last != label:
        raise ValueError(
            f"Tag </{name}> at position {at} crosses <{last}>, opened at position {place} "
            f"and still open."
        )
    if starts[number] >= end:
        raise ValueError(f"Tag <{label}> at position {place} holds no text.")
    return number


@_files.reads_a_folder
def load_spans(
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read a folder of texts with labelled character spans.

    The folder holds ``samples.jsonl`` (UTF-8, one JSON object a line) with the keys

    - ``text``: the text, not empty;
    - ``spans``: a list of ``[start, end, label]``, offsets in code points, end exclusive;
    - ``split``: ``train``, ``cal`` or ``test``;
    - ``id``: a string of its own for every sample;
    - ``group``, if given: a string or an integer; samples of one group belong into one split;
    - ``labels``, if given: the labels that occur in ``spans``.

    Further keys are not looked at. All lines are checked, those of other splits as well.

    Parameters
    ----------
    folder : str or path-like
        The folder.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        Labels to keep, in the order of the columns wanted; all labels if None. Samples without any
        of them stay, as negatives.
    min_samples : int, default=0
        Labels of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        data : list of str
            The `n_samples` texts.
        spans : list of list of Span
            Labelled pieces of every text, in the file's order.
        target : ndarray of shape (n_samples, n_concepts), dtype int64
            1 where a text has a span of the concept.
        target_names : list of str
            The file's labels, sorted (the same for every split), or `concepts`.
        split : ndarray of shape (n_samples,), dtype str
            Split of every sample.
        groups : ndarray of shape (n_samples,), dtype str
            Group of every sample, its id where it has none.
        ids : list of str
            Id of every sample.
        DESCR : str
            Text of the folder's ``README.md``, empty if there is none.

    Raises
    ------
    FileNotFoundError
        If the folder or its ``samples.jsonl`` is missing.
    ValueError
        If a line does not hold what is described above (the message names file and line), or if
        `split` or `concepts` ask for something that the folder does not have.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from skact.datasets import load_spans
    >>> sample = {"id": "1", "text": "So. I cheer!", "spans": [[4, 12, "joy"]], "split": "train"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "samples.jsonl")
    ...     _ = path.write_text(json.dumps(sample), encoding="utf-8")
    ...     texts = load_spans(folder, split="train")
    >>> texts.spans, texts.target.tolist(), texts.target_names
    ([[Span(start=4, end=12, label='joy')]], [[1]], ['joy'])
    """
    root = _files.open_folder(folder)
    path = check_link(root, root / "samples.jsonl")
    samples: list[Sample] = []
    ids: dict[str, str] = {}
    for where, record in _files.read_records(path):
        text = _files.get_string(record, "text", where)
        if not text:
            raise ValueError(f"{where}: 'text' is empty.")
        spans, own = read_spans(record, text, where), _files.get_split(record, where)
        identifier = _files.get_string(record, "id", where)
        check_new_id(identifier, ids, where)
        samples.append(spanned(identifier, text, spans, own, _files.get_group(record, where)))
    asked = Asked(split, concepts, min_samples)
    return gather_texts(samples, asked, path, _files.read_description(root))


def read_spans(record: dict[str, Any], text: str, where: str) -> list[Span]:
    """Read the spans of a record, with those of its labels that it names."""
    spans = []
    for value in _files.get_list(record, "spans", where):
        if not isinstance(value, list) or len(value) != 3:
            raise ValueError(f"{where}: a span must be [start, end, label], got {value!r:.80}.")
        start, end, label = value
        if not isinstance(label, str) or not label:
            raise ValueError(
                f"{where}: the label of span {value!r:.80} must be a non-empty string."
            )
        if type(start) is not int or type(end) is not int:
            raise ValueError(f"{where}: start and end of span {value!r:.80} must be integers.")
        if not 0 <= start < end <= len(text):
            raise ValueError(
                f"{where}: span {value!r:.80} must satisfy 0 <= start < end <= {len(text)}, the "
                f"length of its text."
            )
        spans.append(Span(start, end, label))
    if "labels" in record:
        labels = _files.get_list(record, "labels", where)
        if sorted(map(str, labels)) != sorted({span.label for span in spans}):
            raise ValueError(
                f"{where}: 'labels' {labels!r:.80} are not those that occur in 'spans'. Labels of "
                "whole texts, without a place, are read by load_table."
            )
    return spans
