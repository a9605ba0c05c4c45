"""Tokens go through scikit-learn's own tools, and each gives what a loop over lists gives."""

import operator
import pickle

import numpy as np
import pytest
import sklearn
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV, _SigmoidCalibration
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    train_test_split,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from skact import (
    CrossFitTransformer,
    LayerStack,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    SelectLayer,
    Source,
    SuperActivator,
    TokenArray,
    TokenScaler,
    superactivators,
    token_f1_score,
    token_f1_scorer,
)

# Labels that one step alone gets, by name or because routing is off, are what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:token_labels were given")

DELTAS = [0.1, 0.5, 0.9]
FOLDS = StratifiedKFold(3)


@pytest.fixture(params=[False, True], ids=["plain", "array_api"], autouse=True)
def dispatch(request):
    """Run everything again under array_api_dispatch."""
    with sklearn.config_context(array_api_dispatch=request.param):
        yield request.param


@pytest.fixture
def lists_are_taken(dispatch):
    """Skip where scikit-learn itself refuses lists."""
    if dispatch and sklearn.__version__.startswith("1.8."):
        pytest.skip("scikit-learn 1.8 takes no lists under array_api_dispatch")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep tiny matrices from waking a pool of threads, which takes longer than the sums."""
    with threadpool_limits(1):
        yield


class Problem:
    """Ragged samples in which one or two tokens of a positive sample carry the concept."""

    def __init__(self, n_samples=48, n_features=4, signal=2.0, seed=0):
        rng = np.random.default_rng(seed)
        self.indicator = (rng.random((n_samples, 2)) < [0.5, 0.4]).astype(int)
        self.y = self.indicator[:, 0]
        self.samples, self.labels = [], []
        for row in self.indicator:
            n_tokens = int(rng.integers(2, 7))
            marked = np.zeros((n_tokens, 2), bool)
            for concept in np.flatnonzero(row):
                marked[rng.integers(0, n_tokens, 2), concept] = True
            sample = rng.normal(size=(n_tokens, n_features))
            sample[:, :2] += signal * marked
            self.samples.append(sample.astype(np.float32))
            self.labels.append(marked)
        self.X = TokenArray.from_list(self.samples, source=Source(model="m"))
        self.token_labels = TokenArray.from_list(self.labels)
        self.first_labels = [label[:, :1] for label in self.labels]
        # The second layer is noisier.
        self.noisy = [s + 2 * rng.normal(size=s.shape).astype(np.float32) for s in self.samples]
        self.stack = LayerStack({3: TokenArray.from_list(self.noisy), 8: self.X})

    def folds(self, y=None):
        y = self.y if y is None else y
        splitter = FOLDS if np.ndim(y) == 1 else KFold(3)
        return list(splitter.split(np.zeros(len(y)), y))


@pytest.fixture(scope="module")
def problem():
    return Problem()


def make_pipe(delta=0.5, **options):
    steps = [
        ("scale", TokenScaler()),
        ("concepts", LinearSeparator()),
        ("detect", SuperActivator(delta=delta)),
    ]
    return Pipeline(steps, **options)


def make_search(pipe=None, grid=None, cv=FOLDS, **options):
    return GridSearchCV(
        make_pipe() if pipe is None else pipe,
        {"detect__delta": DELTAS} if grid is None else grid,
        **{"scoring": "f1", "error_score": "raise", "cv": cv, **options},
    )


def rows(data, index):
    return [data[i] for i in index]


def concepts_by_hand(samples, y, train, labels=None):
    """Fit scaler and concepts one by one, on lists; the scores of any samples."""
    part = rows(samples, train)
    options = {} if labels is None else {"token_labels": rows(labels, train)}
    scale = TokenScaler().fit(part)
    concepts = LinearSeparator().fit(scale.transform(part), y[train], **options)
    return lambda new: concepts.transform(scale.transform(new))


def fit_by_hand(samples, y, train, delta=0.5, labels=None):
    """Fit the steps one by one, on lists, and return the decision of any samples."""
    scores_of = concepts_by_hand(samples, y, train, labels)
    detect = SuperActivator(delta=delta).fit(scores_of(rows(samples, train)), y[train])
    return lambda new: detect.decision_function(scores_of(new))


def f1_by_hand(y, found):
    average = "binary" if y.ndim == 1 else "weighted"
    return f1_score(y, found.astype(int), average=average)


def score_by_hand(samples, y, train, test, **options):
    found = fit_by_hand(samples, y, train, **options)(rows(samples, test)) > 0
    return f1_by_hand(y[test], found)


def table_by_hand(samples, y, folds, **options):
    """F1 of each delta (rows) in each fold (columns)."""
    table = np.empty((len(DELTAS), len(folds)))
    for k, (train, test) in enumerate(folds):
        scores_of = concepts_by_hand(samples, y, train, **options)
        on_train, on_test = (scores_of(rows(samples, part)) for part in (train, test))
        for i, delta in enumerate(DELTAS):
            detect = SuperActivator(delta=delta).fit(on_train, y[train])
            table[i, k] = f1_by_hand(y[test], detect.decision_function(on_test) > 0)
    return table


def table_of(search, n_folds=3):
    return np.array([search.cv_results_[f"split{k}_test_score"] for k in range(n_folds)]).T


def test_train_test_split(problem):
    split = train_test_split(
        problem.X,
        problem.stack,
        problem.y,
        problem.token_labels,
        stratify=problem.y,
        random_state=0,
    )
    where = train_test_split(np.arange(48), stratify=problem.y, random_state=0)
    for side, index in enumerate(where):
        X, stack, y, labels = split[side::2]
        assert X.values is problem.X.values
        np.testing.assert_array_equal(y, problem.y[index])
        for i, j in enumerate(index):
            np.testing.assert_array_equal(X[i], problem.samples[j])
            np.testing.assert_array_equal(stack.layer(3)[i], problem.noisy[j])
            np.testing.assert_array_equal(labels[i], problem.labels[j])


@pytest.mark.usefixtures("lists_are_taken")
@pytest.mark.parametrize("target", ["y", "indicator"])
def test_grid_search(problem, target):
    y = getattr(problem, target)
    scoring = "f1" if target == "y" else "f1_weighted"
    folds = problem.folds(y)
    expected = table_by_hand(problem.samples, y, folds)
    # The problem tells deltas and folds apart, so a wrong slice cannot give this table.
    assert len(np.unique(expected)) > 5
    search = make_search(cv=folds, scoring=scoring).fit(problem.X, y)
    np.testing.assert_allclose(table_of(search), expected)
    assert search.best_params_ == {"detect__delta": DELTAS[expected.mean(axis=1).argmax()]}
    listed = make_search(cv=folds, scoring=scoring).fit(problem.samples, y)
    np.testing.assert_allclose(table_of(listed), expected)
    everything = np.arange(48)
    decide = fit_by_hand(problem.samples, y, everything, delta=search.best_params_["detect__delta"])
    np.testing.assert_array_equal(search.predict(problem.X), decide(problem.samples) > 0)
    assert search.n_features_in_ == 4
    average = {} if target == "y" else {"average": "weighted"}
    assert search.score(problem.X, y) == pytest.approx(
        f1_score(y, (decide(problem.samples) > 0).astype(int), **average)
    )


def on_disk(tokens, path):
    mapped = np.memmap(path, tokens.dtype, mode="w+", shape=tokens.values.shape)
    mapped[:] = tokens.values
    mapped.flush()
    mapped = np.memmap(path, tokens.dtype, mode="r", shape=tokens.values.shape)
    return TokenArray(mapped, tokens.offsets, source=tokens.source)


@pytest.mark.parametrize("container", ["tokens", "stack"])
def test_grid_search_in_processes_on_a_mapped_file(problem, tmp_path, container):
    layers = {b: on_disk(problem.stack.layer(b), tmp_path / f"{b}") for b in (3, 8)}
    # Workers open the file again; nothing is sent to them but its name.
    names = Parallel(n_jobs=2)(
        delayed(operator.attrgetter("values.filename"))(layer) for layer in layers.values()
    )
    assert [str(name) for name in names] == [str(tmp_path / "3"), str(tmp_path / "8")]
    if container == "tokens":
        pipe, grid, X = make_pipe(), {"detect__delta": DELTAS}, layers[8]
        expected = table_by_hand(problem.samples, problem.y, problem.folds())
    else:
        pipe = Pipeline([("layer", SelectLayer()), *make_pipe().steps])
        grid = {"layer__layer": [3, 8]}
        X = LayerStack(layers)
        expected = np.array(
            [
                [score_by_hand(s, problem.y, *fold) for fold in problem.folds()]
                for s in (problem.noisy, problem.samples)
            ]
        )
    search = make_search(pipe, grid, n_jobs=2).fit(X, problem.y)
    np.testing.assert_allclose(table_of(search), expected)


def test_layers_in_the_grid(problem):
    pipe = Pipeline([("layer", SelectLayer()), *make_pipe().steps])
    grid = {"detect__delta": DELTAS, "layer__layer": problem.stack.layers}
    search = make_search(pipe, grid).fit(problem.stack, problem.y)
    by_layer = [
        table_by_hand(samples, problem.y, problem.folds())
        for samples in (problem.noisy, problem.samples)
    ]
    np.testing.assert_allclose(table_of(search), np.stack(by_layer, axis=1).reshape(6, 3))
    assert search.best_params_["layer__layer"] == 8
    new = Problem(seed=1)
    best = search.best_params_["detect__delta"]
    decide = fit_by_hand(problem.samples, problem.y, np.arange(48), delta=best)
    np.testing.assert_array_equal(search.predict(new.stack), decide(new.samples) > 0)
    # Control: the other layer decides otherwise.
    assert (search.predict(new.stack) != (decide(new.noisy) > 0)).any()


@pytest.mark.usefixtures("lists_are_taken")
def test_halving_grid_search(problem):
    def search(X):
        halving = HalvingGridSearchCV(
            make_pipe(),
            {"detect__delta": DELTAS},
            scoring="f1",
            error_score="raise",
            cv=FOLDS,
            random_state=0,
            min_resources=24,
            factor=2,
        )
        return halving.fit(X, problem.y)

    ragged, listed = search(problem.X), search(problem.samples)
    assert ragged.n_resources_ == [24, 48]
    for key in ("n_resources", "mean_test_score", "split2_test_score"):
        np.testing.assert_allclose(ragged.cv_results_[key], listed.cv_results_[key])
    last = ragged.cv_results_["n_resources"] == 48
    deltas = [p["detect__delta"] for p in np.array(ragged.cv_results_["params"])[last]]
    table = table_by_hand(problem.samples, problem.y, problem.folds())
    expected = [table[DELTAS.index(d)].mean() for d in deltas]
    np.testing.assert_allclose(ragged.cv_results_["mean_test_score"][last], expected)


def test_nested_cross_validation(problem):
    scores = cross_val_score(
        make_search(), problem.X, problem.y, cv=FOLDS, scoring="f1", error_score="raise"
    )
    expected = []
    for train, test in problem.folds():
        inner = list(FOLDS.split(train, problem.y[train]))
        table = table_by_hand(rows(problem.samples, train), problem.y[train], inner)
        best = DELTAS[table.mean(axis=1).argmax()]
        expected.append(score_by_hand(problem.samples, problem.y, train, test, delta=best))
    np.testing.assert_allclose(scores, expected)
    assert len(set(expected)) > 1


@pytest.mark.parametrize("method", ["predict", "decision_function"])
@pytest.mark.parametrize("container", ["tokens", "stack"])
def test_cross_val_predict(problem, method, container):
    pipe, X, samples = make_pipe(), problem.X, problem.samples
    if container == "stack":
        pipe = Pipeline([("layer", SelectLayer(layer=3)), *make_pipe().steps])
        X, samples = problem.stack, problem.noisy
    result = cross_val_predict(pipe, X, problem.y, cv=FOLDS, method=method)
    expected = np.empty(48)
    for train, test in problem.folds():
        expected[test] = fit_by_hand(samples, problem.y, train)(rows(samples, test))
    if method == "predict":
        np.testing.assert_array_equal(result, expected > 0)
    else:
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_cross_validate(problem):
    result = cross_validate(
        make_pipe(),
        problem.X,
        problem.y,
        cv=FOLDS,
        scoring=["f1", "average_precision"],
        return_train_score=True,
        return_estimator=True,
        return_indices=True,
        error_score="raise",
    )
    for k, (train, test) in enumerate(problem.folds()):
        np.testing.assert_array_equal(result["indices"]["test"][k], test)
        for part, name in ((train, "train_f1"), (test, "test_f1")):
            expected = score_by_hand(problem.samples, problem.y, train, part)
            assert result[name][k] == pytest.approx(expected)
        decide = fit_by_hand(problem.samples, problem.y, train)
        np.testing.assert_allclose(
            result["estimator"][k].decision_function(problem.X),
            decide(problem.samples),
            rtol=1e-4,
            atol=1e-5,
        )


def test_tuned_threshold(problem):
    def tuned(X):
        return TunedThresholdClassifierCV(
            make_pipe(),
            scoring="f1",
            thresholds=20,
            cv=FOLDS,
            response_method="decision_function",
        ).fit(X, problem.y)

    ragged, listed = tuned(problem.X), tuned(problem.samples)
    assert ragged.best_threshold_ == pytest.approx(listed.best_threshold_)
    assert ragged.best_score_ == pytest.approx(listed.best_score_)
    decision = fit_by_hand(problem.samples, problem.y, np.arange(48))(problem.samples)
    assert ragged.best_threshold_ != 0
    np.testing.assert_array_equal(ragged.predict(problem.X), decision >= ragged.best_threshold_)


@pytest.mark.usefixtures("lists_are_taken")
def test_calibration(problem):
    def calibrated(X):
        return CalibratedClassifierCV(make_pipe(), cv=FOLDS).fit(X, problem.y)

    ragged = calibrated(problem.X).predict_proba(problem.X)[:, 1]
    listed = calibrated(problem.samples).predict_proba(problem.samples)[:, 1]
    np.testing.assert_allclose(ragged, listed, rtol=1e-4)
    decisions = []
    for train, test in problem.folds():
        decide = fit_by_hand(problem.samples, problem.y, train)
        # Platt's sigmoid, fitted on the part held out.
        sigmoid = _SigmoidCalibration().fit(decide(rows(problem.samples, test)), problem.y[test])
        decisions.append(sigmoid.predict(decide(problem.samples)))
    np.testing.assert_allclose(ragged, np.mean(decisions, axis=0), rtol=1e-3)


def test_multioutput(problem):
    both = MultiOutputClassifier(make_pipe()).fit(problem.X, problem.indicator)
    found = both.predict(problem.X)
    for c, y in enumerate(problem.indicator.T):
        decide = fit_by_hand(problem.samples, y, np.arange(48))
        np.testing.assert_array_equal(found[:, c], decide(problem.samples) > 0)
    assert (found[:, 0] != found[:, 1]).any()


def test_tuned_thresholds_of_several_concepts(problem):
    tuned = TunedThresholdClassifierCV(make_pipe(), scoring="f1", thresholds=20, cv=FOLDS)
    both = MultiOutputClassifier(tuned).fit(problem.X, problem.indicator)
    for c, y in enumerate(problem.indicator.T):
        alone = clone(tuned).fit(problem.samples, y)
        assert both.estimators_[c].best_threshold_ == pytest.approx(alone.best_threshold_)
        np.testing.assert_array_equal(both.predict(problem.X)[:, c], alone.predict(problem.samples))


def test_voting(problem):
    members = [(f"d{d}", make_pipe(delta=d)) for d in DELTAS]
    vote = VotingClassifier(members, voting="hard").fit(problem.X, problem.y)
    found = [
        fit_by_hand(problem.samples, problem.y, np.arange(48), delta=d)(problem.samples) > 0
        for d in DELTAS
    ]
    np.testing.assert_array_equal(vote.predict(problem.X), np.sum(found, axis=0) >= 2)
    # Both ways to be outvoted occur.
    assert {1, 2} <= set(np.sum(found, axis=0).tolist())


def test_stacking(problem):
    members = [(f"d{d}", make_pipe(delta=d)) for d in (0.1, 0.9)]
    stacked = StackingClassifier(
        members, LogisticRegression(), cv=FOLDS, stack_method="decision_function"
    ).fit(problem.X, problem.y)
    held_out, full = np.empty((48, 2)), np.empty((48, 2))
    for column, delta in enumerate((0.1, 0.9)):
        for train, test in problem.folds():
            decide = fit_by_hand(problem.samples, problem.y, train, delta=delta)
            held_out[test, column] = decide(rows(problem.samples, test))
        decide = fit_by_hand(problem.samples, problem.y, np.arange(48), delta=delta)
        full[:, column] = decide(problem.samples)
    last = LogisticRegression().fit(held_out, problem.y)
    np.testing.assert_allclose(
        stacked.predict_proba(problem.X), last.predict_proba(full), rtol=1e-3
    )


def test_learning_curve(problem):
    sizes, train_scores, test_scores = learning_curve(
        make_pipe(),
        problem.X,
        problem.y,
        cv=FOLDS,
        scoring="f1",
        train_sizes=[0.5, 1.0],
        error_score="raise",
    )
    assert sizes.tolist() == [16, 32]
    for row, size in enumerate(sizes):
        for k, (train, test) in enumerate(problem.folds()):
            part = train[:size]
            for scores, judged in ((train_scores, part), (test_scores, test)):
                expected = score_by_hand(problem.samples, problem.y, part, judged)
                assert scores[row, k] == pytest.approx(expected)


def test_pipeline_memory(problem, tmp_path):
    plain = make_pipe().fit(problem.X, problem.y)
    for _ in range(2):  # the second time from the cache
        cached = make_pipe(memory=str(tmp_path)).fit(problem.X, problem.y)
        np.testing.assert_array_equal(cached.predict(problem.X), plain.predict(problem.X))
        np.testing.assert_array_equal(cached[-1].thresholds_, plain[-1].thresholds_)
    assert len(list(tmp_path.rglob("output.pkl"))) == 2
    # Other tokens, other samples of the same tokens, and another source are other keys.
    moved = problem.X.with_values(problem.X.values + 1, source=problem.X.source)
    for X, y in (
        (moved, problem.y),
        (problem.X[::-1], problem.y[::-1]),
        (problem.X.with_source(Source(model="n")), problem.y),
    ):
        before = len(list(tmp_path.rglob("output.pkl")))
        cached = make_pipe(memory=str(tmp_path)).fit(X, y)
        plain = make_pipe().fit(X, y)
        np.testing.assert_allclose(cached[0].mean_, plain[0].mean_)
        np.testing.assert_allclose(cached[-1].thresholds_, plain[-1].thresholds_)
        assert cached[0].source_ == X.source
        assert len(list(tmp_path.rglob("output.pkl"))) == before + 2


def test_clone_and_pickle(problem):
    big = Problem(n_samples=200, n_features=64)
    fitted = make_pipe(delta=0.9).fit(big.X, big.y)
    copy = clone(fitted)
    assert copy.get_params()["detect__delta"] == 0.9
    with pytest.raises(NotFittedError):
        copy.predict(big.X)
    np.testing.assert_array_equal(copy.fit(big.X, big.y).predict(big.X), fitted.predict(big.X))
    # A fitted pipeline keeps no tokens.
    saved = pickle.dumps(fitted)
    assert len(saved) < big.X.values.nbytes / 20
    np.testing.assert_array_equal(pickle.loads(saved).predict(big.X), fitted.predict(big.X))


def test_token_labels_without_routing(problem):
    """GridSearchCV cuts what is as long as X, TokenArray and list alike."""
    expected = table_by_hand(
        problem.samples, problem.y, problem.folds(), labels=problem.first_labels
    )
    weak = table_by_hand(problem.samples, problem.y, problem.folds())
    assert np.abs(expected - weak).max() > 0.01
    labels = problem.token_labels.columns([0])
    for given in (labels, problem.first_labels):
        search = make_search().fit(problem.X, problem.y, concepts__token_labels=given)
        np.testing.assert_allclose(table_of(search), expected)
    alone = make_pipe().fit(problem.X, problem.y, concepts__token_labels=labels)
    decide = fit_by_hand(problem.samples, problem.y, np.arange(48), labels=problem.first_labels)
    np.testing.assert_array_equal(alone.predict(problem.X), decide(problem.samples) > 0)


def routed_by_hand(problem, train, test, delta, y, labels, method=None):
    """As above, but the detector sees the labels as well, as routing hands them to all."""
    part, marks = rows(problem.samples, train), rows(labels, train)
    scale = TokenScaler().fit(part)
    concepts = LinearSeparator() if method is None else clone(method)
    scores = concepts.fit_transform(scale.transform(part), y[train], token_labels=marks)
    detect = SuperActivator(delta=delta).fit(scores, y[train], token_labels=marks)
    scores = concepts.transform(scale.transform(rows(problem.samples, test)))
    return detect.predict(scores), detect.superactivators(scores)


@pytest.mark.parametrize("target", ["y", "indicator"])
@pytest.mark.parametrize("crossed", [False, True])
def test_token_labels_are_routed_fold_by_fold(problem, routing, target, crossed):
    y = getattr(problem, target)
    labels = problem.first_labels if target == "y" else problem.labels
    scoring = {} if target == "y" else {"average": "weighted"}
    method = LinearSeparator()
    if crossed:
        method = CrossFitTransformer(method, cv=3, random_state=0)
    pipe = make_pipe().set_params(concepts=method)
    folds = problem.folds(y)
    search = make_search(pipe, cv=folds, scoring="f1" if target == "y" else "f1_weighted")
    search.fit(problem.X, y, token_labels=TokenArray.from_list(labels))
    expected = [
        [
            f1_score(
                y[test],
                routed_by_hand(problem, train, test, delta, y, labels, method)[0],
                **scoring,
            )
            for train, test in folds
        ]
        for delta in DELTAS
    ]
    np.testing.assert_allclose(table_of(search), expected)
    weak = make_search(pipe, cv=folds, scoring=search.scoring).fit(problem.X, y)
    assert np.abs(table_of(weak) - expected).max() > 0.01
    # The refit on all rows, and a stack cut by the same routing.
    everything, best = np.arange(48), search.best_params_["detect__delta"]
    found, _ = routed_by_hand(problem, everything, everything, best, y, labels, method)
    np.testing.assert_array_equal(search.predict(problem.X), found)


def test_token_labels_are_routed_with_a_stack(problem, routing):
    pipe = Pipeline([("layer", SelectLayer(layer=8)), *make_pipe().steps])
    grid = {"detect__delta": DELTAS}
    search = make_search(pipe, grid).fit(
        problem.stack, problem.y, token_labels=problem.token_labels.columns([0])
    )
    single = make_search().fit(problem.X, problem.y, token_labels=problem.token_labels.columns([0]))
    np.testing.assert_allclose(table_of(search), table_of(single))


@pytest.mark.parametrize("crossed", [False, True])
def test_search_by_token_f1(problem, routing, crossed):
    method = LinearSeparator()
    if crossed:
        method = CrossFitTransformer(method, cv=3, random_state=0)
    pipe = make_pipe().set_params(concepts=method)
    folds = problem.folds(problem.indicator)
    search = make_search(pipe, cv=folds, scoring=token_f1_scorer)
    search.fit(problem.X, problem.indicator, token_labels=problem.token_labels)
    expected = np.empty((3, 3))
    for i, delta in enumerate(DELTAS):
        for k, (train, test) in enumerate(folds):
            _, marks = routed_by_hand(
                problem, train, test, delta, problem.indicator, problem.labels, method
            )
            expected[i, k] = f1_score(
                np.concatenate(rows(problem.labels, test)),
                np.concatenate(marks.to_list()),
                average="weighted",
            )
    np.testing.assert_allclose(table_of(search), expected)
    assert search.best_score_ == pytest.approx(expected.mean(axis=1).max())
    marks = superactivators(search, problem.X)
    assert search.score(
        problem.X, problem.indicator, token_labels=problem.token_labels
    ) == pytest.approx(token_f1_score(problem.token_labels, marks))


def test_frozen_concepts_with_a_calibration_split(problem):
    train, calibration = np.arange(0, 48, 2), np.arange(1, 48, 2)
    y, labels = problem.indicator, problem.token_labels
    fitted = Pipeline(make_pipe().steps[:-1]).fit(
        problem.X[train], y[train], concepts__token_labels=labels[train]
    )
    pipe = Pipeline([("frozen", FrozenEstimator(fitted)), ("detect", SuperActivator(delta=0.2))])
    pipe.fit(problem.X[calibration], y[calibration], detect__token_labels=labels[calibration])

    scale = TokenScaler().fit(rows(problem.samples, train))
    concepts = LinearSeparator().fit(
        scale.transform(rows(problem.samples, train)), y[train], rows(problem.labels, train)
    )
    scores = concepts.transform(scale.transform(rows(problem.samples, calibration)))
    expected = [
        np.quantile(np.concatenate(scores.to_list())[marked, c].astype(float), 0.8)
        for c, marked in enumerate(np.concatenate(rows(problem.labels, calibration)).T)
    ]
    np.testing.assert_allclose(pipe[-1].thresholds_, expected, rtol=1e-5)
    new = Problem(seed=1)
    pooled = [concepts.transform(scale.transform([s]))[0].max(axis=0) for s in new.samples]
    np.testing.assert_array_equal(pipe.predict(new.X), np.array(pooled) >= expected)
    # Control: concepts that are not frozen would be fitted again, on the calibration rows.
    thawed = Pipeline([("concepts", clone(fitted)), ("detect", SuperActivator(delta=0.2))])
    thawed.fit(problem.X[calibration], y[calibration], detect__token_labels=labels[calibration])
    assert np.abs(thawed[-1].thresholds_ - expected).max() > 0.01
    # A search leaves them frozen as well.
    search = make_search(pipe, cv=KFold(2), scoring="f1_weighted")
    search.fit(problem.X[calibration], y[calibration])
    np.testing.assert_array_equal(
        search.best_estimator_[0].estimator[-1].concept_vectors_, fitted[-1].concept_vectors_
    )


def test_methods_and_detectors_in_the_grid(problem):
    grid = {
        "concepts": [MeanPrototype(), CrossFitTransformer(MeanPrototype(), cv=2, random_state=0)],
        "detect": [SuperActivator(delta=0.5), MaxToken(delta=0.5)],
    }
    search = make_search(grid=grid).fit(problem.X, problem.y)
    for i, params in enumerate(search.cv_results_["params"]):
        for k, (train, test) in enumerate(problem.folds()):
            part, scale, concepts, detect = (
                rows(problem.samples, train),
                TokenScaler(),
                clone(params["concepts"]),
                clone(params["detect"]),
            )
            scores = concepts.fit_transform(scale.fit_transform(part), problem.y[train])
            detect.fit(scores, problem.y[train])
            found = detect.predict(concepts.transform(scale.transform(rows(problem.samples, test))))
            assert table_of(search)[i, k] == pytest.approx(f1_score(problem.y[test], found))
