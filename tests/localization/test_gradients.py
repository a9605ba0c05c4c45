import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from skact.localization import rise_map, shapiq
from skact.localization._calm import calm, fit_calm
from skact.localization._gradients import full_grad, grad_cam, integrated_gradients, mfaba
from tests.localization.toy import Toy


@pytest.fixture
def toy(reference):
    return Toy(reference("ref_attribution_toy"))


def test_reference_toy_is_understood(toy, reference):
    data = reference("ref_attribution_toy")
    np.testing.assert_allclose(toy.cosine(toy.x), data["out_score_cossim"][0], atol=1e-6)
    coalitions = (np.arange(512)[:, None] >> np.arange(9)) & 1
    values = toy.game()(coalitions.astype(bool))[:, toy.c]
    np.testing.assert_allclose(values, data["out_coalition_values_512"], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "function", "baseline"),
    [
        ("out_intgrad", "cosine", "mean"),
        ("out_intgrad_zero_baseline", "cosine", "zero"),
        ("out_intgrad_linsep", "product", "mean"),
    ],
)
def test_reference_integrated_gradients(toy, reference, name, function, baseline):
    start = toy.x.mean(dim=0) if baseline == "mean" else torch.zeros(48, dtype=torch.float64)
    found = integrated_gradients(
        getattr(toy, function), toy.x, start.expand_as(toy.x), n_steps=50, batch_size=7
    )
    expected = reference("ref_attribution_toy")[name][0]
    np.testing.assert_allclose(found[:, toy.c], expected, atol=1e-4)
    assert np.abs(expected).max() > 1e-2


def test_reference_full_grad(toy, reference):
    expected = reference("ref_attribution_toy")["out_fullgrad_abs"]
    found = full_grad(toy.cosine, toy.x)
    np.testing.assert_allclose(found[:, toy.c], expected, atol=1e-6)


def test_reference_mfaba(toy, reference):
    """One step down the softmax over concepts, within pixels; a mean over 16 pixels per patch."""
    expected = reference("ref_attribution_toy")["out_mfaba_sharp"]

    def probability(x):
        return toy.cosine(x).softmax(dim=1)

    found = mfaba(probability, toy.x, step=0.1, n_steps=1, clamp=lambda x: x.clamp(0, 1))
    np.testing.assert_allclose(found[:, toy.c] / 16, expected, rtol=1e-5)


def test_reference_rise_and_shapley_values_from_the_model(toy, reference):
    data, game = reference("ref_attribution_toy"), toy.game()
    masks = data["in_rise_masks"].astype(bool)
    np.testing.assert_allclose(rise_map(masks, game(masks))[:, toy.c], data["out_rise"], atol=1e-6)
    found = shapiq(game, n_masks=512, random_state=0)
    np.testing.assert_allclose(found[:, toy.c], data["out_shapiq_budget600"], atol=1e-6)


def linear(weights):
    """A function g_c(x) = sum over positions of <w_c, x_i>."""
    return lambda x: torch.einsum("bnd,cd->bc", x, weights)


def test_closed_forms_on_a_linear_function(rng):
    weights, x = torch.tensor(rng.normal(size=(3, 4))), torch.tensor(rng.normal(size=(5, 4)))
    start = torch.tensor(rng.normal(size=(5, 4)))
    value = linear(weights)
    found = integrated_gradients(value, x, start, n_steps=3, batch_size=2)
    np.testing.assert_allclose(found, (x - start) @ weights.T)
    found = full_grad(value, x)
    np.testing.assert_allclose(found, (x[:, None] * weights).abs().sum(dim=2))
    # Each step goes down the same gradient: eta |w|^2 / |all of it| per position and step.
    found = mfaba(value, x, step=0.1, n_steps=7)
    norms = weights.norm(dim=1)
    np.testing.assert_allclose(found, np.tile(0.7 * norms / 5**0.5, (5, 1)))


def test_full_gradients_of_a_rectifier_network_are_complete(rng):
    """With one path of positive terms, absolute values change nothing: the sum is g itself."""
    first, second = torch.nn.Linear(4, 6).double(), torch.nn.Linear(6, 3).double()
    for parameter in [*first.parameters(), *second.parameters()]:
        parameter.data = torch.tensor(rng.random(parameter.shape))
    x = torch.tensor(rng.random((5, 4)))
    biases = []

    def value(x):
        biases.clear()
        for layer in (first, second):
            x = layer(torch.relu(x))
            biases.append((layer.bias, x))
        return x.mean(dim=1)

    found = full_grad(value, x, biases)
    np.testing.assert_allclose(found.sum(axis=0), value(x[None])[0].detach())
    assert np.abs(full_grad(value, x).sum(axis=0) - found.sum(axis=0)).min() > 0.1


def test_mfaba_adds_up_to_the_loss_of_the_value(toy):
    steps, last = 400, []

    def value(x):
        last.append(x.detach())
        return toy.cosine(x)

    found = mfaba(value, toy.x, step=2 / steps, n_steps=steps)
    end = toy.cosine(last[-1]).diagonal()
    lost = toy.cosine(toy.x) - end
    np.testing.assert_allclose(found.sum(axis=0), lost, rtol=0.02)
    assert (lost > 0.1).all()


def test_grad_cam_by_hand(rng):
    z, target = rng.normal(size=(6, 4)), np.array([[1.0, 2.0, 0.0, -1.0]])
    unit = target[0] / np.linalg.norm(target)
    gradients = []
    for token in z:
        norm = np.linalg.norm(token)
        gradients.append((unit - token * (token @ unit) / norm**2) / norm / len(z))
    slow = np.maximum(z @ np.mean(gradients, axis=0), 0)

    def value(x):
        return (torch.nn.functional.normalize(x, dim=-1) @ torch.tensor(unit).float()).mean(1)[
            :, None
        ]

    np.testing.assert_allclose(grad_cam(z, value)[:, 0], slow, atol=1e-6)


def planted_positions(rng, n_samples=60, n_tokens=8):
    """One token of each sample is a cue (first feature); half of the cues show the concept."""
    present = np.arange(n_samples) % 2 == 0
    tokens = rng.normal(size=(n_samples, n_tokens, 4)) * 0.1
    where = rng.integers(n_tokens, size=n_samples)
    tokens[np.arange(n_samples), where, 0] += 2
    tokens[np.arange(n_samples), where, 1] += np.where(present, 2, -2)
    return tokens, where, present


def test_calm_learns_where_the_cue_is(rng):
    tokens, where, present = planted_positions(rng)
    flat = tokens.reshape(-1, 4)
    cosines = (flat @ [0.0, 1.0, 0.0, 0.0] / np.linalg.norm(flat, axis=1))[:, None]
    lengths = np.full(60, 8)
    heads = fit_calm(flat, lengths, cosines, present[:, None])
    again = fit_calm(flat, lengths, cosines, present[:, None])
    assert all(np.array_equal(a, b) for a, b in zip(heads, again, strict=True))
    maps = np.array(
        [calm(z, s, heads) for z, s in zip(tokens, cosines.reshape(60, 8, 1), strict=True)]
    )
    assert (maps[present, :, 0].argmax(axis=1) == where[present]).all()
    # The joint probability adds up to that of the concept.
    probability = maps.sum(axis=(1, 2))
    assert probability[present].min() > 0.7 > 0.3 > probability[~present].max()
    # Control: an untrained head of positions is uniform, and other tokens have larger cosines.
    untrained = heads._replace(position=np.zeros(5))
    flat_maps = np.array(
        [calm(z, s, untrained) for z, s in zip(tokens, cosines.reshape(60, 8, 1), strict=True)]
    )
    assert (flat_maps[present, :, 0].argmax(axis=1) == where[present]).mean() < 0.9


def test_calm_is_at_the_best_of_its_likelihood(rng):
    lengths, present = np.array([2, 3, 1, 4]), np.array([[1, 0], [0, 1], [1, 1], [0, 0]], bool)
    tokens, cosines = rng.normal(size=(10, 3)), rng.uniform(-1, 1, size=(10, 2))
    heads = fit_calm(tokens, lengths, cosines, present)
    starts = np.r_[0, np.cumsum(lengths)]

    def objective(flat, penalty=1e-3):
        w, bias, slopes, offsets = flat[:3], flat[3], flat[4:6], flat[6:]
        total = 0.0
        for x in range(4):
            some = range(starts[x], starts[x + 1])
            strength = np.array([np.log1p(np.exp(w @ tokens[i] + bias)) for i in some])
            for c in range(2):
                yes = [1 / (1 + np.exp(-slopes[c] * cosines[i, c] - offsets[c])) for i in some]
                right = [p if present[x, c] else 1 - p for p in yes]
                total += np.log(strength / strength.sum() @ right) / 8
        return total - penalty * (w @ w + slopes @ slopes)

    found = np.r_[heads.position, heads.evidence.ravel()]
    assert np.abs(approx_fprime(found, objective, 1e-6)).max() < 1e-4
    # The control: it is not at the best of the likelihood without a penalty.
    assert np.abs(approx_fprime(found, lambda flat: objective(flat, 0), 1e-6)).max() > 1e-3


def test_calm_leaves_out_pairs_without_a_target(rng):
    tokens, _, present = planted_positions(rng)
    flat, lengths = tokens.reshape(-1, 4), np.full(60, 8)
    cosines = np.c_[flat[:, 1], flat[:, 1]] / np.linalg.norm(flat, axis=1)[:, None]
    y = np.c_[present, present]
    whole = fit_calm(flat[:320], lengths[:40], cosines[:320], y[:40])
    cosines[320:] = np.nan
    np.testing.assert_allclose(fit_calm(flat, lengths, cosines, y).position, whole.position)
