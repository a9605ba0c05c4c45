"""Losses of a model whose states are replaced are those of what stands there then."""

import numpy as np
import pytest
import torch

import skact
from skact.models import check_foresees, load_language, next_token_losses
from tests import tiny_models

TEXTS = ["the happy cat", "not happy at all", "x", "the angry thing sat on the angry cat", "so sat"]
KINDS = ["gpt2", "llama", "gemma2", "qwen3"]


def measure(kind, replacements, layer=0, batch_size=32, **options):
    embedder = skact.TransformerEmbedder(tiny_models.text_pair(kind, head=True), **options)
    language = load_language(embedder.model)
    block = range(embedder.n_blocks)[layer]
    return next_token_losses(
        language, embedder.prepare(TEXTS), block, embedder.site, replacements, batch_size
    )


def slow_loss(kind, change=lambda state: state):
    """Text by text, with the last state read and turned into logits outside of the model."""
    model, tokenizer = tiny_models.text_pair(kind, head=True)
    base = model.transformer if kind == "gpt2" else model.model
    norm = base.ln_f if kind == "gpt2" else base.norm
    embedder = skact.TransformerEmbedder((model, tokenizer), layer=-1, special_tokens=True)
    states, inputs = embedder.transform(TEXTS), embedder.prepare(TEXTS)
    plain = skact.TransformerEmbedder((model, tokenizer)).prepare(TEXTS).encoded.is_token
    offsets, losses = inputs.encoded.offsets, []
    cap = getattr(model.config, "final_logit_softcapping", None)
    for i, state in enumerate(states):
        a, b = offsets[i], offsets[i + 1]
        ids, real = inputs.encoded.ids[a:b], plain[a:b]
        state = torch.tensor(state)
        state[real] = change(state[real])
        with torch.inference_mode():
            logits = model.get_output_embeddings()(norm(state))
            logits = cap * torch.tanh(logits / cap) if cap else logits
            chances = logits.log_softmax(-1).numpy()
        losses += [-chances[t, ids[t + 1]] for t in range(len(ids) - 1) if real[t] and real[t + 1]]
    return np.mean(losses), len(losses)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [32, 1])
def test_losses_at_the_last_block_are_those_of_the_formula(kind, batch_size):
    found, n_pairs = measure(kind, [None, np.zeros_like, lambda x: 2 - x], -1, batch_size)
    truth = [
        slow_loss(kind),
        slow_loss(kind, torch.zeros_like),
        slow_loss(kind, lambda state: 2 - state),
    ]
    np.testing.assert_allclose(found, [loss for loss, _ in truth], rtol=1e-5)
    assert n_pairs == truth[0][1]
    assert abs(found[1] - found[0]) > 1e-3


@pytest.mark.parametrize("site", ["residual", "attention", "mlp", "heads"])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_same_states_change_nothing(site, layer):
    found, _ = measure("llama", [None, lambda x: x.copy(), np.zeros_like, None], layer, site=site)
    assert found[0] == found[1] == found[3]
    assert found[2] != found[0]


def test_tokens_alone_are_replaced():
    embedder = skact.TransformerEmbedder(tiny_models.text_pair("llama", head=True))
    seen = []
    measure("llama", [lambda x: seen.append(len(x)) or x], batch_size=2)
    assert sum(seen) == embedder.prepare(TEXTS).n_tokens.sum()
    assert sum(seen) < embedder.prepare(TEXTS).lengths.sum()


def test_what_cannot_be_foreseen(monkeypatch):
    monkeypatch.setitem(globals(), "TEXTS", ["x", "y"])
    with pytest.raises(ValueError, match="two tokens in a row"):
        measure("llama", [None])
    monkeypatch.undo()
    import transformers

    config, tokenizer = tiny_models.text_pair("bert")[0].config, tiny_models.text_pair("bert")[1]
    masked = transformers.BertForMaskedLM(config).eval()
    with pytest.raises(ValueError, match="sees the tokens behind a position"):
        check_foresees(load_language((masked, tokenizer)))
    check_foresees(load_language(tiny_models.text_pair("gpt2", head=True)))
