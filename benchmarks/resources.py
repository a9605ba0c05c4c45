"""What each estimator takes: memory at two million tokens on disk, and how time grows with tokens.

    OMP_NUM_THREADS=1 python benchmarks/resources.py --folder FOLDER [--only NAME ...]
        [--out RESULT.json]

A file of 2,000,000 x 384 numbers in float16 (1.4 GiB) is written. Each estimator is fitted on it in
a process of its own, and what it makes of the tokens is read once; iterations are few, as they
change the time and not the memory. ``peak_mib`` is the most anonymous memory that this adds: pages
of mapped files are not counted, as the system may drop them. The goal is 500 MiB, which top windows
miss by a tenth.

``exponent`` is the slope of log time against log tokens, from fits on three sizes in memory: 1
where time is proportional to tokens. The goal is at most 1.2. Times of growth are those of the
processor, the shorter of two, as others may use the machine; so is ``cpu_s``, while ``seconds`` are
those of a clock.

With ``--only`` the other rows of the file ``--out`` are kept, and its note.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from common import write_json

N_TOKENS, N_FEATURES, N_CONCEPTS, LENGTH = 2_000_000, 384, 5, 20
SIZES = 2**14, 2**16, 2**18
BLOCK = 2**16  # tokens that are drawn; the file repeats them
TIMEOUT = 300  # seconds for one estimator


def estimators():
    """Name -> estimator; detectors with ``match_columns`` see a score in each feature."""
    import skact as s

    few = {"random_state": 0}
    return {
        "TokenScaler": s.TokenScaler(),
        "NormClip": s.NormClip(),
        "MeanPrototype": s.MeanPrototype(),
        "DifferenceInMeans": s.DifferenceInMeans(),
        "DifferenceInMeans pca": s.DifferenceInMeans("pca"),
        "LinearSeparator lbfgs": s.LinearSeparator(s.LBFGS(max_iter=3)),
        "LinearSeparator minibatch": s.LinearSeparator(s.Minibatch(n_passes=1), **few),
        "LinearSeparator adam": s.LinearSeparator(s.Adam(batch_size=4096, max_epochs=1), **few),
        "MaxSeparator": s.MaxSeparator(max_iter=3),
        "PCAConcepts": s.PCAConcepts(8),
        "KMeansConcepts": s.KMeansConcepts(8, max_iter=3, **few),
        "KMeansSeparator": s.KMeansSeparator(8, max_iter=3, separator_max_iter=3, **few),
        "NMFConcepts": s.NMFConcepts(8, max_iter=1, **few),
        "SemiNMFConcepts": s.SemiNMFConcepts(8, max_iter=3, **few),
        "SparseAutoencoder": s.SparseAutoencoder(
            32, training=s.AutoencoderTraining(batch_size=4096, max_epochs=1), **few
        ),
        "SAEUnitFilter": s.SAEUnitFilter(min_ratio=0, max_ratio=99, max_share=1),
        "SuperActivator": s.SuperActivator(match_columns=True),
        "MaxToken": s.MaxToken(match_columns=True),
        "MeanToken": s.MeanToken(match_columns=True),
        "LastToken": s.LastToken(match_columns=True),
        "RandomToken": s.RandomToken(match_columns=True, **few),
        "WeakSuperActivator": s.WeakSuperActivator(match_columns=True),
        "TopWindows": s.TopWindows(window=3, top=2, match_columns=True),
        "CrossFitTransformer": s.CrossFitTransformer(s.MeanPrototype(), cv=2, **few),
    }


def write(file):
    """Write the tokens: noise, but not below zero, as some estimators ask for."""
    tokens = np.random.default_rng(0).standard_normal((BLOCK, N_FEATURES), np.float32)
    tokens = np.maximum(tokens, 0).astype(np.float16)
    with file.open("wb") as opened:
        for start in range(0, N_TOKENS, BLOCK):
            opened.write(tokens[: N_TOKENS - start].data)


def problem(values):
    """Tokens, their labels, and those of samples."""
    from skact import TokenArray

    rng = np.random.default_rng(1)
    n_samples = len(values) // LENGTH
    tokens = TokenArray(values[: n_samples * LENGTH], np.arange(n_samples + 1) * LENGTH)
    labels = TokenArray(rng.random((tokens.n_tokens, N_CONCEPTS)) < 0.02, tokens.offsets)
    return tokens, labels, labels.max().astype(np.int8)


def use(estimator, tokens, labels, y):
    """Fit an estimator, and read what it makes of the tokens."""
    takes = {"token_labels": labels} if hasattr(estimator, "set_fit_request") else {}
    try:
        estimator.fit(tokens, y, **takes)
    except TypeError:
        estimator.fit(tokens, y)
    if hasattr(estimator, "predict"):
        estimator.predict(tokens)
    else:
        for _ in estimator.transform(tokens).blocks():
            pass


def anonymous():
    """MiB of memory that belongs to no file."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 2**10


def peak_of(function):
    """MiB of anonymous memory that a function adds at most."""
    before, peak, done = anonymous(), [0.0], threading.Event()

    def watch():
        while not done.wait(0.01):
            peak.append(max(peak.pop(), anonymous()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return max(peak[0] - before, 0.0)


def measure(name, file):
    """Measure one estimator, in this process, which should be a fresh one."""
    from sklearn.base import clone

    from skact.rows import FileRows

    rows = FileRows(file, np.float16).reshape(-1, N_FEATURES)
    estimator = estimators()[name]

    def cpu_seconds(size):
        given = problem(np.resize(held, (size, held.shape[1])))
        start = time.process_time()
        use(clone(estimator), *given)
        return time.process_time() - start

    held = np.asarray(rows[:BLOCK, :32], np.float32)
    cpu_seconds(min(SIZES))  # the first one loads and compiles
    seconds = [min(cpu_seconds(size) for _ in range(2)) for size in SIZES]
    given = problem(rows)
    start, cpu = time.perf_counter(), time.process_time()
    peak = peak_of(lambda: use(clone(estimator), *given))
    return {
        "peak_mib": round(peak),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "growth_s": [round(s, 4) for s in seconds],
        "exponent": round(float(np.polyfit(np.log(SIZES), np.log(seconds), 1)[0]), 2),
    }


def main():
    """Write the tokens, measure in fresh processes, and delete them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the tokens; deleted")
    parser.add_argument("--only", nargs="+", choices=list(estimators()), metavar="NAME")
    parser.add_argument("--out", type=Path, help="write the result as JSON to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    file = args.folder / "tokens.f16"
    if args.child:
        print(json.dumps(measure(args.child, file)))
        return
    rows, note = {}, None
    if args.only and args.out and args.out.exists():
        before = json.loads(args.out.read_text(encoding="utf-8"))
        rows, note = before["estimators"], before.get("note")
    args.folder.mkdir(parents=True)
    try:
        write(file)
        for name in args.only or estimators():
            # Sizes may have been changed in this process.
            sizes = {k: globals()[k] for k in ("N_TOKENS", "N_FEATURES", "SIZES", "BLOCK")}
            code = f"import sys, resources\nvars(resources).update({sizes!r})\n"
            code += f"sys.argv[1:] = {['--folder', str(args.folder), '--child', name]!r}\n"
            try:
                run = subprocess.run(
                    [sys.executable, "-c", code + "resources.main()"],
                    cwd=Path(__file__).parent,
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT,
                )
            except subprocess.TimeoutExpired:
                rows[name] = {"seconds": f"stopped after {TIMEOUT}"}
            else:
                if run.returncode:
                    sys.exit(f"{name}: {run.stderr}")
                rows[name] = json.loads(run.stdout)
            print(name, rows[name], flush=True)
    finally:
        shutil.rmtree(args.folder)
    result = {
        "command": "python benchmarks/resources.py",
        "tokens": f"{N_TOKENS} x {N_FEATURES}, float16 on disk, {N_CONCEPTS} concepts",
        "growth_tokens": list(SIZES),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "estimators": {name: rows[name] for name in estimators() if name in rows},
    }
    if note:
        result["note"] = note
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
