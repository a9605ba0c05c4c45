"""Separable tails, coverage and skew against their formulas, written out slowly."""

from functools import partial

import numpy as np
import pytest
import sklearn
from matplotlib.collections import LineCollection
from scipy.stats import skew as scipy_skew

from skact import (
    CoverageDisplay,
    LayerStack,
    ScoreDistributionsDisplay,
    SeparabilityDisplay,
    SuperActivator,
    TokenArray,
    coverage,
    score_distributions,
    separability,
)
from skact.inspection import _distributions
from skact.inspection._analysis import resample
from tests.fresh import peak_of
from tests.inspection.analysis_case import NAMES, case, resampled

B = 30


def slowly(stack, y, labels, level=0.98):
    """Threshold, separable share, coverage, its control and skew: (5, n_layers, n_concepts)."""
    rows = []
    for layer in stack.layers:
        for c in range(y.shape[1]):
            inside, outside, reached, astray = [], [], [], []
            for tokens, of, held in zip(stack.layer(layer), labels, y[:, c], strict=True):
                inside += [float(s) for s, one in zip(tokens[:, c], of[:, c], strict=True) if one]
                if not held:
                    outside += tokens[:, c].astype(float).tolist()
            cut = np.quantile(outside, level) if outside else np.nan
            for tokens, held in zip(stack.layer(layer), y[:, c], strict=True):
                (reached if held else astray).append(tokens[:, c].max() > cut)
            share = np.mean(np.array(inside) > cut) if inside else np.nan
            skew = scipy_skew(inside) if inside else np.nan
            rows.append([cut, share, np.mean(reached), np.mean(astray), skew])
    shape = len(stack.layers), y.shape[1]
    return [np.reshape(column, shape) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.98])
def test_each_is_its_formula(dtype, level):
    stack, y, labels = case(dtype=dtype)
    cut, share, reached, astray, skew = slowly(stack, y, labels, level)
    settings = {"level": level, "n_resamples": 2, "random_state": 0}
    tail = separability(stack, y, labels, **settings)
    cover = coverage(stack, y, **settings)
    spread = score_distributions(stack, y, labels, **settings)
    for result in (tail, cover, cover.others, spread):
        np.testing.assert_allclose(result.thresholds, cut, rtol=1e-12)
        assert result.layers.tolist() == [2, 5]
        assert result.concept_names.tolist() == NAMES
    for result, expected in ((tail, share), (cover, reached), (cover.others, astray)):
        np.testing.assert_array_equal(result.share, expected)
        np.testing.assert_allclose(result.mean, expected.mean(axis=1))
    np.testing.assert_allclose(spread.skew, skew, rtol=1e-9)
    np.testing.assert_allclose(spread.mean, skew.mean(axis=1))


def test_a_resample_is_the_analysis_of_its_samples():
    stack, y, labels = case()
    counts = resample(len(y), B, 3)[1:]
    results = (
        separability(stack, y, labels, n_resamples=B, random_state=3),
        coverage(stack, y, n_resamples=B, random_state=3),
        coverage(stack, y, n_resamples=B, random_state=3).others,
        score_distributions(stack, y, labels, n_resamples=B, random_state=3),
    )
    drawn = [slowly(*resampled(stack, y, labels, one)) for one in counts]
    for place, result in enumerate(results, start=1):
        expected = np.array([np.nanmean(one[place], axis=1) for one in drawn])
        np.testing.assert_allclose(result.resamples, expected, rtol=1e-9)
        low, high = np.quantile(expected, [0.025, 0.975], axis=0)
        np.testing.assert_allclose([result.low, result.high], [low, high], rtol=1e-9)
    # The control: with the threshold of all samples, shares of resamples are others.
    fixed = slowly(stack, y, labels)[0]
    rows = np.repeat(np.arange(len(y)), counts[0])
    inside = stack[rows].layer(5).flat()[labels[rows].flat()[:, 0], 0]
    assert np.mean(inside > fixed[1, 0]) != drawn[0][1][1, 0]


def test_by_hand():
    # Outside: 0 to 10, whose quantile at 0.9 is 9; inside: 9 (not above), 9.5, 3.
    outside = np.arange(11.0)
    inside = np.array([9.0, 9.5, 3.0, 20.0])
    tokens = TokenArray(np.r_[outside, inside, 1.0][:, None], [0, 11, 15, 16])
    labels = tokens.with_values(np.isin(np.arange(16), [11, 12, 13])[:, None])
    settings = {"level": 0.9, "n_resamples": 1, "random_state": 0}
    result = separability(tokens, [0, 1, 1], labels, **settings)
    assert result.thresholds.tolist() == [[9.0]]
    assert result.share.tolist() == [[1 / 3]]
    assert result.layers.tolist() == [0]
    # The unlabelled token of 20 belongs to neither, but the sample reaches the tail.
    assert coverage(tokens, [0, 1, 1], **settings).share.tolist() == [[0.5]]
    assert coverage(tokens, [0, 1, 1], **settings).others.share.tolist() == [[1.0]]


def test_scores_that_say_nothing_separate_what_the_level_leaves(rng):
    """Two percent of noise lie above the quantile, and a sample of n tokens reaches it often."""
    lengths = np.full(400, 25)
    offsets = np.r_[0, np.cumsum(lengths)]
    y = np.arange(400) % 2
    labels = TokenArray(np.repeat(y, lengths)[:, None].astype(bool), offsets)
    noise = TokenArray(rng.normal(size=(10_000, 1)), offsets)
    tail = separability(noise, y, labels, n_resamples=200, random_state=0)
    assert tail.low[0] < 0.02 < tail.high[0]
    cover = coverage(noise, y, n_resamples=200, random_state=0)
    # Coverage alone would look like a finding.
    assert cover.low[0] < 1 - 0.98**25 < cover.high[0]
    assert cover.low[0] < cover.others.mean[0] < cover.high[0]
    shifted = noise.with_values(noise.flat() + 3 * labels.flat())
    assert separability(shifted, y, labels, n_resamples=20, random_state=0).mean[0] > 0.7


def test_intervals_hold_the_truth_as_often_as_they_say():
    """The share of the population is in nine of ten intervals of samples drawn from it."""
    stack, y, labels = case(2000, seed=1)
    truth = slowly(stack, y, labels, 0.9)[1].mean(axis=1)
    rng, hits = np.random.default_rng(0), []
    for seed in range(60):
        rows = rng.integers(2000, size=60)
        result = separability(
            stack[rows],
            y[rows],
            labels[rows],
            level=0.9,
            n_resamples=150,
            confidence_level=0.9,
            random_state=seed,
        )
        hits.append((result.low <= truth) & (truth <= result.high))
    assert 0.78 < np.mean(hits) < 0.98


def test_histograms_count_every_token_once():
    stack, y, labels = case()
    result = score_distributions(stack, y, labels, n_bins=7, n_resamples=1, random_state=0)
    for place, layer in enumerate(stack.layers):
        tokens, held = stack.layer(layer).flat(), np.repeat(y, stack.lengths, axis=0)
        for c in range(2):
            edges = result.edges[place, c]
            inside, outside = tokens[labels.flat()[:, c], c], tokens[held[:, c] == 0, c]
            both = np.r_[inside, outside]
            ends = float(both.min()), float(both.max())
            np.testing.assert_allclose(edges, np.linspace(*ends, 8))
            for name, values in (("inside", inside), ("outside", outside)):
                assert result[name][place, c].sum() == len(values)
                expected = np.histogram(values.astype(float), edges)[0]
                np.testing.assert_array_equal(result[name][place, c], expected)


def test_equal_scores_have_no_skew():
    y = [1, 0, 1]
    tokens = TokenArray(np.ones((6, 1)), [0, 2, 4, 6])
    labels = TokenArray(np.repeat(np.array(y, bool), 2)[:, None], [0, 2, 4, 6])
    result = score_distributions(tokens, y, labels, n_resamples=3, random_state=0)
    assert np.isnan(result.skew).all()
    assert np.isnan(result.mean).all()
    assert result.inside.sum() == 4
    assert separability(tokens, y, labels, n_resamples=3, random_state=0).share == 0


def test_what_is_on_disk_gives_the_same_and_is_not_held(tmp_path, monkeypatch):
    stack, y, labels = case(3000, layers=(0,))
    expected = separability(stack, y, labels, n_resamples=5, random_state=0)
    layer = stack.layer(0)
    np.save(tmp_path / "scores.npy", layer.flat())
    mapped = np.load(tmp_path / "scores.npy", mmap_mode="r")
    on_disk = LayerStack({0: TokenArray(mapped, layer.offsets, feature_names=NAMES)})
    with sklearn.config_context(working_memory=1):
        result = separability(on_disk, y, labels, n_resamples=5, random_state=0)
    for name in ("share", "thresholds", "resamples"):
        np.testing.assert_array_equal(result[name], expected[name])
    # Of the scores outside only the highest stay: here 6 % of them and no fewer than 50.
    monkeypatch.setattr(_distributions, "_FEWEST", 50)
    held = [
        tail.outside
        for tail in _distributions._tails(
            _distributions.read_samples(on_disk, y, labels, labelled=True), 0, 0.98
        )
    ]
    outside = int(layer.lengths @ (y == 0)[:, 0])
    assert abs(len(held[0]) - 0.06 * outside) < 1
    fewer = separability(on_disk, y, labels, n_resamples=5, random_state=0)
    np.testing.assert_array_equal(fewer.resamples, expected.resamples)


def test_scores_outside_are_not_all_held(tmp_path, monkeypatch):
    """Of one concept, 8 bytes a score and as many for its sample would be 16 per token."""
    lengths = np.full(200, 1500)
    offsets = np.r_[0, np.cumsum(lengths)]
    np.save(tmp_path / "scores.npy", np.random.default_rng(0).random((300_000, 1), np.float32))
    tokens = TokenArray(np.load(tmp_path / "scores.npy", mmap_mode="r"), offsets)
    y = np.arange(200) % 20 == 0

    def peak():
        with sklearn.config_context(working_memory=1):
            call = partial(coverage, tokens, y, n_resamples=1, random_state=0)
            return peak_of(call) / tokens.n_tokens

    assert peak() < 8
    monkeypatch.setattr(_distributions, "_MARGIN", 50)
    assert peak() > 16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, y, t: separability(s, y), "token_labels is missing: the analysis compares"),
        (lambda s, y, t: score_distributions(s, y), "token_labels is missing"),
        (lambda s, y, t: coverage(s), "y and token_labels are both missing"),
        (lambda s, y, t: separability(s, y, t[:3]), "token_labels has 3 samples, scores has 40"),
        (lambda s, y, t: separability(s, y[:3], t), "y has 3 samples"),
        (lambda s, y, t: separability(s, 0 * y, t), "no positive sample in y"),
        (lambda s, y, t: separability(s, y, t.map(np.zeros_like)), "no positive token"),
        (lambda s, y, t: coverage(s, 0 * y + 1), r"every sample holds concept 0 \('joy'\) by y"),
        (lambda s, y, t: coverage(s, y[:, 0]), "scores has 2 columns for 1 concepts; of units"),
        (
            lambda s, y, t: separability(s, y[:, ::-1], t.columns([1, 0])),
            "scores has the concepts in",
        ),
        (lambda s, y, t: separability(s, y, t, level=1.0), "'level' .* Got 1.0"),
        (lambda s, y, t: separability(s[:1], y[:1, :1], None), "token_labels is missing"),
        (
            lambda s, y, t: coverage(TokenArray(np.full((3, 1), np.nan), range(4)), [0, 1, 1]),
            "scores must be finite, but layer 0 holds NaN or infinity in samples 0 to 2",
        ),
        (lambda s, y, t: SeparabilityDisplay(5), "'result' parameter of SeparabilityDisplay must"),
        (lambda s, y, t: SeparabilityDisplay({}), "what separability returns, but lacks 'layers'"),
        (
            lambda s, y, t: ScoreDistributionsDisplay(score_distributions(s, y, t)).plot(layer=3),
            r"layer must be one of \[2, 5\] \(or negative\), got 3",
        ),
        (
            lambda s, y, t: ScoreDistributionsDisplay(score_distributions(s, y, t)).plot(concept=5),
            "concept must be one of",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(*case())


def test_labels_alone_say_what_samples_hold():
    stack, _, labels = case()
    both = separability(stack, labels.max().astype(int), labels, n_resamples=2, random_state=0)
    alone = separability(stack, token_labels=labels, n_resamples=2, random_state=0)
    np.testing.assert_array_equal(alone.share, both.share)


def test_displays_draw_the_result():
    stack, y, labels = case()
    settings = {"n_resamples": 10, "random_state": 0}
    display = SeparabilityDisplay.from_predictions(stack, y, labels, **settings)
    np.testing.assert_array_equal(display.ax_.lines[0].get_xdata(), [2, 5])
    np.testing.assert_allclose(display.ax_.lines[0].get_ydata(), display.result.mean)
    shown = CoverageDisplay(coverage(stack, y, **settings)).plot(ax=display.ax_)
    assert shown.figure_ is display.figure_
    np.testing.assert_allclose(shown.ax_.lines[2].get_ydata(), shown.result.others.mean)
    spread = ScoreDistributionsDisplay.from_predictions(stack, y, labels, **settings)
    assert spread.ax_.get_title().startswith("joy, block 5")
    assert spread.plot(layer=2, concept="food").ax_.get_title().startswith("food, block 2")
    np.testing.assert_allclose(
        spread.ax_.lines[0].get_xdata(), [spread.result.thresholds[0, 1]] * 2
    )


def test_a_detector_reads_scores():
    stack, y, labels = case()
    detector = SuperActivator().fit(stack.layer(5), y, labels)
    settings = {"n_resamples": 2, "random_state": 0}
    shown = SeparabilityDisplay.from_estimator(detector, stack.layer(5), y, labels, **settings)
    expected = separability(stack.layer(5), y, labels, **settings)
    np.testing.assert_array_equal(shown.result.share, expected.share)


def test_an_interval_is_seen_at_a_single_block_too():
    stack, y, labels = case(20)
    one = LayerStack({5: stack.layer(5)})
    found = separability(one, y, labels, n_resamples=50, random_state=0)
    ax = SeparabilityDisplay(found).plot().ax_
    (bar,) = (part for part in ax.collections if isinstance(part, LineCollection))
    ends = bar.get_segments()[0][:, 1]
    np.testing.assert_allclose(ends, [found.low[0], found.high[0]])
    assert ends[0] < ends[1]
    ticks = ax.get_xticks()
    assert np.array_equal(ticks, np.rint(ticks))
