"""Epochs are reported to scikit-learn's callbacks, which may look at the estimator and stop it."""

import numpy as np
import pytest
from sklearn import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skact import (
    Adam,
    AutoencoderTraining,
    KMeansConcepts,
    LinearSeparator,
    MeanPrototype,
    Minibatch,
    SparseAutoencoder,
    SuperActivator,
    TokenArray,
    TokenScaler,
)

pytest.importorskip("sklearn.callback")

METHODS = [
    LinearSeparator(),
    LinearSeparator(Minibatch(n_passes=4), random_state=0),
    LinearSeparator(Adam(max_epochs=5, patience=9), random_state=0),
    KMeansConcepts(3, random_state=0),
    SparseAutoencoder(6, training=AutoencoderTraining(max_epochs=4), random_state=0),
]


class Recorder:
    """Remember each epoch; perhaps stop."""

    def __init__(self, stop_after=None, X=None):
        self.stop_after, self.X = stop_after, X
        self.events, self.scores = [], []

    def setup(self, estimator, context):
        self.events.append("setup")
        self.n_most = context.max_subtasks

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.events.append(f"end {context.task_name}")
        if context.task_name == "epoch":
            assert X is not None
            if self.X is not None:
                self.scores.append(fitted_estimator.transform(self.X))
        return self.stop_after is not None and self.events.count("end epoch") >= self.stop_after


@pytest.fixture
def problem(rng):
    X = TokenArray(rng.normal(size=(200, 4)).astype(np.float32), np.arange(0, 201, 5))
    return X, (X.max()[:, :2] > 1.2).astype(int)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_each_epoch_is_reported(problem, method):
    X, y = problem
    recorder = Recorder(X=X)
    quiet = clone(method).fit(X, y)
    method = clone(method).set_callbacks(recorder).fit(X, y)
    n_epochs = recorder.events.count("end epoch")
    assert n_epochs == recorder.events.count("begin epoch") == method.n_iter_ > 1
    assert n_epochs <= recorder.n_most
    assert recorder.events[:2] == ["setup", "begin fit"]
    assert recorder.events[-2:] == ["end fit", "teardown"]
    np.testing.assert_array_equal(method.concept_vectors_, quiet.concept_vectors_)
    # What the callback was given scores as the estimator itself does after its last epoch.
    last, final = recorder.scores[-1], method.transform(X)
    np.testing.assert_allclose(last.flat(), final.flat(), atol=1e-5)
    assert last.feature_names == final.feature_names
    assert not np.allclose(recorder.scores[0].flat(), final.flat(), atol=1e-5)
    assert not hasattr(method, "_epochs")


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_callback_may_stop(problem, method):
    X, y = problem
    recorder = Recorder(stop_after=2)
    method = clone(method).set_callbacks(recorder).fit(X, y)
    assert recorder.events.count("end epoch") == 2
    assert method.n_iter_ == 2


def test_a_failed_fit_is_torn_down(problem):
    X, y = problem
    recorder = Recorder()
    method = LinearSeparator("minibatch", balance="sample").set_callbacks(recorder)
    with pytest.raises(ValueError, match="balances by weights"):
        method.fit(X, y)
    assert recorder.events[-1] == "teardown"
    assert not hasattr(method, "_epochs")


def test_searches_and_pipelines_are_as_before(problem):
    X, y = problem
    pipe = make_pipeline(
        TokenScaler(), LinearSeparator(Minibatch(), random_state=0), SuperActivator()
    )
    grid = {"linearseparator__solver__n_passes": [1, 2]}
    search = GridSearchCV(pipe, grid, cv=2, scoring="f1_weighted", error_score="raise")
    expected = clone(search).fit(X, y).cv_results_["mean_test_score"]
    recorder = Recorder()
    pipe.set_params(linearseparator=pipe[1].set_callbacks(recorder))
    got = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(got, expected)
    assert not hasattr(MeanPrototype(), "set_callbacks")


def test_scikit_learns_own_callbacks_work(problem, capsys):
    from sklearn.callback import ProgressBar, ScoringMonitor

    pytest.importorskip("rich")
    X, y = problem
    monitor = ScoringMonitor(scoring=lambda estimator, X, y: {"n": len(estimator.transform(X))})
    method = LinearSeparator(Minibatch(n_passes=3)).set_callbacks(ProgressBar(), monitor)
    method.fit(X, y)
    assert "LinearSeparator" in capsys.readouterr().out
    assert [row["n"] for row in monitor.get_logs().data] == [len(X)] * 3


def test_without_callbacks_nothing_is_said(problem, capsys):
    X, y = problem
    LinearSeparator("minibatch").fit(X, y)
    assert capsys.readouterr().out == ""
