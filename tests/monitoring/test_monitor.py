"""Streams and batches decide as the detector does on samples."""

import numpy as np
import pandas as pd
import pytest
from sklearn import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skact import (
    ConceptSearchCV,
    CrossFitTransformer,
    DifferenceInMeans,
    JoinLayers,
    KMeansConcepts,
    LastToken,
    LayerStack,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    MeanToken,
    Monitor,
    NormClip,
    PCAConcepts,
    RandomToken,
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
from skact.pooling import pool_windows

METHODS = [
    LinearSeparator(),
    MeanPrototype(),
    DifferenceInMeans(whiten=True),
    KMeansConcepts(4, random_state=0),
    PCAConcepts(3),
    SemiNMFConcepts(3, max_iter=20, random_state=0),
    SparseAutoencoder(6, random_state=0),
    CrossFitTransformer(LinearSeparator(), cv=2, random_state=0),
]
DETECTORS = [
    SuperActivator(0.3),
    MaxToken(0.5),
    MeanToken(0.5),
    LastToken(0.5),
    WeakSuperActivator(),
    TopWindows(None, window=3, top=2, cut="f1"),
    TopWindows(None, window=2, share=0.4, cut="expected_f1"),
    TopWindows(None, share=1.0, cut="f1"),
]


@pytest.fixture
def problem(rng):
    y = np.c_[np.arange(40) % 2, np.arange(40) // 2 % 2]
    lengths = rng.integers(1, 12, size=40)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.normal(size=(offsets[-1], 6)) + np.repeat(y, lengths, axis=0) @ np.eye(6)[:2]
    return TokenArray(values.astype(np.float32), offsets), y


def agree(monitor, estimator, X, layers=None):
    """Largest difference of a stream from the detector, over all prefixes of some samples."""
    worst = 0.0
    for i in range(4):
        stream = monitor.stream()
        for n in range(1, X.lengths[i] + 1):
            token = (
                X[i][n - 1] if layers is None else {b: layers[i][b][n - 1] for b in layers.layers}
            )
            stream.update(token)
            head = TokenArray(X[i][:n].copy(), [0, n])
            if layers is not None:
                parts = {b: TokenArray(layers[i][b][:n].copy(), [0, n]) for b in layers.layers}
                head = LayerStack(parts)
            offline = estimator.decision_function(head)[0]
            worst = max(worst, np.abs(stream.state.decision - offline).max())
            np.testing.assert_array_equal(stream.state.present, offline > 0)
            chances = estimator.predict_proba(head)[0]
            np.testing.assert_allclose(stream.state.probability, chances, atol=1e-4)
            assert stream.state.n_tokens == n
    return worst


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_every_method_streams(problem, method):
    X, y = problem
    pipe = make_pipeline(NormClip(3), TokenScaler(), clone(method), SuperActivator(0.3)).fit(X, y)
    scale = np.abs(pipe.decision_function(X)).max()
    assert agree(Monitor(pipe), pipe, X) < 2e-6 * max(scale, 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("detector", DETECTORS, ids=str)
def test_every_detector_streams(problem, detector):
    X, y = problem
    pipe = make_pipeline(TokenScaler(), LinearSeparator(), clone(detector)).fit(X, y)
    assert agree(Monitor(pipe), pipe, X) < 1e-6 * max(np.abs(pipe.decision_function(X)).max(), 1)
    # What another sample says is another thing.
    assert abs(pipe.decision_function(X[:4])).min() != pipe.decision_function(X[4:5]).min()


class RangeToken(MaxToken):
    """Pools window means of whole samples, in a way that no running pool knows."""

    def _running_pool(self):
        return BaseDetector._running_pool(self)

    def _pool(self, scores):
        return pool_windows(scores, 3, 2)


@pytest.mark.parametrize(
    "detector", [*DETECTORS[5:], RangeToken(0.5), MaxToken(0.5), MeanToken(0.5)], ids=str
)
def test_no_window_of_a_stream_reaches_over_a_gap(rng, detector):
    lengths, y = rng.integers(4, 20, size=40), np.arange(40) % 2
    segments = np.sort(rng.integers(0, 200, size=lengths.sum()))
    offsets, values = np.append(0, lengths.cumsum()), rng.normal(size=(lengths.sum(), 6))
    values += np.repeat(y, lengths)[:, None]
    X = TokenArray(values.astype(np.float32), offsets, segments=segments)
    pipe = make_pipeline(TokenScaler(), LinearSeparator(), clone(detector)).fit(X, y)
    monitor, worst, plain = Monitor(pipe), 0, 0
    for i in range(6):
        stream, without = monitor.stream(), monitor.stream()
        for n in range(1, X.lengths[i] + 1):
            runs = X[[i]].segments[:n]
            stream.update(X[i][n - 1], after_gap=n > 1 and runs[-1] != runs[-2])
            without.update(X[i][n - 1])
            head = TokenArray(X[i][:n].copy(), [0, n], segments=runs)
            offline = pipe.decision_function(head)[0]
            worst = max(worst, abs(stream.state.decision[0] - offline))
            plain = max(plain, abs(without.state.decision[0] - offline))
        turns = monitor.stream()
        for run in range(runs[-1] + 1):
            turns.update(X[i][runs == run], after_gap=run > 0)
        np.testing.assert_allclose(turns.state.decision, offline, atol=1e-6)
    assert worst < 1e-6
    crosses = not isinstance(detector, MeanToken) and str(detector) not in (
        "MaxToken(delta=0.5)",
        "TopWindows(cut='f1', delta=None, share=1.0)",
    )
    assert (plain > 1e-3) == crosses
    whole = monitor({"activations": X})["decision"][:, 0]
    np.testing.assert_allclose(whole, pipe.decision_function(X), atol=1e-6)
    with pytest.raises(TypeError, match="after_gap must be True or False, got 1"):
        stream.update(X[0], after_gap=1)


def test_marks_are_those_of_the_detector(problem):
    X, y = problem
    pipe = make_pipeline(TokenScaler(), LinearSeparator(), SuperActivator(0.3)).fit(X, y)
    reading = Monitor(FrozenEstimator(pipe)).update(X[0])
    np.testing.assert_array_equal(
        reading.marks, pipe[-1].superactivators(pipe[:-1].transform(X))[0]
    )
    np.testing.assert_allclose(reading.scores, pipe[:-1].transform(X)[0], rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_searches_stream_with_the_layers_of_their_winners(problem, rng):
    X, y = problem
    other = X.with_values(rng.normal(size=X.values.shape).astype(np.float32))
    mixed = X.with_values(np.c_[X.values[:, :1], other.values[:, 1:]])
    layers = LayerStack({1: mixed, 4: X.with_values(np.c_[other.values[:, :1], X.values[:, 1:]])})
    pipe = make_pipeline(SelectLayer(), TokenScaler(), LinearSeparator(), MaxToken())
    grid = {"selectlayer__layer": [1, 4], "maxtoken__delta": [0.3, 0.7]}
    search = ConceptSearchCV(pipe, grid, cv=3).fit(layers, y)
    monitor = Monitor(search)
    assert monitor.blocks == [1, 4]
    assert agree(monitor, search, X, layers) < 1e-6
    with pytest.raises(ValueError, match=r"mapping with the layers \[1, 4\], got ndarray"):
        monitor.update(X[0])
    whole = GridSearchCV(pipe, {"maxtoken__delta": [0.3, 0.7]}, cv=3).fit(layers, y)
    assert Monitor(whole).blocks == [4]


@pytest.mark.filterwarnings("ignore")
def test_a_search_behind_other_steps_streams(problem):
    X, y = problem
    parts = make_pipeline(LinearSeparator(), MaxToken())
    grid = {"maxtoken__delta": [0.3, 0.7], "linearseparator__weight_decay": [0.1, 1]}
    pipe = make_pipeline(TokenScaler(), ConceptSearchCV(parts, grid, cv=3)).fit(X, y)
    assert agree(Monitor(pipe), pipe, X) < 1e-6
    assert agree(Monitor(FrozenEstimator(pipe)), pipe, X) < 1e-6
    with pytest.raises(TypeError, match="ends in LogisticRegression"):
        Monitor(make_pipeline(LogisticRegression()).fit(X.max(), y[:, 0]))


@pytest.fixture
def fitted(problem):
    X, y = problem
    return make_pipeline(TokenScaler(), LinearSeparator(), MaxToken(0.5)).fit(X, y)


def test_streams_do_not_know_each_other(fitted, problem):
    X, _ = problem
    monitor = Monitor(fitted)
    one, two = monitor.stream(), monitor.stream()
    one.update(X[0])
    two.update(X[1])
    monitor.update(X[2])
    for stream, i in ((one, 0), (two, 1), (monitor, 2)):
        expected = fitted.decision_function(X[i : i + 1])[0]
        np.testing.assert_allclose(stream.state.decision, expected, atol=1e-6)
    monitor.reset()
    with pytest.raises(ValueError, match="no tokens yet"):
        monitor.state  # noqa: B018


def of_three(problem):
    """Three classes of which each threshold by itself decides otherwise than all together."""
    y = problem[1]
    return np.array(["a", "b", "c"])[y[:, 0] + (y[:, 0] & y[:, 1])]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["pipeline", "frozen", "grid", "concept search"])
def test_of_many_classes_the_answers_are_those_of_the_estimator(problem, kind):
    X, y = problem[0], of_three(problem)
    pipe = make_pipeline(LinearSeparator(weight_decay=0.1), MaxToken(0.5))
    estimator = {
        "pipeline": pipe,
        "frozen": FrozenEstimator(clone(pipe).fit(X, y)),
        "grid": GridSearchCV(pipe, {"maxtoken__delta": [0.5, 0.7]}, cv=2),
        "concept search": ConceptSearchCV(pipe, {"maxtoken__delta": [0.5, 0.7]}, cv=2),
    }[kind].fit(X, y)
    monitor = Monitor(estimator)
    made = monitor({"activations": X})
    assert monitor.concept_names_ == estimator.classes_.tolist()
    np.testing.assert_array_equal(made["present"], estimator.predict(X)[:, None] == ["a", "b", "c"])
    np.testing.assert_allclose(made["probability"], estimator.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(made["decision"], estimator.decision_function(X), atol=1e-4)
    for i in range(5):
        stream = monitor.stream()
        reading = stream.update(X[i])
        np.testing.assert_array_equal(stream.state.present, made["present"][i])
        np.testing.assert_array_equal(stream.state.probability, made["probability"][i])
        # By themselves the thresholds decide as marks do, of which the largest score is pooled.
        np.testing.assert_array_equal(stream.reaches, reading.marks.any(axis=0))
    alone = np.array([_reaches(monitor, sample) for sample in X])
    assert (alone != made["present"]).any()  # the control


def _reaches(monitor, sample):
    stream = monitor.stream()
    stream.update(sample)
    return stream.reaches


def batches_of(X):
    samples = X.to_list()
    objects = np.empty(len(samples), object)
    objects[:] = samples
    same = [sample[:1] for sample in samples]
    return {
        "objects": (objects, samples),
        "list": (samples, samples),
        "lists of lists": ([sample.tolist() for sample in samples], samples),
        "3-D": (np.stack(same), same),
        "rows": (pd.Series([list(sample) for sample in samples]).to_numpy(), samples),
    }


@pytest.mark.parametrize("form", ["objects", "list", "lists of lists", "3-D", "rows"])
def test_batches_are_judged_whole_whatever_their_cut(fitted, problem, form):
    X, _ = problem
    data, samples = batches_of(X)[form]
    if isinstance(data, np.ndarray):
        data.flags.writeable = False
    monitor = Monitor(fitted, inputs="acts")
    whole = monitor({"acts": data, "id": np.arange(40)})
    expected = fitted.decision_function(TokenArray.from_list(samples))
    np.testing.assert_allclose(whole["decision"], expected, atol=1e-6)
    np.testing.assert_array_equal(whole["present"], whole["decision"] > 0)
    assert set(whole) == {"id", "decision", "present", "probability"}
    for cut in (1, 7, 40):
        parts = [monitor({"acts": data[i : i + cut]})["decision"] for i in range(0, 40, cut)]
        np.testing.assert_array_equal(np.concatenate(parts), whole["decision"])


def test_a_batch_may_be_a_data_frame_or_empty(fitted, problem):
    X, _ = problem
    monitor = Monitor(fitted)
    frame = pd.DataFrame({"id": range(3), "activations": X[:3].to_list()})
    made = monitor(frame)
    assert made.columns[0] == "id"
    assert "present_concept1" in made
    assert "activations" in frame
    np.testing.assert_allclose(made["decision_concept1"], fitted.decision_function(X[:3])[:, 1])
    nothing = monitor({"activations": np.empty(0, object)})
    assert nothing["decision"].shape == nothing["probability"].shape == (0, 2)


def test_columns_may_be_called_like_answers_that_are_not_given(fitted, problem):
    monitor = Monitor(fitted, inputs="decision")  # which is not in the answer
    made = monitor({"decision": problem[0][:2], "unsure": [3, 4], "decision_concept1": [5, 6]})
    assert (made["unsure"], made["decision_concept1"]) == ([3, 4], [5, 6])
    frame = pd.DataFrame({"decision": problem[0][:2].to_list(), "present": [3, 4]})
    made = monitor(frame)
    assert made["present"].tolist() == [3, 4]


def test_what_is_no_column_goes_along(fitted, problem):
    of_all = {"name": "abc", "seed": 3, "about": {"of": "all"}, "level": np.array(0.5)}
    made = Monitor(fitted)({"activations": problem[0][:2], **of_all})
    assert {key: made[key] for key in of_all} == of_all


def test_a_detector_alone_reads_scores(problem):
    X, y = problem
    scores = X.with_values(X.values[:, :2])
    detector = MaxToken(0.5).fit(scores, y)
    monitor = Monitor(detector)
    monitor.update(scores[0])
    np.testing.assert_allclose(monitor.state.decision, detector.decision_function(scores[:1])[0])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.ones(5, np.float32), r"floats of shape \(6,\) or \(n_tokens, 6\), got shape \(5,\)"),
        (np.ones((2, 2, 6)), "got shape"),
        (np.ones(6, int), "dtype int64"),
        (["a"] * 6, "tokens must be floats"),
        (np.ma.array(np.ones(6), mask=[0, 0, 0, 0, 0, 1]), "tokens are masked in part"),
        (np.r_[np.ones(5), np.nan], "hold NaN or infinity"),
        (np.r_[np.ones(5), -np.inf], "hold NaN or infinity"),
        ({3: np.ones(6)}, r"a mapping with the layers \[None\], got \[3\]"),
    ],
)
def test_bad_tokens_are_not_taken_in(fitted, problem, tokens, message):
    monitor = Monitor(fitted)
    monitor.update(problem[0][0])
    before = monitor.state
    with pytest.raises(ValueError, match=message):
        monitor.update(tokens)
    np.testing.assert_array_equal(monitor.state.decision, before.decision)
    assert monitor.state.n_tokens == before.n_tokens
    # Large numbers whose squares overflow are numbers.
    assert np.isfinite(monitor.update(np.full(6, 1e25, np.float32)).scores).all()


MASKED = np.ma.array(np.ones((2, 3, 6)), mask=np.zeros((2, 3, 6), bool))
MASKED[1, 2] = np.ma.masked


def test_masks_that_hide_nothing_change_nothing(fitted):
    values = np.ones((2, 3, 6))
    unmasked = np.ma.array(values, mask=np.zeros(values.shape, bool))
    made, expected = (Monitor(fitted)({"activations": a}) for a in (unmasked, values))
    np.testing.assert_array_equal(made["decision"], expected["decision"])


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ({"x": [1]}, KeyError, "batch lacks 'activations', the activations of block None"),
        ({"activations": [np.ones((2, 6)), np.ones((2, 5))]}, ValueError, "sample 1 of the batch"),
        ({"activations": [np.ones((0, 6))]}, ValueError, "sample 0 of the batch has no tokens"),
        (
            {"id": [1, 2, 3], "activations": [np.ones((2, 6))]},
            ValueError,
            "columns of one length, got 1 of 'activations' and 3 of 'id'",
        ),
        ({"activations": MASKED}, ValueError, "sample 1 of the batch: tokens are masked in part"),
        ({"activations": list(MASKED)}, ValueError, r"sample 1 .* skact\.read_padded"),
        ({"activations": [list(MASKED[1])]}, ValueError, "sample 0 .* masked in part"),
        ({"activations": [np.ones((2, 6)), None]}, ValueError, "sample 1 .* an array .* got None"),
        ({"activations": [[None]]}, ValueError, "sample 0 of the batch: .* got None"),
        (
            pd.DataFrame({"activations": [None, np.ones((2, 6))]}),
            ValueError,
            "sample 0 of the batch: it must be an array of tokens, got None; leave it out",
        ),
        (
            {"present": [1], "activations": [np.ones((2, 6))]},
            ValueError,
            "batch has a column 'present' already, which an answer would overwrite",
        ),
        (
            pd.DataFrame({"decision_concept1": [1], "activations": [np.ones((2, 6))]}),
            ValueError,
            "batch has a column 'decision_concept1' already",
        ),
        ([np.ones((2, 6))], TypeError, "batch must be a mapping .* or a DataFrame; got list"),
    ],
)
def test_bad_batches(fitted, batch, error, message):
    with pytest.raises(error, match=message):
        Monitor(fitted)(batch)


def test_what_cannot_be_watched_is_refused(problem):
    X, y = problem
    with pytest.raises(NotFittedError):
        Monitor(MaxToken())
    with pytest.raises(TypeError, match=r"must end in a detector.*ends in LinearSeparator"):
        Monitor(LinearSeparator().fit(X, y))
    random = make_pipeline(LinearSeparator(), RandomToken(random_state=0)).fit(X, y)
    with pytest.raises(ValueError, match="RandomToken draws one of all tokens"):
        Monitor(random)
    joined = make_pipeline(JoinLayers(), LinearSeparator(), MaxToken(0.5))
    with pytest.raises(TypeError, match="joins layers side by side"):
        Monitor(joined.fit(LayerStack({0: X, 1: X}), y))
    pipe = make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(X, y)
    with pytest.raises(ValueError, match=r"inputs must be a name.*layers \[None\]; got 3"):
        Monitor(pipe, inputs=3)
    named = X.with_source(Source("model", block=3))
    monitor = Monitor(make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(named, y))
    assert monitor.blocks == [3]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("other", block=3), "another model than the detector was fitted on"),
        (Source("model", block=4), "another block .* block 3, convention a.* block 4"),
        (Source("model", block=3, convention="b"), "another convention"),
        (Source("model", block=3, scaling="c"), None),  # what is unknown cannot differ
    ],
)
def test_batches_that_say_where_they_come_from_are_believed(problem, source, message):
    X, y = problem
    fitted = Source("model", block=3, convention="a")
    layers = LayerStack({3: X.with_source(fitted), 5: X})
    pipe = make_pipeline(SelectLayer(3), LinearSeparator(), MaxToken(0.5)).fit(layers, y)
    batch = {"activations": X[:3].with_source(source)}
    if message is None:
        assert len(Monitor(pipe)(batch)["present"]) == 3
    else:
        with pytest.raises(ValueError, match=f"batch comes from {message}"):
            Monitor(pipe)(batch)


def test_squares_of_grids_are_not_taken_for_runs(rng):
    grids = TokenArray(rng.normal(size=(24, 3)), range(0, 25, 4), shapes=[[2, 2]] * 6)
    y = np.arange(6) % 2
    squares = TopWindows(None, window=2, cut="f1")
    pipe = make_pipeline(LinearSeparator(), squares).fit(grids, y)
    with pytest.raises(ValueError, match="batch holds grids, of which the detector pools squares"):
        Monitor(pipe)({"activations": grids})
    single = make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(grids, y)
    made = Monitor(single)({"activations": grids})["decision"][:, 0]
    np.testing.assert_allclose(made, single.decision_function(grids), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_layers_of_a_batch_hold_the_same_samples(problem):
    X, y = problem
    pipe = make_pipeline(SelectLayer(), LinearSeparator(), MaxToken(0.5))
    noise = X.with_values(np.roll(X.values, 3, axis=1))
    layers = LayerStack({1: X.with_values(np.c_[X.values[:, :1], noise.values[:, 1:]]), 4: X})
    grid = {"selectlayer__layer": [1, 4]}
    monitor = Monitor(ConceptSearchCV(pipe, grid, cv=2).fit(layers, y), inputs={1: "a", 4: "b"})
    with pytest.raises(ValueError, match="of one length, got 2 of 'a' and 1 of 'b'"):
        monitor({"a": X[:2], "b": X[:1]})
