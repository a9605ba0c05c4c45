"""What all analyses share: resamples, intervals, and the scores of an estimator."""

import numpy as np
import pytest
import sklearn
from sklearn.pipeline import Pipeline, make_pipeline

from skact import (
    ConceptSearchCV,
    KMeansConcepts,
    MaxToken,
    MeanPrototype,
    SelectLayer,
    SeparabilityDisplay,
    SuperActivator,
    TokenArray,
    TransformerEmbedder,
    best_layers,
    best_sparsity,
    coverage,
    depth_curve,
    make_shapes,
    score_distributions,
    separability,
    shapes_model_path,
    sparsity_curve,
    superactivator_counts,
    superactivator_positions,
)
from skact.inspection._analysis import ends, resample, scores_by_layer
from tests.fresh import peak_of
from tests.inspection.analysis_case import NAMES, case


def test_resamples_hold_as_many_samples_and_the_first_is_all():
    counts = resample(50, 400, 0)
    assert counts.shape == (401, 50)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 50).all()
    # Each sample comes once on average, with the variance of a draw with replacement.
    assert counts[1:].var() == pytest.approx(1 - 1 / 50, abs=0.02)
    np.testing.assert_array_equal(counts, resample(50, 400, 0))


def test_an_interval_of_few_values_is_none():
    values = np.array([[1.0, 1.0], [1.0, np.nan], [3.0, np.nan], [2.0, 5.0]])
    found = ends(values, 0.5)
    assert found["low"][0] == 1.5
    assert np.isnan(found["low"][1])
    assert np.isnan(found["high"][1])


def test_units_are_read_at_the_columns_of_the_concepts(rng):
    stack, y, _ = case(60)
    tokens = stack.layer(5)
    pipe = make_pipeline(KMeansConcepts(5, random_state=0), SuperActivator(0.5)).fit(tokens, y)
    columns = pipe[-1].matched_columns_
    expected = pipe[:-1].transform(tokens).flat()[:, columns]
    np.testing.assert_array_equal(scores_by_layer(pipe, tokens).flat(), expected)


def test_a_search_from_raw_samples_embeds_once_for_all_layers():
    data = make_shapes(60, random_state=0)
    embedder = TransformerEmbedder(shapes_model_path())
    labels = embedder.align_masks(data.data, data.masks, data.target_names)
    pipe = Pipeline([("embed", embedder), ("concepts", MeanPrototype()), ("detect", MaxToken())])
    grid = {"embed__layer": [0, 4], "detect__delta": [0.1, 0.5]}
    search = ConceptSearchCV(pipe, grid, cv=np.arange(60) >= 36)
    search.fit(data.data, data.target, token_labels=labels)
    few = data.data[36:]
    found = scores_by_layer(search, few)
    for winner in search.best_estimators_.values():
        layer = found.layer(winner[0].layer)
        np.testing.assert_array_equal(layer.flat(), winner[:-1].transform(few).flat())
    shown = SeparabilityDisplay.from_estimator(
        search, few, token_labels=labels[36:], n_resamples=3, random_state=0
    )
    expected = separability(found, token_labels=labels[36:], n_resamples=3, random_state=0)
    np.testing.assert_array_equal(shown.result.share, expected.share)


def test_a_search_on_scores_has_all_their_layers():
    stack, y, _ = case(60)
    pipe = Pipeline([("layer", SelectLayer()), ("detect", SuperActivator())])
    search = ConceptSearchCV(pipe, {"layer__layer": [2, 5]}, cv=3).fit(stack, y)
    assert scores_by_layer(search, stack) is stack


@pytest.mark.parametrize(
    "estimator",
    [
        MeanPrototype(),
        ConceptSearchCV(SuperActivator(), {"delta": [0.1]}),
        ConceptSearchCV(SuperActivator(), {"delta": [0.1]}, cv=2).fit(
            case(20)[0].layer(5), case(20)[1]
        ),
        ConceptSearchCV(
            Pipeline([("layer", SelectLayer()), ("detect", SuperActivator())]),
            {"layer__layer": [2, 5]},
            cv=2,
            refit=False,
        ).fit(case(20)[0], case(20)[1]),
    ],
)
def test_what_has_no_layers_is_refused(estimator):
    with pytest.raises(TypeError, match=r"estimator must be a detector, .* pipelines_\. Got"):
        SeparabilityDisplay.from_estimator(estimator, case(20)[0])


def test_one_sample_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        resample(1, 10, 0)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda y, t: (None, None), "token_labels is missing: .*; TransformerEmbedder.align_spans"),
        (
            lambda y, t: (None, t.with_values(t.flat() & [True, False], NAMES)),
            r"token_labels marks no token of concept 1 \('food'\) in any sample; label some",
        ),
        (
            lambda y, t: (None, t.with_values(0 * t.flat(), None)),
            "token_labels marks no token of concept 0 in any sample",
        ),
        (
            lambda y, t: (y, t.with_values(t.flat() & [True, False], NAMES)),
            r"concept 1 \('food'\) has no positive token in token_labels; label some",
        ),
    ],
)
@pytest.mark.parametrize("analyse", [separability, score_distributions])
def test_what_is_not_labelled_is_named(analyse, of, message):
    stack, y, labels = case(60)
    with pytest.raises(ValueError, match=message):
        analyse(stack, *of(y, labels))


ANALYSES = {
    separability: {},
    score_distributions: {},
    coverage: {},
    sparsity_curve: {"calibration": np.arange(60) % 2 == 0},
    depth_curve: {"calibration": np.arange(60) % 2 == 0, "detectors": {"max": MaxToken()}},
    best_sparsity: {},
    best_layers: {"detectors": {"max": MaxToken()}},
    superactivator_counts: {},
    superactivator_positions: {},
}


@pytest.mark.parametrize("analyse", ANALYSES, ids=lambda f: f.__name__)
def test_scores_on_disk_give_the_same_in_little_memory(analyse, tmp_path, rng):
    """The file of scores takes 16 bytes a token."""
    lengths = np.full(60, 4000)
    offsets = np.r_[0, np.cumsum(lengths)]
    y = np.arange(60)[:, None] % [3, 4] == 0
    token_labels = np.repeat(y, lengths, axis=0) & (np.arange(offsets[-1])[:, None] % 50 == 0)
    values = rng.normal(size=(offsets[-1], 2)) + token_labels
    if analyse in (superactivator_counts, superactivator_positions):
        values = values > 1
    np.save(tmp_path / "scores.npy", values)
    on_disk = TokenArray(np.load(tmp_path / "scores.npy", mmap_mode="r"), offsets)
    labels = TokenArray(token_labels, offsets)
    settings = {**ANALYSES[analyse], "n_resamples": 3, "random_state": 0}

    def call(scores=on_disk):
        return analyse(scores, y.astype(int), labels, **settings)

    with sklearn.config_context(working_memory=1):
        found = []
        peak = peak_of(lambda: found.append(call()))
    expected = call(TokenArray(values, offsets))
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[0][name], value, err_msg=name)
    assert peak / offsets[-1] < 10
