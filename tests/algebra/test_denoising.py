"""Filters of maps against their formulas, written slowly."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from skact import rank_gaussian_filter, remove_interference


def slow_filter(values, size):
    values, half = np.maximum(values, 0), size // 2
    padded = np.pad(values, half, mode="symmetric")
    out = np.zeros(values.shape)
    for r, c in np.ndindex(values.shape):
        window = sorted(padded[r : r + size, c : c + size].ravel().tolist())
        mean = sum(window) / len(window)
        std = math.sqrt(sum((v - mean) ** 2 for v in window) / len(window))
        middle = len(window) // 2
        if mean == 0:
            continue
        if std == 0:
            out[r, c] = window[middle]
            continue
        weights = [
            math.exp(-((i - middle) ** 2) / (2 * (std / mean) ** 2)) for i in range(len(window))
        ]
        out[r, c] = sum(w * v for w, v in zip(weights, window, strict=True)) / sum(weights)
    return out


@pytest.mark.parametrize("size", [1, 3, 5])
def test_it_is_the_formula(rng, size):
    maps = rng.normal(size=(2, 6, 7))
    maps[1, :4, :4] = 0
    maps[0, :4, :4] = 2
    expected = [slow_filter(m, size) for m in maps]
    np.testing.assert_allclose(rank_gaussian_filter(maps, size), expected, atol=1e-12)
    np.testing.assert_allclose(rank_gaussian_filter(maps[0], size), expected[0], atol=1e-12)


def test_lone_peaks_go_and_regions_stay():
    values = np.ones((9, 9))
    values[4, 4] = 1.5
    assert rank_gaussian_filter(values)[4, 4] == pytest.approx(1, abs=1e-3)
    values[3:6, 3:6] = 1.5
    assert rank_gaussian_filter(values)[4, 4] == pytest.approx(1.5)


def test_scale_of_a_map_does_not_count(rng):
    values = rng.random((5, 5))
    smooth = rank_gaussian_filter(values)
    np.testing.assert_allclose(rank_gaussian_filter(7 * values), 7 * smooth)
    assert not np.allclose(rank_gaussian_filter(values + 7), 7 + smooth)


def test_interference_is_scaled_by_least_squares(rng):
    own, others, weights = rng.random((4, 5)), rng.random((3, 4, 5)), rng.random(3)
    mixed = sum(w * m for w, m in zip(weights, others, strict=True))
    scale = minimize_scalar(lambda s: ((own - s * mixed) ** 2).sum()).x
    expected = np.maximum(own - scale * mixed, 0)
    np.testing.assert_allclose(remove_interference(own, others, weights), expected, atol=1e-6)
    louder = remove_interference(own, others, 9 * weights)
    np.testing.assert_allclose(louder, expected, atol=1e-6)
    assert not np.allclose(remove_interference(own, others), expected)


def test_what_interferes_goes_and_what_has_nothing_to_do_with_it_stays(rng):
    own = rng.random((3, 3))
    np.testing.assert_allclose(remove_interference(own, [3 * own]), 0, atol=1e-12)
    apart = np.array([[1.0, 0], [0, 0]]), np.array([[0.0, 0], [0, 1]])
    np.testing.assert_array_equal(remove_interference(apart[0], [apart[1]]), apart[0])
    np.testing.assert_array_equal(remove_interference(own, [np.zeros((3, 3))]), own)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_gaussian_filter(np.ones((3, 3)), 4), "'size' .* an odd int"),
        (lambda: rank_gaussian_filter(np.ones((3, 3)), True), "'size'"),
        (lambda: rank_gaussian_filter(np.ones(3)), r"maps must .* 2 or 3 dimensions; got .*\(3,\)"),
        (lambda: rank_gaussian_filter([[np.nan]]), "maps must hold finite"),
        (lambda: remove_interference(np.ones(3), [[[1.0]]]), "target must .* 2 dimensions"),
        (lambda: remove_interference([[1.0]], [[[1.0, 2.0]]]), r"shape \(1, 1\), got \(1, 2\)"),
        (lambda: remove_interference([[1.0]], [[[1.0]]], [1, 2]), "weights must hold 1 finite"),
        (lambda: remove_interference([[1.0]], [[[1.0]]], [-1]), "weights must hold 1 finite"),
    ],
)
def test_bad_maps(call, message):
    with pytest.raises(ValueError, match=message):
        call()
