"""One frozen map for arrays and tensors, into which a scaler is folded."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

from skact import (
    Ablation,
    ActivationTransport,
    Addition,
    AffineEdit,
    LinearErasure,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    MinimalNormEdit,
    SparseAutoencoder,
    TokenArray,
    TokenScaler,
    UnitEdit,
)
from skact.concepts import SparseAutoencoder as Autoencoder
from skact.steering import EditMap, Gate

RNG = np.random.default_rng(3)
Y = np.arange(40) % 2
X = TokenArray(
    RNG.normal(size=(160, 6)) * [1, 2, 3, 1, 1, 1]
    + 5
    + np.repeat(Y, 4)[:, None] * [2, 1, 0, 0, 0, 0],
    np.arange(0, 161, 4),
)
SCALER = TokenScaler().fit(X)
SCALED = SCALER.transform(X)
AUTOENCODER = Autoencoder(8, random_state=0)


def gate(method):
    """A detector of scaled tokens that fires on some of them."""
    return make_pipeline(method, MaxToken(0.5)).fit(SCALED, Y)


EDITS = [
    Addition(),
    Addition(unit="raw", strength=-2),
    Addition(gate=gate(LinearSeparator())),
    Addition(gate=gate(MeanPrototype())),
    Ablation(strength=0.5),
    AffineEdit(strength=0.3),
    MinimalNormEdit(),
    MinimalNormEdit(probability=0.1, gate=gate(LinearSeparator())),
    ActivationTransport(),
    ActivationTransport("gaussian", strength=0.5),
    ActivationTransport("mean", within_support=False),
    ActivationTransport("damping"),
    LinearErasure(),
    UnitEdit(AUTOENCODER, column=1),
    UnitEdit(AUTOENCODER, column=2, where="tokens"),
    UnitEdit(SparseAutoencoder(8, "topk", k=3, random_state=0), column=2, where="tokens"),
]


def test_it_is_the_formula_of_the_module():
    """Outside of the bounds a coordinate stays, whatever else would be added to it."""
    R, W = RNG.normal(size=(2, 2, 4))
    s, D, r = RNG.normal(size=(3, 4))
    c, low, high = RNG.normal(size=2), np.full(4, -0.5), np.full(4, 0.8)
    made = EditMap(s, R, c, W, D, low, high, gates=(Gate(r[None], np.array([0.1])),))
    tokens = RNG.normal(size=(50, 4))
    expected = tokens.copy()
    for h, out in zip(tokens, expected, strict=True):
        if r @ h + 0.1 < 0:
            continue
        for j in range(4):
            if low[j] <= h[j] <= high[j]:
                out[j] += s[j] + sum(W[k, j] * (R[k] @ h + c[k]) for k in range(2)) + D[j] * h[j]
    np.testing.assert_allclose(made(tokens), expected)
    twin = made.to(torch.tensor(tokens))
    tensors = torch.tensor(tokens)
    fires = twin.fires(tensors)[:, None]
    moved = torch.where(fires, tensors + twin.change(tensors), tensors)
    np.testing.assert_allclose(moved.numpy(), expected)
    # The control: bounds on D h alone would let the rest through.
    inside = (tokens >= low) & (tokens <= high)
    other = tokens + fires.numpy() * (s + (tokens @ R.T + c) @ W + inside * D * tokens)
    assert not np.allclose(other, expected)


@pytest.mark.filterwarnings("ignore:the autoencoder did not converge")
@pytest.mark.parametrize("edit", EDITS, ids=repr)
def test_what_is_learnt_on_scaled_tokens_acts_rightly_on_raw_ones(edit):
    fitted = edit.fit(SCALED, Y)
    expected = SCALER.inverse_transform(fitted.transform(SCALED)).flat()
    folded = fitted.edit_map().fold(SCALER.mean_, SCALER.scale_)
    np.testing.assert_allclose(folded(X.flat()), expected, atol=1e-9)
    assert np.abs(expected - X.flat()).max() > 1e-3
    # The control: unfolded, it does something else.
    assert np.abs(fitted.edit_map()(X.flat()) - expected).max() > 1e-3
    raw = torch.tensor(X.flat())
    twin = folded.to(raw)
    fires = twin.fires(raw)
    moved = raw + twin.change(raw)
    live = moved if fires is None else torch.where(fires[:, None], moved, raw)
    np.testing.assert_allclose(live.numpy(), expected, atol=1e-9)


@pytest.mark.filterwarnings("ignore:the autoencoder did not converge")
@pytest.mark.parametrize("edit", EDITS, ids=repr)
def test_a_map_is_frozen(edit):
    fitted = edit.fit(SCALED, Y)
    made, function = fitted.edit_map(), fitted.token_function()
    before = made(SCALED.flat())
    fitted.fit(SCALED.with_values(SCALED.flat()[:, ::-1] * [3, 1, 1, 2, 1, 1]), 1 - Y)
    np.testing.assert_array_equal(made(SCALED.flat()), before)
    np.testing.assert_array_equal(function(SCALED.flat()), before)
    assert np.abs(fitted.edit_map()(SCALED.flat()) - before).max() > 1e-6


def test_precision_is_that_of_the_tokens():
    made = Addition([1, 0, 0, 0, 0, 0], unit="raw").fit(X).edit_map()
    for dtype, expected in ((np.float16, np.float32), (np.float32, np.float32), (float, float)):
        assert made(X.flat().astype(dtype)).dtype == expected


def test_of_the_k_largest_the_first_of_equals_fire():
    scores = np.array([[3.0, 3.0, 3.0, 1.0], [0.0, 5.0, 1.0, 4.0], [-1.0, -2.0, -3.0, -4.0]])
    for column in range(4):
        one = Gate(np.eye(4), np.zeros(4), column, closed=False, k=2)
        twin = one.converted(torch.tensor)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :2]
        expected = [column in row and s[column] > 0 for row, s in zip(order, scores, strict=True)]
        assert one.fires(scores).tolist() == expected
        assert twin.fires(torch.tensor(scores)).tolist() == expected


def test_an_edit_of_samples_refuses_single_tokens():
    made = EditMap(np.ones(2), gates=(Gate(np.eye(2), np.zeros(2)),), per_sample=True)
    with pytest.raises(ValueError, match="acts on whole samples"):
        made(np.ones((3, 2)))
