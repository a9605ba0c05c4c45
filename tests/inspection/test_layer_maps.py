"""One sample at several layers: each layer is the map it would be by itself."""

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import Pipeline

from skact import (
    ConceptSearchCV,
    LayerHeatMapDisplay,
    MeanPrototype,
    Patch,
    PatchHeatMapDisplay,
    SuperActivator,
    Token,
    TokenHeatMapDisplay,
    TransformerEmbedder,
    make_shapes,
    shapes_model_path,
)

TEXT = "so <b> today"
TOKENS = [Token("so", 0, 2), Token("<b>", 3, 6), Token("today", 7, 12)]
SCORES = {5: [0.0, 9.0, 1.0], 2: [1.0, 2.0, 3.0]}
MARKS = {5: [False, True, False]}


@pytest.fixture(scope="module")
def searched():
    """A search from raw images, whose concepts choose two layers."""
    data = make_shapes(60, random_state=0)
    embedder = TransformerEmbedder(shapes_model_path())
    labels = embedder.align_masks(data.data, data.masks, data.target_names)
    pipe = Pipeline(
        [("embed", embedder), ("concepts", MeanPrototype()), ("detect", SuperActivator())]
    )
    grid = {"embed__layer": [0, 4], "detect__delta": [0.1, 0.5]}
    search = ConceptSearchCV(pipe, grid, cv=np.arange(60) >= 36)
    return search.fit(data.data, data.target, token_labels=labels), data


def test_a_text_has_a_row_per_layer_on_its_own_scale():
    display = LayerHeatMapDisplay(TEXT, TOKENS, SCORES, MARKS, concept="joy").plot()
    assert [ax.get_title() for ax in display.axes_[:, 0]] == ["block 2", "block 5"]
    assert display.figure_.get_suptitle() == "joy"
    for ax, block in zip(display.axes_[:, 0], (2, 5), strict=True):
        alone = TokenHeatMapDisplay(TEXT, TOKENS, SCORES[block], MARKS.get(block)).plot()
        for ours, theirs in zip(ax.patches, alone.ax_.patches, strict=True):
            assert ours.get_facecolor() == theirs.get_facecolor()
            assert ours.get_linewidth() == theirs.get_linewidth()


def test_a_bar_beside_each_layer_has_its_scale_and_the_colours_asked_for():
    display = LayerHeatMapDisplay(TEXT, TOKENS, SCORES, MARKS).plot(cmap="Greys", colorbar=True)
    bars = [ax for ax in display.figure_.axes if ax.get_ylabel() == "score"]
    assert [ax.get_ylim() for ax in bars] == [(1, 3), (0, 9)]
    alone = TokenHeatMapDisplay(TEXT, TOKENS, SCORES[2]).plot(cmap="Greys")
    for ours, theirs in zip(display.axes_[0, 0].patches, alone.ax_.patches, strict=True):
        assert ours.get_facecolor() == theirs.get_facecolor()
    figure = LayerHeatMapDisplay(TEXT, TOKENS, SCORES).plot().figure_
    assert not [ax for ax in figure.axes if ax.get_ylabel()]


def test_an_image_has_its_layers_side_by_side():
    patches = [Patch(0, c, (4.0 * c, 0.0, 4.0 * c + 4, 4.0)) for c in range(3)]
    image = Image.new("RGB", (12, 4), "red")
    many = {block: [0.0, block, 1.0] for block in range(8)}
    display = LayerHeatMapDisplay(image, patches, many).plot()
    assert display.axes_.shape == (2, 6)
    titles = [ax.get_title() for ax in display.axes_.flat]
    assert titles == [*(f"block {b}" for b in range(8)), *[""] * 4]
    alone = PatchHeatMapDisplay(image, patches, many[3]).plot()
    colours = [p.get_facecolor() for p in display.axes_.flat[3].patches]
    assert colours == [p.get_facecolor() for p in alone.ax_.patches]


def test_the_page_holds_every_layer_and_runs_nothing():
    html = LayerHeatMapDisplay(TEXT, TOKENS, SCORES, concept="<joy>").to_html()
    assert html.index("block 2") < html.index("block 5")
    assert "<joy>" not in html
    assert "<b>" not in html


def test_a_search_shows_the_layers_of_its_winners(searched):
    search, data = searched
    chosen = {params["embed__layer"] for params in search.best_params_.values()}
    assert chosen == {0, 4}
    sample = data.data[0]
    display = LayerHeatMapDisplay.from_estimator(search, sample, "red")
    assert sorted(display.scores) == [0, 4]
    pipelines = {
        winner[0].layer: winner for winner in reversed(list(search.best_estimators_.values()))
    }
    for block, pipeline in pipelines.items():
        alone = PatchHeatMapDisplay.from_estimator(pipeline, sample, "red")
        np.testing.assert_array_equal(display.scores[block], alone.scores)
        np.testing.assert_array_equal(display.superactivators[block], alone.superactivators)
    given = LayerHeatMapDisplay.from_estimator(pipelines, sample, "red")
    np.testing.assert_array_equal(given.scores[4], display.scores[4])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s: LayerHeatMapDisplay(TEXT, TOKENS, {}), ValueError, "'scores' .* a dict of bl"),
        (lambda s: LayerHeatMapDisplay(TEXT, TOKENS, {1: [1.0]}), ValueError, "scores must have"),
        (
            lambda s: LayerHeatMapDisplay(TEXT, TOKENS, SCORES, {7: [True] * 3}),
            ValueError,
            "superactivators has block 7, scores has not",
        ),
        (
            lambda s: LayerHeatMapDisplay.from_estimator(s[0], s[1].data[0], "violet"),
            ValueError,
            "concept must be one of",
        ),
        (
            lambda s: LayerHeatMapDisplay.from_estimator(SuperActivator(), s[1].data[0]),
            TypeError,
            "estimator must be .* a fitted ConceptSearchCV over layers",
        ),
        (
            lambda s: LayerHeatMapDisplay.from_estimator(
                {0: Pipeline([("detect", SuperActivator())])}, s[1].data[0]
            ),
            TypeError,
            "estimator must start with a TransformerEmbedder at each layer",
        ),
    ],
)
def test_bad_input(searched, make, error, message):
    with pytest.raises(error, match=message):
        make(searched)
