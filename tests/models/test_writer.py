"""Rows reach their places, from whatever positions they come."""

import numpy as np
import pytest
import torch

from skact.models._writer import Writer
from skact.rows import Arrays

CPU = torch.device("cpu")


def write(writer, samples, states, kept):
    writer.start(samples, kept)
    for block, state in states.items():
        writer.take(block, state)
    writer.end()


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("pooling", [None, "last"])
def test_writer_equals_a_slow_replica_for_any_tokens(pooling, delayed, rng):
    n_kept = rng.integers(1, 6, 9)
    kept = np.zeros((9, 8), bool)
    for row, n in zip(kept, n_kept, strict=True):
        row[rng.choice(8, n, replace=False)] = True
    states = rng.normal(size=(9, 8, 4)).astype(np.float32)
    expected = [state[keep] for state, keep in zip(states, kept, strict=True)]
    expected = [rows[-1:] for rows in expected] if pooling else expected
    out = Arrays([5], np.array([len(rows) for rows in expected]), 4, np.dtype("f4"))
    writer = Writer(out, n_kept, pooling, CPU)
    writer.delayed = delayed
    for samples in np.array_split(rng.permutation(9), 3):
        # A batch that does not end, because memory did not suffice, leaves nothing.
        writer.start(samples[::-1], kept[samples[::-1]])
        writer.take(5, torch.full((len(samples), 8, 4), np.nan))
        write(writer, samples, {5: torch.from_numpy(states[samples])}, kept[samples])
    writer.flush()
    np.testing.assert_array_equal(out.values[5], np.concatenate(expected))


def test_values_that_float16_cannot_hold_are_refused_but_padding_may_hold_them():
    states = torch.ones(2, 3, 4)
    states[1, 2] = 70_000
    kept = np.array([[True, True, True], [True, True, False]])
    out = Arrays([7], np.array([3, 2]), 4, np.dtype("f2"))
    write(Writer(out, np.array([3, 2]), None, CPU), np.arange(2), {7: states}, kept)
    assert (out.values[7] == 1).all()
    kept[1, 2] = True
    for dtype, error in [("uint16", None), ("float32", None), ("float16", OverflowError)]:
        lengths = np.array([3, 3])
        writer = Writer(Arrays([7], lengths, 4, np.dtype(dtype)), lengths, None, CPU)
        if error is None:
            write(writer, np.arange(2), {7: states}, kept)
        else:
            with pytest.raises(error, match=r"block 7 .* 65504"):
                write(writer, np.arange(2), {7: states}, kept)


def test_a_block_that_drops_positions_is_refused():
    writer = Writer(Arrays([0], np.array([3]), 4, np.dtype("f4")), np.array([3]), None, CPU)
    with pytest.raises(RuntimeError, match=r"block 0 put out \(1, 2, 4\) for 3 positions"):
        write(writer, np.arange(1), {0: torch.ones(1, 2, 4)}, np.ones((1, 3), bool))
