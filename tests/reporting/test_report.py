"""The page of a detector: what it says, to whom, and that it says it of the right numbers."""

import os
import re

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import skact
from skact import report
from skact.inspection import read_concepts
from tests.reporting.conftest import EVIL, NAMES, TEXTS, words_in


@pytest.fixture(scope="module")
def text_page(line, labels, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    html = report(line, TEXTS, path, labels, n_resamples=50, n_examples=3)
    assert path.read_text(encoding="utf-8") == html
    return path


@pytest.fixture(scope="module")
def image_page(shapes, shapes_detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    report(shapes_detector, shapes.data[30:], path, shapes.target[30:], n_resamples=50)
    return path


def sections(html):
    """HTML of each concept."""
    return re.findall(r'<section class="part".*?(?=<section class="part"|</main>)', html, re.DOTALL)


def test_a_page_holds_every_concept_with_its_numbers(line, labels, text_page):
    html = text_page.read_text(encoding="utf-8")
    parts = sections(html)
    assert len(parts) == 2
    decision = line.decision_function(TEXTS)
    for c, part in enumerate(parts):
        truth, found = labels[:, c] == 1, decision[:, c] > 0
        f1 = skact.weighted_f1_score(truth, found)
        assert f"{f1:.2f} [" in part
        assert f'<td class="number">{skact.all_positive_f1_score(truth):.2f}</td>' in part
        for key, rows in (("hit", truth & found), ("alarm", ~truth & found)):
            shown = re.search(f'data-outcome="{key}".*?</ol>', part, re.DOTALL)
            assert bool(rows.any()) == bool(shown)
            if shown:
                numbers = [int(n) for n in re.findall(r"Sample (\d+)", shown[0])]
                best = sorted(np.flatnonzero(rows), key=lambda i: -decision[i, c])[:3]
                np.testing.assert_allclose(decision[numbers, c], decision[best, c])
                assert f"{rows.sum()} samples" in shown[0]
        assert f"<dd>{line[-1].estimator.delta}</dd>" in part
        assert "<dt>Layer (block, from 0)</dt><dd>1</dd>" in part


def test_without_labels_it_says_what_was_found(line):
    html = report(line, TEXTS)
    assert 'data-outcome="found"' in html
    assert 'data-outcome="hit"' not in html
    assert "12 samples, without labels" in html
    assert "How good it is" not in html


def test_a_detector_shows_its_cross_validation_and_unknown_labels(shapes, shapes_detector):
    y = shapes.target[30:].astype(float)
    y[:5, 0] = np.nan
    html = report(shapes_detector, shapes.data[30:], y=y, n_resamples=20)
    results = shapes_detector.results_
    for c, part in enumerate(sections(html)):
        row = part[part.index("Cross-validation in fit") :].partition("</tr>")[0]
        assert f"{results['f1'][c]:.2f}" in row
        assert f"{results['floor'][c]:.2f}" in row
        gain = " [".join((f"{results['gain'][c]:.2f}", f"{results['gain_low'][c]:.2f}"))
        assert gain in row
        assert ('data-outcome="found"' in part or 'data-outcome="nothing"' in part) == (c == 0)
        assert f"of {15 if c == 0 else 20}</td>" in part
    # No page says where on this machine a model lies.
    assert str(skact.shapes_model_path()) not in html


def searches():
    shapes = skact.make_shapes(36, random_state=1)
    embedder = skact.TransformerEmbedder(skact.shapes_model_path(), layer=2)
    pipe = make_pipeline(embedder, skact.MeanPrototype(), skact.SuperActivator(0.3))
    grid = {"transformerembedder__layer": [1, 3], "superactivator__delta": [0.1, 0.5]}
    yield skact.ConceptSearchCV(pipe, grid, cv=2), shapes
    yield GridSearchCV(pipe, {"superactivator__delta": [0.1, 0.5]}, cv=2), shapes
    yield pipe, shapes
    stack = skact.TransformerEmbedder(skact.shapes_model_path(), layer=[1, 3])
    inner = make_pipeline(skact.SelectLayer(), skact.MeanPrototype(), skact.SuperActivator())
    search = skact.ConceptSearchCV(inner, {"selectlayer__layer": [1, 3]}, cv=2)
    yield make_pipeline(stack, search), shapes


@pytest.mark.parametrize("k", range(4))
def test_searches_and_pipelines_are_read_as_they_decide(k):
    estimator, shapes = list(searches())[k]
    estimator.fit(shapes.data, shapes.target)
    found = estimator.predict(shapes.data)
    for wrapped in (estimator, FrozenEstimator(estimator)):
        readings = read_concepts(wrapped, shapes.data)
        np.testing.assert_array_equal(
            np.stack([r.decision > 0 for r in readings], axis=1), found == 1
        )
        for c, reading in enumerate(readings):
            np.testing.assert_allclose(
                reading.decision, estimator.decision_function(shapes.data)[:, c], atol=1e-6
            )
            assert reading.block in (1, 2, 3)
    assert len(sections(report(estimator, shapes.data[:4], n_examples=1))) == 6


def test_a_vector_of_classes(shapes):
    y = np.where(shapes.target[:, 0] == 1, "red", "other")
    embedder = skact.TransformerEmbedder(skact.shapes_model_path(), layer=2)
    pipe = make_pipeline(embedder, skact.MeanPrototype(), skact.SuperActivator())
    pipe.fit(shapes.data, y)
    (part,) = sections(report(pipe, shapes.data, y=y, n_resamples=10))
    assert f"{(y == 'red').sum()} of 50" in part
    with pytest.raises(ValueError, match=r"y holds 'blue', fit had only \['other', 'red'\]"):
        report(pipe, shapes.data, y=np.where(y == "red", "blue", "other"))


@pytest.mark.filterwarnings("ignore:the scores of 1 of 3")
def test_a_vector_of_many_classes_has_a_part_for_each(shapes):
    y = np.array(["red", "green", "blue"])[np.argmax(shapes.target[:, :3], axis=1)]
    embedder = skact.TransformerEmbedder(skact.shapes_model_path(), layer=2)
    pipe = make_pipeline(embedder, skact.MeanPrototype(), skact.SuperActivator())
    pipe.fit(shapes.data, y)
    parts = sections(report(pipe, shapes.data, y=y, n_resamples=10))
    assert len(parts) == 3
    for name, part in zip(("blue", "green", "red"), parts, strict=True):
        assert f">{name}</h2>" in part
        assert f"{(y == name).sum()} of 50" in part
    predicted, chances = pipe.predict(shapes.data), pipe.predict_proba(shapes.data)
    html = report(pipe, shapes.data, y=y, n_resamples=10, n_examples=50)
    assert "Each sample has one class: the most probable one is found in it" in html
    for c, (name, part) in enumerate(zip(("blue", "green", "red"), sections(html), strict=True)):
        for key, rows in (
            ("hit", (predicted == name) & (y == name)),
            ("alarm", (predicted == name) & (y != name)),
        ):
            shown = re.search(f'data-outcome="{key}".*?</ol>', part, re.DOTALL)
            numbers = re.findall(r"Sample (\d+)", shown[0]) if shown else []
            assert sorted(map(int, numbers)) == np.flatnonzero(rows).tolist()
        f1 = skact.weighted_f1_score(y == name, predicted == name)
        assert f"{f1:.2f} [" in part
        (reading,) = read_concepts(pipe, shapes.data, [name])
        np.testing.assert_array_equal(reading.found, predicted == name)
        np.testing.assert_allclose(reading.chance, chances[:, c], atol=1e-6)
        assert not np.array_equal(reading.found, reading.decision > 0)  # the control


def test_a_detector_of_many_classes_is_read_and_watched_as_it_decides(shapes):
    y = np.array(["red", "green", "blue"])[np.argmax(shapes.target[:, :3], axis=1)]
    detector = skact.ConceptDetector(skact.shapes_model_path(), layer=2, cv=2, random_state=0)
    detector.fit(shapes.data, y)
    found = [reading.found for reading in read_concepts(detector, shapes.data)]
    expected = detector.predict(shapes.data)[:, None] == detector.classes_
    np.testing.assert_array_equal(np.stack(found, axis=1), expected)
    assert not detector.multilabel_
    monitor = skact.Monitor(detector)
    tokens = detector.embedder_.transform(shapes.data).layer(2)
    made = monitor({"activations": tokens})
    np.testing.assert_array_equal(made["present"], expected)
    chances = detector.predict_proba(shapes.data)
    np.testing.assert_allclose(made["probability"], chances, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": [[1, 0]]}, ValueError, "y has 1 samples, samples has 12"),
        ({"y": np.ones((12, 3))}, ValueError, "y must have a column per concept"),
        ({"y": np.full((12, 2), 2)}, ValueError, r"y holds 2, fit had only \[0, 1\]"),
        ({"path": "/no/such/folder/a.html"}, FileNotFoundError, "no such folder"),
        ({"path": "/"}, IsADirectoryError, "path must name a file, and '/' is a folder"),
        ({"n_examples": 0}, ValueError, "n_examples"),
        ({"samples": []}, ValueError, "no samples"),
        ({"estimator": skact.SuperActivator()}, TypeError, "starts with"),
    ],
)
def test_what_is_wrong_is_said_before_the_model_runs(line, monkeypatch, change, error, message):
    def run(*args):
        raise AssertionError("the model runs")

    monkeypatch.setattr(skact.TransformerEmbedder, "transform", run)
    with pytest.raises(error, match=message):
        report(**{"estimator": line, "samples": TEXTS, **change})
    with pytest.raises(AssertionError, match="the model runs"):
        report(line, TEXTS)


def test_control_characters_are_seen_and_quotes_keep_their_direction(line):
    text = "the happy \0 \x1b cat \u202e"
    html = report(line, [text], title="\0")
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", html)
    assert "<title>\u2400</title>" in html
    body = re.sub(r"<[^>]*>", "", re.search(r'<p class="text" dir="auto">.*?</p>', html)[0])
    assert "the happy \u2400 \u241b cat \u202e" in body
    assert "<q><bdi>" in html
    assert not re.search(r"<q>(?!<bdi>)", html)


def test_a_file_that_cannot_be_written_leaves_the_old_one(line, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("before")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report(line, TEXTS, path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_chats_are_shown_with_their_roles():
    from tests import tiny_models

    model, tokenizer = tiny_models.text_pair("llama")
    tokenizer = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    )
    chats = [
        [{"role": "user", "content": f"{w} <b>"}, {"role": "assistant", "content": "cat"}]
        for w in ("happy", "angry") * 3
    ]
    embedder = skact.TransformerEmbedder((model, tokenizer), layer=1)
    pipe = make_pipeline(embedder, skact.MeanPrototype(), skact.SuperActivator(0.5))
    pipe.fit(chats, [1, 0] * 3)
    html = report(pipe, chats)
    shown = re.sub(r"<[^>]*>", "", html.partition('class="text"')[2])
    assert re.search(r"user: (happy|angry) &lt;b&gt;\nassistant: cat", shown)


# In a browser.


def test_pages_load_nothing_and_complain_of_nothing(chrome, text_page, image_page):
    for path in text_page, image_page:
        chrome.problems.clear()
        chrome.requests.clear()
        chrome.open(path)
        assert chrome.run("document.readyState") == "complete"
        assert chrome.problems == []
        outside = [url for url in chrome.requests if not url.startswith("data:image/")]
        assert outside == [path.as_uri()]


def test_what_is_escaped_stays_escaped(chrome, text_page):
    chrome.open(text_page)
    assert chrome.run("document.title") == "What the detector finds"
    assert chrome.run("document.scripts.length") == 1
    handlers = "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes])"
    assert chrome.run(f"{handlers}.filter(a => a.name.startsWith('on')).length") == 0
    shown = chrome.run("document.body.textContent")
    assert all(evil in shown for evil in EVIL)
    options = chrome.run("[...document.querySelectorAll('option')].map(o => o.textContent)")
    assert options == ["All 2 concepts", *NAMES]
    assert chrome.run("[...document.querySelectorAll('.part h2')].map(o => o.textContent)") == NAMES


def test_the_browser_sees_what_is_not_escaped(chrome, text_page, tmp_path):
    """The control: an escape that is left out is blocked by the policy, and is complained of."""
    html = text_page.read_text(encoding="utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(html.replace("<main", "<script>document.title = 'owned'</script><main"))
    chrome.problems.clear()
    chrome.open(bad)
    assert chrome.run("document.title") == "What the detector finds"
    assert any("Content Security Policy" in problem for problem in chrome.problems)


VISIBLE = "[...document.querySelectorAll('.part')].filter(e => e.offsetParent).map(e => e.id)"
OUTCOMES = (
    "[...new Set([...document.querySelectorAll('[data-outcome]')].filter(e => e.offsetParent)"
    ".map(e => e.dataset.outcome))].sort()"
)
SHOWN = "document.getElementById('shown').textContent"


def test_the_filter_works_by_keyboard(chrome, text_page):
    chrome.problems.clear()
    chrome.open(text_page)
    assert chrome.run(VISIBLE) == ["part-0", "part-1"]
    there = chrome.run(OUTCOMES)
    assert {"hit", "missed"} <= set(there)
    n_samples = chrome.run("document.querySelectorAll('li.sample').length")
    assert chrome.run(SHOWN) == f"Shown: 2 of 2 concepts, {n_samples} samples."
    visited = []
    for _ in range(2 + len(there) + 1):
        chrome.press("Tab")
        visited.append(chrome.run("document.activeElement.id || document.activeElement.value"))
        style = "getComputedStyle(document.activeElement)"
        assert chrome.run(f"{style}.outlineStyle") != "none"  # where the focus is can be seen
        if visited[-1] == "part":
            chrome.press("ArrowDown")
        if visited[-1] == "missed":
            chrome.press(" ")
    # A link past the controls, then the controls in their order.
    assert visited[1] == "part"
    assert set(there) <= set(visited)
    assert chrome.run(VISIBLE) == ["part-0"]
    assert "missed" not in chrome.run(OUTCOMES)
    assert chrome.run(SHOWN).startswith("Shown: 1 of 2 concepts")
    # A link to what is hidden shows it.
    chrome.run("location.hash = '#part-1'")
    chrome.run("new Promise(r => setTimeout(r, 50))")
    assert "part-1" in chrome.run(VISIBLE)
    assert "missed" not in chrome.run(OUTCOMES)
    chrome.run("document.querySelector('button[type=reset]').focus()")
    chrome.press("Enter")
    chrome.run("new Promise(r => setTimeout(r, 50))")
    assert chrome.run(VISIBLE) == ["part-0", "part-1"]
    assert chrome.run(OUTCOMES) == there
    assert chrome.problems == []


def accessible(chrome):
    """Role and name of all that assistive software is told of."""
    chrome.call("Accessibility.enable")
    for node in chrome.call("Accessibility.getFullAXTree")["nodes"]:
        if not node.get("ignored") and "role" in node:
            yield node["role"]["value"], node.get("name", {}).get("value", "")


@pytest.mark.parametrize("page", ["text_page", "image_page"])
def test_assistive_software_is_told_of_everything(chrome, page, request):
    chrome.open(request.getfixturevalue(page))
    nodes = list(accessible(chrome))
    named = {"combobox", "checkbox", "button", "image", "img", "region", "form", "table", "link"}
    assert not [node for node in nodes if node[0].lower() in named and not node[1]]
    roles = {role for role, _ in nodes}
    assert {"combobox", "checkbox", "button", "main", "status", "heading", "table"} <= roles
    assert ("mark" in roles) == (page == "text_page")
    levels = chrome.run("[...document.querySelectorAll('h1,h2,h3')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert max(np.diff(levels)) == 1
    assert chrome.run("document.documentElement.lang") == "en"
    ids = chrome.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_images_are_seen_once_embedded(chrome, image_page, shapes):
    html = image_page.read_text(encoding="utf-8")
    n_images, n_maps = html.count("data:image/jpeg"), html.count('class="map"')
    assert n_images < n_maps
    assert html.count("<use href=") == n_maps
    chrome.open(image_page)
    boxes = chrome.run(
        "[...document.querySelectorAll('.map use')].map(e => e.getBoundingClientRect().width)"
    )
    assert min(boxes) > 100


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_is_enough_in_both_themes(chrome, text_page, theme):
    chrome.theme(theme)
    chrome.open(text_page)
    names = ("page", "panel", "ink", "quiet", "accent", "hot", "in", "out")
    style = "getComputedStyle(document.documentElement)"
    c = {n: chrome.run(f"{style}.getPropertyValue('--{n}')").strip() for n in names}
    assert (luminance(c["page"]) > 0.5) == (theme == "light")
    for text in ("ink", "quiet", "accent"):
        assert min(contrast(c[text], c["page"]), contrast(c[text], c["panel"])) >= 4.5, text
    assert contrast(c["ink"], c["hot"]) >= 4.5
    assert min(contrast(c["in"], c["page"]), contrast(c["out"], c["page"])) >= 3
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    chrome.theme("")


def test_pages_fit_a_narrow_screen(chrome, text_page, image_page):
    size = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    chrome.call("Emulation.setDeviceMetricsOverride", **size)
    for path in text_page, image_page:
        chrome.open(path)
        assert chrome.run("document.documentElement.scrollWidth") <= 360
    chrome.call("Emulation.clearDeviceMetricsOverride")


def test_labels_of_another_table_are_refused(line):
    import pandas as pd

    y = pd.DataFrame(words_in(TEXTS), columns=["other", *NAMES[1:]])
    with pytest.raises(ValueError, match="y names its columns"):
        report(line, TEXTS, y=y)
