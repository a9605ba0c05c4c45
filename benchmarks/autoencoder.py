"""Sparse autoencoders on a language model: what they leave out, and what their units do.

    python benchmarks/autoencoder.py --data FOLDER --model FOLDER_OR_NAME [--layer DEPTH]
        [--n-train N] [--n-test N] [--units N] [--k K ...] [--out RESULT.json]

FOLDER holds texts (``samples.jsonl``). For each K an autoencoder ("topk") is trained on some texts;
all else is measured on others.

- Report: share of the variance explained, linear and nonlinear error, dead units, and the loss of
  the next token in the model with reconstructions, zeros, or the mean in place of the tokens.
- Units: of 64 units that are not dead, mean input score, and output score beside that of the same
  words in the model as it is; and the correlation of the two scores over units.
"""

import argparse
import time

import numpy as np
from common import short, write_json
from sklearn.pipeline import make_pipeline

import skact

N_UNITS = 64


def scores_of(pipe, texts, units):
    """Input and output scores of some units."""
    given = skact.unit_input_scores(pipe, texts, units)
    steered, plain = (skact.unit_output_scores(pipe, texts, units, strength=s) for s in (10, 0))
    return {
        "n_units": len(units),
        "input": float(np.nanmean(given)),
        "output": float(np.nanmean(steered)),
        "output_median": float(np.nanmedian(steered)),
        "output_unsteered": float(np.nanmean(plain)),
        "correlation": float(np.corrcoef(given, steered)[0, 1]),
    }


def measure(embedder, tokens, texts, n_units, k):
    """Train one autoencoder, and measure all of it on other texts."""
    start = time.perf_counter()
    training = skact.AutoencoderTraining(max_epochs=10, resample_dead=4)
    method = skact.SparseAutoencoder(n_units, "topk", k=k, training=training, random_state=0)
    method.fit(tokens)
    seconds = time.perf_counter() - start
    pipe = make_pipeline(embedder, method)
    report = dict(skact.autoencoder_report(pipe, texts, random_state=0))
    dead = report.pop("dead")
    alive = np.setdiff1d(np.arange(n_units), dead)
    units = np.random.default_rng(0).choice(alive, min(N_UNITS, len(alive)), replace=False)
    return {
        "k": k,
        "fit_seconds": seconds,
        **report,
        "n_dead": len(dead),
        "units": scores_of(pipe, texts, np.sort(units)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--layer", type=float, default=0.5, help="depth as a fraction")
    parser.add_argument("--n-train", type=int, default=2000)
    parser.add_argument("--n-test", type=int, default=600)
    parser.add_argument("--units", type=int, default=1152)
    parser.add_argument("--k", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--out", help="write the result there")
    args = parser.parse_args()
    texts = list(skact.load_spans(args.data).data)
    order = np.random.default_rng(0).permutation(len(texts))
    train, test = (
        [texts[i] for i in some]
        for some in (order[: args.n_train], order[args.n_train : args.n_train + args.n_test])
    )
    embedder = skact.TransformerEmbedder(args.model, layer=args.layer)
    tokens = embedder.transform(train)
    result = {
        "data": short(args.data),
        "model": short(args.model),
        "block": tokens.source.block,
        "n_train_tokens": int(tokens.lengths.sum()),
        "n_units": args.units,
        "autoencoders": [],
    }
    for k in args.k:
        result["autoencoders"].append(measure(embedder, tokens, test, args.units, k))
        print(result["autoencoders"][-1], flush=True)
        if args.out:
            write_json(args.out, result)


if __name__ == "__main__":
    main()
