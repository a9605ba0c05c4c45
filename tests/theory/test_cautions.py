"""What the theory does not say: a counter-example each."""

import numpy as np
from sklearn.metrics import roc_auc_score

from skact import theory


def test_inside_a_sequence_nothing_is_separated_that_was_not(rng):
    """The noiseless map keeps ranks; only pooled sequences separate with depth."""
    n, n_tokens = 200, 12
    concept = rng.random((n, n_tokens)) < 0.25
    # Sequences stand at levels of their own, and tokens of the concept slightly above the rest.
    a = 0.4 * concept + 0.3 * rng.normal(size=(n, n_tokens)) + rng.normal(size=(n, 1))
    layers = theory.simulate(a, 6, kappa=1.0, beta=0.3).activations
    order = np.argsort(a, axis=1)
    for layer in layers:
        np.testing.assert_array_equal(np.argsort(layer, axis=1), order)
    pooled = [roc_auc_score(concept.ravel(), layer.ravel()) for layer in layers]
    assert np.ptp(pooled) > 0.005, "pooled, the figure moves"


def test_pooled_separation_may_fall_with_depth():
    """Levels of sequences grow apart too, and here faster than the concept inside of them."""
    concept = np.array([[0, 0, 1], [0, 0, 1]])
    a = np.array([[0.0, 0.05, 0.5], [-0.3, -0.25, 0.2]])
    depth = theory.simulate(a, 8, kappa=1.0, beta=0.3).activations
    scores = [roc_auc_score(concept.ravel(), layer.ravel()) for layer in depth]
    assert scores[0] == 1
    assert scores[-1] < 1


def test_gaussian_activations_grow_uniformly(rng):
    """Neither skew nor asymmetry of tails; skewed ones are the control."""
    levels = (np.arange(20_000) + 0.5) / 20_000
    from scipy.stats import norm

    gaussian = norm.ppf(levels)
    skewed = -np.log1p(-levels)
    skewed = (skewed - skewed.mean()) / skewed.std()
    x = np.array([-1.0, -0.5, 0.5, 1.0])
    slopes = {}
    for name, a in (("gaussian", gaussian), ("skewed", skewed)):
        slopes[name] = 1 + 0.5 * 0.3 * theory.cumulants(a, 0.3 * x).variance
        bend = theory.curvature(x, a, 0.3, 0.5)
        assert (np.abs(bend) < 1e-3).all() == (name == "gaussian")
    assert np.ptp(slopes["gaussian"]) < 1e-3
    assert np.ptp(slopes["skewed"]) > 0.05
    assert (np.diff(slopes["skewed"]) > 0).all(), "the upper tail is favoured"


def test_attention_may_loosen_with_depth():
    """Margins grow, but a token that is drawn through zero comes to attend to less and less."""
    a = np.array([-1.0, 2.0, 3.0])
    found = theory.simulate(a, 2, kappa=0.2, beta=1.0)
    margins = [theory.pole_margins(layer).high for layer in found.activations]
    assert (np.diff(margins) > 0).all()
    mass = [
        theory.off_pole_mass(weights, layer)
        for weights, layer in zip(found.attention, found.activations, strict=False)
    ]
    assert abs(found.activations[1, 0]) < abs(found.activations[0, 0])
    assert mass[1][0] > mass[0][0], "its attention loosens"
    assert found.concentration[1, 0] >= found.concentration[0, 0]
    assert mass[1][2] < mass[0][2], "that of the largest token tightens"


def test_under_a_causal_mask_order_may_turn():
    a = np.array([-1.0, 5.0, -1.1])
    assert a[0] > a[2]
    causal = theory.update(a, 0.1, 0.5, causal=True)
    assert causal[0] < causal[2]
    shared = theory.update(a, 0.1, 0.5)
    assert shared[0] > shared[2], "with the same keys it would not"
    growth = theory.growth_factor(a, 0.1, 0.5) * theory.gaps(a)
    assert abs(theory.gaps(causal) - growth).max() > 0.5


def test_noise_may_turn_order_too():
    a = np.array([0.0, 0.01])
    eps = np.array([[-1.0, 1.0], [1.0, -1.0]])
    assert np.diff(theory.update(a, 1.0, 3.0, logit_noise=eps)) < 0
