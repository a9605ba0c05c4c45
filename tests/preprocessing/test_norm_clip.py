"""NormClip against its formula, written again slowly."""

import numpy as np
import pytest
from sklearn import config_context

from skact import NormClip, Source, TokenArray, TokenScaler


@pytest.fixture
def tokens(rng):
    values = rng.normal(size=(60, 5))
    values[[3, 40]] *= [[500], [90]]
    return TokenArray(values, np.arange(0, 61, 6), source=Source(model="m", block=3))


def slow(train, rows, ratio):
    median = float(np.median([sum(x * x for x in row) ** 0.5 for row in train.tolist()]))
    out = []
    for row in rows.tolist():
        norm = sum(x * x for x in row) ** 0.5
        out.append([x * min(1.0, ratio * median / norm) for x in row])
    return np.array(out), median


@pytest.mark.parametrize("working_memory", [0, 1024])
@pytest.mark.parametrize("ratio", [0.5, 3, 20])
def test_it_is_the_formula(tokens, ratio, working_memory):
    with config_context(working_memory=working_memory):
        clip = NormClip(ratio).fit(tokens[:8])
        got = clip.transform(tokens)
    expected, median = slow(tokens[:8].flat(), tokens.flat(), ratio)
    np.testing.assert_allclose(got.flat(), expected, rtol=1e-12)
    assert clip.median_norm_ == pytest.approx(median, rel=1e-12)
    norms = np.linalg.norm(tokens[:8].flat(), axis=1)
    assert clip.n_clipped_ == (norms > ratio * median).sum()
    assert got.source.conflict(tokens.source) is None
    assert "NormClip" in got.source.scaling


def test_directions_and_ordinary_tokens_stay(tokens):
    got = NormClip().fit(tokens).transform(tokens)
    before, after = tokens.flat(), got.flat()
    odd = np.linalg.norm(before, axis=1) != np.linalg.norm(after, axis=1)
    assert odd.nonzero()[0].tolist() == [3, 40]
    np.testing.assert_array_equal(before[~odd], after[~odd])
    cosines = (before * after).sum(1) / np.linalg.norm(before, axis=1)
    np.testing.assert_allclose(cosines, np.linalg.norm(after, axis=1), rtol=1e-12)


def test_scales_are_no_longer_about_outliers(tokens):
    usual = np.delete(tokens.flat(), [3, 40], axis=0)
    plain = TokenScaler().fit(tokens).scale_
    clipped = TokenScaler().fit(NormClip(3).fit_transform(tokens)).scale_
    expected = TokenScaler().fit(usual).scale_
    assert clipped < 1.5 * expected < 0.1 * plain


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_precision(tokens, dtype):
    narrow = TokenArray(tokens.flat().astype(dtype), tokens.offsets)
    got = NormClip().fit(narrow).transform(narrow)
    assert got.dtype == np.float32
    expected, _ = slow(narrow.flat().astype(float), narrow.flat().astype(float), 20)
    np.testing.assert_allclose(got.flat(), expected, rtol=1e-5)


@pytest.mark.parametrize("ratio", [0, -1, "a", None])
def test_bad_ratios_are_refused(tokens, ratio):
    with pytest.raises(ValueError, match="'ratio' parameter of NormClip"):
        NormClip(ratio).fit(tokens)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_outliers_of_any_size_keep_their_direction(tokens, scale):
    small = tokens.flat() * 1e-30
    small[3] *= scale / 1e-30
    clip = NormClip().fit(small.astype(np.float32))
    got = clip.transform(small.astype(np.float32)).astype(float)
    expected, median = slow(small, small, 20)
    assert clip.median_norm_ == pytest.approx(median, rel=1e-6)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # Control: single precision does not hold by how much.
    assert scale == 1e-30 or np.float32(1e-30 / scale) == 0
