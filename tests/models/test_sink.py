"""The token before a text that takes the attention sink."""

import numpy as np
import pytest
import torch

from skact.embedding import TransformerEmbedder
from skact.models import find_sink
from skact.models._sink import is_causal
from tests import tiny_models

TEXTS = ["the cat sat on", "happy", "angry cat"]


def embedder(kind, **options):
    return TransformerEmbedder(tiny_models.text_pair(kind), **options)


def begins(tokenizer):
    """Whether a tokenizer puts anything before a text."""
    ids = [tokenizer("the", add_special_tokens=special)["input_ids"] for special in (True, False)]
    return ids[0][0] != ids[1][0]


@pytest.mark.parametrize("kind", tiny_models.TEXT)
def test_causal_models_without_a_first_token_of_their_own_get_one(kind):
    _, tokenizer = tiny_models.text_pair(kind)
    loaded = embedder(kind).reader.loaded
    sink = find_sink(loaded, "auto")
    if not is_causal(loaded) or begins(tokenizer):
        assert sink is None
    elif sink is not None:
        assert sink in tokenizer.all_special_ids or sink in tokenizer.added_tokens_decoder
    assert find_sink(loaded, None) is None


@pytest.mark.parametrize("kind", tiny_models.TEXT)
def test_causality_is_what_a_changed_end_leaves_alone(kind):
    model, _ = tiny_models.text_pair(kind)
    ids = torch.tensor([[4, 5, 6, 7], [4, 5, 6, 8]])
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    deaf = torch.allclose(states[0, :-1], states[1, :-1], atol=1e-5)
    assert is_causal(embedder(kind).reader.loaded) == deaf


def test_a_text_is_read_behind_the_token_and_has_none_more():
    model, tokenizer = tiny_models.text_pair("gpt2")
    sink = 7
    plain = embedder("gpt2", layer=[0, 2, 3], sink=None).transform(TEXTS)
    found = embedder("gpt2", layer=[0, 2, 3], sink=sink)
    after = found.transform(TEXTS)
    for block in after.layers:
        np.testing.assert_array_equal(after.layer(block).lengths, plain.layer(block).lengths)
        for text, got in zip(TEXTS, after.layer(block), strict=True):
            ids = torch.tensor([[sink, *tokenizer(text)["input_ids"]]])
            with torch.no_grad():
                states = model(input_ids=ids, output_hidden_states=True).hidden_states
            if block < 3:  # the last one is after the final norm
                expected = states[block + 1][0, 1:].numpy()
                np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(after.layer(2).flat() - plain.layer(2).flat()).max() > 1e-3
    assert after.layer(2).source.conflict(plain.layer(2).source) == "convention"
    assert repr(tokenizer.convert_ids_to_tokens(sink)) in after.layer(2).source.convention
    assert found.tokens_of(TEXTS) == embedder("gpt2", sink=None).tokens_of(TEXTS)
    with_special = embedder("gpt2", layer=2, sink=sink, special_tokens=True).transform(TEXTS)
    np.testing.assert_array_equal(with_special.lengths, plain.layer(2).lengths)


def test_store_and_labels_leave_it_out(tmp_path):
    spans = [[(0, 3, "a")], [], [(6, 9, "b")]]
    found = embedder("gpt2", layer=2, sink=7)
    labels = found.align_spans(TEXTS, spans)
    assert (labels.flat() == embedder("gpt2", sink=None).align_spans(TEXTS, spans).flat()).all()
    stored = embedder("gpt2", layer=2, sink=7, store=tmp_path)
    np.testing.assert_array_equal(stored.transform(TEXTS).flat(), found.transform(TEXTS).flat())
    other = embedder("gpt2", layer=2, sink=None, store=tmp_path)
    assert other.missing(TEXTS).all()


def test_it_takes_a_position_of_those_there_are():
    long = "cat " * 40
    for sink in (None, 7):
        found = embedder("gpt2", layer=0, sink=sink, max_length=6)
        n_tokens = found.prepare([long]).n_tokens[0]
        assert n_tokens == (6 if sink is None else 5)
        assert found.prepare([long]).lengths[0] == 6
    with pytest.raises(ValueError, match=r"max_length=1 leaves no token .* special tokens take 1"):
        embedder("gpt2", sink=7, max_length=1).transform(["cat"])


def test_the_best_of_the_special_tokens_is_taken(monkeypatch):
    from skact.models import _sink

    loaded = embedder("gpt2").reader.loaded
    tried = {1: 3.0, 2: 1.5, 3: 9.0}
    monkeypatch.setattr(_sink, "_candidates", lambda loaded: list(tried))
    monkeypatch.setattr(_sink, "_largest_ratio", lambda loaded, words, i: tried[i])
    assert _sink._choose(loaded) == 2


BAD = {
    "unknown": ("gpt2", "<nobody>", "sink='<nobody>' is no token of"),
    "beyond": ("gpt2", 10**6, "sink=1000000 is no token of"),
    "negative": ("gpt2", -1, "'sink' parameter of TransformerEmbedder"),
}


@pytest.mark.parametrize(("kind", "sink", "match"), BAD.values(), ids=BAD)
def test_bad_tokens_are_named(kind, sink, match):
    with pytest.raises(ValueError, match=match):
        embedder(kind, sink=sink).transform(TEXTS)


def test_images_have_none(images):
    pair = tiny_models.image_pair("vit")
    with pytest.raises(ValueError, match=r"sink='a', but the model .* reads images"):
        TransformerEmbedder(pair, sink="a").transform(images)
    assert find_sink(TransformerEmbedder(pair).reader.loaded, "auto") is None


def test_on_a_real_decoder_no_token_is_an_outlier(real_model):
    texts = [
        "Thanks a lot, that made my day!",
        "I hate waiting for the bus in the rain.",
        "What on earth were you thinking?",
        "The committee meets on Tuesday at noon.",
        "lol",
    ]
    found = TransformerEmbedder(real_model("smollm2"), layer=[0, 4, 14, 22, 29])
    layers = found.transform(texts)
    tokenizer = found.reader.loaded.processor
    with pytest.warns(UserWarning, match=r"tokens at block .* above 20 times the median"):
        plain = TransformerEmbedder(real_model("smollm2"), layer=14, sink=None).transform(texts)
    norms = np.linalg.norm(plain.flat(), axis=1)
    assert norms.max() > 100 * np.median(norms)
    for block in layers.layers:
        norms = np.linalg.norm(layers.layer(block).flat(), axis=1)
        assert norms.max() < 20 * np.median(norms)
    loaded = found.reader.loaded
    ids = torch.tensor([[found.reader.sink, *tokenizer(texts[0])["input_ids"]]])
    with torch.no_grad():
        states = loaded.base(input_ids=ids, output_hidden_states=True).hidden_states
    expected = states[15][0, 1].numpy()
    np.testing.assert_allclose(layers.layer(14)[0][0], expected, atol=1e-5 * np.abs(expected).max())
