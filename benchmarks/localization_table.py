"""Where is the concept? Ten methods and two targets, judged by labels and by faithfulness.

    python benchmarks/localization_table.py --data FOLDER --model FOLDER_OR_NAME [--out TABLE.json]

FOLDER holds texts with spans (``samples.jsonl``) or images with masks (``index.jsonl``); the word
``shapes`` renders images instead, for the model that comes with the package. Scaler and separators
are fitted on train; SuperActivators, with the ``delta`` of the best F1, on cal; the threshold of
each map on some positive cal samples. Maps are judged on some test samples, of at most half as many
tokens as there are masks, on the pairs of sample and concept that hold the concept and at least one
SuperActivator of it: the same pairs for every method and both targets. Intervals are 95 %
percentile bootstraps over these samples, and the gain of the local target over the global one is
paired. A run that was stopped goes on behind the last method in its ``--out`` file.
"""

import argparse
import json
import platform
import time
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from detection_table import short, write_json
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing

from skact import (
    LinearSeparator,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
    bootstrap_interval,
    load_masks,
    load_spans,
    make_shapes,
    shapes_model_path,
    token_f1_score,
    weighted_f1_score,
)
from skact.localization import (
    CALM,
    LIME,
    MFABA,
    RISE,
    SHAPIQ,
    ConceptLocalizer,
    DirectAlignment,
    FullGrad,
    GradCAM,
    IntegratedGradients,
    KernelSHAP,
    faithfulness,
)
from skact.metrics import (
    keep_pairs,
    pointing_game_score,
    token_average_precision_score,
    token_iou_score,
)

SEED = 0
TARGETS = ("global", "local")
SCORES = {
    "f1": token_f1_score,
    "iou": token_iou_score,
    "average_precision": token_average_precision_score,
    "pointing_game": pointing_game_score,
}


def make_methods(n_masks, n_steps):
    """List the methods with their budgets."""
    return (
        DirectAlignment(),
        LIME(n_masks),
        KernelSHAP(n_masks),
        RISE(n_masks),
        SHAPIQ(n_masks),
        IntegratedGradients(n_steps),
        GradCAM(),
        FullGrad(),
        CALM(),
        MFABA(n_steps),
    )


def load(name, model, layer, concepts, at_most):
    """Read a data set, an embedder for it, its labels of tokens and its activations."""
    if name == "shapes":
        data = make_shapes(600, random_state=SEED)
        splits = np.resize(["train", "train", "train", "cal", "test"], 600)
        data.split = np.random.default_rng(SEED).permutation(splits)
    elif (Path(name) / "samples.jsonl").exists():
        data = load_spans(name, concepts=concepts)
    else:
        data = load_masks(name, concepts=concepts)
    kept = [np.flatnonzero(data.split == split)[:at_most] for split in ("train", "cal", "test")]
    kept = np.sort(np.concatenate(kept))
    for name in ("data", "target", "split", "spans" if "spans" in data else "masks"):
        data[name] = _safe_indexing(data[name], kept)
    embedder = TransformerEmbedder(model, layer, crop="processor")
    if "spans" in data:
        data.labels = embedder.align_spans(data.data, data.spans, data.target_names)
    else:
        data.labels = embedder.align_masks(data.data, data.masks, data.target_names)
    data.tokens = embedder.transform(data.data)
    return data, embedder


def fit_parts(data):
    """Concepts from train; the detector, with the delta of the best F1, from cal."""
    train, cal = (np.flatnonzero(data.split == s) for s in ("train", "cal"))
    concepts = make_pipeline(TokenScaler(), LinearSeparator())
    concepts.fit(
        data.tokens[train], data.target[train], linearseparator__token_labels=data.labels[train]
    )
    scores = concepts.transform(data.tokens)
    y = data.target[cal]
    path = SuperActivator().fit_path(scores[cal], y, data.labels[cal])
    best = max(path, key=lambda d: (weighted_f1_score(y, d.predict(scores[cal])), -d.delta))
    return concepts, best, best.superactivators(scores)


def choose(data, marks, split, args):
    """Choose samples of a split that hold a labelled token and a SuperActivator of a concept."""
    short_enough = 2 * data.labels.lengths <= args.masks
    own = (data.split == split) & short_enough
    pairs = data.labels.max() & marks.max() & own[:, None]
    order = np.random.default_rng(SEED).permutation(len(pairs))
    rows = np.unique(np.concatenate([order[p[order]][: args.per_concept] for p in pairs.T]))
    return rows, pairs[rows]


def evaluate(data, parts, marks, args, done):
    """Judge both targets by each method that is not done; yields what is to be added."""
    cal, _ = choose(data, marks, "cal", args)
    test, pairs = choose(data, marks, "test", args)
    seen, shown = ([data.data[i] for i in rows] for rows in (cal, test))
    localizers = {
        target: ConceptLocalizer(*parts, target=target, random_state=SEED) for target in TARGETS
    }
    # The explained functions do not depend on the method.
    games = {target: list(one.games(shown)) for target, one in localizers.items()}
    labels = keep_pairs(data.labels[test], pairs)
    options = {"pairs": pairs, "n_steps": args.points, "random_state": SEED}
    if not done:
        positive = data.labels.max()[data.split == "test"]
        # The order is not that of a map, so any map serves.
        flat = data.labels[test].map(np.float64)
        yield {
            "samples": {"cal": len(cal), "test": len(test)},
            "pairs": int(pairs.sum()),
            "positive_test_pairs": int(positive.sum()),
            "positive_test_pairs_without_superactivator": int(
                (positive & ~marks.max()[data.split == "test"]).sum()
            ),
            "random_order": {
                g: plain(areas(faithfulness(games[g], flat, order="random", **options)))
                for g in TARGETS
            },
        }
    for method in make_methods(args.masks, args.steps):
        if method.name in done:
            continue
        found = {}
        for target, localizer in localizers.items():
            localizer.set_params(method=method).fit(seen, data.target[cal], data.labels[cal])
            start = time.process_time()
            maps = localizer.transform(shown)
            found[target] = {
                "seconds": (time.process_time() - start) / len(test),
                "labels": labels,
                # A comparison with NaN, no map, is False.
                "marks": keep_pairs(maps.map(partial(np.less_equal, localizer.thresholds_)), pairs),
                "maps": keep_pairs(maps, pairs),
                "areas": {g: faithfulness(games[g], maps, **options) for g in TARGETS},
            }
        yield {
            "table": [
                {
                    "method": method.name,
                    "target": target,
                    "seconds_per_sample": round(one["seconds"], 3),
                    **plain(accuracy(one) | areas(one["areas"][target])),
                }
                for target, one in found.items()
            ],
            "gain_of_local": {method.name: plain(gain(found["local"], found["global"]))},
        }


def mean_of(given, baseline=None):
    """Mean over all pairs, with its interval; or that of the difference."""
    return bootstrap_interval(
        given,
        given,
        baseline=baseline,
        metric=lambda _, values: float(np.nanmean(values)),
        random_state=SEED,
    )


def accuracy(one, baseline=None):
    """Scores against the labels with their intervals; or those of the paired gain."""
    scores = {}
    for name, metric in SCORES.items():
        read = "marks" if name in ("f1", "iou") else "maps"
        scores[name] = bootstrap_interval(
            one["labels"],
            one[read],
            baseline=None if baseline is None else baseline[read],
            metric=metric,
            random_state=SEED,
        )
    return scores


def areas(result):
    """Areas with their intervals, in units of the explained function."""
    return {name: mean_of(getattr(result, name)) for name in ("insertion", "deletion", "gap")}


def gain(local, globally):
    """Paired gain of the local target; maps of both are judged by either function."""
    by = {
        f"gap_of_{g}_function": mean_of(local["areas"][g].gap, globally["areas"][g].gap)
        for g in TARGETS
    }
    return accuracy(local, globally) | by


def plain(scores):
    """Round intervals to lists."""
    return {name: [round(v, 4) for v in interval] for name, interval in scores.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of texts or images, or 'shapes'")
    parser.add_argument("--model", help="folder or hub name; default the model of the package")
    parser.add_argument("--layer", type=float, default=0.5, help="depth fraction")
    parser.add_argument("--concepts", nargs="+", help="default all")
    parser.add_argument("--at-most", type=int, help="samples of each split; default all")
    parser.add_argument("--per-concept", type=int, default=8, help="cal and test samples of each")
    parser.add_argument("--masks", type=int, default=200, help="masks of perturbation methods")
    parser.add_argument("--steps", type=int, default=16, help="steps of gradient paths")
    parser.add_argument("--points", type=int, default=16, help="steps of the curves")
    parser.add_argument("--out", help="write everything as JSON to this file")
    args = parser.parse_args()
    # Pairs without a local target are counted in the result.
    warnings.filterwarnings("ignore", message=".*local target.*")
    # On one core, the time of the process does not depend on what else the machine does.
    torch.set_num_threads(1)
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    settings["data"] = short(args.data)
    settings["model"] = args.model and short(args.model)
    result = unfinished(args.out, settings)
    before, start = result["seconds"], time.process_time()
    model = args.model or shapes_model_path()
    data, embedder = load(args.data, model, args.layer, args.concepts, args.at_most)
    concepts, detector, marks = fit_parts(data)
    result |= {"concepts": list(data.target_names), "delta": detector.delta}
    parts = embedder, concepts, detector
    for part in evaluate(data, parts, marks, args, result["gain_of_local"]):
        result["table"] += part.pop("table", [])
        result["gain_of_local"] |= part.pop("gain_of_local", {})
        result |= part
        result["seconds"] = round(before + time.process_time() - start, 1)
        print(*result["table"][-2:], *list(result["gain_of_local"].items())[-1:], sep="\n")
        if args.out:
            write_json(args.out, result)


def unfinished(path, settings):
    """Take up a file of the same settings where it was left, or start anew."""
    flags = {k.replace("_", "-"): v for k, v in settings.items() if v is not None}
    words = [f"--{k} {' '.join(v) if isinstance(v, list) else v}" for k, v in flags.items()]
    fresh = {
        "command": " ".join(["python benchmarks/localization_table.py", *words]),
        "settings": settings,
        "python": platform.python_version(),
        "versions": {
            p: version(p)
            for p in ("scikit-learn", "numpy", "torch", "transformers", "captum", "shapiq")
        },
        "seconds": 0.0,
        "clock": "process",
        "table": [],
        "gain_of_local": {},
    }
    if path is None or not Path(path).exists():
        return fresh
    old = json.loads(Path(path).read_text())
    same = all(old[key] == fresh[key] for key in ("settings", "python", "versions"))
    return old if same else fresh


if __name__ == "__main__":
    main()
