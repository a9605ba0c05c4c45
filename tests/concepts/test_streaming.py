"""Fits in pieces: the same result wherever tokens lie, and in any cut where a method allows it."""

import pickle
from functools import partial

import numpy as np
import pytest
import sklearn
from sklearn import clone
from sklearn.pipeline import make_pipeline

from skact import (
    Adam,
    AutoencoderTraining,
    DifferenceInMeans,
    KMeansConcepts,
    KMeansSeparator,
    LinearSeparator,
    MaxSeparator,
    MaxToken,
    MeanPrototype,
    MeanToken,
    Minibatch,
    NMFConcepts,
    PCAConcepts,
    RandomToken,
    SAEUnitFilter,
    SemiNMFConcepts,
    SparseAutoencoder,
    SuperActivator,
    TokenArray,
    TokenScaler,
    WeakSuperActivator,
)
from skact.concepts import BaseConcepts, BaseUnits
from skact.rows._pieces import Mapped, Shards

LABELLED = [
    MeanPrototype(),
    DifferenceInMeans(),
    DifferenceInMeans("pca"),
    LinearSeparator(),
    LinearSeparator("minibatch", random_state=0),
    LinearSeparator(Adam(max_epochs=2), random_state=0),
]
UNITS = [
    KMeansConcepts(4, random_state=0),
    KMeansSeparator(4, random_state=0),
    NMFConcepts(3, random_state=0, max_iter=5, tol=0),
    PCAConcepts(3),
    SparseAutoencoder(8, training=AutoencoderTraining(max_epochs=2, batch_size=32), random_state=0),
]
DETECTORS = [
    SuperActivator(0.4),
    SuperActivator(0.4, match_columns=True),
    MaxToken(),
    MeanToken(),
    RandomToken(random_state=0),
    WeakSuperActivator(0.5),
    WeakSuperActivator(objective="sample"),
]


@pytest.fixture
def problem(rng):
    """Non-negative float16 tokens of 40 samples with two concepts."""
    lengths = rng.integers(3, 7, size=40)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    labels = rng.random((offsets[-1], 2)) < 0.2
    labels[0] = labels[offsets[1] - 1] = True
    values = rng.exponential(size=(offsets[-1], 6)) + labels @ rng.normal(size=(2, 6)) ** 2
    X = TokenArray(values.astype(np.float16), offsets)
    marked = TokenArray(labels, offsets)
    return X, marked.max().astype(int), marked


@pytest.fixture(params=["memmap", "shards", "lazy", "past the cache"])
def stored(request, problem, tmp_path, monkeypatch):
    """The same tokens in files."""
    X = problem[0]
    values = X.values if request.param in ("memmap", "shards") else -X.values
    cut = len(values) // 3
    for name, part in (("a", values), ("b", values[:cut]), ("c", values[cut:])):
        (tmp_path / name).write_bytes(part.tobytes())
    whole, first, second = (
        np.memmap(tmp_path / name, np.float16, "r").reshape(-1, 6) for name in "abc"
    )
    if request.param == "memmap":
        return TokenArray(whole, X.offsets)
    if request.param == "shards":
        return TokenArray(Shards([first, second]), X.offsets)
    if request.param == "lazy":
        return TokenArray(Mapped(whole, np.negative), X.offsets)
    monkeypatch.setattr("skact.rows._reading.exceeds_memory", lambda n_bytes: True)
    return TokenArray(Mapped(Shards([first, second]), np.negative), X.offsets)


def fitted(method, X, y, labels, path=()):
    """All that a fit left behind, as arrays."""
    if isinstance(method, TokenScaler) or any(type(method) is type(u) for u in UNITS):
        method = clone(method).fit(X)
    else:
        method = clone(method).fit(X, y, token_labels=labels)
    return method, [
        np.asarray(value)
        for name, value in sorted(vars(method).items())
        if name.endswith("_") and isinstance(value, np.ndarray | float | int) and value is not None
    ]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("working_memory", [0.01, 1024])
@pytest.mark.parametrize("method", [TokenScaler(), *LABELLED, *UNITS, *DETECTORS], ids=str)
def test_where_tokens_lie_changes_nothing(problem, stored, method, working_memory):
    X, y, labels = problem
    with sklearn.config_context(working_memory=working_memory):
        expected, state = (
            fitted(method, X, y, labels)
            if method not in DETECTORS
            else fitted(method, X.columns([1, 4]), y, labels)
        )
        given = stored if method not in DETECTORS else stored.columns([1, 4])
        got, same = fitted(method, given, y, labels)
        assert len(same) == len(state) > 0
        for ours, theirs in zip(same, state, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        if method in DETECTORS:
            np.testing.assert_array_equal(got.predict(given), expected.predict(X.columns([1, 4])))
            marks = got.superactivators(given).flat()
            np.testing.assert_array_equal(marks, expected.superactivators(X.columns([1, 4])).flat())
        else:
            np.testing.assert_array_equal(got.transform(given).flat(), expected.transform(X).flat())


@pytest.mark.parametrize("detector", DETECTORS, ids=str)
def test_detectors_in_blocks_equal_detectors_in_memory(problem, stored, detector):
    X, y, labels = problem
    whole = clone(detector).fit(X.columns([0, 3]), y, token_labels=labels)
    path = detector.fit_path(X.columns([0, 3]), y, labels, deltas=[0.2, 0.6])
    with sklearn.config_context(working_memory=0):
        scores = stored.columns([0, 3])
        assert isinstance(scores.values, Mapped)
        pieces = clone(detector).fit(scores, y, token_labels=labels)
        np.testing.assert_array_equal(pieces.thresholds_, whole.thresholds_)
        np.testing.assert_array_equal(pieces.predict(scores), whole.predict(X.columns([0, 3])))
        again = detector.fit_path(scores, y, labels, deltas=[0.2, 0.6])
    for ours, theirs in zip(again, path, strict=True):
        np.testing.assert_array_equal(ours.thresholds_, theirs.thresholds_)


def test_a_pipeline_holds_neither_scaled_tokens_nor_scores(problem, stored):
    X, y, labels = problem
    pipe = make_pipeline(
        TokenScaler(), LinearSeparator("minibatch", random_state=0), SuperActivator()
    )
    fit_params = {f"{name}__token_labels": labels for name in ("linearseparator", "superactivator")}
    with sklearn.config_context(working_memory=0):
        held = clone(pipe).fit(X, y, **fit_params)
        lazy = clone(pipe).fit(stored, y, **fit_params)
        np.testing.assert_array_equal(lazy[-1].thresholds_, held[-1].thresholds_)
        np.testing.assert_array_equal(lazy.predict(stored), held.predict(X))
        scores = lazy[:-1].transform(stored)
        assert isinstance(scores.values, Mapped)
        # What was computed lazily stays what it was when the estimators are fitted again.
        before = scores.flat()
        lazy[1].fit(lazy[0].transform(stored), 1 - y)
        assert not np.allclose(lazy[:-1].transform(stored).flat(), before)
        np.testing.assert_array_equal(scores.flat(), before)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(scores)).flat(), before)


CONCEPT_METHODS = [
    *LABELLED,
    MaxSeparator(max_iter=5),
    *UNITS,
    *(
        SparseAutoencoder(8, a, k=2, training=AutoencoderTraining(max_epochs=2), random_state=0)
        for a in ("topk", "jumprelu")
    ),
    SemiNMFConcepts(3, random_state=0, max_iter=5, tol=0),
    SAEUnitFilter(min_share=0, max_share=1, min_ratio=0, max_ratio=np.inf),
]


def learn(method, X, y, labels, name="fit"):
    """Fit a method on all that it takes."""
    if isinstance(method, BaseUnits):
        return getattr(method, name)(X)
    if isinstance(method, BaseConcepts):
        return getattr(method, name)(X, y, token_labels=labels)
    return getattr(method, name)(X, y)


def outputs(method, tokens):
    """What a method makes of tokens, and what it leads that back to."""
    scores = method.transform(tokens)
    if not hasattr(method, "inverse_transform"):
        return [scores]
    return [scores, method.inverse_transform(scores)]


def differ(tokens, values):
    new = tokens.flat()
    return new.shape != values.shape or not np.allclose(new, values, atol=1e-3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("method", CONCEPT_METHODS, ids=str)
def test_tokens_on_disk_stay_what_they_were_and_can_be_sent(problem, stored, method):
    X, y, labels = problem
    method = learn(clone(method), X, y, labels)
    in_memory = [tokens.flat() for tokens in outputs(method, X)]
    with sklearn.config_context(working_memory=0):
        lazy = outputs(method, stored)
        assert all(isinstance(tokens.values, Mapped) for tokens in lazy)
        expected = [tokens.flat() for tokens in lazy]
        for values, same in zip(expected, in_memory, strict=True):
            # In pieces of other sizes a matrix product is rounded otherwise.
            np.testing.assert_allclose(values, same, atol=1e-5)
        sent = pickle.dumps(lazy)
        other = X.map(partial(np.flip, axis=1))
        for name in ("partial_fit", "fit"):
            if not hasattr(method, name):
                continue
            learn(method, other, y, labels, name)
            for kept in (lazy, pickle.loads(sent)):
                for tokens, values in zip(kept, expected, strict=True):
                    np.testing.assert_array_equal(tokens.flat(), values)
        # Control: the method itself is another one now.
        for tokens, values in zip(outputs(method, stored), expected, strict=True):
            assert differ(tokens, values)


def test_a_closure_would_follow_the_method_and_stay_behind(problem, stored):
    X, y, labels = problem
    method = PCAConcepts(2).fit(X)
    with sklearn.config_context(working_memory=0):
        lazy = stored.map(lambda values: method._reconstruct(method._score(values)))
        before = lazy.flat()
        with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
            pickle.dumps(lazy)
        learn(method, X.map(partial(np.flip, axis=1)), y, labels)
        assert differ(lazy, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_token_on_disk_is_named_when_it_is_read(problem, tmp_path, bad):
    X, y, labels = problem
    values = X.values.copy()
    row = X.offsets[7] + 2
    values[row, 4] = bad
    (tmp_path / "x").write_bytes(values.tobytes())
    tokens = TokenArray(np.memmap(tmp_path / "x", np.float16, "r").reshape(-1, 6), X.offsets)
    place = "first at sample 7, token 2, feature 4"
    with sklearn.config_context(working_memory=0):
        with pytest.raises(ValueError, match=place):
            TokenScaler().fit(tokens)
        scaled = TokenScaler().fit(X).transform(tokens)
        with pytest.raises(ValueError, match=place):
            MeanPrototype().fit(scaled, y, token_labels=labels)
        # Samples that are not shown are not read.
        TokenScaler().fit(tokens[:7])


def chunks(X, y, labels):
    for part in (slice(0, 7), slice(7, 30), slice(30, 40)):
        yield X[part], y[part], labels[part]


def test_partial_fit_of_the_scaler_is_fit(problem):
    X, y, labels = problem
    whole, parts = TokenScaler().fit(X), TokenScaler()
    for chunk, _, _ in chunks(X, y, labels):
        parts.partial_fit(chunk)
    np.testing.assert_allclose(parts.mean_, whole.mean_, rtol=1e-12)
    assert parts.scale_ == pytest.approx(whole.scale_, rel=1e-12)


@pytest.mark.parametrize(
    "method",
    [MeanPrototype(), DifferenceInMeans(), DifferenceInMeans(reference="all")],
    ids=str,
)
@pytest.mark.parametrize("targets", ["indicator", "classes"])
def test_partial_fit_of_means_is_fit(problem, method, targets):
    X, y, labels = problem
    if targets == "classes":
        y, given = np.arange(40) % 3, None
    else:
        given = labels
    method.fit(X, y, token_labels=given)
    parts, frozen = clone(method), []
    for part in (slice(0, 2), slice(2, 30), slice(30, 40)):
        parts.partial_fit(
            X[part],
            y[part],
            token_labels=None if given is None else given[part],
            classes=[0, 1, 2] if targets == "classes" else None,
        )
        frozen.append((parts.concept_vectors_, parts.concept_vectors_.copy()))
    for vectors, copied in frozen:
        np.testing.assert_array_equal(vectors, copied)
    np.testing.assert_allclose(parts.concept_vectors_, method.concept_vectors_, atol=1e-6)
    np.testing.assert_array_equal(parts.concept_names_, method.concept_names_)
    assert not np.allclose(frozen[0][1], method.concept_vectors_)


def test_fit_forgets_and_partial_fit_goes_on_from_fit(problem):
    X, y, labels = problem
    whole = MeanPrototype().fit(X, y, token_labels=labels)
    method = MeanPrototype().fit(X[:20], y[:20], token_labels=labels[:20])
    method.partial_fit(X[20:], y[20:], token_labels=labels[20:])
    np.testing.assert_allclose(method.concept_vectors_, whole.concept_vectors_)
    method.fit(X[:20], y[:20], token_labels=labels[:20])
    assert not np.allclose(method.concept_vectors_, whole.concept_vectors_)


def test_only_some_methods_can_go_on():
    for solver in ("minibatch", Minibatch()):
        assert hasattr(LinearSeparator(solver), "partial_fit")
    for method in (
        *map(LinearSeparator, ("lbfgs", "adam", Adam(), "sgd")),
        DifferenceInMeans("pca"),
    ):
        assert not hasattr(method, "partial_fit")
    assert not hasattr(PCAConcepts(), "partial_fit")


ONE = np.ones((4, 3))


@pytest.mark.parametrize(
    ("first", "then", "match"),
    [
        ({"y": [0, 1, 0, 1]}, {"y": [0, 1, 2, 3]}, r"classes \[2, 3\], which the first call"),
        ({"y": [0, 1, 0, 1]}, {"y": np.eye(4)}, "y has 4 concepts, the first call .* class lab"),
        ({"y": np.eye(4)}, {"y": np.eye(4)[:, :3]}, "y has 3 concepts, .* had 4 concepts"),
        ({"y": np.eye(4)}, {"y": [0, 1, 0, 1]}, "y has class labels, .* had 4 concepts"),
        ({"y": [0, 0, 0, 0]}, {"y": [0, 1, 0, 1]}, r"one class only \(np.int64\(0\)\); pass all"),
        ({"y": [0, 1, 2, 2], "classes": [0, 1]}, {}, r"classes \[2\], which"),
        ({"y": [0, 1, 0, 1]}, {"y": None}, "requires y to be passed"),
        ({"y": [0, 1, 0, 1]}, {"X": np.ones((4, 2)), "y": [0, 1, 0, 1]}, "3 features"),
    ],
)
def test_new_concepts_are_refused(first, then, match):
    method = MeanPrototype()
    with pytest.raises(ValueError, match=match):
        method.partial_fit(**{"X": ONE, **first}).partial_fit(**{"X": ONE, **then})


def test_names_of_concepts_stay(problem):
    pd = pytest.importorskip("pandas")
    X, y, _labels = problem
    frame = pd.DataFrame(y, columns=["cat", "dog"])
    method = MeanPrototype().partial_fit(X[:5], frame[:5])
    method.partial_fit(X[5:], y[5:])
    assert method.concept_names_.tolist() == ["cat", "dog"]
    with pytest.raises(
        ValueError, match=r"y names the concepts \['cat', 'cow'\], .* \['cat', 'dog"
    ):
        method.partial_fit(X[5:], frame[5:].rename(columns={"dog": "cow"}))


def loss(method, X, labels):
    """The loss that the separators minimise, per concept."""
    scores, marked = X.flat().astype(float) @ method.concept_vectors_.T, labels.flat()
    weight = np.where(marked, 0.5 / marked.sum(axis=0), 0.5 / (~marked).sum(axis=0))
    penalty = 0.5 * method.weight_decay * (method.concept_vectors_**2).sum(axis=1)
    return (weight * np.logaddexp(0, np.where(marked, -scores, scores))).sum(axis=0) + penalty


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_minibatches_come_near_the_minimum(rng, scale):
    mixed = rng.normal(size=(10, 10)) * np.geomspace(1, 30, 10)
    values = rng.normal(size=(20_000, 10)) @ mixed
    marked = values @ rng.normal(size=(10, 3)) / 60 + rng.normal(size=(20_000, 3)) > [2, 3, 4.5]
    X = TokenArray((scale * values).astype(np.float32), np.arange(0, 20_001, 10))
    labels = TokenArray(marked, X.offsets)
    y = labels.max().astype(int)
    decay = 1e-4 * scale**2
    best = loss(LinearSeparator(weight_decay=decay).fit(X, y, token_labels=labels), X, labels)
    gaps = []
    for n_passes in (1, 8):
        method = LinearSeparator(
            Minibatch(n_passes=n_passes), weight_decay=decay, random_state=0
        ).fit(X, y, token_labels=labels)
        assert method.n_iter_ == n_passes
        gaps.append(loss(method, X, labels) - best)
    assert (gaps[1] >= -1e-7).all()
    assert gaps[1].max() < 0.01
    assert gaps[1].mean() < 0.5 * gaps[0].mean()
    parts = LinearSeparator("minibatch", weight_decay=decay, random_state=0)
    for start in range(0, 2000, 500):
        part = slice(start, start + 500)
        parts.partial_fit(X[part], y[part], token_labels=labels[part])
        if start == 0:
            early = loss(parts, X, labels) - best
    late = loss(parts, X, labels) - best
    assert late.mean() < early.mean()
    assert late.max() < 0.1


def test_minibatches_without_balance(problem):
    X, y, labels = problem
    even = LinearSeparator("minibatch", balance=None, random_state=0)
    assert not np.allclose(
        even.fit(X, y, token_labels=labels).concept_vectors_,
        clone(even).set_params(balance="auto").fit(X, y, token_labels=labels).concept_vectors_,
    )
    with pytest.raises(ValueError, match="Minibatch balances by weights"):
        LinearSeparator("minibatch", balance="sample").fit(X, y, token_labels=labels)


def test_partial_fit_of_k_means_is_a_running_mean(rng):
    values = rng.normal(size=(400, 3)) + 20 * rng.integers(0, 2, size=(400, 1))
    method = KMeansConcepts(2, random_state=1)
    with pytest.raises(ValueError, match="need at least 2 tokens, got 1"):
        method.partial_fit(values[:1])
    for start in range(0, 400, 40):
        method.partial_fit(values[start : start + 40])
    full = KMeansConcepts(2, random_state=1).fit(values)
    order = np.argsort(method.concept_vectors_[:, 0])
    np.testing.assert_allclose(
        method.concept_vectors_[order],
        full.concept_vectors_[np.argsort(full.concept_vectors_[:, 0])],
        atol=1.5,
    )
    # From the fitted centroids the mean of all tokens of a cluster does not move.
    again = full.concept_vectors_.copy()
    full.partial_fit(values)
    np.testing.assert_allclose(full.concept_vectors_, again, atol=1e-6)
    assert full.n_iter_ > 1


def test_partial_fit_of_nmf_reconstructs(rng):
    parts = rng.exponential(size=(3, 8))
    values = rng.exponential(size=(3000, 3)) @ parts
    method = NMFConcepts(3, random_state=0)

    def rest():
        return np.linalg.norm(values - method.inverse_transform(method.transform(values)))

    errors = []
    for start in range(0, 3000, 1000):
        method.partial_fit(values[start : start + 1000])
        errors.append(rest())
    for _ in range(3):
        method.partial_fit(values)
    assert rest() < errors[0]
    assert rest() < 0.1 * np.linalg.norm(values)
    full = NMFConcepts(3, random_state=0, max_iter=2000).fit(values)
    method = full.partial_fit(values)
    assert rest() < 0.1 * np.linalg.norm(values)


@pytest.mark.parametrize("activation", ["relu", "topk", "jumprelu"])
def test_partial_fit_of_an_autoencoder_goes_on(rng, activation):
    values = (rng.exponential(size=(600, 4)) @ rng.normal(size=(4, 6))).astype(np.float32)
    method = SparseAutoencoder(
        12, activation, k=4, training=AutoencoderTraining(batch_size=32), random_state=0
    )
    for _ in range(15):
        method.partial_fit(values)
    assert method.n_iter_ == len(method.loss_curve_) == 15
    assert method.loss_curve_[-1] < 0.6 * method.loss_curve_[0]
    # What Adam remembers and the scaling survive pickling; without them it goes on as well.
    twin = pickle.loads(pickle.dumps(method))
    for fit in (method, twin):
        fit.partial_fit(values)
    np.testing.assert_array_equal(method.concept_vectors_, twin.concept_vectors_)
    fitted_once = clone(method).set_params(training__max_epochs=15).fit(values)
    before = fitted_once.reconstruction_score(values)
    fitted_once.partial_fit(values)
    assert fitted_once.reconstruction_score(values) > before - 0.05
    with pytest.raises(ValueError, match="partial_fit goes on with 12 units"):
        fitted_once.set_params(n_concepts=13).partial_fit(values)
