"""Batches that get smaller where memory does not suffice."""

import gc
import weakref

import numpy as np
import pytest
import torch

from skact.models._memory import out_of_memory, run_batches


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("whatever"),
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"),
    ],
)
def test_an_exhausted_memory_is_known(error):
    assert out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shape"), ValueError("out of memory"), OSError()])
def test_other_errors_are_not_taken_for_it(error):
    assert not out_of_memory(error)


def slices(samples):
    return lambda n_done, size: samples[n_done : n_done + size]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 99])
def test_every_sample_is_run_once_in_order_and_batches_stay_small(limit):
    samples, tried = np.arange(23), []

    def run(batch):
        tried.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError
        return batch * 2

    batches = list(run_batches(slices(samples), run, 8))
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in batches]), samples)
    np.testing.assert_array_equal(np.concatenate([twice for _, twice in batches]), samples * 2)
    # Halved for good: no size is tried again once it was too large.
    assert tried == sorted(tried, reverse=True)
    assert max(len(batch) for batch, _ in batches) <= limit


def test_the_budget_is_what_half_of_the_batch_costs():
    lengths, budgets = np.array([5, 4, 3, 3, 2, 1]), []

    def cut(n_done, budget):
        budgets.append(budget)
        rest = np.arange(n_done, 6)
        return rest[: budget // lengths[n_done]] if len(rest) else rest

    def run(batch):
        if lengths[batch[0]] * len(batch) > 10:
            raise MemoryError

    batches = run_batches(cut, run, 20, lambda batch: len(batch) * lengths[batch[0]])
    # Four of length 5 are too many; two of them cost 10, which is three of 3 and five of 2.
    assert [batch.tolist() for batch, _ in batches] == [[0, 1], [2, 3, 4], [5]]
    assert budgets == [20, 10, 10, 10, 10]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), RuntimeError("another fault")])
def test_what_cannot_be_helped_is_raised(error):
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        raise error

    with pytest.raises(type(error), match=str(error)):
        list(run_batches(slices([1, 2, 3, 4]), run, 4))
    assert sizes == ([4, 2, 1] if out_of_memory(error) else [4])


@pytest.fixture
def old_objects_are_passed_over():
    """Going through all that a session holds takes a second each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("old_objects_are_passed_over")
def test_nothing_of_a_failed_batch_is_held_when_it_is_run_again():
    class Tensors:
        pass

    earlier = []

    def run(batch):
        gc.collect()
        assert all(reference() is None for reference in earlier)
        tensors = Tensors()
        earlier.append(weakref.ref(tensors))
        if len(batch) > 1:
            raise torch.OutOfMemoryError

    assert len(list(run_batches(slices([1, 2, 3, 4]), run, 4))) == 4
    assert len(earlier) == 6
