"""Match 1,000 units with 83 concepts at 12 deltas in one pass: time and peak memory.

    python benchmarks/matching.py [--out RESULT.json]

1,000 samples of 256 tokens with random float32 scores; each sample holds three concepts, each in a
run of 40 tokens. Two cores, idle, are meant to take at most 20 seconds and 4 GB.

``weak_cpu_s`` and ``superactivator_cpu_s`` are seconds of the processor for fits at one delta, of
which those of WeakSuperActivator are meant to be at most ten of SuperActivator.
"""

import argparse
import resource
import time

import numpy as np
from common import write_json

from skact import DELTA_GRID, SuperActivator, TokenArray, WeakSuperActivator

N_SAMPLES, N_TOKENS, N_UNITS, N_CONCEPTS = 1000, 256, 1000, 83


def problem():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((N_SAMPLES * N_TOKENS, N_UNITS), dtype=np.float32)
    labels = np.zeros((N_SAMPLES, N_TOKENS, N_CONCEPTS), bool)
    for i in range(N_SAMPLES):
        for concept in {i % N_CONCEPTS, *rng.choice(N_CONCEPTS, 2, replace=False).tolist()}:
            start = rng.integers(N_TOKENS - 40)
            labels[i, start : start + 40, concept] = True
    offsets = np.arange(0, len(scores) + 1, N_TOKENS)
    marks = TokenArray(labels.reshape(-1, N_CONCEPTS), offsets)
    # A planted unit, which its concept must find.
    scores[marks.values[:, 7], 42] += 5
    return TokenArray(scores, offsets), marks


def peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def cpu_seconds(detector, scores, labels):
    start = time.process_time()
    detector.fit(scores, labels.max().astype(int), labels)
    assert detector.matched_columns_[7] == 42
    return round(time.process_time() - start, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    scores, labels = problem()
    before = peak_gb()
    start = time.perf_counter()
    table = SuperActivator().match_table(scores, labels.max().astype(int), labels)
    seconds = time.perf_counter() - start
    n_deltas = len(DELTA_GRID)
    assert table.f1.shape == (n_deltas, N_CONCEPTS, N_UNITS)
    best = table.f1[:, 7].max(axis=0).argmax()
    assert best == 42, best
    result = {
        "seconds": round(seconds, 1),
        "peak_gb": round(peak_gb(), 2),
        "peak_gb_before": round(before, 2),
        "superactivator_cpu_s": cpu_seconds(SuperActivator(), scores, labels),
        "weak_cpu_s": cpu_seconds(WeakSuperActivator(), scores, labels),
        "units": N_UNITS,
        "concepts": N_CONCEPTS,
        "deltas": n_deltas,
        "samples": N_SAMPLES,
        "tokens_per_sample": N_TOKENS,
    }
    print(result)
    if args.out:
        write_json(args.out, {"command": "python benchmarks/matching.py", **result})


if __name__ == "__main__":
    main()
