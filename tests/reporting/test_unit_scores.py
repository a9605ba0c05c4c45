"""Scores of units follow their formulas, written slowly, and find units that were planted."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

import skact
from skact import unit_input_scores, unit_output_scores
from skact.models import logit_lens
from tests import tiny_models

TEXTS = ["the happy cat", "not happy at all", "the angry thing sat", "angry cat", "x cat", "so sat"]
LAYER, N_UNITS = 0, 12


def fitted(model, layer=LAYER, **options):
    embedder = skact.TransformerEmbedder(model, layer=layer, **options)
    training = skact.AutoencoderTraining(max_epochs=1)
    method = skact.SparseAutoencoder(
        N_UNITS, activation="topk", k=2, training=training, random_state=0
    )
    return make_pipeline(embedder, method).fit(TEXTS)


@pytest.fixture(scope="module", params=["gpt2", "llama", "gemma2"])
def pipe(request):
    return fitted(tiny_models.text_pair(request.param, head=True))


@pytest.fixture
def planted():
    """Unit 0 fires on one token alone and speaks for it, unit 1 for another than it fires on."""
    pipe = fitted(tiny_models.text_pair("gpt2", head=True))
    (model, tokenizer), autoencoder = pipe[0].model, pipe[-1]
    tokens, read = pipe[0].transform(TEXTS).flat(), pipe[0].prepare(TEXTS).encoded
    cat, dog = read.ids[-1], tokenizer.convert_tokens_to_ids("q")
    own = read.ids[read.is_token] == cat
    target = np.linalg.lstsq(np.c_[tokens, np.ones(len(tokens))], own.astype(float), rcond=None)[0]
    head = model.get_output_embeddings().weight.detach().numpy()
    autoencoder.encoder_ = np.zeros_like(autoencoder.encoder_)
    autoencoder.encoder_[:, :2] = target[:-1, None]
    autoencoder.encoder_bias_ = np.full(N_UNITS, -1.0, np.float32)
    shift = autoencoder.decoder_bias_ @ target[:-1] + target[-1]
    autoencoder.encoder_bias_[:2] = shift - 0.5
    for unit, word in enumerate((cat, dog)):
        direction = head[word] - head.mean(axis=0)
        autoencoder.concept_vectors_[unit] = direction / np.linalg.norm(direction)
    return pipe


def words_of(pipe, unit, top):
    return {
        w.token for w in logit_lens(pipe[0].model, pipe[-1].concept_vectors_[[unit]], top=top)[0]
    }


def test_input_scores_are_those_of_the_formula(pipe):
    scores, ids = pipe.transform(TEXTS), pipe[0].prepare(TEXTS)
    each = [
        ids.encoded.ids[a:b][ids.encoded.is_token[a:b]]
        for a, b in zip(ids.encoded.offsets, ids.encoded.offsets[1:], strict=False)
    ]
    found = unit_input_scores(pipe, TEXTS, n_top=3, n_words=30)
    truth = []
    for unit in range(N_UNITS):
        words = words_of(pipe, unit, 30)
        best = sorted(range(len(TEXTS)), key=lambda i: -scores[i][:, unit].max())[:3]
        best = [i for i in best if scores[i][:, unit].max() > 0]
        hits = [each[i][scores[i][:, unit].argmax()] in words for i in best]
        truth.append(np.mean(hits) if hits else np.nan)
    np.testing.assert_allclose(found, truth)
    assert len(np.unique(found[~np.isnan(found)])) > 1
    np.testing.assert_allclose(
        unit_input_scores(pipe, TEXTS, [5, 2], n_top=3, n_words=30), found[[5, 2]]
    )


def test_planted_units(planted):
    found = unit_input_scores(planted, TEXTS, n_words=1)
    assert found[0] == 1
    assert found[1] == 0
    assert np.isnan(found[2:]).all()
    steered = unit_output_scores(planted, TEXTS, strength=300, n_words=1)
    plain = unit_output_scores(planted, TEXTS, strength=0, n_words=1)
    assert (steered[:2] > 2 * plain[:2]).all()
    assert np.isnan(steered[2:]).all()


@pytest.mark.parametrize("batch_size", [32, 5])
def test_output_scores_are_those_of_a_steered_model(pipe, batch_size):
    model, tokenizer = pipe[0].model
    prompts = ["the happy", "so angry cat is"]
    pipe = make_pipeline(*(step for _, step in pipe.steps))
    pipe[0].set_params(batch_size=batch_size)
    found = unit_output_scores(pipe, TEXTS, prompts=prompts, strength=4.0, n_words=3)
    highest = pipe.transform(TEXTS).flat().max(axis=0)
    truth = []
    for unit in range(N_UNITS):
        words, scores = sorted(words_of(pipe, unit, 3)), []
        for prompt in prompts:
            direction = pipe[-1].concept_vectors_[unit]
            read = tokenizer(prompt, return_tensors="pt")
            with (
                torch.inference_mode(),
                skact.steer(
                    pipe[0].model,
                    direction,
                    LAYER,
                    strength=4.0 * float(highest[unit]),
                    unit="raw",
                    positions="last",
                ),
            ):
                chances = model(**read).logits[0, -1].softmax(-1).numpy()
            rank = int((chances > chances[words].max()).sum())
            scores.append((1 - rank / len(chances)) * chances[words].max())
        truth.append(np.mean(scores) if highest[unit] > 0 else np.nan)
    np.testing.assert_allclose(found, truth, rtol=1e-4)
    plain = unit_output_scores(pipe, TEXTS, prompts=prompts, strength=0, n_words=3)
    assert not np.allclose(plain, found, rtol=1e-2, equal_nan=True)


def test_the_model_is_left_as_it_was(pipe):
    before = pipe[0].transform(TEXTS).flat()
    unit_output_scores(pipe, TEXTS)
    np.testing.assert_array_equal(pipe[0].transform(TEXTS).flat(), before)


def _with_scaler():
    embedder = skact.TransformerEmbedder(tiny_models.text_pair("gpt2", head=True), layer=0)
    method = skact.SparseAutoencoder(4, training=skact.AutoencoderTraining(max_epochs=1))
    return make_pipeline(embedder, skact.TokenScaler(), method).fit(TEXTS)


@pytest.mark.parametrize("function", [unit_input_scores, unit_output_scores])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"units": [99]}, ValueError, "units holds 99"),
        ({"estimator": skact.KMeansConcepts()}, TypeError, "starts with"),
        ({"estimator": _with_scaler}, TypeError, "TransformerEmbedder, TokenScaler, Sparse"),
        (
            {"estimator": lambda: fitted(tiny_models.text_pair("gpt2"))},
            ValueError,
            "no unembedding",
        ),
        ({"n_words": 0}, ValueError, "n_words"),
    ],
)
def test_bad_input(function, change, error, message):
    given = {"estimator": fitted(tiny_models.text_pair("gpt2", head=True)), "samples": TEXTS}
    change = {
        key: value() if callable(value) and key == "estimator" else value
        for key, value in change.items()
    }
    with pytest.raises(error, match=message):
        function(**{**given, **change})


@pytest.mark.parametrize("prompts", ["a text", [], [1], [""]])
def test_bad_prompts(prompts):
    pipe = fitted(tiny_models.text_pair("gpt2", head=True))
    with pytest.raises((TypeError, ValueError), match=r"prompts|sample 0"):
        unit_output_scores(pipe, TEXTS, prompts=prompts)


def test_images_have_no_words(shapes):
    embedder = skact.TransformerEmbedder(skact.shapes_model_path(), layer=0.5)
    method = skact.SparseAutoencoder(4, training=skact.AutoencoderTraining(max_epochs=1))
    pipe = make_pipeline(embedder, method).fit(shapes.data[:5])
    with pytest.raises(ValueError, match="must read texts"):
        unit_input_scores(pipe, shapes.data[:5])


def test_activations_of_scaled_tokens_are_no_steps():
    pipe = fitted(tiny_models.text_pair("gpt2", head=True))
    pipe[-1].input_scaling_ = "layer_norm"
    with pytest.raises(ValueError, match="scales each token by 'layer_norm'"):
        unit_output_scores(pipe, TEXTS)


@pytest.mark.nightly
def test_smollm2_says_what_its_words_are(real_model):
    """Directions of the unembedding raise their own words, and not those of other units."""
    folder = real_model("smollm2")
    pipe = fitted(folder, layer=-1)
    plain, steered = (unit_output_scores(pipe, TEXTS, [0, 1, 2], strength=s) for s in (0, 10))
    assert np.nanmean(steered) > 2 * np.nanmean(plain)
