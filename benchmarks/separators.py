"""Linear separators for 30 concepts: trained together against one after another, in one run.

    OMP_NUM_THREADS=1 python benchmarks/separators.py [--concepts N] [--out RESULT.json]

60,000 tokens of 256 features, every concept in 1 of 30 tokens along its own noisy direction. The
loop is the usual one: for each concept the tokens are balanced, and a torch DataLoader feeds
minibatches of 32 to Adam, with the F1 over the training tokens after each epoch. Both sides run the
paper's recipe (16 epochs). The fast sides are the median of three fits after a first one. ``lbfgs,
same f1`` is the convex solver with the fewest iterations that reach Adam's F1. Peak memory is that
of the process, so it is read before the loop.
"""

import argparse
import resource
import time
import warnings

import numpy as np
import torch
from common import write_json
from sklearn.exceptions import ConvergenceWarning

from skact import LBFGS, Adam, LinearSeparator, TokenArray, concept_f1

N_TOKENS, N_FEATURES, N_CONCEPTS = 60_000, 256, 30
EPOCHS, BATCH = 16, 32


def problem():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((N_TOKENS, N_FEATURES), dtype=np.float32)
    directions = rng.standard_normal((N_FEATURES, N_CONCEPTS), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    labels = np.zeros((N_TOKENS, N_CONCEPTS), bool)
    labels[np.arange(N_TOKENS), rng.integers(N_CONCEPTS, size=N_TOKENS)] = True
    values += 2.0 * labels @ directions.T
    offsets = np.arange(0, N_TOKENS + 1, 60)
    return TokenArray(values, offsets), TokenArray(labels, offsets)


def one_after_another(values, labels, concepts):
    """Train each concept alone, with a DataLoader; returns vectors (n_concepts, n_features)."""
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    vectors = []
    for concept in concepts:
        positive = np.flatnonzero(labels[:, concept])
        negative = rng.choice(np.flatnonzero(~labels[:, concept]), len(positive), replace=False)
        rows = np.concatenate([positive, negative])
        data = torch.utils.data.TensorDataset(
            torch.from_numpy(values[rows]), torch.from_numpy(labels[rows, concept]).float()
        )
        loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True, generator=generator)
        model = torch.nn.Linear(N_FEATURES, 1, bias=False)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5)
        loss_of = torch.nn.BCEWithLogitsLoss()
        for _ in range(EPOCHS):
            for batch, target in loader:
                optimizer.zero_grad()
                loss_of(model(batch)[:, 0], target).backward()
                optimizer.step()
            schedule.step()
            with torch.no_grad():
                parts = [(model(batch)[:, 0] >= 0, target > 0) for batch, target in loader]
                found, truth = (torch.cat(part) for part in zip(*parts, strict=True))
                concept_f1(truth.numpy(), found.numpy())
        vectors.append(model.weight.detach().numpy()[0])
    return np.stack(vectors)


def balanced_f1(values, labels, vectors, concepts):
    """Mean F1 on as many negatives as positives."""
    rng = np.random.default_rng(1)
    scores = []
    for vector, concept in zip(vectors, concepts, strict=True):
        positive = np.flatnonzero(labels[:, concept])
        negative = rng.choice(np.flatnonzero(~labels[:, concept]), len(positive), replace=False)
        rows = np.concatenate([positive, negative])
        scores.append(concept_f1(labels[rows, concept], values[rows] @ vector >= 0))
    return float(np.mean(scores))


def timed(function):
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def peak_gb():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--concepts", type=int, default=N_CONCEPTS, help="concepts of the slow side; scaled up"
    )
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    tokens, marks = problem()
    values, labels, y = tokens.values, marks.values, marks.max().astype(int)
    everyone = range(N_CONCEPTS)
    LinearSeparator(Adam(max_epochs=1)).fit(tokens[:20], y[:20], token_labels=marks[:20])

    def run(solver):
        method = LinearSeparator(solver, random_state=0)
        first, *times = (
            timed(lambda: method.fit(tokens, y, token_labels=marks))[1] for _ in range(4)
        )
        f1 = balanced_f1(values, labels, method.concept_vectors_, everyone)
        seconds = float(np.median(times))
        return {"seconds": seconds, "first_call_s": first, "f1": f1, "peak_gb": peak_gb()}

    runs = {"lbfgs": run("lbfgs"), "adam": run("adam")}
    warnings.simplefilter("ignore", ConvergenceWarning)
    for n_iter in range(1, 20):
        runs["lbfgs, same f1"] = {**run(LBFGS(n_iter)), "iterations": n_iter}
        if runs["lbfgs, same f1"]["f1"] >= runs["adam"]["f1"]:
            break
    some = range(args.concepts)
    vectors, seconds = timed(lambda: one_after_another(values, labels, some))
    runs["loop"] = {
        "seconds": seconds * N_CONCEPTS / args.concepts,
        "f1": balanced_f1(values, labels, vectors, some),
        "peak_gb": peak_gb(),
    }
    for name, run in runs.items():
        run["times faster"] = runs["loop"]["seconds"] / run["seconds"]
        runs[name] = {key: round(value, 3) for key, value in run.items()}
        print(f"{name:<19} {runs[name]}")
    if args.out:
        command = f"OMP_NUM_THREADS=1 python benchmarks/separators.py --concepts {args.concepts}"
        write_json(args.out, {"command": command, **runs})


if __name__ == "__main__":
    main()
