"""Who does the work does not change what is found, nor what a journal holds."""

import pytest
from joblib import Parallel, delayed
from joblib.parallel import get_active_backend

from skact.cli import _parser, main
from skact.protocol import read_configuration, run
from skact.protocol._backends import BACKENDS, workers
from skact.protocol._journal import Journal
from skact.warning import warn

CONFIG = """
resamples = 5
[[setup]]
name = "solids"
data = "shapes"
model = "shapes"
n_samples = 40
layers = [5]
methods = ["MeanPrototype", "DifferenceInMeans"]
detectors = ["SuperActivator"]
[setup.analyses]
names = ["separability"]
fewest = 2
"""
NAMES = ["MeanPrototype", "DifferenceInMeans", "analyses"]
# Embedding, four cells, one analysis.
N_STEPS = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def tables(folder):
    kinds = (".md", ".json", ".csv")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in kinds}


@pytest.fixture(scope="module")
def alone(config):
    """What one process finds."""
    run(read_configuration(config), config.parent / "alone")
    return tables(config.parent / "alone")


@pytest.fixture
def client():
    """Threads of dask."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.Client(processes=False, **options) as own:
        yield own


def check(config, folder, alone, backend):
    run(read_configuration(config), folder, n_jobs=2, backend=backend)
    assert tables(folder) == alone
    assert len(alone) > 3
    lines = (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + N_STEPS
    assert len(Journal(folder).done()) == N_STEPS
    assert all(Journal(folder).result(step) for step in Journal(folder).done())


@pytest.mark.parametrize("backend", ["loky", pytest.param("threading", marks=pytest.mark.nightly)])
def test_several_workers_end_as_one(config, tmp_path, alone, backend):
    check(config, tmp_path / "out", alone, backend)


@pytest.mark.nightly
def test_a_client_of_dask_that_is_there_does_the_work(config, tmp_path, alone, client):
    before = client.scheduler.address
    check(config, tmp_path / "out", alone, "dask")
    assert client.status == "running"
    assert client.scheduler.address == before


@pytest.mark.nightly
@pytest.mark.parametrize(("backend", "library"), [("dask", "distributed"), ("ray", "ray")])
def test_processes_of_others_end_as_one(config, tmp_path, alone, backend, library):
    pytest.importorskip(library)
    check(config, tmp_path / "out", alone, backend)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_what_several_cells_warn_of_is_said_once(config, tmp_path, monkeypatch, n_jobs, capsys):
    from skact.protocol import _steps

    def fill(unit, left, configuration, folder):
        for name in left:
            warn(f"the {unit.setup.name} are small")
            warn(f"{unit.name} is smaller", RuntimeWarning)
            yield name, {}

    made = dict.fromkeys(_steps._FILL, fill)
    monkeypatch.setattr(_steps, "_FILL", made)
    monkeypatch.setattr("skact.protocol._run.write_results", lambda *_: [])
    monkeypatch.setattr("skact.protocol._run.write_report", lambda *_: [])
    words = ["paper", str(config), "--out", str(tmp_path / "out"), "--jobs", str(n_jobs)]
    assert main([*words, "--backend", "threading"]) == 0
    expected = ["the solids are small", *(f"{name} is smaller" for name in NAMES)]
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines) == sorted(f"skact paper: warning: {text}" for text in expected)


def test_the_backend_is_left_behind():
    before = type(get_active_backend()[0])
    with workers("threading", 2):
        assert "Threading" in type(get_active_backend()[0]).__name__
        assert Parallel(n_jobs=2)(delayed(abs)(i) for i in (-1, 2)) == [1, 2]
    assert type(get_active_backend()[0]) is before
    with workers(None, 2):
        assert type(get_active_backend()[0]) is before


def test_the_command_hands_it_on(config, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("skact.protocol.run", lambda *a, **options: asked.append(options) or [])
    words = ["paper", str(config), "--out", str(tmp_path), "--jobs", "3", "--backend"]
    assert main([*words, "loky"]) == 0, capsys.readouterr()
    assert (asked[0]["backend"], asked[0]["n_jobs"]) == ("loky", 3)
    for backend in BACKENDS:
        assert _parser().parse_args([*words, backend]).backend == backend
    with pytest.raises(SystemExit):
        main([*words, "lokys"])
    assert "invalid choice: 'lokys'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="'backend'"):
        run(read_configuration(config), tmp_path / "out", backend="lokys")
    assert not (tmp_path / "out").exists()
