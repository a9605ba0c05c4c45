"""The weights of heads, taken apart, put together again what the model computes."""

import copy

import numpy as np
import pytest
import torch

from skact.models import find_circuits, load
from tests import tiny_models
from tests.models.test_sites import pair_of, recorded
from tests.watching import watch

FAMILIES = ("llama", "gemma2", "gpt2", "bert", "vit", "dinov2", "clip")
NO_ROTATION = ("gpt2", "bert", "vit", "dinov2", "clip")


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def projected(made, x):
    """What enters the output projection, from what enters the block: a slow statement."""
    u = x / made.sizes(x)[:, None]
    out = np.empty((len(x), made.n_heads * made.head_dim))
    for h in range(made.n_heads):
        g = h // (made.n_heads // made.n_groups)
        mine, shared = (slice(k * made.head_dim, (k + 1) * made.head_dim) for k in (h, g))
        q = u @ made.query[mine].T + made.query_bias[mine]
        k = u @ made.key[shared].T + made.key_bias[shared]
        logits = made.scaling * q @ k.T
        out[:, mine] = softmax(logits) @ (u @ made.value[shared].T + made.value_bias[shared])
    return out


@pytest.fixture
def sample(texts, images):
    return lambda kind: images[:1] if kind in tiny_models.IMAGE else texts[2:3]


@pytest.mark.parametrize("kind", NO_ROTATION)
def test_attention_is_what_its_weights_say(kind, sample):
    pair = pair_of(kind)
    loaded = load(pair)
    (made,) = find_circuits(loaded, [2])
    block = loaded.blocks[2]
    name = {"gpt2": "attn.c_proj", "bert": "attention.output.dense", "clip": "self_attn.out_proj"}
    out = (
        block.get_submodule(name[kind])
        if kind in name
        else tiny_models.projections(block.attention)[-1]
    )
    parts = {"block": block, "out": out}
    seen = recorded(pair, sample(kind), parts)
    x, entered = seen["block"][0].double().numpy(), seen["out"][0].numpy()
    if kind == "gpt2":  # causal: the last token sees all
        np.testing.assert_allclose(projected(made, x)[-1], entered[-1], atol=1e-4)
    else:
        np.testing.assert_allclose(projected(made, x), entered, atol=1e-4)
    spoilt = copy.copy(made)
    object.__setattr__(spoilt, "query", -made.query)
    assert np.abs(projected(spoilt, x)[-1] - entered[-1]).max() > 1e-3


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_is_known_of_a_family(kind):
    made = find_circuits(load(pair_of(kind)), [1])[0]
    assert made.normed == (kind != "bert")
    assert made.centred == (kind not in ("bert", "llama", "gemma2"))
    assert made.norm_behind == (kind == "gemma2")
    assert (made.n_heads, made.head_dim) == (4, 8)
    assert made.n_groups == (2 if kind in ("llama", "gemma2") else 4)
    assert made.scaling == pytest.approx(1 / 16 if kind == "gemma2" else 8**-0.5)


def test_the_gain_of_a_norm_is_folded_in():
    pair = model, _ = pair_of("llama")
    layer = model.layers[1]
    made = find_circuits(load(pair), [1])[0]
    gain = layer.input_layernorm.weight.detach().double().numpy()
    assert gain.std() > 0.1
    weight = layer.self_attn.k_proj.weight.detach().double().numpy()
    np.testing.assert_allclose(made.key, weight * gain, rtol=1e-4, atol=1e-6)
    gemma = pair_of("gemma2")[0]
    made = find_circuits(load((gemma, pair_of("gemma2")[1])), [1])[0]
    gain = 1 + gemma.layers[1].post_attention_layernorm.weight.detach().double().numpy()
    weight = gemma.layers[1].self_attn.o_proj.weight.detach().double().numpy()
    np.testing.assert_allclose(made.output, weight * gain[:, None], rtol=1e-4, atol=1e-6)


def test_a_factor_behind_the_projection_is_folded_in():
    model, processor = pair_of("dinov2")
    made = find_circuits(load((model, processor)), [1])[0]
    layer = model.layers[1] if hasattr(model, "layers") else model.encoder.layer[1]
    factor = layer.layer_scale1.lambda1.detach().numpy()
    projection = tiny_models.projections(layer.attention)[-1]
    weight, bias = projection.weight.detach().numpy(), projection.bias.detach().numpy()
    np.testing.assert_allclose(made.output, weight * factor[:, None], rtol=1e-5)
    np.testing.assert_allclose(made.output_bias, bias * factor, rtol=1e-5, atol=1e-7)


def test_half_precision_is_read():
    model, tokenizer = pair_of("llama")
    single = find_circuits(load((model, tokenizer)), [1])[0]
    half = find_circuits(load((copy.deepcopy(model).to(torch.bfloat16), tokenizer)), [1])[0]
    np.testing.assert_allclose(half.query, single.query, atol=0.02 * np.abs(single.query).max())


def test_heads_that_are_no_bilinear_form_are_refused():
    with pytest.raises(ValueError, match=r"block 1 of Qwen3Model cannot .* self_attn.q_norm is a"):
        find_circuits(load(tiny_models.text_pair("qwen3")), [1])


def test_values_are_checked_on_one_token():
    pair = model, _ = pair_of("gpt2")
    assert find_circuits(load(pair), [1])
    handle = watch(model.h[1].attn.c_proj, lambda module, args: (2 * args[0],))
    with pytest.raises(ValueError, match="a text of one token does not come out as its value"):
        find_circuits(load(pair), [1])
    handle.remove()
    assert find_circuits(load(pair), [1])
