"""A direction is read by the unembedding of the model, as its own logits are made."""

import numpy as np
import pytest
import torch

from skact.models import LensWord, logit_lens
from tests import tiny_models
from tests.tiny_models import WIDTH


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "qwen3"])
def test_words_are_those_of_the_formula(kind, rng):
    model, tokenizer = tiny_models.text_pair(kind, head=True)
    vectors = rng.normal(size=(3, WIDTH))
    words = logit_lens((model, tokenizer), vectors, top=5)
    head = model.get_output_embeddings().weight.detach().double().numpy()
    base = model.transformer if kind == "gpt2" else model.model
    norm = base.ln_f if kind == "gpt2" else base.norm
    for vector, found in zip(vectors, words, strict=True):
        if kind == "gpt2":
            plain = (vector - vector.mean()) / np.sqrt(vector.var() + norm.eps)
        else:
            plain = vector / np.sqrt(np.mean(vector**2) + 1e-6)
        gain = norm.weight.detach().double().numpy() + (kind == "gemma2")
        logits = head @ (gain * plain)
        logits[tokenizer.all_special_ids] = -np.inf
        best = np.argsort(-logits)[:5]
        assert [word.word for word in found] == [tokenizer.decode([i]) for i in best]
        np.testing.assert_allclose([word.logit for word in found], logits[best], rtol=1e-3)
    again = logit_lens((model, tokenizer), 7 * vectors[:1], top=5)
    assert [w.word for w in again[0]] == [w.word for w in words[0]]


def test_the_bias_of_a_norm_speaks_for_no_direction(rng):
    model, tokenizer = tiny_models.text_pair("gpt2", head=True)
    bias = model.transformer.ln_f.bias
    before, vectors = bias.detach().clone(), rng.normal(size=(1, WIDTH))
    plain = logit_lens((model, tokenizer), vectors)
    try:
        with torch.no_grad():
            bias += torch.linspace(-9, 9, WIDTH)
        assert [w.word for w in logit_lens((model, tokenizer), vectors)[0]] == [
            w.word for w in plain[0]
        ]
    finally:
        with torch.no_grad():
            bias.copy_(before)


def test_an_embedding_is_its_own_word():
    model, tokenizer = tiny_models.text_pair("gpt2", head=True)
    number = tokenizer.convert_tokens_to_ids("q")
    vector = model.get_output_embeddings().weight[number].detach().numpy()
    assert logit_lens((model, tokenizer), vector[None] - vector.mean(), top=1)[0][0].word == "q"
    assert isinstance(logit_lens((model, tokenizer), vector[None])[0][0], LensWord)


@pytest.mark.parametrize(
    ("pair", "vectors", "message"),
    [
        (lambda: tiny_models.text_pair("bert"), np.ones((1, WIDTH)), "no unembedding"),
        (lambda: tiny_models.text_pair("gpt2"), np.ones((1, WIDTH)), "no unembedding"),
        (lambda: tiny_models.text_pair("gpt2", head=True), np.ones((1, 3)), "vectors must have"),
        (lambda: tiny_models.text_pair("gpt2", head=True), np.ones(WIDTH), "vectors must have"),
        (lambda: tiny_models.text_pair("gpt2", head=True), [["a"]], "vectors must be an array"),
    ],
)
def test_what_has_no_words(pair, vectors, message):
    with pytest.raises(ValueError, match=message):
        logit_lens(pair(), vectors)


def test_no_head_is_made_up(bert_folder):
    with pytest.raises(ValueError, match=r"no unembedding.*BertModel"):
        logit_lens(bert_folder, np.ones((1, WIDTH)))


def test_a_model_that_does_more_is_refused():
    model, tokenizer = tiny_models.text_pair("gpt2", head=True)
    original = model.lm_head
    twisted = type(original)(original.in_features, original.out_features, bias=False)
    with torch.no_grad():
        twisted.weight.normal_()
    getter = model.get_output_embeddings
    model.get_output_embeddings = lambda: twisted
    try:
        with pytest.raises(ValueError, match="does more than a norm"):
            logit_lens((model, tokenizer), np.ones((1, WIDTH)))
    finally:
        del model.get_output_embeddings
    assert getter() is original


def test_smollm2_reads_its_own_words(real_model):
    folder = real_model("smollm2")
    from skact import TransformerEmbedder

    embedder = TransformerEmbedder(folder, layer=-1)
    tokens = embedder.transform(["The capital of France is"])
    found = {word.word.strip() for word in logit_lens(folder, tokens[0][-1:], top=5)[0]}
    assert "Paris" in found
