"""The token before a text that takes the attention sink, against none and against other tokens.

    python benchmarks/attention_sink.py --data FOLDER --model models/smollm2
        [--block BLOCK] [--texts N] [--parts norms f1 cosines] [--out RESULT.json]

FOLDER holds texts with labelled spans (``samples.jsonl``), split into train, cal and test. For each
token the largest norm in units of the median norm, over all blocks and tokens of N texts, and how
many of them have a token above 20 times the median. For none and for the one that is chosen, the
weighted test F1 of MaxToken on three concept methods at one block, with the cut chosen on cal,
beside the F1 of saying yes to everything and beside that of leaving the first token out by hand.
And the cosines between the means of concepts that no training text holds together: of tokens as
they are, and of tokens centred and scaled by TokenScaler, which is what concept methods see. With
--parts the other parts of the file --out are kept.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from common import short, write_json

from skact import (
    DifferenceInMeans,
    MaxSeparator,
    MaxToken,
    MeanPrototype,
    TokenArray,
    TokenScaler,
    TransformerEmbedder,
    all_positive_f1_score,
    load_spans,
    weighted_f1_score,
)

METHODS = {
    "MeanPrototype": MeanPrototype(),
    "DifferenceInMeans": DifferenceInMeans(),
    "MaxSeparator": MaxSeparator(),
}
RATIO = 20
PARTS = ("norms", "f1", "cosines")


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
    """Weighted test F1 of each method."""
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
    return out


def cosines(tokens, labels, y, names):
    """Cosines between the means of concepts that share no sample, raw and scaled."""
    apart = np.argwhere(np.triu(y.T @ y == 0))
    out = {"pairs": len(apart)}
    if not len(apart):
        return out
    for kind, made in (("raw", tokens), ("scaled", TokenScaler().fit(tokens).transform(tokens))):
        means = MeanPrototype().fit(made, y, token_labels=labels).concept_vectors_
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        found = np.einsum("pd,pd->p", *means[apart.T])
        out[kind] = {
            "mean": round(float(found.mean()), 3),
            "median": round(float(np.median(found)), 3),
            "largest": round(float(found.max()), 3),
            "largest_of": [names[c] for c in apart[found.argmax()]],
            "below_half": int((found < 0.5).sum()),
        }
    return out


def versions(model, block, texts, spans, names):
    """Tokens and labels with no token before the texts, the first left out, and the chosen."""
    for name, sink in (("none", None), ("auto", "auto")):
        embedder = TransformerEmbedder(model, block, sink=sink)
        tokens = embedder.transform(texts).with_source(None)
        labels = embedder.align_spans(texts, spans, names)
        yield name, tokens, labels
        if sink is None:
            yield "first_token_left_out", without_first(tokens), without_first(labels)


def measured(args, data):
    """F1s, and cosines of means, of each version; cosines need the training texts alone."""
    texts = np.arange(len(data.data))[: args.detect]
    if "f1" not in args.parts:
        texts = texts[data.split[texts] == "train"]
    y, split = data.target[texts], data.split[texts]
    train, test = np.flatnonzero(split == "train"), y[split == "test"]
    spans, names = [data.spans[i] for i in texts], data.target_names
    floor = {"yes_to_everything": round(all_positive_f1_score(test), 3)} if len(test) else {}
    f1, angles = floor, {"training_texts": len(train)}
    for name, tokens, labels in versions(
        args.model, args.block, [data.data[i] for i in texts], spans, names
    ):
        if "f1" in args.parts:
            f1[name] = detection(tokens, labels, y, split)
        if "cosines" in args.parts:
            angles[name] = cosines(tokens[train], labels[train], y[train], names)
    result = {"f1": {"detect": args.detect, "f1": f1}, "cosines": {"cosines": angles}}
    return {k: v for part in args.parts if part in result for k, v in result[part].items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--block", type=int, default=14)
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--detect", type=int, default=1500)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data, out = load_spans(args.data), Path(args.out)
    chosen = TransformerEmbedder(args.model)
    tokenizer = chosen.reader.loaded.processor
    result = json.loads(out.read_text()) if out.exists() and set(args.parts) != set(PARTS) else {}
    result |= {
        "model": short(args.model),
        "data": short(args.data),
        "chosen": str(tokenizer.convert_ids_to_tokens(chosen.reader.sink)),
        "block": args.block,
    }
    if "norms" in args.parts:
        names = {"none": None, "auto": "auto"}
        names |= {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token")}
        some = list(data.data)[: args.texts]
        result["texts"] = args.texts
        result["norms"] = {name: norms(args.model, some, sink) for name, sink in names.items()}
    if {"f1", "cosines"} & set(args.parts):
        result |= measured(args, data)
    write_json(out, result)


if __name__ == "__main__":
    main()
