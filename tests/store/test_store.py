"""The store by itself: what goes in comes out, once; and its upkeep."""

import copy
import json
import os
import pickle
import threading

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.base import clone

from skact.rows._pieces import Shards
from skact.store import ActivationStore, _fill
from skact.store._claims import Owner
from tests.fresh import printed_by
from tests.store import toy_store
from tests.store.toy_store import (
    WIDTH,
    check,
    fill,
    held,
    identities,
    identity,
    key,
    n_rows,
    rows_of,
)

NUMBERS = list(range(23))


def read(store, numbers, block=0):
    return store.read([key(n) for n in numbers], identity(block, dtype=store.dtype))


def shards(store):
    return sorted(os.listdir(store.path / "shards"))


def size(store):
    return sum(os.path.getsize(store.path / "shards" / name) for name in shards(store))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_goes_in_comes_out_in_any_order(tmp_path, dtype):
    store = ActivationStore(tmp_path, dtype, chunk_size=5)
    fill(store, NUMBERS, (0, 2))
    for numbers in (NUMBERS, NUMBERS[::-1], [7], [3, 3, 19, 3]):
        check(store, numbers)
        check(store, numbers, block=2)
    tokens = read(store, NUMBERS)
    assert tokens.dtype == (np.float16 if dtype == "float16" else np.float32)
    assert store.info()["bytes"] == size(store) > 2 * tokens.values.nbytes


def test_the_result_lies_in_files(tmp_path):
    store = ActivationStore(tmp_path, chunk_size=5)
    numbers = list(range(0, 60, 3))  # of one length
    fill(store, numbers)
    values = read(store, numbers).values
    assert isinstance(values, Shards)
    assert all(isinstance(part, np.memmap) and not part.flags.writeable for part in values.parts)
    one = read(store, numbers[:5]).values
    assert isinstance(one, np.memmap)
    assert one is read(store, numbers[1:2]).values  # mapped once
    # One stretch of rows for samples that were embedded in this order.
    assert isinstance(read(store, numbers)._rows(), slice)


def test_only_what_is_missing_is_embedded(tmp_path):
    store, log = ActivationStore(tmp_path, chunk_size=4), []
    assert fill(store, NUMBERS[:10], log=log) == _fill.Filled(10, 10)
    assert fill(store, NUMBERS, log=log) == _fill.Filled(23, 13)
    assert fill(store, NUMBERS[::-2], log=log) == _fill.Filled(12, 0)
    assert sorted(log) == [(n, (0,)) for n in NUMBERS]


def test_all_layers_that_a_sample_lacks_come_from_one_pass(tmp_path):
    store, log = ActivationStore(tmp_path), []
    fill(store, [0, 1, 2, 3])
    fill(store, [2, 3, 4, 5], (1,))
    fill(store, NUMBERS[:8], (0, 1, 5), log=log)
    lacked = {0: (1, 5), 1: (1, 5), 2: (5,), 3: (5,), 4: (0, 5), 5: (0, 5)}
    assert dict(log) == {n: lacked.get(n, (0, 1, 5)) for n in range(8)}
    assert len(log) == 8
    for block in (0, 1, 5):
        check(store, NUMBERS[:8], block)


def test_other_layers_are_kept_if_a_sample_is_embedded_anyway(tmp_path):
    store, log = ActivationStore(tmp_path), []
    fill(store, [1, 2], (3,), log=log)
    fill(store, [1, 2], (3,), also=(0, 1), log=log)  # nothing is needed
    assert log == [(1, (3,)), (2, (3,))]
    fill(store, [1, 2, 4], (3,), also=(0, 1), log=log)
    assert log[2:] == [(4, (0, 1, 3))]
    assert fill(store, [4], (1,)).n_embedded == 0


def test_what_is_kept_for_another_model_or_dtype_is_not_given(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, NUMBERS)
    assert held(store, NUMBERS, model="other") == []
    half = ActivationStore(tmp_path, "float16")
    assert held(half, NUMBERS) == []
    fill(half, NUMBERS[:3])
    check(half, NUMBERS[:3])
    assert {layer["dtype"] for layer in store.info()["layers"]} == {"float32", "float16"}


@pytest.mark.parametrize(("n_bytes", "size", "n_shards"), [(2**28, 4, 6), (64, 100, 13)])
def test_chunks_are_bounded_in_number_and_size(tmp_path, monkeypatch, n_bytes, size, n_shards):
    monkeypatch.setattr(_fill, "CHUNK_BYTES", n_bytes)
    store = ActivationStore(tmp_path, chunk_size=size)
    fill(store, NUMBERS)
    assert len(shards(store)) == n_shards
    check(store, NUMBERS)
    for name in shards(store):
        values = load_file(tmp_path / "shards" / name)["values"]
        assert values.nbytes <= max(n_bytes, 3 * WIDTH * 4)


def test_an_error_of_the_model_loses_no_chunk_before(tmp_path):
    store = ActivationStore(tmp_path, chunk_size=5)
    calls = []

    def fail():
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("the model failed")

    with pytest.raises(RuntimeError, match="the model failed"):
        fill(store, NUMBERS, pause=fail)
    assert len(held(store, NUMBERS)) == 15
    assert len(shards(store)) == 3
    assert fill(store, NUMBERS).n_embedded == 8


def test_copies_are_the_same_store(tmp_path):
    store = ActivationStore(tmp_path, "float16", layers=[0, -1], chunk_size=7, journal="delete")
    fill(store, [1])
    assert clone(store, safe=False) is store
    data = pickle.dumps(store)
    assert len(data) < 500
    for twin in (pickle.loads(data), copy.deepcopy(store)):
        assert twin is not store
        for name in ("path", "dtype", "layers", "chunk_size", "journal"):
            assert getattr(twin, name) == getattr(store, name)
        check(twin, [1])
    assert repr(store) == f"ActivationStore('{tmp_path}', dtype='float16', layers=[0, -1])"
    assert repr(ActivationStore("a")) == f"ActivationStore('{os.getcwd()}/a', dtype='float32')"


def test_threads_share_a_store(tmp_path):
    store, log = ActivationStore(tmp_path, chunk_size=3), []
    threads = [
        threading.Thread(target=fill, args=(store, NUMBERS), kwargs={"log": log}) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for n, _ in log) == NUMBERS
    check(store, NUMBERS)


BAD = [
    ({"path": __file__}, "is a file"),
    ({"dtype": "float64"}, "'dtype' parameter of ActivationStore .* Got 'float64'"),
    ({"journal": "off"}, "'journal' parameter .* Got 'off'"),
    ({"chunk_size": 0}, "'chunk_size' parameter .* Got 0"),
    ({"chunk_size": 1.5}, "'chunk_size' parameter .* Got 1.5"),
    ({"layers": "some"}, "'layers' parameter .* Got 'some'"),
]


@pytest.mark.parametrize(("params", "message"), BAD)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        ActivationStore(**{"path": "folder", **params})


def test_nothing_is_made_before_the_first_write(tmp_path):
    store = ActivationStore(tmp_path / "a" / "b")
    assert store.info() == {"path": str(store.path), "samples": 0, "bytes": 0, "layers": []}
    assert store.verify() == []
    assert store.prune() == 0
    assert held(store, NUMBERS) == []
    assert read(store, NUMBERS) is None
    assert not (tmp_path / "a").exists()
    fill(store, [1])
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["index.sqlite", "shards"]


def test_it_needs_no_heavy_library(tmp_path):
    code = (
        f"import sys, skact.store as s; s.ActivationStore({str(tmp_path)!r}).info();"
        "print([m for m in ('torch', 'transformers', 'tqdm') if m in sys.modules])"
    )
    assert printed_by(code) == "[]"


def test_info(tmp_path):
    store = ActivationStore(tmp_path, chunk_size=10)
    fill(store, NUMBERS, (0, 3))
    fill(store, [5, 100], model="other")
    info = store.info()
    assert info["samples"] == 24
    total = sum(n_rows(n) for n in NUMBERS)
    assert info["bytes"] == sum(x["bytes"] for x in info["layers"]) == size(store)
    assert [(x["model"], x["layer"], x["samples"]) for x in info["layers"]] == [
        ("other", 0, 2),
        ("toy", 0, 23),
        ("toy", 3, 23),
    ]
    layer = info["layers"][1]
    assert (layer["tokens"], layer["features"], layer["shards"]) == (total, WIDTH, 3)
    assert layer["identity"] == json.loads(identity(0).json)
    first, last = layer["created"]
    assert first <= last


def days_ago(store, days, block):
    with store._index.writing() as connection:
        connection.execute(
            "UPDATE shards SET created = created - ? WHERE identity IN "
            "(SELECT id FROM identities WHERE block = ?)",
            (days * 86400, block),
        )


PRUNED = [
    ({}, {("toy", 0), ("toy", 3), ("other", 0)}),
    ({"model": "toy"}, {("other", 0)}),
    ({"layer": 0}, {("toy", 3)}),
    ({"model": "toy", "layer": 0}, {("toy", 3), ("other", 0)}),
    ({"older_than": 2}, {("toy", 0), ("other", 0)}),
    ({"older_than": 2, "layer": 0}, {("toy", 0), ("toy", 3), ("other", 0)}),
    ({"max_bytes": 4096 + 3 * 16 + 44}, {("other", 0)}),
    ({"max_bytes": 0}, set()),
]


@pytest.mark.parametrize(("rules", "kept"), PRUNED)
def test_prune(tmp_path, rules, kept):
    store = ActivationStore(tmp_path)
    fill(store, NUMBERS)
    fill(store, NUMBERS, (3,))
    fill(store, [2], model="other")  # the newest: a header, 3 rows of 16 bytes, and 44 bytes
    days_ago(store, 3, block=3)
    (tmp_path / "shards" / "0123456789abcdef-0-0.tmp").write_bytes(b"xyz")  # litter
    (tmp_path / "shards" / "mine.txt").write_text("not of the store")
    before = store.info()["bytes"]
    mapped = read(store, NUMBERS, 3)
    freed = store.prune(**rules)
    info = store.info()
    assert {(x["model"], x["layer"]) for x in info["layers"]} == kept
    assert freed == before - info["bytes"] + 3
    assert len(shards(store)) == len(kept) + 1
    assert store.verify() == []
    np.testing.assert_array_equal(mapped[4], rows_of(4, 3))  # readers are not disturbed
    fill(store, NUMBERS, (0, 3))
    check(store, NUMBERS, 3)


def test_rows_that_two_processes_wrote_are_pruned_once_nobody_needs_them(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, [1])
    with store._index.writing() as connection:
        connection.execute("DELETE FROM entries")
    fill(store, [1])
    assert len(shards(store)) == 2
    before = size(store)
    assert store.prune() == before - size(store) == size(store)
    check(store, [1])


def test_a_bar_shows_tokens(tmp_path, capsys):
    store = ActivationStore(tmp_path)
    from tests.store.toy_store import Job

    store.fill(
        [key(n) for n in NUMBERS], identities(0), {}, lambda places: Job(NUMBERS), progress=True
    )
    total = sum(n_rows(n) for n in NUMBERS)
    assert f"{total}.0/{total}.0" in capsys.readouterr().err
    fill(store, NUMBERS)
    assert capsys.readouterr().err == ""


def fill_by_windows(store, numbers, seen, fail_at=None):
    def prepare(places):
        seen.append(("prepare", len(places)))
        if fail_at is not None and places[0] >= fail_at:
            raise ValueError("the tokenizer failed")
        return toy_store.Job(
            [numbers[i] for i in places], pause=lambda: seen.append(("embed", None))
        )

    return store.fill([key(n) for n in numbers], identities(0), {}, prepare)


def test_windows_are_bounded_and_the_model_starts_before_the_last_is_prepared(tmp_path):
    store, numbers, seen = ActivationStore(tmp_path / "a", chunk_size=4), list(range(30)), []
    assert fill_by_windows(store, numbers, seen).n_embedded == 30
    assert [size for what, size in seen if what == "prepare"] == [4, 16, 10]
    assert [what for what, _ in seen].count("embed") == 1 + 4 + 3
    third = [i for i, (what, _) in enumerate(seen) if what == "prepare"][2]
    assert [what for what, _ in seen[:third]].count("embed") >= 4  # one chunk ahead, and no more
    whole, at_once = ActivationStore(tmp_path / "b"), []
    fill_by_windows(whole, numbers, at_once)
    assert [what for what, _ in at_once] == ["prepare", "embed"]  # the control
    check(store, numbers)
    check(whole, numbers)


def test_a_chunk_holds_samples_of_about_one_length(tmp_path):
    store, numbers, log = ActivationStore(tmp_path, chunk_size=4), list(range(20)), []
    fill(store, numbers, log=log)
    lengths = [n_rows(n) for n, _ in log]
    assert sorted(lengths[:4]) == sorted(map(n_rows, numbers[:4]))  # the first window, of one chunk
    chunks = [lengths[start : start + 4] for start in range(4, 20, 4)]
    expected = [[3, 3, 3, 3], [3, 2, 2, 2], [2, 2, 2, 1], [1, 1, 1, 1]]
    assert [sorted(own, reverse=True) for own in chunks] == expected
    # The control: in the order in which they came.
    given = [n_rows(n) for n in numbers]
    assert sorted(given[4:8], reverse=True) == [3, 2, 2, 1]


def test_what_others_have_claimed_is_not_prepared(tmp_path):
    store, seen, numbers = ActivationStore(tmp_path, chunk_size=4), [], list(range(6))
    fill(store, [100])
    with Owner(store._index) as other:
        assert other.free([key(n) for n in numbers], identities(0)) == numbers
        assert other.claim([key(n) for n in numbers[1:]], identities(0)) == numbers[:-1]
        assert other.free([key(n) for n in numbers], identities(0)) == [0]
        waiting = threading.Thread(target=fill_by_windows, args=(store, numbers, seen))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert seen == [("prepare", 1), ("embed", None)]
    waiting.join()
    assert sum(size for what, size in seen if what == "prepare") == 6
    check(store, numbers)


def test_an_error_while_preparing_reaches_the_caller_and_leaves_what_was_there(tmp_path):
    store, numbers = ActivationStore(tmp_path, chunk_size=4), list(range(30))
    with pytest.raises(ValueError, match="the tokenizer failed"):
        fill_by_windows(store, numbers, [], fail_at=20)
    assert held(store, numbers) == numbers[:20]
    assert len(shards(store)) == 5
    assert store.verify() == []
    with store._index.reading() as connection:
        for table in ("claims", "owners"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    fill_by_windows(store, numbers, [])
    check(store, numbers)
