"""What a file says of an estimator obeys its class, or is refused in one sentence."""

import re

import numpy as np
import pytest
from sklearn.pipeline import FeatureUnion, make_pipeline

from skact import (
    ConceptSearchCV,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    SparseAutoencoder,
    TokenScaler,
    TopWindows,
)
from skact.persistence._decoding import decode
from skact.persistence._encoding import Encoder
from skact.persistence._fitted import check_estimator
from tests.persistence.kept import X, Y


def scores():
    return MeanPrototype().fit_transform(X, Y)


FITTED = {
    "scaler": lambda: TokenScaler().fit(X),
    "detector": lambda: MaxToken(0.3).fit(scores(), Y),
    "one of two": lambda: MaxToken(0.3).fit(scores(), Y[:, 0]),
    "two cuts": lambda: TopWindows(
        None, cut=("recall", "false_alarms"), level=(0.7, 0.3), confidence=0.6
    ).fit(scores(), Y),
    "search": lambda: ConceptSearchCV(MaxToken(), {"delta": [0.1, 0.2]}, cv=2).fit(scores(), Y),
    "autoencoder": lambda: SparseAutoencoder(4, random_state=0).fit(X),
}

WRONG = [
    ("scaler", "with_mean", "yes", "The 'with_mean' parameter of TokenScaler must be"),
    (
        "scaler",
        "mean_",
        np.zeros(1),
        r"mean_ has shape \(1,\).*n_features = 6",
    ),
    ("scaler", "mean_", np.zeros((1, 6)), r"mean_ has shape \(1, 6\), which disagrees with"),
    ("scaler", "mean_", np.array(0.0), r"mean_ has shape \(\), which disagrees with the rest"),
    ("scaler", "mean_", np.zeros(6, int), "mean_ is an array of int64, expected an array of float"),
    ("scaler", "mean_", [0.0] * 6, "expected an array of float"),
    ("scaler", "scale_", "1", "scale_ is str '1', expected float"),
    ("scaler", "scale_", None, "scale_ is NoneType None, expected float"),
    ("scaler", "scale_", True, "scale_ is bool True, expected float"),
    ("scaler", "source_", "model", "source_ is str 'model', expected source"),
    ("scaler", "n_features_in_", -1, "n_features_in_ is int -1, expected count"),
    ("detector", "delta", 7.0, "The 'delta' parameter of MaxToken must be"),
    ("detector", "thresholds_", np.zeros(1), r"thresholds_ has shape \(1,\)"),
    ("detector", "thresholds_", np.zeros((2, 1)), r"thresholds_ has shape \(2, 1\)"),
    ("detector", "matched_columns_", np.array([0, 2]), "has 2, and n_features is 2"),
    ("detector", "matched_columns_", np.array([-1, 0]), "has -1, and n_features is 2"),
    ("detector", "concept_names_", np.array(["a"], object), r"has shape \(1,\), which disagrees|"),
    ("detector", "concept_names_", np.array(["a", 3], object), "expected an array of names"),
    ("detector", "sigmoids_", np.zeros((2, 2)), r"sigmoids_ has shape \(2, 2\)"),
    ("detector", "multilabel_", "no", "multilabel_ is str 'no', expected bool"),
    ("one of two", "classes_", np.arange(3), "has 3 classes_ of 1 concepts"),
    ("two cuts", "cut", "f1", "has cut='f1' and other thresholds than that"),
    ("search", "n_jobs", 10**6, "n_jobs"),
    ("search", "best_estimators_", {}, "an entry for each of the 2 concepts"),
    ("search", "_winners", [], "_winners must hold a detector of each concept"),
    ("search", "_winners", [(None, 5)], "_winners must be pairs of a head and detectors"),
    ("autoencoder", "k_", 5, "k_ has 5, and n_concepts is 4"),
    ("autoencoder", "encoder_", np.zeros((4, 6), "f4"), r"encoder_ has shape \(4, 6\)"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "key", "value", "said"), WRONG)
def test_what_cannot_be_its_own_is_refused(name, key, value, said):
    made = FITTED[name]()
    check_estimator(made)
    setattr(made, key, value)
    with pytest.raises(ValueError, match=said) as error:
        check_estimator(made)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FITTED)
def test_what_is_missing_is_named(name):
    fitted = [key for key in vars(FITTED[name]()) if key.endswith("_")]
    said = {}
    for key in fitted:
        made = FITTED[name]()
        delattr(made, key)
        try:
            check_estimator(made)
        except ValueError as error:
            said[key] = str(error)
    for key, one in said.items():
        assert re.search(f"lacks its fitted attribute '{key}'|other thresholds", one)
    assert len(said) >= len(fitted) - 3  # figures of the fit, and estimators where refit=False


def test_an_array_that_would_be_stretched_is_refused_where_it_gave_other_numbers():
    made = FITTED["detector"]()
    before = made.decision_function(scores())
    made.thresholds_ = made.thresholds_[:1]
    # The control: numpy says nothing, and the second concept has the threshold of the first.
    assert not np.array_equal(made.decision_function(scores()), before)
    encoder = Encoder()
    encoder.value(made, "detector")
    with pytest.raises(ValueError, match=r"MaxToken.thresholds_ has shape \(1,\)"):
        decode(encoder.nodes, encoder.tensors)


def test_steps_are_pairs_of_a_name_and_an_estimator():
    pipe = make_pipeline(TokenScaler(), LinearSeparator(), MaxToken())
    check_estimator(pipe)
    check_estimator(FeatureUnion([("a", MeanPrototype()), ("b", "drop")]))
    for steps in ([], [("a",)], [("a", 5)], [(1, TokenScaler())], [*pipe.steps, *pipe.steps]):
        pipe.steps = steps
        with pytest.raises(ValueError, match=r"Pipeline\.steps.* must be"):
            check_estimator(pipe)
    union = FeatureUnion([("a", MeanPrototype())], n_jobs=0)
    with pytest.raises(ValueError, match="n_jobs is 0, expected up to 1024 or None"):
        check_estimator(union)
    with pytest.raises(ValueError, match="transformer_weights is 3, expected a dict or None"):
        check_estimator(FeatureUnion([("a", MeanPrototype())], transformer_weights=3))


def test_what_is_not_fitted_has_nothing_to_lack():
    check_estimator(MaxToken())
    check_estimator(SparseAutoencoder())
