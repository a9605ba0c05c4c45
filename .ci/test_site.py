"""The site as `make docs` has built it: its links, and, where a browser is there, its pages in it.

Everything is read from files, without a server and without a network.
"""

import importlib
import inspect
import operator
import os
import re
import shutil
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

import skact

DOCS = Path(__file__).parents[1] / "docs"
SITE = DOCS / "_build" / "html"
PAGES = sorted(p for p in SITE.rglob("*.html") if "_static" not in p.parts)
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WIDTHS = (1280, 390)
if not PAGES:
    raise SystemExit("there is no site in docs/_build/html; `make docs` builds it")


def name(page):
    return page.relative_to(SITE).as_posix()


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.ids, self.path = [], [], set(), path
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs.get("id"), attrs.get("name")}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        elif tag in ("img", "script", "source", "iframe") and attrs.get("src"):
            self.loaded.append(attrs["src"])
        elif tag == "link" and attrs.get("rel") not in (
            "index",
            "search",
            "next",
            "prev",
            "author",
        ):
            self.loaded.append(attrs["href"])


@cache
def parsed(path):
    return Page(path)


def target(page, link):
    """Return the file and the place in it that a link of a page leads to; None if elsewhere."""
    if urlsplit(link).scheme:
        return None
    path, place = urldefrag(link)
    file = (page.parent / unquote(urlsplit(path).path)).resolve() if path else page
    return file, unquote(place)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in parsed(page).links:
        if found := target(page, link):
            file, place = found
            assert file.is_file(), link
            if place and file.suffix == ".html":
                assert place in parsed(file).ids, link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_loaded_is_here(page):
    for link in parsed(page).loaded:
        assert not link.startswith("//"), link
        if not link.startswith("data:"):
            assert target(page, link), f"{link} comes from elsewhere"
            assert target(page, link)[0].is_file(), link


def test_no_style_loads_a_font_from_elsewhere():
    for style in (SITE / "_static").rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert "url(http" not in text.replace('"', "").replace("'", ""), style
        assert '@import "http' not in text.replace("url(", ""), style


@pytest.mark.parametrize("section", ["start", "user_guide"])
def test_every_page_is_in_the_sidebar(section):
    pages = {p.with_suffix(".html").name for p in (DOCS / section).glob("*.md")} - {"index.html"}
    menu = parsed(SITE / section / "index.html").links
    assert pages <= {Path(urldefrag(link)[0]).name for link in menu}


def test_every_method_is_in_the_reference():
    for full in skact.__all__:
        thing = getattr(skact, full)
        page = parsed(SITE / "reference" / f"skact.{full}.html")
        assert f"skact.{full}" in page.ids
        if isinstance(thing, type):
            methods = [
                m
                for m in dir(thing)
                if not m.startswith("_")
                and callable(getattr(thing, m))
                and getattr(getattr(thing, m), "__doc__", None)
                and not (issubclass(thing, tuple) and hasattr(tuple, m))
            ]
            missing = [m for m in methods if f"skact.{full}.{m}" not in page.ids]
            assert not missing, (full, missing)


def entries(full):
    """Return {name without ``skact.``: its heading} of what a page of the reference describes."""
    text = (SITE / "reference" / f"skact.{full}.html").read_text(encoding="utf-8")
    found = re.findall(r'<dt class="sig [^>]*id="skact\.([\w.]+)">(.*?)</dt>', text, re.DOTALL)
    return dict(found)


@pytest.mark.parametrize("full", [n for n in skact.__all__ if isinstance(getattr(skact, n), type)])
def test_the_page_of_a_class_begins_with_a_table_of_its_methods(full):
    text = (SITE / "reference" / f"skact.{full}.html").read_text(encoding="utf-8")
    top = text.partition(f'id="skact.{full}"')[0]
    listed = re.findall(rf'<td><p><a [^>]*href="#skact\.({full}\.\w+)"', top)
    assert sorted(listed) == sorted(entries(full).keys() - {full})


@pytest.mark.parametrize("full", skact.__all__)
def test_source_links_lead_to_the_line(full):
    """Of classes, functions and methods, inherited ones too, but for what scikit-learn wrote."""
    for name, heading in entries(full).items():
        try:
            thing = inspect.unwrap(operator.attrgetter(name)(skact))
        except AttributeError:
            continue  # an attribute of instances
        link = re.search(r'href="\.\./(_modules/[\w/]+)\.html#L-(\d+)"', heading)
        if inspect.isroutine(thing) or isinstance(thing, type):
            ours = "/skact/" in Path(inspect.getsourcefile(thing)).as_posix()
            assert bool(link) == ours, name
        if link:
            assert f"L-{link[2]}" in parsed(SITE / f"{link[1]}.html").ids
            file = Path(skact.__file__).parents[1] / f"{link[1].removeprefix('_modules/')}.py"
            line = file.read_text(encoding="utf-8").splitlines()[int(link[2]) - 1].strip()
            last = name.rpartition(".")[2]
            assert line.startswith((f"def {last}(", f"class {last}", "@")), name


@pytest.mark.parametrize("manual", sorted((DOCS / "manuals").glob("*.inv")), ids=lambda p: p.stem)
def test_what_is_linked_in_other_manuals_exists(manual):
    rows = [row.split() for row in manual.read_text(encoding="utf-8").splitlines()[3:]]
    assert rows
    for full, kind, _ in rows:
        module, _, name = full.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type) == (kind == "class")


def test_types_lead_into_other_manuals():
    links = parsed(SITE / "reference" / "skact.SuperActivator.html").links
    assert any(link.startswith("https://numpy.org/") for link in links)
    links = parsed(SITE / "reference" / "skact.ConceptDetector.html").links
    assert any(link.startswith("https://scikit-learn.org/") for link in links)


def test_guide_gallery_and_reference_lead_to_each_other():
    detector = parsed(SITE / "reference" / "skact.SuperActivator.html").links
    assert any("user_guide/detection.html" in link for link in detector)
    assert any("gallery/plot_detection.html" in link for link in detector)
    guide = parsed(SITE / "user_guide" / "detection.html").links
    assert any("reference/skact.SuperActivator.html" in link for link in guide)
    assert any("gallery/plot_detection.html" in link for link in guide)
    example = parsed(SITE / "gallery" / "plot_detection.html").links
    assert any("reference/skact.SuperActivator.html" in link for link in example)
    assert any("user_guide/detection.html" in link for link in example)


def test_no_cell_of_the_gallery_shows_a_thing_twice():
    """Once as a figure and once as the page that a notebook makes of what drew it."""
    for page in (SITE / "gallery").glob("plot_*.html"):
        cells = page.read_text(encoding="utf-8").split('<div class="highlight-Python')[1:]
        assert cells, page
        assert not [c[:200] for c in cells if "output_html" in c and "sphx-glr-single-img" in c]


def test_every_example_comes_as_a_notebook():
    for script in (DOCS / "examples").glob("plot_*.py"):
        links = parsed(SITE / "gallery" / f"{script.stem}.html").links
        assert any(link.endswith(f"{script.stem}.ipynb") for link in links)


@pytest.mark.parametrize(("code", "full"), [
    ("SuperActivator", "skact.SuperActivator"),
    ("SuperActivator(delta=0.1)", "skact.SuperActivator"),
    ("skact.tokens.TokenArray", "skact.TokenArray"),
    ("TokenArray.shapes", "skact.TokenArray.shapes"),
    ("BaseConcepts", "skact.concepts.BaseConcepts"),
    ("skact.localization.lime", "skact.localization.lime"),
    ("lime", None),
    ("detector.predict", None),
    ("model.generate", None),
])  # fmt: skip
def test_code_leads_to_what_it_names(code, full, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    from extensions.names import target

    assert target(code) == full


def test_no_formula_is_left_as_latex():
    n_formulas = 0
    for page in PAGES:
        if page.relative_to(SITE).parts[0] == "_modules":
            continue  # code
        text = page.read_text(encoding="utf-8")
        assert "\\operatorname" not in text, page
        formulas = re.findall(r"<math.*?</math>", text, re.DOTALL)
        n_formulas += len(formulas)
        assert [one for one in formulas if "\\" in one] == [], page
    assert n_formulas > 300


@pytest.fixture(scope="session")
def browser():
    """Return a headless browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    command = os.environ.get("SKACT_BROWSER") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    if command is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is here; SKACT_BROWSER names another one")
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=command, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session", params=WIDTHS)
def window(request, browser):
    """Return a window of a width, without a network."""
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    context.set_offline(True)
    yield context
    context.close()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_browser_shows_the_page(window, page):
    tab, said = window.new_page(), []
    tab.on("console", lambda message: message.type == "error" and said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("requestfailed", lambda request: said.append(request.url))
    tab.goto(page.as_uri(), wait_until="load")
    width, inner = tab.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    wrapped = tab.evaluate(
        "[...document.querySelectorAll('.highlight pre')].filter(box => box.offsetParent &&"
        " (getComputedStyle(box).whiteSpace != 'pre' || box.scrollWidth > box.clientWidth &&"
        " getComputedStyle(box).overflowX != 'auto')).map(box => box.innerText.slice(0, 80))"
    )
    scrolling = tab.evaluate(
        "[...document.querySelectorAll('.highlight pre')].filter(box => box.scrollWidth >"
        " box.clientWidth).map(box => Math.max(...box.innerText.split('\\n').map(l => l.length)))"
    )
    empty = tab.evaluate(
        "[...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth).map(i => i.src)"
    )
    tab_width = tab.viewport_size["width"]
    tab.close()
    assert not said
    assert width <= inner, "the page scrolls sideways"
    assert not wrapped, "code loses its indentation, or is cut"
    if tab_width == 1280:
        assert min(scrolling, default=101) > 100, "code of 100 columns fits"
    assert not empty, "pictures are missing"


def test_browser_finds_a_name(window):
    tab = window.new_page()
    tab.goto((SITE / "search.html").as_uri() + "?q=SuperActivator")
    tab.wait_for_selector("#search-results li a", timeout=60_000)
    found = tab.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    tab.close()
    assert any("reference/skact.SuperActivator.html" in link for link in found)
