"""SelectLayer equals stack.layer, and refuses what it cannot give."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skact import LayerStack, SelectLayer, Source, TokenArray


@pytest.fixture
def stack(rng):
    offsets = [0, 2, 3, 7]
    return LayerStack(
        {
            block: TokenArray(
                rng.normal(size=(7, 3)), offsets, source=Source(model="m", block=block)
            )
            for block in (2, 5, 11)
        }
    )


@pytest.mark.parametrize(("layer", "block"), [(2, 2), (5, 5), (11, 11), (-1, 11), (-3, 2)])
def test_it_takes_the_layer_without_copying(stack, layer, block):
    step = SelectLayer(layer=layer).fit(stack)
    taken = step.transform(stack)
    assert taken.values is stack.layer(block).values
    assert step.layer_ == block
    assert step.n_features_in_ == 3
    assert step.source_ == Source(model="m", block=block)
    new = step.transform(stack[[2, 0]])
    assert new.values is taken.values
    assert new.lengths.tolist() == [4, 2]
    assert step.get_params() == {"layer": layer}


@pytest.mark.parametrize("layer", [0, 3, 12, -4])
def test_an_unknown_layer_is_named(stack, layer):
    with pytest.raises(ValueError, match=rf"one of \[2, 5, 11\].*got {layer}"):
        SelectLayer(layer=layer).fit(stack)
    step = SelectLayer(layer=5).fit(stack)
    with pytest.raises(ValueError, match=r"one of \[2, 11\].*got 5"):
        step.transform(LayerStack({b: stack.layer(b) for b in (2, 11)}))


def test_one_layer_counts_as_a_stack_of_one(stack):
    single = stack.layer(5)
    for layer in (-1, 5):
        step = SelectLayer(layer=layer).fit(single)
        assert step.layer_ == 5
        assert step.transform(single).values is single.values
    with pytest.raises(ValueError, match="layer=2 asked for, but X is one layer and holds block 5"):
        SelectLayer(layer=2).fit(single)
    unknown = single.with_source(None)
    assert SelectLayer().fit(unknown).layer_ is None
    with pytest.raises(ValueError, match=r"layer=2 asked for.*does not say its block"):
        SelectLayer(layer=2).fit(unknown)
    matrix = np.ones((3, 2))
    np.testing.assert_array_equal(SelectLayer().fit_transform(matrix), matrix)


def test_tokens_of_another_layer_are_refused(stack):
    """-1 is another block in a stack with other layers; the source tells."""
    step = SelectLayer(layer=-1).fit(stack)
    lower = LayerStack({b: stack.layer(b) for b in (2, 5)})
    with pytest.raises(ValueError, match=r"another block.*block 11.*block 5"):
        step.transform(lower)
    with pytest.raises(ValueError, match=r"another block.*block 11.*block 2"):
        step.transform(stack.layer(2))
    assert step.transform(stack).values is stack.layer(11).values


def test_bad_parameter_and_use_before_fit(stack):
    for layer in (0.5, "last", None):
        with pytest.raises(ValueError, match="'layer' parameter"):
            SelectLayer(layer=layer).fit(stack)
    with pytest.raises(NotFittedError):
        clone(SelectLayer(layer=2).fit(stack)).transform(stack)
