"""An embedding whose dimensions have names: cosines of pooled tokens with vectors."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import skact
from skact import ConceptualEmbedding, DifferenceInMeans, PCAConcepts, Source, TokenArray


@pytest.fixture
def X(rng):
    return TokenArray(rng.normal(size=(60, 5)), np.arange(0, 61, 3))


@pytest.mark.parametrize("pool", ["mean", "max", "last"])
def test_it_is_the_cosine_of_pooled_tokens(X, pool, rng):
    vectors = rng.normal(size=(3, 5))
    out = ConceptualEmbedding(vectors, pool=pool).fit_transform(X)
    assert out.shape == (20, 3)
    for sample, row in zip(X, out, strict=True):
        z = {"mean": sample.mean(0), "max": sample.max(0), "last": sample[-1]}[pool]
        expected = [z @ v / np.linalg.norm(z) / np.linalg.norm(v) for v in vectors]
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    # Lengths do not count, signs do.
    np.testing.assert_allclose(ConceptualEmbedding(7 * vectors, pool=pool).fit_transform(X), out)
    np.testing.assert_allclose(ConceptualEmbedding(-vectors, pool=pool).fit_transform(X), -out)
    # The mean of cosines, or of scores, is another thing.
    assert not np.allclose(skact.TokenPooling(pool).fit_transform(X) @ vectors.T, out)


def test_axes_keep_all_but_the_length(X):
    out = ConceptualEmbedding().fit_transform(X)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1)
    np.testing.assert_allclose(ConceptualEmbedding().fit_transform(X.map(lambda v: 9 * v)), out)
    nothing = ConceptualEmbedding().fit(X).transform(np.zeros((1, 5)))
    np.testing.assert_array_equal(nothing, np.zeros((1, 5)))


def test_names_come_along(X):
    has = pd.DataFrame(np.c_[np.arange(20) % 2, np.arange(20) // 2 % 2], columns=["sea", "sky"])
    method = DifferenceInMeans().fit(X, has)
    step = ConceptualEmbedding(method).set_output(transform="pandas").fit(X)
    frame = step.transform(X)
    assert list(frame.columns) == ["sea", "sky"] == list(step.get_feature_names_out())
    by_name = dict(zip(["sea", "sky"], method.concept_vectors_, strict=True))
    np.testing.assert_allclose(ConceptualEmbedding(by_name).fit_transform(X), frame)
    np.testing.assert_allclose(ConceptualEmbedding(method.concept_vectors_).fit_transform(X), frame)
    units = ConceptualEmbedding(PCAConcepts(2).fit(X)).fit(X)
    assert list(units.get_feature_names_out()) == ["pcaconcepts0", "pcaconcepts1"]
    line = make_pipeline(ConceptualEmbedding(method), LogisticRegression()).fit(X, has["sea"])
    assert line.score(X, has["sea"]) > 0.5


def test_vectors_of_another_layer_are_refused(X):
    y = np.arange(20) % 2
    there, here = (TokenArray(X.values, X.offsets, source=Source("m", block=b)) for b in (1, 2))
    method = DifferenceInMeans().fit(there, y)
    ConceptualEmbedding(method).fit(there)
    with pytest.raises(ValueError, match="block"):
        ConceptualEmbedding(method).fit(here)


def test_what_is_saved_answers_the_same(X, tmp_path):
    by_name = {"sea": [1.0, 0, 0, 0, 1], "sky": [0.0, 2, 0, 0, 0]}
    method = DifferenceInMeans().fit(X, np.arange(20) % 2)
    for vectors in (None, np.eye(5)[:2], method, by_name):
        step = ConceptualEmbedding(vectors).fit(X)
        skact.save(step, tmp_path / "kept.safetensors")
        back = skact.load(tmp_path / "kept.safetensors")
        np.testing.assert_array_equal(back.transform(X), step.transform(X))
        assert list(back.get_feature_names_out()) == list(step.get_feature_names_out())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"vectors": np.ones((2, 3))}, r"vectors must be of shape \(n_concepts, 5\)"),
        ({"vectors": np.ones(5)}, "vectors must be of shape"),
        ({"vectors": {}}, "vectors must be of shape"),
        ({"vectors": [[0, 0, 0, 0, 0]]}, "vectors must be finite and not 0.*concept0"),
        ({"vectors": {"sea": [1, 0, 0, 0, np.nan]}}, "that of 'sea' has no direction"),
        ({"vectors": {"": [1, 0, 0, 0, 0]}}, "vectors"),
        ({"vectors": {"sea": [1, 0], "sky": [1]}}, "vectors must be an array of numbers"),
        ({"vectors": "sea"}, "'vectors' parameter"),
        ({"vectors": object()}, "'vectors' parameter"),
        ({"pool": "top"}, "'pool' parameter"),
    ],
)
def test_bad_input(X, params, message):
    with pytest.raises(ValueError, match=message):
        ConceptualEmbedding(**params).fit(X)


def test_before_fit(X):
    with pytest.raises(NotFittedError):
        ConceptualEmbedding(DifferenceInMeans()).fit(X)
    with pytest.raises(NotFittedError):
        ConceptualEmbedding().transform(X)
