"""A picture of simulated layers, against the simulation it shows."""

import numpy as np
import pytest

from skact import DynamicsDisplay, theory

A = np.array([[-1.0, 0.2, 0.5, 2.0], [1.0, 0.9, -0.4, 0.0]])


def test_lines_are_the_activations():
    simulation = theory.simulate(A, 3, beta=0.2)
    display = DynamicsDisplay(simulation).plot()
    lines = display.axes_[0].lines
    assert len(lines) == 8
    for token, line in enumerate(lines):
        np.testing.assert_array_equal(
            line.get_ydata(), simulation.activations.reshape(4, 8)[:, token]
        )
    assert len({line.get_color() for line in lines}) == 2, "one colour per sequence"


def test_points_are_gaps_to_the_largest_token():
    simulation = theory.simulate(A, 3, kappa=0.7, beta=0.2)
    display = DynamicsDisplay(simulation)
    measured, predicted = [], []
    for layer in range(3):
        for sequence in range(2):
            before, after = simulation.activations[layer : layer + 2, sequence]
            top = before.argmax()
            growth = theory.growth_factor(before, 0.7, 0.2)[top]
            for token in range(4):
                if token != top:
                    measured.append((after[top] - after[token]) / (before[top] - before[token]))
                    predicted.append(growth[token])
    np.testing.assert_allclose(display.measured, measured, rtol=1e-12)
    np.testing.assert_allclose(display.predicted, predicted, rtol=1e-12)
    np.testing.assert_allclose(display.predicted, display.measured, rtol=1e-12)
    np.testing.assert_array_equal(display.layer, np.repeat(range(3), 6))
    assert not display.allowed.any()
    drawn = display.plot().axes_[1].collections[0].get_offsets()
    np.testing.assert_array_equal(drawn, np.c_[predicted, display.measured])


def test_with_noise_points_leave_the_line_but_not_the_bars():
    display = DynamicsDisplay.from_activations(
        A, 4, logit_bound=0.4, noise_bound=0.02, random_state=0
    )
    off = np.abs(display.measured - display.predicted)
    assert off.max() > 1e-3
    assert (off <= display.allowed).all()


def test_equal_tokens_have_no_growth():
    display = DynamicsDisplay.from_activations([1.0, 1.0, 1.0], 2)
    assert display.measured.size == 0


def test_axes_are_used():
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2)
    display = DynamicsDisplay.from_activations(A[0], 1, axes=axes)
    assert display.figure_ is figure
    assert list(display.axes_) == list(axes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DynamicsDisplay(A), r"'simulation' .* a Simulation\(\)"),
        (lambda: DynamicsDisplay.from_activations(A, 2, axes=3), "'axes' .* two matplotlib Axes"),
        (lambda: DynamicsDisplay.from_activations("a", 2), "activations must hold real numbers"),
        (lambda: DynamicsDisplay.from_activations(A, 0), "n_layers"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
