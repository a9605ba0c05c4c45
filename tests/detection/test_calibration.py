"""Every column as a detector of every concept, against loops that state the formulas."""

import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import clone

from skact import LastToken, MaxToken, MeanToken, SuperActivator, TokenArray, WeakSuperActivator
from skact.detection import BaseDetector

DELTAS = [0.05, 0.3, 0.8]
N_CONCEPTS, N_COLUMNS = 3, 4


def detectors():
    return [
        SuperActivator(),
        MaxToken(),
        MeanToken(),
        LastToken(),
        WeakSuperActivator(),
        WeakSuperActivator(share=0.4),
        WeakSuperActivator(objective="sample"),
    ]


@pytest.fixture
def data(rng):
    lengths = rng.integers(1, 12, size=60)
    scores = rng.normal(size=(lengths.sum(), N_COLUMNS)).astype(np.float32)
    labels = rng.random((lengths.sum(), N_CONCEPTS)) < 0.1
    scores[:, :N_CONCEPTS] += 2 * labels
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenArray(scores, offsets), TokenArray(labels, offsets)


@pytest.fixture(params=["memory", "disk"])
def stored(request, data, tmp_path):
    """The same scores in memory, and on disk in many small blocks."""
    scores, labels = data
    if request.param == "memory":
        yield scores, labels
        return
    file = np.memmap(tmp_path / "scores", np.float32, "w+", shape=scores.values.shape)
    file[:] = scores.values
    file.flush()
    file = np.memmap(tmp_path / "scores", np.float32, "r", shape=scores.values.shape)
    with sklearn.config_context(working_memory=1e-3):
        yield TokenArray(file, scores.offsets), labels


def quantile(values, delta):
    """Linear interpolation between order statistics, in single precision."""
    ordered = np.sort(np.float64(values))
    place = np.float64(np.float32(1 - delta)) * (len(ordered) - 1)
    low, high = int(np.floor(place)), int(np.ceil(place))
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def f1(truth, decided):
    hits = sum(t and d for t, d in zip(truth, decided, strict=True))
    return 2 * hits / max(sum(truth) + sum(decided), 1)


def best_cut(values, truth):
    """The largest of the cuts with the best F1."""
    cuts = sorted(set(values), reverse=True)
    return max(cuts, key=lambda cut: f1(truth, [v >= cut for v in values]))


def pool(detector, sample):
    how = {MeanToken: lambda s: np.mean(s, dtype=np.float64), LastToken: lambda s: s[-1]}.get(
        type(detector), np.max
    )
    return how(sample)


def threshold(detector, samples, marks, delta):
    """Threshold of one concept by the scores of one column."""
    truth = [bool(m.any()) for m in marks]
    pooled = [pool(detector, s) for s in samples]
    if isinstance(detector, SuperActivator):
        return quantile(np.concatenate(samples)[np.concatenate(marks)], delta)
    if not isinstance(detector, WeakSuperActivator):
        return quantile([p for p, t in zip(pooled, truth, strict=True) if t], delta)
    if detector.objective == "sample":
        return best_cut(pooled, truth)
    share = detector.share
    if share is None:
        share = np.mean([m.mean() for m in marks if m.any()])
    values, positive = [], []
    for sample, is_positive in zip(samples, truth, strict=True):
        k = max(int(np.ceil(delta * share * len(sample) - 1e-9)), 1)
        values += sorted(sample, reverse=True)[:k]
        positive += [is_positive] * k
    return best_cut(values, positive)


@pytest.mark.parametrize("detector", detectors(), ids=str)
def test_every_column_is_judged_as_the_formulas_say(detector, stored):
    scores, labels = stored
    y = labels.max().astype(int)
    table = detector.match_table(scores, y, labels, deltas=DELTAS)
    assert table.thresholds.shape == table.f1.shape == (len(DELTAS), N_CONCEPTS, N_COLUMNS)
    for d, delta in enumerate(DELTAS):
        for c in range(N_CONCEPTS):
            marks = [m[:, c] for m in labels]
            for k in range(N_COLUMNS):
                samples = [np.asarray(s[:, k]) for s in scores]
                cut = threshold(detector, samples, marks, delta)
                assert table.thresholds[d, c, k] == pytest.approx(cut, rel=1e-6)
                decided = [pool(detector, s) >= table.thresholds[d, c, k] for s in samples]
                assert table.f1[d, c, k] == pytest.approx(f1(y[:, c], decided))


@pytest.mark.parametrize("detector", detectors(), ids=str)
def test_paths_and_fits_read_the_table(detector, stored):
    scores, labels = stored
    y = labels.max().astype(int)
    table = detector.match_table(scores, y, labels, deltas=DELTAS)
    path = clone(detector).set_params(match_columns=True).fit_path(scores, y, labels, deltas=DELTAS)
    for d, fitted in enumerate(path):
        columns = table.f1[d].argmax(axis=1)
        np.testing.assert_array_equal(fitted.matched_columns_, columns)
        expected = table.thresholds[d, np.arange(N_CONCEPTS), columns]
        np.testing.assert_array_equal(fitted.thresholds_, expected)
        alone = clone(fitted).fit(scores, y, labels)
        np.testing.assert_array_equal(alone.thresholds_, expected)


def test_memory_and_disk_agree_to_the_bit(data, tmp_path):
    scores, labels = data
    np.save(tmp_path / "scores.npy", scores.values)
    mapped = TokenArray(np.load(tmp_path / "scores.npy", mmap_mode="r"), scores.offsets)
    y = labels.max().astype(int)
    for detector in detectors():
        whole = detector.match_table(scores, y, labels, deltas=DELTAS)
        with sklearn.config_context(working_memory=1e-3):
            parts = detector.match_table(mapped, y, labels, deltas=DELTAS)
        np.testing.assert_array_equal(whole.thresholds, parts.thresholds)


@pytest.mark.parametrize("detector", detectors()[:2], ids=str)
def test_marks_on_disk_are_those_of_the_fit_that_made_them(detector, data, tmp_path):
    scores, labels = data
    np.save(tmp_path / "scores.npy", scores.values)
    mapped = TokenArray(np.load(tmp_path / "scores.npy", mmap_mode="r"), scores.offsets)
    y = labels.max().astype(int)
    with sklearn.config_context(working_memory=1e-6):
        fitted = detector.set_params(match_columns=True, delta=0.1).fit(mapped, y, labels)
        marks, expected = fitted.superactivators(mapped), fitted.superactivators(scores).flat()
        assert not isinstance(marks.values, np.ndarray)  # they are computed when they are read
        fitted.set_params(delta=0.9).fit(mapped, y, labels)
        changed = fitted.superactivators(scores).flat()
        assert np.any(changed != expected)
        np.testing.assert_array_equal(marks.flat(), expected)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(marks)).flat(), expected)
        np.testing.assert_array_equal(fitted.superactivators(mapped).flat(), changed)


def test_a_detector_gets_the_pooled_scores_unless_it_declares_others(data):
    seen = []

    class Spy(BaseDetector):
        def _pool(self, scores):
            return scores.max()

        def _thresholds(self, reference, deltas):
            seen.append(reference)
            return np.zeros((len(deltas), reference.scores.shape[1]))

    scores, labels = data
    y = labels.max().astype(int)
    Spy(match_columns=True).fit(scores, y, labels)
    assert len(seen) == N_CONCEPTS
    for c, reference in enumerate(seen):
        np.testing.assert_array_equal(reference.scores, scores.max())
        np.testing.assert_array_equal(reference.positive, y[:, c] == 1)


@pytest.mark.parametrize("deltas", [[], "a", [[0.1, 0.2]], [0.1, "a"], {}])
@pytest.mark.parametrize("call", ["fit_path", "match_table"])
def test_deltas_that_are_none(call, deltas):
    with pytest.raises(ValueError, match="deltas must hold one or more numbers"):
        getattr(SuperActivator(), call)(np.eye(2), [0, 1], deltas=deltas)
