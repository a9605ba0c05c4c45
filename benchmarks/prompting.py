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
import warnings

import numpy as np
import torch
from detection_table import SEED, short, write_json
from sklearn.metrics import roc_auc_score

from skact import PromptDetector, bootstrap_interval, load_spans, weighted_f1_score


def rounded(interval):
    return [round(float(x), 4) for x in interval]


def auroc(y, odds):
    """Area under the curve, weighted by positives; one class alone has none."""
    known = (y.min(axis=0) < y.max(axis=0)).nonzero()[0]
    areas = [roc_auc_score(y[:, c], odds[:, c]) for c in known]
    return float(np.average(areas, weights=y[:, known].sum(axis=0)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of a chat model")
    parser.add_argument("--texts", type=int, default=200, help="of cal, and of test")
    parser.add_argument("--concepts", nargs="+", help="default all")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*are neither Yes nor No")
    data = load_spans(args.data, concepts=args.concepts)
    order = np.random.default_rng(SEED).permutation(len(data.data))
    split = np.asarray(data.split)[order]
    cal, test = (order[split == name][: args.texts] for name in ("cal", "test"))
    y, names = data.target, list(data.target_names)
    texts = {
        name: [data.data[i] for i in rows] for name, rows in {"cal": cal, "test": test}.items()
    }
    result = {
        "command": f"python benchmarks/prompting.py --data {short(args.data)} "
        f"--model {short(args.model)} --texts {args.texts}"
        + (f" --concepts {' '.join(args.concepts)}" if args.concepts else ""),
        "model": short(args.model),
        "data": short(args.data),
        "texts": {"cal": len(cal), "test": len(test)},
        "positives_of_test": dict(zip(names, y[test].sum(axis=0).tolist(), strict=True)),
        "yes_to_everything": round(float(weighted_f1_score(y[test], np.ones_like(y[test]))), 4),
    }
    said = {}
    for scores in ("answer", "logits"):
        detector = PromptDetector(args.model, concepts=names, scores=scores)
        detector.fit(texts["cal"], y[cal])
        start = time.process_time()
        answers = detector.answers(texts["test"])
        seconds = (time.process_time() - start) / y[test].size
        if scores == "logits":
            said[scores] = (answers.odds >= detector.thresholds_).astype(np.int64)
        else:
            said[scores] = (answers.parsed == 1).astype(np.int64)
        f1 = bootstrap_interval(y[test], said[scores], random_state=SEED)
        result[scores] = {
            "f1": rounded(f1),
            "yes": round(float(said[scores].mean()), 4),
            "seconds_per_question": round(seconds, 3),
        }
        if scores == "logits":
            at_zero = (answers.odds > 0).astype(np.int64)
            result[scores] |= {
                "f1_of_cut_at_0": round(float(weighted_f1_score(y[test], at_zero)), 4),
                "auroc": round(auroc(y[test], answers.odds), 4),
                "cuts": dict(zip(names, np.round(detector.thresholds_, 2).tolist(), strict=True)),
                "probability_of_yes_or_no": round(float(answers.share.mean()), 4),
            }
        else:
            result[scores]["neither"] = answers.n_unparsed
        print(scores, result[scores], flush=True)
    gain = bootstrap_interval(y[test], said["logits"], baseline=said["answer"], random_state=SEED)
    everything = bootstrap_interval(
        y[test], said["logits"], baseline=np.ones_like(y[test]), random_state=SEED
    )
    result |= {"gain_of_logits": rounded(gain), "gain_over_yes": rounded(everything)}
    print(result["yes_to_everything"], result["gain_of_logits"], result["gain_over_yes"])
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
