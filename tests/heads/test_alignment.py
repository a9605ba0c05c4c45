"""alpha and beta equal their formulas, and heads that are built aligned are found."""

import copy
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skact import (
    LayerStack,
    MeanPrototype,
    TokenScaler,
    TransformerEmbedder,
    gap_growth,
    head_alignment,
)
from skact.models import find_circuits, load
from tests import tiny_models

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((3, 32))
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
FAMILIES = ("llama", "gpt2", "bert", "vit", "dinov2")


def pair_of(kind):
    is_image = kind in tiny_models.IMAGE
    return (tiny_models.image_pair if is_image else tiny_models.text_pair)(kind)


def weights_of(kind, model, block):
    """W_Q, W_K, W_V of shape (n_out, n_in), W_O, the gain, and whether the mean goes, by hand."""
    get = lambda one: one.detach().double().numpy()  # noqa: E731
    if kind == "llama":
        layer = model.layers[block]
        names, norm = "q_proj k_proj v_proj o_proj", layer.input_layernorm
        return *(get(getattr(layer.self_attn, n).weight) for n in names.split()), norm, False
    if kind == "gpt2":
        layer = model.h[block]
        fused = get(layer.attn.c_attn.weight).T
        return *np.split(fused, 3), get(layer.attn.c_proj.weight).T, layer.ln_1, True
    if kind == "bert":
        layer = model.encoder.layer[block].attention
        asked = [get(getattr(layer.self, n).weight) for n in ("query", "key", "value")]
        return *asked, get(layer.output.dense.weight), None, False
    blocks = load(pair_of(kind)).blocks
    layer = blocks[block]
    norm = "layernorm_before" if kind == "vit" else "norm1"
    asked = [get(projection.weight) for projection in tiny_models.projections(layer.attention)]
    if kind == "dinov2":
        asked[3] = asked[3] * get(layer.layer_scale1.lambda1)[:, None]
    return *asked, getattr(layer, norm), True


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_formulas_hold_head_by_head(kind):
    pair = pair_of(kind)
    found = head_alignment(pair, VECTORS, layer=[1, 3], n_random=10, random_state=0)
    assert (found.layers, found.heads) == ([1, 3], [0, 1, 2, 3])
    assert found.concepts == ["concept0", "concept1", "concept2"]
    drawn = np.random.RandomState(0).standard_normal((10, 32))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    for place, block in enumerate(found.layers):
        query, key, value, output, norm, centred = weights_of(kind, pair[0], block)
        gain = np.eye(32)
        if norm is not None:
            gain = np.diag(norm.weight.detach().double().numpy())
        if centred:
            gain = gain @ (np.eye(32) - np.full((32, 32), 1 / 32))
        for h in range(4):
            g = h // (4 // (len(key) // 8))
            mine, shared = slice(8 * h, 8 * h + 8), slice(8 * g, 8 * g + 8)
            asks = (query[mine] @ gain).T @ (key[shared] @ gain)
            copies = output[:, mine] @ (value[shared] @ gain)
            for c, v in enumerate(UNIT):
                at = place, h, c
                assert found.alpha[at] == pytest.approx(v @ asks @ v, rel=1e-4, abs=1e-5)
                assert found.beta[at] == pytest.approx(v @ copies @ v, rel=1e-4, abs=1e-5)
                share = v @ asks @ v / np.linalg.norm(asks)
                assert found.alpha_share[at] == pytest.approx(share, rel=1e-3, abs=1e-6)
                share = v @ copies @ v / np.linalg.norm(copies)
                assert found.beta_share[at] == pytest.approx(share, rel=1e-3, abs=1e-6)
                others = np.array([(u @ asks @ u, u @ copies @ u) for u in drawn])
                own = np.array([v @ asks @ v, v @ copies @ v])
                as_much = np.abs(others) >= np.abs(own)
                assert found.alpha_p[at] == (1 + as_much[:, 0].sum()) / 11
                assert found.beta_p[at] == (1 + as_much[:, 1].sum()) / 11
                assert found.gain_p[at] == (1 + (others.prod(axis=1) >= own.prod()).sum()) / 11
    np.testing.assert_allclose(found.gain, found.alpha * found.beta / np.sqrt(8))


def aligned(pair, block, head, v, alpha, beta):
    """Make one head of a GPT-2 look along a direction and write along it, and nothing else."""
    model = copy.deepcopy(pair[0])
    attention = model.h[block].attn
    v, columns = torch.from_numpy(v).float(), slice(8 * head, 8 * head + 8)
    with torch.no_grad():
        model.h[block].ln_1.weight.fill_(1)
        for part in range(3):
            fused = attention.c_attn.weight[:, 32 * part + 8 * head :][:, :8]
            fused.zero_()
            fused[:, 0] = v * (alpha**0.5 if part < 2 else beta)
        attention.c_proj.weight[columns] = 0
        attention.c_proj.weight[columns.start] = v
    return model, pair[1]


def test_a_head_that_is_aligned_is_found():
    v = RNG.standard_normal(32)
    v -= v.mean()  # what a LayerNorm takes away is no concept
    v /= np.linalg.norm(v)
    others = RNG.standard_normal((2, 32))
    pair = aligned(pair_of("gpt2"), 2, 1, v, alpha=9.0, beta=2.0)
    found = head_alignment(pair, [v, *others], layer=2, n_random=500, random_state=0)
    assert found.alpha[0, 1, 0] == pytest.approx(9, rel=1e-4)
    assert found.beta[0, 1, 0] == pytest.approx(2, rel=1e-4)
    assert found.alpha_share[0, 1, 0] == pytest.approx(1, rel=1e-4)
    assert found.beta_share[0, 1, 0] == pytest.approx(1, rel=1e-4)
    p = found.gain_p[0]
    assert p[1, 0] == 1 / 501 == p.min()
    assert (p[[0, 2, 3]] > 1 / 501).any()
    assert np.abs(found.alpha_share[0, [0, 2, 3]]).max() < 0.5


def test_random_directions_are_no_rarer_than_they_should_be():
    vectors = RNG.standard_normal((400, 32))
    found = head_alignment(pair_of("bert"), vectors, layer=[0, 1], n_random=400, random_state=1)
    for name in ("alpha_p", "beta_p", "gain_p"):
        share = (found[name] <= 0.1).mean(axis=(0, 1))
        assert share.mean() == pytest.approx(0.1, abs=0.03)


def test_biases_are_reported():
    pair = copy.deepcopy(pair_of("gpt2"))
    with torch.no_grad():
        for layer in pair[0].h:
            layer.attn.c_attn.bias.normal_()
            layer.attn.c_proj.bias.normal_()
            layer.ln_1.bias.normal_()
    found = head_alignment(pair, VECTORS, layer=1, n_random=5)
    (made,) = find_circuits(load(pair), [1])
    mine = slice(8, 16)
    query, value = made.query_bias[mine], made.value_bias[mine]
    np.testing.assert_allclose(found.alpha_bias[0, 1], UNIT @ made.key[mine].T @ query)
    np.testing.assert_allclose(found.beta_bias[0, 1], UNIT @ made.output[:, mine] @ value)
    bias = pair[0].h[1].attn.c_proj.bias.detach().numpy()
    np.testing.assert_allclose(found.bias[0], UNIT @ bias, rtol=1e-5)
    assert np.abs(found.alpha_bias).min() > 0


def fitted_on(kind, texts, scaled=False, **options):
    tokens = TransformerEmbedder(pair_of(kind), **{"layer": 1, **options}).transform(texts)
    if scaled:
        tokens = TokenScaler().fit_transform(tokens)
    return MeanPrototype().fit(tokens, np.eye(5, 2, dtype=int))


def test_a_method_of_other_tokens_is_refused(texts):
    pair = pair_of("llama")
    stack = TransformerEmbedder(pair, layer=[1, 2]).transform(texts[2:])
    for method, message in (
        (fitted_on("gpt2", texts), "vectors were fitted on another model: on"),
        (fitted_on("llama", texts, site="heads"), "vectors were fitted on another site: on"),
        (fitted_on("llama", texts, scaled=True), "vectors were fitted on scaled tokens"),
        (FrozenEstimator(fitted_on("gpt2", texts)), "vectors were fitted on another model"),
    ):
        with pytest.raises(ValueError, match=message):
            head_alignment(pair, method, layer=2)
        for given in method, {2: method}:
            with pytest.raises(ValueError, match=message):
                gap_growth(stack, given, pair)
    with pytest.raises(NotFittedError):
        head_alignment(pair, MeanPrototype())
    with pytest.raises(NotFittedError):
        gap_growth(stack, MeanPrototype(), pair)


def test_other_blocks_are_warned_of_once(texts):
    pair, method = pair_of("llama"), fitted_on("llama", texts)
    stack = TransformerEmbedder(pair, layer=[0, 1, 2, 3]).transform(texts[2:])
    with pytest.warns(UserWarning, match=r"of 2 of 3 blocks, \[1, 3\], .* block 1 on .* block 1,"):
        head_alignment(pair, method, layer=[1, 2, 3], n_random=5)
    with pytest.warns(UserWarning, match=r"of 2 of 3 blocks, \[1, 3\]") as caught:
        gap_growth(stack, method, pair, n_resamples=5)
    assert len(caught) == 1
    two = stack.layer(1), stack.layer(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head_alignment(pair, method, layer=2, n_random=5)
        head_alignment(pair, method.concept_vectors_, n_random=5)
        gap_growth(LayerStack(dict(zip((1, 2), two, strict=True))), method, pair, n_resamples=5)
        own = {b: fitted_on("llama", texts, layer=b - 1) for b in (1, 2, 3)}
        gap_growth(stack, own, pair, n_resamples=5)


def test_a_fitted_method_names_its_concepts(texts):
    reader = TransformerEmbedder(pair_of("llama"), layer=1)
    method = MeanPrototype().fit(reader.transform(texts), np.eye(5, 2, dtype=int))
    found = head_alignment(reader, method, layer=2, n_random=5)
    assert found.concepts == method.concept_names_.tolist()
    again = head_alignment(reader, 3 * method.concept_vectors_, layer=-2, n_random=5)
    np.testing.assert_allclose(found.alpha, again.alpha)


@pytest.mark.parametrize(
    ("vectors", "options", "message"),
    [
        (np.ones((2, 31)), {}, r"vectors must be of shape \(n_concepts, 32\).*got \(2, 31\)"),
        (np.ones((1, 1, 32)), {}, "vectors must be of shape"),
        (np.zeros((2, 32)), {}, r"vectors\[0\] must be finite and not 0"),
        (np.full((2, 32), np.nan), {}, r"vectors\[0\] must be finite"),
        ("x", {}, "vectors must be an array of numbers"),
        (VECTORS, {"layer": 4}, "layer 4 does not exist"),
        (VECTORS, {"n_random": 0}, "'n_random' parameter"),
    ],
)
def test_bad_vectors_are_refused(vectors, options, message):
    with pytest.raises(ValueError, match=message):
        head_alignment(pair_of("bert"), vectors, **options)
