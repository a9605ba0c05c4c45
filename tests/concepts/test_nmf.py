import warnings
from collections import Counter

import numpy as np
import pytest
import sklearn
from scipy.optimize import nnls
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from skact import TokenArray
from skact.concepts import _factorise, _nmf
from skact.concepts._factorise import first_parts, some_tokens
from skact.concepts._lloyd import kmeans
from skact.concepts._nmf import NMFConcepts, SemiNMFConcepts
from skact.tokens import Source

METHODS = [NMFConcepts, SemiNMFConcepts]


@pytest.fixture
def tokens(rng):
    """Ragged non-negative tokens that are sums of four parts, and a little noise."""
    parts = rng.random((4, 7)) * (rng.random((4, 7)) < 0.5) + np.eye(4, 7)
    lengths = rng.integers(1, 8, size=50)
    return TokenArray.from_list(
        [
            rng.random((n, 4)) * (rng.random((n, 4)) < 0.5) @ parts + 0.05 * rng.random((n, 7))
            for n in lengths
        ]
    )


@pytest.fixture
def signed(rng, tokens):
    """The same in a space where parts have entries of both signs."""
    turn = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    return tokens.map(lambda x: x @ turn)


def data(Method, tokens, signed):
    return tokens if Method is NMFConcepts else signed


def test_nmf_is_that_of_scikit_learn(tokens):
    method = NMFConcepts(4, max_iter=2000, random_state=0).fit(tokens)
    expected = NMF(4, max_iter=2000, random_state=0).fit(tokens.flat())
    np.testing.assert_allclose(method.concept_vectors_, expected.components_)
    assert method.reconstruction_err_ == pytest.approx(expected.reconstruction_err_)
    assert method.n_iter_ == expected.n_iter_
    expected.set_params(tol=1e-12, max_iter=100_000)
    np.testing.assert_allclose(
        method.transform(tokens).flat(), expected.transform(tokens.flat()), atol=1e-5
    )


def slow_semi_nmf(X, H, n_iter):
    """Coordinate descent on W, entry by entry, and least squares for H."""
    W, losses = np.zeros((len(X), len(H))), []
    for _ in range(n_iter):
        for _ in range(3):
            for i in range(len(X)):
                for k in range(len(H)):
                    others = [j for j in range(len(H)) if j != k]
                    rest = X[i] - sum(W[i, j] * H[j] for j in others)
                    W[i, k] = max(0, rest @ H[k] / (H[k] @ H[k]))
        H = np.linalg.lstsq(W, X, rcond=None)[0]
        losses.append(((X - W @ H) ** 2).sum())
    return H, losses


def multiplicative_losses(X, W, n_iter):
    """Losses of the update rules of the source, which move all entries of W at once."""
    losses = []
    for _ in range(n_iter):
        H = np.linalg.lstsq(W, X, rcond=None)[0]
        match, gram, new = X @ H.T, H @ H.T, W.copy()
        for i in range(W.shape[0]):
            for k in range(W.shape[1]):
                up, down = max(match[i, k], 0.0), max(-match[i, k], 0.0)
                for j in range(W.shape[1]):
                    up += W[i, j] * max(-gram[j, k], 0.0)
                    down += W[i, j] * max(gram[j, k], 0.0)
                new[i, k] = W[i, k] * np.sqrt(up / down)
        W = new
        H = np.linalg.lstsq(W, X, rcond=None)[0]
        losses.append(((X - W @ H) ** 2).sum())
    return losses


@pytest.mark.parametrize("working_memory", [1024, 0])
@pytest.mark.parametrize("scale", [1, 1e-12, 1e12])
def test_semi_nmf_equals_coordinate_descent_written_slowly(signed, working_memory, scale):
    X = signed.flat()
    with sklearn.config_context(working_memory=working_memory):
        scaled = signed.map(lambda x: x * scale)
        method = SemiNMFConcepts(3, max_iter=6, tol=0, random_state=0).fit(scaled)
    H, losses = slow_semi_nmf(X, first_parts(signed, 3, np.random.RandomState(0)), 6)
    # It starts from k-means, which computes in single precision.
    np.testing.assert_allclose(method.concept_vectors_ / scale, H, atol=2e-6)
    np.testing.assert_allclose(method.loss_curve_ / scale**2, losses, rtol=1e-6)
    assert method.n_iter_ == 6
    assert method.reconstruction_err_ == pytest.approx(scale * np.sqrt(losses[-1]))


@pytest.mark.parametrize("seed", range(3))
def test_semi_nmf_fits_better_than_the_updates_of_the_source(signed, seed):
    X, n_iter = signed.flat(), 20
    method = SemiNMFConcepts(4, max_iter=n_iter, tol=0, random_state=seed).fit(signed)
    clusters = kmeans(signed, 4, max_iter=20, n_init=1, random_state=np.random.RandomState(seed))
    theirs = multiplicative_losses(X, np.eye(4)[clusters.labels] + 0.2, n_iter)
    assert method.loss_curve_[-1] < theirs[-1]
    # They go towards the same minimum.
    assert theirs[-1] < 0.1 * (X**2).sum()


def test_semi_nmf_begins_with_some_of_many_tokens(signed, monkeypatch):
    plain = SemiNMFConcepts(4, max_iter=2, tol=0, random_state=0).fit(signed)
    monkeypatch.setattr(_factorise, "_DRAWN", 100)
    assert signed.n_tokens > 150
    drawn = SemiNMFConcepts(4, max_iter=2, tol=0, random_state=0).fit(signed)
    random = np.random.RandomState(0)
    some = some_tokens(signed, 4, random)
    assert some.shape == (128, 7)  # 32 for each part are more
    everyone = set(map(tuple, signed.flat()))
    assert len(set(map(tuple, some.flat())) & everyone) == 128
    H = slow_semi_nmf(some.flat(), first_parts(some, 4, random), 2)[0]
    H, losses = slow_semi_nmf(signed.flat(), H, 2)
    np.testing.assert_allclose(drawn.concept_vectors_, H, atol=1e-8)
    np.testing.assert_allclose(drawn.loss_curve_, losses)
    assert drawn.loss_curve_[0] < plain.loss_curve_[0]
    assert some_tokens(signed, 8, random) is signed


def test_parts_that_no_token_holds_keep_semi_nmf_going(signed):
    twice = TokenArray.from_list([np.tile([[1.0, 2.0]], (5, 1)), np.tile([[-2.0, 1.0]], (5, 1))])
    method = SemiNMFConcepts(6, random_state=0).fit(twice)
    assert np.isfinite(method.concept_vectors_).all()
    again = method.inverse_transform(method.transform(twice))
    np.testing.assert_allclose(again.flat(), twice.flat(), atol=1e-9)


@pytest.mark.parametrize(("n_concepts", "at_least"), [(1, 2), (4, 30), (10, 2)])
def test_the_loss_of_semi_nmf_never_rises(rng, n_concepts, at_least):
    X = rng.normal(size=(80, 6))
    method = SemiNMFConcepts(n_concepts, tol=0, max_iter=60, random_state=0).fit(X)
    assert method.n_iter_ >= at_least
    assert (np.diff(method.loss_curve_) <= 1e-9 * (X**2).sum()).all()
    assert method.loss_curve_[-1] < method.loss_curve_[0]
    assert method.transform(X).min() >= 0


@pytest.mark.parametrize("Method", METHODS)
def test_reconstruction(tokens, signed, Method):
    tokens = data(Method, tokens, signed)
    X = tokens.flat()
    errors = []
    for k in (1, 2, 3, 4, 6):
        method = Method(k, max_iter=3000, random_state=0).fit(tokens)
        scores = method.transform(tokens)
        assert scores.flat().min() >= 0
        again = method.inverse_transform(scores)
        by_hand = [
            sum(w * h for w, h in zip(row, method.concept_vectors_, strict=True))
            for row in scores.flat()
        ]
        np.testing.assert_allclose(again.flat(), by_hand, atol=1e-12)
        errors.append(np.linalg.norm(again.flat() - X))
        # The activations of fit are no better than those of transform.
        assert errors[-1] <= method.reconstruction_err_ * (1 + 1e-9)
        exact = [nnls(method.concept_vectors_.T, z)[1] for z in X]
        assert errors[-1] == pytest.approx(np.linalg.norm(exact), rel=1e-6)
    assert (np.diff(errors) < 0).all()
    assert errors[3] < 0.2 * errors[0]


def test_semi_nmf_takes_what_nmf_cannot(signed):
    shifted = signed.map(lambda x: x - signed.flat().min())
    turned = SemiNMFConcepts(4, max_iter=3000, random_state=0).fit(signed)
    clipped = NMFConcepts(4, max_iter=3000, random_state=0).fit(shifted)
    assert turned.reconstruction_err_ < clipped.reconstruction_err_
    assert turned.concept_vectors_.min() < 0 <= clipped.concept_vectors_.min()


@pytest.mark.parametrize("Method", METHODS)
def test_the_form_of_the_input_does_not_count(tokens, signed, Method):
    tokens = data(Method, tokens, signed)
    method = Method(3, random_state=0).fit(tokens)
    stacked = Method(3, random_state=0).fit(tokens.flat())
    np.testing.assert_array_equal(method.concept_vectors_, stacked.concept_vectors_)
    with sklearn.config_context(working_memory=0):
        pieces = Method(3, random_state=0).fit(tokens)
        scores = pieces.transform(tokens)
    if Method is NMFConcepts:
        # Tokens that may not be held go through minibatches, to a minimum that is about as low.
        assert pieces.reconstruction_err_ < 1.1 * method.reconstruction_err_
        return
    np.testing.assert_allclose(pieces.concept_vectors_, method.concept_vectors_, atol=1e-6)
    np.testing.assert_allclose(scores.flat(), method.transform(tokens).flat(), atol=1e-5)
    assert scores.feature_names[2] == f"{Method.__name__.lower()}2"


@pytest.mark.parametrize("Method", METHODS)
def test_inverse_transform_keeps_samples_and_source(tokens, signed, Method):
    tokens = data(Method, tokens, signed)
    named = TokenArray(tokens.values, tokens.offsets, source=Source(model="m", block=2))
    method = Method(3, random_state=0).fit(named)
    scores = method.transform(named)
    assert scores.source == Source(model="m", block=2, columns="units")
    again = method.inverse_transform(scores)
    assert again.source == named.source
    np.testing.assert_array_equal(again.lengths, tokens.lengths)
    with pytest.raises(ValueError, match=f"X has 2 features, but {Method.__name__} is expecting 3"):
        method.inverse_transform(np.ones((4, 2)))


@pytest.mark.parametrize("Method", METHODS)
def test_half_precision_is_read_in_single(tokens, signed, Method):
    half = data(Method, tokens, signed).map(lambda x: x.astype(np.float16))
    a, b = (Method(3, random_state=0).fit(x) for x in (half, half.map(np.float32)))
    np.testing.assert_allclose(a.concept_vectors_, b.concept_vectors_, atol=1e-5)
    scores = a.transform(half)
    assert scores.dtype == np.float32
    assert a.inverse_transform(scores).dtype == np.float32


@pytest.mark.parametrize("Method", METHODS)
def test_repeats_by_its_seed(rng, Method):
    X = rng.random((100, 6))
    params = {"init": "random"} if Method is NMFConcepts else {}

    def vectors(seed):
        return Method(4, random_state=seed, max_iter=2000, **params).fit(X).concept_vectors_

    np.testing.assert_array_equal(vectors(0), vectors(0))
    assert not np.allclose(vectors(0), vectors(1))


@pytest.mark.parametrize("Method", METHODS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_tokens_are_no_trouble(Method, value):
    X = np.full((12, 3), value)
    method = Method(2, random_state=0).fit(X)
    assert np.isfinite(method.concept_vectors_).all()
    np.testing.assert_allclose(method.inverse_transform(method.transform(X)), X, atol=1e-3)


@pytest.mark.parametrize("Method", METHODS)
def test_an_unfinished_run_warns(tokens, Method):
    with pytest.warns(ConvergenceWarning):
        Method(4, max_iter=2, tol=1e-12, random_state=0).fit(tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Method(4, max_iter=2, tol=0, random_state=0).fit(tokens)


@pytest.mark.parametrize("Method", METHODS)
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_concepts": 0}, "'n_concepts' parameter"),
        ({"n_concepts": 1.5}, "'n_concepts' parameter"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"tol": -1.0}, "'tol' parameter"),
        ({"n_concepts": 2}, "NaN, first at sample 2, token 1, feature 0"),
    ],
)
def test_bad_input(Method, params, message):
    X = np.ones((4, 2, 3))
    X[2, 1, 0] = np.nan
    with pytest.raises(ValueError, match=message):
        Method(**params).fit(X)


def test_semi_nmf_needs_a_token_per_part():
    message = r"n_concepts=9 parts need at least 9 tokens, got 8 \(n_samples=4"
    with pytest.raises(ValueError, match=message):
        SemiNMFConcepts(9).fit(np.ones((4, 2, 3)))


@pytest.mark.parametrize("working_memory", [1024, 0])
def test_nmf_names_the_negative_feature(tokens, working_memory, monkeypatch):
    method = NMFConcepts(2, random_state=0).fit(tokens)
    monkeypatch.setattr(_nmf, "NMF", lambda *args, **kwargs: pytest.fail("work has begun"))
    X = [np.ones((2, 7)), np.ones((3, 7)), np.ones((1, 7))]
    X[1][2, 5] = -0.5
    message = r"-0\.5 at sample 1, token 2, feature 5"
    with sklearn.config_context(working_memory=working_memory):
        with pytest.raises(ValueError, match=message):
            NMFConcepts(2).fit(X)
        with pytest.raises(ValueError, match=message):
            method.transform(X)
    SemiNMFConcepts(2, random_state=0).fit(X).transform(X)


def test_nmf_init_must_be_possible(tokens):
    with pytest.raises(ValueError, match=r"'init' parameter"):
        NMFConcepts(init="ones").fit(tokens)
    with pytest.raises(
        ValueError, match=r"init='nndsvd' needs .* features \(7\), got n_concepts=8"
    ):
        NMFConcepts(init="nndsvd").fit(tokens)
    assert NMFConcepts(9, max_iter=2000).fit(tokens).concept_vectors_.shape == (9, 7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [NMFConcepts(), SemiNMFConcepts()], ids=repr)
def test_battery(estimator):
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    count = Counter(result["status"] for result in results)
    assert count["passed"] >= 45
    assert set(count) == {"passed"}
