"""The compiled loops give numpy's numbers, bit for bit."""

import importlib

import numpy as np
import pytest
from sklearn import config_context

from skact import TokenArray, TokenScaler, compiling
from skact.floats import finite_floats

pytest.importorskip("numba")
loops = importlib.import_module("skact._floats_compiled")

HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)


def bits(values):
    return values.view(f"u{values.itemsize}")


@pytest.fixture
def worth(monkeypatch):
    monkeypatch.setattr(compiling, "_WORTH_COMPILING", 1)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (-1, 31), (2, -1, 31), (0, 5), (0,)])
def test_half_precision_is_widened_exactly(worth, shape):
    finite = HALVES[np.isfinite(HALVES)]
    assert len(finite) == 63_488
    values = (finite if -1 in shape else finite[:0]).reshape(shape)
    values.flags.writeable = False
    wide = finite_floats(values, 1)
    assert (wide.dtype, wide.shape) == (np.float32, values.shape)
    np.testing.assert_array_equal(bits(wide), bits(values.astype(np.float32)))


@pytest.mark.parametrize("place", [0, 1500, 2999])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found(worth, place, value):
    values = np.full((3000, 3), 65504, np.float16)
    assert finite_floats(values, 1) is not None
    values[place, 1] = value
    assert finite_floats(values, 1) is None


def test_what_does_not_lie_in_one_piece_is_left_to_numpy(worth, monkeypatch):
    monkeypatch.setattr(loops, "widened", None)
    values = np.ones((4, 6), np.float16)
    np.testing.assert_array_equal(finite_floats(values[:, ::2], 1), np.ones((4, 3)))
    with pytest.raises(TypeError):
        finite_floats(values, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaling_is_numpys(rng, dtype):
    values, shift = rng.normal(size=(500, 37)).astype(dtype), rng.normal(size=37).astype(dtype)
    values.flags.writeable = False
    expected = (values - shift) / dtype(0.7)
    got = loops.scaled(values, shift, 0.7)
    assert got.dtype == dtype
    np.testing.assert_array_equal(bits(got), bits(expected))
    assert (bits(got) != bits((values - shift) * dtype(1 / 0.7))).any()


def test_the_loops_themselves_do_it(rng):
    half = rng.normal(size=(3, 5)).astype(np.float16)
    made = np.empty(half.shape, np.float32)
    assert loops.widen(half.view(np.int16), made.view(np.int32), made)
    np.testing.assert_array_equal(made, half)
    scaled = np.empty_like(made)
    loops.scale(made, made[0], np.float32(3), scaled)
    np.testing.assert_array_equal(scaled, (made - made[0]) / np.float32(3))
    half[2, 4] = np.inf
    assert not loops.widen(half.view(np.int16), made.view(np.int32), made)


def test_tokens_on_disk_are_scaled_as_those_in_memory(rng, tmp_path, monkeypatch):
    held = TokenArray(rng.normal(size=(900, 8)).astype(np.float16), np.arange(0, 901, 9))
    held.values.tofile(tmp_path / "tokens")
    X = held.over(np.memmap(tmp_path / "tokens", np.float16, "r", shape=(900, 8)))
    scaler = TokenScaler().fit(held)
    expected = scaler.transform(held).values
    called = []
    for name in ("widened", "scaled"):
        function = getattr(loops, name)
        monkeypatch.setattr(loops, name, lambda *a, f=function: called.append(f) or f(*a))
    with config_context(working_memory=0.01):
        assert np.array_equal(scaler.transform(X).flat(), expected)
        assert not called
        monkeypatch.setattr(compiling, "_WORTH_COMPILING", 900 * 8)
        assert np.array_equal(scaler.transform(X).flat(), expected)
    assert len(set(called)) == 2
