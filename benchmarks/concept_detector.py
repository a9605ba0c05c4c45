"""ConceptDetector against the paper's detectors, and against the rows it chooses from, on test.

    python benchmarks/concept_detector.py --data FOLDER --model FOLDER_OR_NAME
        [--limit N] [--out RESULT.json]

FOLDER holds texts with spans (``samples.jsonl``) or images with masks (``index.jsonl``), split into
train, cal and test. Four layers, at a quarter, a half, three quarters and all of the depth.

paper             LinearSeparator with SuperActivator and with MaxToken by the protocol of
                  ``skact paper``: vectors from train, thresholds and the choice of layer and delta
                  from cal, each concept by itself
ConceptDetector   on train and cal together, with the labels of tokens
row               one layer, method and pool for all concepts, as ConceptDetector fits them: the one
                  with the best cross-validated F1, and the one with the best F1 on test, which
                  nobody could have known

Beside each weighted F1 on test stand the floor (saying yes to everything), the mean over concepts,
weighted alike, of AUROC and average precision, the true positive rate at 1 % false positives, and
the paired gain of ConceptDetector in F1 and in that rate.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import pandas as pd
import sklearn
from common import SEED, short, write_json
from sklearn.metrics import average_precision_score, roc_auc_score

from skact import (
    ConceptDetector,
    CrossFitTransformer,
    LinearSeparator,
    MaxToken,
    SuperActivator,
    TransformerEmbedder,
    all_positive_f1_score,
    bootstrap_interval,
    load_masks,
    load_spans,
    tpr_at_fpr_score,
)
from skact.protocol import Problem, held_out_scores, search

DEPTHS = [0.25, 0.5, 0.75, 1.0]


def read(folder, limit):
    """Read data, and say what of it tells where concepts are."""
    where = "spans" if (Path(folder) / "samples.jsonl").exists() else "masks"
    data = load_spans(folder) if where == "spans" else load_masks(folder)
    if limit and limit < len(data.data):
        rows = np.sort(np.random.default_rng(SEED).permutation(len(data.data))[:limit])
        for name in ("data", where, "target", "split"):
            data[name] = sklearn.utils._safe_indexing(data[name], rows)
    held = np.ones(data.target.shape[1], bool)
    for part in (data.split == "train", data.split == "cal", data.split == "test"):
        held &= data.target[part].sum(axis=0) >= 2
    return data, where, held


def figures(truth, found, decision):
    """F1 with its interval and what stands beside it."""
    f1 = bootstrap_interval(truth, found, random_state=SEED)
    return {
        "f1": round(f1.estimate, 4),
        "interval": [round(f1.low, 4), round(f1.high, 4)],
        "auroc": round(roc_auc_score(truth, decision, average="weighted"), 4),
        "average_precision": round(average_precision_score(truth, decision, average="weighted"), 4),
        "tpr_at_1_fpr": round(tpr_at_fpr_score(truth, decision), 4),
    }


def paper(embedder, data, where, names):
    """Decisions on test of the paper's detectors, and their scores."""
    columns = [list(data.target_names).index(name) for name in names]
    if where == "spans":
        labels = embedder.align_spans(data.data, data.spans, names)
    else:
        masks = [mask[:, :, columns] for mask in data.masks]
        labels = embedder.align_masks(data.data, masks, names)
    y = data.target[:, columns]
    problem = Problem(embedder.transform(data.data), None, labels, y, data.split, names)
    scores = held_out_scores(LinearSeparator(), problem.tokens, problem, labels)
    for detector in (SuperActivator(), MaxToken()):
        _, found, decision = search(detector, scores, problem, labels)
        name = f"LinearSeparator, {type(detector).__name__}"
        yield name, found, decision


class Remembering(CrossFitTransformer):
    """Keep what each head says of samples that it did not see, to judge all rows by it."""

    seen: ClassVar = []

    def fit_transform(self, X, y=None, **more):
        """Score each sample by a head that did not see it."""
        scores = super().fit_transform(X, y, **more)
        self.seen.append(scores.with_source(None))
        return scores


def rows(detector, y, labels, test):
    """Decisions on test of each row that ConceptDetector chooses from; cross-validated F1 first."""
    found = detector.search_.cv_results_
    per_concept = np.array([found[f"mean_test_{name}"] for name in detector.concept_names_])
    cv_f1 = np.average(per_concept, axis=0, weights=y.sum(axis=0))
    new = {}
    for i, params in enumerate(found["params"]):
        head, pool = params["head__layer"], params["detect"]
        if head not in new:
            new[head] = detector.heads_[head].transform(test).with_source(None)
        fitted = sklearn.clone(pool).fit(Remembering.seen[head], y, token_labels=labels)
        decision = fitted.decision_function(new[head])
        steps = detector.heads_[head].named_steps
        name = f"block {steps['layer'].layer_}, {steps['concepts']}, {pool}"
        yield cv_f1[i], name, decision > 0, decision


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl or index.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--limit", type=int, help="draw so many samples")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    data, where, held = read(args.data, args.limit)
    names = [str(name) for name, kept in zip(data.target_names, held, strict=True) if kept]
    split = np.asarray(data.split)
    learn, test = np.flatnonzero(split != "test"), np.flatnonzero(split == "test")
    y = pd.DataFrame(data.target[:, held], columns=names)
    truth = y.to_numpy()[test]
    with tempfile.TemporaryDirectory() as store:
        embedder = TransformerEmbedder(args.model, DEPTHS, store=store)
        start = time.perf_counter()
        layers = embedder.transform(data.data)
        embedded = time.perf_counter()
        detector = ConceptDetector(embedder, layer=DEPTHS, random_state=SEED)
        pick = sklearn.utils._safe_indexing
        located = pick(data[where], learn)
        if where == "masks":
            located = [mask[:, :, held] for mask in located]
        with mock.patch("skact.auto._choice.CrossFitTransformer", Remembering):
            detector.fit(pick(data.data, learn), y.iloc[learn], **{where: located})
        fitted = time.perf_counter()
        decision = detector.decision_function(pick(data.data, test)).reshape(len(test), -1)
        ours = decision > 0
        table = {"ConceptDetector": (ours, decision)}
        table |= {name: both for name, *both in paper(embedder, data, where, names)}
        align = embedder.align_spans if where == "spans" else embedder.align_masks
        labels = align(pick(data.data, learn), located, names)
        tried = list(rows(detector, y.to_numpy()[learn], labels, layers[test]))
    best = {
        "row, best in cross-validation": max(tried, key=lambda row: row[0]),
        "row, best on test": max(tried, key=lambda row: figures(truth, *row[2:])["f1"]),
    }
    table |= {name: row[2:] for name, row in best.items()}
    lines = []
    for name, (found, decided) in table.items():
        gain = bootstrap_interval(truth, ours, baseline=found, random_state=SEED)
        more = {"gain_of_concept_detector": [round(float(v), 4) for v in gain]}
        gain = bootstrap_interval(
            truth, decision, baseline=decided, metric=tpr_at_fpr_score, random_state=SEED
        )
        more["gain_in_tpr_at_1_fpr"] = [round(float(v), 4) for v in gain]
        if name in best:
            more["what"] = best[name][1]
        lines.append({"name": name, **figures(truth, found, decided), **more})
        print(lines[-1])
    command = f"python benchmarks/concept_detector.py --data {short(args.data)} --model "
    command += short(args.model) + (f" --limit {args.limit}" if args.limit else "")
    result = {
        "command": command,
        "samples": {part: int((split == part).sum()) for part in ("train", "cal", "test")},
        "concepts": len(names),
        "floor": round(all_positive_f1_score(truth), 4),
        "seconds": {"embedding": round(embedded - start), "fit": round(fitted - embedded)},
        "table": lines,
        "results_": {key: value.tolist() for key, value in detector.results_.items()},
    }
    print({key: value for key, value in result.items() if key not in ("table", "results_")})
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
