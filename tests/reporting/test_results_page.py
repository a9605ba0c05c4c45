"""Tables and figures on one page: all of it is there, escaped, and nothing is loaded."""

import base64

import pytest

from skact.metrics import Interval
from skact.reporting import ResultFigure, ResultPart, ResultTable, results_page
from tests.reporting.conftest import EVIL

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PARTS = [
    ResultPart(
        EVIL[k],
        {EVIL[1]: EVIL[2], "nothing": None},
        [
            ResultTable(
                EVIL[0],
                [["method", EVIL[2]], [EVIL[1], 0.25], ["b", EVIL[3]]],
                [Interval(0.5, 0.25, 1.0), Interval(0.5, 0.25, 0.75)],
                0.125,
            ),
            ResultFigure(EVIL[1], PNG),
            ResultTable("plain", [["a", "b"], ["c", 1]]),
        ],
    )
    for k in (0, 2)
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    assert results_page(EVIL[0], [EVIL[2]], PARTS, path) == path.read_text(encoding="utf-8")
    return path


def test_all_is_there_and_nothing_runs(path):
    html = path.read_text(encoding="utf-8")
    for evil in EVIL[:3]:
        assert evil not in html
    assert html.count('class="part results"') == 2
    assert html.count('class="bar"') == 4
    assert html.count("From 0 to 1") == 2
    assert html.count(base64.b64encode(PNG).decode()) == 2
    assert "nothing" not in html
    assert "default-src 'none'" in html


def test_one_part_needs_no_filter():
    assert 'id="filter"' not in results_page("a", [], PARTS[:1])


@pytest.mark.parametrize("n_parts", [1, 2])
def test_it_stands_alone_in_a_browser(path, tmp_path, chrome, n_parts):
    own = tmp_path / "own.html"
    results_page(EVIL[0], [], PARTS[:n_parts], own)
    chrome.problems.clear()
    chrome.requests.clear()
    for width in (1280, 390):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.call("Emulation.setDeviceMetricsOverride", **size)
        chrome.open(own)
        assert chrome.run("document.documentElement.scrollWidth") <= width
        assert (
            chrome.run("document.querySelectorAll('section.results table').length") == 2 * n_parts
        )
        assert chrome.run("document.querySelector('img.figure').naturalWidth") == 1
        assert chrome.run("document.querySelector('td').textContent") == ""
        shown = chrome.run("document.getElementById('shown')?.textContent ?? null")
        assert shown == (None if n_parts == 1 else "Shown: 2 of 2 setups.")
    assert chrome.problems == []
    assert all(address.startswith(("file:", "data:")) for address in chrome.requests)
