"""What files will weigh, against files that were written."""

import numpy as np
import pytest

from skact.store import ActivationStore, shard_bytes
from tests.store.toy_store import WIDTH, fill, n_rows


@pytest.mark.parametrize("n_samples", [1, 3, 4, 40])
@pytest.mark.parametrize(("dtype", "grids"), [("float32", False), ("float16", True)])
def test_shards_weigh_what_was_said(n_samples, dtype, grids, tmp_path):
    store = ActivationStore(tmp_path, dtype, chunk_size=3)
    fill(store, range(n_samples), blocks=(0, 5), model="grids" if grids else "toy")
    lengths = np.array([n_rows(n) for n in range(n_samples)])
    said = shard_bytes(lengths, WIDTH, dtype, grids=grids, chunk_size=3)
    assert [layer["bytes"] for layer in store.info()["layers"]] == [said, said]
    assert said != shard_bytes(lengths, WIDTH, dtype, grids=not grids, chunk_size=3)
    if n_samples > 3:
        assert said != shard_bytes(lengths, WIDTH, dtype, grids=grids, chunk_size=50)
