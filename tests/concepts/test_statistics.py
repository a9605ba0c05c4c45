"""Each statistic is what it says, written slowly, wherever the tokens lie."""

import numpy as np
import pytest
import sklearn
from sklearn.preprocessing import normalize

from skact import TokenArray
from skact.concepts import _statistics, cosines
from skact.concepts._statistics import (
    balanced_weights,
    labelled_sums,
    places_of,
    products,
    run_numbers,
    scatter,
    shuffled_runs,
    token_mean,
    token_sum,
)


@pytest.fixture(params=[np.float16, np.float32, np.float64])
def tokens(request, rng):
    """Ragged tokens, in an order that is not that of the array."""
    lengths = rng.integers(1, 9, size=50)
    values = (rng.normal(size=(lengths.sum(), 4)) + 3).astype(request.param)
    return TokenArray(values, np.concatenate([[0], np.cumsum(lengths)]))[::-1]


def slow_cosine(z, v):
    return sum(a * b for a, b in zip(z, v, strict=True)) / (sum(z**2) * sum(v**2)) ** 0.5


@pytest.mark.parametrize(("dtype", "tol"), [("e", 1e-6), ("f", 1e-6), ("d", 1e-14)])
def test_cosines_are_those_written_slowly(rng, dtype, tol):
    values, vectors = rng.normal(size=(30, 5)).astype(dtype), rng.normal(size=(4, 5))
    expected = [[slow_cosine(z.astype(float), v) for v in vectors] for z in values]
    found = cosines(values, vectors)
    np.testing.assert_allclose(found, expected, atol=tol)
    assert found.dtype == ("d" if dtype == "d" else "f")
    # Control: without the lengths they would not be bounded.
    assert np.abs(found).max() <= 1 + tol < np.abs(products(values, vectors)).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cosines_are_bit_for_bit_those_of_scikit_learns_lengths(rng, dtype):
    values, vectors = rng.normal(size=(300, 7)).astype(dtype), rng.normal(size=(9, 7))
    values[3] = 0
    expected = normalize(values) @ normalize(vectors).T.astype(dtype)
    np.testing.assert_array_equal(cosines(values, vectors), expected)


@pytest.mark.parametrize(
    ("dtype", "scales"),
    [("f", [1e-42, 1e-30, 1e-20, 1e-10, 1, 1e19, 1e30, 1e38]), ("d", [1e-300, 1e-160, 1e300])],
)
def test_cosines_do_not_depend_on_the_size(rng, dtype, scales):
    values, vectors = rng.normal(size=(30, 5)), rng.normal(size=(4, 5))
    values /= np.abs(values).max()
    expected = [[slow_cosine(z, v) for v in vectors] for z in values]
    for scale in scales:
        tol = 1e-14 if dtype == "d" else 2e-2 if scale < 1e-40 else 1e-6
        scaled = (values * scale).astype(dtype)
        np.testing.assert_allclose(cosines(scaled, vectors), expected, atol=tol)
        np.testing.assert_allclose(cosines(values, scale * vectors), expected, atol=tol)
        mixed = np.concatenate([scaled, values.astype(dtype)])
        np.testing.assert_allclose(cosines(mixed, vectors)[30:], expected, atol=1e-6)
    # Control: squares of such numbers are none.
    with np.errstate(over="ignore", under="ignore"):
        assert ((scaled**2).sum(axis=1) == np.inf).all()
    half = cosines((65504 * values).astype("e"), vectors)
    np.testing.assert_allclose(half, expected, atol=2e-3)


def test_cosines_of_nothing_and_of_the_unknown():
    values = np.array([[0.0, 0.0], [3.0, 4.0]])
    vectors = np.array([[0.0, 0.0], [np.nan, np.nan], [6.0, 8.0]])
    np.testing.assert_allclose(cosines(values, vectors), [[0, np.nan, 0], [0, np.nan, 1]])
    half = cosines(values.astype(np.float16), vectors.astype(np.float16))
    np.testing.assert_allclose(half, [[0, np.nan, 0], [0, np.nan, 1]], rtol=1e-6)


def test_arguments_stay_as_they_are(rng):
    values, vectors = rng.normal(size=(6, 3)), rng.normal(size=(2, 3))
    copies = values.copy(), vectors.copy()
    cosines(values, vectors)
    products(values, vectors)
    np.testing.assert_array_equal(values, copies[0])
    np.testing.assert_array_equal(vectors, copies[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_products_keep_the_precision_of_the_tokens(rng, dtype):
    values, vectors = rng.normal(size=(9, 3)).astype(dtype), rng.normal(size=(2, 3))
    expected = [[sum(z.astype(float) * v) for v in vectors] for z in values]
    found = products(values, vectors)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == (np.float64 if dtype == np.float64 else np.float32)


@pytest.mark.parametrize("working_memory", [1024, 0])
def test_sum_and_mean_are_over_tokens(tokens, working_memory):
    everything = [z.astype(float) for sample in tokens for z in sample]
    with sklearn.config_context(working_memory=working_memory):
        # Half precision is widened, and single summed in double.
        np.testing.assert_allclose(token_sum(tokens), sum(everything), rtol=1e-12)
        mean = token_mean(tokens)
    np.testing.assert_allclose(mean, sum(everything) / len(everything), rtol=1e-12)
    # Control: samples that count the same have another mean.
    assert np.abs(mean - tokens.mean().mean(axis=0)).max() > 1e-3


@pytest.mark.parametrize("working_memory", [1024, 0])
def test_labelled_sums_go_label_by_label(tokens, rng, working_memory, monkeypatch):
    labels = tokens.with_values(rng.random((tokens.n_tokens, 3)) < [0.5, 0.1, 0.0])
    with sklearn.config_context(working_memory=working_memory):
        sums, counts = labelled_sums(tokens, labels)
        # In chunks shorter than a block.
        monkeypatch.setattr("skact.rows._floats.CHUNK", 12)
        again, _ = labelled_sums(tokens, labels)
    for c in range(3):
        inside = [
            z.astype(float)
            for sample, marked in zip(tokens, labels, strict=True)
            for z, is_in in zip(sample, marked[:, c], strict=True)
            if is_in
        ]
        np.testing.assert_allclose(sums[c], sum(inside, np.zeros(4)), rtol=1e-12)
        np.testing.assert_allclose(again[c], sums[c], rtol=1e-12)
        assert counts[c] == len(inside)
    assert counts[2] == 0 < counts[1]


def test_scatter_sums_outer_products_in_any_cut(rng, monkeypatch):
    X, shift = rng.normal(size=(90, 3)).astype(np.float32), np.array([1.0, -2.0, 0.5])
    expected = sum(np.outer(z - shift, z - shift) for z in X)
    whole = [(None, X)]
    np.testing.assert_allclose(scatter([(None, X[:89]), (None, X[89:])], shift), expected)
    monkeypatch.setattr(_statistics, "_ROWS", 7)
    np.testing.assert_allclose(scatter(whole, shift), expected)
    assert not np.allclose(scatter(whole, np.zeros(3)), expected)
    times = rng.integers(0, 3, 90)
    again = np.repeat(X, times, axis=0)
    np.testing.assert_allclose(scatter([(times, X)], shift), scatter([(None, again)], shift))


def test_weights_make_both_classes_count_the_same():
    negative, positive = balanced_weights(np.array([1, 4, 0, 10]), 10)
    for n, inside, outside in zip([1, 4], positive, negative, strict=False):
        assert n * inside == pytest.approx(0.5)
        assert (10 - n) * outside == pytest.approx(0.5)
    # Where there is but one class, nothing can be told apart.
    assert negative[2:].tolist() == positive[2:].tolist() == [0, 0]


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_labels_are_found_as_nonzero_finds_them(rng, share):
    labels = rng.random((40, 7)) < share
    for part in (labels, labels[::3], labels[:, 2:5], labels[:0]):
        places = places_of(part)
        np.testing.assert_array_equal(np.stack(places), np.stack(np.nonzero(part)))


def test_runs_hold_neighbours_up_to_their_size(tokens, monkeypatch):
    monkeypatch.setattr(_statistics, "RUN", 40)
    expected, n_before = [], 0
    for sample in tokens:
        expected.append(n_before * 4 // 40)
        n_before += len(sample)
    run = run_numbers(tokens)
    assert run.tolist() == expected
    assert run[-1] > 5


def test_runs_are_shuffled_whole(tokens, monkeypatch):
    monkeypatch.setattr(_statistics, "RUN", 40)
    run = run_numbers(tokens)
    order = shuffled_runs(tokens, np.random.RandomState(0))
    assert sorted(order) == list(range(len(tokens)))
    # A run stays together and in its order, and runs do not.
    changes = np.flatnonzero(np.diff(run[order])) + 1
    parts = np.split(order, changes)
    assert len(parts) == len(np.unique(run))
    assert all((np.diff(part) == 1).all() for part in parts)
    first = [part[0] for part in parts]
    assert first != sorted(first)
    # A large run is all there is, and keeps its order.
    monkeypatch.setattr(_statistics, "RUN", 10_000)
    order = shuffled_runs(tokens, np.random.RandomState(0))
    np.testing.assert_array_equal(order, np.arange(len(tokens)))
