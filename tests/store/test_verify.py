"""Verifying and repairing: every entry is compared, and nothing but the damage is touched."""

import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from skact.store import ActivationStore, _shards, _verify
from tests.hostile import store_flipped_bits
from tests.store.toy_store import check, error_of, fill, held, identity, key

NUMBERS = list(range(12))


def change(store, *statements):
    """Change an index behind the back of the store."""
    with closing(sqlite3.connect(store.path / "index.sqlite", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(*statement if isinstance(statement, tuple) else (statement,))


def numbers_or_error(store, numbers, block):
    """Assert that the store gives the truth or says that it is damaged; tell which."""

    def use():
        one = ActivationStore(store.path)
        check(one, held(one, numbers, block), block)

    return error_of(use) is None


OUTSIDE = ["../../home/precious.txt", "{home}/precious.txt", "../shards", ".", "", "mine.txt"]
ACTS = [
    lambda store: store.prune(layer=0),
    lambda store: store.prune(max_bytes=0),
    lambda store: store.verify(repair=True),
    lambda store: store.verify(),
    lambda store: check(store, [1]),
    lambda store: store.export(store.path.parent / "export"),
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("act", ACTS)
def test_a_name_in_the_index_never_leads_outside(tmp_path, name, act):
    home, store = tmp_path / "home", ActivationStore(tmp_path / "a" / "store")
    home.mkdir()
    fill(store, [1])
    (shard,) = (store.path / "shards").iterdir()
    for path in (home / "precious.txt", store.path / "shards" / "mine.txt"):
        path.write_bytes((b"secret key " * 9999)[: shard.stat().st_size])
    change(store, ("UPDATE shards SET name = ?", [name.format(home=home)]))
    error_of(lambda: act(ActivationStore(store.path)))
    assert (home / "precious.txt").read_bytes().startswith(b"secret key")
    assert (store.path / "shards" / "mine.txt").exists()
    assert not (store.path.parent / "export").exists()
    ActivationStore(store.path).verify(repair=True)
    fill(store, [1])
    check(store, [1])
    assert store.verify() == []


def test_links_are_not_followed(tmp_path):
    mine, other = ActivationStore(tmp_path / "mine"), ActivationStore(tmp_path / "other")
    for store in (mine, other):
        fill(store, NUMBERS)
    (theirs,), (shard,) = ((s.path / "shards").iterdir() for s in (other, mine))
    shard.unlink()
    shard.symlink_to(theirs)
    with pytest.raises(OSError, match="is a link"):
        check(mine, NUMBERS)
    assert len(mine.verify(repair=True)) == 1
    assert theirs.exists()
    check(other, NUMBERS)
    fill(mine, NUMBERS)
    check(mine, NUMBERS)
    for name in ("shards", "index.sqlite"):
        linked = ActivationStore(tmp_path / f"linked {name}")
        fill(linked, NUMBERS)
        path = linked.path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(other.path / name)
        for use in (
            lambda: linked.prune(max_bytes=0),  # noqa: B023
            lambda: linked.verify(repair=True),  # noqa: B023
            lambda: fill(linked, [99]),  # noqa: B023
        ):
            with pytest.raises(ValueError, match="is a link"):
                use()
        assert other.verify() == []
        check(other, NUMBERS)
    whole = tmp_path / "whole"
    whole.symlink_to(other.path)  # the control: a link to a store is that store
    check(ActivationStore(whole), NUMBERS)
    assert ActivationStore(whole).verify() == []


def test_an_entry_that_points_at_another_layer_is_never_read(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, [0, 3], (0, 1))
    change(store, "UPDATE entries SET shard = 3 - shard WHERE identity = 1 AND slot = 0")
    for checked in (True, False):
        with pytest.raises(OSError, match="damaged in 1 of 1 samples"):
            check(ActivationStore(tmp_path, check=checked), [0, 3])
    assert store.verify() == [
        f"1 samples in the index '{tmp_path}/index.sqlite' lie in no shard of their layer"
    ]
    assert len(store.verify(repair=True)) == 1
    assert store.verify() == []
    fill(store, [0, 3], (0, 1))
    for block in (0, 1):
        check(store, [0, 3], block)


@pytest.mark.parametrize("slot", NUMBERS)
def test_two_samples_in_one_slot_are_never_read(tmp_path, slot):
    store = ActivationStore(tmp_path)
    fill(store, NUMBERS)
    change(store, f"UPDATE entries SET slot = {slot}")
    for reader in (store, ActivationStore(tmp_path, check=False)):
        with pytest.raises(ValueError, match="two of its samples lie in one slot"):
            check(reader, NUMBERS)


def test_a_repair_takes_nothing_that_others_wrote_meanwhile(tmp_path, monkeypatch):
    store, look = ActivationStore(tmp_path), _shards.ShardFolder.look
    first, second, third = [0, 1], [2, 3, 4], [5, 6, 7, 8]
    fill(store, first)
    with store._index.writing() as connection:
        connection.execute(
            "UPDATE shards SET n_bytes = n_bytes + 1"
        )  # there is something to repair

    def meanwhile(self, *args):
        monkeypatch.undo()
        other = ActivationStore(tmp_path)
        other.prune(max_bytes=0)
        fill(other, second)
        return look(self, *args)

    monkeypatch.setattr(_shards.ShardFolder, "look", meanwhile)
    store.verify(repair=True)
    assert store.verify() == []
    check(store, second)
    fill(store, third)
    check(store, second + third)
    with store._index.reading() as connection:
        numbers = [n for (n,) in connection.execute("SELECT id FROM shards").fetchall()]
    assert sorted(numbers) == [2, 3]  # 1 was given out before


DAMAGE = [
    "UPDATE shards SET name = CAST('ff' || id AS BLOB)",
    "UPDATE shards SET dtype = 'float64'",
    "UPDATE shards SET lengths = x'010203'",
    "UPDATE shards SET lengths = 'abc'",
    "UPDATE shards SET lengths = x''",
    "UPDATE shards SET lengths = zeroblob(96)",
    "UPDATE shards SET shapes = x'01'",
    "UPDATE shards SET n_features = 'many'",
    "UPDATE shards SET n_features = 3",
    "UPDATE shards SET n_rows = 'many'",
    "UPDATE shards SET start = -4096",
    "UPDATE shards SET start = start + 16",
    "UPDATE shards SET n_bytes = 1.5",
    "UPDATE shards SET created = 'now'",
    "UPDATE shards SET identity = 77",
    "UPDATE entries SET slot = -200",
    "UPDATE entries SET slot = 0.5",
    "UPDATE entries SET slot = 0",
    "UPDATE entries SET slot = 'first'",
    "UPDATE entries SET shard = 99",
    "UPDATE entries SET shard = 'none'",
    "UPDATE entries SET identity = identity + 70",
    "UPDATE identities SET json = '{'",
    "UPDATE identities SET json = replace(json, 'toy', 'boy')",
    "UPDATE identities SET block = block + 4",
    "UPDATE identities SET digest = zeroblob(id)",
    "UPDATE identities SET id = id + 7",
    "UPDATE identities SET id = -id; UPDATE identities SET id = id + 3",  # they trade places
    "DROP TABLE entries",
    "DROP TABLE shards",
    "DROP TABLE owners",
    "PRAGMA user_version = 0",
    "PRAGMA user_version = 3",
    "ALTER TABLE entries ADD COLUMN more; PRAGMA user_version = 3",
    "PRAGMA user_version = 5",
    "PRAGMA application_id = 5",
]


@pytest.mark.parametrize("statement", DAMAGE)
def test_any_damage_of_the_index_is_found_and_repaired(tmp_path, statement):
    store = ActivationStore(tmp_path)
    fill(store, NUMBERS, (0, 1))
    assert store.verify() == []  # the control
    change(store, *statement.split("; "))
    for block in (0, 1):
        numbers_or_error(store, NUMBERS, block)
    for use in (store.info, lambda: store.prune(older_than=1)):
        error_of(use)
    assert store.verify()
    assert store.verify(repair=True)
    assert store.verify() == []
    for block in (0, 1):
        assert numbers_or_error(store, NUMBERS, block)
        fill(store, NUMBERS, (block,))
        check(store, NUMBERS, block)
    assert store.verify() == []
    assert store.info()["samples"] == len(NUMBERS)


def test_an_index_that_is_gone_is_made_again(tmp_path):
    store = ActivationStore(tmp_path, chunk_size=5)
    fill(store, NUMBERS, (0, 1))
    fill(store, NUMBERS, model="grids")
    (tmp_path / "index.sqlite").unlink()
    (problem,) = store.verify()
    assert "is damaged: it is missing" in problem
    assert store.verify(repair=True) == [problem]
    for block, model in ((0, "toy"), (1, "toy"), (0, "grids")):
        assert held(store, NUMBERS, block, model=model) == NUMBERS  # nothing is embedded again
        check(store, NUMBERS, block, model=model)
    assert store.verify() == []


def test_what_is_no_database_is_put_aside(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, NUMBERS)
    (tmp_path / "index.sqlite").write_text("This is no database, " * 100)
    with pytest.raises(ValueError, match=r"damaged: .*repair=True"):
        check(store, NUMBERS)
    assert len(store.verify(repair=True)) == 1
    check(store, NUMBERS)
    (aside,) = tmp_path.glob("index.sqlite.damaged-*")
    assert aside.read_text().startswith("This is no database")


def test_an_index_made_anew_beside_a_writer_loses_nothing(tmp_path, monkeypatch):
    store, done = ActivationStore(tmp_path, chunk_size=4), []

    def meanwhile():
        if len(done) == 2:
            _verify._make_anew(store._index, store._folder)
        done.append(1)

    fill(store, NUMBERS, pause=meanwhile)
    assert len(done) > 3  # what the writer could not enter, it did again
    check(store, NUMBERS)
    assert store.verify() == []


def test_flipped_bits_of_the_index_give_no_wrong_number(tmp_path):
    outcomes, wrong = store_flipped_bits.run(tmp_path, 12)
    assert wrong == []
    assert sum(outcomes.values()) == 12
    assert len(outcomes) > 1  # the control: some flips do show


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_are_compared_when_a_shard_is_opened(tmp_path, dtype):
    store = ActivationStore(tmp_path, dtype)
    fill(store, NUMBERS)
    check(store, NUMBERS)
    (shard,) = (tmp_path / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    content[4096] ^= 1
    shard.write_bytes(content)
    for reader in (store, ActivationStore(tmp_path, dtype)):
        with pytest.raises(OSError, match=r"damaged in 1 of 12 samples.*repair=True"):
            check(reader, NUMBERS)
        check(reader, NUMBERS[1:])  # what is not asked for is not read
    unchecked = ActivationStore(tmp_path, dtype, check=False)
    tokens = unchecked.read([key(0)], identity(0, dtype=dtype))
    assert np.isfinite(tokens.flat()).all()  # the control: a wrong number, as was asked for


def test_rows_are_compared_once(tmp_path, monkeypatch):
    store, sizes = ActivationStore(tmp_path, chunk_size=4), []
    fill(store, NUMBERS)
    damaged = _shards.LayerFile.damaged

    def counted(self, samples):
        sizes.append(len(samples))
        return damaged(self, samples)

    monkeypatch.setattr(_shards.LayerFile, "damaged", counted)
    check(store, NUMBERS[:3])
    first = sum(sizes)
    check(store, NUMBERS)
    check(ActivationStore(tmp_path), NUMBERS)
    assert (first, sum(sizes)) == (3, len(NUMBERS))
    check(ActivationStore(tmp_path, check=False), NUMBERS)
    assert sum(sizes) == len(NUMBERS)
