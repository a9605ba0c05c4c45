"""CrossFitTransformer against a loop over the same folds, written out by hand."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    KFold,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from skact import (
    CrossFitTransformer,
    KMeansConcepts,
    LinearSeparator,
    MeanPrototype,
    SuperActivator,
    TokenArray,
)
from skact.base import TokensOutMixin


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep tiny matrices from waking a pool of threads, which takes longer than the sums."""
    with threadpool_limits(1):
        yield


def make_problem(seed=0, n_samples=40, n_features=5, *, signal=2.0, multilabel=False):
    """Samples of 1 to 5 tokens; the first token of a positive sample carries the concept."""
    rng = np.random.default_rng(seed)
    n_concepts = 2 if multilabel else 1
    present = rng.random((n_samples, n_concepts)) < 0.5
    samples, labels = [], []
    for row in present:
        n_tokens = rng.integers(1, 6)
        sample = rng.normal(size=(n_tokens, n_features))
        label = np.zeros((n_tokens, n_concepts), bool)
        sample[0, :n_concepts] += signal * row
        label[0] = row
        samples.append(sample)
        labels.append(label)
    y = present.astype(int) if multilabel else present[:, 0].astype(int)
    return TokenArray.from_list(samples), y, TokenArray.from_list(labels)


def by_hand(method, folds, X, y, token_labels=None):
    """Out-of-fold scores, sample by sample, on plain lists."""
    samples = X.to_list()
    scores = [None] * len(samples)
    for train, test in folds:
        labels = {} if token_labels is None else {"token_labels": [token_labels[i] for i in train]}
        fitted = clone(method).fit([samples[i] for i in train], y[train], **labels)
        for i in test:
            scores[i] = fitted.transform([samples[i]])[0]
    return scores


def assert_scores(result, expected):
    assert len(result) == len(expected)
    for got, wanted in zip(result, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


METHODS = [MeanPrototype(), LinearSeparator()]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_scores_are_those_of_a_loop_over_folds(method, multilabel, labelled):
    X, y, token_labels = make_problem(multilabel=multilabel)
    token_labels = token_labels if labelled else None
    splitter = KFold if multilabel else StratifiedKFold
    folds = list(splitter(4, shuffle=True, random_state=3).split(np.zeros(len(y)), y))
    expected = by_hand(method, folds, X, y, token_labels)

    crossed = CrossFitTransformer(method, cv=4, random_state=3)
    result = crossed.fit_transform(X, y, token_labels)
    assert_scores(result, expected)
    assert result.lengths.tolist() == X.lengths.tolist()
    # The same folds as a splitter and as an iterable of indices.
    assert_scores(CrossFitTransformer(method, cv=folds).fit_transform(X, y, token_labels), expected)
    # The control: scores of a model that saw the rows are others.
    seen = clone(method).fit(X, y, token_labels).transform(X)
    assert np.abs(seen.flat() - result.flat()).max() > 1e-2
    # transform is the full fit.
    np.testing.assert_array_equal(crossed.transform(X).flat(), seen.flat())
    np.testing.assert_array_equal(
        CrossFitTransformer(method).fit(X, y, token_labels).transform(X).flat(), seen.flat()
    )
    assert crossed.n_features_in_ == 5
    assert crossed.get_feature_names_out().tolist() == list(seen.feature_names)


def test_lists_and_matrices_are_taken_like_tokens():
    X, y, token_labels = make_problem()
    crossed = CrossFitTransformer(MeanPrototype(), random_state=0)
    tokens = crossed.fit_transform(X, y, token_labels)
    listed = crossed.fit_transform(X.to_list(), y.tolist(), token_labels.to_list())
    np.testing.assert_allclose(listed.flat(), tokens.flat())
    matrix = X.mean()
    out = crossed.fit_transform(matrix, y)
    assert type(out) is np.ndarray
    one_token = crossed.fit_transform([row[None] for row in matrix], y)
    np.testing.assert_allclose(out, one_token.flat())
    assert type(crossed.transform(matrix)) is np.ndarray


def test_matrices_follow_set_output_of_the_cross_fit_alone(rng):
    X, y = rng.normal(size=(20, 3)), np.arange(20) % 2
    inner = MeanPrototype().set_output(transform="pandas")
    crossed = CrossFitTransformer(inner, cv=2, random_state=0)
    expected = crossed.fit_transform(X, y)
    assert type(expected) is type(crossed.transform(X)) is np.ndarray
    frame = crossed.set_output(transform="pandas").fit_transform(X, y)
    assert frame.columns.tolist() == ["1"]
    np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_cut_with_the_folds(method):
    X, y, token_labels = make_problem()
    weight = np.arange(len(y)) % 4
    folds = list(StratifiedKFold(4).split(np.zeros(len(y)), y))
    crossed = CrossFitTransformer(method, cv=folds)
    result = crossed.fit_transform(X, y, token_labels, sample_weight=weight)
    for train, test in folds:
        alone = clone(method).fit(X[train], y[train], token_labels[train], weight[train])
        np.testing.assert_array_equal(result[test].flat(), alone.transform(X[test]).flat())
    whole = clone(method).fit(X, y, token_labels, weight).transform(X)
    np.testing.assert_array_equal(crossed.transform(X).flat(), whole.flat())
    plain = CrossFitTransformer(method, cv=folds).fit_transform(X, y, token_labels)
    assert np.abs(plain.flat() - result.flat()).max() > 1e-3
    with pytest.raises(ValueError, match="sample_weight must have one entry per sample"):
        crossed.fit_transform(X, y, sample_weight=weight[1:])


@pytest.mark.usefixtures("routing")
def test_weights_reach_a_cross_fit_in_a_pipeline():
    X, y, token_labels = make_problem()
    weight = np.arange(len(y)) % 4
    crossed = CrossFitTransformer(MeanPrototype(), cv=3, random_state=0)
    line = make_pipeline(
        crossed.set_fit_request(sample_weight=True),
        SuperActivator().set_fit_request(sample_weight=True),
    ).fit(X, y, token_labels=token_labels, sample_weight=weight)
    scores = clone(crossed).fit_transform(X, y, token_labels, sample_weight=weight)
    expected = SuperActivator().fit(scores, y, token_labels, weight).thresholds_
    np.testing.assert_array_equal(line[-1].thresholds_, expected)


class WhoFittedMe(TokensOutMixin, BaseEstimator):
    """Scores a sample by the number of its tokens among the training tokens."""

    def fit(self, X, y=None):
        self.seen_ = set(X.flat()[:, 0].tolist())
        return self

    def transform(self, X):
        return X.map(lambda block: np.isin(block[:, :1], list(self.seen_)).astype(np.float32))


def test_no_row_is_scored_by_a_model_that_saw_it():
    X, y, _ = make_problem()
    crossed = CrossFitTransformer(WhoFittedMe(), cv=3)
    assert not crossed.fit_transform(X, y).flat().any()
    assert crossed.transform(X).flat().all()


def test_plain_scores_of_noise_are_optimistic_and_crossed_ones_are_not():
    """With labels that mean nothing, an honest score cannot rank better than chance."""
    plain, crossed = [], []
    for seed in range(12):
        X, y, _ = make_problem(seed, n_samples=60, n_features=20, signal=0.0)
        plain.append(roc_auc_score(y, LinearSeparator().fit(X, y).transform(X).mean()))
        honest = CrossFitTransformer(LinearSeparator(), random_state=seed).fit_transform(X, y)
        crossed.append(roc_auc_score(y, honest.mean()))
    assert np.mean(plain) > 0.75
    assert np.mean(crossed) < 0.58


def test_a_pipeline_sets_thresholds_on_out_of_fold_scores():
    X, y, token_labels = make_problem()
    crossed = CrossFitTransformer(LinearSeparator(), random_state=0)
    pipe = make_pipeline(crossed, SuperActivator(delta=0.3)).fit(
        X, y, crossfittransformer__token_labels=token_labels
    )
    honest = clone(crossed).fit_transform(X, y, token_labels)
    expected = SuperActivator(delta=0.3).fit(honest, y)
    np.testing.assert_allclose(pipe[-1].thresholds_, expected.thresholds_)
    full = LinearSeparator().fit(X, y, token_labels).transform(X)
    np.testing.assert_array_equal(pipe.predict(X), expected.predict(full))
    assert np.abs(SuperActivator(delta=0.3).fit(full, y).thresholds_ - pipe[-1].thresholds_) > 1e-3


def test_folds_in_parallel_are_the_same():
    X, y, token_labels = make_problem()
    one = CrossFitTransformer(LinearSeparator(), random_state=0)
    two = clone(one).set_params(n_jobs=2)
    np.testing.assert_array_equal(
        one.fit_transform(X, y, token_labels).flat(), two.fit_transform(X, y, token_labels).flat()
    )


def test_random_state_fixes_the_folds():
    X, y, _ = make_problem()

    def scores(**options):
        return CrossFitTransformer(MeanPrototype(), **options).fit_transform(X, y).flat()

    np.testing.assert_array_equal(scores(random_state=1), scores(random_state=1))
    assert np.abs(scores(random_state=1) - scores(random_state=2)).max() > 1e-3
    np.testing.assert_array_equal(scores(shuffle=False), scores(shuffle=False))


def test_data_sorted_by_concept_are_shuffled():
    X, y, _ = make_problem(signal=6.0)
    rows = np.concatenate([np.flatnonzero(y == 1)[:15], np.flatnonzero(y == 0)[:15]])
    X, first = X[rows], y[rows]
    y = np.column_stack([first, 1 - first])
    shuffled = CrossFitTransformer(MeanPrototype(), cv=2, random_state=0).fit_transform(X, y)
    assert len(shuffled) == 30
    assert roc_auc_score(first, shuffled.max()[:, 0]) > 0.8
    # The control: unshuffled halves hold one concept each.
    with pytest.raises(ValueError, match=r"fold 1 of 2.*concept 0 has no positive sample"):
        CrossFitTransformer(MeanPrototype(), cv=2, shuffle=False).fit_transform(X, y)
    # Class labels are stratified, so they need no shuffling.
    crossed = CrossFitTransformer(MeanPrototype(), cv=2, shuffle=False)
    assert len(crossed.fit_transform(X, first)) == 30


@pytest.mark.parametrize(
    "cv",
    [
        ShuffleSplit(3, test_size=0.5, random_state=0),
        TimeSeriesSplit(3),
        PredefinedSplit([-1, *np.arange(39) % 3]),
        [(np.arange(20, 40), np.arange(20)), (np.arange(20), np.arange(10, 40))],
        # Each row at most once, but the last rows not at all.
        [(np.arange(10, 40), np.arange(10)), (np.arange(10), np.arange(10, 30))],
    ],
    ids=["shuffle", "time", "first row never", "some twice", "last rows never"],
)
def test_folds_that_are_no_partition_are_refused(cv):
    X, y, _ = make_problem()
    with pytest.raises(ValueError, match="every sample into exactly one test fold"):
        CrossFitTransformer(MeanPrototype(), cv=cv).fit_transform(X, y)


class Counted(WhoFittedMe):
    n_fits = 0

    def fit(self, X, y=None):
        Counted.n_fits += 1
        return super().fit(X, y)


def test_bad_folds_are_refused_before_any_work():
    X, y, _ = make_problem()
    Counted.n_fits = 0
    with pytest.raises(ValueError, match="exactly one test fold"):
        CrossFitTransformer(Counted(), cv=ShuffleSplit(3, random_state=0)).fit_transform(X, y)
    assert Counted.n_fits == 0


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_rare_concept_is_reported_with_its_fold(n_jobs):
    X, _, _ = make_problem()
    y = np.zeros((40, 2), int)
    y[::2, 0] = 1
    y[33, 1] = 1  # the only one, in the last of four folds
    crossed = CrossFitTransformer(MeanPrototype(), cv=4, shuffle=False, n_jobs=n_jobs)
    with pytest.raises(ValueError, match=r"in fold 4 of 4 .*concept 1 has no positive sample"):
        crossed.fit_transform(X, y)
    # A fit on all rows is fine.
    assert crossed.fit(X, y).transform(X).shape == (40, 2)


def test_parameters_reach_the_concept_method():
    X, y, _ = make_problem()
    crossed = CrossFitTransformer(LinearSeparator(weight_decay=0.5), cv=3, random_state=0)
    assert crossed.get_params()["estimator__weight_decay"] == 0.5
    pipe = make_pipeline(crossed, SuperActivator())
    pipe.set_params(crossfittransformer__estimator__weight_decay=10.0)
    assert crossed.estimator.weight_decay == 10.0
    strong = clone(crossed).fit(X, y).estimator_.concept_vectors_
    weak = clone(crossed).set_params(estimator__weight_decay=0.1).fit(X, y)
    assert np.linalg.norm(strong) < 0.5 * np.linalg.norm(weak.estimator_.concept_vectors_)
    copy = clone(weak)
    assert copy.get_params()["estimator__weight_decay"] == 0.1
    assert copy.estimator is not weak.estimator
    # The parameter is a recipe and is never fitted itself.
    assert not hasattr(weak.estimator, "concept_vectors_")
    with pytest.raises(NotFittedError):
        copy.transform(X)
    for attribute in ("n_features_in_", "get_feature_names_out"):
        with pytest.raises((NotFittedError, AttributeError)):
            getattr(copy, attribute)()


def test_bad_parameters():
    X, y, _ = make_problem()
    for options in ({"estimator": "mean"}, {"cv": 1.5}, {"shuffle": "no"}, {"n_jobs": "all"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            CrossFitTransformer(**{"estimator": MeanPrototype(), **options}).fit(X, y)


@pytest.mark.parametrize("wrap", [lambda units: units, lambda units: make_pipeline(units)])
def test_units_without_labels_are_refused(wrap, rng):
    X, y = rng.normal(size=(30, 4)), np.arange(30) % 2
    with pytest.raises(ValueError, match="KMeansConcepts finds its units without labels"):
        CrossFitTransformer(wrap(KMeansConcepts(3))).fit_transform(X, y)
