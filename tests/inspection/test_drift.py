"""A picture of a drift: what was measured is where it is drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skact import DriftDisplay, LayerStack, TokenArray, activation_drift


@pytest.fixture
def sets(rng):
    X, Y = (rng.normal(size=(n, 3)) for n in (20, 30))
    return X, Y + np.array([0, 1.5, 0])


def test_one_layer_has_a_histogram_and_its_features(sets):
    result = activation_drift(*sets, n_permutations=40, random_state=0)
    null, features = DriftDisplay(result).plot().axes_
    assert sum(bar.get_height() for bar in null.patches) == 40
    edges = [bar.get_x() for bar in null.patches]
    assert min(edges) == pytest.approx(result.null.min())
    (observed,) = null.lines
    assert observed.get_xdata()[0] == result.distance[0] > max(edges)
    assert observed.get_label() == f"observed, p = {1 / 41:.3g}"
    (line,) = features.lines
    np.testing.assert_array_equal(line.get_ydata(), sorted(result.by_feature[0])[::-1])
    assert null.get_xlabel() == "wasserstein distance"


def test_layers_have_a_box_each(sets):
    X, Y = (LayerStack({b: TokenArray.from_list(one[:, None] * b) for b in (2, 5)}) for one in sets)
    result = activation_drift(X, Y, n_permutations=20, random_state=0)
    null, features = DriftDisplay(result).plot().axes_
    lines = {line.get_label(): line for line in null.lines}
    np.testing.assert_array_equal(lines["observed"].get_ydata(), result.distance)
    reached = np.concatenate([line.get_ydata() for line in null.lines if line != lines["observed"]])
    for i in range(2):
        for end in (result.null[i].min(), result.null[i].max()):
            assert np.isclose(reached, end).any()
    assert [label.get_text() for label in null.get_xticklabels()] == ["2", "5"]
    assert [line.get_label() for line in features.lines] == ["block 2", "block 5"]


def test_it_measures_and_draws_in_one_call(sets):
    given = {"metric": "frechet", "n_permutations": 10, "random_state": 1}
    display = DriftDisplay.from_activations(*sets, **given)
    assert display.axes_.shape == (1,)
    result = activation_drift(*sets, **given)
    assert display.axes_[0].lines[0].get_xdata()[0] == result.distance[0]


def test_it_draws_where_it_is_told(sets):
    figure, axes = plt.subplots(2, 1)
    result = activation_drift(*sets, n_permutations=3, random_state=0)
    assert DriftDisplay(result).plot(axes=axes).figure_ is figure
    with pytest.raises(ValueError, match="axes must be 2 for metric='wasserstein', got 1"):
        DriftDisplay(result).plot(axes=axes[0])
    with pytest.raises(ValueError, match="'axes' parameter"):
        DriftDisplay(result).plot(axes=3)


@pytest.mark.parametrize("bad", [{}, {"metric": "frechet"}, 3])
def test_something_else_is_refused(bad):
    with pytest.raises((ValueError, TypeError), match="result"):
        DriftDisplay(bad)
