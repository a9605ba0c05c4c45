"""The store as users see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.utils._param_validation import RealNotInt, StrOptions

from skact.arguments import PATH, Number, Such, checked, instance
from skact.rows import Array, Shards, offsets_of
from skact.store._entries import are_there, find, missing
from skact.store._exchange import CopyJob, check_width, export, one_layer
from skact.store._fill import Filled, Job, fill
from skact.store._forget import forget
from skact.store._format import KEY_BYTES, read_layer
from skact.store._index import Index
from skact.store._recorded import RecordedMixin, recorded_key
from skact.store._records import RAW, Identity
from skact.store._shards import ShardFolder
from skact.store._upkeep import describe, prune
from skact.store._verify import verify
from skact.tokens import Source, TokenArray, join_segments, join_shapes

__all__ = ["ActivationStore"]

_BLOCK = Number(Integral, None, None, closed="neither")
_DEPTH = Number(RealNotInt, 0, 1, closed="right")


def _are_layers(layers: Any) -> bool:
    """Tell whether these can be layers of a model, which alone knows its blocks."""
    if isinstance(layers, str | bytes):
        return layers == "all"
    each = layers if isinstance(layers, Sequence | np.ndarray) else [layers]
    return len(each) > 0 and all(map(_is_layer, each))


def _are_keys(keys: Any) -> bool:
    return (
        isinstance(keys, Sequence)
        and not isinstance(keys, str | bytes)
        and all(isinstance(key, bytes) and len(key) == KEY_BYTES for key in keys)
    )


def _are_identities(identities: Any) -> bool:
    return isinstance(identities, Mapping) and all(
        isinstance(identity, Identity) for identity in identities.values()
    )


def _is_layer(layer: Any) -> bool:
    return _BLOCK.is_satisfied_by(layer) or _DEPTH.is_satisfied_by(layer)


_KEYS = Such("a list of keys of samples, 32 bytes each", _are_keys)
_KEYS_OR_NAMES = Such(
    "a list of keys of samples, 32 bytes each, or of names of recorded ones",
    lambda keys: (
        _are_keys([key for key in keys if not isinstance(key, str)])
        if isinstance(keys, Sequence) and not isinstance(keys, str | bytes)
        else False
    ),
)
_IDENTITIES = Such("a dict of blocks to Identity(...)", _are_identities)
_SOME_IDENTITIES = Such(
    "a dict of one or more blocks to Identity(...)", lambda value: _are_identities(value) and value
)


class ActivationStore(RecordedMixin):
    """A folder of activations, so that no sample goes through a model twice.

    Given to :class:`~skact.embedding.TransformerEmbedder` as ``store``. Each sample is kept at
    each layer under a key made of the sample's content and of everything that changes the
    numbers; batch size, device and the order of samples do not. Rows are written in chunks: first
    the files, then the index, in one transaction. A run that dies loses the chunk it works on and
    the one on its way to the disk, and nothing half-written is ever read. Any number of processes
    may use one store at once; none embeds what another is embedding.

    Parameters
    ----------
    path : str or Path
        The folder, made on the first write.
    dtype : {"float32", "float16", "bfloat16"}, default="float32"
        Precision that new activations are stored in, and part of the key. bfloat16 is read as
        float32.
    layers : "all", sequence of int or float, or None, default=None
        Layers to keep whenever a sample goes through the model, besides those asked for; in the
        forms of the embedder's ``layer``. With them a search over layers costs one pass.
    chunk_size : int, default=2048
        Most samples that are embedded before they are committed; four times as many are made
        ready for the model at a time, and put into chunks by length, long ones first, so that
        little is padded. A chunk is also cut where its activations at one layer exceed 256 MiB.
    journal : {"wal", "delete"}, default="wal"
        How SQLite keeps the index of a new store consistent. "wal" needs a local disk; "delete"
        is slower and is meant for folders that several machines share.
    check : bool, default=True
        Whether rows are compared with their checksums before they are given out, once per process
        as long as a file stays as it is. False saves reading them once more; that they belong to
        their sample and layer is compared either way.

    Raises
    ------
    ValueError
        If a parameter has another value, or the path is a file.

    Notes
    -----
    The object holds no connection: it can be pickled, which pickles its parameters, and cloned,
    which gives itself. Nothing in the folder is a pickle.

    Examples
    --------
    >>> import tempfile
    >>> from skact import ActivationStore
    >>> store = ActivationStore(tempfile.mkdtemp(), layers="all")
    >>> store.info()["samples"], store.verify()
    (0, [])
    """

    @checked(
        path=[PATH],
        dtype=[StrOptions(set(RAW))],
        layers=[Such('"all", a list of blocks and of depths in (0, 1]', _are_layers), None],
        chunk_size=[Number(Integral, 1, None, closed="left")],
        journal=[StrOptions({"wal", "delete"})],
        check=["boolean"],
    )
    def __init__(
        self,
        path: str | Path,
        dtype: str = "float32",
        *,
        layers: Any = None,
        chunk_size: int = 2048,
        journal: str = "wal",
        check: bool = True,
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"path must be a folder, but {str(path)!r} is a file.")
        self.dtype = dtype
        self.layers = layers
        self.chunk_size = int(chunk_size)
        self.journal = journal
        self.check = check
        self._index = Index(self.path, journal)
        self._folder = ShardFolder(self.path / "shards")

    def info(self) -> dict[str, Any]:
        """Say what the store holds.

        Returns
        -------
        info : dict
            "path"; "samples", the number of distinct ones; "bytes" of the shards; and "layers", a
            list of dicts with model, layer, dtype, convention, samples, tokens, features, shards,
            bytes, the times of the first and the last shard in seconds since 1970, and the
            identity, all that the key is made of.
        """
        n_samples, layers = describe(self._index)
        return {
            "path": str(self.path),
            "samples": n_samples,
            "bytes": sum(layer["bytes"] for layer in layers),
            "layers": layers,
        }

    @checked(repair=["boolean"])
    def verify(self, repair: bool = False) -> list[str]:
        """Read all of the store and compare it with its checksums.

        Parameters
        ----------
        repair : bool, default=False
            Whether to take what is damaged out of the index. It is then missing, and embedded
            again when it is asked for.

        Returns
        -------
        problems : list of str
            One line per damaged file, naming it; empty if all is well.
        """
        return verify(self._index, self._folder, repair)

    @checked(
        model=[str, None],
        layer=[Number(Integral, 0, None, closed="left"), None],
        older_than=[Number(Real, 0, None, closed="left"), None],
        max_bytes=[Number(Real, 0, None, closed="left"), None],
    )
    def prune(
        self,
        *,
        model: str | None = None,
        layer: int | None = None,
        older_than: float | None = None,
        max_bytes: int | None = None,
    ) -> int:
        """Remove activations, and what dead processes have left behind.

        The rows of the index go first, then the files; whoever has a file open can go on reading.

        Parameters
        ----------
        model : str or None, default=None
            Remove those of this model only, named as in :meth:`info`.
        layer : int or None, default=None
            Remove those of this block only.
        older_than : float or None, default=None
            Remove those written more than so many days ago only.
        max_bytes : int or None, default=None
            Beyond that, remove the oldest until no more than this remains.

        Returns
        -------
        n_bytes : int
            Space that became free. Without any argument only litter goes.

        Raises
        ------
        ValueError
            If an argument is of another kind, or negative.
        """
        return prune(
            self._index,
            self._folder,
            model=model,
            layer=layer,
            older_than=older_than,
            max_bytes=max_bytes,
        )

    @checked(keys=[_KEYS_OR_NAMES])
    def forget(self, keys: Sequence[bytes] | Sequence[str]) -> int:
        """Remove samples for good, at all layers of all models: when a person asks for it.

        Their rows and keys are neither in the shards nor in the index afterwards. Shards that hold
        other samples too are written anew without them, or removed where the disk is too full for
        that, as are shards that cannot be read. It waits for processes that are embedding
        the samples. What was exported or copied elsewhere is not found, a process that has the
        old file open can go on reading, and the file system may keep the blocks of a removed file
        until it needs them.

        Parameters
        ----------
        keys : sequence of bytes or str
            Names of the samples, 32 bytes each; see
            :meth:`~skact.embedding.TransformerEmbedder.forget`, which knows them. Or those that
            recorded samples have in :meth:`put`.

        Returns
        -------
        n_samples : int
            How many of them were there.
        """
        named = [recorded_key(key) if isinstance(key, str) else key for key in keys]
        return forget(self._index, self._folder, named)

    @checked(
        file=[PATH],
        layer=[Number(Integral, 0, None, closed="left"), None],
        model=[str, None],
        convention=[str, dict, None],
    )
    def export(
        self,
        file: str | Path,
        layer: int | None = None,
        *,
        model: str | None = None,
        convention: str | dict[str, Any] | None = None,
    ) -> int:
        """Write one layer to a safetensors file.

        Parameters
        ----------
        file : str or Path
            The file, replaced if it exists.
        layer : int or None, default=None
            The block; None if there is only one.
        model : str or None, default=None
            Name of the model as in :meth:`info`; None if there is only one.
        convention : str, dict or None, default=None
            What was read, exactly as in :meth:`info`; or entries of the identity there, such as
            ``{"max_length": 64}``, where that does not tell two layers apart. None if there is only
            one.

        Returns
        -------
        n_samples : int
            Samples written. The tensors are values, lengths, samples (the keys), checksums, shapes
            where samples are grids, and segments where they have gaps. Of a model that lies in a
            folder the file has the last part of the path.

        Raises
        ------
        ValueError
            If not exactly one layer of the dtype of this store fits; what tells those apart that
            do is listed, in the words of these arguments.
        """
        identity = one_layer(self._index, self.dtype, layer, model, convention)
        return export(self._index, self._folder, identity, Path(file).expanduser().absolute())

    @checked(file=[PATH])
    def import_(self, file: str | Path) -> int:
        """Take in a layer that another store has exported.

        Parameters
        ----------
        file : str or Path
            The file.

        Returns
        -------
        n_samples : int
            Samples that were not here before.

        Raises
        ------
        ValueError
            If the file is no such export, truncated or damaged, or its rows hold NaN or are of
            another width than those of the same layer here.
        """
        layer = read_layer(Path(file).expanduser().absolute())
        width = int(layer.values.shape[1])
        check_width(self._index, layer.identity, width, repr(str(layer.path)))
        filled = fill(
            self._index,
            self._folder,
            layer.samples,
            {layer.identity.block: layer.identity},
            {},
            partial(CopyJob, layer),
            dtype=layer.dtype,
            chunk_size=self.chunk_size,
        )
        return filled.n_embedded

    @checked(keys=[_KEYS], identities=[_SOME_IDENTITIES])
    def lacking(self, keys: Sequence[bytes], identities: Mapping[int, Identity]) -> Array:
        """Tell which layers of which samples are not there.

        Parameters
        ----------
        keys : sequence of n_samples bytes
            Names of the samples.
        identities : dict of int to Identity
            Names of the layers, by block.

        Returns
        -------
        lacking : ndarray of shape (n_samples, n_layers), dtype bool
            True where a layer is missing.
        """
        return missing(self._index, keys, identities)

    @checked(
        keys=[_KEYS],
        identities=[_SOME_IDENTITIES],
        also=[_IDENTITIES],
        prepare=[callable],
        progress=["boolean"],
    )
    def fill(
        self,
        keys: Sequence[bytes],
        identities: Mapping[int, Identity],
        also: Mapping[int, Identity],
        prepare: Callable[[list[int]], Job],
        progress: bool = False,
    ) -> Filled:
        """Embed and commit what is missing.

        Parameters
        ----------
        keys : sequence of n_samples bytes
            Names of the samples, 32 bytes each; each once.
        identities : dict of int to Identity
            Names of the layers that must be there, by block.
        also : dict of int to Identity
            Names of the layers that are kept when a sample is embedded anyway.
        prepare : callable
            Takes numbers of samples, returns the :class:`~skact.store.Job` that embeds them.
        progress : bool, default=False
            Whether to show a bar, in tokens.

        Returns
        -------
        filled : Filled
            ``n_samples``, and ``n_embedded``, how many of them were embedded here.
        """
        return fill(
            self._index,
            self._folder,
            keys,
            identities,
            also,
            prepare,
            dtype=self.dtype,
            chunk_size=self.chunk_size,
            progress=progress,
        )

    @checked(
        keys=[_KEYS],
        identity=[instance("an Identity(...)", Identity)],
        source=[instance("a Source(...)", Source), None],
    )
    def read(
        self, keys: Sequence[bytes], identity: Identity, source: Source | None = None
    ) -> TokenArray | None:
        """Show samples at one layer, mapped and not copied.

        Parameters
        ----------
        keys : sequence of n_samples bytes
            Names of the samples.
        identity : Identity
            Name of the layer.
        source : Source, default=None
            Where the activations come from.

        Returns
        -------
        tokens : TokenArray of shape (n_samples, n_features), or None
            None if one of the samples is not there.
        """
        while True:
            found = find(self._index, keys, identity)
            if found is None:
                return None
            places, shards = found
            try:
                mapped = [self._folder.map(s, identity.digest, check=self.check) for s in shards]
                break
            except OSError:
                if are_there(self._index, shards):
                    raise
                # They were pruned meanwhile: ask again.
        parts = [values for values, _ in mapped]
        rows = [held.row for held in shards]
        bfloat16 = rows[0].dtype == "bfloat16"
        one = len(parts) == 1 and not bfloat16
        n_slots = offsets_of([len(row.lengths) for row in rows])
        return TokenArray(
            parts[0] if one else Shards(parts, bfloat16=bfloat16),
            offsets_of(np.concatenate([row.lengths for row in rows])),
            n_slots[places[:, 0]] + places[:, 1],
            source=source,
            shapes=join_shapes([row.shapes for row in rows]),
            segments=join_segments([(runs, len(values)) for values, runs in mapped]),
        )

    def __getstate__(self) -> dict[str, Any]:
        names = ("path", "dtype", "layers", "chunk_size", "journal", "check")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __sklearn_clone__(self) -> Self:
        return self

    def __repr__(self) -> str:
        layers = "" if self.layers is None else f", layers={self.layers!r}"
        return f"ActivationStore({str(self.path)!r}, dtype={self.dtype!r}{layers})"
