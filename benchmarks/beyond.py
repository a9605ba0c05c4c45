"""Look for detectors and concept methods that are better than those of the paper.

    python benchmarks/beyond.py --data FOLDER --model FOLDER_OR_NAME --decisions FILE.npz
        [--layers BLOCK ...] [--methods NAME ...] [--out RESULT.json]

Candidates are compared on train and cal alone. These samples are dealt into fifths; five times, one
fifth is decided on, the next one calibrates, three train: the protocol of ``skact paper``
with other splits. The decisions of the five turns together give one F1 over all samples, with
paired bootstrap intervals of the gain over SuperActivator and MaxToken. The test split serves the
final comparison only: what was chosen, next to the two.

``--decisions`` keeps the decisions between runs, so that the work can be done in pieces with
``--methods``.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import SEED, load, short, write_json
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skact import (
    LayerStack,
    LinearSeparator,
    MaxSeparator,
    MaxToken,
    MeanPrototype,
    SuperActivator,
    TokenArray,
    TransformerEmbedder,
    WeakSuperActivator,
    bootstrap_interval,
)
from skact.detection import BaseDetector
from skact.protocol import held_out_scores, search
from skact.tail import best_cut, tail_threshold

# Concept method, and whether it gets the labels of tokens.
METHODS = {
    "LinearSeparator": (LinearSeparator(), True),
    "MeanPrototype": (MeanPrototype(), True),
    "LinearSeparator, weight_decay=0.01": (LinearSeparator(weight_decay=0.01), True),
    "LinearSeparator, sample labels": (LinearSeparator(weight_decay=0.01), False),
    "MaxSeparator": (MaxSeparator(), False),
    "Logistic on [mean, max] of tokens": (LinearSeparator(weight_decay=0.01), False),
}
POOLED = "Logistic on [mean, max] of tokens"
LAYERS = "MaxToken, mean of layers"
STACKED = "Tail statistics, logistic"
REFERENCES = [
    (method, detector)
    for method in ("LinearSeparator", "MeanPrototype")
    for detector in ("SuperActivator", "MaxToken")
]
CHOSEN = ("MaxSeparator", "MaxToken")
N_FOLDS = 5


class TopMean(BaseDetector):
    """Mean of the three highest scores; threshold from positive samples."""

    def _pool(self, scores):
        return np.stack([np.sort(sample, axis=0)[-3:].mean(axis=0) for sample in scores])

    def _thresholds(self, reference, deltas):
        return tail_threshold(reference.scores[reference.positive], deltas)


class BaggedCut(BaseDetector):
    """Largest score against the mean of the cuts that are best on 50 resamples."""

    def _pool(self, scores):
        return scores.max()

    def _thresholds(self, reference, deltas):
        random = np.random.default_rng(SEED)
        n_samples = len(reference.positive)
        cuts = []
        while len(cuts) < 50:
            rows = random.integers(n_samples, size=n_samples)
            if reference.positive[rows].any():
                cuts.append(best_cut(reference.scores[rows, 0], reference.positive[rows]))
        return np.full((len(deltas), 1), np.mean(cuts))


class ExpectedCut(BaseDetector):
    """Largest score against the cut with the best F1 that a logistic curve expects."""

    def _pool(self, scores):
        return scores.max()

    def _thresholds(self, reference, deltas):
        scores = reference.scores[:, :1].astype(np.float64)
        curve = make_pipeline(StandardScaler(), LogisticRegression())
        chance = curve.fit(scores, reference.positive).predict_proba(scores)[:, 1]
        order = np.argsort(-scores[:, 0])
        found = np.arange(1, len(order) + 1)
        f1 = 2 * np.cumsum(chance[order]) / (found + chance.sum())
        return np.full((len(deltas), 1), scores[order[np.argmax(f1)], 0])


DETECTORS = {
    "SuperActivator": SuperActivator(),
    "MaxToken": MaxToken(),
    "Exact cut": WeakSuperActivator(objective="sample"),
    "Bagged cut": BaggedCut(),
    "Expected-F1 cut": ExpectedCut(),
    "Mean of the top 3": TopMean(),
}


def decide(name, problem, detectors):
    """Decisions on the test part of a problem, for each detector on one concept method."""
    method, with_labels = METHODS[name]
    labels = problem.labels if with_labels else None
    if name == POOLED:
        scores = held_out_scores(method, pooled(problem.tokens), problem, None)
        return {"": search(MaxToken(), scores, problem, None)[1]}
    scores = held_out_scores(method, problem.tokens, problem, labels)
    found = {
        key: search(detector, scores, problem, problem.labels)[1]
        for key, detector in DETECTORS.items()
        if key in detectors
    }
    if LAYERS in detectors:
        found[LAYERS] = search(MaxToken(), mean_of_layers(scores), problem, None)[1]
    if STACKED in detectors:
        found[STACKED] = stacked(scores, problem)
    return found


def pooled(stack):
    """Mean and maximum of the tokens of each sample, side by side, as one token."""
    one_each = np.arange(len(stack) + 1)
    parts = {layer: stack.layer(layer) for layer in stack.layers}
    return LayerStack(
        {k: TokenArray(np.hstack([X.mean(), X.max()]), one_each) for k, X in parts.items()}
    )


def mean_of_layers(scores):
    """Average the scores of all layers, each in units of its standard deviation."""
    parts = [scores.layer(layer) for layer in scores.layers]
    total = sum(part.flat() / part.flat().std(axis=0) for part in parts)
    return LayerStack({0: TokenArray(total / len(parts), np.r_[0, np.cumsum(parts[0].lengths)])})


def stacked(scores, problem):
    """Logistic regression on statistics of the scores at all layers, fitted on cal."""
    n_cal = len(problem.rows("cal"))
    truth = problem.y[problem.rows("cal")].astype(bool)
    parts = [scores.layer(layer) for layer in scores.layers]
    decided = []
    for c, present in enumerate(truth.T):
        inputs = np.hstack([statistics(part.columns([c]), n_cal, present) for part in parts])
        curve = make_pipeline(StandardScaler(), LogisticRegression(C=0.03))
        out_of_fold = cross_val_predict(
            curve, inputs[:n_cal], present, cv=5, method="decision_function"
        )
        cut = best_cut(out_of_fold, present)
        decided.append(curve.fit(inputs[:n_cal], present).decision_function(inputs[n_cal:]) >= cut)
    return np.stack(decided, axis=1)


def statistics(scores, n_cal, present):
    """Numbers that describe the tail of one concept's scores in each sample."""
    highest = scores.max()
    outside = scores[:n_cal][np.flatnonzero(~present)].flat()
    above = [scores.map(lambda s, q=q: s > np.quantile(outside, q)).sum() for q in (0.9, 0.98)]
    tail = TopMean().pool(scores)
    lengths = np.log(scores.lengths)[:, None]
    return np.hstack([highest, tail, scores.mean(), *np.log1p(above), lengths])


def rotations(problem):
    """Five problems on train and cal, each with the next fifth as its test part."""
    rows = np.flatnonzero(problem.split != "test")
    fold = np.random.default_rng(SEED).permutation(np.arange(len(rows)) % N_FOLDS)
    for turn in range(N_FOLDS):
        split = np.full(len(problem.y), "unused")
        split[rows] = "train"
        split[rows[fold == (turn + 1) % N_FOLDS]] = "cal"
        split[rows[fold == turn]] = "test"
        yield replace(problem, split=split)


def compare(truth, decisions, references):
    """F1 of all candidates, and their gain over the references, with intervals."""
    lines = []
    for name, decided in decisions.items():
        line = {"candidate": name, **plain(bootstrap_interval(truth, decided, random_state=SEED))}
        for other in references:
            if other in decisions and other != name:
                gain = bootstrap_interval(
                    truth, decided, baseline=decisions[other], random_state=SEED
                )
                line[f"gain over {other}"] = plain(gain)
        lines.append(line)
    return lines


def plain(interval):
    low, high = round(interval.low, 4), round(interval.high, 4)
    return {"f1": round(interval.estimate, 4), "interval": [low, high]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl or index.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--layers", type=int, nargs="+", help="blocks; default all")
    parser.add_argument("--decisions", required=True, help="file (.npz) that keeps decisions")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    layers = args.layers or list(range(TransformerEmbedder(args.model).n_blocks))
    problem = load(args.data, args.model, layers)
    kept = dict(np.load(args.decisions)) if Path(args.decisions).exists() else {}
    compared = problem.split != "test"
    for name in args.methods:
        for turn in rotations(problem):
            decided = decide(name, turn, [*DETECTORS, LAYERS, STACKED])
            for detector, found in decided.items():
                whole = kept.setdefault(f"cv/{name} / {detector}", np.zeros(problem.y.shape, bool))
                whole[turn.rows("test")] = found
        wanted = [d for m, d in (*REFERENCES, CHOSEN) if m == name]
        for detector, found in decide(name, problem, wanted).items() if wanted else ():
            kept[f"test/{name} / {detector}"] = found
        np.savez_compressed(args.decisions, **kept)
    references = [" / ".join(pair) for pair in REFERENCES]
    on_cv = {k[3:]: v[compared] for k, v in kept.items() if k.startswith("cv/")}
    on_test = {k[5:]: v for k, v in kept.items() if k.startswith("test/")}
    names = {"data": short(args.data), "model": short(args.model)}
    command = "python benchmarks/beyond.py --data {data} --model {model} --decisions FILE.npz"
    result = {
        "command": command.format(**names)
        + " --layers "
        + " ".join(map(str, problem.tokens.layers)),
        "samples": int(compared.sum()),
        "cross-validation": compare(problem.y[compared], on_cv, references),
        "test": compare(problem.y[problem.rows("test")], on_test, references),
    }
    for part in ("cross-validation", "test"):
        for line in result[part]:
            print(part, line)
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
