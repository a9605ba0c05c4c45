"""One thread at a time runs a model, and a forked child is not held up by its parent's."""

import copy
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import torch
import transformers

from skact.embedding import TransformerEmbedder
from skact.models import hooked
from skact.models._alone import alone, evaluating, lock_of
from skact.models._hub import Checkpoint
from skact.models._processors import calling
from tests import tiny_models

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
TEXTS = ["the cat sat", "a dog", "sun and rain and more of it"]


@pytest.fixture
def model():
    return copy.deepcopy(tiny_models.text_pair("bert")[0])


def others_wait(held, wanted):
    """Whether another thread has to wait for one model while this one holds another."""
    entered = threading.Event()

    def enter():
        with alone(wanted):
            entered.set()

    thread = threading.Thread(target=enter)
    with alone(held), alone(held):  # the same thread may
        thread.start()
        waits = not entered.wait(0.1)
    thread.join()
    assert entered.is_set()
    return waits


def two_towers(n=2):
    towers = [torch.nn.Sequential(torch.nn.Linear(2, 2)) for _ in range(n)]
    return towers, torch.nn.Sequential(*towers)


@pytest.mark.parametrize("first", ["whole", "tower", "both towers"])
def test_a_model_and_its_towers_have_one_lock(first):
    (one, two), whole = two_towers()
    for used in {"whole": [whole], "tower": [one], "both towers": [two, one]}[first]:
        with alone(used):
            pass
    assert others_wait(one, whole)
    assert others_wait(whole, two)
    assert others_wait(whole[1][0], whole)
    assert others_wait(one, two) == (first != "both towers")
    assert not others_wait(whole, copy.deepcopy(whole))


def test_whoever_asks_first_nobody_waits_for_ever():
    towers, whole = two_towers(3)
    start = threading.Barrier(8)

    def use(i):
        start.wait()
        for _ in range(200):
            with alone([*towers, whole][i % 4]):
                pass

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(8)))


def test_hooks_of_one_thread_are_not_there_for_another(model):
    block, order = model.encoder.layer[0], []

    def other():
        with hooked(model, [(block, print)]):
            order.append(("other", len(block._forward_hooks)))

    with hooked(model.encoder, [(block, print)]):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        with hooked(model, [(block, print)]):
            order.append(("this", len(block._forward_hooks)))
    thread.join()
    assert order == [("this", 2), ("other", 1)]


def test_modes_are_given_back(model):
    model.train()
    model.pooler.eval()
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == modes


def test_what_is_to_be_undone_is_undone_while_the_model_is_held(model):
    order = []

    def other():
        with alone(model):
            order.append("held by another")

    thread = threading.Thread(target=other)
    with suppress(ZeroDivisionError), alone(model) as undo:
        undo.callback(order.append, "undone")
        undo.callback(thread.join, 0.1)
        thread.start()
        raise ZeroDivisionError
    thread.join()
    assert order == ["undone", "held by another"]


def in_child(check):
    """Exit status of a forked child: 0 if it found what it should, -14 if it waited too long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork
        pid = os.fork()
    if pid == 0:
        import signal

        signal.alarm(10)
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def elsewhere(context):
    """Another thread that is inside of a context."""
    entered, leave = threading.Event(), threading.Event()

    def stay():
        with context:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    assert entered.wait(10)
    yield leave
    leave.set()
    thread.join()


@needs_fork
def test_a_forked_child_neither_waits_nor_reads_with_hooks_of_other_threads(model):
    tokenizer = tiny_models.text_pair("bert")[1]
    embedder = TransformerEmbedder((model.train(), tokenizer), layer=[0, 2])
    expected = embedder.transform(TEXTS)
    block = model.encoder.layer[1]

    def halve(module, args, output):
        return output / 2 if torch.is_tensor(output) else (output[0] / 2, *output[1:])

    def same():
        got = embedder.transform(TEXTS)
        return all(np.array_equal(got.layer(b).flat(), expected.layer(b).flat()) for b in (0, 2))

    def as_it_was():
        return not block._forward_hooks and all(m.training for m in model.modules())

    def waits():
        with alone(model):
            return False

    for context in (hooked(model, [(block, halve)]), evaluating(model)):
        with elsewhere(context):
            assert not as_it_was()
            assert in_child(lambda: as_it_was() and same()) == 0
            assert not as_it_was()  # in the parent they are still at work
        assert as_it_was()
    with hooked(model, [(block, halve)]):  # what the forking thread does goes on
        assert in_child(as_it_was) == 1
        assert in_child(lambda: not same()) == 0
        assert in_child(waits) == 1
    assert same()


@needs_fork
@pytest.mark.parametrize("thing", [Checkpoint, torch.random])
def test_a_forked_child_has_other_locks(thing):
    with elsewhere(lock_of(thing)):
        assert lock_of(thing) is lock_of(thing)
        assert in_child(lambda: lock_of(thing).acquire(timeout=5)) == 0
        assert not lock_of(thing).acquire(blocking=False)


@needs_fork
def test_a_child_that_is_forked_while_others_embed_embeds_the_same():
    embedder = TransformerEmbedder(tiny_models.text_pair("bert"), layer=[0, 2])
    expected, stop = embedder.transform(TEXTS).layer(2).flat(), threading.Event()

    def busy():
        while not stop.is_set():
            embedder.transform(TEXTS * 5)

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            assert (
                in_child(
                    lambda: np.array_equal(embedder.transform(TEXTS).layer(2).flat(), expected)
                )
                == 0
            )
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@needs_fork
def test_a_fork_waits_for_calls_of_tokenizers_and_for_nothing_else(model):
    tokenizer = copy.deepcopy(tiny_models.text_pair("bert")[1])
    with elsewhere(alone(model)):
        assert in_child(lambda: True) == 0  # the control: it does not wait for a model
    left = []
    with elsewhere(calling(tokenizer)) as leave:
        threading.Timer(0.3, lambda: (left.append(1), leave.set())).start()
        assert in_child(lambda: tokenizer.backend_tokenizer.no_truncation() is None) == 0
    assert left


def test_threads_that_ask_for_a_model_at_once_load_it_once(tmp_path, monkeypatch):
    folder = tiny_models.save_pair(tiny_models.text_pair("bert"), tmp_path / "bert")
    n_loaded, start = [], threading.Barrier(4)
    original = transformers.AutoModel.from_pretrained

    def counted(*args, **options):
        n_loaded.append(1)
        return original(*args, **options)

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", counted)

    def embed(_):
        start.wait()
        return TransformerEmbedder(folder).transform(TEXTS).flat()

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(embed, range(4)))
    assert len(n_loaded) == 1
    assert all(np.array_equal(one, found[0]) for one in found)
