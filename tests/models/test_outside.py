"""What works on a model from outside."""

import copy
import functools

import pytest
import torch

from skact.embedding import TransformerEmbedder
from skact.models import hooked
from skact.models._outside import find_outside
from tests import tiny_models


@pytest.fixture
def model():
    return copy.deepcopy(tiny_models.text_pair("bert")[0])


def steer(module, args, output):
    return output


def test_hooks_of_others_are_named_and_ours_are_not(model):
    assert find_outside(model) == []
    block = model.encoder.layer[1]
    handle = block.register_forward_hook(steer)
    assert find_outside(model) == ["the hook steer on encoder.layer.1"]
    handle.remove()
    handle = model.register_forward_pre_hook(functools.partial(lambda module, args: None))
    assert find_outside(model) == ["the hook partial on the model"]
    handle.remove()
    with hooked(model, after=[(block, steer)], before=[(block, lambda m, a, k: None)]):
        assert find_outside(model) == []
    assert find_outside(model) == []
    with hooked(model, after=[(block, steer)], edit="something"), hooked(model, edit=""):
        assert find_outside(model) == ["something"]


def test_hooks_on_all_modules_other_forwards_and_autocast(model):
    handle = torch.nn.modules.module.register_module_forward_hook(steer)
    assert find_outside(model) == ["the hook steer on all modules"]
    handle.remove()
    model.pooler.forward = lambda states: states
    assert find_outside(model) == ["another forward method on pooler"]
    del model.pooler.forward
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert find_outside(model) == ["autocast to bfloat16"]


def test_collecting_hidden_states_is_harmless(model):
    with torch.no_grad():
        model(input_ids=torch.ones(1, 2, dtype=torch.long), output_hidden_states=True)
    assert find_outside(model) == []


def test_a_store_refuses_what_it_cannot_name(model, tmp_path):
    _, tokenizer = tiny_models.text_pair("bert")
    embedder = TransformerEmbedder((model, tokenizer), store=tmp_path)
    plain = embedder.transform(["the cat sat"])
    handle = model.encoder.layer[0].register_forward_hook(
        lambda module, args, output: (
            (output[0] + 1, *output[1:]) if isinstance(output, tuple) else output + 1
        )
    )
    match = "does not work alone: the hook .*lambda.* on encoder.layer.0.*store=None"
    with pytest.raises(ValueError, match=match):
        embedder.transform(["the cat sat"])
    steered = TransformerEmbedder((model, tokenizer)).transform(["the cat sat"])
    assert steered.source.conflict(plain.source) == "convention"
    assert "on encoder.layer.0" in steered.source.convention
    handle.remove()
    with torch.autocast("cpu"), pytest.raises(ValueError, match="autocast to bfloat16"):
        embedder.transform(["happy"])
    assert embedder.missing(["the cat sat", "happy"]).tolist() == [False, True]
    assert (embedder.transform(["the cat sat"]).flat() == plain.flat()).all()


def test_a_replaced_block_is_read_and_a_pair_travels_with_what_works_on_it(model):
    import copy
    import pickle

    _, tokenizer = tiny_models.text_pair("bert")
    embedder = TransformerEmbedder((model, tokenizer), layer=1)
    before = embedder.transform(["the cat sat"])
    model.encoder.layer[1] = copy.deepcopy(model.encoder.layer[1])
    assert (embedder.transform(["the cat sat"]).flat() == before.flat()).all()
    data = pickle.dumps(embedder)
    handle = model.encoder.layer[0].register_forward_hook(steer)
    with pytest.raises(ValueError, match="set_params"):
        pickle.loads(data).transform(["the cat sat"])
    handle.remove()
    assert (pickle.loads(data).transform(["the cat sat"]).flat() == before.flat()).all()


def test_models_of_equal_weights_and_other_settings_are_not_mixed_up(model):
    import copy
    import pickle

    _, tokenizer = tiny_models.text_pair("bert")
    other = copy.deepcopy(model)
    for block in other.encoder.layer:
        block.output.LayerNorm.eps = 1.0
    pairs = [TransformerEmbedder((one, tokenizer), layer=1) for one in (model, other)]
    expected = [pair.transform(["the cat sat"]).flat() for pair in pairs]
    data = [pickle.dumps(pair) for pair in pairs]
    for one, values in zip(data, expected, strict=True):
        assert (pickle.loads(one).transform(["the cat sat"]).flat() == values).all()
    assert (expected[0] != expected[1]).any()
