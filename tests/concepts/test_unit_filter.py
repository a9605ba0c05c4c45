from collections import Counter

import numpy as np
import pytest
import sklearn
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from skact import AutoencoderTraining, Source, SuperActivator, TokenArray
from skact.concepts._autoencoder import SparseAutoencoder
from skact.concepts._unit_filter import SAEUnitFilter, strength_quantile

OPEN = {"min_share": 0, "max_share": 1, "min_ratio": 0, "max_ratio": np.inf}


def activations(rng, n_samples=120, n_units=60):
    """Units of all frequencies and strengths, dead and ubiquitous ones among them."""
    rate = np.concatenate([[0, 0, 1, 1], rng.uniform(0, 0.6, size=n_units - 4)])
    scale = rng.uniform(0.1, 5, size=n_units)
    samples = []
    for n_tokens in rng.integers(1, 7, size=n_samples):
        on = rng.random((n_tokens, n_units)) < rate
        samples.append(on * scale * rng.exponential(size=on.shape))
    return TokenArray.from_list(
        samples,
        feature_names=[f"unit{j}" for j in range(n_units)],
        source=Source(model="m", block=3, columns="units"),
    )


@pytest.fixture
def problem(rng):
    y = (rng.random((120, 5)) < [0.3, 0.4, 0.5, 0.6, 0.7]).astype(int)
    return activations(rng), y


def slow_support(method, X, y):
    """The rules of the paper, unit by unit."""
    frequency = [np.mean([(sample[:, j] > 0).any() for sample in X]) for j in range(X.n_features)]
    rarest, commonest = min(y.mean(axis=0)), max(y.mean(axis=0))
    survivors = {}
    for j, share in enumerate(frequency):
        if share == 0 or share < method.min_share or share > method.max_share:
            continue
        if share < method.min_ratio * rarest or share > method.max_ratio * commonest:
            continue
        positive = sorted(v for sample in X for v in sample[:, j] if v > 0)
        place = method.percentile / 100 * (len(positive) - 1)
        below = int(place)
        above = min(below + 1, len(positive) - 1)
        survivors[j] = positive[below] + (place - below) * (positive[above] - positive[below])
    (first, last), (few, many) = method.strength_quantiles, method.n_concepts_range
    rise = min(max((y.shape[1] - few) / (many - few), 0), 1)
    cutoff = np.quantile(list(survivors.values()), first + rise * (last - first))
    return [j for j, strength in survivors.items() if strength >= cutoff]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        OPEN,
        {"min_ratio": 0.1, "max_ratio": 2.0, "percentile": 50},
        {"strength_quantiles": (0.0, 0.0)},
        {"n_concepts_range": (1, 5)},
        {"n_concepts_range": (5, 6), "max_share": 0.5},
    ],
)
def test_support_is_that_of_the_rules(problem, settings):
    X, y = problem
    method = SAEUnitFilter(**settings).fit(X, y)
    expected = slow_support(method, X, y)
    assert 0 < len(expected) < X.n_features
    assert method.get_support(indices=True).tolist() == expected
    with sklearn.config_context(working_memory=0):
        again = SAEUnitFilter(**settings).fit(X, y)
    np.testing.assert_array_equal(again.support_, method.support_)
    np.testing.assert_array_equal(again.strengths_, method.strengths_)


def test_each_rule_drops_its_unit(rng):
    y = np.tile([1, 0, 0, 0], 25)
    units = {
        "dead": np.zeros(100),
        "ubiquitous": np.ones(100),
        "rare": np.eye(100)[0],
        "common": np.arange(100) % 2.0,
        "strong": 5.0 * y,
        "fair": 4.0 * np.roll(y, 1),
        "weak": 0.5 * y,
    }
    X = np.stack(list(units.values()), axis=1)
    kept = SAEUnitFilter().fit(X, y).get_support()
    assert [name for name, k in zip(units, kept, strict=True) if k] == ["strong", "fair"]
    # Each rule is what drops its unit: without it the unit stays.
    for name, settings in {
        "ubiquitous": {"max_share": 1, "max_ratio": 9, "strength_quantiles": (0, 0)},
        "rare": {"min_ratio": 0, "strength_quantiles": (0, 0)},
        "common": {"max_ratio": 2, "strength_quantiles": (0, 0)},
        "weak": {"strength_quantiles": (0, 0)},
    }.items():
        kept = SAEUnitFilter(**settings).fit(X, y).get_support()
        assert kept[list(units).index(name)], name
        assert not kept[0]


def test_the_quantile_rises_with_the_number_of_concepts():
    values = [strength_quantile(n, (0.5, 0.8), (1, 80)) for n in range(1, 200)]
    assert values[0] == 0.5
    assert values[79] == values[-1] == 0.8
    assert (np.diff(values[:80]) > 0).all()


def test_more_concepts_keep_fewer_units(problem):
    X, y = problem
    few = SAEUnitFilter(n_concepts_range=(1, 80)).fit(X, y)
    many = SAEUnitFilter(n_concepts_range=(1, 5)).fit(X, y)
    assert many.support_.sum() < few.support_.sum()
    assert not (many.support_ & ~few.support_).any()


def test_names_and_source_are_kept(problem):
    X, y = problem
    method = SAEUnitFilter().fit(X, y)
    assert isinstance(method, SelectorMixin)
    out = method.transform(X[[4, 1]])
    chosen = method.get_support(indices=True)
    assert out.source == X.source
    assert out.feature_names == tuple(f"unit{j}" for j in chosen)
    assert method.get_feature_names_out().tolist() == list(out.feature_names)
    np.testing.assert_array_equal(out[0], X[4][:, chosen])
    with pytest.raises(ValueError, match="another block"):
        method.transform(X.with_source(Source(block=4)))


def test_inverse_transform_puts_columns_back(problem):
    X, y = problem
    method = SAEUnitFilter().fit(X, y)
    back = method.inverse_transform(method.transform(X))
    np.testing.assert_array_equal(back.flat(), X.flat() * method.support_)
    assert back.feature_names == X.feature_names
    assert back.source == X.source
    with pytest.raises(ValueError, match="X has 60 features, but SAEUnitFilter is expecting"):
        method.inverse_transform(X)


def test_a_matrix_gives_a_matrix(rng):
    X = activations(rng).max()
    y = rng.random(120) < 0.4
    out = SAEUnitFilter().fit(X, y).transform(X)
    assert isinstance(out, np.ndarray)
    names = SAEUnitFilter().fit(X, y).get_feature_names_out()
    assert len(names) == out.shape[1]
    assert names[0].startswith("x")


def test_in_a_pipeline_between_units_and_detector(rng):
    direction = rng.normal(size=8)
    y = np.arange(80) % 2
    X = [rng.normal(size=(6, 8)) * 0.3 for _ in y]
    for sample, label in zip(X, y, strict=True):
        sample[2] += 5 * label * direction
    pipe = make_pipeline(
        SparseAutoencoder(
            32, "topk", k=2, training=AutoencoderTraining(max_epochs=20), random_state=0
        ),
        SAEUnitFilter(),
        SuperActivator(delta=0.16),
    )
    pipe.fit(X, y)
    assert 0 < pipe[1].get_support().sum() < 32
    assert pipe[2].n_features_in_ == pipe[1].get_support().sum()
    assert pipe.score(X, y) > 0.9


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"min_share": -0.1}, None, "'min_share' parameter"),
        ({"max_share": 1.1}, None, "'max_share' parameter"),
        ({"min_ratio": -1}, None, "'min_ratio' parameter"),
        ({"max_ratio": 0}, None, "'max_ratio' parameter"),
        ({"percentile": 101}, None, "'percentile' parameter"),
        ({"strength_quantiles": 0.5}, None, "'strength_quantiles' parameter"),
        ({"strength_quantiles": (0.8, 0.5)}, None, "two ascending numbers in"),
        ({"strength_quantiles": (0.5, 0.6, 0.7)}, None, "two ascending numbers in"),
        ({"strength_quantiles": ("a", "b")}, None, "two ascending numbers in"),
        ({"n_concepts_range": (80, 1)}, None, "two ascending integers from 1"),
        ({"n_concepts_range": (1.5, 3)}, None, "two ascending integers from 1"),
        ({"n_concepts_range": (0, 3)}, None, "two ascending integers from 1"),
        ({"max_share": 0.01}, None, "no unit is left: of 60 units 4 fire in no sample"),
        ({}, lambda X, y: (X.map(np.zeros_like), y), "no unit is left: of 60 units 60 fire in no"),
        ({}, lambda X, y: (X, None), "requires y to be passed, but the target y is None"),
        ({}, lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
        ({}, lambda X, y: (X, 0 * y), "concept 0 has no positive sample"),
    ],
)
def test_bad_input(problem, settings, change, message):
    X, y = problem if change is None else change(*problem)
    with pytest.raises(ValueError, match=message):
        SAEUnitFilter(**settings).fit(X, y)


def test_battery():
    # The rules on frequencies leave nothing of the battery's blobs; with them open it all runs.
    results = check_estimator(SAEUnitFilter(**OPEN), on_fail=None, on_skip=None)
    count = Counter(result["status"] for result in results)
    assert count["passed"] >= 45
    assert set(count) == {"passed"}, [r for r in results if r["status"] != "passed"]
