"""F1 by layer and delta against their formulas, written out slowly; and read off a search."""

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.pipeline import Pipeline

from skact import (
    DELTA_GRID,
    BestLayersDisplay,
    BestSparsityDisplay,
    ConceptSearchCV,
    DepthCurveDisplay,
    LayerStack,
    MaxToken,
    MeanPrototype,
    SelectLayer,
    SparsityCurveDisplay,
    SuperActivator,
    TokenArray,
    best_layers,
    best_sparsity,
    depth_curve,
    sparsity_curve,
    tail_threshold,
)
from skact.inspection._analysis import resample
from tests.inspection.analysis_case import NAMES, case

DELTAS = [0.1, 0.4, 0.8]
N = 120
CAL = np.arange(N) % 3 == 0
B = 20
QUICK = {"deltas": DELTAS, "n_resamples": B, "random_state": 0}


@pytest.fixture(scope="module")
def data():
    return case(N, seed=2, layers=(0, 3, 7))


def pool(scores, kind):
    return np.array([getattr(sample, kind)(axis=0) for sample in scores])


def decisions(stack, y, labels, kind="max"):
    """Cuts from calibration samples; decisions on all, (n_layers, n_deltas, n_samples, n)."""
    rows = []
    for layer in stack.layers:
        scores = stack.layer(layer)
        pooled = pool(scores, kind)
        for delta in DELTAS:
            cuts = []
            for c in range(y.shape[1]):
                if kind == "max":  # SuperActivator
                    inside = scores[CAL].flat()[labels[CAL].flat()[:, c], c]
                else:
                    inside = pooled[CAL & (y[:, c] == 1), c]
                cuts.append(tail_threshold(inside, delta))
            rows.append(pooled >= np.array(cuts))
    return np.reshape(rows, (len(stack.layers), len(DELTAS), *y.shape))


def f1_of(y, decided):
    """F1 (n_layers, n_deltas, n_concepts)."""
    return np.array(
        [
            [
                [f1_score(y[:, c], one[:, c], zero_division=0) for c in range(y.shape[1])]
                for one in row
            ]
            for row in decided
        ]
    )


def choose(f1):
    """Layer and delta of the best F1: the smaller delta, then the earlier layer among equals."""
    n_layers, n_deltas, n_concepts = f1.shape
    return [
        max(
            ((layer, delta) for delta in range(n_deltas) for layer in range(n_layers)),
            key=lambda at: f1[at[0], at[1], c],
        )
        for c in range(n_concepts)
    ]


def test_sparsity_curve_is_its_formula(data):
    stack, y, labels = data
    result = sparsity_curve(stack, y, labels, calibration=CAL, **QUICK)
    decided = decisions(stack, y, labels)
    best = choose(f1_of(y[CAL], decided[:, :, CAL]))
    f1 = f1_of(y[~CAL], decided[:, :, ~CAL])
    for c, (layer, delta) in enumerate(best):
        assert result.layers[c] == stack.layers[layer]
        assert result.best_deltas[c] == DELTAS[delta]
        np.testing.assert_allclose(result.f1[:, c], f1[layer, :, c])
    counts = resample((~CAL).sum(), B, 0)[1:]
    for d in range(len(DELTAS)):
        found = np.stack([decided[layer, d, ~CAL, c] for c, (layer, _) in enumerate(best)], axis=1)
        expected = f1_score(y[~CAL], found, average="weighted")
        np.testing.assert_allclose(result.mean[d], expected)
        drawn = [
            f1_score(*(np.repeat(a, n, axis=0) for a in (y[~CAL], found)), average="weighted")
            for n in counts
        ]
        np.testing.assert_allclose(result.resamples[:, d], drawn)
        ends = np.quantile(drawn, [0.025, 0.975])
        np.testing.assert_allclose([result.low[d], result.high[d]], ends)


def test_depth_curve_is_its_formula(data):
    stack, y, labels = data
    result = depth_curve(stack, y, labels, calibration=CAL, **QUICK)
    names = ["SuperActivator", "MaxToken", "MeanToken", "LastToken", "RandomToken"]
    assert result.detectors == names
    assert result.mean.shape == (5, 3)
    for kind, row in (("max", 0), ("mean", 2)):
        decided = decisions(stack, y, labels, kind)
        on_cal = f1_of(y[CAL], decided[:, :, CAL])
        for place in range(3):
            found = []
            for c in range(2):
                delta = int(on_cal[place, :, c].argmax())
                assert result.best_deltas[row, place, c] == DELTAS[delta]
                found.append(decided[place, delta, ~CAL, c])
            found = np.stack(found, axis=1)
            expected = f1_score(y[~CAL], found, average=None)
            np.testing.assert_allclose(result.f1[row, place], expected)
            expected = f1_score(y[~CAL], found, average="weighted")
            np.testing.assert_allclose(result.mean[row, place], expected)
    assert (result.low <= result.mean).all()
    assert (result.mean <= result.high).all()


def test_choices_are_counted(data):
    stack, y, labels = (part[CAL] for part in data)
    full = decisions(*data)[:, :, CAL]
    f1 = f1_of(y, full)
    sparsity = best_sparsity(stack, y, labels, **QUICK)
    best = f1.argmax(axis=1)
    np.testing.assert_array_equal(sparsity.best_deltas, np.array(DELTAS)[best])
    for layer in range(3):
        expected = np.bincount(best[layer], minlength=3)
        np.testing.assert_array_equal(sparsity.counts[layer], expected)
    only = {"SuperActivator": SuperActivator()}
    layers = best_layers(stack, y, labels, detectors=only, **QUICK)
    chosen = [layer for layer, _ in choose(f1)]
    assert layers.best_layers.tolist() == [[stack.layers[layer] for layer in chosen]]
    np.testing.assert_array_equal(layers.counts[0], np.bincount(chosen, minlength=3))
    # A resample chooses anew, with the thresholds it was given.
    for b, counts in enumerate(resample(len(y), B, 0)[1:]):
        rows = np.repeat(np.arange(len(y)), counts)
        drawn = f1_of(y[rows], full[:, :, rows])
        for layer in range(3):
            expected = np.bincount(drawn.argmax(axis=1)[layer], minlength=3)
            np.testing.assert_array_equal(sparsity.resamples[b, layer], expected)
        expected = np.bincount([layer for layer, _ in choose(drawn)], minlength=3)
        np.testing.assert_array_equal(layers.resamples[b, 0], expected)
    # The control: not all resamples choose alike.
    assert (sparsity.low < sparsity.high).any()


def test_by_hand():
    # Calibration: four samples with the concept, 1 to 4, and one without, 2.6. The cuts at 0.25,
    # 0.5 and 0.75 are 3.25, 2.5 and 1.75, with an F1 of 2 / 5, 4 / 7 and 6 / 8.
    # Others: 3 and 2 with the concept, 2.7 and 0 without: F1 of 0, 2 / 4 and 4 / 5.
    values = np.array([1, 2, 3, 4, 2.6, 3, 2, 2.7, 0])[:, None]
    y = np.array([1, 1, 1, 1, 0, 1, 1, 0, 0])
    good = TokenArray(values, range(10))
    stack = LayerStack({3: good, 8: good.map(np.negative)})
    cal, settings = np.arange(9) < 5, {"deltas": [0.25, 0.5, 0.75], "n_resamples": 2}
    curve = sparsity_curve(stack, y, calibration=cal, **settings)
    np.testing.assert_allclose(curve.mean, [0, 0.5, 0.8])
    assert (curve.layers.tolist(), curve.best_deltas.tolist()) == ([3], [0.75])
    depth = depth_curve(stack, y, calibration=cal, detectors={"ours": SuperActivator()}, **settings)
    # Negated, the cuts are -1.75, -2.5 and -3.25: best on calibration is 0.75 again, with 6 / 8;
    # there -3, -2, -2.7 and 0 are all above it.
    np.testing.assert_allclose(depth.mean, [[0.8, 2 / 3]])
    assert depth.best_deltas.ravel().tolist() == [0.75, 0.75]
    found = best_sparsity(stack[cal], y[cal], **settings)
    assert found.counts.tolist() == [[0, 0, 1], [0, 0, 1]]
    found = best_layers(stack[cal], y[cal], detectors={"ours": SuperActivator()}, **settings)
    assert found.counts.tolist() == [[1, 0]]


def test_ties_go_to_the_smaller_delta_then_the_earlier_layer():
    y = np.array([1, 0, 1, 0])
    tokens = TokenArray(np.array([[3.0], [0.0], [3.0], [1.0]]), range(5))
    stack = LayerStack({4: tokens, 6: tokens})
    result = best_layers(stack, y, n_resamples=1, random_state=0)
    assert result.best_layers.ravel().tolist() == [4] * 5
    result = best_sparsity(stack, y, n_resamples=1, random_state=0)
    assert result.best_deltas.ravel().tolist() == [DELTA_GRID[0]] * 2


@pytest.fixture(scope="module")
def searched(data):
    """A search by the protocol of the analyses: thresholds and choices on the same samples."""
    stack, y, labels = (part[CAL] for part in data)
    everything = np.arange(len(y))
    pipe = Pipeline([("layer", SelectLayer()), ("detect", SuperActivator())])
    grid = {"layer__layer": stack.layers, "detect__delta": DELTAS}
    search = ConceptSearchCV(pipe, grid, cv=[(everything, everything)])
    return search.fit(stack, y, token_labels=labels)


def test_a_search_says_the_same(data, searched):
    part = [given[CAL] for given in data]
    only = {"SuperActivator": SuperActivator()}
    pairs = (
        (best_sparsity(searched), best_sparsity(*part, **QUICK), ("best_deltas", "counts")),
        (
            best_layers(searched),
            best_layers(*part, detectors=only, **QUICK),
            ("best_layers", "counts", "detectors"),
        ),
    )
    for ours, theirs, fields in pairs:
        for field in (*fields, "layers", "concept_names"):
            np.testing.assert_array_equal(ours[field], theirs[field])
        assert np.isnan(ours.low).all()
    curve, depth = sparsity_curve(searched), depth_curve(searched)
    for c, name in enumerate(NAMES):
        best = searched.best_params_[name]
        assert curve.layers[c] == best["layer__layer"]
        assert curve.best_deltas[c] == best["detect__delta"]
        assert curve.f1[:, c].max() == searched.best_score_[c]
    n = part[1].sum(axis=0)
    np.testing.assert_allclose(curve.mean, curve.f1 @ n / n.sum())
    assert depth.f1.shape == (1, 3, 2)
    np.testing.assert_allclose(depth.f1[0].max(axis=0), searched.best_score_)


def test_a_search_scores_other_samples(data, searched):
    stack, y, labels = data
    shown = DepthCurveDisplay.from_estimator(searched, stack, y, labels, calibration=CAL, **QUICK)
    expected = depth_curve(stack, y, labels, calibration=CAL, **QUICK)
    np.testing.assert_array_equal(shown.result.mean, expected.mean)
    alone = DepthCurveDisplay.from_estimator(searched, None)
    np.testing.assert_array_equal(alone.result.mean, depth_curve(searched).mean)


def test_a_search_with_concept_methods_scores_at_the_layers_of_its_winners(rng):
    y = np.arange(60) % 2
    X = TokenArray.from_list([rng.normal(size=(4, 3)) + 2 * label for label in y])
    stack = LayerStack({1: X, 2: X.map(lambda values: values + 5 * rng.normal(size=values.shape))})
    pipe = Pipeline(
        [("layer", SelectLayer()), ("concepts", MeanPrototype()), ("detect", SuperActivator())]
    )
    grid = {"layer__layer": [1, 2], "detect__delta": DELTAS}
    search = ConceptSearchCV(pipe, grid, cv=3).fit(stack, y)
    shown = SparsityCurveDisplay.from_estimator(
        search, stack, y, calibration=np.arange(60) < 30, **QUICK
    )
    assert shown.result.layers.tolist() == [1]
    scores = search.best_estimators_["1"][:-1].transform(stack)
    expected = sparsity_curve(scores, y, calibration=np.arange(60) < 30, **QUICK)
    np.testing.assert_array_equal(shown.result.mean, expected.mean)


def test_displays_draw_the_result(data, searched):
    stack, y, labels = data
    shown = SparsityCurveDisplay.from_predictions(stack, y, labels, calibration=CAL, **QUICK)
    np.testing.assert_array_equal(shown.ax_.lines[0].get_xdata(), DELTAS)
    np.testing.assert_allclose(shown.ax_.lines[0].get_ydata(), shown.result.mean)
    shown = BestSparsityDisplay.from_estimator(searched, None)
    np.testing.assert_array_equal(shown.ax_.images[0].get_array(), shown.result.counts)
    shown = BestLayersDisplay.from_predictions(stack, y, labels, **QUICK)
    heights = [bar.get_height() for bars in shown.ax_.containers for bar in bars]
    np.testing.assert_array_equal(heights, shown.result.counts.ravel())
    shown = DepthCurveDisplay(depth_curve(stack, y, labels, calibration=CAL, **QUICK)).plot()
    assert [t.get_text() for t in shown.ax_.get_legend().get_texts()] == shown.result.detectors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, y, t: sparsity_curve(s, y, t), r"calibration must be bool of shape \(120,\)"),
        (lambda s, y, t: sparsity_curve(s, y, t, calibration=[True] * N), "calibration must be"),
        (lambda s, y, t: depth_curve(s, y, t, calibration=np.arange(N)), "calibration must be"),
        (lambda s, y, t: depth_curve(s, y, t, calibration="half"), "'calibration'"),
        (
            lambda s, y, t: depth_curve(
                s.layer(0).map(np.positive), y * ~CAL[:, None], calibration=CAL
            ),
            "calibration holds no sample with concept 'concept0', so it has no threshold",
        ),
        (lambda s, y, t: best_sparsity(s, y, t, deltas=[0.5, 0.1]), r"'deltas' .* ascending"),
        (lambda s, y, t: best_sparsity(s), "y and token_labels are both missing"),
        (lambda s, y, t: best_layers(s, y, detectors={}), "'detectors' .* a dict of names"),
        (lambda s, y, t: best_layers(s, y, detectors={"a": 3}), "'detectors'"),
        (lambda s, y, t: best_layers({2: s}, y), "'scores' .* LayerStack"),
        (
            lambda s, y, t: best_layers(ConceptSearchCV(MaxToken(), {"delta": [0.1]})),
            "scores is a search that is not fitted",
        ),
        (
            lambda s, y, t: best_layers(
                ConceptSearchCV(MaxToken(), {"delta": [0.1]}, cv=2).fit(s.layer(0), y)
            ),
            "varies 0 parameters called layer",
        ),
    ],
)
def test_bad_input(data, call, message):
    with pytest.raises(ValueError, match=message):
        call(*data)


def test_a_search_brings_its_own_samples(data, searched):
    with pytest.raises(
        ValueError, match="y and token_labels must be None where scores is a search"
    ):
        sparsity_curve(searched, data[1])
