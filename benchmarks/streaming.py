"""A whole fit and predict on more tokens than the process may hold: peak memory, and time by pass.

A store of float16 tokens is written, and a fresh process runs ``TokenScaler``,
``LinearSeparator(solver="minibatch")`` for 20 concepts and ``SuperActivator``, fit and predict. Its
time is compared with reading the same files as often from end to end, 16 MiB at a time into one
buffer, which is the least that any such algorithm must do. Two figures:

- ``cached``: the files are in the page cache, as far as they fit there;
- ``limited``: the process and its page cache share the memory of a control group, so that a store
  larger than its limit comes from the disk, both while reading and while fitting. The system makes
  and limits the group, which takes its administrator::

      mkdir /sys/fs/cgroup/memory/small
      echo 2G > /sys/fs/cgroup/memory/small/memory.limit_in_bytes

Peak memory is the resident set size that the system reports at the end. It counts pages of mapped
files, so it stays low only because they are let go of once they were read.

    OMP_NUM_THREADS=1 python benchmarks/streaming.py --folder FOLDER [--gib 8] [--out RESULT.json]
        [--group /sys/fs/cgroup/memory/small]

One BLAS thread is best on two cores: a second thread reads, widens and scales the next piece.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
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
            os.fsync(file.fileno())
    np.save(folder / "labels.npy", np.tile(labels, (n_blocks * PARTS, 1)))


def join(group: Path, paths: list[Path]) -> None:
    """Put this process into a control group, whose memory is to hold what is read from now on."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    (group / "cgroup.procs").write_text(str(os.getpid()))


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
    from skact.rows import FileRows, Shards

    class Counting(TokenArray):
        """Tokens that count how many were read."""

        n_read = 0

        def each_block(self, function):  # type: ignore[no-untyped-def]
            for n_tokens, result in super().each_block(lambda s, t: (len(t), function(s, t))):
                Counting.n_read += n_tokens
                yield result

    paths = sorted(folder.glob("part*.f16"))
    parts = [FileRows(path, np.float16).reshape(-1, N_FEATURES) for path in paths]
    values = Shards(parts)
    tokens = Counting(values, np.arange(0, len(values) + 1, LENGTH))
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
    reading = [read(paths) for _ in range(3)]
    start = time.perf_counter()
    pipe.fit(tokens, y, concepts__token_labels=labels, detect__token_labels=labels)
    fitted = time.perf_counter()
    predicted = pipe.predict(tokens)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    passes = Counting.n_read / len(values)
    # A disk is faster at one time than at another, so it is asked before and after.
    reading += [read(paths) for _ in range(3)]
    once = statistics.median(reading)
    return {
        "n_tokens": len(values),
        "peak_rss_mib": round(peak),
        "rss_before_fit_mib": round(before),
        "fit_s": round(fitted - start, 2),
        "predict_s": round(done - fitted, 2),
        "passes": round(passes, 2),
        "read_once_s": round(once, 3),
        "read_all_s": [round(seconds, 3) for seconds in reading],
        "ratio_to_reading": round((done - start) / (passes * once), 2),
        "f1_weighted": round(float(f1_score(y, predicted, average="weighted")), 4),
    }


def main() -> None:
    """Write the store, measure in fresh processes, and delete it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the store; deleted")
    parser.add_argument("--gib", type=float, default=8.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--group", type=Path, help="folder of a control group that limits memory")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        if args.group:
            join(args.group, sorted(args.folder.glob("part*.f16")))
        print(json.dumps(run(args.folder)))
        return
    modes = {"cached": []}
    if args.group:
        modes["limited"] = ["--group", str(args.group)]
    args.folder.mkdir(parents=True)
    try:
        write(args.folder, args.gib)
        results = {}
        for mode, options in modes.items():
            command = [sys.executable, __file__, "--child", "--folder", str(args.folder), *options]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results[mode] = json.loads(out)
            print(mode, results[mode], flush=True)
    finally:
        shutil.rmtree(args.folder)
    report = {
        "command": f"python benchmarks/streaming.py --gib {args.gib:g}"
        + " --group GROUP" * bool(args.group),
        "store": f"{args.gib:g} GiB, float16, {N_FEATURES} features, {N_CONCEPTS} concepts",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        **results,
    }
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
