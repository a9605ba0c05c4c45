"""TokenScaler against its formula, written again slowly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skact import LinearSeparator, MeanPrototype, Source, TokenArray, TokenScaler


def make_list(rng, n_samples=12, n_features=4, dtype=np.float64):
    spread, shift = np.array([1, 10, 0.1, 3]), np.array([5, -20, 0, 1])
    return [
        (rng.normal(size=(n, n_features)) * spread[:n_features] + shift[:n_features]).astype(dtype)
        for n in rng.integers(1, 7, n_samples)
    ]


def slow_statistics(samples):
    """Mean vector and root mean square norm, one token at a time."""
    n_tokens, mean, square = 0, 0.0, 0.0
    for sample in samples:
        for token in sample.astype(np.float64):
            n_tokens += 1
            mean = mean + token
            square += sum(x**2 for x in token.tolist())
    return mean / n_tokens, (square / n_tokens) ** 0.5


@pytest.mark.parametrize("working_memory", [0, 1024])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("with_mean", [True, False])
@pytest.mark.parametrize("with_scale", [True, False])
def test_it_is_the_formula(rng, dtype, with_mean, with_scale, working_memory):
    train, test = make_list(rng, dtype=dtype), make_list(rng, dtype=dtype)
    mean, scale = slow_statistics(train)
    with config_context(working_memory=working_memory):
        scaler = TokenScaler(with_mean=with_mean, with_scale=with_scale).fit(train)
        scaled = scaler.transform(test)
    np.testing.assert_allclose(scaler.mean_, mean, rtol=1e-12)
    np.testing.assert_allclose(scaler.scale_, scale, rtol=1e-12)
    assert scaler.mean_.dtype == np.float64
    assert scaler.n_tokens_seen_ == sum(map(len, train))
    # Half precision is for storage only.
    assert scaled.dtype == (np.float64 if dtype == np.float64 else np.float32)
    tolerance = 1e-12 if dtype == np.float64 else 2e-6
    for got, sample in zip(scaled, test, strict=True):
        for row, token in zip(got, sample.astype(np.float64), strict=True):
            expected = (token - with_mean * mean) / (scale if with_scale else 1)
            np.testing.assert_allclose(row, expected, rtol=tolerance, atol=tolerance)


def test_a_matrix_is_one_token_per_sample(rng):
    matrix = np.concatenate(make_list(rng))
    scaled = TokenScaler().fit_transform(matrix)
    assert type(scaled) is np.ndarray
    as_tokens = TokenScaler().fit_transform([row[None] for row in matrix])
    np.testing.assert_array_equal(scaled, as_tokens.flat())


def test_mean_square_norm_of_uncentred_tokens_becomes_one(rng):
    train = make_list(rng)
    uncentred = TokenScaler(with_mean=False).fit_transform(train).flat()
    np.testing.assert_allclose((uncentred**2).sum(axis=1).mean(), 1)
    # Centring does not change the scalar, so centred tokens have a smaller norm.
    centred = TokenScaler().fit_transform(train).flat()
    np.testing.assert_allclose(centred.mean(axis=0), 0, atol=1e-12)
    assert (centred**2).sum(axis=1).mean() < 0.9


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_angles_between_centred_tokens_stay(rng):
    tokens = np.concatenate(make_list(rng))
    centred = tokens - tokens.mean(axis=0)
    np.testing.assert_allclose(cosines(TokenScaler().fit_transform(tokens)), cosines(centred))
    # A scale per feature, as elsewhere, turns them.
    turned = cosines(StandardScaler().fit_transform(tokens))
    assert np.abs(turned - cosines(centred)).max() > 0.5


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), order=st.permutations(range(8)), cuts=st.sets(st.integers(1, 7)))
def test_partial_fit_in_any_split_and_order_is_fit(seed, order, cuts):
    samples = make_list(np.random.default_rng(seed), 8)
    whole = TokenScaler().fit(samples)
    parts = TokenScaler()
    for piece in np.split(np.array(order), sorted(cuts)):
        assert parts.partial_fit([samples[i] for i in piece]) is parts
    np.testing.assert_allclose(parts.mean_, whole.mean_, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(parts.scale_, whole.scale_, rtol=1e-12)
    assert parts.n_tokens_seen_ == whole.n_tokens_seen_


def test_fit_forgets_and_partial_fit_does_not(rng):
    first, second = make_list(rng), [s + 100 for s in make_list(rng)]
    fresh = TokenScaler().fit(second)
    again = TokenScaler().fit(first).fit(second)
    np.testing.assert_array_equal(again.mean_, fresh.mean_)
    assert again.scale_ == fresh.scale_
    assert again.n_tokens_seen_ == fresh.n_tokens_seen_
    more = TokenScaler().fit(first).partial_fit(second)
    assert np.abs(more.mean_ - fresh.mean_).max() > 10
    # Another width may follow in fit, not in partial_fit.
    narrow = [s[:, :2] for s in first]
    with pytest.raises(ValueError, match="2 features, but TokenScaler is expecting 4"):
        more.partial_fit(narrow)
    assert more.fit(narrow).mean_.shape == (2,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"with_mean": False}, {"with_scale": False}])
def test_inverse_transform_undoes(rng, dtype, options):
    source = Source(model="m", block=2)
    samples = make_list(rng, dtype=dtype)
    X = TokenArray.from_list(samples, feature_names=list("abcd"), source=source)
    scaler = TokenScaler(**options).fit(X)
    back = scaler.inverse_transform(scaler.transform(X))
    np.testing.assert_allclose(back.values, X.values, rtol=1e-5, atol=1e-5)
    assert back.dtype == dtype
    assert back.source == source
    assert back.feature_names == X.feature_names
    matrix = X.values
    assert type(scaler.inverse_transform(matrix)) is np.ndarray
    np.testing.assert_allclose(
        scaler.inverse_transform(scaler.transform(matrix)), matrix, rtol=1e-5, atol=1e-5
    )


def test_scalers_in_a_row_are_undone_in_turn(rng):
    X = TokenArray.from_list(make_list(rng), source=Source(model="m"))
    first = TokenScaler().fit(X)
    once = first.transform(X)
    second = TokenScaler(with_mean=False).fit(once)
    back = second.inverse_transform(second.transform(once))
    assert back.source == once.source
    back = first.inverse_transform(back)
    assert back.source == X.source
    np.testing.assert_allclose(back.values, X.values, rtol=1e-10, atol=1e-10)


def test_zero_tokens_are_left_alone():
    scaler = TokenScaler().fit(np.zeros((3, 2)))
    assert scaler.scale_ == 1
    assert scaler.transform(np.ones((1, 2))).tolist() == [[1, 1]]


def test_published_numbers(reference):
    data = reference("ref_normalise")
    X, train = data["in_x_f16"], data["in_train_idx"]
    scaler = TokenScaler().fit(X[train])
    np.testing.assert_allclose(scaler.mean_, data["out_mean"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scaler.scale_, data["out_scale"], rtol=1e-5)
    np.testing.assert_allclose(scaler.transform(X), data["out_x"], rtol=1e-5, atol=1e-5)
    # Statistics of all rows would be others.
    leaky = TokenScaler().fit(X)
    assert np.abs(leaky.mean_ - data["out_mean"]).max() > 1e-3


def test_the_scaling_is_part_of_the_source(rng):
    source = Source(model="m", block=2)
    samples = make_list(rng)
    X = TokenArray.from_list(samples, source=source)
    one, same, other = TokenScaler().fit(X), TokenScaler().fit(X), TokenScaler().fit(X[:5])
    scaled = one.transform(X)
    assert scaled.source.scaling.startswith("TokenScaler ")
    assert (scaled.source.model, scaled.source.block) == ("m", 2)
    assert X.source == source
    assert same.transform(X).source == scaled.source
    assert other.transform(X).source != scaled.source
    assert clone(one).set_params(with_mean=False).fit(X).transform(X).source != scaled.source
    # Tokens of unknown origin still say what was done to them.
    assert one.transform(samples).source == Source(scaling=scaled.source.scaling)


@pytest.mark.parametrize("method", [MeanPrototype(), LinearSeparator()])
@pytest.mark.parametrize("source", [None, Source(model="m", block=2)])
def test_tokens_of_another_scaler_are_refused(rng, method, source):
    X = TokenArray.from_list(make_list(rng), source=source)
    y = np.arange(len(X)) % 2
    one, other = TokenScaler().fit(X), TokenScaler().fit(X[:5])
    concepts = clone(method).fit(one.transform(X), y)
    with pytest.raises(ValueError, match="another scaling") as error:
        concepts.transform(other.transform(X))
    for scaler in (one, other):
        assert scaler.transform(X).source.scaling in str(error.value)
    assert len(concepts.transform(one.transform(X[:3]))) == 3


def test_bad_parameters_and_use_before_fit(rng):
    samples = make_list(rng)
    for method in ("transform", "inverse_transform"):
        with pytest.raises(NotFittedError):
            getattr(TokenScaler(), method)(samples)
    for options in ({"with_mean": "yes"}, {"with_scale": 2}):
        for fit in ("fit", "partial_fit"):
            with pytest.raises(ValueError, match=next(iter(options))):
                getattr(TokenScaler(**options), fit)(samples)


def test_a_failed_fit_loses_nothing(rng):
    samples = make_list(rng)
    scaler = TokenScaler().fit(samples)
    before = scaler.transform(samples)
    broken = [*samples, np.full((2, 4), np.nan)]
    for fit in (scaler.partial_fit, scaler.fit):
        with pytest.raises(ValueError, match="NaN"):
            fit(broken)
        after = scaler.transform(samples)
        np.testing.assert_array_equal(after.values, before.values)
        assert scaler.n_tokens_seen_ == sum(map(len, samples))


def test_names_pass_through(rng):
    X = TokenArray.from_list(make_list(rng), feature_names=list("abcd"))
    assert TokenScaler().fit_transform(X).feature_names == tuple("abcd")
    assert TokenScaler().fit(X).get_feature_names_out(list("abcd")).tolist() == list("abcd")


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tokens_of_any_size_are_scaled_alike(rng, scale):
    X = rng.normal(size=(40, 5)) + 1
    expected = TokenScaler().fit_transform(X)
    found = TokenScaler().fit_transform((X * scale).astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Control: squares of such numbers are none in single precision.
    with np.errstate(over="ignore", under="ignore"):
        assert np.square(np.float32(scale)) in (0, np.inf)


def test_fits_on_a_thousand_parts_merge_to_the_fit_on_all(rng):
    samples = make_list(rng, n_samples=1000)
    parts = [TokenScaler().fit([sample]) for sample in samples]
    merged, whole = parts[0].merge(*parts[1:]), TokenScaler().fit(samples)
    np.testing.assert_allclose(merged.mean_, whole.mean_, rtol=1e-12)
    np.testing.assert_allclose(merged.scale_, whole.scale_, rtol=1e-12)
    assert merged.n_tokens_seen_ == whole.n_tokens_seen_
    assert not np.allclose(parts[1].mean_, whole.mean_, rtol=0.01)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_weight_is_a_number_of_repetitions(rng, dtype):
    samples, weight = make_list(rng, dtype=dtype), rng.permutation(12) % 4
    mean, scale = slow_statistics(
        [s for s, w in zip(samples, weight, strict=True) for _ in range(w)]
    )
    with config_context(working_memory=0):
        found = TokenScaler().fit(samples, sample_weight=weight)
    np.testing.assert_allclose(found.mean_, mean, rtol=1e-12)
    np.testing.assert_allclose(found.scale_, scale, rtol=1e-12)
    assert found.n_tokens_seen_ == weight @ [len(s) for s in samples]
    # Scale does not count, and without weights it is another fit.
    shares = TokenScaler().fit(samples, sample_weight=weight / 1e3)
    np.testing.assert_allclose(shares.mean_, mean, rtol=1e-12)
    assert np.abs(TokenScaler().fit(samples).mean_ - mean).max() > 1e-3


def test_ones_change_no_bit_and_zeros_leave_out(rng):
    samples, kept = make_list(rng), np.arange(12) % 3 > 0
    wild = [s if k else s * 1e6 for s, k in zip(samples, kept, strict=True)]
    part = [s for s, k in zip(samples, kept, strict=True) if k]
    for weight, X, same in ((np.ones(12), samples, samples), (kept, wild, part)):
        found, plain = TokenScaler().fit(X, sample_weight=weight), TokenScaler().fit(same)
        np.testing.assert_array_equal(found.mean_, plain.mean_)
        assert (found.scale_, found.n_tokens_seen_) == (plain.scale_, plain.n_tokens_seen_)


def test_parts_with_weights_go_on_and_merge(rng):
    samples, weight = make_list(rng), np.arange(12) % 3 + 1
    whole = TokenScaler().fit(samples, sample_weight=weight)
    cut = [slice(0, 5), slice(5, 12)]
    stream = TokenScaler()
    for part in cut:
        stream.partial_fit(samples[part], sample_weight=weight[part])
    one, other = (TokenScaler().fit(samples[p], sample_weight=weight[p]) for p in cut)
    for found in (stream, one.merge(other)):
        np.testing.assert_allclose(found.mean_, whole.mean_, rtol=1e-10)
        np.testing.assert_allclose(found.scale_, whole.scale_, rtol=1e-12)
        assert found.n_tokens_seen_ == whole.n_tokens_seen_


def test_a_weighted_pipeline_is_that_of_repeated_samples(rng):
    X, y, weight = TokenArray.from_list(make_list(rng)), np.arange(12) % 2, np.arange(12) % 4
    again = np.repeat(np.arange(12), weight)

    def vectors(ask, X, y, **weights):
        steps = [TokenScaler(), MeanPrototype()]
        for step, asks in zip(steps, ask, strict=True):
            step.set_fit_request(sample_weight=asks)
        return make_pipeline(*steps).fit(X, y, **weights)[-1].concept_vectors_

    with config_context(enable_metadata_routing=True):
        repeated = vectors([None, None], X[again], y[again])
        found = vectors([True, True], X, y, sample_weight=weight)
        unscaled = vectors([False, True], X, y, sample_weight=weight)
    np.testing.assert_allclose(found, repeated, rtol=1e-6, atol=1e-9)
    assert np.abs(unscaled - repeated).max() > 1e-3


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1, 2], "sample_weight must have one entry per sample"),
        ([-1.0] * 12, "sample_weight must be finite and not negative; that of sample 0 is -1.0"),
        ([0] * 12, "sample_weight must not be zero for every sample"),
    ],
)
def test_bad_weights(rng, weight, message):
    for fit in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(TokenScaler(), fit)(make_list(rng), sample_weight=weight)
