import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from sklearn import config_context, get_config

from skact import TokenArray
from skact.rows._pieces import Mapped, Shards
from skact.rows._reading import may_hold, on_disk, read, read_ahead, release, runs


@pytest.fixture(params=["through", "past"], ids=lambda way: f"{way} the cache")
def way(request, monkeypatch):
    """How files are read, whatever the memory of this machine."""
    monkeypatch.setattr(
        "skact.rows._reading.exceeds_memory", lambda n_bytes: request.param == "past"
    )
    return request.param


@pytest.fixture
def matrix(rng):
    return rng.normal(size=(600, 5)).astype(np.float32)


@pytest.fixture
def files(tmp_path, matrix):
    parts = []
    for k, rows in enumerate([slice(0, 250), slice(250, 600)]):
        (tmp_path / str(k)).write_bytes(matrix[rows].tobytes())
        parts.append(np.memmap(tmp_path / str(k), np.float32, "r").reshape(-1, 5))
    return parts


PIECES = [
    slice(0, 90),
    slice(90, 300),
    np.r_[500:600, 240:260],
    np.arange(599, 560, -1),
    slice(5, 6),
]


def blocks(values, then=lambda number, block: np.array(block)):
    lengths = [len(np.arange(600)[piece]) for piece in PIECES]
    return list(read_ahead(values, lengths, PIECES.__getitem__, then))


@pytest.mark.parametrize("working_memory", [0, 0.05, 1024])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Shards, lambda m: m),
        (lambda parts: Shards([Shards(parts)]), lambda m: m),
        (lambda parts: Mapped(Shards(parts), np.negative), lambda m: -m),
        (lambda parts: Mapped(Mapped(Shards(parts), np.negative), _total), lambda m: _total(-m)),
        (lambda parts: Shards([Mapped(part, np.square) for part in parts]), np.square),
        (lambda parts: Mapped(Shards(parts), np.asarray), lambda m: m),
    ],
    ids=["shards", "shards of shards", "mapped", "mapped twice", "shards of mapped", "unchanged"],
)
def test_pieces_are_those_of_the_matrix(files, matrix, way, kind, expected, working_memory):
    values = kind(files)
    with config_context(working_memory=working_memory):
        found = blocks(values)
        kept = blocks(values, lambda number, block: block)
    # Chunks of other lengths may sum in another order.
    for piece, one, other in zip(PIECES, found, kept, strict=True):
        np.testing.assert_allclose(one, expected(matrix)[piece], rtol=1e-6)
        # What was kept is not written over by what was read after it.
        np.testing.assert_array_equal(one, other)


def _total(rows):
    return rows.sum(axis=1, keepdims=True)


def test_bits_of_bfloat16_are_decoded_past_the_cache_as_well(tmp_path, way, rng):
    bits = rng.integers(0, 0x7F00, size=(600, 4), dtype=np.uint16)
    (tmp_path / "bits").write_bytes(bits.tobytes())
    stored = np.memmap(tmp_path / "bits", np.uint16, "r").reshape(-1, 4)
    values = Mapped(Shards([stored], bfloat16=True), np.negative)
    for piece, block in zip(PIECES, blocks(values), strict=True):
        np.testing.assert_array_equal(block, -Shards([bits], bfloat16=True)[piece])


def test_no_more_is_fetched_at_once_than_a_piece_of_memory(files, monkeypatch):
    """What is narrow when computed comes from rows that are wide, so they are cut."""
    fetched = []
    monkeypatch.setattr("skact.rows._reading.exceeds_memory", lambda n_bytes: True)
    load = sys.modules["skact.rows._reading"].load
    monkeypatch.setattr(
        "skact.rows._reading.load",
        lambda values, rows, read: (
            fetched.append(sum(r.stop - r.start for r in rows)) or load(values, rows, read)
        ),
    )
    values = Mapped(Shards(files), _total)
    with config_context(working_memory=1024):
        blocks(values)
    assert max(fetched) == 210
    fetched.clear()
    # 50 rows of 20 bytes in a 64th of the memory.
    with config_context(working_memory=50 * 20 / 2**14):
        blocks(values)
    assert max(fetched) <= 50
    assert sum(fetched) == 90 + 210 + 120 + 1


def test_functions_run_in_threads_under_the_configuration_of_the_caller(files, way):
    def where(number, block):
        return threading.get_ident(), get_config()["working_memory"]

    with config_context(working_memory=77):
        found = blocks(Shards(files), where)
        assert {memory for _, memory in found} == {77}
        assert threading.get_ident() not in {thread for thread, _ in found}
        assert {thread for thread, _ in blocks(np.zeros((600, 5)), where)} == {
            threading.get_ident()
        }


def test_an_error_in_a_function_reaches_the_reader(files, way):
    def broken(values):
        if len(values) > 1:
            raise RuntimeError("broken")
        return values

    with pytest.raises(RuntimeError, match="broken"):
        blocks(Mapped(Shards(files), broken))
    with pytest.raises(RuntimeError, match="broken"):
        blocks(Shards(files), lambda number, block: broken(block))
    before = threading.active_count()
    # A reader may stop early.
    some = read_ahead(Shards(files), [300, 300], [slice(0, 300), slice(300, 600)].__getitem__, len2)
    assert next(some) == (0, 300)
    some.close()
    assert threading.active_count() == before


def len2(number, block):
    return number, len(block)


def test_nothing_is_read_of_no_pieces(files, way):
    assert list(read_ahead(Shards(files), [], PIECES.__getitem__, len2)) == []


def test_half_of_the_working_memory_may_be_held():
    with config_context(working_memory=2):
        assert may_hold(2**20)
        assert not may_hold(2**20 + 1)


@pytest.mark.parametrize("n_most", [None, 1, 3])
@pytest.mark.parametrize("most", [0, 4, 10.5, 1000])
def test_runs_are_as_long_as_their_bounds_allow(rng, most, n_most):
    sizes = rng.integers(1, 9, size=50)
    found = runs(sizes, most, n_most)
    # Slowly: item by item, as long as there is room.
    expected, run = [], []
    for item, size in enumerate(sizes.tolist()):
        full = sum(sizes[run]) + size > most or len(run) == n_most
        if run and full:
            expected.append(run)
            run = []
        run.append(item)
    assert [list(range(50))[cut] for cut in found] == [*expected, run]
    assert runs([], most) == []


def test_single_rows_are_announced_past_the_cache_as_well(files, monkeypatch):
    announced = []
    monkeypatch.setattr("skact.rows._reading.exceeds_memory", lambda n_bytes: True)
    monkeypatch.setattr(
        "skact.rows._reading.expect_single_rows", lambda part, yes: announced.append(yes)
    )
    monkeypatch.setattr("skact.rows._reading._FAR", 1)
    rows = np.arange(0, 600, 5)
    (block,) = read_ahead(Shards(files), [len(rows)], lambda number: rows, lambda number, b: b)
    np.testing.assert_array_equal(block, np.concatenate(files)[rows])
    assert announced == [True, True, False, False]


def test_what_is_on_disk(files, matrix):
    assert on_disk(files[0])
    assert on_disk(Shards([matrix]))
    assert on_disk(Mapped(matrix, np.negative))
    assert not on_disk(matrix)
    np.testing.assert_array_equal(read(matrix, slice(3, 5)), matrix[3:5])
    assert np.shares_memory(read(files[0], slice(3, 5)), files[0])


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["plain", "shards", "mapped", "shuffled"])
def test_pages_that_were_read_are_let_go_of(tmp_path, kind, rng, way):
    path = tmp_path / "big"
    with open(path, "wb") as file:
        file.truncate(2**27)
    values = np.memmap(path, np.float16, "r", shape=(2**20, 64))
    tokens = TokenArray(Shards([values[: 2**19], values[2**19 :]]), np.arange(0, 2**20 + 1, 64))
    if kind == "plain":
        tokens = TokenArray(values, tokens.offsets)
    elif kind == "shuffled":
        tokens = tokens[rng.permutation(len(tokens))]

    def mapped():
        lines = Path("/proc/self/smaps").read_text().split("\n")
        start = next(k for k, line in enumerate(lines) if line.endswith(str(path)))
        return next(int(line.split()[1]) for line in lines[start:] if line.startswith("Rss"))

    with config_context(working_memory=64):
        if kind == "mapped":
            tokens = tokens.map(np.negative)
            assert isinstance(tokens.values, Mapped)
        most = max(mapped() for _ in tokens.blocks())
    # Pieces of half a MiB in float16, and what the kernel reads around single rows.
    assert most < 2**13 * (4 if kind == "shuffled" else 1)
    assert values[:].max() == 0
    assert mapped() > 2**16
    release(values, slice(None))
    assert mapped() < 2**13


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_single_rows_far_apart_are_fetched_alone(tmp_path, rng):
    path = tmp_path / "big"
    with open(path, "wb") as file:
        file.truncate(2**27)
    values = np.memmap(path, np.float16, "r", shape=(2**20, 64))

    def random():
        """Whether the system was told that it is read at random."""
        lines = Path("/proc/self/smaps").read_text().split("\n")
        start = next(k for k, line in enumerate(lines) if line.endswith(str(path)))
        flags = next(line for line in lines[start:] if line.startswith("VmFlags"))
        return "rr" in flags.split()

    seen = []
    watched = Mapped(Shards([values]), lambda rows: seen.append(random()) or rows)
    seen.clear()
    for numbers, expected in [
        (np.arange(0, 2**20, 2**12), True),
        (np.arange(0, 2**20, 2**7), False),
        (np.arange(5000, 9000), False),
        (np.array([], int), False),
    ]:
        assert len(read(watched, numbers)) == len(numbers)
        assert set(seen) == {expected}
        assert not random()
        seen.clear()
