"""What is exported decides as the monitor does, run by the lines that the guide gives."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn import clone
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    ConceptSearchCV,
    CrossFitTransformer,
    DifferenceInMeans,
    KMeansConcepts,
    KMeansSeparator,
    LastToken,
    LayerStack,
    LinearSeparator,
    MaxSeparator,
    MaxToken,
    MeanPrototype,
    MeanToken,
    Monitor,
    NormClip,
    PCAConcepts,
    SelectLayer,
    SemiNMFConcepts,
    Source,
    SparseAutoencoder,
    SuperActivator,
    TokenArray,
    TokenScaler,
    TopWindows,
    WeakSuperActivator,
)
from skact.detection import BaseDetector

GUIDE = Path(__file__).parents[2] / "docs" / "user_guide" / "engines.md"
KNOWN = Source("a model", "abc", 14, "residual stream after the block, after '<s>'")
BOTH = ("recall", "false_alarms")


@pytest.fixture(scope="module")
def detect():
    """The function of the guide, as it stands there, in a world that holds nothing else."""
    blocks = re.findall(
        r"^```python\n(.*?)^```$", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    (block,) = [block for block in blocks if "def detect(" in block]
    assert "skact" not in block
    assert len(block[block.index("def detect(") :].splitlines()) <= 16
    space = {}
    exec(block, space)
    return space["detect"]


@pytest.fixture
def problem(rng):
    y = np.c_[np.arange(40) % 2, np.arange(40) // 2 % 2]
    lengths = rng.integers(1, 12, size=40)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.normal(size=(offsets[-1], 6)) + np.repeat(y, lengths, axis=0) @ np.eye(6)[:2] + 3
    return TokenArray(values.astype(np.float32), offsets, source=KNOWN), y


def agree(detect, monitor, estimator, X, path, layers=None):
    monitor.export(path)
    decision, chances = estimator.decision_function(X), estimator.predict_proba(X)
    for i in range(len(X)):
        tokens = {14: X[i]} if layers is None else X[i]
        said = detect(tokens, path)
        assert list(said) == monitor.concept_names_
        for c, (present, chance) in enumerate(said.values()):
            assert present == (decision[i, c] > 0) or abs(decision[i, c]) < 1e-5
            assert abs(chance - chances[i, c]) < 1e-4
    assert 0 < (decision > 0).mean() < 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "method",
    [
        LinearSeparator(),
        MaxSeparator(),
        DifferenceInMeans(whiten=True),
        KMeansSeparator(4, random_state=0),
        PCAConcepts(3),
        CrossFitTransformer(LinearSeparator(), cv=2, random_state=0),
    ],
    ids=lambda method: type(method).__name__,
)
def test_every_affine_method_is_exported(detect, problem, method, tmp_path):
    X, y = problem
    pipe = make_pipeline(SelectLayer(14), TokenScaler(), clone(method), MaxToken(0.5)).fit(X, y)
    agree(detect, Monitor(pipe), pipe, X, tmp_path / "a")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "detector",
    [
        SuperActivator(0.3),
        MaxToken(0.5),
        MeanToken(0.5),
        LastToken(0.5),
        WeakSuperActivator(),
        TopWindows(None, window=3, top=2, cut="f1"),
        TopWindows(None, window=2, share=0.4, cut="expected_f1"),
        TopWindows(None, share=1.0, cut="f1"),
        TopWindows(None, window=2, cut=BOTH, level=(0.5, 0.5)),
    ],
    ids=str,
)
def test_every_pool_is_exported(detect, problem, detector, tmp_path):
    X, y = problem
    pipe = make_pipeline(TokenScaler(), LinearSeparator(), clone(detector)).fit(X, y)
    agree(detect, Monitor(pipe), pipe, X, tmp_path / "a")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_search", [False, True])
def test_of_many_classes_the_most_probable_is_found(detect, problem, is_search, tmp_path):
    X, y = problem
    y = np.array(["a", "b", "c"])[y[:, 0] + (y[:, 0] & y[:, 1])]
    pipe = make_pipeline(LinearSeparator(weight_decay=0.1), MaxToken(0.5))
    if is_search:
        pipe = ConceptSearchCV(pipe, {"maxtoken__delta": [0.5, 0.7]}, cv=2)
    pipe.fit(X, y)
    Monitor(pipe).export(tmp_path / "a")
    found, chances = pipe.predict(X), pipe.predict_proba(X)
    for i in range(len(X)):
        said = detect({14: X[i]}, tmp_path / "a")
        assert [name for name, (present, _) in said.items() if present] == [found[i]]
        np.testing.assert_allclose([p for _, p in said.values()], chances[i], atol=1e-5)
    path = tmp_path / "a.json"
    about = json.loads(path.read_text())
    assert about["of_one"] is True
    path.write_text(json.dumps(about | {"of_one": False}))
    alone = [sum(p for p, _ in detect({14: x}, tmp_path / "a").values()) for x in X]
    assert set(alone) != {1}  # the control: thresholds by themselves find none or several


def test_a_detector_alone_is_exported(detect, problem, tmp_path):
    X, y = problem
    scores = X.with_values(X.values[:, :2], source=KNOWN)
    detector = MeanToken(0.5).fit(scores, y)
    agree(detect, Monitor(detector), detector, scores, tmp_path / "a")


@pytest.mark.filterwarnings("ignore")
def test_concepts_of_several_layers(detect, problem, rng, tmp_path):
    X, y = problem
    noise = rng.normal(size=X.values.shape).astype(np.float32)
    layers = LayerStack(
        {
            1: X.with_values(np.c_[X.values[:, :1], noise[:, 1:]], source=Source("a model")),
            4: X.with_values(np.c_[noise[:, :1], X.values[:, 1:]], source=Source("a model")),
        }
    )
    pipe = make_pipeline(SelectLayer(), TokenScaler(), LinearSeparator(), MaxToken())
    grid = {"selectlayer__layer": [1, 4], "maxtoken__delta": [0.3, 0.7]}
    search = ConceptSearchCV(pipe, grid, cv=3).fit(layers, y)
    agree(detect, Monitor(search), search, layers, tmp_path / "a", layers)
    about = json.loads((tmp_path / "a.json").read_text())
    assert [concept["source"]["block"] for concept in about["concepts"]] == [1, 4]


def test_the_files_say_what_they_are(problem, tmp_path):
    X, y = problem
    detector = TopWindows(None, window=2, top=3, cut=BOTH, level=(0.9, 0.2), confidence=0.6)
    monitor = Monitor(make_pipeline(TokenScaler(), LinearSeparator(), detector).fit(X, y))
    monitor.export(tmp_path / "a")
    about = json.loads((tmp_path / "a.json").read_text())
    assert (about["format"], about["version"]) == ("skact monitor 2", skact.__version__)
    assert about["n_features"] == 6
    first = about["concepts"][0]
    assert first["source"] == {
        "model": "a model",
        "revision": "abc",
        "convention": KNOWN.convention,
        "scaling": None,
        "block": 14,
        "site": None,
        "hidden_states": 15,
        "vllm_layer_id": 15,
    }
    assert first["settings"] == {
        "delta": None,
        "cut": list(BOTH),
        "level": [0.9, 0.2],
        "confidence": 0.6,
    }
    assert (first["detector"], first["n_samples"], first["n_positive"]) == ("TopWindows", 40, 20)
    assert (first["window"], first["top"], first["share"], first["last"]) == (2, 3, None, False)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["weights"].shape == (2, 6)
        np.testing.assert_array_equal(arrays["lower_thresholds"], detector.unsure_thresholds_[:, 0])
        np.testing.assert_array_equal(arrays["thresholds"], detector.thresholds_)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.npz"]


def test_what_a_branch_adds_has_no_number_in_other_conventions(problem, tmp_path):
    X, y = problem
    branch = X.with_source(Source("a model", block=14, site="mlp"))
    Monitor(make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(branch, y)).export(tmp_path / "a")
    told = json.loads((tmp_path / "a.json").read_text())["concepts"][0]["source"]
    assert (told["site"], told["block"]) == ("mlp", 14)
    assert (told["hidden_states"], told["vllm_layer_id"]) == (None, None)


def test_what_was_exported_before_stays_after_an_error(problem, tmp_path):
    X, y = problem
    good = make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(X, y)
    Monitor(good).export(tmp_path / "a")
    before = (tmp_path / "a.npz").read_bytes()
    bad = make_pipeline(MeanPrototype(), MaxToken(0.5)).fit(X, y)
    with pytest.raises(TypeError, match="MeanPrototype"):
        Monitor(bad).export(tmp_path / "a")
    assert (tmp_path / "a.npz").read_bytes() == before


class Middle(BaseDetector):
    """A detector of somebody else."""

    def _pool(self, scores):
        return np.stack([np.median(s, axis=0) for s in scores])

    def _thresholds(self, reference, deltas):
        return np.zeros((len(deltas), 1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ((MeanPrototype(), MaxToken(0.5)), "MeanPrototype, whose scores are no affine function"),
        ((KMeansConcepts(2, random_state=0), MaxToken(0.5)), "KMeansConcepts"),
        ((NormClip(2), LinearSeparator(), MaxToken(0.5)), "NormClip"),
        ((SemiNMFConcepts(2, max_iter=5), MaxToken(0.5)), "SemiNMFConcepts"),
        ((SparseAutoencoder(4, random_state=0), MaxToken(0.5)), "SparseAutoencoder"),
        ((LinearSeparator(), Middle(0.5)), "ends in Middle, which pools in a way of its own"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_what_is_not_affine_is_refused(problem, steps, name, tmp_path):
    X, y = problem
    monitor = Monitor(make_pipeline(*steps).fit(X, y))
    with pytest.raises(TypeError, match=rf"{name}.*skact\.save"):
        monitor.export(tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fitted", "given", "message"),
    [
        (None, None, r"do not say which model and layer .* give source=Source\(model, block=...\)"),
        (None, Source("a model"), r"known: block None|which model and layer"),
        (None, Source(block=3), "which model and layer"),
        (Source("a model"), None, r"which model and layer .*known: model a model"),
        (KNOWN, Source("another"), "source is another model than the detector was fitted on"),
        (KNOWN, Source(block=13), r"source is another block .*block 14.*block 13"),
    ],
)
def test_model_and_layer_must_be_known(problem, fitted, given, message, tmp_path):
    X, y = problem
    pipe = make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(X.with_source(fitted), y)
    with pytest.raises(ValueError, match=message):
        Monitor(pipe).export(tmp_path / "a", source=given)
    assert not list(tmp_path.iterdir())


def test_a_source_may_be_given(problem, tmp_path):
    X, y = problem
    pipe = make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(X.with_source(None), y)
    Monitor(pipe).export(tmp_path / "a", source=Source("m", block=3))
    about = json.loads((tmp_path / "a.json").read_text())
    assert about["concepts"][1]["source"]["hidden_states"] == 4
    with pytest.raises(FileNotFoundError, match="path: there is no folder"):
        Monitor(pipe).export(tmp_path / "nowhere" / "a", source=Source("m", block=3))


@pytest.mark.parametrize("name", ["probe", "probe.npz", "probe.json"])
def test_an_ending_is_not_given_twice(problem, tmp_path, name):
    X, y = problem
    monitor = Monitor(make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(X, y))
    monitor.export(tmp_path / name)
    monitor.export(str(tmp_path / "a.b") if name == "probe" else tmp_path / name)
    expected = {"probe.npz", "probe.json"} | ({"a.b.npz", "a.b.json"} if name == "probe" else set())
    assert {path.name for path in tmp_path.iterdir()} == expected


@pytest.mark.parametrize("name", ["folder/", "folder", "folder/.npz", "folder/.", ".."])
def test_a_folder_is_no_name_of_files(problem, tmp_path, monkeypatch, name):
    X, y = problem
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monitor = Monitor(make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(X, y))
    with pytest.raises(IsADirectoryError, match="must name the files, as 'folder/probe'"):
        monitor.export(name)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
