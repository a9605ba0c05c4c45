"""Labels of samples in the form that the estimator was fitted on."""

import numpy as np
import pandas as pd
import pytest

from skact import MaxToken
from skact.reporting._labels import presence


@pytest.mark.parametrize(
    "y", [list("abcab"), list("ababa"), [0, 1, 2, 0, 1], [3, 5, 3, 5, 5]], ids=str
)
def test_of_two_classes_the_larger_is_a_concept_and_of_more_each(y):
    detector = MaxToken().fit(np.arange(5.0)[:, None], y)
    names = detector.concept_names_
    concepts = detector.classes_[1:] if len(detector.classes_) == 2 else detector.classes_
    found = presence(detector, detector, names, y, 5)
    np.testing.assert_array_equal(found, np.asarray(y)[:, None] == concepts)
    with pytest.raises(ValueError, match="y holds 'z'"):
        presence(detector, detector, names, ["z"] * 5, 5)


def test_columns_are_found_by_their_names():
    y = pd.DataFrame({"cat": [0, 1, 1, 0], "dog": [1, 1, 0, 0]})
    detector = MaxToken().fit(y.to_numpy(float), y)
    turned = presence(detector, detector, ["cat", "dog"], y[["dog", "cat"]], 4)
    np.testing.assert_array_equal(turned, y)
    with pytest.raises(ValueError, match="y names its columns"):
        presence(detector, detector, ["cat", "dog"], y.rename(columns=str.upper), 4)
