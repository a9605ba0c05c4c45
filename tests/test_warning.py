"""A warning names the user's line."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    LBFGS,
    KMeansConcepts,
    LinearSeparator,
    MaxSeparator,
    MaxToken,
    MeanPrototype,
    NMFConcepts,
    SemiNMFConcepts,
    TokenScaler,
    warning,
)
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


@pytest.mark.parametrize(
    ("filename", "passes"),
    [
        (warning.__file__, True),
        (str(Path(skact.__file__).parent / "concepts" / "_nmf.py"), True),
        (str(Path(skact.__file__).parent) + "_project.py", False),
        (str(Path(skact.__file__).parent) + "_project/run.py", False),
    ],
)
def test_only_files_of_the_package_are_passed_on(filename, passes):
    assert warning._passes_on({"__name__": "anything"}, filename) is passes


POSITIVE = np.random.default_rng(0).random((40, 5))
LABELS = np.arange(40) % 2
MANY = np.minimum(np.arange(40), 30)


@pytest.mark.parametrize(
    ("fit", "category", "said"),
    [
        (
            lambda: NMFConcepts(2, max_iter=1).fit(POSITIVE),
            ConvergenceWarning,
            "the factorisation did not converge in max_iter=1 iterations",
        ),
        (lambda: KMeansConcepts(41).fit(POSITIVE.repeat(2, 0)), ConvergenceWarning, "no token"),
        (
            lambda: KMeansConcepts(41, backend="minibatch").fit(POSITIVE.repeat(2, 0)),
            ConvergenceWarning,
            "no token",
        ),
        (
            lambda: SemiNMFConcepts(2, max_iter=1).fit(POSITIVE),
            ConvergenceWarning,
            "did not converge",
        ),
        (
            lambda: LinearSeparator(LBFGS(max_iter=1)).fit(POSITIVE, LABELS),
            ConvergenceWarning,
            "did not converge",
        ),
        (
            lambda: MaxSeparator(max_iter=1).fit(POSITIVE, LABELS),
            ConvergenceWarning,
            "did not converge",
        ),
        (
            lambda: MeanPrototype().fit(POSITIVE, LABELS[:, None] + 1),
            DataConversionWarning,
            "column-vector",
        ),
        (
            lambda: MaxToken().fit(POSITIVE, LABELS[:, None] + 1),
            DataConversionWarning,
            "column-vector",
        ),
        (lambda: MeanPrototype().fit(POSITIVE, MANY), UserWarning, "unique classes"),
    ],
)
def test_what_an_estimator_warns_of_names_the_users_line(fit, category, said):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit()
    assert {w.filename for w in found} == {__file__}
    assert [w.category for w in found if said in str(w.message)] == [category]


def test_a_fit_that_converges_or_is_not_to_converge_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NMFConcepts(2, max_iter=2000).fit(POSITIVE)
        NMFConcepts(2, max_iter=1, tol=0).fit(POSITIVE)


def test_warnings_of_a_library_are_given_even_if_it_raises():
    @warning.at_users_line()
    def library():
        warnings.warn_explicit("old", FutureWarning, "library.py", 1)
        raise KeyError

    with pytest.warns(FutureWarning, match="old") as found, pytest.raises(KeyError):
        library()
    assert [w.filename for w in found] == [__file__]
