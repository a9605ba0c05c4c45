"""Samples whose activations follow from their number, so that a store can be tested by itself."""

import hashlib
import sqlite3

import numpy as np

from skact.store import Identity

WIDTH = 4


def key(number):
    return hashlib.sha256(str(number).encode()).digest()


def identity(block, model="toy", dtype="float32"):
    text = f'{{"block":{block},"convention":"toy","model":"{model}","stored_as":"{dtype}"}}'
    return Identity(text, hashlib.sha256(text.encode()).digest(), model, block)


def identities(*blocks, **about):
    return {block: identity(block, **about) for block in blocks}


def n_rows(number):
    return 1 + number % 3


def shape_of(number):
    """Of the samples of the model "grids"."""
    return (1, n_rows(number)) if number % 2 else (n_rows(number), 1)


def runs_of(number):
    """Of the samples of the model "chats": some are one run, others two."""
    return (np.arange(n_rows(number)) >= 2).astype(np.int32)


def rows_of(number, block):
    """The truth: exact in every dtype of a store."""
    first = np.arange(n_rows(number))[:, None] + np.arange(WIDTH)
    return (first + (number + 16 * block) % 100).astype(np.float32)


class Job:
    """Some samples; counts how often each was embedded, and at which layers."""

    n_features = WIDTH

    def __init__(self, numbers, log=None, pause=None, model="toy"):
        self.numbers = numbers
        self.n_rows = self.n_tokens = np.array([n_rows(n) for n in numbers])
        self.shapes = np.array([shape_of(n) for n in numbers]) if model == "grids" else None
        runs = [runs_of(n) for n in numbers]
        self.segments = np.concatenate(runs) if model == "chats" else None
        self.log = log
        self.pause = pause

    def embed(self, rows, blocks, sink, progress):
        numbers = [self.numbers[i] for i in rows]
        places, _ = sink.room(np.arange(len(rows)))
        for block in blocks:
            if self.pause:
                self.pause()
            values = np.concatenate([rows_of(n, block) for n in numbers])
            out = places[block]
            out[:] = values.view(np.uint32) >> 16 if out.dtype == np.uint16 else values
        sink.keep(np.arange(len(rows)))
        if self.log is not None:
            self.log += [(n, tuple(blocks)) for n in numbers]
        progress.update(int(self.n_tokens[rows].sum()))


def fill(store, numbers, blocks=(0,), also=(), log=None, pause=None, **about):
    """Put samples into a store; ``log`` then lists what was embedded."""
    about, model = {"dtype": store.dtype, **about}, about.get("model", "toy")
    return store.fill(
        [key(n) for n in numbers],
        identities(*blocks, **about),
        identities(*also, **about),
        lambda places: Job([numbers[i] for i in places], log, pause, model),
    )


def held(store, numbers, block=0, **about):
    """Numbers that are in the store."""
    about = {"dtype": store.dtype, **about}
    lacking = store.lacking([key(n) for n in numbers], identities(block, **about))
    return [n for n, absent in zip(numbers, lacking[:, 0], strict=True) if not absent]


def check(store, numbers, block=0, **about):
    """Assert that the store gives the truth."""
    if not numbers:
        return
    about = {"dtype": store.dtype, **about}
    tokens = store.read([key(n) for n in numbers], identity(block, **about))
    assert tokens is not None
    assert tokens.lengths.tolist() == [n_rows(n) for n in numbers]
    if about.get("model") == "grids":
        assert tokens.shapes.tolist() == [list(shape_of(n)) for n in numbers]
    else:
        assert tokens.shapes is None
    runs = np.concatenate([runs_of(n) for n in numbers])
    if about.get("model") == "chats" and runs.any():
        np.testing.assert_array_equal(tokens.segments, runs)
    else:
        assert tokens.segments is None
    for n, rows in zip(numbers, tokens, strict=True):
        np.testing.assert_array_equal(rows, rows_of(n, block))


def error_of(use):
    """What a call raises, which must be one plain sentence about damage, or None."""
    try:
        use()
    except (OSError, ValueError) as raised:
        error = raised
    else:
        return None
    assert not isinstance(error, sqlite3.Error)
    assert "damaged" in str(error) or "missing" in str(error) or "instead of" in str(error)
    assert "repair=True" in str(error)
    return error
