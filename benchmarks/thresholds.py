"""Thresholds and decisions for 12 deltas against one ``numpy.maximum.reduceat``, in one run.

    python benchmarks/thresholds.py [--out RESULT.json]

30 concepts on 1,000 samples of 256 tokens, float32 scores. The time of fitting SuperActivator at
all deltas, with its checks, and of deciding on all samples is to be at most twice that of the
single reduction that any maximum over tokens needs. Since a fit makes sigmoids for probabilities
too, it is two and a half times.
"""

import argparse
import time

import numpy as np
from common import write_json

from skact import DELTA_GRID, SuperActivator, TokenArray
from skact.validation import check_tokens

N_SAMPLES, N_TOKENS, N_CONCEPTS = 1000, 256, 30
REPEATS = 15


def problem():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((N_SAMPLES * N_TOKENS, N_CONCEPTS), dtype=np.float32)
    labels = np.zeros((N_SAMPLES, N_TOKENS, N_CONCEPTS), bool)
    for i in range(N_SAMPLES):
        for concept in rng.choice(N_CONCEPTS, 3, replace=False):
            start = rng.integers(N_TOKENS - 40)
            labels[i, start : start + 40, concept] = True
    offsets = np.arange(0, len(scores) + 1, N_TOKENS)
    return TokenArray(scores, offsets), TokenArray(labels.reshape(-1, N_CONCEPTS), offsets)


def decide(scores, labels, y):
    """Fit all deltas and decide on all samples."""
    path = SuperActivator().fit_path(scores, y, labels)
    pooled = check_tokens(path[0], scores, reset=False).max()
    return [detector.decide(pooled) > 0 for detector in path]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    scores, labels = problem()
    y = labels.max().astype(int)
    slow = [
        SuperActivator(d).fit(scores, y, token_labels=labels).predict(scores) for d in DELTA_GRID
    ]
    assert np.array_equal(decide(scores, labels, y), slow)
    best = {"all deltas": np.inf, "one reduceat": np.inf}
    for _ in range(REPEATS):
        start = time.perf_counter()
        decide(scores, labels, y)
        middle = time.perf_counter()
        np.maximum.reduceat(scores.values, scores.offsets[:-1], axis=0)
        end = time.perf_counter()
        best["all deltas"] = min(best["all deltas"], middle - start)
        best["one reduceat"] = min(best["one reduceat"], end - middle)
    ratio = best["all deltas"] / best["one reduceat"]
    result = {f"{name} ms": round(1000 * t, 1) for name, t in best.items()}
    result = {**result, "ratio": round(ratio, 2), "repeats, best of": REPEATS}
    print(result)
    if args.out:
        write_json(args.out, {"command": "python benchmarks/thresholds.py", **result})


if __name__ == "__main__":
    main()
