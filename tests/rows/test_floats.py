import numpy as np
import pytest

from skact.rows._floats import all_finite, as_floats, row_chunks


def test_half_precision_is_widened_exactly():
    half = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = half[np.isfinite(half)]
    for values in (finite, half, finite[::2]):
        wide = as_floats(values.reshape(-1, 1))
        assert wide.dtype == np.float32
        np.testing.assert_array_equal(wide[:, 0], values.astype(np.float32))
        np.testing.assert_array_equal(np.signbit(wide[:, 0]), np.signbit(values))
    double = np.zeros((2, 2))
    assert as_floats(double) is double
    assert as_floats(double > 0).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_finite(dtype, value):
    values = np.full((3000, 100), np.finfo(dtype).max, dtype)
    assert all_finite(values)
    assert np.isfinite(as_floats(values)).all()
    values[2999, 99] = value
    assert not all_finite(values)
    np.testing.assert_array_equal(as_floats(values), values)  # NaN stays NaN, in any precision
    assert all_finite(values > 0)
    assert all_finite(values[:0])


def test_chunks_are_views_of_all_rows(rng):
    values = rng.normal(size=(3000, 200))
    chunks = list(row_chunks(values))
    assert len(chunks) == 3
    assert all(np.shares_memory(chunk, values) for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate(chunks), values)
    assert len(list(row_chunks(np.empty((5, 0))))) == 1
