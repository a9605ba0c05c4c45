"""Embedding texts in paragraphs by a chat model: how often a draft is verified, at which step.

    python benchmarks/augmentation.py --data FOLDER --model FOLDER_OR_NAME
        [--texts 50] [--drafts 3] [--out RESULT.json]

FOLDER holds texts with labelled spans (``samples.jsonl``). The originals are pieces that a span
marks, of 3 to 30 words, drawn at random. Shares of first drafts and of texts have 95 % Wilson
intervals; the drafts of one text are no independent trials, so all drafts are only counted. With
``--journal`` a run that was broken off goes on.
"""

import argparse
import time

import numpy as np
import torch
from common import SEED, short, write_json

from skact import load_spans
from skact.augmentation import DraftWriter, embed_in_paragraphs

CONTEXT = "I was at home for most of the day."


def wilson(n, of):
    """Share and its 95 % interval."""
    z, p = 1.96, n / of
    middle, width = p + z**2 / (2 * of), z * np.sqrt(p * (1 - p) / of + (z / (2 * of)) ** 2)
    low, high = (middle - width) / (1 + z**2 / of), (middle + width) / (1 + z**2 / of)
    return [round(float(x), 4) for x in (p, low, high)]


def originals(data, n):
    """List marked pieces with their concepts, each piece once."""
    found = {}
    for text, spans in zip(data.data, data.spans, strict=True):
        for span in spans:
            piece = text[span.start : span.end]
            if 3 <= len(piece.split()) <= 30:
                found.setdefault(piece, []).append(span.label)
    pieces = sorted(found)
    drawn = np.random.default_rng(SEED).permutation(len(pieces))[:n]
    return [pieces[i] for i in drawn], [found[pieces[i]] for i in drawn]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of a chat model")
    parser.add_argument("--texts", type=int, default=50)
    parser.add_argument("--drafts", type=int, default=3, help="most drafts of a text")
    parser.add_argument("--tokens", type=int, default=150, help="longest draft")
    parser.add_argument("--journal", help="file of drafts, to go on with")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    texts, labels = originals(load_spans(args.data), args.texts)
    writer = DraftWriter(
        args.model,
        n_drafts=args.drafts,
        max_new_tokens=args.tokens,
        journal=args.journal,
        random_state=SEED,
    )
    start = time.process_time()
    made = embed_in_paragraphs(texts, labels, writer, contexts=[CONTEXT])
    seconds = time.process_time() - start
    first = made.drafts[made.drafts["round"] == 0]
    asked, verified = np.array(made.structures), np.array(made.steps) != "fall-back"
    result = {
        "command": f"python benchmarks/augmentation.py --data {short(args.data)} "
        f"--model {short(args.model)} --texts {args.texts} --drafts {args.drafts} "
        f"--tokens {args.tokens}",
        "texts": len(texts),
        "first_drafts": {
            "verified": wilson(int(first["passed"].sum()), len(first)),
            **{
                name: wilson(int((first["outcome"] == name).sum()), len(first))
                for name in made.report["outcome"]
                if name not in ("fall-back", "left out")
            },
        },
        "texts_verified": wilson(int(verified.sum()), len(texts)),
        "by_structure": {
            name: wilson(int((asked[verified] == name).sum()), int((asked == name).sum()))
            for name in np.unique(asked).tolist()
        },
        "all_drafts": {
            f"{'passed' if row.passed else 'rejected'}: {row.outcome}": int(row.n)
            for row in made.report.itertuples()
            if row.outcome not in ("fall-back", "left out")
        },
        "seconds_per_draft": round(seconds / len(made.drafts), 2),
    }
    print(result, made.report, sep="\n", flush=True)
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
