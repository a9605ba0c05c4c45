"""scikit-learn's own battery, and what every estimator of the package has in common."""

from collections import Counter
from contextlib import suppress
from unittest import SkipTest

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.utils.estimator_checks import (
    check_classifiers_train,
    check_estimator,
    check_global_output_transform_pandas,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
)

import skact
from skact import (
    Ablation,
    ActivationSpaceMap,
    ActivationTransport,
    Addition,
    AffineEdit,
    AutoencoderTraining,
    Cascade,
    ConceptBottleneckClassifier,
    ConceptLocalizer,
    ConceptRules,
    ConceptSearchCV,
    ConceptSegmenter,
    ConceptualEmbedding,
    CrossFitTransformer,
    DifferenceInMeans,
    IsolatedConcepts,
    JoinLayers,
    KMeansConcepts,
    KMeansSeparator,
    LastToken,
    LinearErasure,
    LinearSeparator,
    MaxSeparator,
    MaxToken,
    MeanPrototype,
    MeanToken,
    MinimalNormEdit,
    MultiLayerAutoencoder,
    NMFConcepts,
    NormClip,
    PCAConcepts,
    PositionContext,
    RandomToken,
    SAEUnitFilter,
    SelectLayer,
    SemiNMFConcepts,
    SparseAutoencoder,
    SuperActivator,
    TokenArray,
    TokenPooling,
    TokenScaler,
    TopWindows,
    TransformerEmbedder,
    UnitEdit,
    WeakSuperActivator,
)
from skact.localization import METHODS
from skact.localization._methods import resolve_method

# The battery's data hold no concept and no map, and its frames come and go. All but the warning of
# names, which is scikit-learn's, have tests of their own.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{said}")
    for said in (
        "the scores of",
        "the vectors of",
        "the map explains",
        "the autoencoder did not converge",
        "X has feature names, but",
        "X does not have valid feature names, but",
    )
]

QUICK = AutoencoderTraining(max_epochs=2)
ESTIMATORS = [
    ActivationSpaceMap(),
    ActivationSpaceMap("procrustes"),
    TokenScaler(),
    NormClip(),
    PositionContext(),
    SelectLayer(),
    JoinLayers(),
    TokenPooling(),
    TokenPooling("windows", share=0.5),
    MeanPrototype(),
    LinearSeparator(),
    LinearSeparator(solver="adam"),
    LinearSeparator(solver="minibatch"),
    DifferenceInMeans(),
    IsolatedConcepts(DifferenceInMeans()),
    MaxSeparator(),
    KMeansConcepts(),
    KMeansSeparator(),
    PCAConcepts(),
    NMFConcepts(),
    SemiNMFConcepts(),
    SparseAutoencoder(training=QUICK),
    MultiLayerAutoencoder(SparseAutoencoder(8, training=QUICK, random_state=0)),
    # With its defaults hardly a column of the battery's blobs would be left.
    SAEUnitFilter(min_share=0, max_share=1, min_ratio=0, max_ratio=np.inf),
    Addition(),
    Ablation(),
    AffineEdit(),
    MinimalNormEdit(),
    ActivationTransport(),
    ActivationTransport("damping"),
    LinearErasure(),
    UnitEdit(SparseAutoencoder(8, training=QUICK, random_state=0), where="samples"),
    SuperActivator(),
    MaxToken(),
    MeanToken(),
    LastToken(),
    RandomToken(),
    WeakSuperActivator(),
    WeakSuperActivator(objective="sample"),
    TopWindows(),
    TopWindows(None, cut="f1", share=0.5),
    ConceptRules(),
    ConceptSegmenter(),
    ConceptSegmenter(0.2, units="best"),
    ConceptualEmbedding(),
    ConceptBottleneckClassifier(DifferenceInMeans(), random_state=0),
]


# The only check that asks for it: the class with the largest probability must be the prediction.
# Here ``predict`` follows the cut, which promises a rate or the best F1, not a probability of .5.
ARGMAX = {"check_classifiers_train": "predict follows the cut instead of a probability of .5"}
EQUIVALENCE = "check_sample_weight_equivalence_on_dense_data"


def declared_of(estimator):
    """What an estimator does not pass, and why."""
    if isinstance(estimator, ConceptBottleneckClassifier):
        return {}
    if hasattr(estimator, "predict_proba"):
        return ARGMAX
    if isinstance(estimator, MaxSeparator):
        return {EQUIVALENCE: "the check sets cv to splits, and here it is a number of folds"}
    if isinstance(estimator, LinearSeparator) and estimator.solver == "lbfgs":
        return {EQUIVALENCE: "L-BFGS ends where the loss is near its minimum: not to 1e-7"}
    if isinstance(estimator, LinearSeparator):
        why = "solvers that draw tokens refuse weights"
        return {EQUIVALENCE: why, "check_sample_weights_not_overwritten": why}
    return {}


# Its hundred epochs take as long as all others together.
AS_IT_IS = pytest.param(SparseAutoencoder(), marks=pytest.mark.nightly)


@pytest.mark.parametrize("estimator", [*ESTIMATORS, AS_IT_IS], ids=repr)
def test_battery(estimator):
    declared = declared_of(estimator)
    results = check_estimator(
        estimator, on_fail=None, on_skip=None, expected_failed_checks=declared
    )
    count = Counter(result["status"] for result in results)
    trouble = {
        r["check_name"]: (r["status"], repr(r["exception"]))
        for r in results
        if r["status"] != "passed"
    }
    # The battery shrinks to almost nothing if the tags say that 2-D input is not taken.
    assert count["passed"] >= 45, trouble
    assert {name: status for name, (status, _) in trouble.items()} == dict.fromkeys(
        declared, "xfail"
    ), trouble


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if hasattr(e, "transform")], ids=repr)
def test_matrices_come_out_as_set_output_says(estimator):
    name = type(estimator).__name__
    for check in (
        check_set_output_transform,
        check_set_output_transform_pandas,
        check_global_output_transform_pandas,
    ):
        check(name, estimator)
    with suppress(SkipTest):  # polars is not installed
        check_set_output_transform_polars(name, estimator)


@pytest.mark.parametrize(
    "estimator", [e for e in ESTIMATORS if hasattr(e, "predict_proba")], ids=repr
)
def test_all_else_of_the_declared_check_holds(estimator):
    class Silent(type(estimator)):
        predict_proba = property()  # reading it is an AttributeError, so it is not there

    silent = Silent(**estimator.get_params(deep=False))
    assert not hasattr(silent, "predict_proba")
    check_classifiers_train("Silent", silent)


def public_estimators():
    found = [getattr(skact, name) for name in skact.__all__]
    return [e for e in found if isinstance(e, type) and issubclass(e, BaseEstimator)]


def test_the_battery_leaves_nobody_out():
    # Some take raw texts or images, some take estimators, some are settings of one: they have test
    # files of their own.
    apart = {
        "Adam",
        "AutoencoderTraining",
        "Cascade",
        "ConceptDetector",
        "ConceptLocalizer",
        "ConceptSearchCV",
        "CrossFitTransformer",
        "HeadPursuit",
        "LBFGS",
        "Minibatch",
        "PromptDetector",
        "SimultaneousOMP",
        "TransformerEmbedder",
    }
    apart |= {type(resolve_method(name)).__name__ for name in METHODS}
    listed = {type(e).__name__ for e in ESTIMATORS}
    assert {e.__name__ for e in public_estimators()} - apart == listed


@pytest.mark.parametrize("Estimator", public_estimators())
def test_constructor_only_stores(Estimator):
    needed = {
        Cascade: {"first": TopWindows(), "second": MaxToken()},
        ConceptBottleneckClassifier: {"estimator": MeanPrototype()},
        CrossFitTransformer: {"estimator": MeanPrototype()},
        IsolatedConcepts: {"estimator": MeanPrototype()},
        MultiLayerAutoencoder: {"autoencoder": SparseAutoencoder()},
        UnitEdit: {"autoencoder": SparseAutoencoder()},
        ConceptSearchCV: {"estimator": SuperActivator(), "param_grid": {"delta": [0.1]}},
        ConceptLocalizer: {
            "embedder": TransformerEmbedder(),
            "concepts": MeanPrototype(),
            "detector": SuperActivator(),
        },
    }
    estimator = Estimator(**needed.get(Estimator, {}))
    assert set(vars(estimator)) == set(estimator.get_params(deep=False))
    for name, value in clone(estimator).get_params(deep=False).items():
        if not isinstance(value, BaseEstimator):
            assert value == getattr(estimator, name)


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if hasattr(e, "predict")], ids=repr)
def test_fitted_state_is_numpy_and_holds_no_tokens(estimator, rng):
    X = [rng.normal(size=(50, 2)) for _ in range(40)]
    fitted = clone(estimator).fit(X, np.arange(40) % 2)
    kinds = np.ndarray | int | float | str | bool | type(None) | BaseEstimator
    for name, value in vars(fitted).items():
        if name.endswith("_"):
            assert isinstance(value, kinds), name
            assert np.size(value) < 100, name


@pytest.mark.parametrize(
    ("estimator", "then"),
    [
        (LinearSeparator("adam"), {"solver": "lbfgs"}),
        (LinearSeparator("adam"), {"solver": "minibatch"}),
        (LinearSeparator("minibatch"), {"solver": "lbfgs"}),
        (PCAConcepts(3), {"n_concepts": 2}),
        (SparseAutoencoder(6, "jumprelu"), {"activation": "topk", "k": 2}),
        (SparseAutoencoder(6, "topk", k=2), {"activation": "relu"}),
        (WeakSuperActivator(), {"objective": "sample"}),
        (RandomToken(), {"delta": 0.5}),
        (
            TopWindows(None, cut=("recall", "false_alarms"), level=(0.8, 0.2)),
            {"cut": "f1", "level": None},
        ),
        (
            ConceptSearchCV(MeanToken(), {"delta": [0.5]}, cv=2),
            {"refit": False},
        ),
        (CrossFitTransformer(LinearSeparator("adam"), cv=2), {"estimator": MeanPrototype()}),
    ],
    ids=repr,
)
def test_refitting_leaves_nothing_of_the_fit_before(estimator, then, rng):
    X, y = rng.normal(size=(40, 4)), np.arange(40) % 2
    refitted = clone(estimator).fit(X, y).set_params(**then).fit(X, y)
    fresh = clone(estimator).set_params(**then).fit(X, y)
    public = [{k for k in vars(one) if k.endswith("_")} for one in (refitted, fresh)]
    assert public[0] == public[1]


def test_going_on_leaves_nothing_that_is_no_longer_true(rng):
    X = rng.random((40, 4))
    method = NMFConcepts(2).fit(X)
    assert method.reconstruction_err_ > 0
    assert not hasattr(method.partial_fit(X), "reconstruction_err_")


# They give matrices, classes, or need tokens of another kind.
APART = (TokenPooling, PositionContext, ActivationSpaceMap)
APART += (ConceptBottleneckClassifier, ConceptualEmbedding)


@pytest.mark.parametrize(
    "estimator",
    [e for e in ESTIMATORS if not isinstance(e, APART)],
    ids=repr,
)
def test_rows_and_columns_of_samples_are_kept(estimator, rng):
    shapes = rng.integers(2, 5, (40, 2))
    samples = [abs(rng.normal(size=(n, 3))) + i % 2 for i, n in enumerate(shapes.prod(axis=1))]
    X, y = TokenArray.from_list(samples, shapes=shapes), np.arange(40) % 2
    fitted = clone(estimator).fit(X, y)
    outputs = [name for name in ("transform", "superactivators") if hasattr(fitted, name)]
    assert outputs
    for name in outputs:
        for part in (X, X[[4, 31, 7]]):
            np.testing.assert_array_equal(getattr(fitted, name)(part).shapes, part.shapes)


def test_rows_and_columns_of_samples_are_kept_out_of_fold(rng):
    X = TokenArray.from_list(rng.normal(size=(20, 6, 3)), shapes=np.tile([[2, 3], [6, 1]], (10, 1)))
    out = CrossFitTransformer(MeanPrototype(), cv=3).fit_transform(X, np.arange(20) // 2 % 2)
    np.testing.assert_array_equal(out.shapes, X.shapes)
