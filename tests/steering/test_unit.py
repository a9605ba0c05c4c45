"""Edits by units of autoencoders act where the unit fires."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator

from skact import AutoencoderTraining, Source, SparseAutoencoder, TokenArray, UnitEdit

RNG = np.random.default_rng(1)
X = TokenArray(RNG.normal(size=(90, 5)).astype(np.float32), np.arange(0, 91, 3))
pytestmark = pytest.mark.filterwarnings("ignore:the autoencoder did not converge")


@pytest.fixture(scope="module", params=["relu", "topk", "jumprelu"])
def autoencoder(request):
    training = AutoencoderTraining(max_epochs=5)
    return SparseAutoencoder(8, request.param, k=3, training=training, random_state=0).fit(X)


@pytest.mark.parametrize("where", ["always", "tokens", "samples"])
def test_it_acts_where_the_unit_fires(autoencoder, where):
    scores = autoencoder.transform(X).flat()
    column = int(np.argmin(np.abs((scores > 0).mean(axis=0) - 0.2)))
    fires = scores[:, column] > 0
    assert 0 < fires.sum() < 60
    samples = np.repeat(fires.reshape(30, 3).any(axis=1), 3)
    acts = {"always": np.ones(90, bool), "tokens": fires, "samples": samples}[where]
    edit = UnitEdit(
        FrozenEstimator(autoencoder), column=column, where=where, unit="raw", strength=2
    )
    change = edit.fit(X).transform(X).flat() - X.flat()
    expected = 2 * acts[:, None] * autoencoder.concept_vectors_[column]
    np.testing.assert_allclose(change, expected, atol=1e-6)
    if where == "samples":
        assert samples.sum() > fires.sum()
        part = edit.transform(X[[5, 0, 29]]).flat()
        np.testing.assert_array_equal(part, edit.transform(X)[[5, 0, 29]].flat())


def test_a_unit_by_name_in_units_of_the_median_norm(autoencoder):
    name = str(autoencoder.concept_names_[3])
    edit = UnitEdit(FrozenEstimator(autoencoder), column=name, strength=0.5).fit(X)
    change = edit.transform(X).flat() - X.flat()
    median = np.median(np.linalg.norm(X.flat(), axis=1))
    np.testing.assert_allclose(np.linalg.norm(change, axis=1), median / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("params", "data", "message"),
    [
        ({"column": 8}, X, "column=8 is none of the 8"),
        ({"column": "x"}, X, "column='x' is none of the 8"),
        ({}, X.flat()[:, :4], "autoencoder was fitted on tokens of 5 features, these have 4"),
        ({}, X.with_source(Source(block=2)), "autoencoder was fitted on another block"),
    ],
)
def test_what_does_not_fit_is_refused(params, data, message):
    autoencoder = SparseAutoencoder(8, training=AutoencoderTraining(max_epochs=1), random_state=0)
    autoencoder.fit(X.with_source(Source(block=1)))
    with pytest.raises(ValueError, match=message):
        UnitEdit(FrozenEstimator(autoencoder), **params).fit(data)


def test_a_unit_that_reads_scaled_tokens_is_no_affine_gate():
    autoencoder = SparseAutoencoder(8, training=AutoencoderTraining(max_epochs=1), random_state=0)
    autoencoder.fit(X).input_scaling_ = "layer_norm"
    frozen = FrozenEstimator(autoencoder)
    assert UnitEdit(frozen).fit(X).edit_map().gates == ()
    with pytest.raises(ValueError, match='use where="always"'):
        UnitEdit(frozen, where="tokens").fit(X)
    autoencoder.set_params(activation="afa").fit(X)
    assert UnitEdit(frozen).fit(X).edit_map().gates == ()
    with pytest.raises(ValueError, match=r'"afa".*use where="always"'):
        UnitEdit(frozen, where="samples").fit(X)
    with pytest.raises(TypeError, match="must hold a SparseAutoencoder"):
        UnitEdit(FrozenEstimator(UnitEdit(frozen))).fit(X)
