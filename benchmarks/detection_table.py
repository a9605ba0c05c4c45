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
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from common import SEED, load, short, write_json

from skact import (
    MaxToken,
    TransformerEmbedder,
    all_positive_f1_score,
    bootstrap_interval,
    concept_f1,
)
from skact.protocol import (
    CLS,
    DETECTORS,
    METHODS,
    cells,
    held_out_scores,
    ranking,
    search,
    used,
)


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


def evaluate(problem, methods=("MeanPrototype", "LinearSeparator")):
    """Run the protocol; a Row for each concept method and detector."""
    rows = []
    for name in methods:
        on_tokens = held_out_scores(METHODS[name], problem.tokens, problem, problem.labels)
        for detector in cells(name, list(DETECTORS))[:-1]:
            found = search(DETECTORS[detector], on_tokens, problem, problem.labels)
            rows.append(row(name, detector, *found, problem))
        on_cls = held_out_scores(used(name, CLS), problem.cls, problem, None)
        rows.append(row(name, CLS, *search(MaxToken(), on_cls, problem, None), problem))
    return rows


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
