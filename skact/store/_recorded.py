"""Activations that somebody else has recorded, kept under names that the user gives.

What an embedder keeps is named by the sample and by all of the model. Whoever reads recorded rows
knows neither: a sample is what the user calls it, and a layer is what its Source says. Both are
told apart from what an embedder makes, so that rows of which nobody knows how they came about are
never taken for those of a forward pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np

from skact.arguments import SEQUENCE, Such, check_characters, checked, instance, is_name
from skact.files import parse_json
from skact.rows import Array, Sink, as_floats, runs
from skact.store._exchange import are_numbers, check_width
from skact.store._fill import Filled
from skact.store._index import Index
from skact.store._records import RAW, Identity
from skact.tokens import LayerStack, Source, TokenArray, same_shapes

__all__ = ["RecordedMixin", "recorded_key"]

_PIECE = 2**24  # bytes to copy at a time
_BLOCKS = 2**16  # far beyond any model
_SAMPLES = Such(
    "a TokenArray(...), a LayerStack(...), or an iterable of such",
    lambda value: isinstance(value, Iterable) and not isinstance(value, str | bytes | type),
)


def recorded_key(name: str) -> bytes:
    """Name a recorded sample: the SHA-256 of what the user calls it."""
    return hashlib.sha256(f"recorded sample\n{name}".encode()).digest()


def _recorded_identity(source: Source | None, stored_as: str) -> Identity:
    """Name a recorded layer by all that its Source says.

    Raises
    ------
    ValueError
        If that is not which rows they are.
    """
    told = source or Source()
    lacking = [n for n in ("model", "revision", "block") if getattr(told, n) is None]
    if lacking:
        raise ValueError(
            f"source does not say {' and '.join(lacking)}, without which nobody can tell later "
            f"what the rows are; got ({told}). Readers take source=Source(model, revision), and "
            "those of one layer its block too."
        )
    if not 0 <= int(told.block or 0) < _BLOCKS:
        raise ValueError(f"source must say a block from 0 to {_BLOCKS - 1}, got {told.block!r}.")
    about = {"recorded": True, "stored_as": stored_as, **vars(told), "block": int(told.block or 0)}
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return Identity(text, hashlib.sha256(text.encode()).digest(), str(told.model), about["block"])


def _check_names(names: Sequence[str]) -> list[str]:
    """Refuse names that are no texts, or that come twice."""
    listed, seen = list(names), set()
    for i, name in enumerate(listed):
        if not isinstance(name, str) or not is_name(name):
            raise ValueError(f"names[{i}] must be a text that is not empty, got {name!r}.")
        check_characters(name, f"names[{i}]")
        if name in seen:
            raise ValueError(f"names must differ from each other, but {name!r} comes twice.")
        seen.add(name)
    return listed


def _batches_of(samples: Any) -> Iterable[Mapping[int | None, TokenArray]]:
    """Give one batch after the other, by block; None is the only one of a TokenArray."""
    whole = isinstance(samples, TokenArray | LayerStack)
    for number, batch in enumerate([samples] if whole else samples):
        if isinstance(batch, LayerStack):
            yield {block: batch.layer(block) for block in batch.layers}
        elif isinstance(batch, TokenArray):
            yield {None: batch}
        else:
            what = "samples" if whole else f"item {number} of samples"
            raise TypeError(
                f"{what} must be a TokenArray or a LayerStack, as readers give them, got "
                f"{type(batch).__name__}."
            )


def _encoded(values: Array, dtype: np.dtype[Any]) -> Array:
    """Round numbers to those that are stored; of bfloat16 the bits."""
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype != np.uint16:
            return values.astype(dtype, copy=False)
        bits = as_floats(values).astype(np.float32, copy=False).view(np.uint32)
        # To the nearest, of two the even one; the carry of NaN would turn it into a number.
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def _same(stored: TokenArray, given: TokenArray, dtype: str) -> Array:
    """Tell which samples have the rows and gaps in a store that were given, bool (n_samples,)."""
    alike = stored.lengths == given.lengths
    if stored.n_features != given.n_features:
        return np.zeros_like(alike)
    for i in np.flatnonzero(alike).tolist():
        ours, theirs = (_encoded(tokens[i], RAW[dtype]) for tokens in (stored, given))
        runs = (tokens[[i]].segments for tokens in (stored, given))
        alike[i] = np.array_equal(ours, theirs) and same_shapes(*runs)
    return alike


class _RecordedJob:
    """Samples in memory or in files, as a :class:`~skact.store.Job` that runs no model.

    Parameters
    ----------
    layers : mapping of int to TokenArray
        The same samples, by block.
    names : list of str
        What they are called.
    places : list of int
        Which of them.
    """

    def __init__(
        self, layers: Mapping[int, TokenArray], names: Sequence[str], places: list[int]
    ) -> None:
        first = next(iter(layers.values()))
        self.layers, self.names = layers, names
        self.samples = np.array(places)
        self.n_rows = self.n_tokens = first.lengths[self.samples]
        self.n_features = first.n_features
        self.shapes = None if first.shapes is None else first.shapes[self.samples]
        self.segments = first[self.samples].segments

    def embed(self, rows: Array, blocks: Sequence[int], sink: Sink, progress: Any) -> None:
        """Copy the rows of some samples, if they are numbers that can be stored."""
        numbers = self.samples[rows]
        for part in runs(self.n_rows[rows] * self.n_features * 8, _PIECE):
            batch = np.arange(part.start, part.stop)
            room, _ = sink.room(batch)
            for block in blocks:
                tokens = self.layers[block][numbers[part]]
                room[block][: tokens.n_tokens] = encoded = _encoded(tokens.flat(), sink.dtype)
                if not are_numbers(encoded):
                    self._refuse(tokens, numbers[part], block, sink.dtype)
            sink.keep(batch)

    def _refuse(self, tokens: TokenArray, numbers: Array, block: int, dtype: Any) -> None:
        for i, values in zip(numbers.tolist(), tokens, strict=True):
            if not are_numbers(_encoded(values, dtype)):
                raise ValueError(
                    f"sample {self.names[i]!r} holds NaN, infinity, or a number too large for the "
                    f"dtype of the store, in block {block}. What was put before is intact."
                )


class RecordedMixin:
    """A store that also takes in what no embedder has made."""

    dtype: str
    _index: Index
    lacking: Callable[..., Array]
    read: Callable[..., TokenArray | None]
    fill: Callable[..., Filled]

    @checked(samples=[_SAMPLES], names=[SEQUENCE])
    def put(
        self,
        samples: TokenArray | LayerStack | Iterable[TokenArray | LayerStack],
        names: Sequence[str],
    ) -> int:
        """Take in activations that somebody else has recorded, as readers give them.

        Parameters
        ----------
        samples : TokenArray, LayerStack, or iterable of them
            With a :class:`~skact.Source` that says model, revision and block. Of an iterable, such
            as a generator that reads some files at a time, one item is held at a time; what was
            taken in before an error stays.
        names : sequence of n_samples str
            What the samples are called, of all items one after the other, each once. Recorded rows
            are found again by name and Source; they are never taken for those of an embedder.

        Returns
        -------
        n_samples : int
            Samples that were not here before. One that is here with the same rows is left as it is.

        Raises
        ------
        ValueError
            If the Source does not say model, revision and block, names are not one for each sample,
            a sample of that name and Source is here with other rows, or rows hold NaN, are no
            floats, or of another width than those of the same layer here.

        Notes
        -----
        Numbers are rounded to the ``dtype`` of the store. They are equal to those that were given
        where it is that of the recording or a wider one.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from skact import ActivationStore, Source, read_stacked
        >>> store, source = ActivationStore(tempfile.mkdtemp()), Source("a model", "its commit")
        >>> arrays = [np.ones((1, 2, 3), np.float32), np.zeros((1, 4, 3), np.float32)]
        >>> stack = read_stacked(arrays, [7], source=source)
        >>> store.put(stack, ["request 1", "request 2"]), store.put(stack[:1], ["request 1"])
        (2, 0)
        >>> store.get(["request 2"], source, blocks=[7]).layer(7).lengths
        array([4])
        """
        listed, start, n_new = _check_names(names), 0, 0
        for batch in _batches_of(samples):
            stop = start + len(next(iter(batch.values())))
            if stop > len(listed):
                break
            n_new += self._put(batch, listed[start:stop])
            start = stop
        else:
            stop = start
        if stop != len(listed):
            which = "more" if stop > len(listed) else f"{stop}"
            raise ValueError(f"names has {len(listed)} entries, samples hold {which}.")
        return n_new

    def _put(self, batch: Mapping[int | None, TokenArray], names: list[str]) -> int:
        """Take in samples that are held."""
        layers, identities = {}, {}
        for block, tokens in batch.items():
            source = tokens.source or Source()
            if source.block is None:
                source = replace(source, block=block)
            identity = _recorded_identity(source, self.dtype)
            if block not in (None, identity.block):
                raise ValueError(
                    f"samples hold a layer {block} whose source says block {identity.block}."
                )
            if tokens.dtype.kind != "f":
                raise ValueError(f"samples must hold floats, got dtype {tokens.dtype}.")
            check_width(self._index, identity, tokens.n_features, "samples")
            layers[identity.block], identities[identity.block] = tokens, identity
        keys = [recorded_key(name) for name in names]
        lacking = self.lacking(keys, identities)
        for (block, tokens), is_new in zip(layers.items(), lacking.T, strict=True):
            held = np.flatnonzero(~is_new)
            stored = self.read([keys[i] for i in held], identities[block]) if len(held) else None
            if stored is None:
                continue
            other = held[~_same(stored, tokens[held], self.dtype)]
            if len(other):
                raise ValueError(
                    f"the store holds other rows under the name {names[other[0]]!r}, of the same "
                    f"source ({tokens.source}); give the sample another name, or forget the one "
                    "that is there."
                )
        prepare = partial(_RecordedJob, layers, names)
        return self.fill(keys, identities, {}, prepare).n_embedded

    @checked(
        names=[SEQUENCE],
        source=[instance("a Source(...)", Source)],
        blocks=[SEQUENCE, None],
    )
    def get(
        self, names: Sequence[str], source: Source, *, blocks: Sequence[int] | None = None
    ) -> TokenArray | LayerStack:
        """Show recorded samples, mapped and not copied.

        Parameters
        ----------
        names : sequence of n_samples str
            As in :meth:`put`; here one may come twice.
        source : Source
            As it was put; what it leaves open, besides model, revision and block, may be anything
            that tells of one layer alone.
        blocks : sequence of int, default=None
            Layers to be shown; None shows that of the source.

        Returns
        -------
        tokens : TokenArray, or LayerStack with ``blocks``
            The samples, with their source.

        Raises
        ------
        ValueError
            If a sample is not there at one of the layers, the source does not say model, revision
            and block, or several layers fit it.
        """
        named = [_check_names([name])[0] for name in names]
        if not named:
            raise ValueError("names must hold at least one name.")
        if blocks is not None and not len(blocks):
            raise ValueError("blocks must hold at least one block.")
        for number in blocks or []:
            if isinstance(number, bool) or not isinstance(number, Integral) or number < 0:
                raise ValueError(f"blocks must hold numbers of blocks, from 0, got {number!r}.")
        layers: dict[int, TokenArray] = {}
        for block in [source.block] if blocks is None else blocks:
            identity, told = self._recorded_layer(replace(source, block=block))
            keys = [recorded_key(name) for name in named]
            tokens = self.read(keys, identity, told)
            if tokens is None:
                absent = np.flatnonzero(self.lacking(keys, {identity.block: identity})[:, 0])
                raise ValueError(
                    f"{len(absent)} of {len(named)} samples were not put into this store as "
                    f"{self.dtype} of ({told}), the first of them {named[absent[0]]!r}."
                )
            layers[identity.block] = tokens
        return LayerStack(layers) if blocks is not None else next(iter(layers.values()))

    def _recorded_layer(self, asked: Source) -> tuple[Identity, Source]:
        """Find the only layer that was put with a source like this one."""
        exact = _recorded_identity(asked, self.dtype)
        with self._index.reading() as connection:
            rows = connection.execute(
                "SELECT json, digest, model, block FROM identities WHERE id IN "
                "(SELECT identity FROM entries)"
            ).fetchall()
        found = []
        for identity in (Identity(*row) for row in rows):
            about = parse_json(identity.json, "the identity")
            if about.get("recorded") is True and about["stored_as"] == self.dtype:
                put = Source(**{name: about[name] for name in vars(asked)})
                if put.columns == asked.columns and asked.conflict(put) is None:
                    found.append((identity, put))
        exactly = [pair for pair in found if pair[0] == exact]
        if len(exactly or found) > 1:
            raise ValueError(
                f"{len(found)} layers fit source=({asked}); say more of one: "
                f"{'; '.join(str(put) for _, put in found)}."
            )
        return (exactly or found or [(exact, asked)])[0]
