"""Pages of units: their tokens, samples and words, filtered in a browser."""

import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import skact
from skact import unit_pages
from skact.inspection import escaped
from skact.models import logit_lens
from skact.reporting._units import directions
from tests import tiny_models
from tests.reporting.conftest import EVIL

TEXTS = [f"the happy cat {EVIL[i % 4]}" for i in range(6)]


@pytest.fixture(scope="module")
def pipe():
    embedder = skact.TransformerEmbedder(tiny_models.text_pair("gpt2", head=True), layer=1)
    method = skact.KMeansConcepts(4, random_state=0)
    return make_pipeline(embedder, skact.TokenScaler(), method).fit(TEXTS)


@pytest.fixture(scope="module")
def text_page(pipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "units.html"
    names = {0: "<script>alert(1)</script>", 3: "last"}
    html = unit_pages(pipe, TEXTS, path, names=names, n_examples=2)
    assert path.read_text(encoding="utf-8") == html
    return path


def sections(html):
    return re.findall(r'<section class="part".*?</section>', html, re.DOTALL)


def test_a_page_holds_the_numbers_of_each_unit(pipe, text_page):
    parts = sections(text_page.read_text(encoding="utf-8"))
    scores = pipe.transform(TEXTS)
    vectors = pipe[1].scale_ * pipe[-1].concept_vectors_
    words = logit_lens(pipe[0].model, vectors, top=8)
    against = logit_lens(pipe[0].model, -vectors, top=8)
    assert len(parts) == 4
    for unit, part in enumerate(parts):
        shown = [int(i) for i in re.findall(r"Sample (\d+)", part)]
        highest = scores.max()[:, unit]
        np.testing.assert_allclose(highest[shown], np.sort(highest)[::-1][:2])
        assert f"<dt>Largest score</dt><dd>{highest.max():.3g}</dd>" in part
        listed = re.findall(r'<ul class="words">(.*?)</ul>', part, re.DOTALL)
        for some, said in zip((words, against), listed, strict=True):
            assert len(re.findall('<li dir="auto">', said)) == 8
            assert all(_plain(escaped(word.word)) in _plain(said) for word in some[unit])


def _plain(html):
    from html import unescape

    return unescape(re.sub(r"<[^>]*>", "", html)).replace("\xa0", "")


def test_the_liveliest_units_are_taken(pipe):
    scores = pipe.transform(TEXTS).flat()
    best = np.sort(np.argsort(-scores.var(axis=0))[:2])
    html = unit_pages(pipe, TEXTS, n_units=2, lens=False)
    assert re.findall(r"<dt>Unit</dt><dd>(\d+)</dd>", html) == [str(k) for k in best]
    assert "Words that it speaks" not in html
    html = unit_pages(pipe, TEXTS, units=[3, 1])
    assert re.findall(r"<dt>Unit</dt><dd>(\d+)</dd>", html) == ["3", "1"]


def test_units_that_never_fire_say_so():
    embedder = skact.TransformerEmbedder(tiny_models.text_pair("bert"), layer=1)
    training = skact.AutoencoderTraining(max_epochs=1)
    method = skact.SparseAutoencoder(512, activation="topk", k=1, training=training, random_state=0)
    pipe = make_pipeline(embedder, method).fit(TEXTS)
    dead = np.flatnonzero(pipe.transform(TEXTS).max().max(axis=0) == 0)
    html = unit_pages(pipe, TEXTS, units=dead[:1])
    assert "fires on no token" in html
    assert 'class="sample"' not in html
    # A model without an unembedding has no words, unless they were asked for.
    assert "Words" not in html
    with pytest.raises(ValueError, match="no unembedding"):
        unit_pages(pipe, TEXTS, lens=True)


def test_directions_are_those_of_the_stream_before_scalers(pipe):
    units = np.array([2, 0])
    raw, steps = pipe[0].transform(TEXTS), list(pipe)
    found = directions(steps, units)
    for unit, vector in zip(units, found, strict=True):
        # A step along it is a step of length 1 along the unit's own vector behind the scaler.
        moved = [pipe[1].transform(raw.with_values(raw.flat() + add)) for add in (0, vector)]
        own = pipe[-1].concept_vectors_[unit]
        difference = moved[1].flat() - moved[0].flat()
        np.testing.assert_allclose(difference, np.tile(own, (len(difference), 1)), atol=1e-5)
    assert abs(pipe[1].scale_ - 1) > 0.1
    clipped = [steps[0], skact.NormClip().fit(raw), *steps[1:]]
    np.testing.assert_array_equal(directions(clipped, units), found)
    unscaled = skact.TokenScaler(with_scale=False).fit(raw)
    np.testing.assert_array_equal(
        directions([steps[0], unscaled, steps[-1]], units), pipe[-1].concept_vectors_[units]
    )


def test_directions_behind_other_steps_are_no_words(pipe):
    embedder = skact.TransformerEmbedder(pipe[0].model, layer=[0, 1])
    joined = make_pipeline(embedder, skact.JoinLayers(), clone(pipe[-1])).fit(TEXTS)
    with pytest.raises(ValueError, match="lens=True, but estimator has the step JoinLayers before"):
        unit_pages(joined, TEXTS, lens=True)
    assert "Words that it speaks" not in unit_pages(joined, TEXTS)
    heads = skact.TransformerEmbedder(pipe[0].model, layer=1, site="heads")
    at_heads = make_pipeline(heads, clone(pipe[-1])).fit(TEXTS)
    with pytest.raises(ValueError, match="lens=True, but site='heads' of estimator is not in the"):
        unit_pages(at_heads, TEXTS, lens=True)


def test_images_have_no_words(shapes):
    embedder = skact.TransformerEmbedder(skact.shapes_model_path(), layer=0.5)
    pipe = make_pipeline(embedder, skact.KMeansConcepts(2, random_state=0)).fit(shapes.data[:5])
    html = unit_pages(pipe, shapes.data[:5])
    assert html.count('class="map"') == 10
    assert "Top tokens" not in html
    assert html.count("data:image/jpeg") == 5
    with pytest.raises(ValueError, match="the model reads images"):
        unit_pages(pipe, shapes.data[:5], lens=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"units": [9]}, ValueError, "units holds 9"),
        ({"names": {0: ""}}, ValueError, "names"),
        ({"names": {"0": "foo"}}, ValueError, r"names must be by the numbers .* got '0'"),
        ({"names": {77: "foo"}}, ValueError, r"ints from 0 to \d+, got 77"),
        ({"names": {True: "foo"}}, ValueError, "names must be by .* got True"),
        ({"path": "/no/such/folder/a.html"}, FileNotFoundError, "no such folder"),
        ({"estimator": skact.KMeansConcepts()}, TypeError, "starts with"),
    ],
)
def test_bad_input(pipe, change, error, message):
    with pytest.raises(error, match=message):
        unit_pages(**{"estimator": pipe, "samples": TEXTS, **change})


def test_names_by_numbers_of_any_kind(pipe):
    html = unit_pages(pipe, TEXTS, units=[1], names={np.int64(1): "one", 0: "unseen"}, lens=False)
    assert ">one</h2>" in html
    assert "unseen" not in html


def test_the_page_in_a_browser(chrome, text_page):
    chrome.problems.clear()
    chrome.open(text_page)
    assert chrome.problems == []
    assert chrome.run("document.scripts.length") == 1
    shown = "document.getElementById('shown').textContent"
    assert chrome.run(shown) == "Shown: 4 of 4 units, 8 samples."
    options = chrome.run("[...document.querySelectorAll('option')].map(o => o.textContent)")
    assert options[1] == "<script>alert(1)</script>"
    assert options[4] == "last"
    chrome.run("document.getElementById('part').focus()")
    chrome.press("End")
    assert chrome.run(shown) == "Shown: 1 of 4 units, 2 samples."
    visible = "[...document.querySelectorAll('.part')].filter(e => e.offsetParent).map(e => e.id)"
    assert chrome.run(visible) == ["part-3"]
    levels = chrome.run("[...document.querySelectorAll('h1,h2,h3')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert max(np.diff(levels)) == 1
