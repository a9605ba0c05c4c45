"""A warning names the user's line."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from skact import KMeansConcepts, TokenScaler
from skact.warning import warn


def test_a_direct_warning_names_the_caller():
    with pytest.warns(ConvergenceWarning, match="slow") as found:
        warn("slow", ConvergenceWarning)
    assert found[0].filename == __file__


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_a_warning_from_below_names_the_line_that_fits(in_pipeline):
    method = KMeansConcepts(n_concepts=3, random_state=0)
    fit = (make_pipeline(TokenScaler(), method) if in_pipeline else method).fit
    X = np.repeat([[0.0, 1.0], [1.0, 0.0]], 4, axis=0)
    with pytest.warns(ConvergenceWarning, match="hold no token") as found:
        fit(X)
    ours = [w for w in found if "hold no token" in str(w.message)]
    assert [w.filename for w in ours] == [__file__]


def test_a_fixed_depth_would_name_the_library():
    class Fixed(TokenScaler):
        def fit(self, X, y=None):
            warnings.warn("fixed", UserWarning, stacklevel=2)
            return self

    with pytest.warns(UserWarning, match="fixed") as found:
        make_pipeline(Fixed()).fit(np.eye(3))
    assert found[0].filename != __file__
