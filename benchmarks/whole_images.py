"""Detection with whole images against the crop of the image processor, on the same photographs.

    python benchmarks/whole_images.py --data FOLDER --model FOLDER_OR_NAME
        [--layers BLOCK ...] [--every N] [--out RESULT.json]

FOLDER holds images with masks (``index.jsonl``), split into train, cal and test. The protocol is
that of ``skact paper``, once with ``crop="processor"`` and once with ``crop="whole"``: only
what the model is shown of an image differs. Beside the weighted test F1 of saying yes to everything
stands what the crop hides: of the pixels of images, of the labelled ones among them (a pixel counts
once for each of its concepts), and of the labels of images, those of which no token is left.
"""

import argparse
import time

import numpy as np
from common import SEED, short, write_json
from sklearn.utils import _safe_indexing

from skact import (
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    SuperActivator,
    TransformerEmbedder,
    bootstrap_interval,
    load_masks,
    weighted_f1_score,
)
from skact.protocol import Problem, held_out_scores, search

SPLITS = ("train", "cal", "test")
METHODS = {"MeanPrototype": MeanPrototype(), "LinearSeparator": LinearSeparator()}
DETECTORS = {"SuperActivator": SuperActivator(), "MaxToken": MaxToken()}


def embed(data, model, layers, crop):
    """Embed the photographs; the problem, and what is hidden."""
    embedder = TransformerEmbedder(model, layers, crop=crop)
    labels = embedder.align_masks(data.data, data.masks, data.target_names)
    tokens = embedder.transform(data.data)
    problem = Problem(tokens, None, labels, data.target, data.split, list(data.target_names))
    labelled, seen = zip(*map(count, data.masks, embedder.tokens_of(data.data)), strict=True)
    return problem, {
        "tokens_per_image": round(float(tokens.lengths.mean()), 1),
        "hidden_pixels": round(float(embedder.prepare(data.data).hidden.mean()), 4),
        "labelled_pixels": sum(labelled),
        "hidden_labelled_pixels": sum(labelled) - sum(seen),
        "labels": int(data.target.sum()),
        "labels_without_a_token": int((data.target.astype(bool) & ~labels.max()).sum()),
    }


def count(mask, patches):
    """Labelled pixels of an image, and those whose centre lies within its patches."""
    boxes = np.array([patch.box for patch in patches])
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    y, x = (np.arange(n) + 0.5 for n in mask.shape[:2])
    inside = mask[(y > top) & (y < bottom)][:, (x > left) & (x < right)]
    return int(mask.sum()), int(inside.sum())


def decisions(problem):
    """Decisions on test, for each concept method and detector."""
    for name, method in METHODS.items():
        scores = held_out_scores(method, problem.tokens, problem, problem.labels)
        for detector in DETECTORS:
            yield (name, detector), search(DETECTORS[detector], scores, problem, problem.labels)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with index.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 5, 8, 11], help="blocks")
    parser.add_argument("--every", type=int, default=1, help="take every Nth sample only")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    data = load_masks(args.data)
    kept = [np.flatnonzero(data.split == split)[:: args.every] for split in SPLITS]
    for name in ("data", "masks", "target", "split"):
        data[name] = _safe_indexing(data[name], np.concatenate(kept))
    truth = data.target[data.split == "test"]
    everything = float(weighted_f1_score(truth, np.ones_like(truth)))
    result = {"data": short(args.data), "model": short(args.model), "layers": args.layers}
    result |= {"samples": len(data.data), "yes_to_everything": round(everything, 4)}
    said = {}
    for crop in ("processor", "whole"):
        start = time.process_time()
        problem, result[crop] = embed(data, args.model, args.layers, crop)
        said[crop] = dict(decisions(problem))
        result[crop]["seconds"] = round(time.process_time() - start, 1)
        print(crop, result[crop], flush=True)
    print(f"yes to everything {everything:.3f}")
    for pair in said["whole"]:
        whole, cropped = (said[crop][pair] for crop in ("whole", "processor"))
        one = {
            "processor": bootstrap_interval(truth, cropped, random_state=SEED),
            "whole": bootstrap_interval(truth, whole, random_state=SEED),
            "gain": bootstrap_interval(truth, whole, baseline=cropped, random_state=SEED),
        }
        print(" ".join(pair), *(f"{name} {score}" for name, score in one.items()), sep=", ")
        result[", ".join(pair)] = {
            name: [round(float(x), 4) for x in (score.estimate, score.low, score.high)]
            for name, score in one.items()
        }
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
