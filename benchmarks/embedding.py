"""Time of TransformerEmbedder against a plain loop over pre-sorted batches, in one run.

    python benchmarks/embedding.py --data FOLDER --model FOLDER_OR_NAME [--out RESULT.json]

FOLDER holds texts (``samples.jsonl``). Both sides embed the same texts at all blocks in batches of
32. The loop is what one writes by hand at best: texts sorted beforehand, so that padding is small,
each batch tokenised and run with ``output_hidden_states=True``, all hidden states kept as they
come. The embedder sorts by itself, drops padding and special tokens and restores the order. The
texts are cut into parts that both sides take in turn, so that a busy machine slows both.
"""

import argparse
import time

import torch
from detection_table import short, write_json
from transformers import AutoModel, AutoTokenizer

from skact import TransformerEmbedder, load_spans

N_PARTS = 6
BATCH = 32


def plain_loop(model, tokenizer, batches):
    """Hidden states of all blocks, batch by batch."""
    kept = []
    with torch.inference_mode():
        for texts in batches:
            inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            states = model(**inputs, output_hidden_states=True).hidden_states[1:]
            kept.append([state.numpy() for state in states])
    return kept


def sorted_batches(texts, tokenizer):
    """Cut texts into batches of similar length."""
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    return [[texts[i] for i in order[b : b + BATCH]] for b in range(0, len(texts), BATCH)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of a text model")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    texts = load_spans(args.data).data
    model = AutoModel.from_pretrained(args.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    embedder = TransformerEmbedder(args.model, batch_size=BATCH)
    embedder.set_params(layer=list(range(embedder.n_blocks)))
    embedder.transform(texts[:BATCH])
    plain_loop(model, tokenizer, sorted_batches(texts[:BATCH], tokenizer))
    seconds = {"embedder": 0.0, "plain loop": 0.0}
    for part in range(N_PARTS):
        own = texts[part::N_PARTS]
        batches = sorted_batches(own, tokenizer)
        sides = {
            "embedder": lambda own=own: embedder.transform(own),
            "plain loop": lambda batches=batches: plain_loop(model, tokenizer, batches),
        }
        for side in list(sides) if part % 2 else reversed(sides):
            start = time.perf_counter()
            sides[side]()
            seconds[side] += time.perf_counter() - start
    ratio = seconds["embedder"] / seconds["plain loop"]
    for side, total in seconds.items():
        print(f"{side:<12} {total:7.1f} s for {len(texts)} texts at {embedder.n_blocks} blocks")
    print(f"ratio {ratio:.3f}")
    if args.out:
        names = {"data": short(args.data), "model": short(args.model)}
        command = "python benchmarks/embedding.py --data {data} --model {model}".format(**names)
        rounded = {side: round(total, 1) for side, total in seconds.items()}
        result = {"command": command, "texts": len(texts), "blocks": embedder.n_blocks}
        write_json(args.out, {**result, "seconds": rounded, "ratio": round(ratio, 3)})


if __name__ == "__main__":
    main()
