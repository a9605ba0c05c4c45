"""What is said before a run, against the run: exact where it counts, a line where it is time."""

import numpy as np
import pytest

from skact.cli import main
from skact.protocol import _data, _dry_run, dry_run, forecast_table, read_configuration
from skact.protocol._data import read_data
from skact.store import ActivationStore
from tests.tiny_models import save_pair, text_pair

CONFIG = """
resamples = 5
[[setup]]
name = "solids"
data = "shapes"
model = "shapes"
n_samples = 90
layers = [3, 5]
methods = ["MeanPrototype"]
detectors = ["SuperActivator"]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_passes_and_bytes_are_those_of_the_run(config, tmp_path, monkeypatch):
    # GPT-2 has no class token, and the mean takes no pass; of one that has, see test_beside.
    model = save_pair(text_pair("gpt2"), tmp_path / "model")
    lines = CONFIG.replace('data = "shapes"', 'data = "paragraphs"').replace("[3, 5]", "[0, 1]")
    lines = lines.replace("90", "300")  # so that each split has each concept
    config.write_text(lines.replace('"shapes"', f'"{model}"'), encoding="utf-8")
    made = read_configuration(config)
    (said,) = dry_run(made)
    real, passes = _data.embed_to_store, []

    def counted(*given, **options):
        done = real(*given, **options)
        passes.append(done.n_embedded)
        return done

    monkeypatch.setattr(_data, "embed_to_store", counted)
    store = tmp_path / "store"
    _data.embed(made.setup[0], read_data(made.setup[0], 0), store, 1)
    info = ActivationStore(store).info()
    assert said.n_bytes == info["bytes"]
    assert said.passes == sum(passes) == said.samples
    assert said.samples == info["samples"] >= 90
    assert said.tokens == info["layers"][0]["tokens"]
    assert said.embedding_hours > 0
    assert said.cells_hours > 0


def test_the_command_says_it_and_writes_nothing(config, tmp_path, monkeypatch, capsys):
    more = 40, 2000, 0.125, float("nan"), 0.5
    one = _dry_run.Forecast("solids", 90, 5760, 180, 2_500_000, 0.25, 1.5, 120, *more)
    asked = []
    monkeypatch.setattr("skact.protocol.dry_run", lambda c, n_jobs: asked.append(n_jobs) or [one])
    out = tmp_path / "out"
    assert main(["paper", str(config), "--out", str(out), "--dry-run", "--jobs", "2"]) == 0
    said = capsys.readouterr().out
    assert said == forecast_table([one])
    assert said.splitlines()[2:] == [
        "| solids | 90 | 5,760 | 180 | 40 | 2,000 | 0.0025 | 0.25 | 1.5 | 0.125 | - | 0.5 | "
        "120 samples |",
        "| all |  |  | 180 | 40 | 2,000 | 0.0025 | 0.25 | 1.5 | 0.125 | - | 0.5 |  |",
    ]
    assert asked == [2]
    assert not out.exists()


def test_bad_data_are_named_before_anything_runs(config, tmp_path, capsys):
    config.write_text(CONFIG.replace('data = "shapes"', 'data = "nowhere"'), encoding="utf-8")
    assert main(["paper", str(config), "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(("n_samples", "n_rows"), [(90, 90), (300, 120), (700, 175), (3000, 400)])
def test_every_concept_has_samples_of_both_kinds(n_samples, n_rows):
    rng = np.random.default_rng(0)
    target = rng.random((n_samples, 3)) < [0.5, 0.1, 0.9]
    split = rng.permutation(np.resize(["train", "train", "train", "cal", "test"], n_samples))
    data = _dry_run.Bunch(data=np.arange(n_samples), target=target, split=split)
    rows = _dry_run.calibration_rows(data, 0)
    n_needed = _dry_run._n_needed(data)
    assert len(rows) == len(np.unique(rows)) == max(n_rows, min(n_samples, 2 * n_needed))
    first = rows[:n_needed]
    assert (split[first] == "train").sum() >= min((split == "train").sum(), 50)
    for name, least in (("train", 5), ("cal", 2), ("test", 2)):
        for truth, found in ((target, target[first]), (~target, ~target[first])):
            wanted = np.minimum(truth[split == name].sum(axis=0), least)
            assert (found[split[first] == name].sum(axis=0) >= wanted).all()


def test_time_goes_on_along_a_line():
    assert _dry_run.extrapolate([100, 300], [3.0, 5.0], 1000) == pytest.approx(12.0)
    assert _dry_run.extrapolate([300], [6.0], 900) == pytest.approx(18.0)
    # The smaller one took longer by chance, or nearly nothing.
    assert _dry_run.extrapolate([100, 300], [6.0, 5.0], 1000) == 5.0
    assert _dry_run.extrapolate([100, 300], [0.0, 6.0], 900) == pytest.approx(18.0)
