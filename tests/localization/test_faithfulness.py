"""Curves and areas against additive games in closed form and against a slow replica."""

from itertools import permutations

import numpy as np
import pytest

from skact import TokenArray
from skact.localization._faithfulness import (
    Curve,
    FaithfulnessResult,
    deletion_curve,
    faithfulness,
    insertion_curve,
)


class Game:
    """Any function of the kept tokens, which counts its calls."""

    def __init__(self, function, n_players, n_targets):
        self.function, self.n_players, self.n_targets = function, n_players, n_targets
        self.asked = []

    def __call__(self, masks):
        self.asked.append(masks)
        return np.array([self.function(mask) for mask in masks]).reshape(len(masks), -1)


def additive(weights, base=0.0):
    weights = np.asarray(weights, float)
    return Game(lambda mask: base + mask @ weights, *weights.shape)


def tangled(rng, n_players, n_targets):
    """Tokens that interact."""
    first = rng.normal(size=(n_players, n_targets))
    second = rng.normal(size=(n_targets, n_players, n_players))
    return Game(
        lambda m: np.tanh(m @ first + np.einsum("i,tij,j->t", 1.0 * m, second, 1.0 * m)),
        n_players,
        n_targets,
    )


def slow_curves(game, attribution, n_steps, order):
    """One token after the other, one mask at a time."""
    n, n_targets = attribution.shape
    stops = [round(n * j / min(n_steps or n, n)) for j in range(min(n_steps or n, n) + 1)]
    inserted, deleted = np.empty((len(stops), n_targets)), np.empty((len(stops), n_targets))
    for c in range(n_targets):
        ranking = sorted(range(n), key=lambda i: (-attribution[i, c], i))
        if order == "reversed":
            ranking.reverse()
        for p, stop in enumerate(stops):
            kept = np.zeros(n, bool)
            kept[ranking[:stop]] = True
            inserted[p, c] = game.function(kept)[c]
            deleted[p, c] = game.function(~kept)[c]
    return np.array(stops) / n, inserted, deleted


def slow_area(shares, values):
    widths = np.diff(shares)[:, None]
    return (widths * (values[1:] + values[:-1]) / 2).sum(axis=0)


@pytest.mark.parametrize("order", ["attribution", "reversed"])
@pytest.mark.parametrize("n_steps", [None, 1, 3, 4, 50])
def test_curves_are_those_of_one_mask_at_a_time(rng, order, n_steps):
    game = tangled(rng, 9, 3)
    attribution = rng.integers(0, 4, (9, 3)).astype(float)  # with ties
    shares, inserted, deleted = slow_curves(game, attribution, n_steps, order)
    options = {"n_steps": n_steps, "order": order}
    insertion = insertion_curve(game, attribution, **options)
    deletion = deletion_curve(game, attribution, **options)
    result = faithfulness([game], [attribution], **options)
    for curve, values in ((insertion, inserted), (deletion, deleted)):
        np.testing.assert_allclose(curve.shares, shares)
        np.testing.assert_allclose(curve.values, values)
        np.testing.assert_allclose(curve.area, slow_area(shares, values))
    np.testing.assert_array_equal(result.insertion[0], insertion.area)
    np.testing.assert_array_equal(result.deletion[0], deletion.area)
    np.testing.assert_allclose(result.empty[0], game.function(np.zeros(9, bool)))
    np.testing.assert_allclose(result.full[0], game.function(np.ones(9, bool)))


def test_an_additive_game_in_closed_form():
    """Weights 3, 1, 0 on a base of 1: I = 1 4 5 5, D = 5 2 1 1."""
    game = additive([[1.0], [0.0], [3.0]], base=1.0)
    insertion = insertion_curve(game, [[1.0], [0.0], [3.0]])
    deletion = deletion_curve(game, [[1.0], [0.0], [3.0]])
    np.testing.assert_allclose(insertion.values.ravel(), [1, 4, 5, 5])
    np.testing.assert_allclose(deletion.values.ravel(), [5, 2, 1, 1])
    assert insertion.area == pytest.approx((0.5 * 1 + 4 + 5 + 0.5 * 5) / 3)
    scaled = faithfulness([game], [[[1.0], [0.0], [3.0]]]).normalized()
    assert scaled.insertion.item() == pytest.approx((insertion.area.item() - 1) / 4)
    assert (scaled.empty.item(), scaled.full.item()) == (0, 1)


def test_no_order_of_an_additive_game_beats_its_weights(rng):
    weights = rng.normal(size=(6, 2))
    game = additive(weights, base=0.7)
    ends = game.function(np.zeros(6, bool)) + game.function(np.ones(6, bool))
    best, worst = (
        insertion_curve(game, weights, order=order).area for order in ("attribution", "reversed")
    )
    areas = []
    for order in permutations(range(6)):
        scores = np.repeat(-np.argsort(order)[:, None].astype(float), 2, axis=1)
        areas.append(insertion_curve(game, scores).area)
        # What one curve gains, the other loses.
        np.testing.assert_allclose(areas[-1] + deletion_curve(game, scores).area, ends)
    np.testing.assert_allclose(np.max(areas, axis=0), best)
    np.testing.assert_allclose(np.min(areas, axis=0), worst)
    np.testing.assert_allclose(np.mean(areas, axis=0), ends / 2)
    drawn = np.mean(
        [insertion_curve(game, weights, order="random", random_state=s).area for s in range(300)],
        axis=0,
    )
    assert np.all((worst < drawn) & (drawn < best))
    np.testing.assert_allclose(drawn, ends / 2, atol=0.15)


def test_the_reversed_order_swaps_the_areas(rng):
    game, attribution = tangled(rng, 7, 2), rng.normal(size=(7, 2))
    forth = faithfulness([game], [attribution])
    back = faithfulness([game], [attribution], order="reversed")
    np.testing.assert_allclose(back.insertion, forth.deletion)
    np.testing.assert_allclose(back.deletion, forth.insertion)
    assert not np.allclose(forth.insertion, forth.deletion)


def test_equal_attributions_keep_the_order_of_the_tokens(rng):
    game = tangled(rng, 6, 2)
    constant = insertion_curve(game, np.ones((6, 2)))
    falling = insertion_curve(game, -np.arange(12.0).reshape(6, 2))
    np.testing.assert_array_equal(constant.values, falling.values)
    rising = insertion_curve(game, np.arange(12.0).reshape(6, 2))
    np.testing.assert_array_equal(
        insertion_curve(game, np.ones((6, 2)), order="reversed").values, rising.values
    )
    assert not np.allclose(constant.values, rising.values)


def test_only_the_order_of_a_map_counts(rng):
    game, attribution = tangled(rng, 8, 3), rng.normal(size=(8, 3))
    plain = insertion_curve(game, attribution)
    np.testing.assert_array_equal(
        insertion_curve(game, np.exp(attribution) * 7).values, plain.values
    )
    assert not np.array_equal(insertion_curve(game, -attribution).values, plain.values)


def test_a_sample_is_one_call_without_equal_masks(rng):
    games = [tangled(rng, n, 3) for n in (5, 9)]
    maps = [rng.normal(size=(n, 3)) for n in (5, 9)]
    faithfulness(games, maps)
    for game, n in zip(games, (5, 9), strict=True):
        (masks,) = game.asked
        assert len(np.unique(masks, axis=0)) == len(masks) <= 2 + 3 * 2 * (n - 1)
    # A random order is one for all targets, so three targets cost as much as one.
    for scores in (maps[1], maps[1][:, :1]):
        game = tangled(rng, 9, scores.shape[1])
        faithfulness([game], [scores], order="random", random_state=0)
        assert [len(masks) for masks in game.asked] == [2 + 2 * 8]


def test_pairs_that_are_left_out_are_neither_read_nor_run(rng):
    games = [tangled(rng, 5, 3) for _ in range(3)]
    maps = [rng.normal(size=(5, 3)) for _ in range(3)]
    whole = faithfulness(games, maps)
    pairs = np.array([[True, False, True], [False, False, False], [False, True, True]])
    holed = [np.where(row, m, np.nan) for row, m in zip(pairs, maps, strict=True)]
    calls = len(games[1].asked)
    part = faithfulness(games, TokenArray.from_list(holed), pairs=pairs)
    assert len(games[1].asked) == calls
    for name in ("insertion", "deletion", "empty", "full"):
        np.testing.assert_array_equal(getattr(part, name)[pairs], getattr(whole, name)[pairs])
        assert np.isnan(getattr(part, name)[~pairs]).all()
    assert np.isnan(part.normalized().insertion[~pairs]).all()
    assert len(part.insertion_curves) == len(part.deletion_curves) == 3


def test_a_word_moves_as_one(rng):
    """Tokens 0 and 2 are one player, whose attribution is their mean."""
    game, attribution = tangled(rng, 2, 2), rng.normal(size=(3, 2))
    means = np.stack([attribution[[0, 2]].mean(axis=0), attribution[1]])
    expected = insertion_curve(game, means)
    game.players = np.array([0, 1, 0])
    of_words = insertion_curve(game, attribution)
    np.testing.assert_array_equal(of_words.values, expected.values)
    assert len(of_words.shares) == 3
    with pytest.raises(ValueError, match=r"must have shape \(3, 2\), got \(2, 2\)"):
        insertion_curve(game, means)


def test_random_orders_follow_the_seed(rng):
    game, attribution = tangled(rng, 12, 2), rng.normal(size=(12, 2))

    def area(random_state):
        samples = [game, game], [attribution, attribution]
        return faithfulness(*samples, order="random", random_state=random_state).insertion

    np.testing.assert_array_equal(area(0), area(np.random.RandomState(0)))
    assert not np.array_equal(area(0), area(1))
    # The samples of one run have orders of their own.
    assert not np.array_equal(area(0)[0], area(0)[1])


def test_normalising_is_undefined_where_the_sample_adds_nothing():
    """Of three targets, the first ends where it starts, and the second below."""
    values = np.array([[1.0, 0.0, 1.0], [2.0, 1.0, 2.0], [1.0, -2.0, 5.0]])
    curves = (Curve(np.array([0.0, 0.5, 1.0]), values),)
    result = FaithfulnessResult(curves, curves).normalized()
    assert np.isnan(result.insertion[0, :2]).all()
    np.testing.assert_allclose(result.insertion_curves[0].values[:, 2], [0, 0.25, 1])
    assert result.insertion[0, 2] == pytest.approx((0 + 2 * 0.25 + 1) / 4)
    assert np.isnan(FaithfulnessResult(curves, curves).normalized(4).insertion).all()


def test_normalised_areas_ignore_unit_and_origin(rng):
    game, attribution = additive(rng.random((6, 2))), rng.normal(size=(6, 2))
    moved = Game(lambda mask: 5 + 3 * game.function(mask), 6, 2)
    plain = faithfulness([game], [attribution])
    other = faithfulness([moved], [attribution])
    assert not np.allclose(plain.insertion, other.insertion)
    np.testing.assert_allclose(3 * plain.gap, other.gap)
    np.testing.assert_allclose(plain.normalized().insertion, other.normalized().insertion)
    np.testing.assert_allclose(plain.normalized().deletion, other.normalized().deletion)


ONE, ANY = additive([[1.0], [2.0]]), [[1.0], [0.0]]


@pytest.mark.parametrize(
    ("games", "maps", "options", "message"),
    [
        ([ONE], [[[1.0]]], {}, r"sample 0: the attribution must have shape \(2, 1\), got \(1, 1\)"),
        ([ONE, ONE], [ANY, [[1.0], [np.nan]]], {}, "sample 1: the attribution holds NaN"),
        ([ONE], [ANY, ANY], {}, "games has 1 samples, attributions has 2"),
        ([ONE, ONE], [ANY], {}, "games has more than the 1 samples"),
        ([], [], {}, "attributions has no samples"),
        ([ONE], [ANY], {"n_steps": 0}, "'n_steps' parameter of faithfulness .* Got 0"),
        ([ONE], [ANY], {"order": "best"}, "'order' parameter of faithfulness .* Got 'best'"),
        ([ONE], [ANY], {"random_state": "seed"}, "seed"),
        ([ONE], [ANY], {"pairs": [True]}, r"pairs must be bool of shape \(1, n_targets\)"),
        ([ONE], [ANY], {"pairs": [[1]]}, "pairs must be bool .* int64"),
        ([ONE], [ANY], {"pairs": [[True, True]]}, "pairs has 2 targets, the game has 1"),
        (
            [Game(lambda m: [1.0, 2.0], 2, 1)],
            [ANY],
            {},
            r"must return shape \(4, 1\), got \(4, 2\)",
        ),
    ],
)
def test_bad_input(games, maps, options, message):
    with pytest.raises(ValueError, match=message):
        faithfulness(games, maps, **options)
