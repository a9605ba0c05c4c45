"""The token before a text that takes the attention sink, against none and against other tokens.

    python benchmarks/attention_sink.py --data FOLDER --model models/smollm2
        [--block BLOCK] [--texts N] [--out RESULT.json]

FOLDER holds texts with labelled spans (``samples.jsonl``), split into train, cal and test. For each
token the largest norm in units of the median norm, over all blocks and tokens of N texts, and how
many of them have a token above 20 times the median. For none and for the one that is chosen, the
weighted test F1 of MaxToken on three concept methods at one block, with the cut chosen on cal,
beside the F1 of saying yes to everything and beside that of leaving the first token out by hand;
and the largest cosine between means of two concepts.
"""

import argparse
import warnings

import numpy as np
from detection_table import short, write_json

from skact import (
    DifferenceInMeans,
    MaxSeparator,
    MaxToken,
    MeanPrototype,
    TokenArray,
    TokenScaler,
    TransformerEmbedder,
    load_spans,
    weighted_f1_score,
)

METHODS = {
    "MeanPrototype": MeanPrototype(),
    "DifferenceInMeans": DifferenceInMeans(),
    "MaxSeparator": MaxSeparator(),
}
RATIO = 20


def norms(model, texts, sink, batch=100):
    """Largest norm in units of the median over all blocks, and texts with one above 20."""
    embedder = TransformerEmbedder(model, sink=sink)
    blocks = list(range(embedder.n_blocks))
    embedder.set_params(layer=blocks)
    found = {block: [] for block in blocks}
    for start in range(0, len(texts), batch):
        layers = embedder.transform(texts[start : start + batch])
        for block in blocks:
            found[block] += [np.linalg.norm(x, axis=1) for x in layers.layer(block)]
    ratios = np.array(
        [[one.max() for one in rows] / np.median(np.concatenate(rows)) for rows in found.values()]
    )
    return {
        "largest": round(float(ratios.max()), 1),
        "largest_by_text": [round(float(r), 1) for r in np.sort(ratios.max(axis=0))[::-1][:3]],
        "texts_above_20": int((ratios.max(axis=0) > RATIO).sum()),
    }


def without_first(tokens):
    """Leave the first token of each sample out; a sample of one token keeps it."""
    return TokenArray.from_list(
        [x[1:] if len(x) > 1 else x for x in tokens], feature_names=tokens.feature_names
    )


def detection(tokens, labels, y, split):
    """Weighted test F1 of each method, and the largest cosine between means of two concepts."""
    rows = {name: np.flatnonzero(np.asarray(split) == name) for name in ("train", "cal", "test")}
    scaler = TokenScaler().fit(tokens[rows["train"]])
    scaled = {name: scaler.transform(tokens[index]) for name, index in rows.items()}
    out = {}
    for name, method in METHODS.items():
        targets = y[rows["train"]]
        method.fit(scaled["train"], targets, token_labels=labels[rows["train"]])
        cal, test = method.transform(scaled["cal"]), method.transform(scaled["test"])
        path = MaxToken().fit_path(cal, y[rows["cal"]])
        best = max(path, key=lambda d: weighted_f1_score(y[rows["cal"]], d.predict(cal)))
        out[name] = round(float(weighted_f1_score(y[rows["test"]], best.predict(test))), 3)
    means = np.stack(
        [
            tokens[rows["train"]].flat()[labels[rows["train"]].flat()[:, c]].mean(axis=0)
            for c in range(labels.n_features)
        ]
    )
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    out["largest_cosine_of_means"] = round(float(np.triu(means @ means.T, 1).max()), 3)
    return out


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--block", type=int, default=14)
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--detect", type=int, default=1500)
    parser.add_argument("--out")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data = load_spans(args.data)
    chosen = TransformerEmbedder(args.model)
    tokenizer = chosen.reader.loaded.processor
    names = {"none": None, "auto": "auto"}
    names |= {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token")}
    result = {
        "model": short(args.model),
        "data": short(args.data),
        "chosen": str(tokenizer.convert_ids_to_tokens(chosen.reader.sink)),
        "norms": {
            name: norms(args.model, list(data.data)[: args.texts], sink)
            for name, sink in names.items()
        },
    }
    texts, y = list(data.data)[: args.detect], data.target[: args.detect]
    split, spans = data.split[: args.detect], data.spans[: args.detect]
    test = np.asarray(split) == "test"
    f1 = {"yes_to_everything": round(float(weighted_f1_score(y[test], np.ones_like(y[test]))), 3)}
    for name, sink in (("none", None), ("auto", "auto")):
        embedder = TransformerEmbedder(args.model, args.block, sink=sink)
        tokens = embedder.transform(texts).with_source(None)
        labels = embedder.align_spans(texts, spans, data.target_names)
        f1[name] = detection(tokens, labels, y, split)
        if sink is None:
            f1["first_token_left_out"] = detection(
                without_first(tokens), without_first(labels), y, split
            )
    result |= {"block": args.block, "texts": args.texts, "detect": args.detect, "f1": f1}
    write_json(args.out, result)


if __name__ == "__main__":
    main()
