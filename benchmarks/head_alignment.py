"""Heads aligned with concepts, and gaps that grow as their weights predict: are there any.

    python benchmarks/head_alignment.py --data FOLDER --model FOLDER_OR_NAME
        [--train N] [--test N] [--directions N] [--out RESULT.json]

FOLDER holds texts with spans (``samples.jsonl``) or images with masks (``index.jsonl``), split into
train, cal and test. For each block but the first, the vector of a concept is the difference of the
means of its tokens and of all others, in the stream that enters the block, on the first N samples
of train; concepts of at least 20 of these samples. Each head's alpha, beta and gain = alpha beta /
sqrt(d_head) along it are compared with two kinds of chance: directions uniform on the sphere, and
differences of two tokens of other samples of train, which lie where tokens lie.

Growth of gaps is measured on the first N samples of test, behind attention and behind the block,
for concepts and for as many directions of either kind, beside what the weights predict. Intervals
are 95 % percentile bootstraps: over concepts for shares of pairs, over samples for growth and its
correlation. In the file ``--out`` the results of other models are kept.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from common import SEED, short, write_json
from sklearn.utils import _safe_indexing

from skact import (
    DifferenceInMeans,
    TransformerEmbedder,
    gap_growth,
    head_alignment,
    load_masks,
    load_spans,
)

FEWEST = 20


def read(folder, model, n_train, n_test):
    """Embed some samples: per split the stream, and on test what attention adds, with labels."""
    is_text = (Path(folder) / "samples.jsonl").exists()
    data = (load_spans if is_text else load_masks)(folder)
    crop = {} if is_text else {"crop": "processor"}
    reader = TransformerEmbedder(model, **crop)
    every = list(range(reader.n_blocks))
    chosen = {
        split: np.flatnonzero(data.split == split)[:n]
        for split, n in (("train", n_train), ("test", n_test))
    }
    # A gap takes two tokens.
    lengths = reader.prepare(_safe_indexing(data.data, chosen["test"])).n_tokens
    chosen["test"] = chosen["test"][lengths > 1]
    some = {split: _safe_indexing(data.data, rows) for split, rows in chosen.items()}
    stream, added = (
        TransformerEmbedder(model, every, site=site, **crop) for site in ("residual", "attention")
    )
    marks = data.spans if is_text else data.masks
    align = reader.align_spans if is_text else reader.align_masks
    train = chosen["train"]
    labels = align(some["train"], _safe_indexing(marks, train), data.target_names)
    held = np.flatnonzero(labels.max().sum(axis=0) >= FEWEST)
    named = [data.target_names[c] for c in held]
    labels = labels.map(lambda m: m[:, held], feature_names=named)
    tokens = {split: stream.transform(samples) for split, samples in some.items()}
    return tokens["train"], labels, tokens["test"], added.transform(some["test"])


def concept_vectors(train, labels, block):
    """Take unit differences of means in the stream that enters a block."""
    tokens = train.layer(block - 1)
    method = DifferenceInMeans().fit(tokens, labels.max().astype(int), token_labels=labels)
    return method.concept_vectors_


def token_differences(train, block, n, random):
    """Differences of two tokens of different samples."""
    tokens = train.layer(block - 1)
    samples = np.array([random.choice(len(tokens), 2, replace=False) for _ in range(n)])
    firsts, seconds = (
        np.stack([tokens[i][random.integers(len(tokens[i]))] for i in column])
        for column in samples.T
    )
    return firsts.astype(np.float64) - seconds


def interval(values, n_resamples=1000):
    """Mean over the last axis of the mean over the others, resampled along the last."""
    each = values.reshape(-1, values.shape[-1]).mean(axis=0)
    draws = np.random.default_rng(SEED).integers(len(each), size=(n_resamples, len(each)))
    return rounded(each.mean(), *np.quantile(each[draws].mean(axis=1), [0.025, 0.975]))


def rounded(*values):
    return [round(float(value), 4) for value in values]


def spread(values):
    """Median, 99th percentile and largest."""
    return rounded(*np.quantile(np.abs(values), [0.5, 0.99, 1]))


def alignments(model, vectors, tokens, n_random):
    """Heads against concepts, token differences and the sphere, over all blocks."""
    found, chance = [], []
    for block, own in vectors.items():
        one = head_alignment(model, own, block, n_random=n_random, random_state=SEED)
        other = head_alignment(model, tokens[block], block, n_random=n_random, random_state=SEED)
        ranks = np.sort(other.gain[0], axis=1)
        beyond = [r.size - np.searchsorted(r, g) for r, g in zip(ranks, one.gain[0], strict=True)]
        one["token_p"] = (1 + np.stack(beyond)[None]) / (1 + ranks.shape[1])
        found.append(one)
        chance.append(other)
    return found, chance


def stacked(results, name):
    return np.concatenate([one[name] for one in results])


def report_alignment(found, chance, names):
    """Shares of pairs of head and concept, and the best of them."""
    both = (stacked(found, "alpha") > 0) & (stacked(found, "beta") > 0)
    beyond = {"sphere": stacked(found, "gain_p"), "tokens": stacked(found, "token_p")}
    by_chance = stacked(chance, "gain_p")
    result = {
        "pairs": int(both.size),
        "beyond 99 % of sphere": interval(beyond["sphere"] <= 0.01),
        "token differences beyond 99 % of sphere": interval(by_chance <= 0.01),
        "beyond 99 % of token differences": interval(beyond["tokens"] <= 0.01),
        "so with alpha and beta positive": interval((beyond["tokens"] <= 0.01) & both),
    }
    for kind, some in (("concepts", found), ("token differences", chance)):
        result[f"shares of {kind}"] = {
            name: spread(stacked(some, name)) for name in ("alpha_share", "beta_share")
        }
    order = np.lexsort((-stacked(found, "gain").ravel(), beyond["tokens"].ravel(), ~both.ravel()))
    layers = np.concatenate([one.layers for one in found])
    best = []
    for place in order[:5]:
        at = np.unravel_index(place, both.shape)
        one = {"layer": int(layers[at[0]]), "head": int(at[1]), "concept": names[at[2]]}
        one |= {key: rounded(stacked(found, key)[at])[0] for key in ("alpha", "beta", "gain")}
        keys = ("alpha_share", "beta_share", "gain_p", "token_p")
        best.append(one | {key: rounded(stacked(found, key)[at])[0] for key in keys})
    return result | {"best": best}


def report_growth(model, test, added, vectors):
    """Measured and predicted growth, behind attention and behind the block."""
    result = {}
    for place, given in (("attention", added), ("block", None)):
        one = gap_growth(test, vectors, model, added=given, random_state=SEED)
        result[place] = {
            "correlation": rounded(one.correlation, one.correlation_low, one.correlation_high),
            "measured": dict(zip(one.layers, rounded(*one.measured.mean(axis=1)), strict=True)),
            "predicted": dict(zip(one.layers, rounded(*one.predicted.mean(axis=1)), strict=True)),
            "mean measured": rounded(one.measured.mean())[0],
            "mean predicted": rounded(one.predicted.mean())[0],
            "predicted above 1": rounded((one.predicted > 1).mean())[0],
        }
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl or index.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--train", type=int, default=800, help="samples for concept vectors")
    parser.add_argument("--test", type=int, default=150, help="samples for growth")
    parser.add_argument("--directions", type=int, default=1000, help="of either kind of chance")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    start = time.process_time()
    train, labels, test, added = read(args.data, args.model, args.train, args.test)
    names, blocks = list(labels.feature_names), train.layers[1:]
    random = np.random.default_rng(SEED)
    vectors = {block: concept_vectors(train, labels, block) for block in blocks}
    tokens = {b: token_differences(train, b, args.directions, random) for b in blocks}
    sphere = {b: random.standard_normal(vectors[b].shape) for b in blocks}
    few = {block: rows[: len(names)] for block, rows in tokens.items()}
    kinds = {"concepts": vectors, "token differences": few, "sphere": sphere}
    found, chance = alignments(args.model, vectors, tokens, args.directions)
    result = {
        "data": short(args.data),
        "train": len(train),
        "test": len(test),
        "concepts": names,
        "heads": len(found[0].heads),
        "layers": blocks,
        "alignment": report_alignment(found, chance, names),
        "growth": {
            kind: report_growth(args.model, test, added, some) for kind, some in kinds.items()
        },
        "seconds": round(time.process_time() - start, 1),
    }
    print(json.dumps(result, indent=1))
    if args.out:
        out = Path(args.out)
        before = json.loads(out.read_text()) if out.exists() else {}
        write_json(out, before | {short(args.model): result})


if __name__ == "__main__":
    main()
