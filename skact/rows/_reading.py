"""Going through rows piece by piece, wherever they lie, without holding more than a few pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from sklearn import config_context, get_config

from skact.rows._direct import DirectReader, exceeds_memory
from skact.rows._files import ask_for, expect_single_rows, let_go, mapping, shows_file
from skact.rows._pieces import Mapped, Shards, cut, load, parts_of, selection
from skact.rows._ragged import offsets_of
from skact.rows._types import Array

__all__ = ["expect", "may_hold", "most_held", "on_disk", "read", "read_ahead", "release", "runs"]

T = TypeVar("T")

# Threads that fetch pieces, and as many that compute them; pieces that are fetched or computed.
_READERS, _AHEAD = 2, 6
# Bytes that a disk reads in the time that it takes to find a row.
_FAR = 2**17


def may_hold(n_bytes: int) -> bool:
    """Tell whether something is small enough to be held whole.

    Parameters
    ----------
    n_bytes : int
        Its size.

    Returns
    -------
    small : bool
        Whether it takes at most half of scikit-learn's ``working_memory``.
    """
    return n_bytes <= most_held()


def most_held() -> float:
    """Bytes that may be held whole, see :func:`may_hold`."""
    half: float = get_config()["working_memory"] * 2**19
    return half


def runs(sizes: Sequence[int] | Array, most: float, n_most: int | None = None) -> list[slice]:
    """Cut a sequence into runs of bounded size, from its begin on.

    Parameters
    ----------
    sizes : sequence or ndarray of int of shape (n_items,)
        Size of each item.
    most : float
        What the sizes of a run add up to at most; an item that is larger is a run by itself.
    n_most : int, default=None
        Most items of a run; None bounds the sizes only.

    Returns
    -------
    runs : list of slice
        All items, in order.
    """
    offsets = offsets_of(sizes)
    cuts, start = [], 0
    while start < len(sizes):
        stop = int(np.searchsorted(offsets, offsets[start] + most, side="right")) - 1
        if n_most is not None:
            stop = min(stop, start + n_most)
        stop = max(stop, start + 1)
        cuts.append(slice(start, stop))
        start = stop
    return cuts


def on_disk(values: Any) -> bool:
    """Tell whether values are read from a file, or computed when they are read."""
    return isinstance(values, Shards | Mapped) or mapping(values) is not None


def read(values: Any, rows: slice | Array) -> Array:
    """Read rows; those of a mapped file that are copied are let go of.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped of shape (n_rows, n_features)
        The rows.
    rows : slice or ndarray of int
        Which ones.

    Returns
    -------
    values : ndarray of shape (n_rows_read, n_features)
        A view where ``values`` can give one, else a copy.
    """
    if not on_disk(values):
        held_already: Array = values[rows]
        return held_already
    expect(values, rows)
    return _read_expected(values, rows)


def _read_expected(values: Any, rows: slice | Array) -> Array:
    result: Array = values[rows]
    if not shows_file(result):
        release(values, rows)
    return result


def read_ahead(
    values: Any,
    lengths: Sequence[int],
    rows_of: Callable[[int], slice | Array],
    then: Callable[[int, Array], T],
) -> Iterator[T]:
    """Read pieces one after the other, compute something from each, and let go of it.

    While a result of one of :class:`~skact.rows.Shards` or :class:`~skact.rows.Mapped` is used,
    threads fetch and compute those behind it. Files that exceed the memory are read past the pages
    that the system keeps, which would all be gone when they are read next.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped of shape (n_rows, n_features)
        The rows.
    lengths : sequence of int
        How many rows each piece has.
    rows_of : callable
        Takes the number of a piece, and gives its rows, a slice or an ndarray of int.
    then : callable
        Takes the number of a piece, and its rows as from :func:`read`.

    Yields
    ------
    result : object
        What ``then`` returns. If it is or holds a view on a mapped file, its pages are let go of
        when the next is asked for.
    """
    n_pieces = len(lengths)
    # A piece is asked for, read and let go of while no more than these others are.
    rows = lru_cache(2 * _AHEAD)(rows_of)
    if on_disk(values) and exceeds_memory(values.nbytes):
        # What is narrow when it was computed may be wide when it is read.
        most = max(int(get_config()["working_memory"] * 2**14 * len(values) / values.nbytes), 1)
        n_parts = [-(-length // most) for length in lengths]
        source = _PastTheCache(values)
        if max(n_parts, default=1) == 1:
            yield from _in_threads(source, n_pieces, rows, then)
        else:
            yield from _in_parts(source, n_parts, rows, then)
    elif isinstance(values, Shards | Mapped):
        yield from _in_threads(_ThroughTheCache(values), n_pieces, rows, then)
    else:
        for number in range(n_pieces):
            block = read(values, rows(number))
            yield then(number, block)
            if shows_file(block):
                release(values, rows(number))


class _ThroughTheCache:
    """Has the system fetch rows, and reads what it keeps of them."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def fetch(self, rows: slice | Array) -> None:
        expect(self.values, rows)

    def read(self, rows: slice | Array, fetched: None) -> Array:
        return _read_expected(self.values, rows)


class _PastTheCache:
    """Fetches rows into memory of its own, except for single ones, which the system finds."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self._free = deque(DirectReader() for _ in range(_AHEAD))

    def fetch(self, rows: slice | Array) -> tuple[DirectReader, Any]:
        chosen = selection(rows, len(self.values))
        with self._free.popleft() as reader:
            if isinstance(chosen[0], slice):
                return reader, load(self.values, chosen, reader.read)
        expect(self.values, rows)
        return reader, None

    def read(self, rows: slice | Array, fetched: tuple[DirectReader, Any]) -> Array:
        reader, found = fetched
        if found is None:
            block = _read_expected(self.values, rows)
        else:
            block = found[:]
            reader.give(block)
            if reader.incomplete and not shows_file(block):
                release(self.values, rows)
        self._free.append(reader)
        return block


def _in_threads(
    source: _ThroughTheCache | _PastTheCache,
    n_pieces: int,
    rows: Callable[[int], slice | Array],
    then: Callable[[int, Array], T],
) -> Iterator[T]:
    """Give results one after the other, while those behind are fetched and computed."""
    # scikit-learn keeps a configuration for each thread.
    config = get_config()

    def fetching(number: int) -> Any:
        return source.fetch(rows(number))

    def computing(number: int, fetched: Future[Any]) -> tuple[T, bool]:
        with config_context(**config):
            block = source.read(rows(number), fetched.result())
            return then(number, block), shows_file(block)

    with ThreadPoolExecutor(_READERS) as fetchers, ThreadPoolExecutor(_READERS) as computers:
        fetched: deque[Future[Any]] = deque()
        computed: deque[Future[tuple[T, bool]]] = deque()
        for number in range(n_pieces):
            while (n_ahead := len(computed) + len(fetched)) < min(_AHEAD, n_pieces - number):
                fetched.append(fetchers.submit(fetching, number + n_ahead))
            while fetched and len(computed) <= _READERS:
                following = number + len(computed)
                computed.append(computers.submit(computing, following, fetched.popleft()))
            result, shows = computed.popleft().result()
            yield result
            if shows:
                release(source.values, rows(number))


def _in_parts(
    source: _PastTheCache,
    n_parts: Sequence[int],
    rows: Callable[[int], slice | Array],
    then: Callable[[int, Array], T],
) -> Iterator[T]:
    """Do as :func:`_in_threads` with pieces of which no more than a part is to be held."""
    places = [(number, k) for number, n in enumerate(n_parts) for k in range(n)]

    def rows_of_part(place: int) -> slice | Array:
        number, k = places[place]
        part: slice | Array = cut(rows(number), n_parts[number])[k]
        return part

    parts = _in_threads(source, len(places), rows_of_part, lambda _, part: part)
    for number, n in enumerate(n_parts):
        yield then(number, np.concatenate(list(islice(parts, n))))


def expect(values: Any, rows: slice | Array) -> None:
    """Have the system fetch rows of mapped files before they are read.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped
        Where the rows lie.
    rows : slice or ndarray of int
        Which ones. Of single rows far from each other, it is told not to fetch more than them.
    """
    chosen = selection(rows, len(values))
    if isinstance(chosen[0], slice):
        for part in parts_of(values, chosen):
            ask_for(part)
    elif _are_far_apart(values, chosen[0]):
        for part in parts_of(values, _span(chosen[0])):
            expect_single_rows(part, True)


def release(values: Any, rows: slice | Array) -> None:
    """Let go of the pages of mapped files that hold rows; they are read again if needed again.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped
        Where the rows lie. Files with changes of this process's own (mode "c") are left alone.
    rows : slice or ndarray of int
        Which ones; for single rows, what lies between them goes as well.
    """
    chosen = selection(rows, len(values))
    single = not isinstance(chosen[0], slice)
    for part in parts_of(values, _span(chosen[0]) if single else chosen):
        let_go(part)
        if single:
            expect_single_rows(part, False)


def _span(numbers: Array) -> list[slice]:
    """Give the stretch from the first to the last of some rows."""
    return [slice(int(numbers.min()), int(numbers.max()) + 1)] if len(numbers) else []


def _are_far_apart(values: Any, numbers: Array) -> bool:
    n_rows = sum(rows.stop - rows.start for rows in _span(numbers))
    return n_rows * (values.nbytes // max(len(values), 1)) > _FAR * len(numbers)
