import numpy as np
import pytest

from skact.localization import GlobalTarget, LocalTarget, Target
from skact.localization._targets import resolve_target


def test_local_target_is_the_mean_of_the_superactivators(rng):
    tokens, vectors = rng.normal(size=(7, 3)), rng.normal(size=(2, 3))
    marks = np.zeros((7, 2), bool)
    marks[[1, 4, 5], 0] = True
    found = LocalTarget().vectors(tokens, marks, vectors)
    np.testing.assert_allclose(found[0], (tokens[1] + tokens[4] + tokens[5]) / 3)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(GlobalTarget().vectors(tokens, marks, vectors), vectors)


def test_names_stand_for_objects_and_objects_for_themselves():
    assert resolve_target("local") == LocalTarget()
    assert resolve_target("global") == GlobalTarget()

    class Mean(Target):
        def vectors(self, tokens, marks, concept_vectors):
            return np.tile(tokens.mean(axis=0), (len(concept_vectors), 1))

    target = Mean()
    assert resolve_target(target) is target


@pytest.mark.parametrize("target", ["both", None, 3, LocalTarget])
def test_other_targets_are_refused(target):
    with pytest.raises(ValueError, match=r'target must be "local", "global" or an object'):
        resolve_target(target)
