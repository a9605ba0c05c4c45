"""Texts in tables: CSV, TSV, JSON lines and parquet, and the files of two data sets."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sklearn.utils import Bunch

from skact.arguments import SEQUENCE, Such, check_concepts, checked
from skact.datasets._files import (
    is_number,
    open_folder,
    read_description,
    read_records,
    reads_a_folder,
)
from skact.datasets._gather import (
    ASKED,
    FILES,
    SPLITS,
    Asked,
    Files,
    Sample,
    by_split,
    gather_texts,
    own_name,
    spanned,
    whole,
)
from skact.datasets._span import Span
from skact.datasets._spans import read_spans
from skact.extras import need
from skact.files import check_link, parse_json, read_text
from skact.warning import warn

Row = tuple[str, int, dict[str, Any]]

# No field of a text is longer; a quote that is never closed would take the rest of the file.
_LONGEST = 2**24
#: What others call the split that thresholds come from.
_CAL_NAMES = ("val", "valid", "validation", "dev")
_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no", "")
_NAME = Such("a name", lambda value: isinstance(value, str) and value)


def read_rows(path: Path) -> Iterator[Row]:
    """Read a table one row after the other.

    Parameters
    ----------
    path : Path
        A file whose name ends in ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.

    Yields
    ------
    where : str
        Where the row stands, for errors.
    number : int
        Of its line, or of the row from 1.
    row : dict
        Values by column; those of CSV are texts.
    """
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".csv": lambda path: _read_csv(path, ","),
        ".tsv": lambda path: _read_csv(path, "\t"),
        ".jsonl": _read_jsonl,
        ".parquet": _read_parquet,
    }
    if path.suffix not in readers:
        raise ValueError(f"{path} must end in one of {', '.join(readers)}.")
    yield from readers[path.suffix](path)


def _read_csv(path: Path, delimiter: str) -> Iterator[Row]:
    limit = csv.field_size_limit(_LONGEST)
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(lines, [])
            if len(set(header)) != len(header):
                raise ValueError(f"{path}, line 1: a column comes twice in {header}.")
            line = lines.line_num
            for values in lines:
                where, line = f"{path}, line {line + 1}", lines.line_num
                if not values:
                    continue
                if len(values) != len(header):
                    raise ValueError(
                        f"{where}: expected {len(header)} fields like the header, got "
                        f"{len(values)}."
                    )
                yield where, line, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {line + 1}: {error}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 after line {line}: {error}.") from error
    finally:
        csv.field_size_limit(limit)


def _read_jsonl(path: Path) -> Iterator[Row]:
    for where, record in read_records(path):
        yield where, int(where.rpartition(" ")[2]), record


def _read_parquet(path: Path) -> Iterator[Row]:
    parquet = need("pyarrow.parquet", "Reading parquet")
    number = 0
    try:
        # Of files that carry checksums of their pages; without, a flipped bit is another value.
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", number, row
    except (OSError, ValueError) as error:  # what pyarrow raises is one of these
        raise ValueError(f"{path} cannot be read as parquet: {error}.") from error


@checked(
    files=FILES,
    text=[_NAME],
    labels=[_NAME, SEQUENCE, None],
    spans=[_NAME, None],
    separator=[_NAME],
    **ASKED,
)
def load_table(
    files: Files,
    *,
    text: str = "text",
    labels: str | Sequence[str] | None = "labels",
    spans: str | None = None,
    separator: str = ",",
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    r"""Read labelled texts from CSV, TSV, JSON lines or parquet, row by row.

    The columns ``id``, ``group`` and ``split`` are read where there are any. A split is ``train``,
    ``cal`` or ``test``; rows that say ``val``, ``valid``, ``validation`` or ``dev`` are of ``cal``.
    Where neither the rows nor `files` say one, splits are drawn by :func:`draw_splits`. Parquet
    files that carry checksums of their pages (``write_page_checksum=True`` of pyarrow) are compared
    with them.

    Parameters
    ----------
    files : path or dict of paths by split
        Names end in ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
    text : str, default="text"
        Column of the texts.
    labels : str, sequence of str or None, default="labels"
        A column of labels: one, several parted by `separator`, or a list; whole numbers are names
        too. Or one column of 0 and 1 for each concept. A label speaks of the whole text. None where
        there are `spans`.
    spans : str or None, default=None
        Column of lists ``[start, end, label]``, in CSV as JSON; instead of `labels`. Objects with
        ``label`` and ``start``, ``end`` or ``start_offset``, ``end_offset`` are read as well.
    separator : str, default=","
        What parts the labels of one text.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        Labels to keep, in the order of the columns wanted; all labels if None.
    min_samples : int, default=0
        Labels of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_spans`. A label of a whole text is a span over all of it. Without
        ids, samples are called by file and line.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a row does not hold what is described above; the message names file and line.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from skact.datasets import load_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "mails.csv")
    ...     _ = path.write_text('text,labels\n"Thanks, all!","joy,thanks"\nNo.,\n')
    ...     mails = load_table(path)
    >>> mails.target_names, mails.target.tolist()
    (['joy', 'thanks'], [[1, 1], [0, 0]])
    """
    if labels is not None and not len(labels):
        raise ValueError("labels must name a column or several, got none.")
    by_column = labels is not None and not isinstance(labels, str)
    if by_column and labels is not None:
        check_concepts(labels, "labels")
    samples, seen = [], dict[str, str]()
    for own, path in by_split(files):
        for where, number, row in read_rows(path):
            content = _text_of(row, text, where)
            if spans is not None:
                found = _spans_of(row, spans, content, where)
            elif by_column:
                found = whole(content, [c for c in labels or () if _is_true(row, c, where)])
            else:
                found = whole(content, _labels_of(row, str(labels), separator, where))
            name = _optional(row, "id") or own_name(own, path, number)
            if name in seen:
                raise ValueError(f"{where}: id {name!r:.80} is that of {seen[name]} already.")
            seen[name] = where
            place = own or _split_of(row, where)
            samples.append(spanned(name, content, found, place, _optional(row, "group")))
    check_all_split(samples, files)
    names = list(labels) if by_column and spans is None and labels is not None else None
    return gather_texts(samples, Asked(split, concepts, min_samples), files, names=names)


def check_all_split(samples: Sequence[Sample], path: Any) -> None:
    """Refuse samples of which some have a split."""
    without = [sample.identifier for sample in samples if sample.split is None]
    if 0 < len(without) < len(samples):
        raise ValueError(f"{path}: {without[0]!r:.80} has no split, and others have one.")


def _column(row: dict[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise ValueError(
            f"{where}: there is no column {name!r:.80}; there are {', '.join(row):.200}."
        )
    return row[name]


def _text_of(row: dict[str, Any], name: str, where: str) -> str:
    value = _column(row, name, where)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{where}: {name!r:.80} must be a text that is not empty, got {value!r:.80}."
        )
    return value


def _optional(row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    return None if value is None or value == "" else str(value)


def _split_of(row: dict[str, Any], where: str) -> str | None:
    value = _optional(row, "split")
    if value in _CAL_NAMES:
        return "cal"
    if value is not None and value not in SPLITS:
        known = ", ".join((*SPLITS, *_CAL_NAMES))
        raise ValueError(f"{where}: 'split' must be one of {known}, got {value!r:.80}.")
    return value


def _is_true(row: dict[str, Any], name: str, where: str) -> bool:
    value = _column(row, name, where)
    said = str(value).strip().lower()
    if said.removesuffix(".0") in _TRUE or said.removesuffix(".0") in _FALSE:
        return said.removesuffix(".0") in _TRUE
    raise ValueError(f"{where}: {name!r:.80} must be 0 or 1, got {value!r:.80}.")


def _labels_of(row: dict[str, Any], name: str, separator: str, where: str) -> list[str]:
    value = _column(row, name, where)
    if isinstance(value, str):
        value = [piece.strip() for piece in value.split(separator) if piece.strip()]
    value = [] if value is None else [value] if type(value) is int else value
    if not isinstance(value, list) or not all(
        type(label) is int or (isinstance(label, str) and label) for label in value
    ):
        raise ValueError(
            f"{where}: {name!r:.80} must be a label or a list of them, got {value!r:.80}."
        )
    return list(dict.fromkeys(map(str, value)))


def _spans_of(row: dict[str, Any], name: str, text: str, where: str) -> list[Span]:
    value = _column(row, name, where)
    if isinstance(value, str):
        value = parse_json(value, f"{where}: {name!r:.80}")
    if isinstance(value, list):
        value = [_triple(span) if isinstance(span, dict) else span for span in value]
    return read_spans({"spans": value}, text, where)


def _triple(span: dict[str, Any]) -> Any:
    """Put what annotation tools write by name in our order; what lacks a name stays as it is."""
    for keys in (("start", "end", "label"), ("start_offset", "end_offset", "label")):
        if all(key in span for key in keys):
            return [span[key] for key in keys]
    return span


_KINDS = ("sarcasm", "irony", "satire", "understatement", "overstatement", "rhetorical_question")


@checked(files=FILES, **ASKED)
def load_isarcasm(
    files: Files,
    *,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read the files of iSarcasmEval (English): tweets that their authors call sarcastic or not.

    These are ``train/train.En.csv`` (columns ``tweet``, ``sarcastic``, ``rephrase`` and six kinds
    of sarcasm) and ``test/task_A_En_test.csv`` (columns ``text`` and ``sarcastic``).

    Parameters
    ----------
    files : path or dict of paths by split
        One of them, whose splits are drawn, or several.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        ``sarcastic``, and the kinds if all files have them. All of these if None.
    min_samples : int, default=0
        Concepts of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_table`; ``rephrase`` holds what the author says instead, None where
        there is nothing.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a row is damaged; the message names file and line.

    Warns
    -----
    UserWarning
        If rows without a text were left out, as the published file has one.

    Examples
    --------
    >>> from skact.datasets import load_isarcasm
    >>> tweets = load_isarcasm("iSarcasmEval/train/train.En.csv")  # doctest: +SKIP
    >>> tweets.target_names[0]  # doctest: +SKIP
    'sarcastic'
    """
    rows, empty = [], []
    for own, path in by_split(files):
        for where, number, row in read_rows(path):
            text = row.get("tweet", row.get("text"))
            if not isinstance(text, str):
                raise ValueError(f"{where}: there is no column 'tweet' or 'text'.")
            if text.strip():
                rows.append((where, own_name(own, path, number), own, text, row))
            else:
                empty.append(where)
    if empty:
        warn(f"{len(empty)} rows have no text and were left out, the first at {empty[0]}.")
    names = ["sarcastic", *_KINDS]
    names = [name for name in names if name == "sarcastic" or all(name in row[4] for row in rows)]
    samples, rephrase = [], {}
    for where, name, own, text, row in rows:
        found = whole(text, [concept for concept in names if _is_true(row, concept, where)])
        samples.append(spanned(name, text, found, own))
        rephrase[name] = _optional(row, "rephrase")
    data = gather_texts(samples, Asked(split, concepts, min_samples), files, names=names)
    return Bunch(**data, rephrase=[rephrase[name] for name in data.ids])


_GOEMOTIONS = {"train.tsv": "train", "dev.tsv": "cal", "test.tsv": "test"}
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@reads_a_folder
def load_goemotions(
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read the files of GoEmotions: comments with one emotion or several of 28.

    The folder holds ``emotions.txt``, a name a line, and ``train.tsv``, ``dev.tsv`` and
    ``test.tsv``, or some of them: text, numbers of emotions parted by commas, id.

    Parameters
    ----------
    folder : str or path-like
        The folder.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None. ``dev.tsv`` is ``cal``.
    concepts : iterable of str or None, default=None
        Emotions to keep, in the order of the columns wanted; all of ``emotions.txt`` if None.
    min_samples : int, default=0
        Emotions of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_table`.

    Raises
    ------
    FileNotFoundError
        If the folder, its ``emotions.txt`` or all three tables are missing.
    ValueError
        If a line is damaged; the message names file and line.

    Examples
    --------
    >>> from skact.datasets import PAPER_CONCEPTS, load_goemotions
    >>> comments = load_goemotions(
    ...     "goemotions/data", concepts=PAPER_CONCEPTS["goemotions"]
    ... )  # doctest: +SKIP
    >>> comments.target.shape  # doctest: +SKIP
    (54263, 14)
    """
    root = open_folder(folder)
    emotions = read_text(check_link(root, root / "emotions.txt")).split()
    samples, seen = [], dict[str, str]()
    for name, own in _GOEMOTIONS.items():
        if not check_link(root, root / name).is_file():
            continue
        for where, fields in read_fields(root / name, "\t"):
            if len(fields) != 3:
                raise ValueError(f"{where}: expected text, emotions and id, got {len(fields)}.")
            text, numbers, identifier = fields
            if _QUOTED.fullmatch(text):  # left over from a CSV
                text = text[1:-1].replace('""', '"')
            if not text.strip():
                raise ValueError(f"{where}: the text is empty.")
            found = whole(text, [_emotion(n, emotions, where) for n in numbers.split(",")])
            if identifier in seen:
                raise ValueError(f"{where}: id {identifier!r:.80} is that of {seen[identifier]}.")
            seen[identifier] = where
            samples.append(spanned(identifier, text, found, own))
    if not samples:
        raise FileNotFoundError(f"{root} has no lines in {', '.join(_GOEMOTIONS)}.")
    asked = Asked(split, concepts, min_samples)
    return gather_texts(samples, asked, root, read_description(root), emotions)


def _emotion(number: str, emotions: Sequence[str], where: str) -> str:
    if not is_number(number) or int(number) >= len(emotions):
        raise ValueError(f"{where}: {number!r:.80} is none of the {len(emotions)} emotions.")
    return emotions[int(number)]


def read_fields(path: Path, delimiter: str | None) -> Iterator[tuple[str, list[str]]]:
    """Read lines of fields that are not quoted, empty lines as no field.

    Parameters
    ----------
    path : Path
        UTF-8.
    delimiter : str or None
        What parts fields; None is any white space.

    Yields
    ------
    where : str
        Where the line stands.
    fields : list of str
        The fields.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where} is not UTF-8: {error}.") from error
            yield where, text.split(delimiter) if text.strip() else []
