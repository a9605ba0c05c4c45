"""Pages that stand alone: text comes out as text, nothing is loaded, nothing runs."""

import base64
import io
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from skact import Patch, PatchHeatMapDisplay, Token, TokenHeatMapDisplay
from skact.inspection import LocalizationDisplay

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></span><iframe src='//evil.example'>",
    "&lt;b&gt; &amp; <b>",
    "a\u2028b \x00 \u202e <svg/onload=alert(1)>",
]


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.shown, self.titles, self._open = [], "", [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if "title" in self._open:
            self.titles.append(data)
        else:
            self.shown += data

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def words(text):
    """Tokens of one character each, so that markup is cut everywhere."""
    return [Token(c, i, i + 1) for i, c in enumerate(text) if c != " "]


def check_harmless(page):
    allowed = {"html", "head", "meta", "title", "body", "div", "span"}
    assert {tag for tag, _ in page.tags} <= allowed | {"svg", "image", "rect", "path"}
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "src"]
        assert attrs.get("href", "data:").startswith("data:image/png;base64,") or (
            "href" not in attrs
        )
        assert "url(" not in attrs.get("style", "")
    assert page.of("meta")[1]["content"].startswith("default-src 'none'")


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("whole", [True, False])
def test_text_comes_out_as_text(text, whole):
    tokens = [Token(text, 0, len(text))] if whole else words(text)
    scores = np.linspace(-1, 1, len(tokens))
    html = TokenHeatMapDisplay(text, tokens, scores, scores > 0, concept=text).to_html()
    page = Page(html)
    check_harmless(page)
    seen = text.replace("\0", "\u2400")
    assert page.titles == [seen]
    assert seen + seen in page.shown
    assert len(page.of("span")) == len(tokens)


def test_an_escape_that_is_left_out_would_be_seen(monkeypatch):
    from skact.inspection import _html

    monkeypatch.setattr(_html, "escape", str)
    html = TokenHeatMapDisplay(EVIL[0], [Token("", 0, 25)], [1.0], concept="a").to_html()
    with pytest.raises(AssertionError):
        check_harmless(Page(html))


def test_control_characters_are_seen_and_the_direction_ends_with_the_text():
    text = "a\0b\x1b[0m\x7f\tc\nd \u202e\ud800\udfff"
    html = TokenHeatMapDisplay(text, [Token(text, 0, len(text))], [1.0], concept=text).to_html()
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", html)
    page = Page(html)
    seen = "a\u2400b\u241b[0m\u2421\tc\nd \u202e\ufffd\ufffd"
    assert page.titles == [seen]
    assert seen in page.shown
    assert [attrs["dir"] for tag, attrs in page.tags if "dir" in attrs] == ["auto"]


def test_names_of_special_tokens_and_text_between_tokens_are_shown():
    text = "to <be> or not"
    tokens = [Token("<s>", 0, 0), Token("to", 0, 2), Token("or", 8, 10)]
    page = Page(TokenHeatMapDisplay(text, tokens, [0.0, 1.0, 2.0]).to_html())
    assert "<s>to <be> or not" in page.shown
    # Tokens that overlap, such as the bytes of one character, show it once.
    page = Page(TokenHeatMapDisplay("é!", [Token("é", 0, 1)] * 2, [0.0, 1.0]).to_html())
    assert page.shown.count("é") == 1


def backgrounds(html):
    """Background of each token as (red, green, blue)."""
    styles = [attrs["style"] for attrs in Page(html).of("span")]
    codes = [style.split("background:#")[1][:6] for style in styles]
    return np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in codes])


def test_colours_are_monotone_in_the_score():
    text = "abcdefghi"
    scores = np.linspace(-2, 3, 9)
    shuffled = np.random.default_rng(0).permutation(9)
    display = TokenHeatMapDisplay(text, words(text), scores[shuffled])
    tones = backgrounds(display.to_html(cmap="gray"))[np.argsort(shuffled)]
    assert np.all(np.diff(tones, axis=0) > 0)
    # With a centre: the same distance from it on both sides, from blue to red.
    signed = TokenHeatMapDisplay(text, words(text), np.linspace(-2, 2, 9), center=0.0)
    red, _, blue = backgrounds(signed.to_html()).T
    assert np.all(np.abs(np.diff(red - blue, prepend=-999)) > 0)
    assert (red - blue)[0] < -50 < 50 < (red - blue)[-1]
    assert abs((red - blue)[4]) < 5
    moved = TokenHeatMapDisplay(text, words(text), np.linspace(0, 4, 9), center=2.0)
    np.testing.assert_array_equal(backgrounds(moved.to_html()), backgrounds(signed.to_html()))
    # The sign keeps its colour where all scores are on one side.
    red, _, blue = backgrounds(
        TokenHeatMapDisplay(text, words(text), np.linspace(0.1, 1, 9), center=0.0).to_html()
    ).T
    assert np.all(red > blue)


GRID = [
    Patch(r, c, (5.0 * c, 5.0 * r, 5.0 * c + 5, 5.0 * r + 5)) for r in range(2) for c in range(2)
]


def test_patches_lie_over_their_embedded_image():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (10, 10, 3), np.uint8))
    marked = [True, True, False, False]
    display = PatchHeatMapDisplay(image, GRID, [0.0, 1.0, 2.0, 3.0], marked, concept="<b>")
    page = Page(display.to_html(cmap="gray"))
    check_harmless(page)
    (embedded,) = page.of("image")
    png = base64.b64decode(embedded["href"].partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(image))
    rects = page.of("rect")
    assert [[float(r[k]) for k in ("x", "y", "width", "height")] for r in rects] == [
        [p.box[0], p.box[1], 5, 5] for p in GRID
    ]
    assert [r["fill"] for r in rects] == ["#000000", "#555555", "#aaaaaa", "#ffffff"]
    # Two neighbours: six edges around them.
    assert {p["d"].count("M") for p in page.of("path")} == {6}
    assert "<b>" in page.shown


def test_opacity_follows_the_distance_from_the_centre():
    image = Image.new("RGB", (10, 10), "green")
    page = Page(PatchHeatMapDisplay(image, GRID, [-1.0, 0.0, 2.0, np.nan], center=0.0).to_html())
    opacity = [float(r["fill-opacity"]) for r in page.of("rect")]
    assert opacity[2] > opacity[0] > opacity[1] == opacity[3] == 0


def test_large_images_are_embedded_small():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 1800, 3), np.uint8))
    patches = [Patch(0, 0, (0.0, 0.0, 1800.0, 900.0))]
    html = PatchHeatMapDisplay(image, patches, [1.0]).to_html()
    png = base64.b64decode(Page(html).of("image")[0]["href"].partition(",")[2])
    assert Image.open(io.BytesIO(png)).size == (640, 320)
    (svg,) = Page(html).of("svg")
    assert (svg["viewbox"], svg["width"], svg["height"]) == ("0 0 1800 900", "320", "160")


@pytest.mark.parametrize(
    "display",
    [
        TokenHeatMapDisplay("ab", words("ab"), [0.0, 1.0], concept="c"),
        LocalizationDisplay("ab", words("ab"), {"m": {"t": [0.0, 1.0]}}, concept="c"),
    ],
    ids=["one", "grid"],
)
def test_files_are_written_in_one_step(tmp_path, monkeypatch, display):
    path = tmp_path / "map.html"
    html = display.to_html(path)
    assert path.read_text(encoding="utf-8") == html == display.to_html()
    assert path.stat().st_mode & 0o777 == 0o644
    assert display._repr_html_() in html
    path.write_text("before")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        display.to_html(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
