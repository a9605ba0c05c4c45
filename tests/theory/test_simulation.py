"""Layers one after another are the single steps, and theory's figures of each."""

import numpy as np
import pytest

from skact import theory
from tests.theory.cases import sequences

A = sequences(40, 5, seed=3)


def test_layers_are_steps():
    kappa, beta = [0.5, 1.0, 2.0], [0.3, 0.2, 0.1]
    found = theory.simulate(A, 3, kappa=kappa, beta=beta)
    a = A
    for layer in range(3):
        np.testing.assert_array_equal(found.activations[layer], a)
        step = a, kappa[layer], beta[layer]
        np.testing.assert_array_equal(found.attention[layer], theory.attention(*step[:2]))
        np.testing.assert_array_equal(found.growth[layer], theory.growth_factor(*step))
        np.testing.assert_array_equal(
            found.concentration[layer], theory.concentration_bound(*step[:2])
        )
        for end, expected in zip(
            found.equalization, theory.equalization_bounds(*step), strict=True
        ):
            np.testing.assert_array_equal(end[layer], expected)
        a = theory.update(*step)
    np.testing.assert_array_equal(found.activations[3], a)
    np.testing.assert_array_equal(found.gaps, theory.gaps(found.activations))
    np.testing.assert_array_equal(found.noise, 0)
    np.testing.assert_allclose(
        found.gaps[1:], found.growth * found.gaps[:-1], rtol=1e-12, atol=1e-12
    )


def test_with_noise_all_bounds_hold():
    options = {"kappa": 0.8, "beta": 0.2, "logit_bound": 0.3, "noise_bound": 0.05}
    found = theory.simulate(A, 8, **options, random_state=0)
    off = np.abs(found.gaps[1:] - found.growth * found.gaps[:-1])
    assert (off <= found.noise[..., None, None] * (1 + 1e-12)).all()
    assert off.max() > 0.01
    mass = theory.off_pole_mass(found.attention, found.activations[:-1])
    assert (mass <= found.concentration * (1 + 1e-10)).all()
    assert found.equalization is None
    same = theory.simulate(A, 8, **options, random_state=0)
    other = theory.simulate(A, 8, **options, random_state=1)
    np.testing.assert_array_equal(found.activations, same.activations)
    assert (found.activations[1:] != other.activations[1:]).any()


def test_one_sequence_has_no_axis_of_sequences():
    found = theory.simulate(A[0], 2)
    assert found.activations.shape == (3, 5)
    assert found.growth.shape == (2, 5, 5)
    assert found.noise.shape == (2,)
    np.testing.assert_allclose(
        found.activations, theory.simulate(A, 2).activations[:, 0], rtol=1e-12
    )
    assert theory.simulate(A, 1, beta=-0.1).equalization is None


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((A, 0), {}, "n_layers must be one number of at least 1"),
        ((A, 2.5), {}, "n_layers must be an int of at least 1, got 2.5"),
        ((A, True), {}, "n_layers must be an int"),
        ((A, 2), {"kappa": [1, 2, 3]}, "kappa must be one number, or one per layer, 2"),
        ((A, 2), {"kappa": 0}, "kappa must be one number above 0"),
        ((A, 2), {"beta": "a"}, "beta must hold real numbers"),
        ((A, 2), {"logit_bound": -1}, "logit_bound must be one number of at least 0"),
        (([1.0], 2), {}, "activations must have two or more tokens"),
        ((A, 2000), {"beta": 5.0}, r"in layer \d+: activations are (no longer finite|too large)"),
    ],
)
def test_bad_arguments_are_named(args, options, message):
    with pytest.raises(ValueError, match=message), np.errstate(all="ignore"):
        theory.simulate(*args, **options)
