"""A map between spaces is the one of its formula, and carries what was fitted on the other."""

import warnings

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    ActivationSpaceMap,
    DifferenceInMeans,
    MaxToken,
    Monitor,
    Source,
    TokenArray,
    TokenScaler,
)
from tests import tiny_models

OFFSETS = np.arange(0, 241, 4)
A, B = Source("a", block=2), Source("b", block=5)


def pair(rng, noise=0.1, widths=(5, 7)):
    """Tokens of two spaces, the second one a linear map of the first one, and noise."""
    x = rng.normal(size=(240, widths[0])) + 3
    y = x @ rng.normal(size=widths) + noise * rng.normal(size=(240, widths[1])) - 4
    return TokenArray(x, OFFSETS, source=A), TokenArray(y, OFFSETS, source=B)


def test_ridge_is_that_of_scikit_learn(rng):
    X, Y = pair(rng)
    space = ActivationSpaceMap(alpha=0.3).fit(X, Y)
    x = X.flat()
    penalty = 0.3 * ((x - x.mean(axis=0)) ** 2).sum() / 5
    slow = Ridge(penalty).fit(x, Y.flat())
    np.testing.assert_allclose(space.matrix_, slow.coef_, rtol=1e-9)
    np.testing.assert_allclose(space.intercept_, slow.intercept_, rtol=1e-9)
    np.testing.assert_allclose(space.transform(X).flat(), slow.predict(x), rtol=1e-9)
    assert space.transform(X).source == B
    matrix, offset = space.affine_map()
    np.testing.assert_allclose(x @ matrix.T + offset, slow.predict(x))


def test_procrustes_is_that_of_scipy_times_the_best_scale(rng):
    X, Y = pair(rng, widths=(6, 6))
    space = ActivationSpaceMap("procrustes").fit(X, Y)
    x, y = (one.flat() - one.flat().mean(axis=0) for one in (X, Y))
    turn, total = orthogonal_procrustes(x, y)
    np.testing.assert_allclose(space.matrix_, total / (x**2).sum() * turn.T, rtol=1e-9)
    gram = space.matrix_ @ space.matrix_.T
    np.testing.assert_allclose(gram, gram[0, 0] * np.eye(6), atol=1e-12)
    for scale in 0.9, 1.1:  # the best one
        assert ((y - x @ space.matrix_.T) ** 2).sum() < (
            (y - scale * x @ space.matrix_.T) ** 2
        ).sum()


def test_a_turned_space_is_found_and_angles_stay(rng):
    x = rng.normal(size=(240, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    space = ActivationSpaceMap("procrustes").fit(x, 2.5 * x @ turn.T + 1)
    np.testing.assert_allclose(space.matrix_, 2.5 * turn, atol=1e-9)
    assert space.explained_ == pytest.approx(1)
    vectors = rng.normal(size=(3, 5))
    np.testing.assert_allclose(space.carry_vectors(vectors), 2.5 * vectors @ turn.T, atol=1e-9)


def test_singular_and_constant_tokens_have_a_map(rng):
    x = np.repeat(rng.normal(size=(50, 2)), 2, axis=1)
    y = x[:, :1] * [[1.0, -2.0]]
    space = ActivationSpaceMap(alpha=0).fit(x, y)
    np.testing.assert_allclose(space.transform(x), y, atol=1e-9)
    assert np.isfinite(ActivationSpaceMap().fit(np.ones((9, 3)), y[:9]).matrix_).all()
    assert ActivationSpaceMap("procrustes").fit(np.ones((9, 3)), y[:9]).matrix_.shape == (2, 3)


def test_rows_and_columns_of_samples_are_kept(rng):
    X, Y = pair(rng)
    grids = TokenArray(X.values, OFFSETS, shapes=np.tile([[2, 2]], (60, 1)))
    space = ActivationSpaceMap().fit(grids, Y)
    np.testing.assert_array_equal(space.transform(grids[[4, 7]]).shapes, [[2, 2]] * 2)


def test_half_precision_and_pieces_give_the_same(rng):
    X, Y = pair(rng)
    import sklearn

    whole = ActivationSpaceMap().fit(X, Y)
    with sklearn.config_context(working_memory=1e-3):
        pieces = ActivationSpaceMap().fit(X, Y)
    np.testing.assert_allclose(pieces.matrix_, whole.matrix_, rtol=1e-9)
    order = rng.permutation(60)
    np.testing.assert_allclose(ActivationSpaceMap().fit(X[order], Y[order]).matrix_, whole.matrix_)
    half = ActivationSpaceMap().fit(X.map(np.float16), Y.map(np.float16))
    np.testing.assert_allclose(half.matrix_, whole.matrix_, atol=0.02)


@pytest.mark.parametrize("n_tokens", [240, 8])
def test_explained_is_corrected_where_there_are_tokens_enough(rng, n_tokens):
    X, Y = (one.flat()[:n_tokens] for one in pair(rng, noise=2.0))
    space = ActivationSpaceMap(alpha=0.3).fit(X, Y)
    x, y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    share = 1 - ((Y - space.transform(X)) ** 2).sum() / (y**2).sum()
    penalty = 0.3 * (x**2).sum() / 5
    hat = x @ np.linalg.inv(x.T @ x + penalty * np.eye(5)) @ x.T
    freedom = np.trace(hat)
    corrected = 1 - (1 - share) * (n_tokens - 1) / (n_tokens - freedom - 1)
    assert (n_tokens > 2 * freedom + 2) == (n_tokens == 240)
    assert space.explained_ == pytest.approx(corrected if n_tokens == 240 else share)
    assert abs(share - corrected) > 1e-3


def test_explained_is_what_other_tokens_show(rng):
    X, Y = pair(rng, noise=2.0)
    space = ActivationSpaceMap().fit(X[:30], Y[:30])
    assert space.explained_ == pytest.approx(space.score(X[30:], Y[30:]), abs=0.1)
    left, there = X[30:], Y[30:].flat()
    missed = ((there - space.transform(left).flat()) ** 2).sum()
    total = ((there - there.mean(axis=0)) ** 2).sum()
    assert space.score(left, Y[30:]) == pytest.approx(1 - missed / total)


@pytest.mark.parametrize("method", ["ridge", "procrustes"])
def test_samples_in_another_order_are_warned_of(method, rng):
    X, Y = pair(rng)
    with pytest.warns(UserWarning, match="may not be in the same order") as told:
        ActivationSpaceMap(method).fit(X, Y[rng.permutation(60)])
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ActivationSpaceMap(method).fit(X, Y)


def labelled(rng):
    """Tokens of two spaces and whose first samples hold a concept."""
    X, Y = pair(rng, noise=0.01, widths=(6, 6))
    y = np.arange(60) % 2
    shift = np.repeat(y, 4)[:, None] * np.eye(6)[:1] * 4
    matrix = ActivationSpaceMap(alpha=0).fit(X, Y).matrix_
    moved = X.with_values(X.values + shift, source=A)
    return moved, Y.with_values(Y.values + shift @ matrix.T, source=B), y


def test_a_detector_is_carried_as_it_is(rng, tmp_path):
    X, Y, y = labelled(rng)
    line = make_pipeline(TokenScaler(), DifferenceInMeans(), MaxToken()).fit(Y, y)
    space = ActivationSpaceMap(alpha=1e-6).fit(X, Y)
    carried = space.carry(line)
    expected = line.decision_function(space.transform(X))
    np.testing.assert_allclose(carried.decision_function(X), expected)
    assert (carried.predict(X) == line.predict(Y)).mean() > 0.95
    with pytest.raises(ValueError, match="another model"):
        carried.predict(Y)
    skact.save(carried, tmp_path / "carried.safetensors")
    again = skact.load(tmp_path / "carried.safetensors")
    np.testing.assert_array_equal(again.decision_function(X), carried.decision_function(X))
    monitor = Monitor(carried)
    monitor.update(X[0])
    decision = carried.decision_function(X[:1])
    np.testing.assert_allclose(monitor.state.decision, decision, rtol=1e-4)


def test_a_carried_monitor_is_exported(rng, tmp_path):
    X, Y, y = labelled(rng)
    line = make_pipeline(TokenScaler(), DifferenceInMeans(), MaxToken()).fit(Y, y)
    Monitor(ActivationSpaceMap().fit(X, Y).carry(line)).export(tmp_path / "probe")


def test_vectors_of_a_method_are_carried(rng):
    X, Y, y = labelled(rng)
    method = DifferenceInMeans().fit(X, y)
    space = ActivationSpaceMap().fit(X, Y)
    np.testing.assert_allclose(
        space.carry_vectors(method), method.concept_vectors_ @ space.matrix_.T
    )
    there = DifferenceInMeans().fit(Y, y).concept_vectors_[0]
    carried = space.carry_vectors(method)[0]
    assert carried @ there > 0.98 * np.linalg.norm(carried) * np.linalg.norm(there)


def test_layers_of_a_model_are_mapped():
    texts = ["the happy cat sat", "not happy at all", "the angry thing sat there"] * 4
    embedder = skact.TransformerEmbedder(tiny_models.text_pair("bert"), layer=[0, 1])
    stack = embedder.transform(texts)
    space = ActivationSpaceMap().fit(stack.layer(0), stack.layer(1))
    assert space.transform(stack.layer(0)).source == stack.layer(1).source
    method = DifferenceInMeans().fit(stack.layer(1), [1, 0, 0] * 4)
    with pytest.raises(ValueError, match="another block than X of this map"):
        space.carry_vectors(method)
    line = make_pipeline(embedder, DifferenceInMeans(), MaxToken())
    with pytest.raises(TypeError, match="reads raw samples"):
        space.carry(line)


BAD = [
    (lambda X, Y: (X, Y[:5]), "same samples, got 60 and 5"),
    (lambda X, Y: (X, TokenArray(Y.values, [0, 1, *range(8, 241, 4), 240][:61])), "same tokens"),
    (lambda X, Y: (X, None), "the target y is None"),
    (lambda X, Y: (X, ["a"] * 60), "y must"),
    (lambda X, Y: (X, Y.with_values(np.full((240, 2), np.nan))), "y must be tokens.*NaN"),
    (lambda X, Y: (X, np.ones((3, 2))), "same samples"),
    (lambda X, Y: (X, 5), "y must be tokens"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_does_not_belong_together(change, message, rng):
    X, Y = change(*pair(rng))
    with pytest.raises(ValueError, match=message):
        ActivationSpaceMap().fit(X, Y)


def test_what_cannot_be_carried(rng):
    X, Y = pair(rng)
    space = ActivationSpaceMap().fit(X, Y)
    y = np.arange(60) % 2
    for bad, error, message in [
        (DifferenceInMeans().fit(X, y), ValueError, "5 features, and this map gives 7"),
        (DifferenceInMeans(), NotFittedError, "not fitted"),
        ("a", TypeError, "must be a fitted estimator"),
        (None, TypeError, "must be a fitted estimator"),
        (
            DifferenceInMeans().fit(Y.with_source(Source("c")), y),
            ValueError,
            "another model than y of this map",
        ),
    ]:
        with pytest.raises(error, match=message):
            space.carry(bad)
    for bad, message in [
        (np.ones((2, 7)), r"shape \(n_vectors, 5\)"),
        (np.ones(5), r"shape \(n_vectors, 5\)"),
        (np.full((1, 5), np.nan), "vectors must be finite"),
        (np.ones((0, 5)), "one or more"),
        (DifferenceInMeans().fit(Y, y), "another model than X"),
    ]:
        with pytest.raises(ValueError, match=message):
            space.carry_vectors(bad)
    with pytest.raises(ValueError, match="y has 5 features, in fit it had 7"):
        space.score(X, X)
    with pytest.raises(NotFittedError):
        ActivationSpaceMap().carry_vectors(np.ones((1, 5)))


def test_one_token_is_no_map(rng):
    with pytest.raises(ValueError, match=r"X has 1 sample of 1 token; .* at least two"):
        ActivationSpaceMap().fit(rng.normal(size=(1, 3)), rng.normal(size=(1, 2)))
    with pytest.raises(ValueError, match=r"space: y contains NaN"):
        ActivationSpaceMap().fit(rng.normal(size=(4, 3)), np.full((4, 2), np.nan))
