"""A whole fit and predict on more tokens than the process may hold: peak memory, and time by pass.

A store of float16 tokens is written, and a fresh process runs ``TokenScaler``,
``LinearSeparator(solver="minibatch")`` for 20 concepts and ``SuperActivator``, fit and predict. Its
time is compared with reading the same files as often from end to end, 16 MiB at a time into one
buffer, which is the least that any such algorithm must do. Two figures:

- ``cached``: the files are in the page cache, as far as they fit there;
- ``disk``: pages are dropped from the cache every second, as if the store were far larger than
  memory, both while reading and while fitting.

Peak memory is the resident set size that the system reports at the end. It counts pages of mapped
files, so it stays low only because they are let go of once they were read.

    OMP_NUM_THREADS=1 python benchmarks/streaming.py --folder FOLDER [--gib 8] [--out RESULT.json]

One BLAS thread is best on two cores: a second thread reads, widens and scales the next piece.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

N_FEATURES, N_CONCEPTS, LENGTH = 384, 20, 32
BLOCK = 2**16  # tokens that are drawn; the store repeats them
PARTS = 8


def write(folder: Path, gib: float) -> None:
    """Write the store in several files, and the labels of its tokens."""
    random = np.random.default_rng(0)
    labels = np.zeros((BLOCK // LENGTH, LENGTH, N_CONCEPTS), bool)
    for sample, concept in np.argwhere(random.random((len(labels), N_CONCEPTS)) < 0.05):
        start = random.integers(LENGTH - 6)
        labels[sample, start : start + random.integers(2, 7), concept] = True
    labels = labels.reshape(BLOCK, N_CONCEPTS)
    directions = random.standard_normal((N_CONCEPTS, N_FEATURES)) / 4
    tokens = random.standard_normal((BLOCK, N_FEATURES)) + labels @ directions
    tokens = tokens.astype(np.float16)
    n_blocks = max(round(gib * 2**30 / tokens.nbytes / PARTS), 1)
    for part in range(PARTS):
        with (folder / f"part{part}.f16").open("wb") as file:
            for _ in range(n_blocks):
                file.write(tokens.data)
    np.save(folder / "labels.npy", np.tile(labels, (n_blocks * PARTS, 1)))


class DroppedCache:
    """While it is open, pages of some files are dropped from the page cache again and again."""

    def __init__(self, paths: list[Path]) -> None:
        self.files = [os.open(path, os.O_RDONLY) for path in paths]
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        """Drop pages until it is closed."""
        while not self.stop.wait(1):
            for file in self.files:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.thread.join()
        for file in self.files:
            os.close(file)


def read(paths: list[Path]) -> float:
    """Seconds to read all files from end to end."""
    buffer = bytearray(2**24)
    start = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def run(folder: Path) -> dict[str, float]:
    """Fit and predict, and read as often; in this process, which should be a fresh one."""
    from sklearn.metrics import f1_score
    from sklearn.pipeline import Pipeline

    from skact import LinearSeparator, SuperActivator, TokenArray, TokenScaler
    from skact.shards import Shards

    class Counting(Shards):
        """Shards that count the rows that were read."""

        n_read = 0

        def __getitem__(self, rows):  # type: ignore[no-untyped-def]
            result = super().__getitem__(rows)
            self.n_read += len(result)
            return result

    paths = sorted(folder.glob("part*.f16"))
    parts = [np.memmap(path, np.float16, "r").reshape(-1, N_FEATURES) for path in paths]
    values = Counting(parts)
    tokens = TokenArray(values, np.arange(0, len(values) + 1, LENGTH))
    labels = TokenArray(np.load(folder / "labels.npy"), tokens.offsets)
    y = labels.max().astype(np.int8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    pipe = Pipeline(
        [
            ("scale", TokenScaler()),
            ("concepts", LinearSeparator(solver="minibatch", random_state=0)),
            ("detect", SuperActivator(delta=0.5)),
        ]
    )
    start = time.perf_counter()
    pipe.fit(tokens, y, concepts__token_labels=labels, detect__token_labels=labels)
    fitted = time.perf_counter()
    predicted = pipe.predict(tokens)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    passes = values.n_read / len(values)
    reading = min(read(paths) for _ in range(3))
    return {
        "n_tokens": len(values),
        "peak_rss_mib": round(peak),
        "rss_before_fit_mib": round(before),
        "fit_s": round(fitted - start, 2),
        "predict_s": round(done - fitted, 2),
        "passes": round(passes, 2),
        "read_once_s": round(reading, 3),
        "ratio_to_reading": round((done - start) / (passes * reading), 2),
        "f1_weighted": round(float(f1_score(y, predicted, average="weighted")), 4),
    }


def main() -> None:
    """Write the store, measure in fresh processes, and delete it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the store; deleted")
    parser.add_argument("--gib", type=float, default=8.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=["cached", "disk"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        if args.child == "disk":
            with DroppedCache(sorted(args.folder.glob("part*.f16"))):
                result = run(args.folder)
        else:
            result = run(args.folder)
        print(json.dumps(result))
        return
    args.folder.mkdir(parents=True)
    try:
        write(args.folder, args.gib)
        results = {}
        for mode in ("cached", "disk"):
            command = [sys.executable, __file__, "--folder", str(args.folder), "--child", mode]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results[mode] = json.loads(out)
            print(mode, results[mode], flush=True)
    finally:
        shutil.rmtree(args.folder)
    report = {
        "command": f"python benchmarks/streaming.py --gib {args.gib:g}",
        "store": f"{args.gib:g} GiB, float16, {N_FEATURES} features, {N_CONCEPTS} concepts",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        **results,
    }
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
