"""PositionContext against its formula, written again slowly."""

import numpy as np
import pytest
from sklearn import config_context

import skact
from skact import PositionContext, TokenArray


def ragged(rng, n=30):
    return [rng.normal(size=(k, 3)) + np.arange(k)[:, None] for k in rng.integers(1, 8, n)]


@pytest.mark.parametrize("working_memory", [0, 1024])
def test_it_is_the_formula(rng, working_memory):
    X = ragged(rng)
    with config_context(working_memory=working_memory):
        step = PositionContext(min_samples=5).fit(X)
        got = step.transform(X)
    mean = np.mean([z for x in X for z in x], axis=0)
    n = max(t for t in range(1, 9) if sum(len(x) >= t for x in X) >= 5)
    place = [[min(t, n - 1) for t in range(len(x))] for x in X]
    at = [
        [z for x, p in zip(X, place, strict=True) for z, q in zip(x, p, strict=True) if q == t]
        for t in range(n)
    ]
    positions = np.array([np.mean(tokens, axis=0) - mean for tokens in at])
    np.testing.assert_allclose(step.mean_, mean)
    np.testing.assert_allclose(step.positions_, positions, atol=1e-12)
    for x, p, out in zip(X, place, got, strict=True):
        np.testing.assert_allclose(out, x - positions[p])


def test_energies_of_samples_of_one_length_are_orthogonal(rng):
    X = rng.normal(size=(20, 6, 4)) + rng.normal(size=(20, 1, 4)) + rng.normal(size=(6, 4))
    mean = X.mean(axis=(0, 1))
    position, context = X.mean(axis=0) - mean, X.mean(axis=1) - mean
    rest = X - mean - position - context[:, None]
    energy = np.array([20 * (position**2).sum(), 6 * (context**2).sum(), (rest**2).sum()])
    assert energy.sum() == pytest.approx(((X - mean) ** 2).sum())
    step = PositionContext().fit(X)
    np.testing.assert_allclose(step.shares_, energy / energy.sum())
    assert abs((position[None] * context[:, None]).sum()) < 1e-9
    np.testing.assert_allclose(step.transform(X).mean(), X.mean(axis=1))


def test_shares_of_ragged_samples_add_up_and_positions_go(rng):
    X = ragged(rng)
    step = PositionContext(2).fit(X)
    assert step.shares_.sum() == pytest.approx(1)
    assert step.shares_[0] > 0.3
    again = PositionContext(2).fit(step.transform(X))
    assert again.shares_[0] < 1e-20


def test_further_positions_take_the_last_mean(rng):
    step = PositionContext(1).fit(rng.normal(size=(5, 3, 2)))
    longer = np.zeros((1, 5, 2))
    np.testing.assert_allclose(step.transform(longer)[0][2:], -step.positions_[[2, 2, 2]])


def test_grids_of_another_shape_are_refused(rng):
    values = rng.normal(size=(3, 6, 2))
    X = TokenArray.from_list(values, shapes=[[2, 3]] * 3)
    step = PositionContext(1).fit(X)
    np.testing.assert_array_equal(step.transform(X).shapes, X.shapes)
    other = TokenArray.from_list(values, shapes=[[2, 3], [3, 2], [2, 3]])
    for call in (PositionContext(1).fit, step.transform):
        with pytest.raises(ValueError, match=r"a grid of \(3, 2\) patches, sample 1"):
            call(other)


def test_too_few_samples_are_told(rng):
    with pytest.warns(UserWarning, match="min_samples=10 of 4 samples, so nothing"):
        step = PositionContext().fit(rng.normal(size=(4, 3, 2)))
    X = rng.normal(size=(2, 3, 2))
    np.testing.assert_allclose(step.transform(X).flat(), X.reshape(6, 2), atol=1e-12)


def test_it_has_no_function_of_single_tokens_and_is_kept(rng, tmp_path):
    step = PositionContext(2).fit(ragged(rng))
    assert not hasattr(step, "token_function")
    skact.save(step, tmp_path / "step")
    X = ragged(rng)
    again = skact.load(tmp_path / "step").transform(X)
    np.testing.assert_array_equal(again.flat(), step.transform(X).flat())


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "a", np.nan])
def test_bad_numbers(rng, n):
    with pytest.raises(ValueError, match="'min_samples'"):
        PositionContext(n).fit(rng.normal(size=(3, 2)))
