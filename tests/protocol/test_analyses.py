"""The analyses as steps: of the functions of inspection, on what separators score."""

import json

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from skact import (
    DELTA_GRID,
    ConceptSearchCV,
    LayerStack,
    LinearSeparator,
    SelectLayer,
    SuperActivator,
    TokenArray,
    TokenScaler,
    separability,
    sparsity_curve,
    superactivator_counts,
)
from skact.protocol import ANALYSES, Analyst, chosen_marks, enough_samples, mean_vectors
from tests.inspection.analysis_case import case

SPLIT = np.resize(["train", "cal", "test"], 90)


@pytest.fixture(scope="module")
def parts():
    """Tokens that hold the scores of concepts among noise, and their labels."""
    stack, _, labels = case(90)
    rng = np.random.default_rng(0)
    mixing = {block: rng.normal(size=(stack.layer(block).shape[1], 6)) for block in stack.layers}
    tokens = LayerStack(
        {b: stack.layer(b).map(lambda rows, b=b: (rows @ mixing[b]).astype("f4")) for b in mixing}
    )
    names = [f"c{c}" for c in range(labels.shape[1])]
    return tokens, labels.with_values(labels.flat(), names)


@pytest.fixture(scope="module")
def analyst(parts):
    tokens, labels = parts
    return Analyst(tokens, mean_vectors(tokens), labels, SPLIT, 5, 0)


def test_scores_are_those_of_separators_fitted_on_train(parts, analyst):
    tokens, labels = parts
    train, held = SPLIT == "train", SPLIT != "train"
    found = {}
    for block in tokens.layers:
        layer = tokens.layer(block)
        scaler = TokenScaler().fit(layer[train])
        method = LinearSeparator().fit(
            scaler.transform(layer[train]), labels.max()[train], token_labels=labels[train]
        )
        found[block] = method.transform(scaler.transform(layer[held]))
        np.testing.assert_allclose(
            analyst.scores.layer(block).flat(), found[block].flat(), rtol=1e-5
        )
    expected = separability(LayerStack(found), None, labels[held], n_resamples=5, random_state=0)
    made = analyst.analyse("separability")
    np.testing.assert_allclose(made["result"]["mean"], expected.mean, atol=1e-4)
    first = [expected.mean[0], *np.quantile(expected.resamples[:, 0], [0.025, 0.975])]
    np.testing.assert_allclose(made["claims"]["separability"]["first"], first, atol=1e-4)


def test_every_analysis_is_plain_and_the_same_alone_or_after_others(parts, analyst):
    tokens, labels = parts
    claims = {}
    for name in ANALYSES:
        made = analyst.analyse(name)
        assert json.loads(json.dumps(made)) == made
        assert "resamples" not in made["result"]
        claims |= made["claims"]
    assert set(claims) >= {"skew", "separability", "coverage", "sparsity", "positions"}
    for name in ("superactivator_counts", "best_sparsity"):
        alone = Analyst(tokens, mean_vectors(tokens), labels, SPLIT, 5, 0).analyse(name)
        assert alone == analyst.analyse(name)


def test_counts_are_those_of_test_alone(parts, analyst):
    curve = analyst.sparsity
    marks = chosen_marks(analyst.scores, curve, analyst.held_labels, analyst.is_cal)
    on_test = ~analyst.is_cal
    quick = {"n_steps": 50, "n_resamples": 5, "random_state": 0}
    counts = superactivator_counts(marks[on_test], None, analyst.held_labels[on_test], **quick)
    made = analyst.analyse("superactivator_counts")
    np.testing.assert_allclose(made["result"]["mean"], counts.mean, atol=1e-4)
    both = superactivator_counts(marks, None, analyst.held_labels, **quick)
    assert not np.allclose(both.mean, counts.mean, atol=1e-4)


def test_vectors_are_means():
    values = np.arange(12.0).reshape(6, 2)
    stack = LayerStack({4: TokenArray(values, [0, 2, 6])})
    np.testing.assert_allclose(mean_vectors(stack).layer(4).flat(), [[1, 2], [7, 8]])
    assert mean_vectors(stack).layer(4).lengths.tolist() == [1, 1]


def test_concepts_need_samples_in_each_split():
    held = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]] * 2, bool)
    split = np.resize(["train", "cal", "test"], 6)
    assert enough_samples(held, split, 1).tolist() == [0]
    assert enough_samples(held, split, 3).tolist() == []


def test_marks_are_those_of_the_winners_of_a_search():
    stack, _, labels = case(90)
    cal = np.arange(90) < 45
    curve = sparsity_curve(stack, None, labels, calibration=cal, n_resamples=1, random_state=0)
    marks = chosen_marks(stack, curve, labels, cal)
    everything = np.arange(45)
    pipe = Pipeline([("layer", SelectLayer()), ("detect", SuperActivator())])
    grid = {"layer__layer": stack.layers, "detect__delta": DELTA_GRID}
    search = ConceptSearchCV(pipe, grid, cv=[(everything, everything)])
    search.fit(stack[cal], labels.max()[cal].astype(int), token_labels=labels[cal])
    np.testing.assert_array_equal(marks.flat(), search.superactivators(stack).flat())
