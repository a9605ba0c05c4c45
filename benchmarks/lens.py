"""Whether the words that a lens reads off the vector of an emotion name the emotion.

    python benchmarks/lens.py --data FOLDER --model MODEL [--layers B ...] [--texts N]
        [--out RESULT.json]

FOLDER holds texts with spans (``samples.jsonl``), split into train, cal and test. Vectors of the
emotions of ``sensitivity.WORDS`` are differences in means of the tokens in their spans on train.
The logit lens reads each vector as if later blocks did nothing; the Jacobian lens follows it
through them, on N texts of test. Told is the rank of the word of each emotion among all words, from
1: under its own vector, the median under the vectors of the other emotions, and the median under
random directions; and the first words of the vectors of three of them (those of anger are coarse).
"""

import argparse

import numpy as np
from common import SEED, short, write_json
from sensitivity import WORDS

from skact import DifferenceInMeans, TransformerEmbedder, load_spans
from skact.models import jacobian_lens, logit_lens

N_RANDOM = 10
SHOWN = 6
SPELT = ("gratitude", "joy", "sadness")


def emotion_vectors(reader, folder, n_train):
    """Vectors of emotions by block, and texts of test."""
    data = load_spans(folder, concepts=list(WORDS))
    split = np.asarray(data.split)
    rows = np.flatnonzero((split == "train") & data.target.any(axis=1))[:n_train]
    texts, y = [data.data[i] for i in rows], data.target[rows]
    names = [str(name) for name in data.target_names]
    labels = reader.align_spans(texts, [data.spans[i] for i in rows], names)
    layers = reader.transform(texts)
    vectors = {}
    for block in layers.layers:
        fitted = DifferenceInMeans().fit(layers.layer(block), y, token_labels=labels)
        vectors[block] = fitted.concept_vectors_[[names.index(name) for name in WORDS]]
    return vectors, [data.data[i] for i in np.flatnonzero(split == "test")]


def ranks(words, tokens):
    """Rank of each token in each list of all words; (n_vectors, n_tokens), from 1."""
    places = [{one.token: k for k, one in enumerate(own, start=1)} for own in words]
    return np.array([[place[token] for token in tokens] for place in places])


def read(words, tokens):
    """First words of the emotions' vectors, and ranks of their words beside those of others."""
    found = ranks(words, tokens)
    own, random = found[: len(tokens)], found[len(tokens) :]
    others = [np.median(np.delete(own[:, c], c)) for c in range(len(tokens))]
    return {
        name: {
            "first words": [one.word for one in words[c][:SHOWN]] if name in SPELT else [],
            "rank": int(own[c, c]),
            "rank under other emotions, median": float(others[c]),
            "rank under random directions, median": float(np.median(random[:, c])),
        }
        for c, name in enumerate(WORDS)
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--layers", type=int, nargs="+", default=[5, 14, 22, 29])
    parser.add_argument("--train", type=int, default=300, help="texts that vectors come from")
    parser.add_argument("--texts", type=int, default=16, help="over which the Jacobian is a mean")
    parser.add_argument("--out")
    args = parser.parse_args()
    reader = TransformerEmbedder(args.model, layer=args.layers)
    vectors, texts = emotion_vectors(reader, args.data, args.train)
    tokenizer = reader.reader.loaded.processor
    tokens = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS.values()]
    result = {}
    for block, own in vectors.items():
        shape = (N_RANDOM, own.shape[1])
        rows = np.vstack([own, np.random.default_rng(SEED).standard_normal(shape)])
        every = {"top": len(tokenizer)}
        result[str(block)] = {
            "logit lens": read(logit_lens(args.model, rows, **every), tokens),
            "Jacobian lens": read(
                jacobian_lens(args.model, rows, texts[: args.texts], layer=block, **every).words,
                tokens,
            ),
        }
        print(f"block {block}: {result[str(block)]}", flush=True)
    if args.out:
        about = {"data": short(args.data), "model": short(args.model), "words": WORDS}
        write_json(args.out, {**about, "n_words": len(tokenizer), "blocks": result})


if __name__ == "__main__":
    main()
