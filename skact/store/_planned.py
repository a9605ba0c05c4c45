"""How large the files of a store become, before anything is embedded."""

from __future__ import annotations

import numpy as np

from skact.rows import BLOCK, Array, runs
from skact.store._fill import CHUNK_BYTES
from skact.store._format import KEY_BYTES
from skact.store._records import RAW
from skact.store._windows import window_slices

__all__ = ["shard_bytes"]


def shard_bytes(
    lengths: Array,
    n_features: int,
    dtype: str = "float32",
    *,
    grids: bool = False,
    chunk_size: int = 2048,
    n_header: int = BLOCK,
) -> int:
    """Bytes of the shards that one process writes of a layer into an empty store.

    Parameters
    ----------
    lengths : ndarray of shape (n_samples,), dtype int
        Rows of each distinct sample, in their order.
    n_features : int
        Numbers in a row.
    dtype : {"float32", "float16", "bfloat16"}, default="float32"
        Of the store.
    grids : bool, default=False
        Whether samples have rows and columns of patches.
    chunk_size : int, default=2048
        Of the store.
    n_header : int, default=4096
        Bytes of the head of a file, in whole blocks; more than one where the configuration of the
        model is long.

    Returns
    -------
    n_bytes : int
        Of all files together; the index comes on top.
    """
    row, n_shards = n_features * RAW[dtype].itemsize, 0
    for window in window_slices(len(lengths), chunk_size):
        sizes = np.sort(lengths[window])[::-1] * row
        n_shards += len(runs(sizes, CHUNK_BYTES, chunk_size))
    of_sample = 8 + KEY_BYTES + 4 + 16 * grids
    return int(lengths.sum()) * row + len(lengths) * of_sample + n_shards * n_header
