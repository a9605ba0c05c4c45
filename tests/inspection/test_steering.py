"""A steering report as a picture: what was measured is where it is drawn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from skact import SteeringDisplay

NAMES = ("concept", "relative_perplexity", "harmonic_mean", "distinct_2", "kl")


def row(kind, name, strength, draw, value):
    ends = {"": 0, "_low": -0.1, "_high": 0.2}
    figures = {name + end: value + d for name in NAMES for end, d in ends.items()}
    return {"kind": kind, "name": name, "strength": strength, "draw": draw, **figures}


@pytest.fixture
def result():
    rows = [row("none", "", np.nan, -1, 0.3), row("prompting", "asked", np.nan, -1, 0.8)]
    for strength in (0.2, 0.1):
        rows.append(row("edit", "joy", strength, -1, 0.4 + strength))
        rows += [row("random", "joy", strength, k, 0.3 + k / 10) for k in range(3)]
    return Bunch(frame=pd.DataFrame(rows), goal="more")


@pytest.mark.parametrize("value", NAMES)
def test_lines_are_the_figures_of_the_frame(result, value):
    ax = SteeringDisplay(result).plot(value).ax_
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(lines["joy"], [[0.1, 0.5], [0.2, 0.6]])
    np.testing.assert_allclose(lines["joy, random directions"], [[0.1, 0.4], [0.2, 0.4]])
    assert set(lines["not steered"][:, 1]) == {0.3}
    heights = {y for line in ax.lines for y in line.get_ydata()}
    assert 0.8 in heights
    assert ax.get_xlabel() == "strength"


def test_it_draws_where_it_is_told_and_without_random_directions(result):
    result.frame = result.frame[result.frame["kind"] != "random"]
    first = SteeringDisplay(result).plot()
    again = SteeringDisplay(result).plot("kl", ax=first.ax_)
    assert again.figure_ is first.figure_


@pytest.mark.parametrize("bad", [{}, {"frame": 3}, {"frame": pd.DataFrame({"a": [1]})}, 3])
def test_something_else_is_refused(bad):
    with pytest.raises((ValueError, TypeError), match="result"):
        SteeringDisplay(bad)
