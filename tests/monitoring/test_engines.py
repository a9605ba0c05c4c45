"""Engines of batches call a monitor as it is, and get what a plain loop gets."""

import os
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from skact import (
    DifferenceInMeans,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    Monitor,
    NormClip,
    PCAConcepts,
    SemiNMFConcepts,
    SuperActivator,
    TokenArray,
    TokenScaler,
    TopWindows,
)
from tests.fresh import printed_by

N = 30


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    shift = np.c_[np.arange(N) % 2, np.arange(N) // 2 % 2] @ np.eye(6)[:2]
    lengths = rng.integers(1, 9, size=N)
    return [
        (rng.normal(size=(n, 6)) + s).astype(np.float32)
        for n, s in zip(lengths, shift, strict=True)
    ]


def fit(samples, *steps):
    y = np.c_[np.arange(N) % 2, np.arange(N) // 2 % 2]
    return make_pipeline(*steps).fit(TokenArray.from_list(samples), y)


@pytest.fixture(scope="module")
def monitor(samples):
    detector = TopWindows(None, window=2, share=0.5, cut="f1")
    return Monitor(fit(samples, TokenScaler(), LinearSeparator(), detector))


@pytest.fixture(scope="module")
def expected(monitor, samples):
    """What a plain loop over samples says."""
    return np.concatenate([monitor({"activations": [s]})["decision"] for s in samples])


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="ray is in the extra 'engines'")
    pytest.importorskip("ray.data", reason="ray is in the extra 'engines'")
    import logging

    before = os.environ.copy()
    # Local, quiet, and nothing sent anywhere.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(num_cpus=1, object_store_memory=2**27, **options)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    yield ray
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.nightly
def test_ray_data_maps_batches_also_of_none(ray, monitor, samples, expected):
    rows = ray.data.from_items([{"id": i, "activations": s} for i, s in enumerate(samples)])
    for size, blocks, form in ((1, 3, "numpy"), (None, 1, "numpy"), (4, 2, "pandas")):
        cut = rows.repartition(blocks).map_batches(monitor, batch_size=size, batch_format=form)
        made = sorted(cut.take_all(), key=lambda row: row["id"])
        assert [row["id"] for row in made] == list(range(N))
        assert "activations" not in made[0]
        if form == "pandas":
            decision = [[row[f"decision_concept{c}"] for c in range(2)] for row in made]
        else:
            decision = [row["decision"] for row in made]
            assert [row["present"].tolist() for row in made] == (expected > 0).tolist()
        np.testing.assert_array_equal(decision, expected)
    nothing = rows.filter(lambda row: False).map_batches(monitor)
    assert nothing.count() == 0


def test_ray_data_in_arrow_is_refused_with_a_way_out(monitor):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is in the extra 'engines'")
    table = arrow.table({"activations": [[[0.0] * 6]]})
    with pytest.raises(TypeError, match=r"mapping .* or a DataFrame; got Table.*batch_format"):
        monitor(table)


@pytest.mark.parametrize("form", [None, "numpy", "pandas"])
def test_datasets_map_in_batches(monitor, samples, expected, form):
    datasets = pytest.importorskip("datasets", reason="datasets is in the extra 'engines'")
    rows = {"id": list(range(N)), "activations": [s.tolist() for s in samples]}
    data = datasets.Dataset.from_dict(rows).with_format(form)
    for size in (1, 7, N):
        made = data.map(monitor, batched=True, batch_size=size, remove_columns=["activations"])
        made = made.with_format(None)[:]
        assert made["id"] == rows["id"]
        if form == "pandas":
            decision = np.c_[made["decision_concept0"], made["decision_concept1"]]
        else:
            decision = made["decision"]
            np.testing.assert_array_equal(made["present"], expected > 0)
        np.testing.assert_array_equal(decision, expected)
    assert len(data.select([]).map(monitor, batched=True)) == 0


def test_frames_in_pieces(monitor, samples, expected):
    frame = pd.DataFrame({"id": range(N), "activations": samples}, index=np.arange(N) * 3)
    for size in (1, 7, N):
        parts = [monitor(frame[i : i + size]) for i in range(0, N, size)]
        made = pd.concat(parts)
        assert made.index.equals(frame.index)
        np.testing.assert_array_equal(
            made[["decision_concept0", "decision_concept1"]].to_numpy(), expected
        )
    assert monitor(frame[:0]).columns.equals(made.columns)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "steps",
    [
        (TokenScaler(), LinearSeparator(), MaxToken(0.5)),
        (NormClip(5), MeanPrototype(), SuperActivator(0.5)),
        (PCAConcepts(3), TopWindows(None, window=2, share=0.5, cut="f1")),
        (SemiNMFConcepts(3, max_iter=5), MaxToken(0.5)),
    ],
    ids=lambda steps: type(steps[-2]).__name__,
)
def test_a_monitor_travels_to_other_processes(samples, steps):
    monitor = Monitor(fit(samples, *steps))
    packed = pickle.dumps(monitor)
    assert len(packed) < 20_000
    batch = {"activations": samples}
    there = pickle.loads(packed)(batch)["decision"]
    np.testing.assert_array_equal(there, monitor(batch)["decision"])


def test_it_answers_the_same_without_torch_in_a_fresh_process(monitor, samples, tmp_path):
    (tmp_path / "monitor.pkl").write_bytes(pickle.dumps((monitor, samples[:4])))
    code = f"""
import pickle, sys
monitor, samples = pickle.load(open({str(tmp_path / "monitor.pkl")!r}, "rb"))
print(monitor({{"activations": samples}})["decision"].tolist(), "torch" in sys.modules)
"""
    expected = monitor({"activations": samples[:4]})["decision"].tolist()
    assert printed_by(code) == f"{expected} False"


def test_fitting_again_changes_no_monitor(samples):
    pipe = fit(samples, TokenScaler(), DifferenceInMeans(), MaxToken(0.5))
    monitor = Monitor(pipe)
    before = monitor.update(samples[0]).scores
    pipe[:-1].fit(TokenArray.from_list([s + 9 for s in samples]), np.arange(N) % 2)
    monitor.reset()
    np.testing.assert_array_equal(monitor.update(samples[0]).scores, before)


@pytest.mark.parametrize("column", [5, None, 1.5, np.float32(2)])
def test_a_batch_of_no_samples_names_the_column(monitor, column):
    assert monitor({"activations": []})["decision"].shape == (0, 2)
    with pytest.raises(TypeError, match="batch must hold a list or array of samples under 'activ"):
        monitor({"activations": column})
