from collections import Counter

import numpy as np
import pytest
import sklearn
from sklearn import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.utils.estimator_checks import check_estimator

from skact import TokenArray
from skact.concepts._difference import DifferenceInMeans

CASES = [(v, r) for v in ("mean", "pca") for r in ("out", "all")]


@pytest.fixture
def problem(rng):
    """Two concepts, each along a direction of its own."""
    lengths = rng.integers(1, 8, size=40)
    X = TokenArray.from_list([rng.normal(size=(n, 5)) + 2 for n in lengths])
    marked = rng.random((X.n_tokens, 2)) < [0.3, 0.6]
    X = X.with_values(X.flat() + marked @ (4 * np.eye(5)[:2] + 1))
    labels = X.with_values(marked)
    return X, labels.max().astype(int), labels


def slow_vector(X, marked, variant, reference):
    inside = [z for z, m in zip(X, marked, strict=True) if m]
    others = [z for z, m in zip(X, marked, strict=True) if reference == "all" or not m]
    if variant == "mean":
        return sum(inside) / len(inside) - sum(others) / len(others)
    differences = np.array([z - x for z in inside for x in others])
    _, _, rows = np.linalg.svd(differences, full_matrices=False)
    return rows[0] * np.sign((differences @ rows[0]).mean())


@pytest.mark.parametrize("working_memory", [1024, 0])
@pytest.mark.parametrize(("variant", "reference"), CASES)
def test_equals_the_formula_written_slowly(problem, variant, reference, working_memory):
    X, y, labels = problem
    method = DifferenceInMeans(variant, reference=reference)
    with sklearn.config_context(working_memory=working_memory):
        method.fit(X, y, token_labels=labels)
        scores = method.transform(X).flat()
    for c in range(2):
        v = slow_vector(X.flat(), labels.flat()[:, c], variant, reference)
        np.testing.assert_allclose(method.concept_vectors_[c], v, rtol=1e-8)
        np.testing.assert_allclose(scores[:, c], [z @ v for z in X.flat()], rtol=1e-8)
        wrong = slow_vector(X.flat(), labels.flat()[:, 1 - c], variant, reference)
        assert not np.allclose(method.concept_vectors_[c], wrong, rtol=0.1)


@pytest.mark.parametrize(("variant", "reference"), CASES)
def test_own_tokens_score_higher(problem, variant, reference):
    X, y, labels = problem
    method = DifferenceInMeans(variant, reference=reference).fit(X, y, token_labels=labels)
    scores, marked = method.transform(X).flat(), labels.flat()
    for c in range(2):
        assert scores[marked[:, c], c].mean() > scores[~marked[:, c], c].mean() + 1


@pytest.mark.parametrize("variant", ["mean", "pca"])
def test_the_complement_has_the_opposite_direction(problem, variant):
    X, _, labels = problem
    flat = labels.flat().astype(int)
    direct = DifferenceInMeans(variant).fit(X.flat(), flat)
    opposite = DifferenceInMeans(variant).fit(X.flat(), 1 - flat)
    np.testing.assert_allclose(opposite.concept_vectors_, -direct.concept_vectors_, rtol=1e-8)


def test_all_tokens_as_reference_only_shorten_the_difference(problem):
    X, y, labels = problem
    out, everything = (
        DifferenceInMeans(reference=r).fit(X, y, token_labels=labels).concept_vectors_
        for r in ("out", "all")
    )
    share = 1 - labels.flat().mean(axis=0)
    np.testing.assert_allclose(everything, share[:, None] * out)


def test_mean_and_pca_part_ways_where_noise_is_large(rng):
    X = rng.normal(size=(400, 3)) * [1, 1, 20] + np.arange(400)[:, None] % 2 * [5, 0, 0]
    y = np.arange(400) % 2
    mean, pca = (DifferenceInMeans(v).fit(X, y).concept_vectors_[0] for v in ("mean", "pca"))
    assert abs(mean[0]) > 4
    assert abs(pca[2]) > 0.99
    assert np.linalg.norm(pca) == pytest.approx(1)


@pytest.mark.parametrize("variant", ["mean", "pca"])
def test_a_shift_of_all_tokens_does_not_count(problem, variant):
    X, y, labels = problem
    near, far = (
        DifferenceInMeans(variant).fit(x, y, token_labels=labels).concept_vectors_
        for x in (X, X.map(lambda x: x + 1e5))
    )
    np.testing.assert_allclose(far, near, atol=1e-7)


@pytest.mark.parametrize("variant", ["mean", "pca"])
def test_the_form_of_the_input_does_not_count(problem, variant):
    X, _, labels = problem
    flat = labels.flat().astype(int)
    a = DifferenceInMeans(variant).fit(X, labels.max(), token_labels=labels)
    b = DifferenceInMeans(variant).fit(X.flat(), flat)
    np.testing.assert_allclose(a.concept_vectors_, b.concept_vectors_, rtol=1e-12)
    assert a.transform(X).source.columns == "concepts"


@pytest.mark.parametrize("variant", ["mean", "pca"])
def test_half_precision_is_summed_in_double(problem, variant):
    X, y, labels = problem
    half = X.map(lambda x: x.astype(np.float16))
    a, b = (
        DifferenceInMeans(variant).fit(x, y, token_labels=labels)
        for x in (half, half.map(np.float64))
    )
    np.testing.assert_allclose(a.concept_vectors_, b.concept_vectors_, rtol=1e-10)
    assert a.transform(half).dtype == np.float32


@pytest.mark.parametrize(("variant", "reference"), CASES)
def test_constant_tokens_are_no_trouble(variant, reference):
    method = DifferenceInMeans(variant, reference=reference).fit(np.ones((6, 3)), [0, 1] * 3)
    scores = method.transform(np.ones((2, 3)))
    assert np.isfinite(scores).all()
    assert scores[0] == scores[1]


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reference", ["out", "all"])
def test_whitened_equals_the_formula_written_slowly(problem, reference, shrinkage, shift):
    X, y, labels = problem
    X = X.map(lambda x: x + shift)
    method = DifferenceInMeans(reference=reference, whiten=True, shrinkage=shrinkage)
    method.fit(X, y, token_labels=labels)
    covariance = np.cov(X.flat(), rowvar=False, bias=True)
    ball = np.trace(covariance) / 5 * np.eye(5)
    for c in range(2):
        v = slow_vector(X.flat(), labels.flat()[:, c], "mean", reference)
        expected = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * ball) @ v
        np.testing.assert_allclose(method.concept_vectors_[c], expected, rtol=1e-7, atol=1e-10)
        plain = v / np.linalg.norm(v)
        found = method.concept_vectors_[c] / np.linalg.norm(method.concept_vectors_[c])
        assert np.allclose(found, plain, atol=1e-8) == (shrinkage == 1)


def test_whitened_is_the_direction_of_the_discriminant_within_classes(problem):
    X, y, labels = problem
    found = DifferenceInMeans(whiten=True, shrinkage=0).fit(X, y, token_labels=labels)
    for c in range(2):
        lda = LinearDiscriminantAnalysis(solver="eigen").fit(X.flat(), labels.flat()[:, c])
        pair = found.concept_vectors_[c], lda.coef_[0]
        a, b = (v / np.linalg.norm(v) for v in pair)
        np.testing.assert_allclose(a, b, atol=1e-8)


def test_whitening_turns_away_from_loud_directions(rng):
    X = rng.normal(size=(400, 3)) * [1, 1, 20] + np.arange(400)[:, None] % 2 * [5, 0, 20]
    y = np.arange(400) % 2
    plain, whitened = (
        DifferenceInMeans(whiten=w, shrinkage=0).fit(X, y).concept_vectors_[0]
        for w in (False, True)
    )
    assert abs(plain[2]) > 2 * abs(plain[0])
    assert abs(whitened[0]) > 10 * abs(whitened[2])


@pytest.mark.parametrize("whiten", [False, True])
def test_fits_on_a_thousand_parts_merge_to_the_fit_on_all(rng, whiten):
    X = TokenArray(rng.normal(size=(9000, 6)) + 100, np.arange(3001) * 3)
    y = rng.random((3000, 2)) < 0.3
    labels = X.with_values(rng.random((9000, 2)) < np.repeat(y, 3, axis=0) * 0.8)
    y = labels.max()
    X = X.map(lambda block: block)  # of its own
    X.values[:] += 3 * labels.flat() @ np.eye(6)[:2]
    method = DifferenceInMeans(whiten=whiten)
    parts = [
        clone(method).partial_fit(X[part], y[part].astype(int), token_labels=labels[part])
        for part in np.array_split(rng.permutation(3000), 1000)
    ]
    before = parts[1].concept_vectors_.copy()
    merged = parts[0].merge(*parts[1:])
    whole = clone(method).fit(X, y.astype(int), token_labels=labels)
    np.testing.assert_allclose(
        merged.concept_vectors_, whole.concept_vectors_, rtol=1e-9, atol=1e-9
    )
    assert not np.allclose(before, whole.concept_vectors_, rtol=0.1)
    np.testing.assert_array_equal(parts[1].concept_vectors_, before)


def test_a_covariance_without_inverse_is_refused(rng):
    X, y = rng.normal(size=(4, 6)), [0, 1, 0, 1]
    with pytest.raises(ValueError, match="4 tokens of 6 features has no inverse; shrinkage must"):
        DifferenceInMeans(whiten=True, shrinkage=0).fit(X, y)
    method = DifferenceInMeans().fit(X, y)
    with pytest.raises(ValueError, match="whiten=False; call fit first"):
        method.set_params(whiten=True).partial_fit(X, y)


def test_pairs_do_not_merge():
    assert not hasattr(DifferenceInMeans("pca"), "merge")
    assert hasattr(DifferenceInMeans(), "merge")


def test_class_labels_make_one_concept_each(rng):
    X = rng.normal(size=(30, 3))
    y = np.array(["a", "b", "c"])[np.arange(30) % 3]
    method = DifferenceInMeans().fit(X, y)
    assert method.get_feature_names_out().tolist() == ["a", "b", "c"]
    for c, name in enumerate("abc"):
        expected = X[y == name].mean(axis=0) - X[y != name].mean(axis=0)
        np.testing.assert_allclose(method.concept_vectors_[c], expected)


@pytest.mark.parametrize(
    ("params", "y", "bad", "message"),
    [
        ({"variant": "median"}, [0, 1, 0, 1], 0.0, "'variant' parameter"),
        ({"reference": "in"}, [0, 1, 0, 1], 0.0, "'reference' parameter"),
        ({"whiten": 1}, [0, 1, 0, 1], 0.0, "'whiten' parameter"),
        ({"shrinkage": 1.5}, [0, 1, 0, 1], 0.0, "'shrinkage' parameter"),
        ({"variant": "pca", "whiten": True}, [0, 1, 0, 1], 0.0, 'whiten=True needs variant="mean"'),
        ({}, [[1], [1], [1], [1]], 0.0, "every token belongs to concept 'concept0'"),
        ({}, [1, 1, 1, 1], 0.0, "one class only"),
        ({}, [[0, 1], [0, 0], [0, 1], [0, 0]], 0.0, "concept 0 has no positive sample"),
        ({}, [0, 1, 0, 1], np.nan, "NaN, first at sample 3, token 0, feature 1"),
    ],
)
def test_bad_input(params, y, bad, message):
    X = np.ones((4, 2, 2))
    X[3, 0, 1] = bad
    with pytest.raises(ValueError, match=message):
        DifferenceInMeans(**params).fit(X, y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "method",
    [DifferenceInMeans("mean"), DifferenceInMeans("pca"), DifferenceInMeans(whiten=True)],
    ids=str,
)
def test_battery(method):
    results = check_estimator(method, on_fail=None, on_skip=None)
    count = Counter(result["status"] for result in results)
    assert count["passed"] >= 45
    assert set(count) == {"passed"}
