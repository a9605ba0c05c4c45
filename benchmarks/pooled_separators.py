"""Separators through the pool beside those of tokens, on one layer: time and figures of merit.

    OMP_NUM_THREADS=2 python benchmarks/pooled_separators.py --data FOLDER --model FOLDER_OR_NAME
        --layer BLOCK [--also BLOCK ...] [--rows NAME ...] [--out RESULT.json]

FOLDER holds texts with spans (``samples.jsonl``), split into train, cal and test. Scalers and
concept vectors are fitted on train, with labels of samples or, where the row says so, of tokens;
the cut with the best expected F1 is set on cal; nothing is chosen on test. F1, AUROC, average
precision and TPR at 1 % FPR are those of test, weighted by the number of test samples with the
concept, F1 with a 95 % bootstrap over samples and with its gain over the first row. The floor is
the F1 of yes to everything. ``--also`` names the layers that "layers side by side" adds. With
``--rows`` the other rows in the file ``--out`` are kept.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
from common import SEED, short, write_json
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.pipeline import make_pipeline

from skact import (
    DifferenceInMeans,
    JoinLayers,
    LinearSeparator,
    MaxSeparator,
    SelectLayer,
    TokenScaler,
    TopWindows,
    TransformerEmbedder,
    bootstrap_interval,
    load_spans,
    weighted_f1_score,
)

WINDOWS = {"window": 3, "top": 2}
# Concept method, whether it gets the labels of tokens, windows of the detector.
ROWS = {
    "MaxSeparator": (MaxSeparator(), False, {}),
    "LinearSeparator": (LinearSeparator(), True, {}),
    "LinearSeparator, ridge 1e-5": (LinearSeparator(weight_decay=1e-5), True, {}),
    "DifferenceInMeans, whitened": (DifferenceInMeans(whiten=True), True, {}),
    "max": (MaxSeparator(None), False, {}),
    "top windows": (MaxSeparator(None, **WINDOWS), False, WINDOWS),
    "ridge 1e-2": (MaxSeparator(weight_decay=1e-2), False, {}),
    "ridge 1e-4": (MaxSeparator(weight_decay=1e-4), False, {}),
    "ridge auto": (MaxSeparator(weight_decay="auto"), False, {}),
    "ridge auto, labels of tokens": (
        MaxSeparator(weight_decay="auto", token_weight=0.3),
        True,
        {},
    ),
    "labels of tokens": (MaxSeparator(token_weight=0.3), True, {}),
    "benign variance": (MaxSeparator(benign_variance=0.01), False, {}),
    "layers side by side": (MaxSeparator(), False, {}),
    "ridge 1e-4, layers side by side": (MaxSeparator(weight_decay=1e-4), False, {}),
}
JOINED = "layers side by side"


def tpr_at(truth, scores, fpr=0.01):
    """Recall at the lowest cut that keeps the share of false alarms."""
    false, true, _ = roc_curve(truth, scores)
    return true[false <= fpr].max()


def judge(name, stack, layer, data, labels):
    """Fit and judge one row: its line, and its decisions on test."""
    method, with_labels, windows = ROWS[name]
    train, cal, test = (np.flatnonzero(data.split == part) for part in ("train", "cal", "test"))
    joined = name.endswith(JOINED)
    first = (JoinLayers(),) if joined else (SelectLayer(layer), TokenScaler())
    before = make_pipeline(*first).fit(stack[train])
    tokens = [before.transform(stack[rows]) for rows in (train, cal, test)]
    given = {"token_labels": labels[train]} if with_labels else {}
    start, busy = time.perf_counter(), time.process_time()
    method.fit(tokens[0], data.target[train], **given)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    detector = TopWindows(None, cut="expected_f1", **windows)
    detector.fit(method.transform(tokens[1]), data.target[cal])
    scores, truth = method.transform(tokens[2]), data.target[test]
    pooled, found = detector.pool(scores), detector.predict(scores)
    weights = truth.sum(axis=0)

    def mean(metric):
        each = [metric(*column) for column in zip(truth.T, pooled.T, strict=True)]
        return round(float(np.average(each, weights=weights)), 4)

    interval = bootstrap_interval(truth, found, random_state=SEED)
    line = {
        "row": name,
        "method": str(method).replace("\n", ""),
        "labels of tokens": with_labels,
        "f1": round(interval.estimate, 4),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
        "auroc": mean(roc_auc_score),
        "average precision": mean(average_precision_score),
        "tpr at 1 % fpr": mean(tpr_at),
        "fit_s": round(seconds, 1),
        "fit_cpu_s": round(busy, 1),
    }
    if isinstance(method, MaxSeparator):
        values, counts = np.unique(method.weight_decay_, return_counts=True)
        line["weight_decay"] = dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))
        line["iterations"] = method.n_iter_
    return line, found


def table(stack, layer, data, labels, names):
    """Lines of the rows, each with its gain over the first of all."""
    truth, lines = data.target[data.split == "test"], []
    reference = judge(next(iter(ROWS)), stack, layer, data, labels)
    for name in names:
        line, found = (
            reference if name == reference[0]["row"] else judge(name, stack, layer, data, labels)
        )
        gain = bootstrap_interval(truth, found, baseline=reference[1], random_state=SEED)
        line["gain"] = [round(v, 4) for v in (gain.estimate, gain.low, gain.high)]
        lines.append(line)
        print(line, flush=True)
    return lines


def embedded(folder, model, layers):
    """Return samples, their tokens at some layers, and labels of the tokens."""
    data = load_spans(folder)
    embedder = TransformerEmbedder(model, layer=layers, progress=False)
    labels = embedder.align_spans(data.data, data.spans, data.target_names)
    return data, embedder.transform(data.data), labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--layer", type=int, required=True, help="block that the rows read")
    parser.add_argument("--also", type=int, nargs="*", default=[], help="blocks beside it")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="default all")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    layers = sorted({args.layer, *args.also})
    data, stack, labels = embedded(args.data, args.model, layers)
    before = []
    if args.out and Path(args.out).exists():
        before = json.loads(Path(args.out).read_text())["table"]
    result = report(args, data, stack, labels, before)
    if args.out:
        write_json(args.out, result)


def report(args, data, stack, labels, before):
    """All that is known, as plain data."""
    truth = data.target[data.split == "test"]
    also = "".join(f" {block}" for block in args.also)
    kept = [line for line in before if line["row"] not in args.rows]
    lines = kept + table(stack, args.layer, data, labels, args.rows)
    return {
        "command": f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')} python "
        f"benchmarks/pooled_separators.py --data {short(args.data)} --model {short(args.model)} "
        f"--layer {args.layer} --also{also}",
        "load average": [round(load, 1) for load in os.getloadavg()],
        "samples": {p: int((data.split == p).sum()) for p in ("train", "cal", "test")},
        "training tokens": int(stack[np.flatnonzero(data.split == "train")].lengths.sum()),
        "floor": round(weighted_f1_score(truth, np.ones_like(truth)), 4),
        "table": sorted(lines, key=lambda line: list(ROWS).index(line["row"])),
    }


if __name__ == "__main__":
    main()
