"""Single bits of an index are flipped, one at a time: never a wrong number, never beyond repair.

    python -m tests.hostile.store_flipped_bits [--flips 200] [--seed 0]

After each flip a store must give the true numbers or say in one sentence what is damaged; verify
and verify(repair=True) must not fail; and after the repair everything can be embedded and read.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from skact.store import ActivationStore
from tests.store.toy_store import check, error_of, fill, held

NUMBERS, BLOCKS = list(range(60)), (0, 1)


def check_what_is_there(path, block):
    store = ActivationStore(path)
    check(store, held(store, NUMBERS, block), block)


def try_out(store):
    """What a store with one flipped bit does: "as before", "missing" or "said"."""
    path = store.path
    errors = [error_of(lambda b=b: check_what_is_there(path, b)) for b in BLOCKS]
    errors += [error_of(ActivationStore(path).info)]
    missing = not any(errors) and any(len(held(store, NUMBERS, b)) < len(NUMBERS) for b in BLOCKS)
    problems = store.verify()
    assert not any(errors) or problems, "verify does not find what readers meet"
    store.verify(repair=True)
    assert store.verify() == []
    for block in BLOCKS:
        fill(store, NUMBERS, (block,))
        check(ActivationStore(path), NUMBERS, block)
    assert store.info()["samples"] == len(NUMBERS)
    assert error_of(lambda: store.prune(max_bytes=0)) is None
    return "said" if any(errors) else "missing" if missing else "found" if problems else "as before"


def run(folder, n_flips, seed=0):
    """Flip bits of copies of one store; how often what happened, and all that went wrong."""
    chance, whole = random.Random(seed), ActivationStore(folder / "whole", chunk_size=25)
    fill(whole, NUMBERS, BLOCKS)
    fill(whole, NUMBERS[:9], model="grids")
    outcomes, wrong = Counter(), []
    for _ in range(n_flips):
        store = ActivationStore(shutil.copytree(whole.path, folder / "flipped"))
        content = bytearray((store.path / "index.sqlite").read_bytes())
        place, bit = chance.randrange(len(content)), chance.randrange(8)
        content[place] ^= 1 << bit
        (store.path / "index.sqlite").write_bytes(content)
        try:
            outcomes[try_out(store)] += 1
        except Exception:
            wrong.append(f"byte {place}, bit {bit}: {traceback.format_exc()}")
        shutil.rmtree(store.path)
    return dict(outcomes), wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, wrong = run(Path(folder), given.flips, given.seed)
    print(json.dumps({"flips": given.flips, "outcomes": outcomes}))
    print(f"{len(wrong)} went wrong", *wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
