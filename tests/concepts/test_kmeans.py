import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pytest
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from skact import LinearSeparator, TokenArray
from skact.concepts import _kmeans, _lloyd, _logistic
from skact.concepts._kmeans import KMeansConcepts, elbow_curve
from skact.concepts._kmeans_separator import KMeansSeparator
from skact.concepts._lloyd import nearest

METHODS = [KMeansConcepts, KMeansSeparator]


@pytest.fixture
def tokens(rng):
    """Ragged tokens around five centres."""
    centres = 6 * rng.normal(size=(5, 6))
    lengths = rng.integers(1, 9, size=60)
    return TokenArray.from_list(
        [centres[rng.integers(5, size=n)] + rng.normal(size=(n, 6)) for n in lengths]
    )


def slow_kmeans(X, k, seed, max_iter):
    """Lloyd's iteration from randomly chosen tokens, token by token."""
    centroids = X[np.random.RandomState(seed).permutation(len(X))[:k]]
    n_iter = 0
    while n_iter < max_iter:
        n_iter += 1
        labels = [int(np.argmin([((z - v) ** 2).sum() for v in centroids])) for z in X]
        new = np.array([X[np.equal(labels, j)].mean(axis=0) for j in range(k)])
        if np.allclose(new, centroids, rtol=0, atol=1e-12):
            break
        centroids = new
    inertia = sum(min(((z - v) ** 2).sum() for v in centroids) for z in X)
    return centroids, inertia, n_iter


@pytest.mark.parametrize("max_iter", [1, 3, 300])
def test_equals_lloyd_written_slowly(tokens, max_iter):
    method = KMeansConcepts(5, max_iter=max_iter, random_state=1).fit(tokens)
    centroids, inertia, n_iter = slow_kmeans(tokens.flat(), 5, 1, max_iter)
    np.testing.assert_allclose(method.concept_vectors_, centroids, atol=1e-5)
    assert method.inertia_ == pytest.approx(inertia, rel=1e-5)
    assert method.n_iter_ <= max_iter
    assert abs(method.n_iter_ - n_iter) <= 1
    other, *_ = slow_kmeans(tokens.flat(), 5, 2, max_iter)
    assert not np.allclose(method.concept_vectors_, other, atol=1e-3)


def test_every_token_takes_part(rng):
    # faiss by itself would train on 256 tokens a centroid, which miss the few far tokens.
    X = np.r_[rng.normal(size=(5000, 2)), rng.normal(size=(3, 2)) + 1000]
    method = KMeansConcepts(2, n_init=3, random_state=0).fit(X)
    np.testing.assert_allclose(
        method.concept_vectors_.max(axis=0), X[5000:].mean(axis=0), rtol=1e-6
    )
    labels, _ = nearest(X, method.concept_vectors_)
    for k in range(2):
        mean = X[labels == k].mean(axis=0)
        np.testing.assert_allclose(method.concept_vectors_[k], mean, atol=1e-4)


def test_a_large_common_part_does_no_harm(tokens):
    near = KMeansConcepts(5, random_state=0).fit(tokens)
    far = KMeansConcepts(5, random_state=0).fit(tokens.map(lambda x: x + 1e6))
    np.testing.assert_allclose(far.concept_vectors_ - 1e6, near.concept_vectors_, atol=1e-4)
    assert far.inertia_ == pytest.approx(near.inertia_, rel=1e-5)


@pytest.mark.parametrize("estimator", [KMeansConcepts, KMeansSeparator])
def test_minibatches_come_near_the_full_iteration(rng, estimator):
    centres = 5 * rng.normal(size=(6, 8))
    X = centres[rng.integers(6, size=6000)] + rng.normal(size=(6000, 8))
    full, near, again = (
        estimator(6, backend=name, n_init=4, random_state=0).fit(X)
        for name in ("faiss", "minibatch", "minibatch")
    )
    assert full.inertia_ < near.inertia_ < 1.02 * full.inertia_
    np.testing.assert_array_equal(near.concept_vectors_, again.concept_vectors_)
    labels, _ = nearest(X, getattr(near, "centroids_", near.concept_vectors_))
    one = KMeansConcepts(1, random_state=0).fit(X)
    assert len(np.unique(labels)) == 6
    assert one.inertia_ > 3 * near.inertia_


def test_more_runs_never_raise_the_inertia(rng):
    X = rng.normal(size=(300, 4))
    inertias = [KMeansConcepts(10, n_init=n, random_state=0).fit(X).inertia_ for n in (1, 3, 9)]
    assert inertias[0] > inertias[2]
    assert sorted(inertias, reverse=True) == inertias


def test_scores_are_cosines_and_dot_products(tokens):
    method = KMeansConcepts(5, random_state=0).fit(tokens)
    for z, row in zip(tokens[3], method.transform(tokens)[3], strict=True):
        for v, score in zip(method.concept_vectors_, row, strict=True):
            assert score == pytest.approx(z @ v / np.sqrt(z @ z) / np.sqrt(v @ v))
    np.testing.assert_array_equal(method.transform(np.zeros((1, 6))), np.zeros((1, 5)))
    separator = KMeansSeparator(5, random_state=0).fit(tokens)
    expected = tokens.flat() @ separator.concept_vectors_.T
    np.testing.assert_allclose(separator.transform(tokens).flat(), expected)


def one_hot(tokens, centroids):
    labels, _ = nearest(tokens.flat(), centroids)
    return tokens.with_values(labels[:, None] == np.arange(len(centroids)))


@pytest.mark.parametrize("working_memory", [1024, 0])
def test_separator_is_that_of_one_hot_labels(tokens, working_memory):
    with sklearn.config_context(working_memory=working_memory):
        method = KMeansSeparator(5, weight_decay=1e-2, random_state=0).fit(tokens)
    labels = one_hot(tokens, method.centroids_)
    expected = LinearSeparator(weight_decay=1e-2).fit(tokens, labels.max(), token_labels=labels)
    np.testing.assert_allclose(method.concept_vectors_, expected.concept_vectors_, rtol=1e-4)
    assert method.separator_n_iter_ == expected.n_iter_
    centroids = KMeansConcepts(5, random_state=0).fit(tokens).concept_vectors_
    np.testing.assert_allclose(method.centroids_, centroids, atol=1e-5)


def test_separator_is_a_logistic_regression_per_cluster(tokens):
    method = KMeansSeparator(5, weight_decay=1e-2, random_state=0).fit(tokens)
    labels = one_hot(tokens, method.centroids_).flat()
    for k in range(5):
        expected = LogisticRegression(
            C=1 / (1e-2 * tokens.n_tokens),
            fit_intercept=False,
            class_weight="balanced",
            tol=1e-10,
            max_iter=10_000,
        ).fit(tokens.flat(), labels[:, k])
        np.testing.assert_allclose(method.concept_vectors_[k], expected.coef_[0], rtol=5e-3)
        other = method.concept_vectors_[(k + 1) % 5]
        assert not np.allclose(other, expected.coef_[0], rtol=0.1)


def test_separator_holds_no_matrix_of_memberships(rng, monkeypatch):
    monkeypatch.setattr(_logistic, "_SCORES", 2**16)
    monkeypatch.setattr(_lloyd, "_DISTANCES", 2**16)
    X = rng.normal(size=(60_000, 2)).astype(np.float32)
    method = KMeansSeparator(400, max_iter=1, separator_max_iter=1, random_state=0)
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        method.fit(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000 * 400 / 3  # of one byte per token and cluster


@pytest.mark.parametrize("Method", METHODS)
def test_fewer_distinct_tokens_than_clusters(Method):
    X = np.repeat([[1.0, 2.0], [3.0, -1.0]], 10, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"of the 4 clusters hold no token"):
        method = Method(4, random_state=0, max_iter=5).fit(X)
    assert method.concept_vectors_.shape == (4, 2)
    assert np.isfinite(method.concept_vectors_).all()
    # faiss leaves a split centroid a thousandth beside its tokens.
    assert method.inertia_ < 1e-3
    if Method is KMeansSeparator:
        assert (method.concept_vectors_ == 0).all(axis=1).sum() == 2


@pytest.mark.parametrize("Method", METHODS)
def test_constant_tokens(Method):
    with pytest.warns(ConvergenceWarning, match="1 of the 2 clusters hold no token"):
        method = Method(2, random_state=0).fit(np.ones((6, 3)))
    assert np.isfinite(method.transform(np.ones((2, 3)))).all()


def test_as_many_clusters_as_tokens(rng):
    X = rng.normal(size=(7, 3))
    method = KMeansConcepts(7, random_state=0).fit(X)
    centroids = np.sort(method.concept_vectors_, axis=0)
    np.testing.assert_allclose(centroids, np.sort(X, axis=0), atol=1e-6)
    assert method.inertia_ == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("Method", METHODS)
def test_the_form_of_the_input_does_not_count(tokens, Method):
    method = Method(5, random_state=0).fit(tokens)
    stacked = Method(5, random_state=0).fit(tokens.flat())
    np.testing.assert_array_equal(method.concept_vectors_, stacked.concept_vectors_)
    backwards = tokens[::-1]
    view, copy = (Method(5, random_state=0).fit(x) for x in (backwards, backwards.compact()))
    np.testing.assert_array_equal(view.concept_vectors_, copy.concept_vectors_)
    with sklearn.config_context(working_memory=0):
        pieces = Method(5, random_state=0).fit(tokens)
        scores = pieces.transform(tokens)
    np.testing.assert_allclose(pieces.concept_vectors_, method.concept_vectors_, atol=1e-4)
    np.testing.assert_allclose(scores.flat(), method.transform(tokens).flat(), atol=1e-3)
    assert scores.source.columns == "units"
    assert scores.feature_names[0] == f"{Method.__name__.lower()}0"


@pytest.mark.parametrize("Method", METHODS)
def test_half_precision_is_read_in_single(tokens, Method):
    half = tokens.map(lambda x: x.astype(np.float16))
    a, b = (Method(5, random_state=0).fit(x) for x in (half, half.map(np.float32)))
    np.testing.assert_allclose(a.concept_vectors_, b.concept_vectors_, rtol=1e-5)
    assert a.transform(half).dtype == np.float32


@pytest.mark.parametrize("Method", METHODS)
def test_repeats_by_its_seed(rng, Method):
    X = rng.normal(size=(200, 5))

    def vectors(seed):
        return Method(6, random_state=seed).fit(X).concept_vectors_

    np.testing.assert_array_equal(vectors(0), vectors(0))
    np.testing.assert_array_equal(vectors(0), vectors(np.random.RandomState(0)))
    assert not np.allclose(vectors(0), vectors(1))


def test_elbow_is_at_the_number_of_centres(tokens):
    grid = [1, 2, 3, 4, 5, 6, 8, 12]
    curve = elbow_curve(tokens, grid, n_init=10, random_state=0)
    assert curve.shape == (8,)
    assert (np.diff(curve) < 1e-6).all()
    X = tokens.flat()
    assert curve[0] == pytest.approx(((X - X.mean(axis=0)) ** 2).sum(), rel=1e-5)
    drops = -np.diff(curve[:6])
    assert drops[3] > 5 * drops[4]
    np.testing.assert_array_equal(curve, elbow_curve(tokens, grid, n_init=10, random_state=0))


@pytest.mark.parametrize("grid", [[], [4, 2], [2, 2], [0, 3], [1.5, 2.5], ["a"]])
def test_elbow_refuses_a_bad_grid(tokens, grid):
    with pytest.raises(ValueError, match="n_concepts_grid must hold positive integers"):
        elbow_curve(tokens, grid)


def test_elbow_refuses_more_clusters_than_tokens_at_once(tokens, monkeypatch):
    monkeypatch.setattr(_kmeans, "kmeans", lambda *args, **kwargs: pytest.fail("work has begun"))
    with pytest.raises(ValueError, match="n_concepts=100000 clusters need at least"):
        elbow_curve(tokens, [1, 100_000])


BAD = [
    ({"n_concepts": 9}, None, r"n_concepts=9 clusters need at least 9 tokens, got 8 \(n_samples=4"),
    ({"n_concepts": 0}, None, "'n_concepts' parameter"),
    ({"n_concepts": 2.5}, None, "'n_concepts' parameter"),
    ({"max_iter": 0}, None, "'max_iter' parameter"),
    ({"n_init": 0}, None, "'n_init' parameter"),
    ({"backend": "torch"}, None, "'backend' parameter"),
    ({"backend": "auto"}, None, "'backend' parameter"),
    ({"n_concepts": 2}, np.nan, "NaN, first at sample 2, token 1, feature 0"),
    ({"n_concepts": 2}, np.inf, "infinity, first at sample 2, token 1, feature 0"),
]


@pytest.mark.parametrize(("params", "bad", "message"), BAD)
@pytest.mark.parametrize("Method", METHODS)
def test_bad_input(rng, Method, params, bad, message):
    X = rng.normal(size=(4, 2, 3))
    if bad is not None:
        X[2, 1, 0] = bad
    with pytest.raises(ValueError, match=message):
        Method(**params).fit(X)


def test_one_cluster_separates_nothing():
    with pytest.raises(ValueError, match="'n_concepts' parameter"):
        KMeansSeparator(1).fit(np.ones((3, 2)))
    with pytest.raises(ValueError, match="'weight_decay' parameter"):
        KMeansSeparator(weight_decay=-1.0).fit(np.ones((3, 2)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [KMeansConcepts(), KMeansSeparator()], ids=repr)
def test_battery(estimator):
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    count = Counter(result["status"] for result in results)
    assert count["passed"] >= 45
    assert set(count) == {"passed"}
