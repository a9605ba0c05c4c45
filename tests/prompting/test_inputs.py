"""Raw samples and names of concepts, before any question."""

import numpy as np
import pandas as pd
import pytest

from skact.prompting import PromptDetector
from tests.prompting.word_search import CONCEPTS, TEXTS, Model, Y, detector


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (["joy", ""], ValueError, "sample 1 is an empty text"),
        (["joy", " \n"], ValueError, "sample 1 is an empty text"),
        (["joy", 3], TypeError, "sample 1 must be a text"),
        ([3, "joy"], ValueError, "sample 0 must be an image"),
        ("joy", ValueError, "a single str"),
        ([], ValueError, "no samples"),
        (np.ones((2, 3)), ValueError, r"of shape \(2, 3\)"),
        ({"joy": 1}, ValueError, "got dict"),
        ([np.full((2, 2), 3.0)], ValueError, r"must lie in \[0, 1\]"),
    ],
)
def test_bad_samples(X, error, message):
    model = Model()
    found = detector(model)
    with pytest.raises(error, match=message):
        found.predict(X)
    assert not model.batches


def test_names_come_from_the_data_frame_unless_given():
    frame = pd.DataFrame(Y, columns=CONCEPTS)
    assert PromptDetector(Model()).fit(TEXTS, frame).concept_names_.tolist() == CONCEPTS
    renamed = PromptDetector(Model(), concepts=["glee", "meals"]).fit(pd.Series(TEXTS), frame)
    assert renamed.concept_names_.tolist() == ["glee", "meals"]
