"""One sample at every block, as in appendix O of the paper, with a real model and real data.

    python benchmarks/layer_maps.py --data FOLDER --model FOLDER_OR_NAME --concept NAME
        --sample TEXT_OR_PHOTO [--samples N] [--out RESULT.json]

FOLDER is as for ``analyses.py``, and so is ``--samples``. At every block a scaler and a linear
separator are fitted on train, and the threshold of SuperActivators is set on cal. The sample is of
no data set: a text, or a photograph that scikit-learn ships (``china.jpg``, ``flower.jpg``).
"""

import argparse

import numpy as np
from analyses import read
from common import short, write_json
from sklearn.datasets import load_sample_image

from skact import LinearSeparator, SuperActivator, TokenScaler, TransformerEmbedder

DELTA = 0.1


def maps(data, model, n_samples, concept, sample):
    """Tokens of the sample, their scores at each block, and which of them are SuperActivators."""
    layers = list(range(TransformerEmbedder(model).n_blocks))
    stack, _, labels, split = read(data, model, n_samples, layers)
    labels = labels.columns([labels.feature_names.index(concept)])
    train, cal = np.flatnonzero(split == "train"), np.flatnonzero(split == "cal")
    y = labels.max().astype(int)
    embedder = TransformerEmbedder(model, layer=layers, crop="processor")
    given = [load_sample_image(sample) if sample.endswith(".jpg") else sample]
    of_sample = embedder.transform(given)
    scores, marks, thresholds = {}, {}, {}
    for layer in layers:
        tokens = stack.layer(layer)
        scaler = TokenScaler().fit(tokens[train])
        separator = LinearSeparator()
        separator.fit(scaler.transform(tokens[train]), y[train], token_labels=labels[train])
        on_cal = separator.transform(scaler.transform(tokens[cal]))
        detector = SuperActivator(DELTA).fit(on_cal, y[cal], token_labels=labels[cal])
        found = separator.transform(scaler.transform(of_sample.layer(layer)))
        scores[layer] = found.flat()[:, 0].astype(float).round(4).tolist()
        marks[layer] = detector.superactivators(found).flat()[:, 0].tolist()
        thresholds[layer] = round(float(np.ravel(detector.thresholds_)[0]), 4)
    return {
        "tokens": [list(token) for token in embedder.tokens_of(given)[0]],
        "samples": {"train": len(train), "cal": len(cal)},
        "scores": scores,
        "superactivators": marks,
        "thresholds": thresholds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl or index.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--concept", required=True, help="a concept of the data")
    parser.add_argument("--sample", required=True, help="a text, or china.jpg or flower.jpg")
    parser.add_argument("--samples", type=int, help="how many to take of the data; default all")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    found = maps(args.data, args.model, args.samples, args.concept, args.sample)
    for layer, marks in found["superactivators"].items():
        print(f"block {layer}: {sum(marks)} SuperActivators, best {max(found['scores'][layer])}")
    if args.out:
        names = {"data": short(args.data), "model": short(args.model)}
        command = "python benchmarks/layer_maps.py --data {data} --model {model}".format(**names)
        command += f' --concept {args.concept} --sample "{args.sample}"'
        command += f" --samples {args.samples}" if args.samples else ""
        about = {"command": command, **names, "concept": args.concept, "sample": args.sample}
        write_json(args.out, {**about, "delta": DELTA, **found})


if __name__ == "__main__":
    main()
