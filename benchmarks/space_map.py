"""What a concept loses on its way into another layer or another model.

    python benchmarks/space_map.py --data FOLDER --model HOME --other AWAY
        [--block B --other-block B] [--samples N] [--out RESULT.json]

FOLDER holds texts with spans (``samples.jsonl``), split into train, cal and test. A detector
(scaler, linear separators on token labels, SuperActivator with the delta that is best on cal) is
fitted at a block of HOME on train and calibrated on cal. ``ActivationSpaceMap``, fitted on tokens
of train without a label, then carries it

- to the other blocks of HOME,
- to a block of AWAY, whose tokens are brought together with those of HOME by ``align_tokens``.

Told are weighted F1 on test of the carried detector, of the same detector fitted where it is
carried to, of the carried one with thresholds calibrated anew there, and of saying yes to
everything; with 95 % percentile bootstraps over samples, of the loss too.
"""

import argparse
import time

import numpy as np
from common import SEED, short, write_json
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing

from skact import (
    DELTA_GRID,
    ActivationSpaceMap,
    LinearSeparator,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
    align_tokens,
    all_positive_f1_score,
    bootstrap_interval,
    load_spans,
    weighted_f1_score,
)

FEWEST = 10
MAPS = {"ridge": {"method": "ridge"}, "procrustes": {"method": "procrustes"}}


def read(args):
    """Read texts, labels of samples and of tokens; of each split the first N."""
    data = load_spans(args.data)
    labels = TransformerEmbedder(args.model).align_spans(data.data, data.spans, data.target_names)
    rows = {s: np.flatnonzero(data.split == s)[: args.samples] for s in ("train", "cal", "test")}
    held = labels.max().astype(int)
    enough = np.min([held[r].sum(axis=0) for r in rows.values()], axis=0) >= FEWEST
    names = [n for n, kept in zip(data.target_names, enough, strict=True) if kept]
    parts = {
        split: (_safe_indexing(data.data, r), held[r][:, enough], _safe_indexing(data.spans, r))
        for split, r in rows.items()
    }
    return parts, names


def token_labels(embedder, parts, names):
    """Label the tokens of train and cal as an embedder cuts them."""
    return {
        split: embedder.align_spans(texts, spans, names)
        for split, (texts, _, spans) in parts.items()
        if split != "test"
    }


def fit(tokens, labels, parts):
    """Fit concepts on tokens of train, and the detector behind them."""
    scaler = TokenScaler().fit(tokens["train"])
    method = LinearSeparator(random_state=SEED)
    y = parts["train"][1]
    method.fit(scaler.transform(tokens["train"]), y, token_labels=labels["train"])
    return calibrate(
        make_pipeline(FrozenEstimator(scaler), FrozenEstimator(method)), tokens, labels, parts
    )


def calibrate(concepts, tokens, labels, parts):
    """Put a detector behind concepts, at the delta that is best on cal."""
    scores, y = concepts.transform(tokens["cal"]), parts["cal"][1]
    detectors = [
        SuperActivator(delta=delta).fit(scores, y, token_labels=labels["cal"])
        for delta in DELTA_GRID
    ]
    found = [weighted_f1_score(y, detector.predict(scores)) for detector in detectors]
    return make_pipeline(*concepts, FrozenEstimator(detectors[int(np.argmax(found))]))


def compare(home, pairs, there, labels, parts):
    """Carry a detector by each kind of map, and compare it with the one fitted there."""
    truth = parts["test"][1]
    native = fit(there, labels, parts).predict(there["test"])
    found = {"fitted there": figures(truth, native)}
    for name, params in MAPS.items():
        space = ActivationSpaceMap(**params).fit(*pairs)
        carried = space.carry(home).predict(there["test"])
        again = calibrate(space.carry(home[:-1]), there, labels, parts).predict(there["test"])
        found[name] = {
            "explained": space.explained_,
            **figures(truth, carried, native),
            "thresholds calibrated there": figures(truth, again, native),
        }
    return found


def figures(truth, predicted, native=None):
    """Weighted F1, and how much less it is than that of what was fitted there."""
    said = {"f1": listed(bootstrap_interval(truth, predicted, random_state=SEED))}
    if native is not None:
        gain = bootstrap_interval(truth, predicted, baseline=native, random_state=SEED)
        said["gain over fitted there"] = listed(gain)
    return said


def listed(interval):
    """Return an interval as a list: estimate, low and high."""
    return [float(interval.estimate), float(interval.low), float(interval.high)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--other", required=True)
    parser.add_argument("--block", type=int, default=3)
    parser.add_argument("--other-block", type=int, default=15)
    parser.add_argument("--samples", type=int, default=1000, help="of each split")
    parser.add_argument("--out", default="space_map.json")
    args = parser.parse_args()
    start = time.monotonic()
    parts, names = read(args)
    homes = TransformerEmbedder(args.model, range(TransformerEmbedder(args.model).n_blocks))
    stacks = {split: homes.transform(texts) for split, (texts, *_) in parts.items()}
    blocks = {b: {s: stack.layer(b) for s, stack in stacks.items()} for b in range(homes.n_blocks)}
    labels = token_labels(homes, parts, names)
    home = fit(blocks[args.block], labels, parts)
    truth = parts["test"][1]
    results = {
        "data": short(args.data),
        "model": short(args.model),
        "block": args.block,
        "samples": {split: len(texts) for split, (texts, *_) in parts.items()},
        "concepts": names,
        "yes to everything": all_positive_f1_score(truth),
        "at home": figures(truth, home.predict(blocks[args.block]["test"])),
        "blocks": {},
    }
    for block, there in blocks.items():
        if block != args.block:
            pairs = there["train"], blocks[args.block]["train"]
            results["blocks"][str(block)] = compare(home, pairs, there, labels, parts)
            print(block, results["blocks"][str(block)], flush=True)
    away = TransformerEmbedder(args.other, args.other_block)
    there = {split: away.transform(texts) for split, (texts, *_) in parts.items()}
    texts = parts["train"][0]
    pairs = align_tokens(
        there["train"],
        blocks[args.block]["train"],
        away.tokens_of(texts),
        homes.tokens_of(texts),
    )
    results["other"] = {
        "model": short(args.other),
        "block": args.other_block,
        **compare(home, pairs, there, token_labels(away, parts, names), parts),
    }
    print(results["other"])
    results["seconds"] = round(time.monotonic() - start)
    write_json(args.out, results)


if __name__ == "__main__":
    main()
