"""The report is what its formulas say, written slowly over all tokens at once."""

import warnings

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

import skact
from skact import autoencoder_report
from skact.models import load_language, next_token_losses
from tests import tiny_models

WORDS = ["the", "happy", "cat", "not", "at", "all", "angry", "thing", "sat", "on", "so", "x"]
TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, 4 + i % 5)) for i in range(60)]
LOSSES = ("loss", "loss_reconstructed", "loss_zero", "loss_mean")


def fitted(model, layer=0, n_units=12, k=2, samples=TEXTS):
    embedder = skact.TransformerEmbedder(model, layer=layer)
    training = skact.AutoencoderTraining(max_epochs=2)
    method = skact.SparseAutoencoder(
        n_units, activation="topk", k=k, training=training, random_state=0
    )
    return make_pipeline(embedder, method).fit(samples)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pipe(request):
    return fitted(tiny_models.text_pair(request.param, head=True))


def slow(pipe, seed):
    """All tokens at once, by least squares itself."""
    tokens = pipe[0].transform(TEXTS)
    z = tokens.flat().astype(float)
    scores = pipe[-1].transform(tokens).flat()
    e = z - (scores @ pipe[-1].concept_vectors_ + pipe[-1].decoder_bias_)
    norm = np.linalg.norm(e, axis=1, keepdims=True)
    deal = np.random.RandomState(seed).permutation(len(TEXTS)) % 2
    half = np.repeat(deal, tokens.lengths)
    left = np.c_[e, norm]
    known, wanted = np.c_[z, np.ones(len(z))], np.c_[e, norm]
    for h in (0, 1):
        by = np.linalg.lstsq(known[half != h], wanted[half != h], rcond=None)[0]
        left[half == h] -= known[half == h] @ by
    total = ((z - z.mean(0)) ** 2).sum()
    return {
        "n_tokens": len(z),
        "explained": 1 - (e**2).sum() / total,
        "linear": ((e**2).sum() - (left[:, :-1] ** 2).sum()) / total,
        "nonlinear": (left[:, :-1] ** 2).sum() / total,
        "error_r2": 1 - (left[:, :-1] ** 2).sum() / ((e - e.mean(0)) ** 2).sum(),
        "norm_r2": 1 - (left[:, -1] ** 2).sum() / ((norm - norm.mean()) ** 2).sum(),
        "n_fires": (scores > 0).sum(axis=1).mean(),
    }, np.flatnonzero((scores > 0).sum(axis=0) == 0)


@pytest.mark.parametrize("piece", [1, 200, 2**24])
def test_errors_are_those_of_the_formula(pipe, monkeypatch, piece):
    monkeypatch.setattr("skact.reporting._units._PIECE", piece)
    report = autoencoder_report(pipe, TEXTS, loss=False, random_state=3)
    truth, dead = slow(pipe, 3)
    for name, value in truth.items():
        np.testing.assert_allclose(report[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(report.dead, dead)
    assert report.explained + report.linear + report.nonlinear == pytest.approx(1, abs=1e-12)
    assert report.explained == pytest.approx(
        pipe[-1].reconstruction_score(pipe[0].transform(TEXTS)), abs=1e-5
    )
    assert report.loss is report.recovered_mean is None


def test_an_error_that_is_linear_is_found():
    """An autoencoder that fires never leaves z - b: all of it is linear in z."""
    pipe = fitted(tiny_models.text_pair("gpt2", head=True))
    pipe[-1].encoder_bias_ = np.full(12, -1e6, np.float32)
    report = autoencoder_report(pipe, TEXTS, loss=False, random_state=0)
    assert report.error_r2 == pytest.approx(1, abs=1e-6)
    assert report.nonlinear == pytest.approx(0, abs=1e-6)
    assert report.dead.tolist() == list(range(12))
    assert report.n_fires == 0


def test_losses_are_those_of_the_reconstruction(pipe):
    report = autoencoder_report(pipe, TEXTS, random_state=0)
    mean = pipe[0].transform(TEXTS).flat().mean(axis=0)
    found, n_pairs = next_token_losses(
        load_language(pipe[0].model),
        pipe[0].prepare(TEXTS),
        0,
        "residual",
        [
            None,
            lambda z: pipe[-1].transform(z) @ pipe[-1].concept_vectors_ + pipe[-1].decoder_bias_,
            lambda z: 0 * z,
            lambda z: 0 * z + mean,
        ],
        7,
    )
    np.testing.assert_allclose([report[name] for name in LOSSES], found, rtol=1e-5)
    assert report.n_pairs == n_pairs
    assert len(set(found)) == 4
    for name, control in zip(("zero", "mean"), found[2:], strict=True):
        share = (control - found[1]) / (control - found[0]) if control > found[0] else np.nan
        np.testing.assert_allclose(report[f"recovered_{name}"], share, rtol=1e-3)


def test_scaled_tokens_are_rebuilt_with_their_scale():
    pipe = fitted(tiny_models.text_pair("gpt2", head=True))
    pipe[-1].input_scaling_ = "layer_norm"
    report = autoencoder_report(pipe, TEXTS, loss=False, random_state=0)
    truth = pipe[-1].reconstruction_score(pipe[0].transform(TEXTS))
    assert report.explained == pytest.approx(truth, abs=1e-5)


def test_images_have_errors_and_no_losses(shapes):
    embedder = skact.TransformerEmbedder(skact.shapes_model_path(), layer=0.5)
    method = skact.SparseAutoencoder(4, training=skact.AutoencoderTraining(max_epochs=1))
    pipe = make_pipeline(embedder, method).fit(shapes.data[:8])
    report = autoencoder_report(pipe, shapes.data[:8], random_state=0)
    assert report.n_pairs is None
    assert report.nonlinear > 0
    with pytest.raises(ValueError, match="loss=True, but the model reads images"):
        autoencoder_report(pipe, shapes.data[:8], loss=True)


def test_a_model_without_a_head_has_no_losses():
    pipe = fitted(tiny_models.text_pair("bert"))
    assert autoencoder_report(pipe, TEXTS).loss is None
    with pytest.raises(ValueError, match=r"loss=True, but .*no unembedding"):
        autoencoder_report(pipe, TEXTS, loss=True)


def test_a_map_that_is_not_determined_is_warned_of(pipe):
    with pytest.warns(UserWarning, match=r"samples have \d+ tokens in one half, for a linear map"):
        autoencoder_report(pipe, TEXTS[:3], loss=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autoencoder_report(pipe, TEXTS, loss=False)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"samples": TEXTS[:1]}, ValueError, "at least two"),
        ({"samples": ["x", "x"]}, ValueError, "all are equal"),
        ({"estimator": skact.KMeansConcepts()}, TypeError, "starts with"),
        ({"loss": "yes"}, ValueError, "loss"),
    ],
)
@pytest.mark.filterwarnings("ignore:samples have")
def test_bad_input(pipe, change, error, message):
    with pytest.raises(error, match=message):
        autoencoder_report(**{"estimator": pipe, "samples": TEXTS, **change})
