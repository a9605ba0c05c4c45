"""k-means as functions on tokens; what the estimators make of it is tested beside them."""

import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from skact import TokenArray
from skact.concepts import _lloyd
from skact.concepts._lloyd import _InBlocks, _InMemory, kmeans, nearest, update_means


@pytest.fixture
def tokens(rng):
    """Ragged tokens around five centres."""
    centres = 6 * rng.normal(size=(5, 6))
    lengths = rng.integers(1, 9, size=60)
    return TokenArray.from_list(
        [centres[rng.integers(5, size=n)] + rng.normal(size=(n, 6)) for n in lengths]
    )


@pytest.mark.parametrize("k", [2, 5, 12])
@pytest.mark.parametrize("working_memory", [1024, 0])
def test_a_step_is_that_of_scikit_learn(tokens, rng, k, working_memory):
    with sklearn.config_context(working_memory=working_memory):
        data = (_InMemory if working_memory else _InBlocks)(tokens)
        start = data.rows(rng.permutation(tokens.n_tokens)[:k])
        moved = data.step(start)
        labels, inertia = data.nearest(moved)
    centred = tokens.flat() - tokens.flat().mean(axis=0)
    expected = KMeans(k, init=start, n_init=1, max_iter=1, tol=0.0).fit(centred)
    np.testing.assert_allclose(moved, expected.cluster_centers_, atol=1e-5)
    np.testing.assert_array_equal(labels, expected.predict(centred))
    assert inertia == pytest.approx(-expected.score(centred), rel=1e-5)
    assert not np.allclose(moved, start, atol=1e-3)


def test_k_means_in_blocks_is_k_means(rng):
    values = rng.normal(size=(600, 4)) + 6 * rng.integers(0, 3, size=(600, 1))
    X = TokenArray(values.astype(np.float32), np.arange(0, 601, 6))
    options = {"max_iter": 300, "n_init": 2, "random_state": 3}
    whole = kmeans(X, 5, **options)
    for backend in ("faiss", "minibatch"):
        with sklearn.config_context(working_memory=0.01):
            pieces = kmeans(X, 5, backend=backend, **options)
        np.testing.assert_allclose(pieces.centroids, whole.centroids, atol=1e-4)
        np.testing.assert_array_equal(pieces.labels, whole.labels)
        assert pieces.inertia == pytest.approx(whole.inertia, rel=1e-5)


@pytest.mark.parametrize("power", [-100, 100])
def test_tokens_of_any_size_have_the_same_clusters(tokens, power):
    single = tokens.map(lambda block: block.astype(np.float32))
    sized = single.map(lambda block: np.ldexp(block, power))
    settings = {"max_iter": 50, "n_init": 2, "random_state": 0}
    seen = []
    a, b = (
        kmeans(x, 5, **settings, report=lambda get: seen.append(get()) or False)
        for x in (single, sized)
    )
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_allclose(np.ldexp(b.centroids, -power), a.centroids, rtol=1e-5)
    np.testing.assert_allclose(np.ldexp(b.inertia, -2 * power), a.inertia, rtol=1e-5)
    assert np.abs(np.log2(np.abs(seen[-1]).max()) - power) < 10
    # Single precision does not hold squares of such numbers.
    with np.errstate(over="ignore"):
        assert not 0 < np.square(sized.flat()[0, 0]) < np.inf


def test_tokens_in_blocks_whose_squares_overflow_are_refused(tokens, monkeypatch):
    huge = tokens.map(lambda block: np.ldexp(block.astype(np.float32), 100))
    monkeypatch.setattr(TokenArray, "may_be_held", property(lambda self: False))
    with pytest.raises(ValueError, match=r"tokens of size .* put TokenScaler before k-means"):
        kmeans(huge, 5, max_iter=5, n_init=1, random_state=0)


def test_an_empty_cluster_splits_the_largest(rng):
    values = np.repeat([[0.0, 0.0], [9.0, 9.0]], [90, 10], axis=0) + rng.normal(size=(100, 2))
    data = _InBlocks(TokenArray(values, np.arange(0, 101, 10)))
    far = np.array([[0.0, 0.0], [9.0, 9.0], [500.0, 500.0]]) - data.mean
    with sklearn.config_context(working_memory=0):
        moved = data.step(far.astype(np.float32))
    np.testing.assert_allclose(moved[2], moved[0], rtol=0.01)
    assert not np.array_equal(moved[2], moved[0])


def test_minibatches_report_where_they_end(tokens):
    reported = []

    def report(centroids):
        reported.append(centroids())
        return False

    clusters = kmeans(
        tokens,
        5,
        max_iter=20,
        n_init=1,
        backend="minibatch",
        random_state=0,
        report=report,
    )
    (last,) = reported
    np.testing.assert_allclose(last, clusters.centroids, rtol=1e-6)


def test_faiss_is_asked_for_when_it_is_used(tokens, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    options = {"max_iter": 20, "n_init": 1, "random_state": 0}
    with pytest.raises(ImportError):
        kmeans(tokens, 5, **options)
    # Neither mini-batches nor tokens that are read in blocks need it.
    kmeans(tokens, 5, backend="minibatch", **options)
    with sklearn.config_context(working_memory=0):
        kmeans(tokens, 5, **options)


def test_nearest_is_nearest(rng):
    X, centroids = rng.normal(size=(50, 3)), rng.normal(size=(9, 3))
    labels, distances = nearest(X, centroids)
    table = ((X[:, None] - centroids) ** 2).sum(axis=2)
    np.testing.assert_array_equal(labels, table.argmin(axis=1))
    np.testing.assert_allclose(distances, table.min(axis=1))


def test_nearest_copies_no_more_than_a_chunk(rng, monkeypatch):
    X, centroids = rng.normal(size=(60_000, 64)), rng.normal(size=(2, 64))
    monkeypatch.setattr(_lloyd, "_DISTANCES", 2**16)
    tracemalloc.start()
    nearest(X, centroids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Labels and distances are 1/32 of the tokens.
    assert peak < X.nbytes / 8


@pytest.mark.parametrize("working_memory", [1024, 0])
def test_updated_means_are_those_of_all_tokens_ever_assigned(tokens, working_memory):
    centroids, counts = tokens.flat()[:3], np.zeros(3)
    expected, members, n_blocks = centroids, [[], [], []], 0
    with sklearn.config_context(working_memory=working_memory):
        for part in (tokens[:20], tokens[20:]):
            distance = 0.0
            for _, block in part.blocks():
                n_blocks += 1
                table = [[((z - v) ** 2).sum() for v in expected] for z in block]
                distance += sum(map(min, table))
                for z, row in zip(block, table, strict=True):
                    members[int(np.argmin(row))].append(z)
                expected = [
                    np.mean(m, axis=0) if m else v for m, v in zip(members, expected, strict=True)
                ]
            before = centroids.copy(), counts.copy()
            *after, inertia = update_means(part, centroids, counts)
            np.testing.assert_array_equal(centroids, before[0])
            np.testing.assert_array_equal(counts, before[1])
            centroids, counts = after
            np.testing.assert_allclose(centroids, expected)
            np.testing.assert_array_equal(counts, [len(m) for m in members])
            assert inertia == pytest.approx(distance)
    assert n_blocks == 2 if working_memory else n_blocks > 2


@pytest.mark.parametrize("backend", ["faiss", "minibatch"])
@pytest.mark.parametrize("working_memory", [1024, 0])
def test_it_says_that_it_has_not_converged(tokens, backend, working_memory):
    options = {"n_init": 1, "random_state": 0, "backend": backend}
    with sklearn.config_context(working_memory=working_memory):
        with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=1 iterations"):
            kmeans(tokens, 5, max_iter=1, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kmeans(tokens, 5, max_iter=300, **options)
