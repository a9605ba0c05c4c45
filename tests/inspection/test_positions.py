"""Counts and positions of SuperActivators against their formulas, written out slowly."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from skact import (
    MeanPrototype,
    SuperActivator,
    SuperActivatorCountsDisplay,
    SuperActivatorPositionsDisplay,
    TokenArray,
    superactivator_counts,
    superactivator_positions,
    superactivators,
)
from skact.inspection._analysis import resample
from tests.inspection.analysis_case import NAMES, case, resampled

B = 25


@pytest.fixture(scope="module")
def data():
    stack, y, labels = case()
    return stack.layer(5).map(lambda scores: scores > 1.5, feature_names=NAMES), y, labels


def ratios_of(marks, y, labels):
    return [
        mark[:, c].sum() / label[:, c].sum()
        for mark, held, label in zip(marks, y, labels, strict=True)
        for c in range(2)
        if held[c]
    ]


def differences_of(marks, y, labels, relative):
    """Mean position of SuperActivators minus that of labelled tokens, of each pair."""
    found = []
    for mark, held, label in zip(marks, y, labels, strict=True):
        n = len(mark)
        place = (np.arange(n) + 0.5) / n if relative else np.arange(n)
        found += [
            place[mark[:, c]].mean() - place[label[:, c]].mean()
            for c in range(2)
            if held[c] and mark[:, c].any() and label[:, c].any()
        ]
    return found


def test_counts_are_their_formula(data):
    result = superactivator_counts(*data, n_steps=8, n_resamples=B, random_state=1)
    expected = ratios_of(*data)
    np.testing.assert_allclose(result.ratios, expected)
    assert max(expected) > 1  # unlabelled tokens of samples that hold the concept
    for place, r in enumerate(np.linspace(0, 1, 9)):
        assert result.mean[place] == pytest.approx(np.mean(np.array(expected) <= r))
    pairs = zip(result.sample, result.concept, strict=True)
    assert all(data[1][i, c] for i, c in pairs)
    assert len(expected) == data[1].sum()
    for drawn, counts in zip(result.resamples, resample(len(data[1]), B, 1)[1:], strict=True):
        again = np.array(ratios_of(*resampled(*data, counts)))
        np.testing.assert_allclose(drawn, [np.mean(again <= r) for r in result.grid])
    np.testing.assert_allclose(result.low, np.quantile(result.resamples, 0.025, axis=0))


def test_positions_are_their_formula(data):
    marks, y, labels = data
    result = superactivator_positions(marks, y, labels, n_resamples=B, random_state=1)
    for kind in ("relative", "absolute"):
        found = result[kind]
        expected = differences_of(*data, kind == "relative")
        assert result.n_pairs == len(expected)
        assert found.difference == pytest.approx(np.mean(expected))
        drawn = [
            np.mean(differences_of(*resampled(*data, counts), kind == "relative"))
            for counts in resample(len(y), B, np.random.RandomState(1))[1:]
        ]
        np.testing.assert_allclose(
            [found.low, found.high], np.quantile(drawn, [0.025, 0.975]), rtol=1e-9
        )
        for name, tokens in (("superactivators", marks), ("labelled", labels)):
            places = []
            for token, held in zip(tokens, y, strict=True):
                n = len(token)
                place = (np.arange(n) + 0.5) / n if kind == "relative" else np.arange(n)
                places += [place[token[:, c]] for c in range(2) if held[c]]
            counts, _ = np.histogram(np.concatenate(places), found.edges)
            np.testing.assert_allclose(found[name].mean, counts / counts.sum())


def positions_case(rng, n_samples, chosen):
    """Samples of 20 tokens, all of them labelled, and SuperActivators where ``chosen`` says."""
    offsets = 20 * np.arange(n_samples + 1)
    labels = TokenArray(np.ones((20 * n_samples, 1), bool), offsets)
    marks = np.concatenate([chosen(rng) for _ in range(n_samples)])[:, None]
    return labels.with_values(marks), labels


def run(rng):
    """Three tokens side by side, anywhere: SuperActivators come in clusters."""
    mark = np.zeros(20, bool)
    mark[rng.integers(18) + np.arange(3)] = True
    return mark


def late(rng):
    """Tokens that are later than others."""
    return rng.random(20) < np.linspace(0.1, 0.4, 20)


def p_value(rng, n_samples, chosen, **settings):
    marks, labels = positions_case(rng, n_samples, chosen)
    result = superactivator_positions(
        marks, np.ones((n_samples, 1)), labels, random_state=0, **settings
    )
    return result.relative.p_value


def test_by_hand():
    # Labelled 0, 1, 2; SuperActivators 2 and 3: means 1 and 2.5. Another: labelled 0, found 0.
    offsets = [0, 4, 6]
    labels = TokenArray(np.array([1, 1, 1, 0, 1, 0], bool)[:, None], offsets)
    marks = TokenArray(np.array([0, 0, 1, 1, 1, 0], bool)[:, None], offsets)
    result = superactivator_positions(marks, token_labels=labels, random_state=0, n_bins=4)
    assert result.absolute.difference == (1.5 + 0) / 2
    assert result.relative.difference == (1.5 / 4 + 0) / 2
    assert result.n_pairs == 2
    np.testing.assert_allclose(result.absolute.superactivators.mean, np.array([1, 0, 1, 1]) / 3)
    # Either sign of the only sample that differs is as far from 0.
    assert result.absolute.p_value == 1
    counts = superactivator_counts(marks, token_labels=labels, n_steps=2, random_state=0)
    np.testing.assert_allclose(counts.ratios, [2 / 3, 1])


def test_the_level_of_the_test_is_kept_where_tokens_cluster():
    """Under no difference, p < 0.1 comes about once in ten, although tokens are no independent."""
    rng = np.random.default_rng(0)
    small = [p_value(rng, 25, run, n_resamples=199) < 0.1 for _ in range(120)]
    assert 0.04 < np.mean(small) < 0.18
    # The control: a difference is found.
    assert p_value(rng, 60, late, n_resamples=199) < 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, y, t: superactivator_counts(m, y), "token_labels is missing"),
        (lambda m, y, t: superactivator_positions(m, y), "token_labels is missing"),
        (
            lambda m, y, t: superactivator_counts(m.map(np.float32), y, t),
            r"marks must be bool, got float32; superactivators\(estimator, X\) gives them",
        ),
        (lambda m, y, t: superactivator_counts(m[:5], y, t), "token_labels has 40 samples, marks"),
        (
            lambda m, y, t: superactivator_counts(m, np.ones_like(y), t),
            "token_labels marks no token of concept 'food' in sample 0, which holds it by y",
        ),
        (
            lambda m, y, t: superactivator_positions(m.map(np.zeros_like), y, t),
            "marks and token_labels never meet",
        ),
        (lambda m, y, t: superactivator_positions([1], y, t), "'marks' .* of bool"),
        (lambda m, y, t: SuperActivatorCountsDisplay({"grid": 1}), "but lacks 'mean'"),
        (
            lambda m, y, t: SuperActivatorPositionsDisplay(
                superactivator_positions(m, y, t, n_resamples=2)
            ).plot(kind="circular"),
            "'kind' parameter",
        ),
    ],
)
def test_bad_input(data, call, message):
    with pytest.raises(ValueError, match=message):
        call(*data)


def test_displays_read_an_estimator(rng):
    y = np.arange(30) % 2
    X = TokenArray.from_list([rng.normal(size=(5, 3)) + 3 * label for label in y])
    labels = X.with_values(np.repeat(y, 5)[:, None].astype(bool))
    pipe = make_pipeline(MeanPrototype(), SuperActivator(0.5)).fit(X, y)
    settings = {"n_resamples": 5, "random_state": 0}
    marks = superactivators(pipe, X)
    shown = SuperActivatorCountsDisplay.from_estimator(pipe, X, y, labels, **settings)
    expected = superactivator_counts(marks, y, labels, **settings)
    np.testing.assert_array_equal(shown.result.ratios, expected.ratios)
    np.testing.assert_allclose(shown.ax_.lines[0].get_ydata(), expected.mean)
    shown = SuperActivatorPositionsDisplay.from_estimator(pipe, X, y, labels, **settings)
    expected = superactivator_positions(marks, y, labels, **settings)
    np.testing.assert_allclose(shown.ax_.lines[1].get_ydata(), expected.relative.labelled.mean)
    assert shown.plot(kind="absolute").ax_.get_xlabel() == "absolute position"
