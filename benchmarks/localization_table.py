"""Where is the concept? Ten methods and two targets, judged by labels and by faithfulness.

    python benchmarks/localization_table.py --data FOLDER --model FOLDER_OR_NAME [--out TABLE.json]

FOLDER holds texts with spans (``samples.jsonl``) or images with masks (``index.jsonl``); the word
``shapes`` renders images instead, for the model that comes with the package. Scaler and separators
are fitted on train; SuperActivators, with the ``delta`` of the best F1, on cal; the threshold of
each map on some positive cal samples. Maps are judged on some test samples, of at most half as many
players (tokens, or squares of patches) as there are masks, on the pairs of sample and concept that
hold the concept and at least one SuperActivator of it: the same pairs for every method and both
targets. Intervals are 95 % percentile bootstraps over these samples, and the gain of the local
target over the global one is paired. A run that was stopped goes on behind the last method in its
``--out`` file.
"""

import argparse
import json
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from common import SEED, short, write_json
from sklearn.utils import _safe_indexing

from skact import TransformerEmbedder, load_masks, load_spans, make_shapes, shapes_model_path
from skact.protocol import Localization, MapJudge


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of texts or images, or 'shapes'")
    parser.add_argument("--model", help="folder or hub name; default the model of the package")
    parser.add_argument("--layer", type=float, default=0.5, help="depth fraction")
    parser.add_argument("--concepts", nargs="+", help="default all")
    parser.add_argument("--at-most", type=int, help="samples of each split; default all")
    parser.add_argument("--per-concept", type=int, default=8, help="cal and test samples of each")
    parser.add_argument("--masks", type=int, default=200, help="masks of perturbation methods")
    parser.add_argument("--unit", default="token", help="token, word, grid or segments")
    parser.add_argument("--cell-size", type=int, default=2, help="patches along a square")
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
    own = ("per_concept", "masks", "steps", "points", "unit", "cell_size")
    asked = Localization(**{name: settings[name] for name in own})
    judge = MapJudge(data, embedder, asked, SEED)
    if not result["table"]:
        result |= judge.about()
    for method in asked.methods:
        if method in result["gain_of_local"]:
            continue
        found = judge.judge(method)
        result["table"] += found["table"]
        result["gain_of_local"][method] = found["gain_of_local"]
        result["seconds"] = round(before + time.process_time() - start, 1)
        print(*result["table"][-2:], found["gain_of_local"], sep="\n")
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
