"""Forgetting: no byte of a sample stays in the folder of the store."""

import errno
import shutil
import threading

import pytest

from skact.store import ActivationStore, _layer_writer
from skact.store._claims import Owner
from tests.store.toy_store import check, fill, held, identities, key, rows_of

NUMBERS = list(range(30))
# Their rows hold numbers that those of no other sample hold, at either layer.
GONE = [75, 50]


def bytes_of(store, number, blocks=(0, 1)):
    """What must not be found: the key, and the rows at every layer."""
    return [key(number), *(rows_of(number, block).tobytes() for block in blocks)]


def found(store, wanted):
    """Files of the store in which bytes are found."""
    files = [path for path in store.path.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if wanted in path.read_bytes()]


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("chunk_size", [1, 7, 100])
def test_no_byte_of_a_forgotten_sample_stays(tmp_path, journal, chunk_size):
    store = ActivationStore(tmp_path, chunk_size=chunk_size, journal=journal)
    fill(store, NUMBERS + GONE, (0, 1))
    fill(store, NUMBERS + GONE, model="other")
    for number in GONE:
        for wanted in bytes_of(store, number):
            assert found(store, wanted)  # the control
    assert store.forget([key(n) for n in [*GONE, 77]]) == len(GONE)
    for number in GONE:
        for wanted in bytes_of(store, number):
            assert found(store, wanted) == []
    assert held(store, NUMBERS + GONE) == NUMBERS
    for block, model in ((0, "toy"), (1, "toy"), (0, "other")):
        check(ActivationStore(tmp_path), NUMBERS, block, model=model)
    assert store.verify() == []
    assert store.forget([key(n) for n in GONE]) == 0
    fill(store, GONE, (0, 1))
    check(store, NUMBERS + GONE, 1)


def test_grids_and_half_precision_stay_what_they_are(tmp_path):
    store = ActivationStore(tmp_path, "bfloat16")
    fill(store, NUMBERS, model="grids")
    assert store.forget([key(3)]) == 1
    rest = [n for n in NUMBERS if n != 3]
    assert held(store, NUMBERS, model="grids") == rest
    check(store, rest, model="grids")
    assert store.verify() == []


def test_what_no_entry_names_is_forgotten_too(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, GONE)
    with store._index.writing() as connection:
        connection.execute("DELETE FROM entries")
    fill(store, GONE)  # written twice, and the first shard is superseded
    (shard, _) = sorted((tmp_path / "shards").iterdir())
    shutil.copy(shard, shard.with_name("0123456789abcdef-0-0.safetensors"))  # of a dead writer
    shutil.copy(shard, shard.with_name("0123456789abcdef-1-0.tmp"))
    assert store.forget([key(GONE[0])]) == 1
    for wanted in bytes_of(store, GONE[0], (0,)):
        assert found(store, wanted) == []
    check(store, GONE[1:])


def test_a_damaged_shard_and_one_on_a_full_disk_go_as_a_whole(tmp_path, monkeypatch):
    store = ActivationStore(tmp_path, chunk_size=10)
    fill(store, NUMBERS + GONE)
    before = set(held(store, NUMBERS))

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_layer_writer.os, "posix_fallocate", full)
    assert store.forget([key(GONE[0])]) == 1
    monkeypatch.undo()
    assert found(store, key(GONE[0])) == []
    left = held(store, NUMBERS)
    assert 0 < len(left) < len(before)
    check(store, left)
    shard = next(path for path in (tmp_path / "shards").iterdir() if found(store, key(left[0])))
    shard.write_bytes(b"x" * 20 + key(GONE[1]) + shard.read_bytes())
    store.forget([key(GONE[1])])
    assert found(store, key(GONE[1])) == []
    store.verify(repair=True)
    fill(store, NUMBERS)
    check(store, NUMBERS)


def test_who_is_embedding_a_sample_is_waited_for(tmp_path):
    store, said = ActivationStore(tmp_path), []
    fill(store, NUMBERS)
    with Owner(store._index) as other:
        assert other.claim([key(GONE[0])], identities(0)) == [0]
        waiting = threading.Thread(target=lambda: said.append(store.forget([key(GONE[0])])))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join()
    assert said == [0]


def test_readers_of_the_old_file_go_on(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, NUMBERS)
    from tests.store.toy_store import identity

    tokens = store.read([key(n) for n in NUMBERS], identity(0))
    store.forget([key(4)])
    assert (tokens[4] == rows_of(4, 0)).all()
    assert store.read([key(4)], identity(0)) is None


@pytest.mark.parametrize("keys", ["text", [b"short"], [3], None])
def test_what_are_no_keys(tmp_path, keys):
    with pytest.raises(ValueError, match="32 bytes each"):
        ActivationStore(tmp_path).forget(keys)


def test_an_empty_store_has_nothing_to_forget(tmp_path):
    assert ActivationStore(tmp_path / "a").forget([key(1)]) == 0
    assert not (tmp_path / "a").exists()
