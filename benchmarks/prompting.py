"""Prompting a language model: answers that it writes against the log-odds of Yes and No.

    python benchmarks/prompting.py --data FOLDER --model FOLDER_OR_NAME
        [--texts 200] [--concepts NAME ...] [--out RESULT.json]

FOLDER holds texts with labelled spans (``samples.jsonl``), split into train, cal and test; some are
drawn from cal and as many from test. The cut of the log-odds is that of the best F1 on cal; written
answers learn nothing. Weighted test F1 of both with 95 % bootstrap intervals, their paired
difference, and the floor of saying yes to everything; AUROC of the log-odds, weighted by positives;
answers that are neither; the probability of both words; and seconds per question.
"""

import argparse
import time

import numpy as np
import torch
from common import SEED, short, write_json

from skact import load_spans
from skact.protocol import Prompting, ask_about, asked_rows, prompt_gain


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of a chat model")
    parser.add_argument("--texts", type=int, default=200, help="of cal, and of test")
    parser.add_argument("--concepts", nargs="+", help="default all")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_spans(args.data, concepts=args.concepts)
    settings = Prompting(texts=args.texts)
    _, test = asked_rows(data.split, args.texts, SEED)
    y, names = data.target[test], list(data.target_names)
    result = {
        "command": f"python benchmarks/prompting.py --data {short(args.data)} "
        f"--model {short(args.model)} --texts {args.texts}"
        + (f" --concepts {' '.join(args.concepts)}" if args.concepts else ""),
        "model": short(args.model),
        "data": short(args.data),
        "positives_of_test": dict(zip(names, y.sum(axis=0).tolist(), strict=True)),
    }
    said = {}
    for scores in ("answer", "logits"):
        start = time.process_time()
        found = ask_about(data, args.model, scores, settings, SEED)
        seconds = time.process_time() - start
        said[scores] = found.pop("predicted")
        asked = len(test) + (found["samples"]["cal"] if scores == "logits" else 0)
        result["texts"], result["yes_to_everything"] = found.pop("samples"), found.pop("floor")
        result[scores] = {**found, "seconds_per_question": round(seconds / asked / len(names), 3)}
        print(scores, result[scores], flush=True)
    baselines = {"gain_of_logits": said["answer"], "gain_over_yes": np.ones_like(y)}
    for name, baseline in baselines.items():
        result[name] = prompt_gain(data, said["logits"], baseline, settings, SEED)
    print(result["yes_to_everything"], result["gain_of_logits"], result["gain_over_yes"])
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
