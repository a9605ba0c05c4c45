import pickle
import subprocess
import sys

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn import config_context

from skact import Source, TokenArray
from skact.rows._pieces import Mapped, Shards
from skact.rows._reading import on_disk


@pytest.fixture
def matrix(rng):
    return rng.normal(size=(60, 5)).astype(np.float32)


@pytest.fixture
def files(tmp_path, matrix):
    """The rows of the matrix in three files, the second of which starts after a header."""
    parts = []
    for k, (start, stop) in enumerate([(0, 20), (20, 27), (27, 60)]):
        path = tmp_path / f"{k}.bin"
        path.write_bytes(b"head" * k + matrix[start:stop].tobytes())
        parts.append(np.memmap(path, np.float32, "r", 4 * k, (stop - start, 5)))
    return parts


@pytest.fixture
def tokens(files, matrix, rng):
    """A shuffled view of samples in these files, and the same in memory."""
    offsets = [0, 5, 18, 24, 30, 31, 50, 60]
    index = rng.permutation(7)[:5]
    names, source = list("abcde"), Source(model="m", block=1)
    return tuple(
        TokenArray(values, offsets, index, feature_names=names, source=source)
        for values in (Shards(files), matrix)
    )


def rows(rng):
    return [
        slice(3, 11),
        slice(18, 30),
        slice(None),
        slice(50, 7, -3),
        slice(5, 5),
        slice(70, 80),
        np.r_[33:58, 2:27],
        np.arange(-40, -1),
    ] + [rng.integers(-60, 60, size=n) for n in (1, 40)]


def test_rows_are_those_of_one_matrix(files, matrix, rng):
    shards, mapped = Shards(files), Mapped(Shards(files), np.negative)
    assert shards.shape == mapped.shape == matrix.shape
    assert shards.dtype == mapped.dtype == matrix.dtype
    assert len(shards) == len(mapped) == 60
    assert shards.nbytes == mapped.nbytes == matrix.nbytes
    for chosen in rows(rng):
        np.testing.assert_array_equal(shards[chosen], matrix[chosen])
        np.testing.assert_array_equal(mapped[chosen], -matrix[chosen])
    np.testing.assert_array_equal(shards[matrix[:, 0] > 0], matrix[matrix[:, 0] > 0])
    nested = Shards([shards, Mapped(files[0], np.negative)])
    np.testing.assert_array_equal(nested[:], np.concatenate([matrix, -matrix[:20]]))
    assert "3 parts" in repr(shards)
    assert "of Shards" in repr(mapped)


@pytest.mark.parametrize("chosen", [slice(None), np.r_[30:60, 0:25], np.arange(59, -1, -1)])
def test_what_is_computed_is_computed_in_chunks_of_about_equal_size(
    files, matrix, chosen, monkeypatch
):
    sizes = []

    def seen(values):
        sizes.append(len(values))
        return -values

    monkeypatch.setattr("skact.rows._pieces.CHUNK", 8 * 5)
    mapped = Mapped(Shards(files), seen)
    sizes.clear()
    np.testing.assert_array_equal(mapped[chosen], -matrix[chosen])
    assert sum(sizes) == len(matrix[chosen])
    assert len(sizes) > 1
    assert max(sizes) <= 1.5 * 8
    assert max(sizes) - min(sizes) <= 2


def test_a_slice_within_a_file_is_not_copied(files, matrix):
    shards = Shards(files)
    assert np.shares_memory(shards[21:25], files[1])
    assert not np.shares_memory(shards[18:25], files[1])
    assert on_disk(shards)
    assert on_disk(files[0])
    assert not on_disk(matrix)


def test_bfloat16_is_decoded():
    torch = pytest.importorskip("torch")
    numbers = torch.randn(9, 4).to(torch.bfloat16)
    bits = numbers.view(torch.uint16).numpy()
    shards = Shards([bits[:4], bits[4:]], bfloat16=True)
    assert shards.dtype == np.float32
    assert shards.nbytes == 72
    np.testing.assert_array_equal(shards[1:8], numbers[1:8].float().numpy())
    np.testing.assert_array_equal(shards[1:3], numbers[1:3].float().numpy())
    np.testing.assert_array_equal(shards[np.array([8, 0])], numbers[[8, 0]].float().numpy())
    assert "bfloat16" in repr(shards)


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ([], ValueError, "at least one"),
        ([np.zeros(3)], ValueError, r"part 0 must be a 2-D array, got \(3,\)"),
        ([[1, 2]], ValueError, "part 0 must be a 2-D array, got list"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], ValueError, "part 1 has 4 columns, part 0 has 3"),
        ([np.zeros((2, 3)), np.zeros((2, 3), np.float32)], TypeError, "float32 in part 1"),
        ([np.zeros((2, 3), np.uint16)], TypeError, "got uint16 in part 0"),
        ([np.zeros((3, 2)).T], ValueError, "part 0 must be C-contiguous"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, error, match):
    with pytest.raises(error, match=match):
        Shards(parts)


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: Mapped(x, np.negative)])
@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (np.array([0, 60]), "row 60 is out of range for 60 rows"),
        (np.array([-61]), "row -61 is out of range"),
        (np.array([0.5]), "1-D of dtype float64"),
        (3, "0-D of dtype int64"),
    ],
)
def test_rows_that_do_not_exist_are_refused(files, kind, rows, match):
    with pytest.raises(IndexError, match=match):
        kind(Shards(files))[rows]


def test_pickles_name_files_and_hold_no_rows(files, matrix, tmp_path):
    big = np.memmap(tmp_path / "big", np.float16, "w+", shape=(100_000, 5))
    big[:] = np.arange(5)
    big.flush()
    shards = Shards([big[10:], np.asarray(big[:3])])
    data = pickle.dumps(shards)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data)[99_980:], shards[99_980:])
    for part in (files[1][2:5], files[2]):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(Shards([part])))[:], part)
    mapped = pickle.loads(pickle.dumps(Mapped(shards, np.negative)))
    np.testing.assert_array_equal(mapped[:7], -shards[:7])
    tokens = TokenArray(big, [0, 40_000, 100_000])
    assert len(pickle.dumps(tokens)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tokens))[1], tokens[1])
    # What is in no file is sent as it is.
    changed = np.memmap(tmp_path / "big", np.float16, "c", shape=(100, 5))
    changed[0] = 7
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(Shards([changed])))[:1], changed[:1])


def test_another_process_reads_the_files(files, matrix, tmp_path):
    (tmp_path / "tokens").write_bytes(pickle.dumps(TokenArray(Shards(files), [0, 25, 60])))
    code = "import pickle, sys; print(float(pickle.load(open(sys.argv[1], 'rb'))[1].sum()))"
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "tokens")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert float(out) == pytest.approx(float(matrix[25:].sum()), rel=1e-6)


def _sums(tokens):
    return tokens.sum()


def test_workers_read_the_files(tokens):
    lazy, held = tokens
    with config_context(working_memory=0):
        lazy = lazy.map(np.square)
        assert isinstance(lazy.values, Mapped)
        sums = Parallel(n_jobs=2)(delayed(_sums)(lazy[k : k + 1]) for k in range(2))
    np.testing.assert_allclose(np.concatenate(sums), held.map(np.square).sum()[:2])


@pytest.mark.parametrize("past_the_cache", [False, True])
@pytest.mark.parametrize("working_memory", [0, 1024])
def test_token_arrays_do_not_show_where_tokens_lie(
    tokens, working_memory, past_the_cache, monkeypatch
):
    monkeypatch.setattr("skact.rows._reading.exceeds_memory", lambda n_bytes: past_the_cache)
    lazy, held = tokens
    with config_context(working_memory=working_memory):
        for ours, theirs in [
            (lazy, held),
            (lazy[::-1], held[::-1]),
            (lazy[[2, 2, 0]], held[[2, 2, 0]]),
            (lazy.map(np.square), held.map(np.square)),
            (lazy.map(np.square).map(np.negative)[1:4], -held.map(np.square).flat()),
            (lazy.columns([3, 1]), held.columns([3, 1])),
            (lazy.compact(), held),
            (lazy.with_source(None), held.with_source(None)),
            (TokenArray.concatenate([lazy, lazy[:2]]), TokenArray.concatenate([held, held[:2]])),
            (pickle.loads(pickle.dumps(lazy)), held),
        ]:
            if isinstance(theirs, np.ndarray):
                theirs = held.map(np.square).map(np.negative)[1:4]
            assert ours.shape == theirs.shape
            assert ours.dtype == theirs.dtype
            assert ours.feature_names == theirs.feature_names
            assert ours.source == theirs.source
            np.testing.assert_array_equal(ours.flat(), theirs.flat())
            for name in ("max", "sum", "mean", "last"):
                np.testing.assert_allclose(getattr(ours, name)(), getattr(theirs, name)())
            np.testing.assert_array_equal(
                ours.tokens_at(0 * ours.lengths), theirs.tokens_at(0 * theirs.lengths)
            )
            numbers = np.array([3, 0, ours.n_tokens - 1])
            np.testing.assert_array_equal(ours.rows(numbers), theirs.flat()[numbers])
            for mine, yours in zip(ours.to_list(), theirs.to_list(), strict=True):
                np.testing.assert_array_equal(mine, yours)
            for (place, mine), (other, yours) in zip(ours.blocks(), theirs.blocks(), strict=True):
                assert place == other
                np.testing.assert_array_equal(mine, yours)
            np.testing.assert_array_equal(ours[1], theirs[1])
    assert not on_disk(lazy.compact().values)


def test_rows_of_no_token_are_refused(tokens):
    with pytest.raises(IndexError, match="numbers must lie in"):
        tokens[0].rows(np.array([tokens[0].n_tokens]))


def test_concatenating_what_is_on_disk_copies_nothing(tokens):
    lazy, held = tokens
    both = TokenArray.concatenate([lazy, lazy[:2]])
    assert isinstance(both.values, Shards)
    assert not isinstance(TokenArray.concatenate([lazy, held]).values, Shards)
    with config_context(working_memory=0):
        mixed = TokenArray.concatenate([lazy.map(np.negative), lazy])
    np.testing.assert_array_equal(mixed.flat(), np.concatenate([-held.flat(), held.flat()]))


def test_a_map_is_lazy_only_where_the_result_is_large(tokens):
    lazy, held = tokens
    assert isinstance(lazy.map(np.square).values, np.ndarray)
    calls = []

    def watched(values):
        calls.append(len(values))
        return np.square(values)

    with config_context(working_memory=0):
        assert isinstance(held.map(np.square).values, np.ndarray)
        result = lazy.map(watched)
        assert calls == [1]
        result.max()
        assert sum(calls) == 1 + lazy.n_tokens
        result.max()
        assert sum(calls) == 1 + 2 * lazy.n_tokens
