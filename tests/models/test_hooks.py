"""Hooks read the right place, and none is left behind."""

import copy

import numpy as np
import pytest
import torch

from skact.embedding import TransformerEmbedder
from skact.models import load
from skact.models._hooks import Place, capture, hooked
from skact.models._inputs import BlockInputs
from skact.models._mllama import FirstTile
from skact.models._places import find_blocks, find_places
from tests import tiny_models


def n_hooks(model):
    return sum(
        len(hooks)
        for module in model.modules()
        for name, hooks in vars(module).items()
        if name.endswith("hooks") and hooks is not None
    )


@pytest.fixture
def bert():
    model, tokenizer = tiny_models.text_pair("bert")
    model = copy.deepcopy(model)
    # transformers itself keeps hooks once a model was asked for its hidden states.
    model(torch.arange(4)[None], output_hidden_states=True)
    return model, tokenizer


def test_hooks_run_before_and_after_their_modules(bert):
    block = find_blocks(bert[0])[0][1]
    seen = []
    after = [(block, lambda module, args, output: seen.append(("after", module)))]
    before = [(block, lambda module, args, kwargs: seen.append(("before", module)))]
    inputs = {"input_ids": torch.arange(4)[None]}
    n_before = n_hooks(bert[0])
    with hooked(bert[0], after, before):
        assert n_hooks(bert[0]) > n_before
        bert[0](**inputs)
    bert[0](**inputs)
    assert seen == [("before", block), ("after", block)]
    assert n_hooks(bert[0]) == n_before


def test_hooks_are_removed_when_registering_fails_half_way(bert):
    blocks, n_before = find_blocks(bert[0])[0], n_hooks(bert[0])

    def half(hook):
        yield blocks[0], hook
        assert n_hooks(bert[0]) > n_before
        raise ZeroDivisionError

    for kind in ("after", "before"):
        with pytest.raises(ZeroDivisionError), hooked(bert[0], **{kind: half(print)}):
            pytest.fail("not all hooks are there")
        assert n_hooks(bert[0]) == n_before


class BrokenError(Exception):
    """What a broken module raises."""


def broken_forward(*args, **kwargs):
    raise BrokenError


def block_inputs(loaded):
    ids = torch.tensor([[2, 5, 6, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return BlockInputs(loaded, 1, inputs, np.array([1, 2]))


def use_capture(loaded, inputs):
    with capture(loaded.base, loaded.places, [0, 1]) as run:
        run({"input_ids": torch.arange(4)[None]}, lambda *_: None)


def use_check(loaded, inputs):
    find_places(loaded.base, {"input_ids": torch.arange(4)[None]}, [loaded.blocks])


def use_block_inputs(loaded, inputs):
    block_inputs(loaded)


def use_gradients(loaded, inputs):
    n_before = n_hooks(loaded.base)
    with inputs.differentiable() as state, inputs.biases():
        assert n_hooks(loaded.base) > n_before + 2
        state(inputs.values[None])


@pytest.mark.parametrize("use", [use_capture, use_check, use_block_inputs, use_gradients])
@pytest.mark.parametrize("broken", ["embeddings", "encoder.layer.0"])
def test_every_user_leaves_no_hook_after_an_error(broken, use, bert):
    model = bert[0]
    loaded = load(bert)
    inputs = block_inputs(loaded)
    n_before = n_hooks(model)
    use(loaded, inputs)
    assert n_hooks(model) == n_before
    trained = [parameter.requires_grad for parameter in model.parameters()]
    model.get_submodule(broken).forward = broken_forward
    if (broken, use) == ("encoder.layer.0", use_block_inputs):
        use(loaded, inputs)  # reads what enters the block, and ends there
    else:
        with pytest.raises((BrokenError, ValueError), match=r"BrokenError|^$"):
            use(loaded, inputs)
    assert n_hooks(model) == n_before
    assert [parameter.requires_grad for parameter in model.parameters()] == trained


def test_a_tiled_model_has_no_hook_left_after_an_error():
    vision = copy.deepcopy(tiny_models.llama_vision_model().vision_model)
    model = FirstTile(vision)
    pixels = torch.ones(1, 3, tiny_models.TILE, tiny_models.TILE)
    n_before = n_hooks(model)
    assert len(model(pixels, output_hidden_states=True).hidden_states) > 2
    assert n_hooks(model) == n_before
    vision.transformer.layers[1].forward = broken_forward
    with pytest.raises(BrokenError):
        model(pixels, output_hidden_states=True)
    assert n_hooks(model) == n_before


def test_hooks_and_modes_are_restored_also_after_an_error(bert, texts):
    model, tokenizer = bert
    places = [Place(block) for block in find_blocks(model)[0]]
    model.train()
    model.pooler.eval()
    modes = [module.training for module in model.modules()]
    before = n_hooks(model)
    TransformerEmbedder((model, tokenizer)).transform(texts)
    assert n_hooks(model) == before
    with capture(model, places, [0, 2]) as run:
        assert n_hooks(model) == before + 3  # and one that tells where a pass begins
        assert not any(module.training for module in model.modules())
        with pytest.raises(ValueError, match="input_ids"):
            run({"no_such_argument": 1}, print)
    assert n_hooks(model) == before
    with pytest.raises(ZeroDivisionError), capture(model, places, [0, 2]):
        raise ZeroDivisionError
    with pytest.raises(IndexError), capture(model, places, [0, 9]):
        pass
    assert n_hooks(model) == before
    assert [module.training for module in model.modules()] == modes
