"""The analyses of the paper on real data: what its claims come to, with intervals.

    python benchmarks/analyses.py --data FOLDER --model FOLDER_OR_NAME
        [--samples N] [--layers BLOCK ...] [--out RESULT.json]

FOLDER holds texts with spans (``samples.jsonl``) or images with masks (``index.jsonl``), split into
train, cal and test. At every block a scaler and linear separators are fitted on train.
Distributions, separable tails and coverage are those of cal and test together, on which nothing was
fitted. Thresholds, layers and deltas are chosen on cal; F1, counts and positions are read on test.
Intervals are 95 % percentile bootstraps over samples; differences are taken within each resample. A
concept with fewer than ``FEWEST`` samples in train, cal or test is left out. ``--samples`` takes
that many samples, drawn with a seed, from all three splits alike.
"""

import argparse
import time

import numpy as np
from common import SEED, load_data, short, write_json

from skact import TransformerEmbedder
from skact.protocol import ANALYSES, Analyst, enough_samples, mean_vectors

# Samples that hold a concept, in each split.
FEWEST = 5
N_RESAMPLES = 1000


def read(folder, model, n_samples, layers):
    """Embed a part of a data set; tokens, vectors of samples, labels, split, names of concepts."""
    data, labels = load_data(folder, model)
    rows = np.arange(len(data.data))
    if n_samples and n_samples < len(rows):
        rows = np.sort(np.random.default_rng(SEED).permutation(rows)[:n_samples])
    labels, split = labels[rows], np.asarray(data.split)[rows]
    kept = enough_samples(labels.max(), split, FEWEST)
    names = [data.target_names[c] for c in kept]
    samples = [data.data[row] for row in rows]
    embedder = TransformerEmbedder(model, layer=layers, crop="processor")
    tokens = embedder.transform(samples)
    labels = labels.columns(kept)
    return tokens, mean_vectors(tokens), labels.with_values(labels.flat(), names), split


def analyse(tokens, vectors, labels, split):
    """All analyses, and the claims that they bear on."""
    analyst = Analyst(tokens, vectors, labels, split, N_RESAMPLES, SEED)
    found = {name: analyst.analyse(name) for name in ANALYSES}
    return {
        "concepts": list(labels.feature_names),
        "samples": {s: int((split == s).sum()) for s in ("train", "cal", "test")},
        "claims": {claim: said for one in found.values() for claim, said in one["claims"].items()},
        **{name: one["result"] for name, one in found.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl or index.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--samples", type=int, help="how many to take; default all")
    parser.add_argument("--layers", type=int, nargs="+", help="blocks; default all")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    layers = args.layers or list(range(TransformerEmbedder(args.model).n_blocks))
    names = {"data": short(args.data), "model": short(args.model)}
    start = time.perf_counter()
    problem = read(args.data, args.model, args.samples, layers)
    embedded = time.perf_counter()
    result = analyse(*problem)
    done = time.perf_counter()
    for claim, found in result["claims"].items():
        print(claim, found, sep=": ")
    print(f"embedding {embedded - start:.0f} s, analyses {done - embedded:.0f} s")
    if args.out:
        command = "python benchmarks/analyses.py --data {data} --model {model}".format(**names)
        command += f" --samples {args.samples}" if args.samples else ""
        command += " --layers " + " ".join(map(str, args.layers)) if args.layers else ""
        about = {"command": command, **names, "concept method": "LinearSeparator()"}
        write_json(args.out, {**about, **result})


if __name__ == "__main__":
    main()
