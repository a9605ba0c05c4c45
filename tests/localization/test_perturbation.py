import math
from itertools import product

import numpy as np
import pytest

from skact.localization import kernel_shap, lime, rise, rise_map, shapiq, shapley_interactions
from skact.localization._game import Remembered
from skact.localization._perturbation import halves

METHODS = [lime, kernel_shap, rise, shapiq]


class Pairwise:
    """v(S) = b + sum a_i + sum b_ij over pairs within S: Shapley value a_i + sum_j b_ij / 2."""

    def __init__(self, n_players, n_targets=1, pairs=1.0, seed=0):
        rng = np.random.default_rng(seed)
        self.n_players, self.n_targets = n_players, n_targets
        self.players = np.arange(n_players)
        self.a = rng.normal(size=(n_targets, n_players))
        upper = np.triu(rng.normal(size=(n_targets, n_players, n_players)), 1) * pairs
        self.b = upper + upper.transpose(0, 2, 1)
        self.n_evaluations = self.n_calls = 0

    @property
    def shapley(self):
        return (self.a + self.b.sum(axis=2) / 2).T

    def __call__(self, masks):
        assert masks.dtype == bool
        self.n_evaluations += len(masks)
        self.n_calls += 1
        z = masks.astype(float)
        return 3 + z @ self.a.T + np.stack([(z @ b * z).sum(axis=1) for b in self.b], axis=1) / 2


class Table:
    """A game given by all its values; bit i of the row is player i."""

    n_targets = 1

    def __init__(self, values):
        self.n_players = int(np.log2(len(values)))
        self.values = values

    def __call__(self, masks):
        return self.values[masks @ (1 << np.arange(self.n_players))][:, None]


def all_masks(n):
    return np.array(list(product([False, True], repeat=n)))


def slow_interaction(game, players):
    """Shapley interaction index from its definition, by discrete derivatives."""
    n, u = game.n_players, len(players)
    total = np.zeros(game.n_targets)
    for mask in all_masks(n):
        if mask[list(players)].any():
            continue
        t = mask.sum()
        weight = math.factorial(n - t - u) * math.factorial(t) / math.factorial(n - u + 1)
        for chosen in product([False, True], repeat=u):
            with_some = mask.copy()
            with_some[list(players)] = chosen
            total += weight * (-1) ** (u - sum(chosen)) * game(with_some[None])[0]
    return total


def test_shapley_values_of_the_game_are_those_of_the_definition():
    game = Pairwise(5, 2)
    slow = np.array([slow_interaction(game, [i]) for i in range(5)])
    np.testing.assert_allclose(game.shapley, slow, atol=1e-10)


@pytest.mark.parametrize("method", [lime, kernel_shap, shapiq])
@pytest.mark.parametrize("n_players", [1, 2, 3, 20])
def test_additive_games_are_exact(method, n_players):
    game = Pairwise(n_players, 3, pairs=0)
    found = method(game, n_masks=80, random_state=0)
    np.testing.assert_allclose(found, game.a.T, atol=1e-5)


@pytest.mark.parametrize("method", [kernel_shap, shapiq])
def test_pairwise_games_within_error_bars(method):
    game = Pairwise(12, 2)
    runs = np.array([method(game, n_masks=200, random_state=seed) for seed in range(20)])
    error = np.abs(runs.mean(axis=0) - game.shapley)
    standard_error = runs.std(axis=0, ddof=1) / np.sqrt(len(runs))
    # Coalitions drawn with their complements make pairwise games exact.
    assert (error < 4.5 * standard_error + 1e-6).all()
    assert standard_error.max() < 0.25
    # What each run promises exactly: the gain is shared out.
    gain = np.diff(game(np.array([[False] * 12, [True] * 12])), axis=0)
    np.testing.assert_allclose(runs.sum(axis=1), np.tile(gain, (20, 1)), atol=1e-3)


def test_lime_within_error_bars():
    """Against the same regression on all masks, each weighted as often as it is drawn."""
    game = Pairwise(6, 2)
    masks = all_masks(6)
    norm = np.sqrt(masks.sum(axis=1) * 6)
    cosine = np.divide(masks.sum(axis=1), norm, out=np.zeros(64), where=norm > 0)
    root = np.sqrt(np.exp(-((1 - cosine) ** 2) / 2))[:, None]
    design = np.c_[masks, np.ones(64)]
    exact = np.linalg.lstsq(root * design, root * game(masks), rcond=None)[0][:-1]
    runs = np.array([lime(game, n_masks=200, random_state=seed) for seed in range(20)])
    standard_error = runs.std(axis=0, ddof=1) / np.sqrt(len(runs))
    assert (np.abs(runs.mean(axis=0) - exact) < 4.5 * standard_error).all()
    assert np.abs(exact - game.shapley).max() > 0.01


def test_rise_is_the_conditional_mean():
    game = Pairwise(6, 2)
    masks = all_masks(6)
    exact = np.array([game(masks[masks[:, i]]).mean(axis=0) for i in range(6)])
    runs = np.array([rise(game, n_masks=200, random_state=seed) for seed in range(20)])
    standard_error = runs.std(axis=0, ddof=1) / np.sqrt(len(runs))
    assert (np.abs(runs.mean(axis=0) - exact) < 4.5 * standard_error).all()
    np.testing.assert_allclose(rise_map(masks, game(masks)), exact)
    assert (rise_map(np.zeros((3, 2), bool), np.ones((3, 1))) == 0).all()


@pytest.mark.parametrize("n_masks", [64, 1000])
def test_all_coalitions_give_exact_values_and_interactions(n_masks):
    rng = np.random.default_rng(1)
    game = Table(rng.normal(size=64))
    found = shapley_interactions(game, n_masks=n_masks, random_state=0)
    values = [slow_interaction(game, [i])[0] for i in range(6)]
    np.testing.assert_allclose(found.values[:, 0], values, atol=1e-10)
    for i in range(6):
        assert found.pairs[0, i, i] == 0
        for j in range(i):
            exact = slow_interaction(game, [i, j])[0]
            np.testing.assert_allclose(found.pairs[0, [i, j], [j, i]], exact, atol=1e-10)


def test_a_single_player_has_all_of_the_gain_and_no_partner():
    game = Pairwise(1, 3)
    found = shapley_interactions(game, n_masks=5, random_state=0)
    np.testing.assert_allclose(found.values, game.a.T)
    np.testing.assert_array_equal(found.pairs, np.zeros((3, 1, 1)))


def test_sampled_interactions_within_error_bars():
    game = Pairwise(10, 2)
    runs = np.array(
        [shapley_interactions(game, n_masks=150, random_state=seed).pairs for seed in range(60)]
    )
    standard_error = runs.std(axis=0, ddof=1) / np.sqrt(len(runs))
    upper = np.triu_indices(10, 1)
    z = ((runs.mean(axis=0) - game.b) / np.where(standard_error > 0, standard_error, 1))[:, *upper]
    # The fit to the same coalitions takes a little of the interactions with it.
    assert np.abs(z).mean() < 2
    share = np.corrcoef(runs.mean(axis=0)[:, *upper].ravel(), game.b[:, *upper].ravel())[0, 1]
    assert share > 0.97


def test_agrees_with_shapiq_on_the_same_coalitions():
    shapiq_library = pytest.importorskip("shapiq")
    n, n_masks = 9, 120
    game = Pairwise(n)
    ours = shapley_interactions(game, n_masks=n_masks, random_state=5)
    options = {"pairing_trick": True, "random_state": 5}  # as from four masks per player
    reference = shapiq_library.KernelSHAP(n, **options).approximate(
        n_masks, lambda masks: game(masks)[:, 0]
    )
    theirs = np.array([reference[(i,)] for i in range(n)])
    np.testing.assert_allclose(ours.values[:, 0], theirs, atol=1e-4)
    # Its estimator of pairs, given what our additive fit leaves over.
    sizes = np.arange(1, n)
    weights = np.r_[0, 1 / (sizes * (n - sizes)), 0]
    pairs = shapiq_library.SHAPIQ(
        n, max_order=2, index="SII", sampling_weights=weights, **options
    ).approximate(n_masks, lambda masks: (game(masks) - 3 - masks @ ours.values)[:, 0])
    for i in range(n):
        for j in range(i + 1, n):
            np.testing.assert_allclose(ours.pairs[0, i, j], pairs[(i, j)], atol=1e-8)


def test_agrees_with_captum_target_by_target():
    captum = pytest.importorskip("captum.attr")
    import torch
    from captum._utils.models.linear_model import SkLearnLinearRegression

    game = Pairwise(7, 3)

    def drawn(inputs, **options):
        yield from torch.from_numpy(halves(7, 60, 3))[:, None]

    explainers = {
        kernel_shap: lambda forward: captum.KernelShap(forward),
        lime: lambda forward: captum.Lime(
            forward, interpretable_model=SkLearnLinearRegression(), perturb_func=drawn
        ),
    }
    for method, make in explainers.items():
        ours = method(game, n_masks=60, random_state=3)
        for c in range(3):
            explainer = make(lambda z, c=c: torch.tensor(game(z.numpy().astype(bool))[:, c]))
            torch.manual_seed(3)
            theirs = explainer.attribute(
                torch.ones(1, 7), n_samples=60, perturbations_per_eval=60, return_input_shape=False
            )
            np.testing.assert_allclose(ours[:, c], theirs.numpy().ravel(), atol=1e-3)


# Of more than 1,030 players the binomials are beyond float64.
@pytest.mark.parametrize("n_players", [256, 1100])
def test_many_players(n_players):
    game = Pairwise(n_players, 2, pairs=0)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = shapley_interactions(game, n_masks=n_players + 60, random_state=0)
    np.testing.assert_allclose(found.values, game.a.T, atol=1e-6)
    assert np.abs(found.pairs).max() < 1e-4
    assert found.pairs.shape == (2, n_players, n_players)


@pytest.mark.parametrize("method", METHODS)
def test_twenty_targets_cost_the_evaluations_of_one(method):
    one, twenty = Pairwise(8, 1), Pairwise(8, 20)
    for game in (one, twenty):
        method(game, n_masks=50, random_state=0)
    assert one.n_evaluations == twenty.n_evaluations <= 50
    assert one.n_calls == twenty.n_calls == 1


@pytest.mark.parametrize("method", METHODS)
def test_deterministic_by_seed_and_leaves_the_global_seed(method):
    import torch

    game = Table(np.random.default_rng(0).normal(size=256))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = method(game, n_masks=50, random_state=0)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, method(game, n_masks=50, random_state=0))
    assert np.abs(first - method(game, n_masks=50, random_state=1)).max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_fewer_masks_than_players(method):
    with pytest.raises(ValueError, match="n_masks=8 is too small: the sample has 8 players"):
        method(Pairwise(8), n_masks=8, random_state=0)


def test_reference_coalitions(reference):
    data = reference("ref_attribution_toy")
    game = Table(data["out_coalition_values_512"])
    found = shapiq(game, n_masks=600, random_state=0)
    np.testing.assert_allclose(found[:, 0], data["out_shapiq_budget600"], atol=1e-6)
    masks = data["in_rise_masks"].astype(bool)
    np.testing.assert_allclose(rise_map(masks, game(masks))[:, 0], data["out_rise"], atol=1e-6)
    # A random sample of coalitions comes near, and nearer with more of them.
    exact = data["out_shapiq_budget600"]
    few, many = (kernel_shap(game, n_masks=n, random_state=0)[:, 0] for n in (100, 6000))
    assert np.abs(many - exact).max() < 3e-3 < np.abs(few - exact).max()


def test_lime_and_rise_ask_for_the_same_masks_and_others_do_not():
    """So a game that remembers is asked once for both, and as often as ever for the others."""
    plain, shared = Pairwise(20, 2), Pairwise(20, 2)
    remembered = Remembered(shared)
    asked = []
    for method in (lime, rise, kernel_shap, shapiq):
        expected = method(plain, n_masks=60, random_state=3)
        np.testing.assert_array_equal(method(remembered, n_masks=60, random_state=3), expected)
        asked.append(shared.n_evaluations)
    assert asked[0] == asked[1] == 60
    # No player and all of them are asked for by both.
    assert asked[2] <= 120
    assert asked[2] + 40 < asked[3] <= asked[2] + 58


def test_what_is_remembered_is_what_the_game_says():
    game = Pairwise(12, 2)
    remembered, rng = Remembered(game), np.random.default_rng(0)
    for _ in range(3):
        masks = rng.random((30, 12)) < 0.9
        np.testing.assert_array_equal(remembered(masks), Pairwise(12, 2)(masks))
    assert (remembered.n_players, remembered.n_targets) == (12, 2)
    assert game.n_evaluations < 90  # few are left out, so masks come again
