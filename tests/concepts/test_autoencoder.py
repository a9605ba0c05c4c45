import pickle
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from skact import AutoencoderTraining, Source, TokenArray
from skact.concepts._autoencoder import SparseAutoencoder
from skact.concepts._autoencoder_model import Architecture, Autoencoder, _jumprelu, _step
from skact.concepts._autoencoder_training import ScaledRows
from skact.concepts._autoencoder_weights import AutoencoderWeights, encode

pytestmark = pytest.mark.filterwarnings("ignore:the autoencoder did not converge")
ACTIVATIONS = ["relu", "topk", "jumprelu", "afa"]


def planted(n_tokens=4000, n_features=16, n_directions=24, seed=0):
    """Tokens that are sums of a few known directions, far from the origin."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(n_directions, n_features))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    on = rng.random((n_tokens, n_directions)) < 0.08
    tokens = (on * rng.uniform(0.5, 1.5, on.shape)) @ directions
    tokens += 0.01 * rng.normal(size=tokens.shape) + 3
    return directions, tokens.astype(np.float32)


def cosines(directions, vectors):
    """Best cosine of each direction with a vector."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (directions @ vectors.T).max(axis=1)


@pytest.fixture(scope="module")
def fitted():
    """One autoencoder per activation on the planted tokens."""
    directions, tokens = planted()
    methods = {
        name: SparseAutoencoder(
            32,
            name,
            k=4,
            l1=0.15,
            l0=0.03,
            training=AutoencoderTraining(batch_size=128, max_epochs=60),
            random_state=0,
        ).fit(tokens)
        for name in ACTIVATIONS
    }
    return directions, tokens, methods


@pytest.fixture
def ragged(rng):
    return TokenArray.from_list(
        [rng.normal(size=(n, 6)) + 1 for n in rng.integers(1, 9, size=40)],
        source=Source(model="m", block=2),
    )


def nearest_to_norm(pre, decoder, norm):
    """Units of the prefix of the sorted shares whose root sum of squares is nearest to a norm."""
    shares = [max(p, 0) * np.linalg.norm(w) for p, w in zip(pre, decoder, strict=True)]
    order = sorted(range(len(pre)), key=lambda j: -shares[j])
    gaps = [
        abs(np.sqrt(sum(shares[j] ** 2 for j in order[:k])) - norm) for k in range(1, len(pre) + 1)
    ]
    return order[: int(np.argmin(gaps)) + 1]


def slow_encode(method, tokens):
    """The formula of the class, token by token and unit by unit, in float64."""
    out = np.zeros((len(tokens), len(method.concept_vectors_)))
    for i, z in enumerate(np.asarray(tokens, dtype=np.float64)):
        z = z - method.decoder_bias_
        pre = [
            float(z @ method.encoder_[:, j].astype(float)) + float(method.encoder_bias_[j])
            for j in range(out.shape[1])
        ]
        if method.activation == "topk":
            winners = sorted(range(len(pre)), key=lambda j: -pre[j])[: method.k]
        if method.activation == "afa":
            winners = nearest_to_norm(pre, method.concept_vectors_, np.linalg.norm(z))
        for j, p in enumerate(pre):
            if method.activation == "relu":
                out[i, j] = max(p, 0)
            elif method.activation in ("topk", "afa"):
                out[i, j] = max(p, 0) if j in winners else 0
            else:
                out[i, j] = p if p > method.threshold_[j] else 0
    return out


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_transform_is_the_formula(fitted, activation):
    _, tokens, methods = fitted
    method = methods[activation]
    expected = slow_encode(method, tokens[:60])
    scores = method.transform(tokens[:60].astype(np.float64))
    assert scores.dtype == np.float32
    assert (scores > 0).sum() == (expected > 0).sum() > 0
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    rebuilt = np.array([f @ method.concept_vectors_ + method.decoder_bias_ for f in expected])
    np.testing.assert_allclose(method.inverse_transform(scores), rebuilt, rtol=1e-4, atol=1e-5)


def test_no_more_than_k_units_fire_among_equals():
    encoder = np.array([[1.0, 2, 1, 1, 1, -1]], dtype=np.float32)
    weights = AutoencoderWeights(
        encoder, np.zeros(6, np.float32), encoder.T, np.zeros(1, np.float32), "topk", k=3
    )
    scores = encode(np.array([[1.0], [2.0], [-1.0], [0.0]]), weights)
    assert scores.tolist() == [[1, 2, 1, 0, 0, 0], [2, 4, 2, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0] * 6]


def test_each_token_has_as_many_units_as_its_norm_needs(rng):
    # Rows of norms that differ, and tokens of one, two and three directions.
    decoder = np.diag([2.0, 1, 0.5, 1]).astype(np.float32)
    weights = AutoencoderWeights(
        np.linalg.inv(decoder), np.zeros(4, np.float32), decoder, np.full(4, 3.0, np.float32), "afa"
    )
    tokens = np.array([[5.0, 0, 0, 0], [4, 3, 0, 0], [1, 1, 1, 0], [-1, 0, 0, 0], [0] * 4]) + 3
    scores = encode(tokens, weights)
    assert (scores > 0).sum(axis=1).tolist() == [1, 2, 3, 0, 0]
    np.testing.assert_allclose(scores[:3] @ decoder + 3, tokens[:3], atol=1e-6)
    # A bias that lifts every unit: the largest alone has more than the norm, and stays.
    lifted = replace(weights, encoder_bias=np.array([9.0, 8, 7, 6], np.float32))
    assert (encode(tokens[4:], lifted) > 0).sum() == 1
    # The same for tokens and weights of any scale, as training folds one into the weights.
    pre = rng.normal(size=(30, 4)).astype(np.float32)
    apart = replace(weights, decoder_bias=np.zeros(4, np.float32))
    np.testing.assert_allclose(encode(7 * pre, apart), 7 * encode(pre, apart), rtol=1e-5)


# Not "afa": nothing in it asks for few units, and it fires a dozen of 32 on these tokens.
@pytest.mark.parametrize("activation", ACTIVATIONS[:3])
def test_planted_directions_are_found(fitted, activation):
    directions, tokens, methods = fitted
    found = cosines(directions, methods[activation].concept_vectors_)
    assert (found > 0.9).mean() > 0.8
    # The control: directions at the start, and those of the same training on tokens whose
    # features were shuffled one by one, so that no direction is left in them.
    rng = np.random.default_rng(1)
    start = rng.normal(size=(32, 16))
    assert (cosines(directions, start) > 0.9).mean() < 0.1
    shuffled = np.stack([rng.permutation(column) for column in tokens.T], axis=1)
    control = SparseAutoencoder(
        32, activation, k=4, training=AutoencoderTraining(max_epochs=15), random_state=0
    ).fit(shuffled)
    assert (cosines(directions, control.concept_vectors_) > 0.9).mean() < 0.3


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_training_leaves_behind(fitted, activation):
    _, tokens, methods = fitted
    method = methods[activation]
    assert method.loss_curve_[-1] < method.loss_curve_[0] / 2
    assert method.n_iter_ == len(method.loss_curve_) <= 60
    np.testing.assert_allclose(np.linalg.norm(method.concept_vectors_, axis=1), 1, rtol=1e-5)
    scores = method.transform(tokens)
    active = (scores > 0).sum(axis=1)
    assert 0 < active.mean() < (16 if activation == "afa" else 10)
    if activation == "topk":
        assert active.max() == method.k_ == 4
    if activation == "jumprelu":
        assert (method.threshold_ > 0).all()
        # Nothing between 0 and the threshold, which ReLU would let through.
        assert (
            scores[scores > 0] > np.broadcast_to(method.threshold_, scores.shape)[scores > 0]
        ).all()
        relu = np.maximum(
            (tokens - method.decoder_bias_) @ method.encoder_ + method.encoder_bias_, 0
        )
        assert ((relu > 0) & (scores == 0)).any()
    else:
        assert method.threshold_ is None
    assert method.get_feature_names_out()[3] == "sparseautoencoder3"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_reconstruction_score_is_the_explained_variance(fitted, activation):
    _, tokens, methods = fitted
    method = methods[activation]
    rebuilt = method.inverse_transform(method.transform(tokens))
    expected = 1 - ((tokens - rebuilt) ** 2).sum() / ((tokens - tokens.mean(axis=0)) ** 2).sum()
    assert method.reconstruction_score(tokens) == pytest.approx(expected, abs=1e-5)
    assert expected > 0.85


def test_reconstruction_score_of_equal_tokens():
    X = np.ones((5, 3), dtype=np.float32)
    method = SparseAutoencoder(4, training=AutoencoderTraining(max_epochs=1), random_state=0).fit(X)
    assert method.reconstruction_score(X) == 1
    assert method.reconstruction_score(X + 1) == 0


def test_score_does_not_hold_the_activations(fitted):
    _, tokens, methods = fitted
    whole = methods["topk"].reconstruction_score(tokens)
    with sklearn.config_context(working_memory=0):
        assert methods["topk"].reconstruction_score(tokens[:500]) == pytest.approx(whole, abs=0.05)


def slow_relu_training(X, n_concepts, l1, recipe, seed):
    """The recipe for relu in numpy: gradients by hand, Adam from its paper."""
    random = np.random.RandomState(seed)
    D = random.normal(size=(n_concepts, X.shape[1]))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    weights = [D.T.copy(), np.zeros(len(D)), D, np.zeros(X.shape[1])]
    mean = X.mean(axis=0)
    scale = np.sqrt(((X - mean) ** 2).sum(axis=1).mean())
    X = (X - mean) / scale
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    losses, t = [], 0
    for _ in range(recipe.max_epochs):
        order, total = random.permutation(len(X)), 0.0
        for start in range(0, len(X), recipe.batch_size):
            x = X[order[start : start + recipe.batch_size]]
            W, b, D, c = weights
            pre = (x - c) @ W + b
            f = np.maximum(pre, 0)
            residual = x - f @ D - c
            total += (residual**2).sum() + l1 * f.sum()
            to_f = (l1 - 2 * residual @ D.T) * (pre > 0) / len(x)
            to_D = -2 * f.T @ residual / len(x)
            to_D -= (to_D * D).sum(axis=1, keepdims=True) * D
            to_c = -2 * residual.mean(axis=0) - (to_f @ W.T).sum(axis=0)
            gradients = [(x - c).T @ to_f, to_f.sum(axis=0), to_D, to_c]
            t += 1
            for i, g in enumerate(gradients):
                first[i] = 0.9 * first[i] + 0.1 * g
                second[i] = 0.999 * second[i] + 0.001 * g**2
                root = np.sqrt(second[i] / (1 - 0.999**t)) + 1e-8
                weights[i] = weights[i] - recipe.learning_rate * first[i] / (1 - 0.9**t) / root
            weights[2] = weights[2] / np.linalg.norm(weights[2], axis=1, keepdims=True)
        losses.append(total / len(X))
    W, b, D, c = weights
    return W, scale * b, D, scale * c + mean, losses


def test_relu_training_is_the_recipe_in_numpy(rng):
    X = rng.normal(size=(150, 5)) * 4 + 2
    method = SparseAutoencoder(
        7, training=AutoencoderTraining(batch_size=40, max_epochs=4), random_state=3
    ).fit(X)
    W, b, D, c, losses = slow_relu_training(X, 7, method.l1, method.training, 3)
    np.testing.assert_allclose(method.loss_curve_, losses, rtol=1e-4)
    np.testing.assert_allclose(method.encoder_, W, atol=1e-3)
    np.testing.assert_allclose(method.encoder_bias_, b, atol=1e-3)
    np.testing.assert_allclose(method.concept_vectors_, D, atol=1e-3)
    np.testing.assert_allclose(method.decoder_bias_, c, atol=2e-3)


def test_thresholds_learn_by_the_straight_through_estimator(rng):
    pre = rng.normal(size=(50, 4))
    threshold = np.array([0.1, 0.3, 0.5, 0.7])
    weight = rng.normal(size=pre.shape)
    bandwidth = 0.6
    for function, slope in (
        (_jumprelu, lambda theta: -theta / bandwidth),
        (_step, lambda theta: -1 / bandwidth),
    ):
        p = torch.tensor(pre, requires_grad=True)
        theta = torch.tensor(threshold, requires_grad=True)
        out = function(p, theta, bandwidth)
        torch.autograd.backward((out * torch.tensor(weight)).sum() + 0 * p.sum())
        expected = np.zeros(4)
        for i in range(50):
            for j in range(4):
                if abs(pre[i, j] - threshold[j]) < bandwidth / 2:
                    expected[j] += weight[i, j] * slope(threshold[j])
        np.testing.assert_allclose(theta.grad.numpy(), expected)
        assert np.abs(expected).min() > 0
        fires = pre > threshold
        value = pre * fires if function is _jumprelu else fires
        np.testing.assert_array_equal(out.detach().numpy(), value)
        # Pre-activations get the plain gradient, and none through the step.
        to_pre = weight * fires if function is _jumprelu else 0 * weight
        np.testing.assert_allclose(p.grad.numpy(), to_pre)


@pytest.mark.parametrize(("activation", "penalty"), [("relu", "l1"), ("jumprelu", "l0")])
def test_a_larger_penalty_makes_sparser_scores(activation, penalty):
    _, tokens = planted(1500)
    n_active = []
    for weight in (0.0, 0.03, 0.3):
        method = SparseAutoencoder(
            24,
            activation,
            training=AutoencoderTraining(batch_size=64, max_epochs=20),
            random_state=0,
            **{penalty: weight},
        )
        n_active.append((method.fit_transform(tokens) > 0).sum(axis=1).mean())
    assert n_active[0] > 1.2 * n_active[1] > 1.4 * n_active[2] > 0


@pytest.mark.parametrize(
    ("activation", "settings"),
    [
        ("relu", {"l1": 0.3, "training__learning_rate": 0.03}),
        ("topk", {"k": 1}),
        ("jumprelu", {"l0": 0.1, "threshold": 0.5}),
    ],
)
def test_dead_units_come_back_to_life(activation, settings):
    _, tokens = planted(1500)
    # Far more units than directions, under settings that kill many of them.
    without, revived = (
        SparseAutoencoder(
            200, activation, random_state=0,
            training=AutoencoderTraining(resample_dead=every, max_epochs=20, patience=20),
        ).set_params(**settings).fit(tokens)
        for every in (None, 4)
    )  # fmt: skip
    assert without.n_dead_ > 40
    assert revived.n_dead_ < 0.6 * without.n_dead_
    assert revived.loss_curve_[-1] < without.loss_curve_[-1]
    never = (without.transform(tokens) == 0).all(axis=0).sum()
    assert never == pytest.approx(without.n_dead_, abs=8)


def test_nothing_to_restart_at_where_all_is_reconstructed():
    X = np.ones((10, 3))
    method = SparseAutoencoder(
        4, training=AutoencoderTraining(resample_dead=1, max_epochs=3), random_state=0
    ).fit(X)
    assert method.n_dead_ == 4
    np.testing.assert_allclose(np.linalg.norm(method.concept_vectors_, axis=1), 1, rtol=1e-5)


def test_restart_touches_the_given_units_only(rng):
    architecture = Architecture(
        n_concepts=5,
        activation="jumprelu",
        k=2,
        l1=0.1,
        l0=0.1,
        afa=0.1,
        threshold=0.1,
        bandwidth=0.1,
    )
    model = Autoencoder(3, architecture, AutoencoderTraining(0.01), np.random.RandomState(0))
    model.step(torch.tensor(rng.normal(size=(20, 3)), dtype=torch.float32))
    before = [p.detach().clone() for p in model.parameters()]
    moments = {
        name: [model.optimizer.state[p][name].clone() for p in model.parameters()]
        for name in ("exp_avg", "exp_avg_sq")
    }
    units = torch.tensor([1, 4])
    rows = torch.tensor([[0.0, 1.0, 0.0], [0.6, 0.0, 0.8]])
    model.restart(units, rows, 0.5)
    others = [0, 2, 3]
    for p, old in zip(model.parameters(), before, strict=True):
        by_unit, old = (p.T, old.T) if p is model.encoder else (p, old)
        if p is model.decoder_bias:
            assert torch.equal(p, old)
        else:
            assert torch.equal(by_unit[others], old[others])
    for name, old in moments.items():
        for p, was in zip(model.parameters(), old, strict=True):
            now = model.optimizer.state[p][name]
            now, was = (now.T, was.T) if p is model.encoder else (now, was)
            if p is model.decoder_bias:
                assert torch.equal(now, was)
            else:
                assert torch.equal(now[others], was[others])
                assert (now[units] == 0).all()
    assert torch.equal(model.decoder[units], rows)
    assert torch.equal(model.encoder[:, units].T, 0.5 * rows)
    assert (model.encoder_bias[units] == 0).all()
    np.testing.assert_allclose(model.log_threshold[units].detach().exp(), 0.1, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_seed_decides(ragged, activation):
    def fit(seed):
        method = SparseAutoencoder(
            12,
            activation,
            k=3,
            random_state=seed,
            training=AutoencoderTraining(max_epochs=6, resample_dead=2),
        )
        return method.fit(ragged)

    a, b, c = fit(0), fit(0), fit(1)
    for name in ("concept_vectors_", "encoder_", "encoder_bias_", "decoder_bias_", "loss_curve_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert not np.allclose(a.concept_vectors_, c.concept_vectors_)


def test_the_units_of_the_tokens_do_not_matter(ragged):
    def fit(X):
        return SparseAutoencoder(
            8, "jumprelu", training=AutoencoderTraining(max_epochs=5), random_state=0
        ).fit(X)

    X = ragged.flat()
    a, b = fit(X), fit(100 * X + 7)
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-3)
    np.testing.assert_allclose(a.concept_vectors_, b.concept_vectors_, atol=1e-3)
    np.testing.assert_allclose(100 * a.threshold_, b.threshold_, rtol=1e-3)
    scores, other = a.transform(X), b.transform(100 * X + 7)
    np.testing.assert_allclose(100 * scores, other, atol=0.1 * scores.max())
    assert a.reconstruction_score(X) == pytest.approx(b.reconstruction_score(100 * X + 7), abs=1e-3)


def test_early_stopping():
    _, tokens = planted(500)
    method = SparseAutoencoder(
        8, training=AutoencoderTraining(tol=10.0, patience=3), random_state=0
    ).fit(tokens)
    assert method.n_iter_ == 4
    method.set_params(training__tol=0, training__max_epochs=7)
    assert method.fit(tokens).n_iter_ == 7


def test_the_training_is_an_object_with_defaults(ragged):
    short, default = (
        SparseAutoencoder(6, training=training, random_state=0).fit(ragged)
        for training in (AutoencoderTraining(), None)
    )
    np.testing.assert_array_equal(short.encoder_, default.encoder_)
    copied = sklearn.clone(short).set_params(training__max_epochs=2)
    assert copied.get_params()["training__max_epochs"] == 2
    assert short.training.max_epochs == 100
    assert copied.fit(ragged).n_iter_ == 2
    # One call is one epoch, whatever the training says, and leaves it as it is.
    assert copied.partial_fit(ragged).n_iter_ == 3
    assert copied.training.max_epochs == 2


def test_many_small_decreases_are_no_progress():
    _, tokens = planted(500)
    tol, patience, n_stagnant, n_epochs = 0.01, 4, 0, 0
    stopped, endless = (
        SparseAutoencoder(
            8, training=AutoencoderTraining(tol=tol, patience=n, max_epochs=60), random_state=0
        ).fit(tokens)
        for n in (patience, 60)
    )
    curve = endless.loss_curve_
    while n_stagnant < patience:
        n_epochs += 1
        lowest = min(curve[: n_epochs - 1], default=np.inf)
        n_stagnant = 0 if curve[n_epochs - 1] <= lowest - tol else n_stagnant + 1
    assert stopped.n_iter_ == n_epochs < 60
    np.testing.assert_array_equal(stopped.loss_curve_, curve[:n_epochs])
    # The control: together, these epochs did fall by more than tol.
    assert curve[n_epochs - patience - 1] - curve[n_epochs - 1] > tol


def test_forms_of_the_same_tokens(rng):
    stacked = rng.normal(size=(10, 4, 6)).astype(np.float32)
    forms = [stacked, list(stacked), TokenArray.from_list(list(stacked)), torch.tensor(stacked)]
    method = SparseAutoencoder(
        9, "topk", k=2, training=AutoencoderTraining(max_epochs=3), random_state=0
    )
    fits = [method.fit(X).transform(X) for X in forms]
    for scores in fits:
        assert scores.shape == (10, 9)
        np.testing.assert_array_equal(scores.flat(), fits[0].flat())
    rows = method.fit(stacked.reshape(40, 6)).transform(stacked.reshape(40, 6))
    assert isinstance(rows, np.ndarray)
    np.testing.assert_allclose(rows, fits[0].flat(), atol=1e-6)


def test_small_blocks_change_nothing(ragged):
    method = SparseAutoencoder(
        8, "topk", k=3, training=AutoencoderTraining(max_epochs=3), random_state=0
    )
    whole = method.fit(ragged)
    scores, score = whole.transform(ragged), whole.reconstruction_score(ragged)
    with sklearn.config_context(working_memory=0):
        np.testing.assert_allclose(whole.transform(ragged).flat(), scores.flat(), atol=1e-6)
        assert whole.reconstruction_score(ragged) == pytest.approx(score, abs=1e-6)


def test_half_precision_and_any_order_of_samples(ragged):
    half = ragged.map(lambda block: block.astype(np.float16))
    method = SparseAutoencoder(8, training=AutoencoderTraining(max_epochs=3), random_state=0).fit(
        half
    )
    full = SparseAutoencoder(8, training=AutoencoderTraining(max_epochs=3), random_state=0).fit(
        half.map(lambda block: block.astype(np.float32))
    )
    np.testing.assert_array_equal(method.concept_vectors_, full.concept_vectors_)
    assert method.transform(half).dtype == np.float32
    # A view that skips and repeats samples is the same as a copy of it.
    some = ragged[[5, 3, 3, 30, 0]]
    a, b = (
        SparseAutoencoder(8, training=AutoencoderTraining(max_epochs=3), random_state=0).fit(X)
        for X in (some, some.compact())
    )
    np.testing.assert_allclose(a.concept_vectors_, b.concept_vectors_, atol=1e-6)


@pytest.mark.parametrize("held", [True, False])
def test_a_mapped_file_is_read_in_minibatches(tmp_path, rng, monkeypatch, held):
    values = np.memmap(tmp_path / "x", np.float16, "w+", shape=(1000, 6))
    values[:] = rng.normal(size=values.shape)
    X = TokenArray(values, np.arange(0, 1001, 10))[10:90]
    largest = []
    scaled = ScaledRows._scaled

    def watched(self, rows):
        largest.append(len(rows))
        return scaled(self, rows)

    monkeypatch.setattr(ScaledRows, "_scaled", watched)
    method = SparseAutoencoder(
        8, training=AutoencoderTraining(max_epochs=2, batch_size=64), random_state=0
    )
    # 15 KiB, half of 0.03 MiB, are less than all 800 tokens take.
    with sklearn.config_context(working_memory=1 if held else 0.03):
        method.fit(X)
        copied = sklearn.clone(method).fit(X.compact())
    assert max(largest) == (64 if held else 20)
    assert sum(largest) == 2 * 2 * 800
    np.testing.assert_array_equal(method.concept_vectors_, copied.concept_vectors_)


def test_source_and_names(ragged):
    method = SparseAutoencoder(5, training=AutoencoderTraining(max_epochs=1), random_state=0).fit(
        ragged
    )
    scores = method.transform(ragged)
    assert scores.source == Source(model="m", block=2, columns="units")
    assert scores.feature_names == tuple(method.get_feature_names_out())
    rebuilt = method.inverse_transform(scores)
    assert rebuilt.source == Source(model="m", block=2)
    assert rebuilt.shape == ragged.shape
    with pytest.raises(ValueError, match="another block"):
        method.transform(ragged.with_source(Source(model="m", block=3)))


def test_fitted_state_is_numpy(ragged):
    method = SparseAutoencoder(
        5, "jumprelu", training=AutoencoderTraining(max_epochs=1), random_state=0
    ).fit(ragged)
    for name, value in vars(method).items():
        if name.endswith("_"):
            assert isinstance(value, np.ndarray | int | str | Source | type(None)), name
    again = pickle.loads(pickle.dumps(method))
    np.testing.assert_array_equal(again.transform(ragged).flat(), method.transform(ragged).flat())


def test_more_units_than_features_or_tokens(rng):
    X = rng.normal(size=(6, 3))
    method = SparseAutoencoder(50, training=AutoencoderTraining(max_epochs=2), random_state=0).fit(
        X
    )
    assert method.transform(X).shape == (6, 50)
    assert SparseAutoencoder(1, training=AutoencoderTraining(max_epochs=1), random_state=0).fit(
        X
    ).transform(X).shape == (6, 1)


def test_progress_is_shown_when_asked_for(rng, capsys):
    X = rng.normal(size=(20, 3))
    SparseAutoencoder(4, training=AutoencoderTraining(max_epochs=2), random_state=0).fit(X)
    assert capsys.readouterr().err == ""
    SparseAutoencoder(
        4, training=AutoencoderTraining(max_epochs=2, progress=True), random_state=0
    ).fit(X)
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("params", "X", "message"),
    [
        ({"activation": "topk", "k": 64}, None, "k=64 must be less than n_concepts=64"),
        ({"activation": "topk", "k": 9, "n_concepts": 4}, None, "k=9 must be less than"),
        ({"n_concepts": 0}, None, "'n_concepts' parameter"),
        ({"activation": "gelu"}, None, "'activation' parameter"),
        ({"k": 0}, None, "'k' parameter"),
        ({"training": AutoencoderTraining}, None, "'training' parameter of SparseAutoencoder must"),
        ({"l1": -1.0}, None, "'l1' parameter"),
        ({"l0": -1.0}, None, "'l0' parameter"),
        ({"afa": -1.0}, None, "'afa' parameter"),
        ({"threshold": 0.0}, None, "'threshold' parameter"),
        ({"bandwidth": 0.0}, None, "'bandwidth' parameter"),
        ({"training__learning_rate": 0.0}, None, "'learning_rate' parameter of AutoencoderT"),
        ({"training__batch_size": 0}, None, "'batch_size' parameter of AutoencoderT"),
        ({"training__max_epochs": 0}, None, "'max_epochs' parameter of AutoencoderT"),
        ({"training__patience": 0}, None, "'patience' parameter of AutoencoderT"),
        ({"training__resample_dead": 0}, None, "'resample_dead' parameter of AutoencoderT"),
        ({"training__progress": "yes"}, None, "'progress' parameter of AutoencoderT"),
        ({"training__learning_rate": 1e30}, None, "the loss is .* after epoch .*; lower learning"),
        ({}, np.full((4, 2), np.nan), "contains NaN"),
        ({}, np.empty((0, 2)), "0 sample"),
    ],
)
def test_bad_input(params, X, message, rng):
    X = rng.normal(size=(40, 3)) if X is None else X
    with pytest.raises(ValueError, match=message):
        SparseAutoencoder(training=AutoencoderTraining()).set_params(**params).fit(X)


def test_bad_input_after_fit(ragged):
    method = SparseAutoencoder(5, training=AutoencoderTraining(max_epochs=1), random_state=0).fit(
        ragged
    )
    with pytest.raises(ValueError, match="X has 7 features, but SparseAutoencoder is expecting 6"):
        method.transform(np.ones((2, 7)))
    with pytest.raises(ValueError, match="X has 6 features, but SparseAutoencoder is expecting 5"):
        method.inverse_transform(ragged)
    assert method.n_features_in_ == 6


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_battery(activation):
    results = check_estimator(
        SparseAutoencoder(activation=activation, training=AutoencoderTraining(max_epochs=2)),
        on_fail=None,
        on_skip=None,
    )
    count = Counter(result["status"] for result in results)
    assert count["passed"] >= 45
    assert set(count) == {"passed"}, [r for r in results if r["status"] != "passed"]


def test_it_says_that_its_loss_still_falls(rng):
    X = rng.normal(size=(200, 6)).astype(np.float32)

    def fit(**training):
        training = AutoencoderTraining(learning_rate=1e-3, **training)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            method = SparseAutoencoder(8, training=training, random_state=0).fit(X)
        return method, [one for one in caught if one.category is ConvergenceWarning]

    method, (said,) = fit(max_epochs=6, patience=2, tol=0)
    before, after = method.loss_curve_[[3, 5]]
    assert f"from {before:.4g} to {after:.4g} in the last 2 epochs" in str(said.message)
    assert not fit(max_epochs=200, patience=2, tol=1e-2)[1]
    # Where patience has no room, nobody expects it.
    assert not fit(max_epochs=2, patience=2)[1]
