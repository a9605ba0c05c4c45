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

from skact import (
    MaxToken,
    TransformerEmbedder,
    all_positive_f1_score,
    bootstrap_interval,
    concept_f1,
    load_masks,
    load_spans,
)
from skact.protocol import (
    CLS,
    DETECTORS,
    METHODS,
    Problem,
    cells,
    held_out_scores,
    mean_vectors,
    ranking,
    search,
    used,
)

SEED = 0


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
    """Return activations of tokens and of samples, all layers from one forward pass.

    Those of samples are read at the class token; the mean of tokens, where a model has none.
    """
    settings = {"layer": layers, "crop": "processor", "progress": sys.stderr.isatty()}
    reader = TransformerEmbedder(model, **settings)
    tokens = reader.transform(samples)
    if not reader.reader.loaded.has_cls:
        return tokens, mean_vectors(tokens)
    return tokens, TransformerEmbedder(model, pooling="cls", **settings).transform(samples)


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


def load_data(folder, model):
    """Read a data set, and label its tokens."""
    if (Path(folder) / "samples.jsonl").exists():
        data = load_spans(folder)
        labels = TransformerEmbedder(model).align_spans(data.data, data.spans, data.target_names)
    else:
        data = load_masks(folder)
        reader = TransformerEmbedder(model, crop="processor")
        labels = reader.align_masks(data.data, data.masks, data.target_names)
    return data, labels


def load(folder, model, layers):
    """Read a data set and embed it."""
    data, labels = load_data(folder, model)
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
