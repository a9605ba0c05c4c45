"""Where detection by the tail can fail: concepts diluted by other texts, and decoys.

    OMP_NUM_THREADS=1 python benchmarks/dilution.py --data FOLDER --model FOLDER_OR_NAME
        [--block BLOCK] [--out RESULT.json]

FOLDER holds texts with spans (``samples.jsonl``), split into train, cal and test. One scaler and
linear separators of one block are fitted on the tokens of train.

Dilution: each text of cal and test stands at a random place among k - 1 texts of its split that
hold no concept, k = 1, 4, 16, 64, the shorter row inside the longer one; its labels are those of
the sample. Every text is embedded once, and the tokens are joined: pieces know nothing of one
another, as of any document that is longer than the model's context. Cuts are set on cal, once at
k = 1 and once at the k they are used at. Samples share the texts that dilute them. For large k the
intervals, a bootstrap over samples, are therefore too narrow, what is promised for new samples does
not hold, and where a single text stands in more than 1 % of the samples, recall at 1 % false alarms
is that above the loudest text and falls no further.

Decoys: texts without any concept that hold one of its indicative words, which are the (at most ten)
words in at least ten texts of train with log-odds above 1.5 of being in a text that holds it, the
highest in units of their standard error. Texts with the concept are judged against negatives of
which a given share are decoys, by weights; the negatives are those without any concept, and count
as many times as there are texts without this one. Concepts with fewer than ten decoys in test are
left out. So few do not make a rate of 1 % for each concept: recall at 1 % false alarms is here that
at one level for all, in units of the negatives' spread on cal. Annotators may have overlooked a
concept in its decoys.

The tails of mean, max and SuperActivator take the delta with the best F1 on cal, for each concept.
"""

import argparse
import re
import time
from collections import Counter
from functools import partial

import numpy as np
from common import SEED, short, write_json

from skact import (
    LinearSeparator,
    SuperActivator,
    TokenArray,
    TokenScaler,
    TopWindows,
    TransformerEmbedder,
    all_positive_f1_score,
    bootstrap_interval,
    concept_f1,
    load_spans,
    tpr_at_fpr_score,
    weighted_f1_score,
)
from skact.pooling import pool_windows
from skact.protocol import ranking
from skact.rows import offsets_of

LENGTHS = (1, 4, 16, 64)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
N_RESAMPLES = 1000
FEWEST = 10  # texts of a word, and decoys of a concept
POOLS = {"mean": {"share": 1.0}, "max": {}, "top windows": {"window": 16, "top": 8}}
RULES = {
    "Mean": ("mean", TopWindows(share=1.0)),
    "Max": ("max", TopWindows()),
    "SuperActivator": ("max", SuperActivator()),
    "Top windows": ("top windows", TopWindows(None, **POOLS["top windows"], cut="f1")),
    "Exact cut": ("max", TopWindows(None, cut="f1")),
    "Guaranteed cut": (
        "max",
        TopWindows(None, cut="false_alarms", level=0.01, confidence=0.9),
    ),
}
WORD = re.compile(r"[a-z']{3,}")


def score(data, model, block):
    """Scores of all tokens for all concepts, and labels of tokens."""
    embedder = TransformerEmbedder(model, block)
    tokens = embedder.transform(data.data)
    labels = embedder.align_spans(data.data, data.spans, data.target_names)
    train = np.flatnonzero(data.split == "train")
    scaler = TokenScaler().fit(tokens[train])
    separators = LinearSeparator().fit(
        scaler.transform(tokens[train]), data.target[train], token_labels=labels[train]
    )
    return separators.transform(scaler.transform(tokens)), labels


def rows_of(data, split, rng):
    """Texts of a split (n,), and (n, longest - 1) others of it that hold no concept."""
    own = np.flatnonzero(data.split == split)
    plain = own[~data.target[own].any(axis=1)]
    if len(plain) < max(LENGTHS):
        raise ValueError(f"{split} has {len(plain)} texts without a concept, not {max(LENGTHS)}.")
    drawn = (rng.choice(plain, max(LENGTHS), replace=False) for _ in own)
    others = [row[row != i][: max(LENGTHS) - 1] for i, row in zip(own, drawn, strict=True)]
    return own, np.stack(others)


def in_order(own, others, places):
    """Put each sample, at its place, among others: (n, k)."""
    k = others.shape[1] + 1
    rows = np.empty((len(own), k), np.int64)
    here = np.arange(k) == np.minimum(places * k, k - 1).astype(np.int64)[:, None]
    rows[here], rows[~here] = own, others.ravel()
    return rows


def joined(tokens, own, others, places):
    """Join each text, at its place, with others: one array of tokens each."""
    rows = in_order(own, others, places)
    flat = tokens[rows.ravel()]
    return TokenArray(flat.flat(), offsets_of(flat.lengths.reshape(rows.shape).sum(axis=1)))


def pooled(tokens, pool):
    return pool_windows(tokens, **POOLS[pool])


def cuts(scores, y, labels, values):
    """Threshold of each rule and concept, from samples with these pooled values."""
    found = {}
    for name, (pool, rule) in RULES.items():
        if rule.delta is None:
            found[name] = rule.fit(scores, y).thresholds_
            continue
        path = np.stack([d.thresholds_ for d in rule.fit_path(scores, y, labels)])
        f1 = np.stack([concept_f1(y.astype(bool), values[pool] >= t) for t in path])
        found[name] = path[f1.argmax(axis=0), np.arange(y.shape[1])]
    return found


def recall(y, found):
    return np.sum(y & found) / np.sum(y)


def false_alarms(y, found):
    return np.sum(~y & found) / np.sum(~y)


def measured(y, values, **metrics):
    """Each metric with its interval, as [estimate, low, high]."""
    options = {"n_resamples": N_RESAMPLES, "random_state": SEED}
    return {
        name: [round(v, 4) for v in bootstrap_interval(y, values, metric=metric, **options)]
        for name, metric in metrics.items()
    }


def dilution(data, scores, labels):
    """Pools and rules for samples of each length."""
    rng = np.random.default_rng(SEED)
    rows = {split: rows_of(data, split, rng) for split in ("cal", "test")}
    places = {split: rng.random(len(own)) for split, (own, _) in rows.items()}
    y = {split: data.target[own].astype(bool) for split, (own, _) in rows.items()}
    result, first = {}, None
    for k in LENGTHS:
        made = {
            split: joined(scores, own, others[:, : k - 1], places[split])
            for split, (own, others) in rows.items()
        }
        own, others = rows["cal"]
        marks = joined(labels, own, others[:, : k - 1], places["cal"])
        result[k], first = at_one_length(made, y, marks, first)
    return result, first


def at_one_length(made, y, marks, first):
    """Pools and rules for samples of one length, with the cuts of the first and with their own."""
    values = {split: {pool: pooled(x, pool) for pool in POOLS} for split, x in made.items()}
    ours = cuts(made["cal"], y["cal"], marks, values["cal"])
    first = first or ours
    on_test, truth = values["test"], y["test"]
    result = {
        "tokens": round(float(made["test"].lengths.mean()), 1),
        "pools": {
            pool: measured(truth, v, tpr_at_1_fpr=tpr_at_fpr_score)
            | {"auroc": ranking(truth, v)["auroc"]}
            for pool, v in on_test.items()
        },
    }
    for title, chosen in (("cut at 1", first), ("cut at k", ours)):
        result[title] = {
            name: measured(
                truth,
                on_test[pool] >= chosen[name],
                f1=weighted_f1_score,
                recall=recall,
                false_alarms=false_alarms,
            )
            for name, (pool, _) in RULES.items()
        }
    return result, first


def indicative(data):
    """Words of each concept, from the texts of train alone."""
    train = np.flatnonzero(data.split == "train")
    words = [set(WORD.findall(data.data[i].lower())) for i in train]
    found = {}
    for c, name in enumerate(data.target_names):
        held = data.target[train, c] == 1
        inside, outside = (
            Counter(w for i in np.flatnonzero(rows) for w in words[i]) for rows in (held, ~held)
        )
        ranks = {}
        for word in inside:
            n = np.array([inside[word], outside[word]])
            counts = np.stack([n, [held.sum(), (~held).sum()] - n]) + 0.5
            odds = np.log(counts[0, 0] * counts[1, 1] / (counts[1, 0] * counts[0, 1]))
            if n.sum() >= FEWEST and odds > 1.5:
                ranks[word] = odds / np.sqrt(np.sum(1 / counts))
        found[name] = sorted(ranks, key=lambda word: (-ranks[word], word))[:10]
    return found


def weights(truth, share):
    """Weight of each pair of sample and concept among its negatives, (n_samples, n_concepts).

    ``truth`` is 2 for samples with the concept, 1 for decoys, 0 for other negatives, -1 else.
    """
    parts = [(truth == kind) / np.maximum((truth == kind).sum(axis=0), 1) for kind in (0, 1)]
    return (1 - share) * parts[0] + share * parts[1]


def mixed_f1(truth, found, share):
    """Weighted F1 where a share of all negatives are decoys."""
    held = truth == 2
    hits, n = np.sum(held & found, axis=0), held.sum(axis=0)
    alarms = np.sum(weights(truth, share) * found, axis=0) * (len(truth) - n)
    return float(np.average(2 * hits / np.maximum(n + hits + alarms, 1), weights=n))


def mixed_tpr(truth, scores, share, fpr=0.01):
    """Recall above one level of all concepts, which a share fpr of all mixed negatives reach."""
    mass = weights(truth.reshape(-1, 1), share).ravel()
    order = np.argsort(-scores.ravel())
    over = np.cumsum(mass[order]) > fpr + 1e-9
    return float(np.mean(scores[truth == 2] > scores.ravel()[order[over.argmax()]]))


def alarms_on(truth, found, kind):
    return np.sum((truth == kind) & found) / np.sum(truth == kind)


def standardised(pool, data, scores):
    """Pooled scores of test in units of those of samples of cal without the concept."""
    cal, test = (np.flatnonzero(data.split == split) for split in ("cal", "test"))
    negative = np.where(data.target[cal], np.nan, pooled(scores[cal], pool))
    return (pooled(scores[test], pool) - np.nanmean(negative, 0)) / np.nanstd(negative, 0)


def decoys(data, scores, chosen):
    """Pools and rules on undiluted texts, by the share of decoys among negatives."""
    test = np.flatnonzero(data.split == "test")
    words, y = indicative(data), data.target[test]
    plain = ~y.any(axis=1)
    own = [set(WORD.findall(data.data[i].lower())) for i in test]
    named = np.array([[not text.isdisjoint(words[c]) for c in data.target_names] for text in own])
    truth = np.where(y == 1, 2, np.where(plain[:, None], named, -1).astype(int))
    kept = (truth == 1).sum(axis=0) >= FEWEST
    if not kept.any():
        raise ValueError(f"no concept has {FEWEST} decoys in test.")
    truth = truth[:, kept]
    values = {pool: pooled(scores[test], pool)[:, kept] for pool in POOLS}
    levels = {pool: standardised(pool, data, scores)[:, kept] for pool in POOLS}
    names = np.array(data.target_names)[kept]
    curve = {"f1": mixed_f1, "tpr": mixed_tpr}

    def on(metric):
        return {f"{s:g}": partial(curve[metric], share=s) for s in SHARES}

    return {
        "words": words,
        "decoys": dict(zip(names.tolist(), (truth == 1).sum(axis=0).tolist(), strict=True)),
        "tpr_at_1_fpr": {pool: measured(truth, v, **on("tpr")) for pool, v in levels.items()},
        "f1": {
            name: measured(truth, values[pool] >= chosen[name][kept], **on("f1"))
            for name, (pool, _) in RULES.items()
        },
        "false_alarms": {
            name: measured(
                truth,
                values[pool] >= chosen[name][kept],
                others=partial(alarms_on, kind=0),
                decoys=partial(alarms_on, kind=1),
            )
            for name, (pool, _) in RULES.items()
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    start = time.perf_counter()
    data = load_spans(args.data)
    scores, labels = score(data, args.model, args.block)
    diluted, first = dilution(data, scores, labels)
    names = {"data": short(args.data), "model": short(args.model), "block": args.block}
    command = "OMP_NUM_THREADS=1 python benchmarks/dilution.py --data {data} --model {model}"
    test = data.target[data.split == "test"]
    result = {
        "command": (command + " --block {block}").format(**names),
        **names,
        "rules": {name: str(rule) for name, (_, rule) in RULES.items()},
        "samples": {s: int((data.split == s).sum()) for s in ("train", "cal", "test")},
        "floor": round(all_positive_f1_score(test), 4),
        "dilution": diluted,
        "decoys": decoys(data, scores, first),
    }
    print(f"{time.perf_counter() - start:.0f} s")
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
