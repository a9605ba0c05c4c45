import warnings

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from skact import (
    ChatToken,
    ConceptDetector,
    ConceptSearchCV,
    LayerHeatMapDisplay,
    LocalizationDisplay,
    MeanPrototype,
    Patch,
    PatchHeatMapDisplay,
    SamplesDisplay,
    SuperActivator,
    Token,
    TokenHeatMapDisplay,
    TransformerEmbedder,
    make_shapes,
    shapes_model_path,
    superactivators,
)
from skact.inspection._glyphs import columns_of

TEXT = "cost: $5 and $6, <b>bold</b> words"


def tokens_of(text):
    """One token per word, and one for what is not a space behind it."""
    import re

    return [Token(m.group(), m.start(), m.end()) for m in re.finditer(r"\w+|[^\w\s]", text)]


@pytest.fixture(scope="module")
def pipeline():
    data = make_shapes(36, random_state=0)
    embedder = TransformerEmbedder(shapes_model_path(), layer=2)
    labels = embedder.align_masks(data.data, data.masks, data.target_names)
    pipe = make_pipeline(embedder, MeanPrototype(), SuperActivator(0.3))
    pipe.fit(
        data.data,
        data.target,
        meanprototype__token_labels=labels,
        superactivator__token_labels=labels,
    )
    return pipe, data


def boxes(display, outlined):
    """Rectangles that are outlines, or fillings."""
    return [
        p for p in display.ax_.patches if (p.get_linewidth() > 0) == outlined and p.get_width() > 0
    ]


def outline(display):
    """Edges around SuperActivators of an image, each drawn dark and light."""
    dark, light = (
        sorted(np.sort(edge, axis=0).ravel().tolist() for edge in lines.get_segments())
        for lines in display.ax_.collections
    )
    assert dark == light
    return light


def test_every_token_stands_in_its_place():
    tokens = tokens_of(TEXT)
    scores = np.linspace(0, 1, len(tokens))
    display = TokenHeatMapDisplay(TEXT, tokens, scores, scores > 0.9, concept="money").plot()
    texts = display.ax_.texts
    assert [t.get_text() for t in texts] == [t.text for t in tokens]
    # One line, so a token's column is its character.
    assert [t.get_position()[0] for t in texts] == [t.start for t in tokens]
    # Dollars are money here, not mathematics.
    assert not any(t.get_parse_math() for t in texts)
    assert display.ax_.get_title() == "money"
    assert len(boxes(display, True)) == (scores > 0.9).sum() > 0
    display.figure_.canvas.draw()


def test_long_texts_break_between_words():
    text = "word " * 40 + "un" + "break" * 3
    display = TokenHeatMapDisplay(text, tokens_of(text), np.arange(41.0)).plot()
    places = [t.get_position() for t in display.ax_.texts]
    assert all(0 <= x < 64 for x, _ in places)
    lines = sorted({y for _, y in places})
    assert len(lines) == -(-len(text) // 64)
    assert np.all(np.diff([y for _, y in places]) >= 0)


def test_colour_follows_the_score():
    tokens = tokens_of("a b c")
    display = TokenHeatMapDisplay("a b c", tokens, [5.0, 7.0, 6.0]).plot(cmap="gray")
    tones = [p.get_facecolor()[0] for p in display.ax_.patches]
    np.testing.assert_allclose(tones, [0, 1, 0.5], atol=0.01)
    flat = TokenHeatMapDisplay("a b c", tokens, [5.0, 5.0, 5.0]).plot(cmap="gray")
    assert {p.get_facecolor()[0] for p in flat.ax_.patches} == {0.0}


def test_patches_lie_on_their_pixels():
    patches = [Patch(0, 0, (0.0, 0.0, 4.0, 6.0)), Patch(0, 1, (4.0, 0.0, 8.0, 6.0))]
    image = Image.new("RGB", (8, 6), "red")
    display = PatchHeatMapDisplay(image, patches, [0.0, 1.0], [False, True]).plot()
    assert [p.get_bbox().extents.tolist() for p in boxes(display, False)] == [
        [-0.5, -0.5, 3.5, 5.5],
        [3.5, -0.5, 7.5, 5.5],
    ]
    left, right, top, bottom = 3.5, 7.5, -0.5, 5.5
    assert outline(display) == sorted(
        [
            [left, top, left, bottom],
            [right, top, right, bottom],
            [left, top, right, top],
            [left, bottom, right, bottom],
        ]
    )


def test_neighbours_share_an_outline():
    """Of a 3 x 3 grid the four patches at the upper left have a perimeter of eight sides."""
    patches = [
        Patch(r, c, (4.0 * c, 4.0 * r, 4.0 * c + 4, 4.0 * r + 4))
        for r in range(3)
        for c in range(3)
    ]
    marked = np.array([p.row < 2 and p.column < 2 for p in patches])
    image = Image.new("RGB", (12, 12))
    display = PatchHeatMapDisplay(image, patches, np.zeros(9), marked).plot()
    assert len(outline(display)) == 8
    assert np.max(outline(display)) == 7.5
    alone = PatchHeatMapDisplay(image, patches, np.zeros(9), np.arange(9) % 2 == 0).plot()
    assert len(outline(alone)) == 5 * 4
    assert outline(PatchHeatMapDisplay(image, patches, np.zeros(9)).plot()) == []


@pytest.mark.parametrize("concept", [0, "red"])
def test_from_estimator_shows_what_the_pipeline_computes(pipeline, concept):
    pipe, data = pipeline
    sample = int(np.flatnonzero(data.target[:, 0])[0])
    display = PatchHeatMapDisplay.from_estimator(pipe, data.data[sample], concept)
    scores = pipe[:-1].transform([data.data[sample]])
    np.testing.assert_allclose(display.scores, scores[0][:, 0])
    marks = pipe[-1].superactivators(scores)[0][:, 0]
    assert marks.any()
    np.testing.assert_array_equal(display.superactivators, marks)
    inside = {(p.row, p.column) for p, mark in zip(display.tokens, marks, strict=True) if mark}
    perimeter = sum(
        (r + dr, c + dc) not in inside
        for r, c in inside
        for dr, dc in ((0, 1), (0, -1), (1, 0), (-1, 0))
    )
    assert len(outline(display)) == perimeter
    assert display.ax_.get_title() == "red"


def test_paths_and_grey_images_are_drawn(tmp_path):
    grey = Image.new("L", (8, 8), 100)
    grey.save(tmp_path / "grey.png")
    patch = [Patch(0, 0, (0.0, 0.0, 8.0, 8.0))]
    for image in (str(tmp_path / "grey.png"), tmp_path / "grey.png", grey, np.asarray(grey)):
        shown = PatchHeatMapDisplay(image, patch, [1.0]).plot().ax_.images[0].get_array()
        np.testing.assert_array_equal(shown, np.full((8, 8, 3), 100))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: TokenHeatMapDisplay("a", tokens_of("a"), [1.0, 2.0]), ValueError, "scores must"),
        (
            lambda p: TokenHeatMapDisplay("a", tokens_of("a"), [1.0], [True, False]),
            ValueError,
            "superactivators must have shape",
        ),
        (
            lambda p: PatchHeatMapDisplay.from_estimator(p[0], p[1].data[0], "violet"),
            ValueError,
            "concept must be one of .*'red'.* or of 0 to 5, got 'violet'",
        ),
        (
            lambda p: PatchHeatMapDisplay.from_estimator(p[0], p[1].data[0], 6),
            ValueError,
            "got 6",
        ),
        (
            lambda p: PatchHeatMapDisplay.from_estimator(p[0][1:], p[1].data[0]),
            TypeError,
            "starts with a TransformerEmbedder",
        ),
        (
            lambda p: TokenHeatMapDisplay("a", tokens_of("a"), [1.0], limits=(2, 1)),
            ValueError,
            "limits",
        ),
        (
            lambda p: PatchHeatMapDisplay.from_estimator(
                p[0], p[1].data[:2], ax=matplotlib.pyplot.gca()
            ),
            ValueError,
            "ax holds one sample",
        ),
    ],
)
def test_bad_input(pipeline, make, error, message):
    with pytest.raises(error, match=message):
        make(pipeline)


def test_photographs_keep_their_colours():
    """What says little shows the image as it is, with a centre and without one."""
    patches = [Patch(0, c, (4.0 * c, 0.0, 4.0 * c + 4, 4.0)) for c in range(3)]
    image = Image.new("RGB", (12, 4), (10, 200, 30))
    for center, clear in ((None, 0), (1.0, 1)):
        display = PatchHeatMapDisplay(image, patches, [0.0, 1.0, 2.0], center=center).plot()
        seen = display.ax_.images[0].get_array()
        np.testing.assert_array_equal(seen, np.broadcast_to([10, 200, 30], (4, 12, 3)))
        opacity = [p.get_facecolor()[3] for p in display.ax_.patches]
        assert opacity[clear] == 0
        assert max(opacity) <= 0.8
        hues = [p.get_facecolor()[:3] for p in display.ax_.patches]
        assert np.ptp(hues[2]) > 0.3  # a colour, and no grey


def test_a_bar_says_which_colour_is_which_score():
    tokens = tokens_of("a b c")
    display = TokenHeatMapDisplay("a b c", tokens, [5.0, 7.0, 6.0]).plot(colorbar=True)
    (bar,) = [ax for ax in display.figure_.axes if ax is not display.ax_]
    assert bar.get_ylim() == (5.0, 7.0)
    norm, cmap = (getattr(bar.collections[-1], name) for name in ("norm", "cmap"))
    for patch, score in zip(display.ax_.patches, [5.0, 7.0, 6.0], strict=True):
        np.testing.assert_allclose(cmap(norm(score))[:3], patch.get_facecolor()[:3], atol=0.02)
    signed = TokenHeatMapDisplay("a b c", tokens, [5.0, 7.0, 6.0], center=6.5).plot(colorbar=True)
    (bar,) = [ax for ax in signed.figure_.axes if ax is not signed.ax_]
    assert bar.get_ylim() == (5.0, 8.0)
    assert len(TokenHeatMapDisplay("a", tokens_of("a"), [1.0]).plot().figure_.axes) == 1


@pytest.fixture(scope="module")
def all_in_one():
    data = make_shapes(36, random_state=0)
    detector = ConceptDetector(shapes_model_path(), layer=[1, 3], cv=2, random_state=0)
    return detector.fit(data.data, data.target), data


def estimators(fitted, pipe, data):
    """What decides in the same way, and in which the displays look."""
    search = ConceptSearchCV(clone(pipe), {"superactivator__delta": [0.3]}, cv=2)
    yield fitted, fitted.pipelines_
    for estimator in (pipe, FrozenEstimator(pipe), search.fit(data.data, data.target)):
        line = getattr(estimator, "best_estimators_", dict.fromkeys(fitted.pipelines_, pipe))
        yield estimator, line


def test_displays_look_into_all_that_decides(pipeline, all_in_one):
    fitted, data = all_in_one
    for estimator, lines in estimators(fitted, pipeline[0], data):
        for c, name in ((0, "concept0"), (5, "concept5")):
            line = lines.get(name) or list(lines.values())[c]
            display = PatchHeatMapDisplay.from_estimator(estimator, data.data[3], c, cmap="viridis")
            scores = line[:-1].transform([data.data[3]])
            column = line[-1].matched_columns_[c]
            np.testing.assert_allclose(display.scores, scores[0][:, column], rtol=1e-5)
            marks = superactivators(line, [data.data[3]])[0][:, c]
            np.testing.assert_array_equal(display.superactivators, marks)


def test_a_list_of_samples_has_one_scale(pipeline):
    pipe, data = pipeline
    display = PatchHeatMapDisplay.from_estimator(pipe, data.data[:6], "red")
    assert isinstance(display, SamplesDisplay)
    assert display.axes_.shape == (2, 4)
    assert display.figure_.get_suptitle() == "red"
    titles = [ax.get_title() for ax in display.axes_.flat]
    assert titles == [*(f"sample {i}" for i in range(6)), "", ""]
    assert len(display.figure_.axes) == 9  # with one bar for all
    scores = pipe[:-1].transform(data.data[:6])
    for i, one in enumerate(display.displays):
        np.testing.assert_allclose(one.scores, scores[i][:, 0], rtol=1e-5)
        assert one._ends() == pytest.approx((scores.flat()[:, 0].min(), scores.flat()[:, 0].max()))
    # The same score has the same colour in all of them.
    painted = {
        round(float(score), 4): tuple(np.round(colour, 3))
        for one in display.displays
        for score, colour in zip(one.scores, one._colours(None), strict=True)
    }
    order = sorted(painted)
    assert np.all(np.diff([painted[score][3] for score in order]) >= 0)
    assert display.to_html().count("<svg") == 6
    assert display.plot(n_columns=3, colorbar=False).axes_.shape == (2, 3)


def test_texts_stand_below_each_other():
    texts = ["so good", "word " * 40]
    maps = [TokenHeatMapDisplay(t, tokens_of(t), np.arange(len(tokens_of(t)))) for t in texts]
    display = SamplesDisplay(maps, concept="joy").plot()
    assert display.axes_.shape == (2, 1)
    display.figure_.canvas.draw()
    heights = [ax.get_position().height for ax in display.axes_.flat]
    assert heights[1] > 2 * heights[0]
    with pytest.raises(ValueError, match="all of texts or all of images"):
        SamplesDisplay([])


def test_a_chat_shows_each_message_behind_its_role():
    chat = [{"role": "user", "content": "so sad"}, {"role": "assistant", "content": "oh dear"}]
    tokens = [ChatToken("sad", 3, 6, 0), ChatToken("oh", 0, 2, 1), ChatToken("dear", 3, 7, 1)]
    display = TokenHeatMapDisplay(chat, tokens, [0.0, 1.0, 2.0])
    assert display.sample == "user: so sad\nassistant: oh dear"
    assert [display.sample[t.start : t.end] for t in display.tokens] == ["sad", "oh", "dear"]


def test_a_notebook_shows_one_picture(pipeline):
    """Its rich form is that of the page, unless pyplot is about to show the figure."""
    tokens = tokens_of("a b")
    for display in (
        TokenHeatMapDisplay("a b", tokens, [0.0, 1.0]),
        SamplesDisplay([TokenHeatMapDisplay("a b", tokens, [0.0, 1.0], concept="c")]),
        LocalizationDisplay("a b", tokens, {"m": {"t": [0.0, 1.0]}}),
        LayerHeatMapDisplay("a b", tokens, {0: [0.0, 1.0], 3: [1.0, 0.0]}, concept="c"),
    ):
        page = display._repr_html_()
        assert page
        display.plot()
        assert display._repr_html_() is None
        matplotlib.pyplot.close("all")  # as a notebook does after the cell
        assert display._repr_html_() == page


MANY = "naïve 今天 天气 😀 עברית हिन्दी 🧑‍🚀 \U0010fffd"


@pytest.mark.parametrize("installed", [True, False])
def test_any_script_is_drawn_without_a_word(monkeypatch, installed):
    from skact.inspection import _glyphs

    if not installed:
        monkeypatch.setattr(_glyphs, "_family_with", lambda character: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        display = TokenHeatMapDisplay(
            MANY, tokens_of(MANY), np.arange(len(tokens_of(MANY))), concept="今天 $x$"
        ).plot()
        display.figure_.canvas.draw()
    shown = "".join(t.get_text() for t in display.ax_.texts)
    assert "naïve" in shown
    assert "\N{WHITE SQUARE}" in shown  # nobody has a glyph for the last one
    if not installed:
        assert "今" not in shown
        assert display.ax_.get_title() == "□□ $x$"


def test_the_flood_that_is_avoided():
    """The control: matplotlib warns of each glyph that its font has not."""
    figure, ax = matplotlib.pyplot.subplots()
    ax.text(0, 0, "\U0010fffd", family="monospace")
    with pytest.warns(UserWarning, match="Glyph"):
        figure.canvas.draw()


def test_wide_characters_take_two_columns():
    assert columns_of("ab") == 2
    assert columns_of("今天") == 4
    assert columns_of("e\u0301") == 1
    text = "今天" * 40
    tokens = [Token(c, i, i + 1) for i, c in enumerate(text)]
    display = TokenHeatMapDisplay(text, tokens, np.arange(80.0)).plot()
    columns = [t.get_position()[0] for t in display.ax_.texts]
    assert columns[:3] == [0, 2, 4]
    assert max(columns) <= 62
