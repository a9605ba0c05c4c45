"""Pictures say what the numbers are, and words say what the pictures show."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from skact.metrics import Interval
from skact.reporting._charts import histogram, interval_bar, number


def svg(html):
    return ElementTree.fromstring(re.search(r"<svg.*?</svg>", html, re.DOTALL)[0])


def bars(html, k):
    return [r for r in svg(html).iter("rect") if r.get("class") == f"group{k}"]


def test_bars_are_shares_of_their_group(rng):
    groups = [("with <it>", rng.normal(3, 1, 50)), ("without", rng.normal(0, 1, 500))]
    html = histogram(groups, 1.5, "samples", n_bins=20)
    low, high = (f(v for _, g in groups for v in g) for f in (min, max))
    edges = np.linspace(low, high, 21)
    shares = [np.histogram(values, edges)[0] / len(values) for _, values in groups]
    top = max(share.max() for share in shares)
    for k, share in enumerate(shares):
        heights = [float(r.get("height")) for r in bars(html, k)]
        np.testing.assert_allclose(heights, 74 * share[share > 0] / top, atol=0.75)
    # Upwards and downwards from one line.
    up = {float(r.get("y")) + float(r.get("height")) for r in bars(html, 0)}
    down = {float(r.get("y")) for r in bars(html, 1)}
    assert np.ptp([*up, *down]) < 0.11
    (cut,) = [one for one in svg(html).iter("line") if one.get("class") == "cut"]
    at = 46 + (640 - 56) * (1.5 - low) / (high - low)
    assert float(cut.get("x1")) == pytest.approx(at, abs=0.06)
    reach = np.mean(groups[0][1] >= 1.5)
    assert f"with &lt;it&gt;: 50 samples, median {number(np.median(groups[0][1]))}" in html
    assert f"{100 * reach:.0f} % reach the threshold" in html
    assert "<it>" not in html


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.0, -1.0]])
@pytest.mark.parametrize("threshold", [None, 5.0, -np.inf])
def test_few_values_and_thresholds_far_away(values, threshold):
    html = histogram([("all", np.array(values)), ("none", np.array([]))], threshold, "tokens")
    inside = [float(r.get("x")) + float(r.get("width")) for r in bars(html, 0)]
    assert inside
    assert max(inside) <= 640
    assert not bars(html, 1)
    assert ("threshold" in html) == (threshold == 5.0)


def test_an_interval_lies_where_it_is():
    bar = svg(interval_bar(Interval(0.5, 0.25, 1.0), 0.0))
    _rule, floor, reach = bar.iter("line")
    assert (floor.get("x1"), reach.get("x1"), reach.get("x2")) == ("4.0", "42.0", "156.0")
    assert next(bar.iter("circle")).get("cx") == "80.0"
    assert interval_bar(Interval(np.nan, np.nan, np.nan), 0.5) == ""
    assert len(list(svg(interval_bar(Interval(0.5, np.nan, np.nan), 0.2)).iter("line"))) == 2
