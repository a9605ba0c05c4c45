"""Texts as annotation tools write them: brat, Label Studio, and inline tags."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from sklearn.utils import Bunch

from skact.arguments import Such, checked
from skact.datasets._files import found_in, open_folder, read_description, reads_a_folder
from skact.datasets._gather import (
    ASKED,
    FILES,
    Asked,
    Files,
    by_split,
    gather_texts,
    own_name,
    spanned,
    whole,
)
from skact.datasets._span import Span
from skact.datasets._spans import parse_tags
from skact.datasets._stream import read_items
from skact.datasets._tables import read_fields
from skact.files import check_link
from skact.warning import warn

_ENTITY = re.compile(r"T\S*\t(\S+) (\d{1,18} \d{1,18}(?:;\d{1,18} \d{1,18})*)\t(.*)", re.DOTALL)
_NAME = Such("a name", lambda value: isinstance(value, str) and value)


@reads_a_folder
def load_brat(
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    r"""Read a folder of brat: texts ``NAME.txt``, each with ``NAME.ann``.

    Of annotations the text-bound ones (``T1``) are read; their types are the concepts. One in
    several pieces gives a span for each. Relations, events and notes are not looked at. Splits are
    drawn by :func:`draw_splits`.

    Parameters
    ----------
    folder : str or path-like
        The folder; those inside are not looked at.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        Types to keep, in the order of the columns wanted; all types if None.
    min_samples : int, default=0
        Types of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_spans`.

    Raises
    ------
    FileNotFoundError
        If the folder or an ``.ann`` is missing.
    ValueError
        If an annotation is damaged or is not what stands there in the text; the message names file
        and line.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from skact.datasets import load_brat
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "a.txt").write_text("Ann left.")
    ...     _ = pathlib.Path(folder, "a.ann").write_text("T1\tPerson 0 3\tAnn\n")
    ...     notes = load_brat(folder)
    >>> notes.spans
    [[Span(start=0, end=3, label='Person')]]
    """
    root = open_folder(folder)
    samples = []
    for path in found_in(root, "*.txt"):
        annotations = check_link(root, path.with_suffix(".ann"))
        if not annotations.is_file():
            raise FileNotFoundError(f"There is no file {annotations} for {path.name}.")
        try:
            text = path.read_bytes().decode("utf-8")  # brat counts each sign of a line's end
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {error}.") from error
        if not text.strip():
            raise ValueError(f"{path} is empty.")
        spans: list[Span] = []
        for where, fields in read_fields(annotations, "\t"):
            if fields and fields[0].startswith("T"):
                spans += _entity("\t".join(fields), text, where)
        samples.append(spanned(path.stem, text, sorted(spans), None))
    asked = Asked(split, concepts, min_samples)
    return gather_texts(samples, asked, root, read_description(root))


def _entity(line: str, text: str, where: str) -> list[Span]:
    match = _ENTITY.fullmatch(line)
    if match is None:
        raise ValueError(f"{where}: expected 'T1, tab, Type 0 5, tab, text', got {line[:80]!r}.")
    label, places, said = match.groups()
    spans = []
    for place in places.split(";"):
        start, end = map(int, place.split())
        if not start < end <= len(text):
            raise ValueError(f"{where}: {start} {end} must lie in a text of {len(text)}.")
        spans.append(Span(start, end, label))
    found = " ".join(text[span.start : span.end] for span in spans)
    if found.split() != said.split():
        raise ValueError(f"{where}: the text says {found[:80]!r} there, and not {said[:80]!r}.")
    return spans


@checked(files=FILES, text=[_NAME], **ASKED)
def load_label_studio(
    files: Files,
    *,
    text: str = "text",
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    """Read texts from the JSON that Label Studio exports.

    Of each task the first annotation that was not cancelled is read: ``labels`` are spans, and
    ``choices`` speak of the whole text. Offsets may count code points or, as JavaScript does,
    UTF-16 units; which of them is seen from the text of a region, white space aside, as the tool
    writes ends of lines in other ways. Splits are drawn by :func:`draw_splits` where there is one
    file.

    Parameters
    ----------
    files : path or dict of paths by split
        The exports. Those of more than 64 MiB are streamed by ijson, of the extra ``data``.
    text : str, default="text"
        Where a task's ``data`` holds the text.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        Labels to keep, in the order of the columns wanted; all labels if None.
    min_samples : int, default=0
        Labels of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_spans`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a task is damaged, or a region is not what stands there in the text; the message names
        file and task.

    Warns
    -----
    UserWarning
        If tasks were left out that nobody annotated, some have several annotations, or labels were
        left out that are none of texts, such as those of HTML.

    Examples
    --------
    >>> from skact.datasets import load_label_studio
    >>> texts = load_label_studio("export.json", text="comment")  # doctest: +SKIP
    """
    samples, n_empty, n_several = [], 0, 0
    unread: dict[str, int] = {}
    for own, path in by_split(files):
        for number, task in enumerate(read_items(path), start=1):
            where = f"{path}, task {number}"
            content, annotations = _task(task, text, where)
            n_empty += not annotations
            n_several += len(annotations) > 1
            if annotations:
                spans = [s for r in annotations[0] for s in _region(r, content, where)]
                for kind in filter(None, map(_unread_kind, annotations[0])):
                    unread[kind] = unread.get(kind, 0) + 1
                name = own_name(own, path, number)
                samples.append(spanned(name, content, sorted(set(spans)), own))
    if n_empty:
        warn(f"{n_empty} tasks have no annotation and were left out; none of them is a negative.")
    if n_several:
        warn(f"{n_several} tasks have several annotations; the first of each was read.")
    for kind, n_regions in unread.items():
        warn(f"{n_regions} regions of kind {kind!r} were left out: labels and choices are read.")
    return gather_texts(samples, Asked(split, concepts, min_samples), files)


def _task(task: Any, key: str, where: str) -> tuple[str, list[list[Any]]]:
    """Return the text of a task, and the regions of each annotation."""
    data = task.get("data") if isinstance(task, dict) else None
    content = data.get(key) if isinstance(data, dict) else None
    if not isinstance(content, str) or not content.strip():
        if not isinstance(data, dict):
            raise ValueError(f"{where} has no 'data'. Export as 'JSON', not as 'JSON-MIN'.")
        raise ValueError(f"{where}: data[{key!r}] must be a text; it has {', '.join(data):.200}.")
    annotations = task.get("annotations")
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise ValueError(f"{where}: 'annotations' must be a list of objects. Export as 'JSON'.")
    results = [a.get("result") for a in annotations if not a.get("was_cancelled")]
    if not all(isinstance(result, list) for result in results):
        raise ValueError(f"{where}: 'result' must be a list.")
    return content, results


def _unread_kind(region: Any) -> str | None:
    """Name the kind of a region whose labels are not read, None of others."""
    kind = region.get("type") if isinstance(region, dict) else None
    is_unread = isinstance(kind, str) and (kind.endswith("labels") or kind == "taxonomy")
    return str(kind) if is_unread and kind != "labels" else None


def _region(region: Any, text: str, where: str) -> list[Span]:
    """Return the spans of a region; those of relations and other kinds are none."""
    kind = region.get("type") if isinstance(region, dict) else None
    if kind not in ("labels", "choices"):
        return []
    value = region.get("value")
    labels = value.get(kind) if isinstance(value, dict) else None
    if not isinstance(labels, list) or not all(isinstance(x, str) and x for x in labels):
        raise ValueError(f"{where}: a region must have {kind}, got {value!r:.80}.")
    if kind == "choices":
        return whole(text, labels)
    start, end, said = value.get("start"), value.get("end"), value.get("text")
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        raise ValueError(f"{where}: a region must have 'start' < 'end', got {value!r:.80}.")
    start, end = _code_points(text, start, end, said, where)
    return [Span(start, end, label) for label in labels]


def _code_points(text: str, start: int, end: int, said: Any, where: str) -> tuple[int, int]:
    units = text.encode("utf-16-le", "surrogatepass")
    try:
        before, piece = units[: 2 * start].decode("utf-16-le"), units[2 * start : 2 * end]
        of_units = len(before), len(before) + len(piece.decode("utf-16-le"))
    except UnicodeDecodeError:  # in the middle of a sign
        of_units = start, end
    places = [(a, b) for a, b in ((start, end), of_units) if b <= len(text)]
    places = places if 2 * end <= len(units) else []
    for told in (lambda piece: piece, _words):  # what is exact goes before what is nearly so
        for first, last in places:
            if said is None or told(text[first:last]) == told(said):
                return first, last
    found = text[start:end][:80]
    raise ValueError(f"{where}: {start} {end} is {found!r:.80} in the text, not {said!r:.80}.")


def _words(said: Any) -> list[str]:
    r"""Give what does not depend on ends of lines, which Label Studio writes as ``\n``."""
    return str(said).replace("\\n", "\n").split()


@checked(files=FILES, **ASKED)
def load_tagged(
    files: Files,
    *,
    split: str | None = None,
    concepts: Iterable[str] | None = None,
    min_samples: int = 0,
) -> Bunch:
    r"""Read texts with inline tags, one a line, as :func:`parse_tags` does.

    Parameters
    ----------
    files : path or dict of paths by split
        UTF-8; empty lines are passed over. Splits are drawn by :func:`draw_splits` if there is one
        file.
    split : {"train", "cal", "test"} or None, default=None
        Samples to return, all of them if None.
    concepts : iterable of str or None, default=None
        Tags to keep, in lower case and in the order of the columns wanted; all tags if None.
    min_samples : int, default=0
        Tags of fewer samples, counted over all splits, are left out; of `concepts`, refused.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As that of :func:`load_spans`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If tags of a line do not fit; the message names file and line.

    Warns
    -----
    UserWarning
        If no line has a tag.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from skact.datasets import load_tagged
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.txt")
    ...     _ = path.write_text("So. <JOY>I cheer!</JOY>\nRain.\n")
    ...     load_tagged(path).spans
    [[Span(start=4, end=12, label='joy')], []]
    """
    samples = []
    for own, path in by_split(files):
        for number, (where, lines) in enumerate(read_fields(path, "\n"), start=1):
            for line in lines:
                try:
                    text, spans = parse_tags(line)
                except ValueError as error:
                    raise ValueError(f"{where}: {error}") from error
                if not text.strip():
                    raise ValueError(f"{where}: there is no text beside the tags.")
                samples.append(spanned(own_name(own, path, number), text, spans, own))
    if samples and not any(sample.located for sample in samples):
        warn("No text has a tag, <NAME>...</NAME>, so there is no concept.")
    return gather_texts(samples, Asked(split, concepts, min_samples), files)
