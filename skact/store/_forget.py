"""Remove samples for good: from every layer, from the index, and from the disk."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from skact.store._claims import Owner, live_owners
from skact.store._entries import add_shards, drop_shard
from skact.store._format import LayerFile
from skact.store._index import Index
from skact.store._layer_writer import copy_layer
from skact.store._records import ShardRow, owner_of
from skact.store._shards import ShardFolder
from skact.store._upkeep import prune, remove_unnamed

__all__ = ["forget"]

_POLL = 0.2  # seconds between looks at who is writing


def forget(index: Index, folder: ShardFolder, samples: Sequence[bytes]) -> int:
    """Remove samples, as ``ActivationStore.forget`` says."""
    if not index.path.exists() and not folder.names():
        return 0
    # What nobody needs goes first: it may hold them as well.
    prune(index, folder, model=None, layer=None, older_than=None, max_bytes=None)
    wanted, forgotten = set(samples), set[bytes]()
    while True:
        found = None if _being_written(index, samples) else 0
        for name, layer in folder.layers():
            there = [] if layer is None else [key for key in layer.samples if key in wanted]
            if layer is None or there:
                done = _rewrite(index, folder, name, layer, wanted)
                found = None if found is None or not done else found + 1
                forgotten.update(there)
        if found == 0:
            break
        time.sleep(_POLL if found is None else 0)
    with index.writing(samples) as connection:
        for (sample,) in connection.execute(
            "SELECT DISTINCT entries.sample FROM wanted JOIN entries USING (sample)"
        ).fetchall():
            forgotten.add(sample)
        connection.execute("DELETE FROM entries WHERE sample IN (SELECT sample FROM wanted)")
    index.empty_log()
    for aside in index.folder.glob(f"{index.path.name}.damaged-*"):
        aside.unlink(missing_ok=True)
    return len(forgotten)


def _being_written(index: Index, samples: Sequence[bytes]) -> bool:
    """Tell whether a live process is about to write some of these samples."""
    with index.reading(samples) as connection:
        living = live_owners(connection)
        owners = connection.execute(
            "SELECT DISTINCT owner FROM claims JOIN wanted USING (sample)"
        ).fetchall()
    return any(owner in living for (owner,) in owners)


def _rewrite(
    index: Index, folder: ShardFolder, name: str, layer: LayerFile | None, wanted: set[bytes]
) -> bool:
    """Put a shard without some samples into the place of one; False if it is not time yet.

    What cannot be read, or rewritten on a full disk, goes as a whole.
    """
    with index.reading() as connection:
        rows = connection.execute(
            "SELECT id, identity, created FROM shards WHERE name = ?", (name,)
        ).fetchall()
        entered = {
            sample
            for shard, identity, _ in rows
            for (sample,) in connection.execute(
                "SELECT sample FROM entries WHERE identity = ? AND shard = ?", (identity, shard)
            ).fetchall()
        }
        if not rows and owner_of(name) in live_owners(connection):
            return False  # it is about to be entered
    keys = [] if layer is None else layer.samples
    kept = [i for i, key in enumerate(keys) if key in entered - wanted]
    with ExitStack() as stack:
        new = None
        if layer is not None and kept:
            with _on_a_full_disk_nothing():
                owner = stack.enter_context(Owner(index))
                new = _copy(folder, f"{owner.name}-0-{layer.identity.block}", layer, kept)
        with index.writing() as connection:
            for shard, identity, created in rows:
                if drop_shard(connection, shard, name, identity) and new is not None:
                    samples = [keys[i] for i in kept]
                    add_shards(connection, {0: identity}, {0: new}, samples, created)
        remove_unnamed(index, folder, [name] if new is None else [name, new.name])
    return True


@contextmanager
def _on_a_full_disk_nothing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise


def _copy(folder: ShardFolder, name: str, layer: LayerFile, kept: list[int]) -> ShardRow:
    """Write some samples of a shard into another."""
    path = folder.path / f"{name}.safetensors"
    writer = copy_layer(path.with_suffix(".tmp"), path, [(kept, layer)])
    shapes = None if layer.shapes is None else layer.shapes[kept]
    width, start = int(layer.values.shape[1]), writer.start
    return ShardRow(
        path.name, layer.dtype, width, start, writer.n_bytes, layer.lengths[kept], shapes
    )
