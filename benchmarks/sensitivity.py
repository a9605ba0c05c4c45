"""Whether the words that a language model says next depend on concepts at its layers.

    python benchmarks/sensitivity.py --data FOLDER --model MODEL [--layers B ...]
        [--samples N] [--out RESULT.json]

FOLDER holds texts with spans (``samples.jsonl``), split into train, cal and test. Vectors of
emotions are fitted on N texts of train (difference in means, labels of texts). For each of WORDS,
the class is the texts of test with that emotion alone of these, followed by PROMPT, and the head is
the logit of the word behind it. Told are the share of texts in which the logit rises along each
vector, the p-value against vectors with random labels, corrected for the number of emotions, and
the variance of shares over layers.
"""

import argparse

import numpy as np
from common import SEED, short, write_json

from skact import (
    DifferenceInMeans,
    TransformerEmbedder,
    concept_sensitivity,
    layer_consistency,
    load_spans,
)

WORDS = {
    "anger": " angry",
    "confusion": " confused",
    "gratitude": " grateful",
    "joy": " happy",
    "sadness": " sad",
}
PROMPT = " I feel very"


def parts(args):
    """Texts and labels of train, and texts of test with their emotion."""
    data = load_spans(args.data)
    names = list(data.target_names)
    columns = [names.index(word) for word in WORDS]
    held = np.array([[any(s[2] == name for s in spans) for name in names] for spans in data.spans])
    held = held[:, columns]
    rows = np.flatnonzero((data.split == "train") & held.any(axis=1))[: args.samples]
    texts, classes = [], []
    for c, name in enumerate(WORDS):
        alone = held[:, c] & (held.sum(axis=1) == 1) & (data.split == "test")
        some = np.flatnonzero(alone)[: args.samples]
        texts += [f"{data.data[i]}{PROMPT}" for i in some]
        classes += [name] * len(some)
    return [data.data[i] for i in rows], held[rows].astype(int), texts, classes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--layers", type=int, nargs="+", default=[5, 10, 15, 20, 25])
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--out")
    args = parser.parse_args()
    train, y, texts, classes = parts(args)
    reader = TransformerEmbedder(args.model, layer=args.layers)
    X = reader.transform(train)
    result = concept_sensitivity(
        reader, texts, classes, DifferenceInMeans(), X, y, heads=WORDS, random_state=SEED
    )
    concepts = list(WORDS)
    for one, layer in enumerate(result.layers):
        for k, name in enumerate(result.classes):
            told = []
            for i, concept in enumerate(concepts):
                at, random = (one, k, i), result.random_shares[one, k, i]
                told.append(
                    f"{concept} {result.share[at]:.2f} [{result.low[at]:.2f}, "
                    f"{result.high[at]:.2f}] random {random.mean():.2f}+-{random.std():.2f} "
                    f"p {result.p_corrected[at]:.3f}"
                )
            print(f"block {layer}, {WORDS[name]!r}: {'; '.join(told)}")
    if args.out:
        kept = ("share", "low", "high", "p_value", "p_corrected")
        write_json(
            args.out,
            {
                "model": short(args.model),
                "prompt": PROMPT,
                "words": WORDS,
                "layers": result.layers,
                "classes": result.classes,
                "concepts": concepts,
                "n_train": len(train),
                "n_samples": {c: classes.count(c) for c in result.classes},
                **{name: result[name].tolist() for name in kept},
                "random_mean": result.random_shares.mean(axis=-1).tolist(),
                "random_std": result.random_shares.std(axis=-1).tolist(),
                "consistency": layer_consistency(result).tolist(),
            },
        )


if __name__ == "__main__":
    main()
