"""The paper's protocol on a data set: every detector, per-concept layer and delta, test F1.

    python benchmarks/detection_table.py --data FOLDER --model FOLDER_OR_NAME [--out TABLE.json]

FOLDER holds texts with spans (``samples.jsonl``) or images with masks (``index.jsonl``), split into
train, cal and test. Scalers and concept vectors are fitted on train, thresholds on cal. For each
concept, concept method and detector, the (layer, delta) with the best cal F1 is taken (ties: the
smaller delta, then the earlier layer), and its decisions on test are scored: F1 weighted by the
number of test samples with the concept, with a 95 % percentile bootstrap over samples. Nothing is
chosen on test.
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
    DELTA_GRID,
    LastToken,
    LayerStack,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    MeanToken,
    RandomToken,
    SuperActivator,
    TokenArray,
    TokenScaler,
    TransformerEmbedder,
    bootstrap_interval,
    concept_f1,
    load_masks,
    load_spans,
)

SEED = 0
METHODS = {"MeanPrototype": MeanPrototype(), "LinearSeparator": LinearSeparator()}
DETECTORS = {
    "RandomToken": RandomToken(random_state=SEED),
    "LastToken": LastToken(),
    "MeanToken": MeanToken(),
    "MaxToken": MaxToken(),
    "SuperActivator": SuperActivator(),
}
# The CLS baseline sees one vector per sample, so every aggregator is the same.
CLS = "CLS"


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


def embed(model, samples, layers):
    """Return token and CLS activations of all layers, one forward pass for each."""
    settings = {"layer": layers, "progress": sys.stderr.isatty()}
    tokens = TransformerEmbedder(model, **settings).transform(samples)
    return tokens, TransformerEmbedder(model, pooling="cls", **settings).transform(samples)


def evaluate(problem):
    """Run the protocol; a Row for each concept method and detector."""
    cal, test = problem.rows("cal"), problem.rows("test")
    found = {}
    for layer in problem.tokens.layers:
        for method in METHODS:
            scores = concept_scores(METHODS[method], problem.tokens.layer(layer), problem)
            for name, detector in DETECTORS.items():
                found[method, name, layer] = sweep(detector, scores, problem, problem.labels)
            pooled = concept_scores(METHODS[method], problem.cls.layer(layer), problem, False)
            found[method, CLS, layer] = sweep(MaxToken(), pooled, problem, None)
    rows = []
    for method in METHODS:
        for name in (*DETECTORS, CLS):
            per_layer = [found[method, name, layer] for layer in problem.tokens.layers]
            # (n_deltas, n_layers, n_samples, n_concepts): the first maximum is the smaller delta,
            # then the earlier layer.
            on_cal = np.stack([p[0] for p in per_layer], axis=1)
            on_test = np.stack([p[1] for p in per_layer], axis=1)
            f1 = concept_f1(problem.y[cal, None, None], np.moveaxis(on_cal, 2, 0))
            best = f1.reshape(-1, f1.shape[-1]).argmax(axis=0)
            delta, layer = np.unravel_index(best, f1.shape[:2])
            concepts = np.arange(len(best))
            predicted = on_test[delta, layer, :, concepts].T
            rows.append(
                Row(
                    method,
                    name,
                    [problem.tokens.layers[k] for k in layer],
                    [DELTA_GRID[k] for k in delta],
                    f1[delta, layer, concepts],
                    concept_f1(problem.y[test], predicted),
                    predicted,
                )
            )
    return rows


def concept_scores(method, tokens, problem, with_token_labels=True):
    """Scores of all samples by a method fitted on the training split alone."""
    train = problem.rows("train")
    scaler = TokenScaler().fit(tokens[train])
    scaled = scaler.transform(tokens)
    labels = problem.labels[train] if with_token_labels else None
    return method.fit(scaled[train], problem.y[train], token_labels=labels).transform(scaled)


def sweep(detector, scores, problem, labels):
    """Decisions on cal and on test for each delta, (n_deltas, n_samples, n_concepts) bool."""
    cal, test = problem.rows("cal"), problem.rows("test")
    labels = None if labels is None else labels[cal]
    fitted = [
        detector.set_params(delta=delta).fit(scores[cal], problem.y[cal], token_labels=labels)
        and (detector.predict(scores[cal]), detector.predict(scores[test]))
        for delta in DELTA_GRID
    ]
    return tuple(np.stack(part).astype(bool) for part in zip(*fitted, strict=True))


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
    lines = [
        f"{'concepts':<16} {'detector':<15} {'weighted test F1':<22} SuperActivator's gain over it"
    ]
    for row, score, gain in intervals(rows, problem):
        verdict = "" if row.detector == "SuperActivator" else f"{gain}"
        lines.append(f"{row.method:<16} {row.detector:<15} {score!s:<22} {verdict}")
    return "\n".join(lines)


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


def as_json(rows, problem, **about):
    """Everything in the table, as plain data."""
    return {
        **about,
        "python": platform.python_version(),
        "versions": {p: version(p) for p in ("scikit-learn", "numpy", "torch", "transformers")},
        "samples": {s: len(problem.rows(s)) for s in ("train", "cal", "test")},
        "table": [
            {
                "method": row.method,
                "detector": row.detector,
                "weighted_test_f1": round(score.estimate, 4),
                "interval": [round(score.low, 4), round(score.high, 4)],
                "gain_of_superactivator": round(gain.estimate, 4),
                "gain_interval": [round(gain.low, 4), round(gain.high, 4)],
                "concepts": {
                    name: {
                        "layer": int(row.layers[c]),
                        "delta": row.deltas[c],
                        "cal_f1": round(float(row.cal_f1[c]), 4),
                        "test_f1": round(float(row.test_f1[c]), 4),
                    }
                    for c, name in enumerate(problem.names)
                },
            }
            for row, score, gain in intervals(rows, problem)
        ],
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
        labels = TransformerEmbedder(model).align_masks(data.data, data.masks, data.target_names)
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
    parser.add_argument("--out", help="write the table as JSON to this file")
    args = parser.parse_args()
    layers = args.layers or list(range(TransformerEmbedder(args.model).n_blocks))
    start = time.perf_counter()
    problem = load(args.data, args.model, layers)
    embedded = time.perf_counter()
    rows = evaluate(problem)
    done = time.perf_counter()
    print(render(rows, problem))
    for method in METHODS:
        print(f"\nChosen on cal for SuperActivator on {method}:\n{choices(rows, problem, method)}")
    print(f"\nembedding {embedded - start:.0f} s, protocol {done - embedded:.0f} s")
    if args.out:
        names = {"data": short(args.data), "model": short(args.model)}
        command = "python benchmarks/detection_table.py --data {data} --model {model}"
        write_json(args.out, as_json(rows, problem, command=command.format(**names), **names))


if __name__ == "__main__":
    main()
