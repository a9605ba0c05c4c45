"""What heads write adds up to what attention gives, and is computed when it is read."""

import numpy as np
import pytest

from skact import Source, TokenArray, TransformerEmbedder
from skact.heads import head_writes
from skact.models import load, output_projections
from skact.rows import on_disk
from tests import tiny_models

FAMILIES = ("llama", "gpt2", "vit", "bert", "qwen3")


def embedder(kind, **params):
    is_image = kind in tiny_models.IMAGE
    pair = (tiny_models.image_pair if is_image else tiny_models.text_pair)(kind)
    return TransformerEmbedder(pair, **params)


@pytest.fixture
def samples(texts, images):
    return lambda kind: images if kind in tiny_models.IMAGE else texts


@pytest.mark.parametrize("kind", FAMILIES)
def test_heads_and_bias_add_up_to_what_attention_adds(kind, samples):
    some = samples(kind)
    reader = embedder(kind, site="heads", layer=[0, 2])
    writes = head_writes(reader.transform(some), reader)
    added = embedder(kind, site="attention", layer=[0, 2]).transform(some)
    projections = output_projections(load(reader.model))
    assert list(writes) == [(b, h) for b in (0, 2) for h in range(4)]
    for block in (0, 2):
        total = sum(writes[block, head].flat() for head in range(4))
        if (bias := projections[block].bias) is not None:
            total = total + bias.detach().numpy()
        expected = added.layer(block).flat()
        np.testing.assert_allclose(total, expected, atol=1e-5 * np.abs(expected).max() + 1e-5)
        without = total - writes[block, 1].flat()
        assert np.abs(without - expected).max() > 1e-3
        np.testing.assert_array_equal(writes[block, 1].lengths, added.lengths)


def test_a_write_is_a_slice_times_a_slice():
    reader = embedder("gpt2", site="heads", layer=1)
    tokens = reader.transform(["the happy cat"])
    write = head_writes(tokens, reader.model)[1, 3]
    weight = reader.model[0].h[1].attn.c_proj.weight.detach().numpy()  # rows are inputs
    np.testing.assert_allclose(write[0], tokens[0][:, 24:] @ weight[24:], rtol=1e-4, atol=1e-5)
    assert write.source.block == 1
    assert "head 3" in write.source.convention


def test_means_over_tokens_commute(texts):
    reader = embedder("llama", site="heads", layer=[1, 3])
    pooled = embedder("llama", site="heads", layer=[1, 3], pooling="mean").transform(texts)
    one = embedder("llama", site="heads", layer=3, pooling="mean").transform(texts)
    writes = head_writes(reader.transform(texts), reader)
    of_means, of_matrix = head_writes(pooled, reader), head_writes(one, reader, layer=-1)
    for head in range(4):
        expected = writes[3, head].mean()
        np.testing.assert_allclose(of_means[3, head].flat(), expected, rtol=1e-4, atol=1e-5)
        assert isinstance(of_matrix[3, head], np.ndarray)
        np.testing.assert_allclose(of_matrix[3, head], expected, rtol=1e-4, atol=1e-5)
    # Maxima do not.
    assert (
        np.abs(
            writes[3, 0].max()
            - head_writes(reader.transform(texts).layer(3).max(), reader, layer=3)[3, 0]
        ).max()
        > 1e-3
    )


def test_what_is_on_disk_stays_there(texts, tmp_path, monkeypatch):
    reader = embedder("llama", site="heads", layer=[0, 1], store=tmp_path / "s")
    stack = reader.transform(texts)
    monkeypatch.setattr("skact.tokens._array.may_hold", lambda n_bytes: False)
    writes = head_writes(stack, reader)
    assert on_disk(writes[1, 2].values)
    direct = head_writes(embedder("llama", site="heads", layer=1).transform(texts), reader)
    np.testing.assert_array_equal(writes[1, 2].flat(), direct[1, 2].flat())


TOKENS = TokenArray(np.ones((4, 32), np.float32), [0, 2, 4])


@pytest.mark.parametrize(
    ("X", "layer", "message"),
    [
        (TOKENS, None, "layer must be given"),
        (TOKENS, 4, "layer 4 does not exist"),
        (TOKENS.with_source(Source(block=9)), None, "block 9, and the model has 4 blocks"),
        (TOKENS.with_source(Source(block=1)), 2, "layer is 2, but X is from block 1"),
        (TOKENS.with_source(Source(block=1, site="mlp")), None, 'must be read with site="heads"'),
        (TOKENS.with_source(Source("other", "x", 1)), None, "comes from another model"),
        (np.ones((3, 31)), 0, "must have the 32 features .*, got shape"),
        (np.ones(32), 0, "must have the 32 features .*, got shape"),
        (np.full((3, 32), np.nan), 0, "X must hold finite real numbers, got NaN or infinity"),
        (np.array([["a"] * 32]), 0, "X must hold finite real numbers, got dtype <U1"),
        (TOKENS, "x", "'layer' parameter of head_writes must be"),
    ],
)
def test_other_activations_are_refused(X, layer, message):
    with pytest.raises((ValueError, TypeError), match=message):
        head_writes(X, tiny_models.text_pair("llama"), layer=layer)


def test_a_head_that_does_not_exist_is_named():
    writes = head_writes(TOKENS, tiny_models.text_pair("llama"), layer=0)
    assert len(writes) == 4
    with pytest.raises(KeyError, match="no head 4 of block 0"):
        writes[0, 4]
    with pytest.raises(KeyError, match="no head 0 of block 1"):
        writes[1, 0]
    for key in (3, (0, 1, 2), None):
        with pytest.raises(KeyError, match=r"asked for by \(block, head\), got"):
            writes[key]
        assert key not in writes
