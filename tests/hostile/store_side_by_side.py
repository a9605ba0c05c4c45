"""Embedders, readers, exporters, repairs, prunes and forgetting, side by side on one store.

    python -m tests.hostile.store_side_by_side [--seconds 120] [--processes 8] [--seed 0]

Nothing is damaged here. So every number read must be the true one, verify(repair=True) must find
nothing, whoever has filled the store must get all samples, and nobody may meet an error. Prints
what was done and what went wrong; the status is 1 if anything did.
"""

import argparse
import json
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

from skact.store import ActivationStore
from tests.store.toy_store import check, fill, held, identity, key, rows_of

NUMBERS = range(400)
BLOCKS = (0, 1)


def embed(store, chance, folder):
    """Fill and read until all is there, as an embedder does, and compare it with the truth."""
    numbers = chance.sample(NUMBERS, chance.choice([1, 30, 100]))
    block, tokens = chance.choice(BLOCKS), None
    while tokens is None:
        fill(store, numbers, (block,), also=BLOCKS)
        tokens = store.read([key(n) for n in numbers], identity(block))
    compare(numbers, block, tokens)


def read(store, chance, folder):
    """Compare what is there with the truth."""
    block = chance.choice(BLOCKS)
    there = held(store, chance.sample(NUMBERS, 50), block)
    tokens = store.read([key(n) for n in there], identity(block)) if there else None
    if tokens is not None:
        compare(there, block, tokens)


def compare(numbers, block, tokens):
    for number, rows in zip(numbers, tokens, strict=True):
        expected = rows_of(number, block)
        if rows.shape != expected.shape or not (rows == expected).all():
            raise AssertionError(f"sample {number} at layer {block} is wrong: {rows}")


def export(store, chance, folder):
    """Take a layer into a store of one's own, and compare all of it."""
    block = chance.choice(BLOCKS)
    try:
        store.export(folder / "layer", block)
    except ValueError as error:
        if "0 layers" in str(error) or "removed from the store meanwhile" in str(error):
            return
        raise
    with tempfile.TemporaryDirectory(dir=folder) as own:
        mine = ActivationStore(own)
        mine.import_(folder / "layer")
        check(mine, held(mine, list(NUMBERS), block), block)


def repair(store, chance, folder):
    """Nothing is damaged."""
    problems = store.verify(repair=True)
    if problems:
        raise AssertionError(f"verify found {problems}")


def prune(store, chance, folder):
    """Remove a layer, old shards, or litter."""
    rules = [{}, {"layer": 0}, {"max_bytes": 10**5}, {"older_than": 1e-5}, {"max_bytes": 0}]
    store.prune(**chance.choice(rules))
    time.sleep(chance.uniform(0, 0.2))


def forget(store, chance, folder):
    """Remove some samples for good."""
    store.forget([key(n) for n in chance.sample(NUMBERS, 2)])
    time.sleep(chance.uniform(0, 0.2))


ROLES = [embed, prune, repair, export, embed, read, forget, embed]


def work(path, role, seed, seconds, out):
    """Do one thing again and again; write how often, and what went wrong."""
    chance, said = random.Random(seed), {"role": role.__name__, "done": 0, "errors": []}
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < deadline and len(said["errors"]) < 5:
            try:
                role(ActivationStore(path, chunk_size=20), chance, Path(folder))
                said["done"] += 1
            except Exception:
                said["errors"].append(traceback.format_exc())
    Path(out).write_text(json.dumps(said))


def run(path, seconds, n_processes, seed=0):
    """Let processes loose on a store; how often each thing was done, and all errors."""
    context, path = get_context("fork"), Path(path)
    outs = [path.with_name(f"{path.name}-{i}.json") for i in range(n_processes)]
    processes = [
        context.Process(target=work, args=(path, ROLES[i % len(ROLES)], seed + i, seconds, out))
        for i, out in enumerate(outs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    errors = [f"a process ended with {p.exitcode}" for p in processes if p.exitcode]
    done: Counter[str] = Counter()
    for out in filter(Path.exists, outs):
        said = json.loads(out.read_text())
        done[said["role"]] += said["done"]
        errors += said["errors"]
    store = ActivationStore(path)
    errors += store.verify()
    fill(store, list(NUMBERS), BLOCKS)
    for block in BLOCKS:
        check(store, list(NUMBERS), block)
    store.prune()
    n_files, n_known = len(store._folder.names()), sum(x["shards"] for x in store.info()["layers"])
    if n_files != n_known:
        errors.append(f"{n_files} files, but {n_known} shards")
    return dict(done), errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done, errors = run(f"{folder}/store", given.seconds, given.processes, given.seed)
    print(json.dumps({"seconds": given.seconds, "processes": given.processes, "done": done}))
    print(f"{len(errors)} errors", *errors, sep="\n")
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()
