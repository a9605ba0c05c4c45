"""How many labelled samples does it take? Concept methods learnt from 4 to 128 positives.

    python benchmarks/few_positives.py --data FOLDER --model FOLDER_OR_NAME --layer DEPTH
        [--concepts N] [--draws N] [--sizes N ...] [--out RESULT.json]

FOLDER is as for ``paper.py``. Of each of the N concepts with the most positives, so many positives
and three times as many others are drawn from train and cal, each size out of the next larger one.
Scaler and concept vector are fitted on them, in four folds for the scores that the cut with the
best expected F1 is made from, and on all of them for what is to come. Judged are all samples of
test, which nobody draws from, by the largest score: AUROC, the true positive rate at 1 % false
positives, F1, and the F1 of saying yes to everything. Some methods learn from labels of tokens,
some from labels of samples, and "CLS" is the linear separator of one vector per sample (the mean of
tokens where a model has no class token). The control learns from labels of samples dealt at random.
Intervals are 95 % percentile bootstraps over concepts of means over draws; gains over the linear
separator of tokens are paired.
"""

import argparse

import numpy as np
import sklearn
from common import SEED, load, short, write_json
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline

from skact import (
    CrossFitTransformer,
    DifferenceInMeans,
    LinearSeparator,
    MaxSeparator,
    MeanPrototype,
    TokenScaler,
    TopWindows,
    all_positive_f1_score,
    tpr_at_fpr_score,
    weighted_f1_score,
)

#: Concept method, and whether it learns from labels of tokens, of samples, or of one vector each.
LINES = {
    "MeanPrototype": (MeanPrototype(), "tokens"),
    "DifferenceInMeans, whitened": (DifferenceInMeans(whiten=True), "tokens"),
    "LinearSeparator": (LinearSeparator(), "tokens"),
    "MaxSeparator": (MaxSeparator(), "samples"),
    "LinearSeparator, CLS": (LinearSeparator(), "vectors"),
    "MaxSeparator, random labels": (MaxSeparator(), "random"),
}
REFERENCE = "LinearSeparator"
OTHERS = 3  # for each positive


def drawn(y, n_positive, rng):
    """Rows of positives (1) and of others (0), in the order in which they are taken."""
    positive = rng.permutation(np.flatnonzero(y == 1))
    others = rng.permutation(np.flatnonzero(y == 0))
    return positive[:n_positive], others[: OTHERS * n_positive]


def judged(line, learn, y, labels, test, truth, rng):
    """Figures on test of a concept method learnt from a few samples."""
    method, given = line
    if given == "random":
        y = rng.permutation(y)
    known = {"token_labels": labels} if given == "tokens" else {}
    folds = StratifiedKFold(4, shuffle=True, random_state=SEED).split(y, y)
    steps = Pipeline([("scale", TokenScaler()), ("concepts", sklearn.clone(method))])
    crossed = CrossFitTransformer(steps, cv=list(folds))
    seen = crossed.fit_transform(learn, y[:, None], **known).with_source(None)
    detector = TopWindows(None, cut="expected_f1").fit(seen, y[:, None])
    decision = detector.decision_function(crossed.transform(test).with_source(None)).ravel()
    return {
        "auroc": float(roc_auc_score(truth, decision)),
        "tpr_at_1_fpr": float(tpr_at_fpr_score(truth, decision)),
        "f1": float(weighted_f1_score(truth, (decision > 0).astype(int))),
    }


def mean_with_interval(values):
    """Mean of (n_concepts, n_draws), and a bootstrap over concepts."""
    means = np.mean(values, axis=1)
    ends = bootstrap(
        (means,), np.mean, n_resamples=2000, method="percentile", rng=SEED
    ).confidence_interval
    return [round(float(v), 4) for v in (means.mean(), ends.low, ends.high)]


def table(found):
    """Means over concepts of (size, line) -> arrays of concepts and draws, by metric."""
    lines = []
    for (size, name), figures in found.items():
        line = {"positives": size, "line": name}
        for metric, values in figures.items():
            line[metric] = mean_with_interval(values)
            if name != REFERENCE:
                gain = values - found[size, REFERENCE][metric]
                line[f"gain in {metric}"] = mean_with_interval(gain)
        lines.append(line)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl or index.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--layer", type=float, required=True, help="depth fraction")
    parser.add_argument("--concepts", type=int, default=8, help="those with most positives")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128])
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    sklearn.set_config(enable_metadata_routing=True)
    problem = load(args.data, args.model, [args.layer])
    tokens, vectors = (stack.layer(stack.layers[0]) for stack in (problem.tokens, problem.cls))
    learn = np.flatnonzero(problem.split != "test")
    test = problem.rows("test")
    # What is cut off where the model reads no further teaches nothing of tokens.
    located = problem.labels.max()
    counts = (located & (problem.y == 1))[learn].sum(axis=0)
    concepts = np.argsort(-counts, kind="stable")[: args.concepts]
    if counts[concepts].min() < max(args.sizes):
        parser.error(f"--sizes: the concepts have {sorted(counts[concepts].tolist())} positives.")
    found, floors = {}, []
    for c in concepts:
        truth = problem.y[test, c]
        floors.append(all_positive_f1_score(truth))
        for draw in range(args.draws):
            rng = np.random.default_rng([SEED, int(c), draw])
            kept = np.where(problem.y[learn, c] == located[learn, c], problem.y[learn, c], -1)
            positive, others = drawn(kept, max(args.sizes), rng)
            for size in args.sizes:
                rows = learn[np.sort(np.r_[positive[:size], others[: OTHERS * size]])]
                labels = problem.labels[rows].map(lambda flat, c=c: flat[:, [c]])
                for name, line in LINES.items():
                    read = vectors if line[1] == "vectors" else tokens
                    some, y = read[rows], problem.y[rows, c]
                    figures = judged(line, some, y, labels, read[test], truth, rng)
                    for metric, value in figures.items():
                        cells = found.setdefault((size, name), {})
                        cells.setdefault(metric, []).append(value)
        print(problem.names[c], flush=True)
    shape = len(concepts), args.draws
    found = {
        key: {metric: np.reshape(values, shape) for metric, values in figures.items()}
        for key, figures in found.items()
    }
    result = {
        "command": f"python benchmarks/few_positives.py --data {short(args.data)} "
        f"--model {short(args.model)} --layer {args.layer}",
        "concepts": [problem.names[c] for c in concepts],
        "draws": args.draws,
        "test samples": len(test),
        "floor": round(float(np.mean(floors)), 4),
        "table": table(found),
    }
    for line in result["table"]:
        print(line)
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
