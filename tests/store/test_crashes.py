"""What a store survives: dying writers, many writers at once, full disks, damaged files."""

import ast
import errno
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from skact.store import ActivationStore, _chunk, _claims, _fill, _shards
from tests.hostile import store_side_by_side
from tests.store.toy_store import check, fill, held, identities, identity, key, n_rows

fork = get_context("fork")


def start(target, *args):
    process = fork.Process(target=target, args=args)
    process.start()
    return process


def finished(processes):
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def test_a_hundred_killed_writers_leave_nothing_half_written(tmp_path):
    store = ActivationStore(tmp_path, chunk_size=4)
    chance, numbers = random.Random(0), list(range(4000))
    fill(store, numbers[:1], (0, 1))
    begin, writer = time.monotonic(), start(fill, store, numbers, (0, 1))
    while store.info()["samples"] < 17:
        time.sleep(0.001)
    patience = min(0.5, time.monotonic() - begin)  # a few chunks on this machine
    writer.kill()
    writer.join()
    before, n_litter = [], 0
    for wave in range(25):  # four at a time, as most of this is waiting
        writers = [start(fill, store, numbers, (0, 1)) for _ in range(4)]
        moments = sorted(chance.uniform(0, patience) for _ in writers)
        begin = time.monotonic()
        for writer, moment in zip(chance.sample(writers, 4), moments, strict=True):
            time.sleep(max(0, begin + moment - time.monotonic()))
            os.kill(writer.pid, signal.SIGKILL)
        for writer in writers:
            writer.join()
        there = held(store, numbers)
        assert held(store, numbers, block=1) == there
        assert set(before) <= set(there)  # what was committed once stays
        check(store, sorted(set(there) - set(before)), block=1)
        before = there
        if wave % 5 == 4:
            check(store, there)
            assert store.verify() == []
            known = sum(layer["shards"] for layer in store.info()["layers"])
            n_litter += len(os.listdir(tmp_path / "shards")) - known
            store.prune()
            assert len(os.listdir(tmp_path / "shards")) == known
    # The kills did hit writers at work, and many of them.
    assert 1 < len(there) < len(numbers)
    assert n_litter > 5
    log, last = [], numbers[: len(there) + 20]
    absent = len(last) - len(held(store, last))
    fill(store, last, (0, 1), log=log)
    assert len(log) == absent >= 20
    check(store, last, block=1)
    assert store.verify() == []


def count(store, numbers, path):
    log = []
    fill(store, numbers, (0, 1), log=log, pause=lambda: time.sleep(0.002))
    path.write_text(" ".join(str(n) for n, _ in log))


def test_eight_writers_of_overlapping_sets_do_no_work_twice(tmp_path):
    store = ActivationStore(tmp_path / "store", chunk_size=8)
    every = list(range(240))
    sets = [[n for n in every if n % 8 not in (i, i + 1)] for i in range(7)] + [every]
    finished([start(count, store, numbers, tmp_path / f"{i}") for i, numbers in enumerate(sets)])
    shares = [(tmp_path / f"{i}").read_text().split() for i in range(8)]
    assert sorted(int(n) for share in shares for n in share) == every
    assert sum(map(bool, shares)) > 1  # it was not one process that did it all
    assert store.verify() == []
    check(store, every, block=1)
    with store._index.reading() as connection:
        for table in ("claims", "owners"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_embedders_prunes_repairs_and_exports_side_by_side(tmp_path):
    done, errors = store_side_by_side.run(tmp_path / "store", seconds=4, n_processes=4)
    assert errors == []
    assert min(done[role] for role in ("embed", "prune", "repair", "export")) > 0


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_readers_beside_writers_see_whole_samples(tmp_path, journal):
    store = ActivationStore(tmp_path, chunk_size=2, journal=journal)
    writers = [start(fill, store, list(range(i, 90, 3))) for i in range(3)]
    numbers, seen = list(range(90)), 0
    while any(writer.is_alive() for writer in writers):
        there = held(store, numbers)
        check(store, there)
        assert len(there) >= seen
        seen = len(there)
    finished(writers)
    check(store, numbers)
    with store._index.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == (journal,)


def claim(store, numbers, *, beat=0.0, host=None, pid=None):
    """Leave the claims of a writer that does not go on."""
    owner = _claims.Owner(store._index)
    with owner.index.writing() as connection:
        connection.execute(
            "INSERT INTO owners VALUES (?, ?, ?, ?)",
            (owner.name, _claims._host(), os.getpid(), time.time()),
        )
    assert owner.claim([key(n) for n in numbers], identities(0)) == list(range(len(numbers)))
    with owner.index.writing() as connection:
        connection.execute(
            "UPDATE owners SET host = ?, pid = ?, beat = ?",
            (host or _claims._host(), pid or os.getpid(), time.time() + beat),
        )
    return owner


def gone():
    process = start(int)
    process.join()
    return process.pid


@pytest.mark.parametrize(
    "dead",
    [
        {"pid": "gone"},  # its process ended
        {"beat": -3600},  # silent, though some process has its number
        {"beat": -3600, "host": "elsewhere", "pid": 1},
        {"beat": +3600, "host": "elsewhere", "pid": 1},  # a clock that is wrong
    ],
)
def test_claims_of_the_dead_are_taken_over(tmp_path, dead):
    store = ActivationStore(tmp_path)
    if dead.get("pid") == "gone":
        dead = {"pid": gone()}
    claim(store, [1, 2, 3], **dead)
    assert fill(store, [1, 2, 3]).n_embedded == 3


def test_which_processes_run(monkeypatch):
    assert _claims._runs(os.getpid())
    assert not _claims._runs(gone())
    unburied = start(int)
    while unburied.exitcode is None and _claims._runs(unburied.pid):
        time.sleep(0.01)
    unburied.join()

    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert _claims._runs(1)  # somebody else's
    monkeypatch.setattr(os, "name", "nt")
    assert _claims._runs(2**22)  # cannot be asked; the silence decides


@pytest.mark.parametrize("living", [{}, {"host": "elsewhere", "pid": 2**22}])
def test_claims_of_the_living_are_waited_for(tmp_path, living, monkeypatch):
    store = ActivationStore(tmp_path)
    owner = claim(store, [1, 2], **living)
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 5:
            with owner.index.writing() as connection:
                connection.execute("DELETE FROM owners WHERE id = ?", (owner.name,))

    monkeypatch.setattr(_fill.time, "sleep", nap)
    assert fill(store, [1, 2, 3]) == _fill.Filled(3, 3)
    assert naps == sorted(naps)
    assert len(naps) == 5


def test_an_owner_beats_while_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(_claims, "_BEAT", 0.01)
    store = ActivationStore(tmp_path)

    def beat():
        with store._index.reading() as connection:
            return connection.execute("SELECT max(beat) FROM owners").fetchone()[0]

    with _claims.Owner(store._index) as owner:
        first, deadline = beat(), time.monotonic() + 20
        while beat() == first:
            assert time.monotonic() < deadline
        with store._index.writing() as connection:  # somebody takes it for dead
            connection.execute("UPDATE owners SET id = 'other'")
        assert owner.claim([key(1)], identities(0)) == []
    assert beat() > first


def test_an_owner_that_was_taken_for_dead_commits_nothing(tmp_path):
    store = ActivationStore(tmp_path, chunk_size=2)
    robbed = []

    def rob():
        # Another process takes this one for dead, and its files for litter.
        if not robbed:
            with store._index.writing() as connection:
                connection.execute("UPDATE owners SET beat = 0")
            robbed.append(store.prune())

    log = []
    filled = fill(store, list(range(6)), log=log, pause=rob)
    assert robbed
    assert {n for n, _ in log} == set(range(6))
    assert filled.n_embedded == len(log) > 6  # the chunk was done again
    check(store, list(range(6)))
    assert store.verify() == []


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, monkeypatch):
    store = ActivationStore(tmp_path, chunk_size=2)
    fill(store, [0, 1])
    reserve = os.posix_fallocate

    def full(descriptor, start, length):
        if len(os.listdir(tmp_path / "shards")) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        reserve(descriptor, start, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"no space left for 0 MiB.*Make room") as caught:
        fill(store, list(range(10)), (0, 1))
    assert caught.value.errno == errno.ENOSPC
    assert not list((tmp_path / "shards").glob("*.tmp"))
    assert store.verify() == []
    check(store, held(store, list(range(10))))
    assert set(held(store, [0, 1])) == {0, 1}
    monkeypatch.undo()
    fill(store, list(range(10)), (0, 1))
    check(store, list(range(10)), block=1)


def test_other_faults_of_the_disk_are_left_as_they_are(tmp_path, monkeypatch):
    def broken(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(OSError, match="Input/output error"):
        fill(ActivationStore(tmp_path), [1])
    assert os.listdir(tmp_path / "shards") == []


def test_space_is_taken_where_it_cannot_be_reserved(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    store = ActivationStore(tmp_path)
    fill(store, [1, 2, 3])
    check(store, [1, 2, 3])


def test_a_full_disk_that_shows_on_writing_only(tmp_path):
    finished([start(write_beyond_the_limit, tmp_path)])
    assert "no space left for 1 MiB" in (tmp_path / "said").read_text()
    assert os.listdir(tmp_path) == ["said"]


def sink_for_one(folder, n_rows):
    layers, worker = identities(0), _chunk.Worker()
    return _chunk.ChunkSink(
        folder, "abc-0", "float32", layers, [key(0)], [n_rows], 4, None, None, worker
    )


def write_beyond_the_limit(folder):
    del os.posix_fallocate
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19))
    sink = sink_for_one(folder, n_rows=2**16)
    sink.reserve()
    sink.room(np.array([0]))[0][0][:] = 1
    sink.keep(np.array([0]))
    try:
        sink.writing.wait()
    except OSError as error:
        sink.discard()
        (folder / "said").write_text(str(error))


def over_the_limit(store, folder):
    """Files of this process may not grow, which is how a quota looks."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
    sink = sink_for_one(store.path / "shards", n_rows=2**15)
    for name, use in (
        ("shard", sink.reserve),
        ("index", lambda: fill(store, list(range(2**13)))),
    ):
        try:
            use()
        except OSError as error:
            (folder / name).write_text(str(error))
    sink.discard()


def test_a_real_limit_on_the_size_of_files(tmp_path):
    store = ActivationStore(tmp_path / "store", chunk_size=2**17)
    fill(store, [5])
    finished([start(over_the_limit, store, tmp_path)])
    assert "no space left for 1 MiB" in (tmp_path / "shard").read_text()
    assert "the index of the store cannot be" in (tmp_path / "index").read_text()
    assert store.verify() == []
    check(store, [5])
    # Of what filled the index, the first few samples were committed.
    assert len(os.listdir(tmp_path / "store" / "shards")) == 2


def test_a_full_disk_under_the_index(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, [1])

    def grow():
        with store._index.writing() as connection:
            connection.execute("PRAGMA max_page_count = 1")
            connection.execute("CREATE TABLE large AS SELECT zeroblob(1000000)")

    with pytest.raises(OSError, match="no space left for the index") as caught:
        grow()
    assert caught.value.errno == errno.ENOSPC
    check(store, [1])


ON_A_FULL_DISK = """
import os, sys
from skact.store import ActivationStore
from tests.store.toy_store import check, fill, held
folder, journal = sys.argv[1:]
store, numbers = ActivationStore(folder + "/store", chunk_size=5, journal=journal), list(range(40))
fill(store, numbers, (0, 1))
if journal == "wal":
    if not os.fork():  # leaves its log behind
        with store._index.writing() as connection:
            connection.execute("UPDATE shards SET created = created")
            connection.execute("COMMIT")
            os._exit(0)
    os.wait()
with open(folder + "/else", "wb", 0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
for block in (0, 1):
    check(ActivationStore(store.path), numbers, block)
print(store.info()["samples"], store.verify())
try:
    fill(store, [77])
except OSError as error:
    print(error.strerror.split(" for ")[0])
print(store.prune(layer=0) > 0, held(store, numbers), store.verify())
check(store, numbers, 1)
print(store.prune(max_bytes=0) > 0, store.info()["samples"])
fill(store, numbers[:20], (0, 1))
check(store, numbers[:20])
"""


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_disk_that_is_full_is_read_and_pruned(tmp_path, journal):
    mount = f"mount -t tmpfs -o size=1m none {tmp_path}"
    if not shutil.which("unshare") or run_as_root_of_itself(mount).returncode:
        pytest.skip("no file system of its own can be mounted here")
    ran = run_as_root_of_itself(f'{mount} && {sys.executable} -c "$0" {tmp_path} {journal}')
    assert ran.returncode == 0, ran.stderr
    expected = ["40 []", "no space left", "True [] []", "True 0"]
    assert ran.stdout.splitlines() == expected


def run_as_root_of_itself(command):
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, ON_A_FULL_DISK],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_a_kept_traceback_holds_no_lock(tmp_path):
    store, kept = ActivationStore(tmp_path, journal="delete"), []
    fill(store, list(range(20)))
    for begin in (store._index.reading, store._index.writing):
        try:
            with begin() as connection:
                rows = connection.execute("SELECT * FROM entries")
                rows.fetchone()
                raise RuntimeError("somebody keeps this")
        except RuntimeError as error:
            kept.append(error)
    monitor = sqlite3.connect(tmp_path / "index.sqlite", timeout=0, isolation_level=None)
    monitor.execute("BEGIN EXCLUSIVE")  # needs that nobody reads or writes
    monitor.execute("ROLLBACK")
    monitor.close()
    assert store.prune(layer=0) > 0
    assert len(kept) == 2


@pytest.mark.parametrize(
    "code", ["BUSY", "READONLY", "CORRUPT", "FULL", "IOERR", "ERROR", "MISMATCH", "CONSTRAINT"]
)
def test_no_error_of_sqlite_reaches_anybody(tmp_path, code):
    store = ActivationStore(tmp_path)
    fill(store, [1])
    raw = sqlite3.OperationalError("what SQLite says")
    raw.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")
    with pytest.raises((OSError, ValueError), match="index") as caught, store._index.reading():
        raise raw
    assert caught.value.__cause__ is raw
    assert str(tmp_path) in str(caught.value)


def damage(path, place, value=None):
    content = bytearray(path.read_bytes())
    content[place] ^= 255 if value is None else value
    path.write_bytes(bytes(content))


def shard(tmp_path):
    (path,) = (tmp_path / "shards").iterdir()
    return path


def test_a_flipped_byte_is_found_and_repaired(tmp_path):
    store, numbers = ActivationStore(tmp_path), list(range(10))
    fill(store, numbers)
    damage(shard(tmp_path), 4096 + sum(n_rows(n) for n in range(4)) * 16 + 3)
    problem = f"'{shard(tmp_path)}' is damaged in 1 of 10 samples"
    assert store.verify() == [problem]
    assert held(store, numbers) == numbers  # verify alone changes nothing
    assert store.verify(repair=True) == [problem]
    assert held(store, numbers) == [n for n in numbers if n != 4]
    assert store.verify() == []
    assert fill(store, numbers).n_embedded == 1
    check(store, numbers)


@pytest.mark.parametrize("what", ["truncated", "longer", "missing"])
def test_a_shard_of_the_wrong_length_is_never_read(tmp_path, what):
    store, numbers = ActivationStore(tmp_path), list(range(10))
    fill(store, numbers)
    path = shard(tmp_path)
    size = path.stat().st_size
    if what == "missing":
        path.unlink()
        message = f"the shard '{path}' is missing.*repair=True"
    else:
        new = size - 16 if what == "truncated" else size + 1
        os.truncate(path, new)
        message = f"the shard '{path}' has {new} bytes instead of {size}.*repair=True"
    for reader in (store, ActivationStore(tmp_path)):
        with pytest.raises(OSError, match=message):
            check(reader, numbers)
    assert len(store.verify(repair=True)) == 1
    assert held(store, numbers) == []
    assert not path.exists()
    fill(store, numbers)
    check(store, numbers)


def test_an_entry_that_points_at_another_sample_is_found(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, [0, 3])  # of equal length
    with store._index.writing() as connection:
        connection.execute("UPDATE entries SET slot = 1 - slot")
    problem = f"'{shard(tmp_path)}' is damaged in 2 of 2 samples"
    assert store.verify(repair=True) == [problem]
    with store._index.writing() as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)


def test_what_is_pruned_meanwhile_is_not_damaged(tmp_path, monkeypatch):
    store = ActivationStore(tmp_path)
    fill(store, [0, 3])
    problem, pruned = _shards.ShardFolder.problem, []

    def prune_first(self, row):
        if not pruned:
            pruned.append(store.prune(layer=0))
        return problem(self, row)

    monkeypatch.setattr(_shards.ShardFolder, "problem", prune_first)
    assert store.verify(repair=True) == []
    assert pruned[0] > 0


def test_an_entry_beyond_its_shard_is_found(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, [0, 3])
    with store._index.writing() as connection:
        connection.execute("UPDATE entries SET slot = 7 WHERE slot = 1")
    assert len(store.verify()) == 1


def test_a_damaged_index_is_named(tmp_path):
    store = ActivationStore(tmp_path)
    fill(store, list(range(200)))
    path = tmp_path / "index.sqlite"
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content) - 4096, 4096):
        content[page : page + 8] = b"\xff" * 8
    path.write_bytes(content)
    try:
        problems = store.verify()
    except ValueError as error:
        problems = [str(error)]
    assert "index.sqlite" in problems[0]
    assert "damaged" in problems[0]


INDEXES = [
    ("PRAGMA user_version = 99", "index of format 99; .* reads format 4. Update skact"),
    ("PRAGMA application_id = 5", "no index of an ActivationStore"),
]


@pytest.mark.parametrize(("change", "message"), INDEXES)
def test_an_index_of_another_kind_is_refused(tmp_path, change, message):
    store = ActivationStore(tmp_path)
    fill(store, [1])
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("ALTER TABLE entries ADD COLUMN more")
        connection.execute(change)
    connection.close()
    uses = (lambda: fill(store, [1]), store.info, lambda: store.verify(repair=True), store.prune)
    for use in uses:
        with pytest.raises(ValueError, match=message):
            use()


def test_a_file_that_is_no_index_is_refused(tmp_path):
    path = tmp_path / "index.sqlite"
    path.write_text("This is no database, " * 100)
    with pytest.raises(ValueError, match="is damaged: file is not a database"):
        ActivationStore(tmp_path).info()
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    with pytest.raises(ValueError, match="no index of an ActivationStore"):
        fill(ActivationStore(tmp_path), [1])


def test_an_index_whose_maker_died_at_once_is_made_again(tmp_path):
    (tmp_path / "index.sqlite").touch()
    store = ActivationStore(tmp_path)
    assert store.info()["layers"] == []
    fill(store, [1])
    check(store, [1])


def as_nobody(store, path):
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    said = [len(held(store, list(range(6))))]
    check(store, [0, 1, 2])
    said.append(len(store.info()["layers"]))
    said.append(store.verify())
    try:
        fill(store, list(range(6)), pause=lambda: said.append("a model ran"))
    except PermissionError as error:
        said.append(error.strerror)
    path.write_text(repr(said))


@pytest.fixture
def in_the_open(tmp_path_factory):
    """A folder that every user can reach."""
    import tempfile

    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("writing", [False, True])
def test_a_read_only_folder_is_read_and_not_written(in_the_open, tmp_path, writing):
    store = ActivationStore(in_the_open)
    fill(store, [0, 1, 2])
    (tmp_path / "said").touch()
    os.chmod(tmp_path / "said", 0o666)
    parent = tmp_path
    while parent != parent.parent and parent.stat().st_mode & 1 == 0:
        os.chmod(parent, 0o755)
        parent = parent.parent
    if writing:  # the log of a writer that lives lies beside the index
        with _claims.Owner(store._index), store._index.reading() as connection:
            connection.execute("SELECT count(*) FROM owners").fetchone()
            finished([start(as_nobody, store, tmp_path / "said")])
    else:
        finished([start(as_nobody, store, tmp_path / "said")])
    said = (tmp_path / "said").read_text()
    assert said.startswith("[3, 1, [], 'the store is read-only here")


def read_as_nobody(store, path, seconds):
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    n_read, refused, deadline = 0, [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            there = held(store, list(range(40)))
            tokens = store.read([key(n) for n in there], identity(0)) if there else None
            if tokens is not None:  # not pruned meanwhile
                store_side_by_side.compare(there, 0, tokens)
                n_read += len(there)
        except (OSError, ValueError) as error:
            refused.append(str(error))
    path.write_text(repr((n_read, [said for said in refused if "index" not in said])))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_reader_that_cannot_write_beside_writers(in_the_open, journal):
    store = ActivationStore(f"{in_the_open}/s", chunk_size=4, journal=journal)
    fill(store, list(range(20)))
    said = Path(in_the_open) / "said"
    said.touch()
    said.chmod(0o666)
    reader = start(read_as_nobody, store, said, 1.5)
    while reader.is_alive():
        fill(store, list(range(40)))
        store.prune(max_bytes=30000)
    finished([reader])
    n_read, strange = ast.literal_eval(said.read_text())
    assert n_read > 40
    assert strange == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    store = ActivationStore(tmp_path / "file" / "store")
    with pytest.raises(OSError, match="the folder of the store cannot be made"):
        fill(store, [1])


def test_a_writer_in_a_read_only_folder_that_died(tmp_path, monkeypatch):
    store = ActivationStore(tmp_path)
    fill(store, [1])
    (tmp_path / "index.sqlite-wal").write_bytes(b"x" * 100)
    monkeypatch.setattr("skact.store._index.is_writable", lambda folder: False)
    monkeypatch.setattr(
        store._index,
        "_connect",
        lambda mode: sqlite3.connect(f"file:{tmp_path}/no?mode=ro", uri=True),
    )
    with pytest.raises(OSError, match="open the store once where it can be written"):
        store.info()


def hold(store, seconds, path):
    with store._index.writing() as connection:
        connection.execute("UPDATE shards SET created = created")
        path.touch()
        time.sleep(seconds)


def test_the_lock_of_another_process_is_waited_for(tmp_path):
    store = ActivationStore(tmp_path / "store")
    fill(store, [1])
    other = start(hold, store, 0.5, tmp_path / "held")
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    assert held(store, [1]) == [1]  # readers need not wait
    assert other.is_alive()
    begin = time.monotonic()
    fill(store, [2])
    assert time.monotonic() - begin > 0.1
    finished([other])
    check(store, [1, 2])


def test_a_fork_waits_for_the_transactions_of_other_threads(tmp_path):
    store = ActivationStore(tmp_path / "store")
    fill(store, [1])
    thread = threading.Thread(target=hold, args=(store, 0.3, tmp_path / "held"))
    thread.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    # A child that was forked in the midst of it would wait for ever.
    finished([start(fill, store, [2])])
    thread.join()
    check(store, [1, 2])
