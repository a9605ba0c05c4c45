"""The paper's protocol on a data set: every concept method and detector, test F1 with intervals.

    python benchmarks/detection_table.py --data FOLDER --model FOLDER_OR_NAME
        [--methods NAME ...] [--out TABLE.json]

FOLDER holds texts with spans (``samples.jsonl``) or images with masks (``index.jsonl``), split into
train, cal and test. Of an image the model sees what the image processor makes of it. Scalers and
concept vectors are fitted on train. ConceptSearchCV then sets the thresholds on cal, matches units
with concepts there, and takes for each concept and detector the (layer, delta) with the best cal F1
(ties: the smaller delta, then the earlier layer). The decisions of these winners on test are
scored: F1 weighted by the number of test samples with the concept, with a 95 % percentile bootstrap
over samples, beside the F1 of saying yes to everything. AUROC, average precision and TPR at 1 % FPR
of the winners' pooled scores are weighted in the same way. Nothing is chosen on test.

Methods without labels are fitted on every third layer only, to keep the run short. With
``--methods`` the rows of other methods in the file ``--out`` are kept, so that a table can be made
in pieces.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline

from skact import (
    DELTA_GRID,
    AutoencoderTraining,
    ConceptSearchCV,
    DifferenceInMeans,
    KMeansConcepts,
    KMeansSeparator,
    LastToken,
    LayerStack,
    LinearSeparator,
    MaxSeparator,
    MaxToken,
    MeanPrototype,
    MeanToken,
    NMFConcepts,
    PCAConcepts,
    RandomToken,
    SelectLayer,
    SemiNMFConcepts,
    SparseAutoencoder,
    SuperActivator,
    TokenArray,
    TokenScaler,
    TransformerEmbedder,
    WeakSuperActivator,
    all_positive_f1_score,
    bootstrap_interval,
    concept_f1,
    load_masks,
    load_spans,
    tpr_at_fpr_score,
)
from skact.concepts import BaseConcepts

SEED = 0
METHODS = {
    "LinearSeparator": LinearSeparator(),
    "MeanPrototype": MeanPrototype(),
    "DifferenceInMeans": DifferenceInMeans(),
    "MaxSeparator": MaxSeparator(),
    "KMeansConcepts": KMeansConcepts(200, max_iter=20, random_state=SEED),
    "KMeansSeparator": KMeansSeparator(50, max_iter=20, random_state=SEED),
    "PCAConcepts": PCAConcepts(100),
    "SparseAutoencoder": SparseAutoencoder(
        128,
        "topk",
        k=8,
        training=AutoencoderTraining(max_epochs=3, batch_size=1024),
        random_state=SEED,
    ),
    "NMFConcepts": NMFConcepts(16, max_iter=30, random_state=SEED),
    "SemiNMFConcepts": SemiNMFConcepts(4, max_iter=30, random_state=SEED),
}
DETECTORS = {
    "RandomToken": RandomToken(random_state=SEED),
    "LastToken": LastToken(),
    "MeanToken": MeanToken(),
    "MaxToken": MaxToken(),
    "SuperActivator": SuperActivator(),
    "WeakSuperActivator": WeakSuperActivator(),
    "Exact cut": WeakSuperActivator(objective="sample"),
}
# The CLS baseline sees one vector per sample, so every aggregator is the same.
CLS = "CLS"
# k-means on vectors of samples gets the paper's number of clusters; so do the other units.
N_UNITS_CLS = 50


@dataclass
class Problem:
    """A data set, embedded at several layers."""

    tokens: LayerStack
    cls: LayerStack
    labels: TokenArray
    y: np.ndarray
    split: np.ndarray
    names: list[str]

    def rows(self, split):
        """Numbers of the samples of a split."""
        return np.flatnonzero(self.split == split)


@dataclass
class Row:
    """One line of the table."""

    method: str
    detector: str
    layers: list[int]
    deltas: list[float]
    cal_f1: np.ndarray
    test_f1: np.ndarray
    predicted: np.ndarray
    ranking: dict[str, float]


def embed(model, samples, layers):
    """Return token and CLS activations of all layers, one forward pass for each."""
    settings = {"layer": layers, "crop": "processor", "progress": sys.stderr.isatty()}
    tokens = TransformerEmbedder(model, **settings).transform(samples)
    return tokens, TransformerEmbedder(model, pooling="cls", **settings).transform(samples)


def evaluate(problem, methods=("MeanPrototype", "LinearSeparator")):
    """Run the protocol; a Row for each concept method and detector."""
    rows = []
    for name in methods:
        method = METHODS[name]
        labelled = isinstance(method, BaseConcepts)
        on_tokens = held_out_scores(method, problem.tokens, problem, problem.labels)
        for detector in DETECTORS:
            # Sorting the tokens of every column for every concept takes too long for many units.
            if labelled or detector != "WeakSuperActivator":
                found = search(DETECTORS[detector], on_tokens, problem, problem.labels)
                rows.append(row(name, detector, *found, problem))
        if not labelled:
            method = clone(method).set_params(n_concepts=min(method.n_concepts, N_UNITS_CLS))
        on_cls = held_out_scores(method, problem.cls, problem, None)
        rows.append(row(name, CLS, *search(MaxToken(), on_cls, problem, None), problem))
    return rows


def held_out_scores(method, stack, problem, labels):
    """Scores of the samples in cal, then of those in test, at each layer."""
    train, held = problem.rows("train"), np.r_[problem.rows("cal"), problem.rows("test")]
    labelled = isinstance(method, BaseConcepts)
    scores = {}
    for layer in stack.layers if labelled else stack.layers[2::3]:
        tokens = stack.layer(layer)
        scaler = TokenScaler().fit(tokens[train])
        first, rest = (scaler.transform(tokens[rows]) for rows in (train, held))
        if isinstance(method, NMFConcepts):
            first, rest = first.map(halves), rest.map(halves)
        given = {"token_labels": labels[train]} if labelled and labels is not None else {}
        scores[layer] = method.fit(first, problem.y[train], **given).transform(rest)
    return LayerStack(scores)


def halves(values):
    """Positive and negative parts side by side: features that are never negative."""
    return np.hstack([np.maximum(values, 0), np.maximum(-values, 0)])


def search(detector, scores, problem, labels):
    """Let each concept choose on cal; the fitted search, its decisions and scores on test."""
    cal = problem.rows("cal")
    everything = np.arange(len(cal))
    deltas = (detector.delta,) if isinstance(detector, WeakSuperActivator) else DELTA_GRID
    found = ConceptSearchCV(
        Pipeline([("layer", SelectLayer()), ("detect", detector)]),
        {"layer__layer": scores.layers, "detect__delta": deltas},
        # Thresholds are set and compared on the same samples.
        cv=[(everything, everything)],
    )
    labels = None if labels is None else labels[cal]
    found.fit(scores[: len(cal)], problem.y[cal], token_labels=labels)
    test = scores[len(cal) :]
    return found, found.predict(test).astype(bool), found.decision_function(test)


def ranking(truth, scores):
    """Figures that need no cut, weighted by positives; of concepts that some samples hold."""
    truth, scores = (np.reshape(given, (len(truth), -1)) for given in (truth, scores))
    held = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    weights = truth[:, held].sum(axis=0)
    each = {"auroc": roc_auc_score, "average_precision": average_precision_score}
    figures = {
        name: np.average([score(truth[:, c], scores[:, c]) for c in held], weights=weights)
        for name, score in each.items()
    }
    figures["tpr_at_1_fpr"] = tpr_at_fpr_score(truth[:, held], scores[:, held])
    return {name: round(float(value), 4) for name, value in figures.items()}


def row(method, detector, found, predicted, scores, problem):
    best, truth = found.best_params_.values(), problem.y[problem.rows("test")]
    return Row(
        method,
        detector,
        [params["layer__layer"] for params in best],
        [params["detect__delta"] for params in best],
        found.best_score_,
        concept_f1(truth.astype(bool), predicted),
        predicted,
        ranking(truth, scores),
    )


def intervals(rows, problem):
    """Weighted test F1 of each row, and the paired gain of SuperActivator over it."""
    truth = problem.y[problem.rows("test")]
    ours = {row.method: row.predicted for row in rows if row.detector == "SuperActivator"}
    for row in rows:
        score = bootstrap_interval(truth, row.predicted, random_state=SEED)
        gain = bootstrap_interval(
            truth, ours[row.method], baseline=row.predicted, random_state=SEED
        )
        yield row, score, gain


def render(rows, problem):
    """Format the table as text."""
    heads = f"{'weighted test F1':<22} AUROC    AP   TPR at 1 % FPR  SuperActivator's gain in F1"
    lines = [f"{'concepts':<17} {'detector':<18} {heads}"]
    for row, score, gain in intervals(rows, problem):
        verdict = "" if row.detector == "SuperActivator" else f"{gain}"
        auroc, precision, tpr = row.ranking.values()
        figures = f"{auroc:.3f} {precision:.3f} {tpr:<15.3f}"
        lines.append(f"{row.method:<17} {row.detector:<18} {score!s:<22} {figures} {verdict}")
    floor = all_positive_f1_score(problem.y[problem.rows("test")])
    return "\n".join([*lines, f"{'yes to everything':<36} {floor:.3f}"])


def choices(rows, problem, method, detector="SuperActivator"):
    """Format the layer and delta chosen for each concept as text."""
    row = next(r for r in rows if (r.method, r.detector) == (method, detector))
    lines = [f"{'concept':<14} {'layer':>5} {'delta':>6} {'cal F1':>7} {'test F1':>8}"]
    for c, name in enumerate(problem.names):
        lines.append(
            f"{name:<14} {row.layers[c]:>5} {row.deltas[c]:>6} {row.cal_f1[c]:>7.3f} "
            f"{row.test_f1[c]:>8.3f}"
        )
    return "\n".join(lines)


def as_json(rows, problem, before=(), **about):
    """Everything in the table, as plain data, with what other methods had before."""
    made = {row.method for row in rows}
    table = [old for old in before if old["method"] not in made]
    table += [entry(*line, problem.names) for line in intervals(rows, problem)]
    return {
        **about,
        "python": platform.python_version(),
        "versions": {p: version(p) for p in ("scikit-learn", "numpy", "torch", "transformers")},
        "samples": {s: len(problem.rows(s)) for s in ("train", "cal", "test")},
        "methods": {name: str(METHODS[name]) for name in METHODS},
        "floor": round(all_positive_f1_score(problem.y[problem.rows("test")]), 4),
        "table": sorted(table, key=lambda one: list(METHODS).index(one["method"])),
    }


def entry(row, score, gain, names):
    """One line of the table, as plain data."""
    return {
        "method": row.method,
        "detector": row.detector,
        "weighted_test_f1": round(score.estimate, 4),
        "interval": [round(score.low, 4), round(score.high, 4)],
        "gain_of_superactivator": round(gain.estimate, 4),
        "gain_interval": [round(gain.low, 4), round(gain.high, 4)],
        **row.ranking,
        "concepts": {
            name: {
                "layer": int(row.layers[c]),
                "delta": row.deltas[c],
                "cal_f1": round(float(row.cal_f1[c]), 4),
                "test_f1": round(float(row.test_f1[c]), 4),
            }
            for c, name in enumerate(names)
        },
    }


def write_json(path, data):
    """Write a file in one step, so that a stopped run leaves no half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(json.dumps(data, indent=1) + "\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def short(path):
    """Return the last two parts of a path: enough to know a folder by, the same everywhere."""
    return "/".join(Path(path).parts[-2:])


def load(folder, model, layers):
    """Read a data set and embed it."""
    if (Path(folder) / "samples.jsonl").exists():
        data = load_spans(folder)
        labels = TransformerEmbedder(model).align_spans(data.data, data.spans, data.target_names)
    else:
        data = load_masks(folder)
        reader = TransformerEmbedder(model, crop="processor")
        labels = reader.align_masks(data.data, data.masks, data.target_names)
    tokens, cls = embed(model, data.data, layers)
    # A concept that is cut off by truncation is not in what the model sees.
    return Problem(tokens, cls, labels, data.target, data.split, list(data.target_names))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl or index.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument(
        "--layers", type=float, nargs="+", default=None, help="depth fractions; default all blocks"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default all"
    )
    parser.add_argument("--out", help="write the table as JSON to this file")
    args = parser.parse_args()
    layers = args.layers or list(range(TransformerEmbedder(args.model).n_blocks))
    names = {"data": short(args.data), "model": short(args.model)}
    before = []
    if args.out and Path(args.out).exists():
        old = json.loads(Path(args.out).read_text())
        if {key: old[key] for key in names} != names:
            parser.error(f"{args.out} holds the table of {old['data']} with {old['model']}.")
        before = old["table"]
    start = time.perf_counter()
    problem = load(args.data, args.model, layers)
    embedded = time.perf_counter()
    rows = evaluate(problem, args.methods)
    done = time.perf_counter()
    print(render(rows, problem))
    for method in args.methods:
        print(f"\nChosen on cal for SuperActivator on {method}:\n{choices(rows, problem, method)}")
    print(f"\nembedding {embedded - start:.0f} s, protocol {done - embedded:.0f} s")
    if args.out:
        command = "python benchmarks/detection_table.py --data {data} --model {model}"
        about = {"command": command.format(**names), **names}
        write_json(args.out, as_json(rows, problem, before, **about))


if __name__ == "__main__":
    main()
