"""Predicted growth is the theory's, and comes true where a head does nothing else."""

import copy

import numpy as np
import pytest
import torch

from skact import LayerStack, Source, TokenArray, TransformerEmbedder, gap_growth, head_alignment
from skact.heads._growth import looked_at
from tests import tiny_models
from tests.heads.test_alignment import aligned

RNG = np.random.default_rng(0)
TEXTS = ["the happy cat sat", "not happy, not at all", "angry thing and the cat", "a b c d e f g"]


def slow_means(a, kappa, is_causal):
    """Softmax means, written out."""
    out = np.empty_like(a)
    for i in range(len(a)):
        seen = a[: i + 1] if is_causal else a
        weights = np.exp(kappa * a[i] * seen)
        out[i] = (weights * seen).sum() / weights.sum()
    return out


@pytest.mark.parametrize("is_causal", [True, False])
def test_means_are_those_of_the_softmax(is_causal, monkeypatch):
    a, kappa = RNG.standard_normal((7, 3)), RNG.standard_normal((2, 3))
    for room in (2**22, 50):  # in one piece, and in several
        monkeypatch.setattr("skact.heads._growth._ROOM", room)
        found = looked_at(a, kappa, is_causal)
        for h in range(2):
            for c in range(3):
                expected = slow_means(a[:, c], kappa[h, c], is_causal)
                np.testing.assert_allclose(found[h, :, c], expected)


def lonely(v, alpha, beta):
    """Build a GPT-2 whose block 2 holds one aligned head and nothing else, not even biases."""
    pair = aligned(tiny_models.text_pair("gpt2"), 2, 1, v, alpha, beta)
    layer = pair[0].h[2]
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            if name.endswith("bias") or name == "mlp.c_proj.weight":
                weight.zero_()
        for head in (0, 2, 3):
            layer.attn.c_proj.weight[8 * head : 8 * head + 8] = 0
    return pair


@pytest.fixture
def v():
    v = RNG.standard_normal(32)
    v -= v.mean()
    return v / np.linalg.norm(v)


def test_growth_is_as_predicted_where_the_head_is_alone(v):
    pair = lonely(v, alpha=6.0, beta=3.0)
    X = TransformerEmbedder(pair, layer=[1, 2], sink=None).transform(TEXTS)
    found = gap_growth(X, v, pair, n_resamples=200, random_state=0)
    assert found.layers == [2]
    np.testing.assert_allclose(found.measured, found.predicted, rtol=1e-4)
    assert found.measured[0, 0] > 1.05
    assert found.measured_low[0, 0] < found.measured[0, 0] < found.measured_high[0, 0]
    # A head that writes against the direction closes gaps.
    pair = lonely(v, alpha=6.0, beta=-1.0)
    X = TransformerEmbedder(pair, layer=[1, 2], sink=None).transform(TEXTS)
    closed = gap_growth(X, v, pair, n_resamples=5)
    np.testing.assert_allclose(closed.measured, closed.predicted, rtol=1e-4)
    assert closed.measured[0, 0] < 1


def test_it_is_the_mean_over_pairs_of_the_formula(v):
    """Written again from 1 + beta kappa Vbar, with Vbar an integral of variances."""
    pair = lonely(v, alpha=6.0, beta=3.0)
    # Without sizes of tokens, which the formula does not know: the size is the same for all.
    X = TransformerEmbedder(pair, layer=[1, 2], sink=None).transform(TEXTS[:1])
    tokens = X.layer(1)[0].astype(np.float64)
    tokens -= tokens.mean(axis=1, keepdims=True)
    tokens /= np.sqrt(np.square(tokens).mean(axis=1, keepdims=True))
    stack = LayerStack({b: TokenArray(tokens, [0, len(tokens)]) for b in (1, 2)})
    found = gap_growth(stack, v, pair, n_resamples=5)
    a, kappa = tokens @ v, 6.0 / np.sqrt(8)

    def gain(i, j):
        steps = (np.arange(2000) + 0.5) / 2000
        variances = []
        for x in a[j] + steps * (a[i] - a[j]):
            p = np.exp(kappa * x * a)
            p /= p.sum()
            variances.append(p @ a**2 - (p @ a) ** 2)
        return 1 + 3.0 * kappa * np.mean(variances)

    pairs = [(i, j) for i in range(len(a)) for j in range(i)]
    squares = np.array([(a[i] - a[j]) ** 2 for i, j in pairs])
    gains = np.array([gain(i, j) for i, j in pairs])
    expected = (squares @ gains) / squares.sum()
    causal = found.predicted[0, 0]
    # The formula's tokens all see the same ones; a causal model's do not.
    assert causal != pytest.approx(expected, rel=1e-3)
    everyone = looked_at(a[:, None], np.array([[kappa]]), False)[0, :, 0]
    centred = a - a.mean()
    assert 1 + 3 * (centred @ everyone) / (centred @ a) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["llama", "bert", "dinov2"])
def test_slopes_are_within_samples(kind, images):
    is_image = kind in tiny_models.IMAGE
    pair = (tiny_models.image_pair if is_image else tiny_models.text_pair)(kind)
    samples, vectors = images if is_image else TEXTS, RNG.standard_normal((2, 32))
    X = TransformerEmbedder(pair, layer=[0, 1, 3]).transform(samples)
    a = TransformerEmbedder(pair, layer=[1], site="attention").transform(samples)
    found = gap_growth(X, vectors, pair, n_resamples=5)
    behind = gap_growth(X, vectors, pair, added=a, n_resamples=5)
    assert found.layers == behind.layers == [1]
    np.testing.assert_array_equal(found.predicted, behind.predicted)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for result, after in (
        (found, lambda i: X.layer(1)[i]),
        (behind, lambda i: X.layer(0)[i] + a.layer(1)[i]),
    ):
        for c in range(2):
            gaps, later = [], []
            for i in range(len(samples)):
                before, then = X.layer(0)[i] @ unit[c], after(i) @ unit[c]
                weight = 1 / len(before) ** 0.5  # a sample of n tokens has n times as many pairs
                gaps.append(weight * (before[:, None] - before).ravel())
                later.append(weight * (then[:, None] - then).ravel())
            gaps, later = np.concatenate(gaps), np.concatenate(later)
            slope = (gaps @ later) / (gaps @ gaps)
            assert result.measured[0, c] == pytest.approx(slope, rel=1e-3)


def test_each_block_may_have_vectors_of_its_own_and_correlation_has_an_interval():
    pair = tiny_models.text_pair("llama")
    X = TransformerEmbedder(pair, layer=[0, 1, 2]).transform(TEXTS)
    vectors = RNG.standard_normal((2, 32))
    one = gap_growth(X, vectors, pair, n_resamples=50, random_state=0)
    two = gap_growth(X, {1: vectors, 2: vectors}, pair, n_resamples=50, random_state=0)
    np.testing.assert_array_equal(one.measured, two.measured)
    assert one.layers == [1, 2]
    flat = np.corrcoef(one.measured.ravel(), one.predicted.ravel())[0, 1]
    assert one.correlation == pytest.approx(flat)
    assert one.correlation_low <= one.correlation_high
    assert len(head_alignment(pair, vectors, layer=one.layers, n_random=5).layers) == 2
    alone = gap_growth(X, vectors[:1], pair, n_resamples=5)
    assert -1 <= alone.correlation <= 1
    single = gap_growth(LayerStack({b: X.layer(b) for b in (0, 1)}), vectors[:1], pair)
    assert np.isnan(single.correlation)


def stack_of(blocks=(0, 1), lengths=(3, 3), width=32, **source):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.ones((offsets[-1], width), np.float32)
    return LayerStack(
        {b: TokenArray(values, offsets, source=Source(block=b, **source)) for b in blocks}
    )


@pytest.mark.parametrize(
    ("X", "vectors", "options", "message"),
    [
        (stack_of((0, 2)), np.ones(32), {}, r"two blocks that follow each other, got .*\[0, 2\]"),
        (stack_of((3, 4)), np.ones(32), {}, "X holds block 4, and the model has 4"),
        (stack_of(width=31), np.ones(32), {}, "the 32 features of the stream"),
        (stack_of(lengths=(3, 1)), np.ones(32), {}, "two tokens or more .* sample 1 has one"),
        (stack_of(site="mlp"), np.ones(32), {}, 'X must be read with site="residual"'),
        (stack_of(model="m", revision="r"), np.ones(32), {}, "comes from another model"),
        (stack_of(), np.ones(31), {}, "vectors must be of shape"),
        (stack_of(), {0: np.ones(32)}, {}, r"vectors lacks block 1, got those of \[0\]"),
        (
            stack_of(),
            np.ones(32),
            {"added": stack_of(site="mlp")},
            'added must be read with site="att',
        ),
        (stack_of(), np.ones(32), {"added": stack_of((0,))}, r"added lacks the blocks \[1\]"),
        (stack_of(), np.ones(32), {"added": stack_of(lengths=(2, 4))}, "the same samples as X"),
        (np.ones((2, 32)), np.ones(32), {}, "'X' parameter of gap_growth must be"),
    ],
)
def test_what_does_not_fit_is_refused(X, vectors, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        gap_growth(X, vectors, copy.copy(tiny_models.text_pair("llama")), **options)
