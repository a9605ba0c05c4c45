from collections import Counter

import numpy as np
import pytest
import sklearn
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from skact import TokenArray
from skact.concepts._pca import PCAConcepts
from skact.tokens import Source


@pytest.fixture
def tokens(rng):
    lengths = rng.integers(1, 8, size=40)
    mixing = rng.normal(size=(6, 6)) * [5, 4, 3, 2, 1, 0.5]
    return TokenArray.from_list([rng.normal(size=(n, 6)) @ mixing.T + 3 for n in lengths])


@pytest.mark.parametrize("n_concepts", [1, 3, 6, None])
@pytest.mark.parametrize("working_memory", [1024, 0])
def test_equals_scikit_learn(tokens, n_concepts, working_memory):
    with sklearn.config_context(working_memory=working_memory):
        method = PCAConcepts(n_concepts).fit(tokens)
        scores = method.transform(tokens).flat()
    expected = PCA(n_concepts, svd_solver="full").fit(tokens.flat())
    signs = np.sign((method.concept_vectors_ * expected.components_).sum(axis=1))
    np.testing.assert_allclose(method.concept_vectors_, signs[:, None] * expected.components_)
    for name in ("mean_", "explained_variance_", "explained_variance_ratio_"):
        np.testing.assert_allclose(getattr(method, name), getattr(expected, name))
    np.testing.assert_allclose(scores, signs * expected.transform(tokens.flat()), atol=1e-12)


def test_each_vector_points_along_its_largest_entry(tokens):
    vectors = PCAConcepts().fit(tokens).concept_vectors_
    largest = [v[np.argmax(np.abs(v))] for v in vectors]
    assert min(largest) > 0
    flipped = PCAConcepts().fit(tokens.map(np.negative)).concept_vectors_
    np.testing.assert_allclose(flipped, vectors)


def test_equals_the_power_iteration_written_slowly(tokens):
    X = tokens.flat()
    covariance = sum(np.outer(z - X.mean(axis=0), z - X.mean(axis=0)) for z in X) / (len(X) - 1)
    method = PCAConcepts(2).fit(tokens)
    for v, variance in zip(method.concept_vectors_, method.explained_variance_, strict=True):
        w = np.ones(6)
        for _ in range(2000):
            w = covariance @ w
            w /= np.linalg.norm(w)
        np.testing.assert_allclose(w * np.sign(w @ v), v, atol=1e-8)
        assert variance == pytest.approx(w @ covariance @ w)
        covariance = covariance - variance * np.outer(w, w)


def test_a_large_mean_costs_no_precision(tokens):
    near = PCAConcepts().fit(tokens)
    far = PCAConcepts().fit(tokens.map(lambda x: x + 1e6))
    np.testing.assert_allclose(far.concept_vectors_, near.concept_vectors_, atol=1e-6)
    np.testing.assert_allclose(far.explained_variance_, near.explained_variance_, rtol=1e-6)


def test_reconstruction(tokens):
    X = tokens.flat()
    errors = []
    for k in range(1, 7):
        method = PCAConcepts(k).fit(tokens)
        again = method.inverse_transform(method.transform(tokens))
        by_hand = [
            method.mean_ + sum(((z - method.mean_) @ v) * v for v in method.concept_vectors_)
            for z in X
        ]
        np.testing.assert_allclose(again.flat(), by_hand, atol=1e-10)
        errors.append(((again.flat() - X) ** 2).sum())
        lost = (1 - method.explained_variance_ratio_.sum()) * ((X - X.mean(axis=0)) ** 2).sum()
        assert errors[-1] == pytest.approx(lost, abs=1e-6)
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < 1e-10 < errors[-2]


def test_inverse_transform_keeps_samples_and_source(tokens):
    source = Source(model="m", block=3)
    named = TokenArray(tokens.values, tokens.offsets, source=source)
    method = PCAConcepts(2).fit(named)
    scores = method.transform(named)
    assert scores.source.columns == "units"
    again = method.inverse_transform(scores)
    assert again.source == source
    np.testing.assert_array_equal(again.lengths, tokens.lengths)
    matrix = method.inverse_transform(scores.flat())
    assert isinstance(matrix, np.ndarray)
    np.testing.assert_array_equal(matrix, again.flat())
    other = TokenArray(scores.values, scores.offsets, source=Source(model="m", block=4))
    with pytest.raises(ValueError, match="X comes from another block than PCAConcepts"):
        method.inverse_transform(other)


def test_inverse_transform_refuses_bad_scores(tokens):
    with pytest.raises(NotFittedError):
        PCAConcepts().inverse_transform(np.ones((2, 3)))
    method = PCAConcepts(2).fit(tokens)
    with pytest.raises(ValueError, match="X has 3 features, but PCAConcepts is expecting 2"):
        method.inverse_transform(np.ones((2, 3)))
    with pytest.raises(ValueError, match="NaN, first at sample 1, token 0, feature 1"):
        method.inverse_transform(np.array([[1.0, 2.0], [0.0, np.nan]]))
    assert method.n_features_in_ == 6


def test_the_form_of_the_input_does_not_count(tokens):
    a, b = PCAConcepts(3).fit(tokens), PCAConcepts(3).fit(tokens.flat())
    np.testing.assert_array_equal(a.concept_vectors_, b.concept_vectors_)
    np.testing.assert_array_equal(a.transform(tokens).flat(), b.transform(tokens.flat()))


def test_half_precision_is_summed_in_double(tokens):
    half = tokens.map(lambda x: x.astype(np.float16))
    a, b = (PCAConcepts(3).fit(x) for x in (half, half.map(np.float64)))
    np.testing.assert_allclose(a.concept_vectors_, b.concept_vectors_, rtol=1e-10)
    assert a.transform(half).dtype == np.float32
    assert a.inverse_transform(a.transform(half)).dtype == np.float32


def test_constant_tokens_explain_nothing():
    method = PCAConcepts().fit(np.ones((5, 3)))
    np.testing.assert_array_equal(method.explained_variance_ratio_, np.zeros(3))
    np.testing.assert_array_equal(method.transform(np.ones((1, 3))), np.zeros((1, 3)))
    mixed = PCAConcepts(2).fit(np.c_[np.arange(5.0), np.ones(5)])
    np.testing.assert_allclose(mixed.explained_variance_ratio_, [1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("params", "X", "message"),
    [
        ({"n_concepts": 0}, np.ones((4, 3)), "'n_concepts' parameter"),
        ({"n_concepts": 0.5}, np.ones((4, 3)), "'n_concepts' parameter"),
        (
            {"n_concepts": 3},
            np.ones((1, 2, 5)),
            r"n_concepts=3 components need at least 3 tokens, got 2 \(n_samples=1\)",
        ),
        ({"n_concepts": 4}, np.ones((9, 3)), "n_concepts=4 components .* got n_features=3"),
        ({}, np.ones((1, 3)), "principal components need at least 2 tokens, got 1"),
        ({}, [np.ones((2, 2)), np.array([[0, 1], [np.nan, 1]])], "NaN, first at sample 1, token 1"),
    ],
)
def test_bad_input(params, X, message):
    with pytest.raises(ValueError, match=message):
        PCAConcepts(**params).fit(X)


@pytest.mark.filterwarnings("ignore")
def test_battery():
    results = check_estimator(PCAConcepts(), on_fail=None, on_skip=None)
    count = Counter(result["status"] for result in results)
    assert count["passed"] >= 45
    assert set(count) == {"passed"}
