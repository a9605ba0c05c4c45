"""A lean is the difference of two cosines, and chance that of random directions."""

import numpy as np
import pytest

from skact import DifferenceInMeans, concept_bias
from skact.algebra._bias import chance_of_lean


def cosine(a, b):
    return a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)


def test_the_formula(rng):
    vectors, first, second = rng.normal(size=(4, 6)), rng.normal(size=6), 3 * rng.normal(size=6)
    result = concept_bias(vectors, first, second)
    slow = [cosine(t, first) - cosine(t, second) for t in vectors]
    np.testing.assert_allclose(result.lean, slow)
    np.testing.assert_allclose(result.bias, np.abs(slow))
    assert result.concepts == ["concept0", "concept1", "concept2", "concept3"]
    other = concept_bias(5 * vectors, 2 * second, first)
    np.testing.assert_allclose(other.lean, -result.lean)
    np.testing.assert_allclose(other.p_value, result.p_value)


@pytest.mark.parametrize("width", [2, 3, 20])
def test_chance_is_that_of_random_directions(width, rng):
    drawn = rng.normal(size=(20000, width))
    first, second = np.eye(width)[0], np.ones(width)
    leans = np.sort(concept_bias(drawn, first, second).bias)
    for share in 0.1, 0.5, 0.9:
        lean = leans[int(share * len(leans))]
        apart = np.linalg.norm(first - second / np.sqrt(width))
        assert chance_of_lean(lean, apart, width) == pytest.approx(1 - share, abs=0.02)
    found = concept_bias(drawn[:500], first, second).p_value
    assert np.mean(found < 0.1) == pytest.approx(0.1, abs=0.05)


def test_concepts_of_a_method_go_by_name_or_number(rng):
    import pandas as pd

    y = pd.DataFrame(rng.integers(0, 2, size=(40, 3)), columns=["nurse", "she", "he"])
    method = DifferenceInMeans().fit(rng.normal(size=(40, 5)), y)
    vectors = method.concept_vectors_
    by_vector = concept_bias(method, vectors[1], vectors[2])
    assert by_vector.concepts == ["nurse", "she", "he"]
    for ends in ("she", "he"), (1, 2):
        np.testing.assert_allclose(concept_bias(method, *ends).lean, by_vector.lean)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vectors": np.ones(3)}, r"vectors must be of shape \(n_concepts, n_features\)"),
        ({"vectors": np.zeros((1, 3))}, "vectors must be finite and not 0"),
        ({"vectors": [[1, 2, 3], [np.nan, 0, 0]]}, r"vectors\[1\] must be finite"),
        ({"vectors": "abc"}, "vectors must be an array"),
        ({"first": [1, 2]}, r"first must be of shape \(3,\)"),
        ({"first": np.zeros(3)}, "first must be finite and not 0"),
        ({"second": [2, 0, 0]}, "but have the same"),
        ({"second": "he"}, "second must be a vector, or one of the concepts"),
        ({"second": 1}, "second must be a vector"),
    ],
)
def test_what_has_no_lean(given, message):
    right = {"vectors": np.ones((2, 3)), "first": [1, 0, 0], "second": [0, 1, 0]}
    concept_bias(**right)
    with pytest.raises(ValueError, match=message):
        concept_bias(**{**right, **given})
