"""A grid holds the maps of all methods and targets, each on its own scale."""

import warnings
from functools import partial

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline

from skact import (
    MeanPrototype,
    Patch,
    PatchHeatMapDisplay,
    SuperActivator,
    Token,
    TokenHeatMapDisplay,
    TokenScaler,
    TransformerEmbedder,
    make_shapes,
    shapes_model_path,
    superactivators,
)
from skact.inspection import LocalizationDisplay
from skact.localization import CALM, RISE, ConceptLocalizer

TEXT = "so happy today"
TOKENS = [Token("so", 0, 2), Token("happy", 3, 8), Token("today", 9, 14)]
PATCHES = [Patch(0, c, (4.0 * c, 0.0, 4.0 * c + 4, 4.0)) for c in range(3)]
IMAGE = Image.new("RGB", (12, 4), "red")
MAPS = {
    "direct": {"global": [-1.0, 2.0, 0.5], "local": [0.0, 20.0, -5.0]},
    "rise": {"global": [0.1, 0.2, 0.3], "local": [np.nan] * 3},
    "calm": {"global": [0.0] * 3, "local": [1.0] * 3},
}
MARKS = [False, True, False]


def titles(display):
    return [[ax.get_title() for ax in row] for row in display.axes_]


def test_texts_have_a_row_per_method():
    display = LocalizationDisplay(TEXT, TOKENS, MAPS, MARKS, concept="joy").plot()
    assert titles(display) == [[f"{m}, {t}" for t in ("global", "local")] for m in MAPS]
    assert display.figure_.get_suptitle() == "joy"
    for ax in display.axes_.flat:
        assert sum(p.get_linewidth() > 0 for p in ax.patches) == 1
    # One size everywhere, because the layout is settled before text is drawn.
    assert np.ptp([t.get_size() for ax in display.axes_.flat for t in ax.texts]) < 1e-6
    alone = TokenHeatMapDisplay(TEXT, TOKENS, MAPS["direct"]["local"], MARKS, center=0.0).plot()
    for ours, theirs in zip(display.axes_[0, 1].patches, alone.ax_.patches, strict=True):
        assert ours.get_facecolor() == theirs.get_facecolor()


def test_images_have_a_row_per_target_behind_the_image_itself():
    display = LocalizationDisplay(IMAGE, PATCHES, MAPS, MARKS).plot()
    assert titles(display) == [
        ["image" if t == "global" else "", *(f"{m}\n{t}" for m in MAPS)]
        for t in ("global", "local")
    ]
    plain, *maps = display.axes_[0]
    np.testing.assert_array_equal(plain.images[0].get_array()[0, 0], [255, 0, 0])
    assert {p.get_facecolor()[3] for p in plain.patches} == {0}
    for ax in [plain, *maps]:
        assert len(ax.collections) == 2
    # Under colours the image keeps its own; a map that is missing leaves it as it is.
    np.testing.assert_array_equal(maps[0].images[0].get_array()[0, 0], [255, 0, 0])
    assert [p.get_facecolor()[3] > 0 for p in maps[0].patches] == [True, True, True]
    missing = display.axes_[1, 2]
    assert {p.get_facecolor()[3] for p in missing.patches} == {0}
    assert not display.axes_[1, 0].images


@pytest.mark.parametrize(("sample", "tokens"), [(TEXT, TOKENS), (IMAGE, PATCHES)])
def test_a_bar_beside_each_map_has_its_scale(sample, tokens):
    display = LocalizationDisplay(sample, tokens, MAPS, MARKS)

    def scales(**options):
        figure = display.plot(**options).figure_
        return sorted(ax.get_ylim() for ax in figure.axes if ax.get_ylabel() == "score")

    assert scales() == []
    # "rise" is centred on its mean; its local map has no score, and the image itself none either.
    wanted = [(-20, 20), (-2, 2), (-1, 1), (-1, 1), (0.1, 0.3)]
    np.testing.assert_allclose(scales(colorbar=True), wanted)


def test_rows_of_many_maps_are_wrapped():
    maps = {f"m{k}": {t: [0.0, 1.0, 2.0] for t in ("a", "b")} for k in range(8)}
    display = LocalizationDisplay(IMAGE, PATCHES, maps).plot()
    assert display.axes_.shape == (4, 7)
    shown = [[title.replace("\n", " ") for title in row] for row in titles(display)]
    assert shown[:2] == [
        [lead, *(f"m{k} {t}" for k in range(6))] for lead, t in (("image", "a"), ("", "b"))
    ]
    assert shown[2:] == [["", f"m6 {t}", f"m7 {t}", *[""] * 4] for t in ("a", "b")]


def test_the_page_holds_every_map():
    for sample, tokens in ((TEXT, TOKENS), (IMAGE, PATCHES)):
        html = LocalizationDisplay(sample, tokens, MAPS, MARKS, concept="<joy>").to_html()
        assert html.count("&lt;joy&gt;") == 2
        assert "<joy>" not in html
        assert html.count("<svg") == (0 if sample is TEXT else 7)
        for method in MAPS:
            assert html.count(method) == 2


def test_maps_are_read_against_zero_but_rise_against_its_mean():
    scores = np.array([3.0, 5.0, 4.0])
    html = [
        LocalizationDisplay(TEXT, TOKENS, {method: {"t": shown}}).to_html()
        for method, shown in (("rise", scores), ("direct", scores - 4), ("direct", scores))
    ]
    ours, theirs, wrong = ([part[:7] for part in one.split("background:")[2:]] for one in html)
    assert ours == theirs != wrong


def test_a_given_figure_is_used():
    figure = matplotlib.pyplot.figure(layout="constrained")
    display = LocalizationDisplay(TEXT, TOKENS, {"direct": {"local": [0, 1, 2]}})
    assert display.plot(figure=figure).figure_ is figure
    assert display.axes_.shape == (1, 1)
    assert figure.get_suptitle() == ""


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({}, "at least one map"),
        ({"direct": {}}, "at least one map"),
        ({"direct": {"local": [0, 1]}}, r"scores must have shape \(3,\)"),
        (
            {"a": {"local": [0, 1, 2]}, "b": {"global": [0, 1, 2]}},
            r"targets \['local'\], but \['global'\] for 'b'",
        ),
    ],
)
def test_bad_input(maps, message):
    with pytest.raises(ValueError, match=message):
        LocalizationDisplay(TEXT, TOKENS, maps)


@pytest.fixture(scope="module")
def fitted():
    """A localizer of shapes, and the shapes."""
    data = make_shapes(54, random_state=0)
    embedder = TransformerEmbedder(shapes_model_path(), layer=2)
    labels = embedder.align_masks(data.data, data.masks, data.target_names)
    tokens = embedder.transform(data.data)
    concepts = make_pipeline(TokenScaler(), MeanPrototype())
    concepts.fit(tokens, data.target, meanprototype__token_labels=labels)
    detector = SuperActivator(0.5).fit(concepts.transform(tokens), data.target, labels)
    localizer = ConceptLocalizer(embedder, concepts, detector)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return localizer.fit(data.data, data.target, labels), data


def test_from_estimator_shows_what_the_localizer_computes(fitted):
    localizer, data = fitted
    sample = data.data[int(np.flatnonzero(data.target[:, 1])[0])]
    methods = ["direct", "grad_cam"]
    display = LocalizationDisplay.from_estimator(localizer, sample, 1, methods=methods)
    assert display.concept == "green"
    for method in methods:
        for target in ("global", "local"):
            one = ConceptLocalizer(
                localizer.embedder,
                localizer.concepts,
                localizer.detector,
                method=method,
                target=target,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = one.fit(data.data[:9], data.target[:9]).transform([sample])[0][:, 1]
            np.testing.assert_allclose(display.maps[method][target], expected)
    assert not np.allclose(display.maps["direct"]["global"], display.maps["direct"]["local"])
    # The localizer is as it was, and its own method is what is drawn by default.
    assert (localizer.method, localizer.target) == ("direct", "local")
    alone = LocalizationDisplay.from_estimator(localizer, sample, "green")
    assert list(alone.maps) == ["direct"]
    one = PatchHeatMapDisplay.from_estimator(localizer, sample, "green")
    np.testing.assert_array_equal(one.scores, display.maps["direct"]["local"])
    np.testing.assert_array_equal(one.superactivators, display.superactivators)
    parts = make_pipeline(localizer.embedder, localizer.concepts, localizer.detector)
    np.testing.assert_array_equal(one.superactivators, superactivators(parts, [sample])[0][:, 1])
    assert one.center == 0


@pytest.mark.filterwarnings("error")
def test_a_sample_without_a_superactivator_has_no_local_map(fitted):
    localizer, data = fitted
    parts = make_pipeline(localizer.embedder, localizer.concepts, localizer.detector)
    found = superactivators(parts, data.data).max()
    sample, concept = np.argwhere(~found)[0]
    display = LocalizationDisplay.from_estimator(localizer, data.data[sample], int(concept))
    assert np.isnan(display.maps["direct"]["local"]).all()
    assert np.isfinite(display.maps["direct"]["global"]).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda f: (f[0].concepts, f[1].data[0]), TypeError, "ConceptLocalizer, got Pipeline"),
        (lambda f: (f[0], f[1].data[0], "violet"), ValueError, "concept must be one of .*'violet'"),
        (lambda f: (f[0], f[1].data[0], 6), ValueError, "got 6"),
    ],
)
def test_bad_estimators_and_concepts(fitted, make, error, message):
    with pytest.raises(error, match=message):
        LocalizationDisplay.from_estimator(*make(fitted))


def test_methods_may_be_objects(fitted):
    localizer, data = fitted
    few, many = RISE(n_masks=70), RISE(n_masks=90)
    show = partial(LocalizationDisplay.from_estimator, localizer, data.data[0], targets=["global"])
    one = show(methods=["direct", few])
    assert list(one.maps) == ["direct", "rise"]
    two = show(methods=[few, many])
    assert list(two.maps) == [str(few), str(many)] == ["RISE(n_masks=70)", "RISE(n_masks=90)"]
    np.testing.assert_array_equal(two.maps[str(few)]["global"], one.maps["rise"]["global"])
    # Under either name it is read against its mean.
    means = [np.mean(row["global"]) for row in two.maps.values()]
    assert [cell.center for cell in two._cells[0][1:]] == means


def test_calm_needs_its_fit(fitted):
    localizer, data = fitted
    for method in ("calm", CALM()):
        with pytest.raises(ValueError, match='fitted with method="calm"'):
            LocalizationDisplay.from_estimator(localizer, data.data[0], methods=["direct", method])
