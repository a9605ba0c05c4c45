"""What all readers end in: a bunch with splits, groups and the concepts asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions

from skact.arguments import (
    PATH,
    Number,
    Such,
    check_characters,
    check_concepts,
    checked,
    is_name,
)
from skact.datasets._span import Span

SPLITS = ("train", "cal", "test")
#: Splits of public data sets, and ours; thresholds come from what they call validation.
PUBLISHED_SPLITS = {"train": "train", "val": "cal", "test": "test"}

_PATHS = Such(
    "a path, or a dict of paths by split",
    lambda v: PATH.is_satisfied_by(v) or (isinstance(v, Mapping) and v),
)
#: One file, or a dict of files by split.
Files = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]

#: Of all readers; names of concepts are compared with the data when they are known.
ASKED: dict[str, Any] = {
    "split": [StrOptions(set(SPLITS)), None],
    "concepts": "no_validation",
    "min_samples": [Number(Integral, 0, None, closed="left")],
}
FILES: list[Any] = [_PATHS]


class Asked(NamedTuple):
    """Which samples and concepts of a data set are wanted; as in :func:`load_spans`."""

    split: str | None
    concepts: Iterable[str] | None
    min_samples: int


class Sample(NamedTuple):
    """A sample that a reader found.

    Parameters
    ----------
    identifier : str
        Its own.
    data : str
        The text, or the path of the image.
    labels : collection of str
        Concepts that it has.
    located : object
        Where they are: spans, or what a mask is drawn from.
    split : str or None, default=None
        None where the source has no splits.
    group : str or None, default=None
        Samples of one group belong into one split; None is a group of its own.
    """

    identifier: str
    data: str
    labels: Collection[str]
    located: Any
    split: str | None = None
    group: str | None = None


@checked(
    groups=[Such("a list or 1-D array", lambda v: np.ndim(v) == 1 and not isinstance(v, str))],
    shares=[Such("three shares", lambda v: isinstance(v, Sequence) and len(v) == len(SPLITS))],
    seed=[Number(Integral, None, None, closed="neither")],
)
def draw_splits(
    groups: npt.ArrayLike, shares: Sequence[float] = (0.6, 0.2, 0.2), *, seed: int = 0
) -> npt.NDArray[np.str_]:
    """Draw train, calibration and test splits, no group in two of them.

    Groups stand in the order of a hash of their name, and are dealt out by their share of the
    samples. So the order of the samples does not matter, nor who draws.

    Parameters
    ----------
    groups : array-like of shape (n_samples,)
        Name of the group of each sample, such as ``groups`` of a bunch.
    shares : sequence of three floats, default=(0.6, 0.2, 0.2)
        Shares of ``train``, ``cal`` and ``test``; they add up to 1.
    seed : int, default=0
        Another one gives another draw.

    Returns
    -------
    split : ndarray of shape (n_samples,), dtype str
        ``train``, ``cal`` or ``test``.

    Raises
    ------
    ValueError
        If there is no sample, or the shares are negative or do not add up to 1.

    Examples
    --------
    >>> from skact.datasets import draw_splits
    >>> draw_splits(["a", "a", "b", "c", "d", "e"], shares=(0.5, 0.25, 0.25)).tolist()
    ['cal', 'cal', 'test', 'train', 'train', 'train']
    """
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= share <= 1:
            raise ValueError(f"shares must lie between 0 and 1, got {share!r}.")
    if abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares must add up to 1, got {tuple(shares)}.")
    names, own, sizes = np.unique(
        np.asarray(list(map(str, np.asarray(groups, dtype=object)))),
        return_inverse=True,
        return_counts=True,
    )
    if not len(names):
        raise ValueError("groups must hold at least one sample.")
    hashes = [
        hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()
        for name in names
    ]
    order = sorted(range(len(names)), key=hashes.__getitem__)
    dealt = np.cumsum(sizes[order])
    middles = (dealt - sizes[order] / 2) / dealt[-1]
    place = np.empty(len(names), np.int64)
    place[order] = np.searchsorted(np.cumsum(shares)[:-1], middles, side="right")
    return np.array(SPLITS)[place[own]]


def by_split(files: Files) -> list[tuple[str | None, Path]]:
    """List files with their split, None for a single one; each is there."""
    pairs = list(files.items()) if isinstance(files, Mapping) else [(None, files)]
    listed: list[tuple[str | None, Path]] = []
    for split, file in pairs:
        if split is not None and split not in SPLITS:
            raise ValueError(f"files must be given by {', '.join(SPLITS)}, got {split!r}.")
        if not PATH.is_satisfied_by(file):
            raise TypeError(f"The file of {split!r} must be a path, got {file!r}.")
        path = Path(os.path.abspath(file))
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        listed.append((split, path))
    return listed


def own_name(split: str | None, path: Path, number: int) -> str:
    """Name a sample that has no id by its file and line or number."""
    return f"{'' if split is None else split + '/'}{path.name}:{number}"


def check_new_id(identifier: str, seen: dict[str, str], where: str) -> None:
    """Refuse an id that an earlier record has; note it in `seen` otherwise."""
    if identifier in seen:
        raise ValueError(f"{where}: id {identifier!r} is that of {seen[identifier]} already.")
    seen[identifier] = where


def gather(
    samples: Sequence[Sample],
    names: Sequence[str],
    asked: Asked,
    path: Any,
    place: Callable[[list[Sample], list[str]], dict[str, Any]],
    description: str = "",
) -> Bunch:
    """Make the bunch of a data set.

    Parameters
    ----------
    samples : sequence of Sample
        All of them.
    names : sequence of str
        Concepts of the data set, in their order.
    asked : Asked
        What of it is wanted.
    path : object
        Where it is from, for errors.
    place : callable
        Takes the samples and the names of the concepts that are wanted, returns ``masks`` or
        ``spans``, and what else the bunch is to have.
    description : str, default=""
        Of the data set.

    Returns
    -------
    data : Bunch
        As in :func:`load_spans`.
    """
    if not samples:
        raise ValueError(f"{path} holds no samples.")
    for name in names:
        check_characters(name, f"{path}: the concept {name!r}")
        if not is_name(name):
            raise ValueError(f"{path} has a concept called {name!r}, which is no name.")
    groups = np.array([s.identifier if s.group is None else s.group for s in samples])
    if samples[0].split is None:
        splits = draw_splits(groups)
    else:
        splits = np.array([sample.split for sample in samples])
    wanted = _select(samples, names, asked, path)
    rows = [row for row, own in enumerate(splits) if asked.split in (None, own)]

    if not rows:
        raise ValueError(f"{path} has no sample with split {asked.split!r}.")
    chosen = [samples[row] for row in rows]
    return Bunch(
        data=[sample.data for sample in chosen],
        **place(chosen, wanted),
        target=_indicator([sample.labels for sample in chosen], wanted),
        target_names=wanted,
        split=splits[rows],
        groups=groups[rows],
        ids=[sample.identifier for sample in chosen],
        DESCR=description,
    )


def _select(samples: Sequence[Sample], names: Sequence[str], asked: Asked, path: Any) -> list[str]:
    """Return the wanted concepts in the order asked for; counts are those of all splits."""
    count = dict.fromkeys(names, 0)
    for sample in samples:
        for label in set(sample.labels):
            if label in count:
                count[label] += 1
    if asked.concepts is None:
        kept = [name for name in names if count[name] >= asked.min_samples]
        if names and not kept:
            most = max(names, key=count.__getitem__)
            raise ValueError(
                f"{path} has no concept with {asked.min_samples} samples; {most!r} has the most, "
                f"{count[most]}. Lower min_samples."
            )
        return kept
    wanted = check_concepts(asked.concepts)
    for name in wanted:
        if name not in count:
            raise ValueError(f"{path} has no concept {name!r}; it has {', '.join(names)}.")
        if count[name] < asked.min_samples:
            raise ValueError(
                f"{path}: concept {name!r} has {count[name]} samples, fewer than min_samples="
                f"{asked.min_samples}. Lower it, or leave the concept out."
            )
    return wanted


def _indicator(labels: Sequence[Collection[str]], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the (n_samples, n_concepts) matrix of 0 and 1 that says who carries which label."""
    columns = {name: column for column, name in enumerate(names)}
    matrix = np.zeros((len(labels), len(names)), np.int64)
    for row, own in zip(matrix, labels, strict=True):
        row[[columns[name] for name in own if name in columns]] = 1
    return matrix


def gather_texts(
    samples: Sequence[Sample],
    asked: Asked,
    path: Any,
    description: str = "",
    names: Sequence[str] | None = None,
) -> Bunch:
    """Make the bunch of texts with spans; its concepts are all that occur if `names` is None."""

    def place(chosen: list[Sample], wanted: list[str]) -> dict[str, Any]:
        kept = set(wanted)
        return {"spans": [[s for s in sample.located if s.label in kept] for sample in chosen]}

    for sample in samples:
        check_characters(sample.data, f"{path}: the text of sample {sample.identifier!r}")
    occurring = sorted({label for sample in samples for label in sample.labels})
    return gather(samples, occurring if names is None else names, asked, path, place, description)


def spanned(
    identifier: str, text: str, spans: Sequence[Span], split: str | None, group: str | None = None
) -> Sample:
    """Make the sample of a text and its spans."""
    return Sample(identifier, text, {span.label for span in spans}, spans, split, group)


def whole(text: str, labels: Iterable[str]) -> list[Span]:
    """Return labels of a whole text as spans over all of it."""
    return [Span(0, len(text), label) for label in labels]
