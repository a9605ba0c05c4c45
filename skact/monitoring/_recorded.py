"""Activations that others have recorded, as tokens of samples.

Engines write what they have in forms of their own. Each reader checks shapes, the order of
dimensions, numbers and sizes, and turns the layers of the engine into blocks of this package: block
b is the residual stream **after** block b, counted from 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from skact.arguments import PATH, SEQUENCE, Such, checked, instance
from skact.array_files import ArrayEntry, open_arrays
from skact.extras import need
from skact.rows import Array, FileRows, Shards, all_finite, as_numpy, offsets_of
from skact.tokens import LayerStack, Source, TokenArray
from skact.validation import first_token

__all__ = ["read_arrow", "read_flat", "read_padded", "read_stacked", "read_vllm"]

_SOURCE = [instance("a Source(...)", Source), None]
_NAME = Such("a name", lambda value: isinstance(value, str) and value)


@checked(paths=[SEQUENCE], layers=[SEQUENCE], source=_SOURCE, leave_out=["array-like"])
def read_vllm(
    paths: Sequence[str | os.PathLike[str]],
    layers: Sequence[int],
    *,
    source: Source | None = None,
    leave_out: Iterable[int] = (),
) -> LayerStack:
    """Read hidden states that vLLM has written: one safetensors file for each request.

    A file holds ``token_ids`` (n_tokens,) and ``hidden_states`` (n_tokens, n_layers, n_features).
    Layer id i of vLLM is the **input** of block i, which is the output of block i - 1; the number
    of blocks is the id of the last block's output, before the final norm.

    Parameters
    ----------
    paths : list of n_samples paths
        The files, in the order that the samples are to have.
    layers : list of int
        The ids that vLLM was told, ``eagle_aux_hidden_state_layer_ids``, in their order, which the
        files do not say. Id 0, the embeddings, is no output of a block and is left out.
    source : Source, default=None
        The model, and what else is known; the block is filled in.
    leave_out : iterable of int, default=()
        Ids of tokens that are context and no part of a sample: special tokens, and the one before
        the text that the attention sink falls on. No window of a detector reaches over one.

    Returns
    -------
    stack : LayerStack of n_samples samples
        By block.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file is damaged, lacks one of the arrays, has them in another order or of other sizes,
        holds NaN or infinity, or nothing is left of a sample.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from safetensors.numpy import save_file
    >>> from skact import Source, read_vllm
    >>> path = f"{tempfile.mkdtemp()}/request.safetensors"
    >>> states = np.zeros((5, 2, 3), np.float32)
    >>> save_file({"token_ids": np.arange(5), "hidden_states": states}, path)
    >>> read_vllm([path], [8, 12], source=Source("a model"), leave_out=[0]).layer(7)
    TokenArray(1 samples, 4 tokens, 3 features, float32, source: model a model, block 7,
    site residual)
    """
    ids = _layer_numbers(layers, "layers")
    dropped = np.asarray(list(leave_out))
    if dropped.size and (dropped.ndim != 1 or dropped.dtype.kind not in "iu"):
        raise ValueError(f"leave_out must hold ids of tokens, got {dropped!r:.60}.")
    if not any(ids):
        raise ValueError("layers holds id 0 alone, the embeddings, which no block puts out.")
    samples, segments = [], []
    for i, path in enumerate(paths):
        file = _path(path, f"paths[{i}]")
        states, tokens = _vllm_request(file, len(ids))
        keep = ~np.isin(tokens, dropped)
        if not keep.any():
            raise ValueError(f"{file}: leave_out leaves none of its {len(tokens)} tokens.")
        samples.append((str(file), states[keep].swapaxes(0, 1)))
        places = np.flatnonzero(keep)
        segments.append(places - np.arange(len(places)))
    known = source or Source()
    if known.site not in (None, "residual"):
        raise ValueError(f"source must be of the residual stream, got site={known.site!r}.")
    told = replace(known, site="residual")
    return _stack(samples, [i - 1 for i in ids], told, "paths", segments)


def _vllm_request(file: Path, n_layers: int) -> tuple[Array, Array]:
    entries = open_arrays(file)
    states, tokens = (_entry(file, entries, key) for key in ("hidden_states", "token_ids"))
    _check_kind(file, "hidden_states", states, "float", 3)
    _check_kind(file, "token_ids", tokens, "int", 1)
    n_tokens, shape = tokens.shape[0], states.shape
    if shape[:2] == (n_tokens, n_layers):
        return states.read(), tokens.read()
    said = f"{file}: 'hidden_states' has shape {shape}, with {n_tokens} token ids and "
    if shape[:2] == (n_layers, n_tokens):
        raise ValueError(
            f"{said}{n_layers} layers, so layers come first; read_stacked reads such arrays."
        )
    raise ValueError(
        f"{said}{n_layers} ids in layers; expected ({n_tokens}, {n_layers}, n_features)."
    )


@checked(arrays=[SEQUENCE], blocks=[SEQUENCE], source=_SOURCE)
def read_stacked(
    arrays: Sequence[Any], blocks: Sequence[int], *, source: Source | None = None
) -> LayerStack:
    """Read an array of all layers for each sample, as vllm-lens returns them.

    Parameters
    ----------
    arrays : list of n_samples arrays or tensors of shape (n_layers, n_tokens_i, n_features)
        Layers first.
    blocks : list of n_layers int
        The blocks after which they were taken, counted from 0, in their order. What is numbered as
        the ``hidden_states`` of transformers are, where 0 are the embeddings, is one too large.
    source : Source, default=None
        The model, and what else is known; the block is filled in.

    Returns
    -------
    stack : LayerStack of n_samples samples
        By block.

    Raises
    ------
    ValueError
        If an array has other dimensions, tokens first, another number of layers or features, or NaN
        or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import read_stacked
    >>> read_stacked([np.zeros((2, 5, 3)), np.zeros((2, 4, 3))], [7, 11])
    LayerStack(layers [7, 11], 2 samples, 3 features)
    """
    numbers = _layer_numbers(blocks, "blocks")
    samples = []
    for i, given in enumerate(arrays):
        array, what = _floats(given, f"arrays[{i}]", 3), f"arrays[{i}]"
        if len(array) != len(numbers):
            order = ""
            if array.shape[1] == len(numbers):
                order = "; tokens seem to come first, as in files of vLLM"
            raise ValueError(
                f"{what} has shape {array.shape}, expected ({len(numbers)}, n_tokens, n_features), "
                f"a layer for each of blocks{order}."
            )
        samples.append((what, array))
    return _stack(samples, numbers, source, "arrays")


@checked(path=[PATH], values=[_NAME], offsets=[_NAME], source=_SOURCE)
def read_flat(
    path: str | os.PathLike[str],
    *,
    values: str = "values",
    offsets: str = "offsets",
    source: Source | None = None,
) -> TokenArray:
    """Read the tokens of all samples in one array, and where each sample begins.

    Parameters
    ----------
    path : str or path-like
        An npz or safetensors file. Of the latter the values are mapped, not copied.
    values : str, default="values"
        Key of the array (n_all_tokens, n_features).
    offsets : str, default="offsets"
        Key of the integers (n_samples + 1,): sample i is ``values[offsets[i]:offsets[i + 1]]``.
    source : Source, default=None
        Where they come from.

    Returns
    -------
    tokens : TokenArray of shape (n_samples, n_features)
        The samples.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, lacks one of the arrays, they do not fit each other, or it holds NaN or
        infinity.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from skact import read_flat
    >>> path = f"{tempfile.mkdtemp()}/tokens.npz"
    >>> np.savez(path, values=np.zeros((5, 3), np.float32), offsets=[0, 2, 5])
    >>> read_flat(path)
    TokenArray(2 samples, 5 tokens, 3 features, float32)
    """
    file = _path(path, "path")
    entries = open_arrays(file)
    held, cuts = (_entry(file, entries, key) for key in (values, offsets))
    _check_kind(file, values, held, "float", 2)
    _check_kind(file, offsets, cuts, "int", 1)
    if 0 in held.shape:
        raise ValueError(f"{file}: {values!r} is empty, of shape {held.shape}.")
    rows: Any
    if held.place is None:
        rows = held.read()
    elif held.dtype == "bfloat16":
        rows = Shards([FileRows(file, "<u2", held.shape, held.place)], bfloat16=True)
    else:
        rows = FileRows(file, held.dtype, held.shape, held.place)
    return _tokens(rows, cuts.read(), source, str(file))


@checked(source=_SOURCE)
def read_padded(values: Any, mask: Any, *, source: Source | None = None) -> TokenArray:
    """Read samples that were made equally long by padding, with the mask that says so.

    Parameters
    ----------
    values : array or tensor of shape (n_samples, n_positions, n_features)
        Floats. Padding may lie anywhere, and hold anything.
    mask : array or tensor of shape (n_samples, n_positions)
        True or 1 at tokens, False or 0 at padding, as ``attention_mask``.
    source : Source, default=None
        Where they come from.

    Returns
    -------
    tokens : TokenArray of shape (n_samples, n_features)
        The tokens without padding, copied.

    Raises
    ------
    ValueError
        If the two do not fit each other, the mask holds something else, a sample has no tokens, or
        a token NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import read_padded
    >>> read_padded(np.zeros((2, 4, 3)), [[1, 1, 1, 1], [0, 0, 1, 1]]).lengths
    array([4, 2])
    """
    padded, marks = _floats(values, "values", 3), _array(mask, "mask")
    if marks.shape != padded.shape[:2]:
        order = ""
        if marks.shape == padded.shape[1::-1]:
            order = "; positions seem to come first, so values.swapaxes(0, 1) may be meant"
        raise ValueError(
            f"mask must have shape {padded.shape[:2]}, a mark for each position of values, got "
            f"{marks.shape}{order}."
        )
    if marks.dtype.kind not in "biuf" or not np.isin(marks, (0, 1)).all():
        raise ValueError(f"mask must hold True and False, or 1 and 0, got dtype {marks.dtype}.")
    is_token = marks.astype(bool)
    cuts = offsets_of(is_token.sum(axis=1))
    return _tokens(padded[is_token], cuts, source, "values")


@checked(source=_SOURCE)
def read_arrow(column: Any, *, source: Source | None = None) -> TokenArray:
    """Read a column of lists of lists of floats, as Arrow, Parquet and ``datasets`` hold samples.

    Parameters
    ----------
    column : pyarrow Array or ChunkedArray
        A list of tokens for each sample, each token a list of n_features floats; the lists may be
        large, of fixed size, or within an extension type such as ``Array2D``.
    source : Source, default=None
        Where they come from.

    Returns
    -------
    tokens : TokenArray of shape (n_samples, n_features)
        The samples; the values are a view where Arrow holds them in one piece.

    Raises
    ------
    TypeError
        If it is no such column.
    ValueError
        If a sample, token or number is null, tokens differ in width, a sample has none, or there is
        NaN or infinity.
    ImportError
        Without pyarrow.

    Examples
    --------
    >>> import pytest
    >>> pyarrow = pytest.importorskip("pyarrow")
    >>> from skact import read_arrow
    >>> read_arrow(pyarrow.array([[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]])).lengths
    array([1, 2])
    """
    arrow = need("pyarrow", "read_arrow")
    if isinstance(column, arrow.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if not isinstance(column, arrow.Array):
        raise TypeError(
            f"column must be an Array or a ChunkedArray of pyarrow, got {type(column).__name__}; "
            "table['name'] gives one."
        )
    lengths, tokens = _lists(arrow, column, "sample")
    widths, numbers = _lists(arrow, tokens, "token")
    if numbers.null_count or not arrow.types.is_floating(numbers.type):
        what = "nulls" if numbers.null_count else str(numbers.type)
        raise ValueError(f"column must hold floats in lists of lists, got {what} inside.")
    if len(set(widths.tolist())) > 1:
        bad = int(np.flatnonzero(widths != widths[0])[0])
        raise ValueError(
            f"column must have tokens of one width: token {bad} of all has {widths[bad]} features, "
            f"the first has {widths[0]}."
        )
    width = int(widths[0]) if len(widths) else 0
    flat = numbers.to_numpy(zero_copy_only=False).reshape(len(widths), width)
    return _tokens(flat, offsets_of(lengths), source, "column")


def _lists(arrow: Any, array: Any, one: str) -> tuple[Array, Any]:
    """Length of each list, and what the lists hold one after the other."""
    while isinstance(array, arrow.ExtensionArray):
        array = array.storage
    kinds = arrow.types
    fixed = kinds.is_fixed_size_list(array.type)
    if not (fixed or kinds.is_list(array.type) or kinds.is_large_list(array.type)):
        raise TypeError(
            f"column must hold a list for each {one}, got {array.type}; cast other kinds of lists "
            "to list."
        )
    if array.null_count:
        raise ValueError(f"column has a null where a {one} is expected, at {_null(array)}.")
    if fixed:
        lengths = np.full(len(array), array.type.list_size, np.int64)
    else:
        lengths = np.diff(array.offsets.to_numpy(zero_copy_only=False).astype(np.int64))
    return lengths, array.flatten()


def _null(array: Any) -> int:
    return int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])


def _layer_numbers(layers: Sequence[int], name: str) -> list[int]:
    numbers = list(layers)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, Integral) or number < 0:
            raise ValueError(f"{name} must hold numbers of layers, counted from 0, got {number!r}.")
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"{name} must hold each layer once, and at least one, got {numbers}.")
    return [int(number) for number in numbers]


def _path(path: Any, name: str) -> Path:
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise TypeError(f"{name} must be a path, got {path!r}.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{name}: there is no file {str(path)!r}.")
    return Path(path)


def _entry(file: Path, entries: Any, key: str) -> ArrayEntry:
    if key not in entries:
        raise ValueError(f"{file}: the key {key!r} is missing; it has {sorted(entries)}.")
    entry: ArrayEntry = entries[key]()
    return entry


def _check_kind(file: Path, key: str, entry: ArrayEntry, kind: str, n_dims: int) -> None:
    if kind not in entry.dtype or len(entry.shape) != n_dims:
        raise ValueError(
            f"{file}: {key!r} must be {n_dims}-D {kind}s, got shape {entry.shape} of dtype "
            f"{entry.dtype}."
        )


def _array(given: Any, name: str) -> Array:
    try:
        return as_numpy(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array: {error}") from error


def _floats(given: Any, name: str, n_dims: int) -> Array:
    array = _array(given, name)
    if array.dtype.kind != "f" or array.ndim != n_dims:
        raise ValueError(
            f"{name} must be {n_dims}-D floats, got shape {array.shape} of dtype {array.dtype}."
        )
    return array


def _stack(
    samples: list[tuple[str, Array]],
    blocks: list[int],
    source: Source | None,
    name: str,
    segments: list[Array] | None = None,
) -> LayerStack:
    """Join samples (n_layers, n_tokens, n_features), each with what it is called, and its runs."""
    if not samples:
        raise ValueError(f"{name} must hold at least one sample.")
    if source is not None and source.block is not None:
        raise ValueError(
            f"source must leave the block open, which follows from the layers; got {source}."
        )
    first, width = samples[0][0], samples[0][1].shape[2]
    for what, array in samples:
        if array.shape[2] != width:
            raise ValueError(f"{what} has {array.shape[2]} features, {first} has {width}.")
        if not array.shape[1]:
            raise ValueError(f"{what} has no tokens.")
    offsets = offsets_of([array.shape[1] for _, array in samples])
    layers = {}
    for number, block in enumerate(blocks):
        if block >= 0:
            values = np.concatenate([array[number] for _, array in samples])
            told = replace(source or Source(), block=block)
            runs = None if segments is None else np.concatenate(segments)
            layers[block] = _tokens(values, offsets, told, f"{name}, block {block}", runs)
    return LayerStack(layers)


def _tokens(
    values: Any, offsets: Array, source: Source | None, what: str, segments: Array | None = None
) -> TokenArray:
    """Make a TokenArray of numbers; whatever is wrong names what they are."""
    if 0 in values.shape or len(offsets) < 2:
        n = max(len(offsets) - 1, 0)
        raise ValueError(f"{what}: nothing is there: {n} samples, values {values.shape}.")
    try:
        tokens = TokenArray(values, offsets, source=source, segments=segments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {error}") from error
    for _, block in tokens.blocks():
        if not all_finite(block):
            place = first_token(tokens, lambda rows: ~np.isfinite(rows))
            raise ValueError(f"{what}: there is NaN or infinity, first at {place}.")
    return tokens
