"""The files of a store: anyone reads them with safetensors, and a layer travels in one."""

import errno
import json
import os
import zlib

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from skact import LayerStack
from skact.store import ActivationStore
from skact.store._format import checksums
from skact.store._layer_writer import LayerWriter
from tests.store.toy_store import WIDTH, check, fill, held, identity, key, n_rows, runs_of

NUMBERS = list(range(23))
TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def shards(store):
    return sorted((store.path / "shards").iterdir())


def damage(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("kind", ["shards", "export"])
def test_safetensors_reads_what_the_store_reads(tmp_path, dtype, kind):
    store = ActivationStore(tmp_path / "store", dtype, chunk_size=9)
    fill(store, NUMBERS, (2,))
    files = shards(store)
    if kind == "export":
        store.export(tmp_path / "file")
        files = [tmp_path / "file"]
    n_read = 0
    for file in files:
        with safe_open(file, framework="pt") as content:
            values = content.get_tensor("values")
            keys = [row.numpy().tobytes() for row in content.get_tensor("samples")]
            lengths = content.get_tensor("lengths").tolist()
            about = content.metadata()
        assert values.dtype == TORCH[dtype]
        assert (about["model"], about["layer"]) == ("toy", "2")
        assert about["identity"] == identity(2, dtype=dtype).json
        tokens = store.read(keys, identity(2, dtype=dtype))
        assert lengths == tokens.lengths.tolist()
        stored = torch.from_numpy(np.array(tokens.compact().flat()))
        assert torch.equal(values.float(), stored.float())
        assert values.shape == (sum(lengths), WIDTH)
        if dtype != "bfloat16":  # which numpy does not know
            with safe_open(file, framework="np") as content:
                np.testing.assert_array_equal(content.get_tensor("values"), stored.numpy())
        n_read += len(keys)
    assert n_read == len(NUMBERS)
    assert len(files) == (3 if kind == "shards" else 1)


@pytest.mark.parametrize("dtype", TORCH)
def test_values_are_mapped_where_a_block_of_the_disk_begins(tmp_path, dtype):
    store = ActivationStore(tmp_path, dtype)
    fill(store, NUMBERS)
    values = store.read([key(n) for n in NUMBERS], identity(0, dtype=dtype)).values
    part = values.parts[0] if dtype == "bfloat16" else values
    assert isinstance(part, np.memmap)
    n_header = int.from_bytes(shards(store)[0].read_bytes()[:8], "little")
    assert part.offset == 8 + n_header == 4096


PARTS = ["values", "lengths", "samples", "checksums", "shapes", "segments"]
PARTS += ["identity", "the length of the header"]


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("part", PARTS)
def test_a_flipped_bit_in_any_part_of_a_shard_is_found(tmp_path, dtype, part):
    store = ActivationStore(tmp_path, dtype)
    about = {"model": {"shapes": "grids", "segments": "chats"}.get(part, "toy")}
    fill(store, NUMBERS, **about)
    assert store.verify() == []  # the control
    (path,) = shards(store)
    content = path.read_bytes()
    n_header = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + n_header])
    if part == "identity":
        place = content.index(b"convention") + 15
    elif part == "the length of the header":
        place = 1
    else:
        place = 8 + n_header + header[part]["data_offsets"][0]
    damage(path, place)
    n_lost = 1 if part in ("values", "samples", "checksums", "segments") else 23
    assert store.verify(repair=True) == [f"'{path}' is damaged in {n_lost} of 23 samples"]
    assert len(held(store, NUMBERS, **about)) == 23 - n_lost
    fill(store, NUMBERS, **about)
    check(store, NUMBERS, **about)
    assert store.verify() == []


def test_shapes_go_with_their_samples(tmp_path):
    store = ActivationStore(tmp_path / "a", chunk_size=5)
    fill(store, NUMBERS, model="grids")
    fill(store, NUMBERS)
    order = [7, 22, 0, 7, 3, 16, 1]
    check(store, order, model="grids")
    check(store, order)  # another layer, of runs
    for model in ("grids", "toy"):
        other = ActivationStore(tmp_path / model, chunk_size=4)
        assert store.export(tmp_path / "file", model=model) == 23
        with safe_open(tmp_path / "file", framework="np") as content:
            assert ("shapes" in content.keys()) == (model == "grids")  # noqa: SIM118
        assert other.import_(tmp_path / "file") == 23
        check(other, order, model=model)
        assert other.verify() == []


def test_segments_go_with_their_samples(tmp_path):
    store = ActivationStore(tmp_path / "a", chunk_size=5)
    fill(store, NUMBERS, (0, 1), model="chats")
    order = [8, 22, 0, 8, 3, 17, 2]
    check(store, order, model="chats")
    stack = LayerStack(
        {b: store.read([key(1), key(5)], identity(b, model="chats")) for b in (0, 1)}
    )
    np.testing.assert_array_equal(stack.segments, np.append(runs_of(1), runs_of(5)))
    other = ActivationStore(tmp_path / "b", chunk_size=4)
    assert store.export(tmp_path / "file", layer=0) == 23
    with safe_open(tmp_path / "file", framework="np") as content:
        runs = [runs_of(n) for n in range(23)]
        assert content.get_tensor("segments").sum() == sum(map(np.sum, runs))
    assert other.import_(tmp_path / "file") == 23
    check(other, order, model="chats")
    assert other.forget([key(8), key(3)]) == 2
    check(other, [22, 0, 17, 2], model="chats")
    assert other.verify() == []
    # The index is made anew of the files, and needs nothing else.
    (tmp_path / "b" / "index.sqlite").unlink()
    other.verify(repair=True)
    check(other, [22, 0, 17, 2], model="chats")


def test_files_without_gaps_are_as_they_were(tmp_path):
    whole = [n for n in range(30) if not runs_of(n).any()]
    assert len(whole) > 3
    for model in ("chats", "toy"):
        store = ActivationStore(tmp_path / model)
        fill(store, whole, model=model)
        with safe_open(shards(store)[0], framework="np") as content:
            assert "segments" not in content.keys()  # noqa: SIM118
        check(store, whole, model=model)


def test_shapes_that_the_index_does_not_know_are_damage(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, [1, 2], model="grids")
    (path,) = shards(store)
    grids, content = np.array([[1, 2], [3, 1]], "<i8"), path.read_bytes()
    assert content.count(grids.tobytes()) == 1
    path.write_bytes(content.replace(grids.tobytes(), grids[:, ::-1].tobytes()))
    assert store.verify() == [f"'{path}' is damaged in 2 of 2 samples"]


def test_checksums_go_on_with_the_segments_of_samples_with_gaps(rng):
    values, samples = rng.normal(size=(6, 5)).astype(np.float32), [b"a", b"bc"]
    plain = checksums(values, np.array([4, 2]), samples)
    runs = np.array([0, 0, 1, 1, 0, 0], np.int32)
    first, second = checksums(values, np.array([4, 2]), samples, runs)
    assert second == plain[1]
    assert first == zlib.crc32(runs[:4].tobytes(), int(plain[0])) != plain[0]


def test_checksums_are_those_of_zlib(rng):
    values, samples = rng.normal(size=(6, 5)).astype(np.float32), [b"a", b"bc", b""]
    expected = [
        zlib.crc32(name + values[rows].tobytes())
        for name, rows in zip(samples, (slice(3), slice(3, 4), slice(4, 6)), strict=True)
    ]
    assert checksums(values, np.array([3, 1, 2]), samples).tolist() == expected
    assert len(set(expected)) == 3


def test_a_file_that_did_not_get_all_samples_is_not_finished(tmp_path):
    def writer(name):
        return LayerWriter(
            tmp_path / name, identity(0), "float32", n_samples=2, n_rows=3, n_features=WIDTH
        )

    one = (np.ones((1, WIDTH), np.float32), np.array([1]), [key(1)], np.array([0]))
    two = (np.ones((2, WIDTH), np.float32), np.array([2]), [key(2)], np.array([0]))
    whole, half = writer("whole"), writer("half")
    for rows in (one, two):
        whole.write(*rows)
    whole.finish()
    half.write(*one)
    with pytest.raises(RuntimeError, match="half' did not get all of its samples"):
        half.finish()


def test_an_export_that_the_library_has_written_anew_is_taken_in(tmp_path):
    store = ActivationStore(tmp_path / "a")
    fill(store, NUMBERS)
    store.export(tmp_path / "file")
    with safe_open(tmp_path / "file", framework="np") as content:
        about = content.metadata()
    save_file(load_file(tmp_path / "file"), tmp_path / "anew", metadata=about)
    assert (tmp_path / "anew").read_bytes() != (tmp_path / "file").read_bytes()
    other = ActivationStore(tmp_path / "b")
    assert other.import_(tmp_path / "anew") == 23
    check(other, NUMBERS)


@pytest.mark.parametrize("dtype", TORCH)
def test_a_layer_goes_through_a_file_into_another_store(tmp_path, dtype):
    store = ActivationStore(tmp_path / "a", dtype, chunk_size=5)
    fill(store, NUMBERS, (0, 2))
    file = tmp_path / "layer.safetensors"
    assert store.export(file, 2) == 23
    assert sorted(os.listdir(tmp_path)) == ["a", file.name]
    other = ActivationStore(tmp_path / "b", dtype, chunk_size=4)
    fill(other, [3, 4], (2,))
    assert other.import_(file) == 21
    assert other.import_(file) == 0
    check(other, NUMBERS, 2)
    assert held(other, NUMBERS, 0) == []
    assert other.verify() == []


def test_what_an_export_holds(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, [4, 2])
    store.export(tmp_path / "file")
    tensors = load_file(tmp_path / "file")
    assert tensors["lengths"].tolist() == [n_rows(4), n_rows(2)]
    assert [row.tobytes() for row in tensors["samples"]] == [key(4), key(2)]
    assert tensors["checksums"].dtype == np.uint32


UNCLEAR = [
    (
        {},
        r"3 layers of dtype float32 fit layer=None, model=None, convention=None; name exactly one",
    ),
    ({"layer": 0}, r"2 layers"),
    ({"model": "toy"}, r"2 layers"),
    ({"layer": 9}, r"0 layers .*layer=9.* model='other', layer=0, .*model='toy', layer=3"),
]


@pytest.mark.parametrize(("which", "message"), UNCLEAR)
def test_an_export_of_no_single_layer(tmp_path, which, message):
    store = ActivationStore(tmp_path)
    fill(store, [1], (0, 3))
    fill(store, [1], model="other")
    with pytest.raises(ValueError, match=message):
        store.export(tmp_path / "file", **which)
    assert not (tmp_path / "file").exists()


def header_changed(content, change):
    n = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + n])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + n :]


DAMAGED = [
    (lambda c: b"", "holds no layer of a store, or is damaged"),
    (lambda c: b"\xff" * 100, "(?i)header ?too ?large"),
    (lambda c: c[:-1], "incomplete metadata|IncompleteBuffer"),
    (lambda c: c[:200], "holds no layer"),
    (lambda c: header_changed(c, lambda h: h.pop("__metadata__")), "'format'"),
    (lambda c: header_changed(c, lambda h: h["__metadata__"].update(format="9")), "'9', expected"),
    (lambda c: header_changed(c, lambda h: h.pop("lengths")), "holds no layer"),
    (lambda c: header_changed(c, lambda h: h["values"].update(shape=[1, 1])), "holds no layer"),
    (lambda c: header_changed(c, lambda h: h["values"].update(shape=[180])), "do not fit together"),
    (lambda c: header_changed(c, lambda h: h["values"].update(dtype="I32")), "do not fit together"),
    (
        lambda c: header_changed(
            c, lambda h: h["__metadata__"].update(format="skact activations 1")
        ),
        "activations 1', expected 'skact activations 2'",
    ),
    *(
        (
            lambda c, text=text: header_changed(
                c, lambda h: h["__metadata__"].update(identity=text)
            ),
            f"the identity: {said}",
        )
        for text, said in [
            ("[" * 10**5, "nested more than 100 deep, at column 101"),
            ('{"block":' + "1" * 5000 + "}", "a number of 5000 digits, at column 10"),
            ('{"block":', "not JSON"),
        ]
    ),
    (lambda c: c.replace(key(3), key(4)), "do not fit together"),
    (lambda c: c.replace((3).to_bytes(8, "little"), (4).to_bytes(8, "little")), "do not fit"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGED)
def test_a_file_that_is_no_export(tmp_path, change, message):
    store = ActivationStore(tmp_path / "a")
    fill(store, NUMBERS)
    store.export(tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(change(content))
    other = ActivationStore(tmp_path / "b")
    with pytest.raises(ValueError, match=message):
        other.import_(tmp_path / "file")
    assert not other.path.exists()


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("change", ["NaN", "infinity", "width", None])
def test_what_others_have_written_is_taken_in_only_if_it_is_numbers_that_fit(
    tmp_path, dtype, change
):
    """With sums that are right: what is wrong is what they are sums of."""
    from safetensors.torch import load_file, save_file

    store = ActivationStore(tmp_path / "a", dtype)
    fill(store, NUMBERS)
    store.export(tmp_path / "file")
    with safe_open(tmp_path / "file", framework="np") as content:
        about = content.metadata()
    tensors = load_file(tmp_path / "file")
    if change == "width":
        tensors["values"] = tensors["values"][:, :-1].contiguous()
    elif change:
        tensors["values"][7, 1] = float("nan" if change == "NaN" else "inf")
    raw = tensors["values"].view(torch.uint8).numpy()
    keys = [row.tobytes() for row in tensors["samples"].numpy()]
    sums = checksums(raw, tensors["lengths"].numpy(), keys)
    tensors["checksums"] = torch.from_numpy(sums.astype(np.int64)).to(torch.uint32)
    save_file(tensors, tmp_path / "file", metadata=about)
    other = ActivationStore(tmp_path / "b", dtype)
    fill(other, NUMBERS[:2])
    if change:
        said = "features of a token, but the store has" if change == "width" else "NaN or infinity"
        with pytest.raises(ValueError, match=said):
            other.import_(tmp_path / "file")
        assert held(other, NUMBERS) == held(other, NUMBERS[:2])
    else:
        assert other.import_(tmp_path / "file") == 21
    check(other, NUMBERS[:2])


def test_a_flipped_byte_in_an_export_is_not_taken_in(tmp_path):
    store = ActivationStore(tmp_path / "a")
    fill(store, NUMBERS)
    store.export(tmp_path / "file")
    damage(tmp_path / "file", 4096 + 5)
    other = ActivationStore(tmp_path / "b")
    with pytest.raises(ValueError, match="damaged: the rows of 1 samples"):
        other.import_(tmp_path / "file")
    assert held(other, NUMBERS) == []
    assert shards(other) == []


def test_an_interrupted_export_leaves_no_file(tmp_path, monkeypatch):
    store = ActivationStore(tmp_path)
    fill(store, [1])
    monkeypatch.setattr(os, "replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.export(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["index.sqlite", "shards"]


def test_an_export_to_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    store = ActivationStore(tmp_path)
    fill(store, [1])

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="no space left for 0 MiB"):
        store.export(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["index.sqlite", "shards"]
