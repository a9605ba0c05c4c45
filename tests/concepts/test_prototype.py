import numpy as np
import pytest
import sklearn

from skact import MeanPrototype, TokenArray


@pytest.fixture
def problem(rng):
    lengths = rng.integers(1, 7, size=20)
    X = [rng.normal(size=(n, 4)) for n in lengths]
    labels = [rng.random((n, 2)) < 0.4 for n in lengths]
    return X, np.array([m.any(axis=0) for m in labels]).astype(int), labels


def slow_cosine(a, b):
    return float(np.dot(a, b) / (np.sqrt(np.dot(a, a)) * np.sqrt(np.dot(b, b))))


@pytest.mark.parametrize("working_memory", [1024, 0])
@pytest.mark.parametrize("with_labels", [True, False])
def test_equals_the_paper_written_slowly(problem, with_labels, working_memory):
    X, y, labels = problem
    with sklearn.config_context(working_memory=working_memory):
        method = MeanPrototype().fit(X, y, token_labels=labels if with_labels else None)
        scores = method.transform(X)
    for c in range(2):
        tokens = [
            z
            for i, sample in enumerate(X)
            for j, z in enumerate(sample)
            if (labels[i][j, c] if with_labels else y[i, c])
        ]
        v = sum(tokens) / len(tokens)
        np.testing.assert_allclose(method.concept_vectors_[c], v)
        for sample, score in zip(X, scores, strict=True):
            np.testing.assert_allclose(score[:, c], [slow_cosine(z, v) for z in sample])


def test_class_labels_make_one_concept_each(rng):
    X = rng.normal(size=(30, 3))
    y = np.array(["a", "b", "c"])[np.arange(30) % 3]
    method = MeanPrototype().fit(X, y)
    assert method.get_feature_names_out().tolist() == ["a", "b", "c"]
    for c, name in enumerate("abc"):
        np.testing.assert_allclose(method.concept_vectors_[c], X[y == name].mean(axis=0))
    binary = MeanPrototype().fit(X, y == "b")
    np.testing.assert_allclose(binary.concept_vectors_[0], X[y == "b"].mean(axis=0))


def test_scale_of_a_token_does_not_count(problem):
    X, y, _ = problem
    method = MeanPrototype().fit(X, y)
    louder = [7.5 * sample for sample in X]
    np.testing.assert_allclose(method.transform(X).flat(), method.transform(louder).flat())
    assert not np.allclose(method.transform(X).flat(), method.transform([x + 1 for x in X]).flat())


def test_a_zero_token_scores_zero():
    method = MeanPrototype().fit(np.array([[1.0, 1.0], [0.0, 2.0]]), [1, 0])
    np.testing.assert_array_equal(method.transform(np.zeros((1, 2))), [[0.0]])


def test_half_precision_is_read_in_single(problem):
    X, y, labels = problem
    half = TokenArray.from_list([x.astype(np.float16) for x in X])
    single = TokenArray.from_list([x.astype(np.float16).astype(np.float32) for x in X])
    a = MeanPrototype().fit(half, y, token_labels=labels)
    b = MeanPrototype().fit(single, y, token_labels=labels)
    np.testing.assert_allclose(a.concept_vectors_, b.concept_vectors_)
    assert a.transform(half).dtype == np.float32
    np.testing.assert_allclose(a.transform(half).flat(), b.transform(single).flat())


def test_names_travel_with_the_scores(problem):
    X, y, labels = problem
    named = TokenArray.from_list(labels, feature_names=["cat", "dog"])
    method = MeanPrototype().fit(TokenArray.from_list(X), y, token_labels=named)
    scores = method.transform(TokenArray.from_list(X))
    assert scores.feature_names == ("cat", "dog")
    assert scores.source.columns == "concepts"


def test_fits_on_parts_merge_to_the_fit_on_all(rng):
    X, y = rng.normal(size=(60, 3)), np.repeat(["a", "b", "c"], 20)
    parts = [
        MeanPrototype().partial_fit(X[part], y[part], classes=["a", "b", "c"])
        for part in (slice(0, 20), slice(20, 45), slice(45, 60))
    ]
    merged = parts[2].merge(parts[0], parts[1])
    np.testing.assert_allclose(merged.concept_vectors_, MeanPrototype().fit(X, y).concept_vectors_)
    assert not parts[0].concept_vectors_[2].any()
