"""LayerStack against a dict of lists of 2-D arrays."""

import pickle

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skact import LayerStack, TokenArray
from tests.tokens.samples import VALUES, assert_same, draw_key, make_list, make_tokens, quick


def make_stack(seed=0, n_samples=6):
    samples = make_list(seed, n_samples, 3, "float32")
    layers = {block: [s + block for s in samples] for block in (4, 0, 7)}
    return LayerStack({b: make_tokens(layer) for b, layer in layers.items()}), layers


@quick
@given(seed=st.integers(0, 99), data=st.data())
def test_a_stack_is_sliced_as_one(seed, data):
    stack, layers = make_stack(seed)
    view, kept = stack, list(range(6))
    for _ in range(data.draw(st.integers(0, 2))):
        key, positions = draw_key(data, len(kept))
        view, kept = view[key], [kept[p] for p in positions]
    assert view.shape == (len(kept), 3)
    assert len(view) == len(kept)
    assert view.layers == [0, 4, 7]
    assert view.lengths.tolist() == [len(layers[0][i]) for i in kept]
    restored = pickle.loads(pickle.dumps(view))
    for block in (0, 4, 7):
        assert view.layer(block).values is stack.layer(block).values
        for one in (view, restored):
            assert_same(one.layer(block), [layers[block][i] for i in kept])
    for i, sample in enumerate(view):
        assert sorted(sample) == [0, 4, 7]
        for block in sample:
            np.testing.assert_array_equal(sample[block], layers[block][kept[i]])
    joined = LayerStack.concatenate([view, stack])
    for block in (0, 4, 7):
        assert_same(joined.layer(block), [layers[block][i] for i in [*kept, *range(6)]])


def test_a_stack_counts_negative_layers_from_its_last():
    stack, layers = make_stack()
    for negative, block in ((-1, 7), (-2, 4), (-3, 0)):
        assert_same(stack.layer(negative), layers[block])
    assert stack.dtype == np.float32
    assert repr(stack) == "LayerStack(layers [0, 4, 7], 6 samples, 3 features)"


@pytest.mark.parametrize("block", [1, 8, -4, "0", 0.5, None])
def test_a_stack_names_its_layers_when_asked_for_another(block):
    stack, _ = make_stack()
    with pytest.raises(ValueError, match=r"layer must be one of \[0, 4, 7\].*got"):
        stack.layer(block)


def test_a_stack_holds_views():
    tokens = make_tokens(make_list(0, 5, 2, "float32"))
    stack = LayerStack({0: tokens[[3, 1]], 1: tokens[[3, 1]].compact()})
    np.testing.assert_array_equal(stack.layer(0).flat(), stack.layer(1).flat())
    assert_same(stack[[1]].layer(0), [tokens[1]])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({}, ValueError, "at least one TokenArray"),
        ({0: np.zeros((3, 2))}, TypeError, "layer 0 must be a TokenArray, got ndarray"),
        (
            {0: TokenArray(VALUES, [0, 1, 4]), 5: TokenArray(VALUES, [0, 2, 4])},
            None,
            "same samples: layer 5",
        ),
        (
            {0: TokenArray(VALUES, [0, 1, 4]), 5: TokenArray(VALUES, [0, 1, 2, 4])},
            None,
            "same samples: layer 5",
        ),
        (
            {0: TokenArray(VALUES, [0, 1, 4]), 5: TokenArray(VALUES[:, :1], [0, 1, 4])},
            None,
            "same samples: layer 5",
        ),
    ],
    ids=["nothing", "array", "lengths", "samples", "width"],
)
def test_a_stack_needs_the_same_samples(change, error, message):
    if error is None:
        # Lengths, number of samples or width differ; equal ones are taken.
        LayerStack({0: change[0], 5: change[0]})
    with pytest.raises(error or ValueError, match=message):
        LayerStack(change)


def test_stacks_of_other_layers_are_not_joined():
    stack, _ = make_stack()
    fewer = LayerStack({0: stack.layer(0)})
    with pytest.raises(ValueError, match=r"layers \[0, 4, 7\] and \[0\]"):
        LayerStack.concatenate([stack, fewer])
    with pytest.raises(ValueError, match="nothing to concatenate"):
        LayerStack.concatenate([])


def test_a_view_of_a_stack_travels_as_what_it_shows():
    stack, layers = make_stack(n_samples=40)
    view = stack[[7, 3]]
    back = pickle.loads(pickle.dumps(view))
    assert len(pickle.dumps(view)) < len(pickle.dumps(stack)) / 3
    for block in (0, 4, 7):
        assert len(back.layer(block).values) == view.layer(block).n_tokens
        assert_same(back.layer(block), [layers[block][7], layers[block][3]])
    same = LayerStack({block: view.layer(block).compact() for block in (0, 4, 7)})
    assert joblib.hash(view) == joblib.hash(same) != joblib.hash(stack)
