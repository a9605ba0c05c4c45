"""Estimates are drawn where they are, and a display becomes a file without a window."""

import io

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib import pyplot as plt
from PIL import Image

from skact.inspection import IntervalsDisplay, picture

RESULT = {
    "names": ["a$_1$", "a$_1$", "b"],
    "series": ["max", "mean", "max"],
    "mean": [0.7, 0.6, 0.5],
    "low": [0.6, 0.5, 0.2],
    "high": [0.75, 0.7, 0.9],
}


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_estimates_lie_where_they_are(ax):
    IntervalsDisplay(RESULT, floor=0.4, label="F1").plot(ax=ax)
    dots, ends, heights = [], [], []
    for bars in ax.containers:
        dots += bars.lines[0].get_xdata().tolist()
        heights += bars.lines[0].get_ydata().tolist()
        ends += [segment[:, 0].tolist() for segment in bars.lines[2][0].get_segments()]
    # By series: a and b of max, then a of mean.
    assert dots == [0.7, 0.5, 0.6]
    np.testing.assert_allclose(ends, [[0.6, 0.75], [0.2, 0.9], [0.5, 0.7]])
    # Of one name beside each other, first the first series; names from top to bottom.
    assert heights[0] < heights[2] < 0.5 < heights[1]
    assert ax.yaxis_inverted()
    (floor,) = [line for line in ax.lines if line.get_label().startswith("floor")]
    assert floor.get_xdata() == [0.4, 0.4]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a$_1$", "b"]
    assert not any(t.get_parse_math() for t in ax.get_yticklabels())


def test_one_series_needs_no_legend(ax):
    one = {key: values[::2] for key, values in RESULT.items()}
    assert IntervalsDisplay(one).plot(ax=ax).ax_.get_legend() is None
    assert ax.get_xlabel() == "weighted F1"


def test_more_estimates_are_taller():
    twice = {key: values * 2 for key, values in RESULT.items()}
    assert IntervalsDisplay(twice).size == IntervalsDisplay(RESULT).size
    more = {**RESULT, "names": ["a", "b", "c"]}
    assert IntervalsDisplay(more).size[1] > IntervalsDisplay(RESULT).size[1]


def test_a_picture_is_a_file_and_opens_no_figure():
    display, before = IntervalsDisplay(RESULT), plt.get_fignums()
    png = picture(display, size=(3, 2))
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert image.size == (330, 220)
    assert plt.get_fignums() == before
    assert picture(IntervalsDisplay(RESULT), size=(3, 2)) == png
    assert picture(IntervalsDisplay(RESULT, floor=0.1), size=(3, 2)) != png


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: IntervalsDisplay({**RESULT, "low": [0.1]}), "as many of each"),
        (lambda: IntervalsDisplay({key: [] for key in RESULT}), "at least one"),
        (lambda: IntervalsDisplay({"names": ["a"]}), "lacks 'series'"),
        (lambda: IntervalsDisplay([1]), "'result'"),
        (lambda: IntervalsDisplay(RESULT, floor="a"), "'floor'"),
        (lambda: IntervalsDisplay(RESULT).plot(ax=1), "'ax'"),
        (lambda: picture(3), "'display'"),
        (lambda: picture(IntervalsDisplay(RESULT), size=(1, 0)), "'size'"),
    ],
)
def test_bad_arguments_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()
