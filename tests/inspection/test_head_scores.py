"""A picture of the scores of heads, against the scores."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skact import HeadPursuit, HeadScoresDisplay

SCORES = np.array([[0.1, 0.4, 0.2], [0.3, 0.0, 0.5]])


def test_cells_are_scores_and_the_chosen_are_outlined():
    support = SCORES > 0.35
    display = HeadScoresDisplay(SCORES, [4, 9], support).plot(title="months $x")
    np.testing.assert_array_equal(display.ax_.images[0].get_array(), SCORES)
    corners = {(p.get_y() + 0.5, p.get_x() + 0.5) for p in display.ax_.patches}
    assert corners == {tuple(map(float, place)) for place in np.argwhere(support)}
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["4", "9"]
    assert display.ax_.get_title() == "months $x"


def test_a_pursuit_is_drawn(rng):
    import matplotlib.pyplot as plt

    writes = {(b, h): rng.normal(size=(6, 4)) for b in (2, 5) for h in range(3)}
    pursuit = HeadPursuit(np.eye(4)[:2], top_k=2).fit(writes)
    _, ax = plt.subplots()
    display = HeadScoresDisplay.from_estimator(pursuit, ax=ax)
    assert display.ax_ is ax
    np.testing.assert_array_equal(display.scores, pursuit.head_scores_)
    assert len(ax.patches) == 2
    with pytest.raises(NotFittedError):
        HeadScoresDisplay.from_estimator(HeadPursuit())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((SCORES[0],), "scores must be a matrix of finite numbers"),
        ((SCORES * np.nan,), "scores must be a matrix of finite"),
        ((SCORES, [1]), "layers must be 2 ints"),
        ((SCORES, [1.0, 2.0]), "layers must be 2 ints"),
        ((SCORES, None, SCORES), "support must hold bools"),
        (("a",), "'scores'"),
    ],
)
def test_bad_arguments_are_named(args, message):
    with pytest.raises(ValueError, match=message):
        HeadScoresDisplay(*args)
    with pytest.raises(ValueError, match=r"'pursuit' .* a fitted HeadPursuit"):
        HeadScoresDisplay.from_estimator(3)
