"""Time of embedding texts into a store, against bare forward passes and the usual loop, in one run.

    python benchmarks/embedding.py --data FOLDER --model FOLDER_OR_NAME [--out RESULT.json]

FOLDER holds texts (``samples.jsonl``). All three sides run the same texts through all blocks:

store       ``embed_to_store``: texts are tokenised, sorted, embedded and kept as float32 (or as
            ``--store-dtype`` says) in files, with checksums, that are on the disk when it returns
bare        the model alone on batches made by the same rule, tokenised and sorted beforehand, over
            all texts at once, and on its device; what it puts out is dropped
usual loop  texts as they come, 32 at a time, padded to the longest, all hidden states kept

Store and bare passes take turns, all texts each time, and the ratio is the median over rounds; the
usual loop runs once. Before, each side runs some texts untimed: the first pass of a process takes
new memory.
With ``--device cuda --dtype bfloat16`` the same comparison runs on a GPU.
"""

import argparse
import tempfile
import time

import numpy as np
import torch
from common import short, write_json
from transformers import AutoModel, AutoTokenizer

from skact import ActivationStore, TransformerEmbedder, embed_to_store, load_spans
from skact.models._forward import Batches

BATCH = 32
WARM_UP = 512  # texts that each side runs once before it is timed


def longest(model, tokenizer):
    """Positions that a text may have."""
    return min(tokenizer.model_max_length, model.config.max_position_embeddings)


def usual_loop(model, tokenizer, texts):
    """Hidden states of all blocks, batch by batch."""
    kept, most = [], longest(model, tokenizer)
    options = {"padding": True, "truncation": True, "max_length": most, "return_tensors": "pt"}
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            inputs = tokenizer(texts[start : start + BATCH], **options)
            states = model(**inputs.to(model.device), output_hidden_states=True).hidden_states[1:]
            kept.append([state.cpu() for state in states])
    return kept


def ready_batches(model, tokenizer, texts):
    """Make the batches that the embedder makes; also the share of padding in them."""
    inputs = TransformerEmbedder((model, tokenizer)).prepare(texts)
    batches = Batches(inputs, np.arange(len(texts)))
    budget = BATCH * int(batches.lengths.sum()) // len(texts)
    ready, done = [], 0
    while len(samples := batches.cut(done, budget)):
        inputs, _ = batches.batch(samples)
        ready.append({k: v.to(model.device) for k, v in inputs.items()})
        done += len(samples)
    n_positions = sum(inputs["input_ids"].numel() for inputs in ready)
    return ready, 1 - int(batches.lengths.sum()) / n_positions


def bare_passes(model, ready):
    """Nothing but the model."""
    with torch.inference_mode():
        for inputs in ready:
            model(**inputs)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of a text model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of the model")
    parser.add_argument("--store-dtype", default="float32")
    parser.add_argument("--limit", type=int, help="use the first texts only")
    parser.add_argument("--rounds", type=int, default=4, help="times that both sides run")
    parser.add_argument("--chunk-size", type=int, default=2048, help="samples in a shard")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    texts = load_spans(args.data).data[: args.limit]
    dtype = getattr(torch, args.dtype)
    model = AutoModel.from_pretrained(args.model, dtype=dtype).eval().to(args.device)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    embedder = TransformerEmbedder(
        args.model, device=args.device, dtype=args.dtype, batch_size=BATCH
    )
    embedder.set_params(layer=list(range(embedder.n_blocks)))
    with tempfile.TemporaryDirectory() as folder:
        store = ActivationStore(folder, args.store_dtype)
        embed_to_store(texts[:WARM_UP], embedder, store)
    bare_passes(model, ready_batches(model, tokenizer, texts[:WARM_UP])[0])
    usual_loop(model, tokenizer, texts[:WARM_UP])
    ready, padding = ready_batches(model, tokenizer, texts)
    seconds = {side: [] for side in ("store", "bare", "usual loop")}

    def timed(side, function):
        start = time.perf_counter()
        function()
        seconds[side].append(time.perf_counter() - start)
        print(f"{side}: {seconds[side][-1]:.2f} s", flush=True)

    for turn in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            store = ActivationStore(folder, args.store_dtype, chunk_size=args.chunk_size)
            if turn % 2:
                timed("bare", lambda: bare_passes(model, ready))
            timed("store", lambda store=store: embed_to_store(texts, embedder, store))
            if not turn % 2:
                timed("bare", lambda: bare_passes(model, ready))
            n_tokens = sum(layer["tokens"] for layer in store.info()["layers"]) // embedder.n_blocks
    timed("usual loop", lambda: usual_loop(model, tokenizer, texts))
    middle = {side: float(np.median(times)) for side, times in seconds.items()}
    result = {
        "texts": len(texts),
        "tokens": n_tokens,
        "blocks": embedder.n_blocks,
        "padding of bare": round(padding, 4),
        "seconds": {side: [round(t, 1) for t in times] for side, times in seconds.items()},
        "store / bare": round(float(np.median(np.divide(seconds["store"], seconds["bare"]))), 3),
        "throughput over usual loop": round(middle["usual loop"] / middle["store"], 3),
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    if args.out:
        names = {"data": short(args.data), "model": short(args.model)}
        options = {"--device": args.device, "--dtype": args.dtype}
        options = {**options, "--store-dtype": args.store_dtype, "--rounds": args.rounds}
        if args.limit:
            options["--limit"] = args.limit
        command = "python benchmarks/embedding.py --data {data} --model {model} ".format(**names)
        command += " ".join(f"{key} {value}" for key, value in options.items())
        write_json(args.out, {"command": command, **result})


if __name__ == "__main__":
    main()
