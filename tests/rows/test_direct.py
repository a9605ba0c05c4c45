import errno
import mmap
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skact.rows import FileRows
from skact.rows._direct import DirectReader, _memory_held, _memory_left, exceeds_memory
from skact.rows._files import mapping, shows_file

DIRECT = getattr(os, "O_DIRECT", 0)


@pytest.fixture
def direct(tmp_path):
    """A folder whose files can be read past the cache."""
    path = tmp_path / "probe"
    path.write_bytes(bytes(4096))
    try:
        os.close(os.open(path, os.O_RDONLY | DIRECT))
    except OSError:
        pytest.skip("the file system reads through the cache only")
    if not DIRECT:
        pytest.skip("the system reads through the cache only")
    return tmp_path


def stored(path, values, header=0):
    path.write_bytes(bytes(header) + values.tobytes())
    return FileRows(path, values.dtype, values.shape, header)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    dtype=st.sampled_from(["f2", "f4", "f8", "u2", "?"]),
    width=st.integers(1, 700),
    header=st.integers(0, 5000).map(lambda n: n // 8 * 8),
    cuts=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=6),
)
def test_rows_read_past_the_cache_are_those_of_the_mapping(direct, dtype, width, header, cuts):
    raw = np.random.default_rng(0).integers(0, 2, size=(60, width))
    values = stored(direct / "rows", raw.astype(dtype), header)
    reader = DirectReader()
    for _ in range(2):
        with reader:
            parts = [slice(min(cut), max(cut)) for cut in cuts]
            read = [reader.read(values, part) for part in parts]
        for part, found in zip(parts, read, strict=True):
            assert found.dtype == values.dtype
            assert found.flags.c_contiguous
            np.testing.assert_array_equal(found, values[part])
            assert not shows_file(found)
    assert not reader.incomplete


def test_memory_is_used_again_unless_it_was_given_away(direct, rng):
    values = stored(direct / "rows", rng.normal(size=(4000, 16)))
    reader = DirectReader()
    with reader:
        first = reader.read(values, slice(0, 3000))
    with reader:
        second = reader.read(values, slice(1000, 4000))
    assert np.shares_memory(first, second)
    reader.give(second[5:7])
    with reader:
        third = reader.read(values, slice(0, 3000))
    assert not np.shares_memory(second, third)
    np.testing.assert_array_equal(second, values[1000:])
    reader.give(np.zeros(3))
    with reader:
        assert np.shares_memory(third, reader.read(values, slice(0, 100)))


def test_what_is_no_file_of_ours_is_left_to_the_mapping(direct, rng):
    content = rng.normal(size=(50, 4)).astype(np.float32)
    others = {
        "array": content,
        "changed": np.memmap(direct / "a", np.float32, "w+", shape=(50, 4)),
        "copied on write": None,
        "mapped elsewhere": None,
        "not side by side": stored(direct / "b", np.repeat(content, 2, axis=1))[:, ::2],
        "removed": stored(direct / "c", content),
        "replaced": stored(direct / "d", content),
    }
    others["changed"][:] = content
    others["copied on write"] = np.memmap(direct / "a", np.float32, "c", shape=(50, 4))
    others["mapped elsewhere"] = FileRows.of(np.memmap(direct / "a", np.float32, "r", 0, (50, 4)))
    (direct / "c").unlink()
    (direct / "other").write_bytes((-content).tobytes())
    os.replace(direct / "other", direct / "d")
    for name, values in others.items():
        with DirectReader() as reader:
            found = reader.read(values, slice(3, 9))
            assert np.shares_memory(found, values), name
            np.testing.assert_array_equal(found, content[3:9])
        assert reader.incomplete == (mapping(values) is not None), name
    # The name leads to other numbers by now.
    assert np.fromfile(direct / "d", np.float32)[0] == -content[0, 0]


def test_a_file_system_that_refuses_is_read_through_the_cache(direct, rng, monkeypatch):
    values = stored(direct / "rows", rng.normal(size=(50, 4)))

    def refuse(*args):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "preadv", refuse)
    with DirectReader() as reader:
        assert np.shares_memory(reader.read(values, slice(0, 50)), values)
    assert reader.incomplete


def test_a_broken_disk_is_an_error(direct, rng, monkeypatch):
    values = stored(direct / "rows", rng.normal(size=(50, 4)))

    def fail(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match="Input/output error"), DirectReader() as reader:
        reader.read(values, slice(0, 50))


def test_a_file_that_became_shorter_is_an_error(direct, rng):
    values = stored(direct / "rows", rng.normal(size=(2000, 4)))
    os.truncate(direct / "rows", 2000 * 32 - 8)
    with DirectReader() as reader:
        assert len(reader.read(values, slice(0, 1999))) == 1999
        with pytest.raises(OSError, match="rows' ends before byte 64000, it was cut off"):
            reader.read(values, slice(0, 2000))


def test_files_are_closed(direct, rng):
    values = stored(direct / "rows", rng.normal(size=(50, 4)))
    before = len(os.listdir("/proc/self/fd"))
    reader = DirectReader()
    with reader:
        reader.read(values, slice(0, 50))
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not DIRECT, reason="read on Linux")
@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("4:memory:/jobs/one\n2:cpu:/", {"memory/jobs/one/memory.limit_in_bytes": "500"}, 500),
        ("4:memory:/jobs/one", {"memory/jobs/memory.limit_in_bytes": "400"}, 400),
        ("4:memory:/jobs/one", {"memory/memory.limit_in_bytes": "300"}, 300),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "300"}, 300),
        ("0::/jobs/one", {"jobs/one/memory.max": "200", "jobs/memory.max": "max"}, 200),
        ("0::/jobs/one", {"jobs/one/memory.max": "200", "jobs/memory.max": "100"}, 100),
        ("0::/gone", {"memory.max": "100"}, 100),
        ("0::/jobs", {"jobs/memory.max": "max"}, None),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("2:cpu:/", {"cpu/memory.max": "100"}, None),
        (None, {}, None),
    ],
)
def test_the_memory_of_a_control_group_is_a_limit(tmp_path, own, limits, expected, monkeypatch):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   2 kB\n")
    monkeypatch.setattr("skact.rows._direct._memory_held", lambda: 50)
    if own is not None:
        (tmp_path / "proc" / "self" / "cgroup").write_text(own + "\n")
    for name, limit in limits.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(limit + "\n")
    assert _memory_left(tmp_path) == (2048 if expected is None else expected - 50)


@pytest.mark.skipif(not DIRECT, reason="asked on Linux")
def test_files_exceed_the_memory_if_they_are_larger_than_what_is_left(monkeypatch):
    assert not exceeds_memory(2**20)
    assert exceeds_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    monkeypatch.setattr("skact.rows._direct._memory_left", lambda: 1000)
    assert [exceeds_memory(n) for n in (0, 1000, 1001)] == [False, False, True]
    monkeypatch.setattr("skact.rows._direct.DIRECT", 0)
    assert not exceeds_memory(1001)


@pytest.mark.skipif(not DIRECT, reason="asked on Linux")
def test_what_is_held_does_not_count_files(direct):
    before = _memory_held()
    values = stored(direct / "rows", np.zeros(2**25, np.uint8))
    assert values.max() == 0
    assert _memory_held() - before < 2**23
    # Memory that no array had before.
    with mmap.mmap(-1, 2**25, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as own:
        own.write(bytes(range(256)) * 2**17)
        assert _memory_held() - before > 2**24
