import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skact import MeanPrototype, SuperActivator, superactivators


@pytest.fixture
def data(rng):
    y = np.arange(30) % 2
    return [rng.normal(size=(4, 3)) + label for label in y], y


def test_every_wrapping_marks_the_same_tokens(data):
    X, y = data
    concepts = MeanPrototype().fit(X, y)
    detector = SuperActivator(delta=0.3).fit(concepts.transform(X), y)
    expected = detector.superactivators(concepts.transform(X)).flat()
    assert expected.any()
    pipe = make_pipeline(MeanPrototype(), SuperActivator(delta=0.3)).fit(X, y)
    frozen = make_pipeline(FrozenEstimator(concepts), FrozenEstimator(detector))
    search = GridSearchCV(pipe, {"superactivator__delta": [0.3]}, error_score="raise").fit(X, y)
    for wrapped in (pipe, frozen, search, FrozenEstimator(pipe)):
        np.testing.assert_array_equal(superactivators(wrapped, X).flat(), expected)


def test_something_without_a_detector_is_refused(data):
    X, y = data
    with pytest.raises(TypeError, match="MeanPrototype does not end in a detector"):
        superactivators(MeanPrototype().fit(X, y), X)
