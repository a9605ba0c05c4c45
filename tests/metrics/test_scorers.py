"""Scorers read marks and maps, and ask for the labels of tokens."""

import pickle

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skact import (
    MeanPrototype,
    SuperActivator,
    TokenArray,
    superactivators,
    token_f1_score,
    token_f1_scorer,
)
from skact.metrics import (
    pointing_game_score,
    pointing_game_scorer,
    token_average_precision_score,
    token_average_precision_scorer,
    token_iou_score,
    token_iou_scorer,
)

SCORERS = {
    token_f1_scorer: token_f1_score,
    token_iou_scorer: token_iou_score,
    token_average_precision_scorer: token_average_precision_score,
    pointing_game_scorer: pointing_game_score,
}


@pytest.fixture
def problem(rng):
    """Tokens around one of two directions, and which."""
    labels = TokenArray(rng.random((60, 2)) < 0.4, np.arange(0, 61, 3))
    X = labels.with_values(labels.flat() @ np.eye(2, 5) + rng.normal(0, 0.4, (60, 5)))
    return X, labels.max().astype(int), labels


def test_marks_and_maps_are_scored(problem):
    X, y, labels = problem
    concepts = MeanPrototype().fit(X, y, token_labels=labels)
    pipe = make_pipeline(concepts, SuperActivator(0.5)).fit(X, y)
    for scorer in (token_f1_scorer, token_iou_scorer):
        expected = SCORERS[scorer](labels, superactivators(pipe, X))
        assert scorer(pipe, X, y, token_labels=labels) == expected > 0
    for scorer in (token_average_precision_scorer, pointing_game_scorer):
        expected = SCORERS[scorer](labels, concepts.transform(X))
        assert scorer(concepts, X, token_labels=labels) == expected > 0


class Localizer:
    """What a scorer sees of a ConceptLocalizer: maps, some of them missing, and marks."""

    games = None

    def __init__(self, maps):
        self.maps = maps

    def transform(self, X):
        return self.maps

    def predict(self, X):
        return self.maps.map(lambda tokens: tokens > 0)


def test_a_missing_map_finds_nothing(problem):
    _, _, labels = problem
    whole = Localizer(labels.map(np.float64))
    holed = labels.map(np.float64)
    held = np.flatnonzero(labels[0].any(axis=0))[0]
    holed.values[:3, held] = np.nan
    for scorer in SCORERS:
        assert scorer(whole, None, token_labels=labels) == 1
        assert scorer(Localizer(holed), None, token_labels=labels) < 1


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_scorers_ask_for_token_labels(scorer):
    assert scorer.get_metadata_routing().score.requests == {"token_labels": True}
    assert repr(scorer) == f"{SCORERS[scorer].__name__}r"
    assert repr(pickle.loads(pickle.dumps(scorer))) == repr(scorer)


def test_labels_are_sliced_in_a_search(problem, routing):
    X, y, labels = problem
    pipe = make_pipeline(MeanPrototype(), SuperActivator())
    grid = {"superactivator__delta": [0.1, 0.6]}
    search = GridSearchCV(pipe, grid, scoring=token_iou_scorer, cv=2, error_score="raise")
    search.fit(X, y, token_labels=labels)
    first = slice(0, 10)
    fitted = pipe.set_params(superactivator__delta=0.6).fit(
        X[10:], y[10:], token_labels=labels[10:]
    )
    expected = token_iou_score(labels[first], superactivators(fitted, X[first]))
    assert search.cv_results_["split0_test_score"][1] == pytest.approx(expected)


def test_an_estimator_without_a_detector_is_refused(problem):
    X, y, labels = problem
    concepts = MeanPrototype().fit(X, y)
    with pytest.raises(TypeError, match="MeanPrototype does not end in a detector"):
        token_f1_scorer(concepts, X, token_labels=labels)
    with pytest.raises(TypeError, match="token_labels"):
        token_f1_scorer(concepts, X)
