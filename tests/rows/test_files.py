import os
import pickle
import tempfile

import numpy as np
import pytest
from sklearn import config_context

from skact import TokenArray
from skact.rows import FileRows, Shards

KEYS = [
    slice(3, 8),
    slice(None),
    slice(40, 2, -3),
    (slice(2, 9), slice(1, 3)),
    5,
    (4, 2),
    [7, 7, 1],
    np.arange(50) % 3 == 0,
    (slice(None), [0, 2]),
    slice(9, 9),
    ...,
    None,
]


@pytest.fixture
def content(rng):
    return rng.normal(size=(50, 4)).astype(np.float32)


@pytest.fixture
def path(tmp_path, content):
    """The rows behind a header that is as long as a page of memory and some numbers."""
    (tmp_path / "rows").write_bytes(bytes(4096 + 12) + content.tobytes())
    return tmp_path / "rows"


@pytest.fixture
def rows(path):
    return FileRows(path, np.float32, (50, 4), 4096 + 12)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_rows_know_where_they_lie(rows, path, content, key):
    view = rows[key]
    np.testing.assert_array_equal(view, content[key], strict=True)
    assert isinstance(view, FileRows) == (np.shares_memory(view, rows) and view.ndim > 0)
    if isinstance(view, FileRows):
        assert view.inode == (os.stat(path).st_dev, os.stat(path).st_ino)
        assert np.fromfile(path, np.float32, 1, offset=view.place) == view.flat[0]
        again = pickle.loads(pickle.dumps(view))
        assert type(again) is (FileRows if view.flags.c_contiguous else np.ndarray)
        np.testing.assert_array_equal(again, view)
        assert not view.flags.writeable


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 2,
        lambda x: x > 0,
        lambda x: np.exp(x[3:5]),
        lambda x: x.sum(),
        lambda x: x.max(axis=0),
        lambda x: np.mean(x, axis=1, keepdims=True),
        lambda x: np.add.reduceat(x, [0, 5, 9]),
        lambda x: x @ x.T,
        lambda x: np.concatenate([x, x]),
        lambda x: x.astype(np.float64)[2:5],
        lambda x: np.take(x, [1, 3], axis=1)[:],
        lambda x: np.add(x, 1, out=np.empty(x.shape, x.dtype)),
    ],
)
def test_what_is_computed_from_them_is_in_memory(rows, content, function):
    expected = function(content)
    found = function(rows)
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found, expected, strict=True)


def test_values_of_any_kind_are_taken_in(rows, path, content):
    mapped = np.memmap(path, np.float32, "r", 4096 + 12, (50, 4))
    taken = FileRows.of(mapped[7:])
    assert type(taken) is FileRows
    assert np.shares_memory(taken, mapped)
    assert taken.place == rows[7:].place
    assert taken.inode is None
    assert type(FileRows.of(mapped.copy())) is np.ndarray
    assert type(FileRows.of(rows.copy())) is np.ndarray
    for values in (rows, content, Shards([rows]), [1, 2]):
        assert FileRows.of(values) is values
    assert FileRows.of(TokenArray(rows, [0, 50]).values) is rows
    for container in (TokenArray(mapped, [0, 50]).values, Shards([mapped]).parts[0]):
        assert type(container) is FileRows


def test_pickles_hold_what_is_in_no_file_that_lasts(rows, path, content, tmp_path):
    assert len(pickle.dumps(rows)) < 400
    changed = FileRows.of(np.memmap(path, np.float32, "c", 4096 + 12, (50, 4)))
    changed[0] = 7
    with tempfile.TemporaryFile() as file:
        unnamed = FileRows.of(np.memmap(file, np.float32, "w+", shape=(50, 4)))
    unnamed[:] = content
    (tmp_path / "joblib_memmapping_folder_1").mkdir()
    temporary = tmp_path / "joblib_memmapping_folder_1" / "x"
    temporary.write_bytes(content.tobytes())
    for values in (changed, unnamed, FileRows(temporary, np.float32, (50, 4)), rows.copy()):
        data = pickle.dumps(values)
        assert len(data) > content.nbytes
        assert type(pickle.loads(data)) is np.ndarray
        np.testing.assert_array_equal(pickle.loads(data), values)


def test_a_file_is_read_under_whatever_name_it_has(tmp_path, content):
    path = str(tmp_path / "rows")
    content.tofile(path)
    short = os.path.relpath(path)
    assert FileRows(short, np.float32).reshape(50, 4).filename == path
    with pytest.raises(FileNotFoundError):
        FileRows(tmp_path / "none", np.float32)


@pytest.mark.parametrize("mapped", [FileRows, np.memmap])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_file_that_lost_its_name_is_read_as_it_was(
    tmp_path, content, mapped, before, monkeypatch
):
    """Also where its name was lost before skact saw the array, and the other file is mapped too."""
    monkeypatch.setattr("skact.rows._reading.exceeds_memory", lambda n_bytes: True)
    options = {} if mapped is FileRows else {"mode": "r"}
    names = [tmp_path / "a", tmp_path / "b"]
    for name in names:
        content.tofile(name)
    parts = [mapped(name, np.float32, shape=(50, 4), **options) for name in names]
    tokens = None if before else TokenArray(Shards(parts), np.arange(0, 101, 10))
    (-content).tofile(tmp_path / "other")
    os.replace(tmp_path / "other", names[0])
    names[1].unlink()
    other = mapped(names[0], np.float32, shape=(50, 4), **options)
    if before:
        tokens = TokenArray(Shards(parts), np.arange(0, 101, 10))
    with config_context(working_memory=0):
        for array, expected in [
            (tokens, np.tile(content, (2, 1))),
            (TokenArray(other, tokens.offsets[:6]), -content),
        ]:
            read = np.concatenate([block for _, block in array.blocks()])
            np.testing.assert_array_equal(read, expected)


def test_a_file_that_was_cut_off_is_noticed_before_it_is_read(tmp_path):
    path = tmp_path / "rows"
    np.arange(6000, dtype=np.float32).tofile(path)
    rows = FileRows(path, np.float32, (2000, 3))
    view = rows[1000:]
    os.truncate(path, 8000)
    for use in (lambda: rows[5], lambda: view[:3], lambda: rows[np.array([1, 1999])]):
        with pytest.raises(
            OSError, match=r"rows' was cut off .* 8000 bytes left of at least 24000"
        ):
            use()
    path.write_bytes(bytes(24000))
    assert rows[5].tolist() == [0, 0, 0]
    other = tmp_path / "other"
    other.write_bytes(bytes(10))
    os.replace(other, path)  # another file with this name says nothing of the one that is mapped
    assert view[-1].tolist() == [0, 0, 0]
    path.unlink()
    assert view[-1].tolist() == [0, 0, 0]
