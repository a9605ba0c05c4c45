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
    TransformerEmbedder,
    make_shapes,
    shapes_model_path,
)

matplotlib.use("Agg")

TEXT = "cost: $5 and $6, <b>bold</b> words"


def tokens_of(text):
    """One token per word, and one for what is not a space behind it."""
    import re

    return [Token(m.group(), m.start(), m.end()) for m in re.finditer(r"\w+|[^\w\s]", text)]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


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
            "concept must be one of .*'red'.* got 'violet'",
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
    ],
)
def test_bad_input(pipeline, make, error, message):
    with pytest.raises(error, match=message):
        make(pipeline)
