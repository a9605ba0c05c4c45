"""One digest for all weights and active adapters."""

import copy

import pytest
import torch
import transformers
from torch import nn

from skact.models._weights import active_adapters, fingerprint
from tests import tiny_models


@pytest.fixture
def model():
    return copy.deepcopy(tiny_models.text_pair("bert")[0])


def test_equal_weights_have_one_fingerprint_in_every_format_that_holds_them(model):
    same = fingerprint(model)
    assert fingerprint(copy.deepcopy(model)) == same
    assert len(same) == len("weights:") + 32
    narrow = copy.deepcopy(model).bfloat16()
    assert fingerprint(narrow) != same
    assert fingerprint(copy.deepcopy(narrow).float()) == fingerprint(narrow)
    half = copy.deepcopy(model).half()
    assert fingerprint(copy.deepcopy(half).float()) == fingerprint(half)


def test_a_head_and_a_pooler_do_not_count(model):
    headed = transformers.BertForSequenceClassification(model.config)
    headed.bert.load_state_dict(model.state_dict(), strict=False)
    assert fingerprint(headed.bert) == fingerprint(model)
    without = copy.deepcopy(model)
    without.pooler = None
    assert fingerprint(without) == fingerprint(model)


EDITS = {
    "one bias": lambda m: m.encoder.layer[1].output.dense.bias[7].add_(1e-6),
    "one neuron": lambda m: m.encoder.layer[0].output.dense.weight[:, 11].zero_(),
    "one word": lambda m: m.embeddings.word_embeddings.weight[3].mul_(3),
    "two rows": lambda m: m.embeddings.word_embeddings.weight[:2].copy_(
        m.embeddings.word_embeddings.weight[:2].flip(0)
    ),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_every_change_shows_at_once(model, edit):
    before = fingerprint(model)
    with torch.no_grad():
        edit(model)
    assert fingerprint(model) != before
    assert fingerprint(model) == fingerprint(copy.deepcopy(model))


def test_names_and_shapes_count(model):
    renamed, before = copy.deepcopy(model), fingerprint(model)
    renamed.encoder.blocks = renamed.encoder.layer
    del renamed.encoder.layer
    assert fingerprint(renamed) != before
    flat, square = nn.Module(), nn.Module()
    flat.weight = nn.Parameter(torch.arange(4.0))
    square.weight = nn.Parameter(torch.arange(4.0).reshape(2, 2))
    assert fingerprint(flat) != fingerprint(square)


def test_tied_inference_odd_and_whole_number_weights(model):
    whole = nn.Module()
    whole.one = nn.Parameter(torch.arange(3, dtype=torch.float16))
    whole.same = whole.one
    whole.register_buffer("places", torch.arange(5))
    whole.register_buffer("odd", torch.arange(7, dtype=torch.uint8)[1:])
    with torch.inference_mode():
        whole.register_buffer("made", torch.ones(3))
    before = fingerprint(whole)
    with torch.inference_mode():
        whole.made[0] = 2
    assert fingerprint(whole) != before
    before = fingerprint(whole, thorough=True)
    whole.odd.data[5] = 0
    assert fingerprint(whole, thorough=True) != before


def test_weights_are_read_once(model, monkeypatch):
    from skact.models import _weights

    fingerprint(model)
    read = []
    monkeypatch.setattr(_weights, "_digest", lambda values: read.append(values) or b"")
    fingerprint(model)
    fingerprint(model, thorough=True)
    assert read == []
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.add_(1)
    fingerprint(model)
    assert [values.shape for values in read] == [model.embeddings.word_embeddings.weight.shape]


def test_weights_that_are_elsewhere_are_refused():
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"2 weights of Linear are not in memory .*'weight'"):
        fingerprint(model)


def test_adapters_count_while_they_are_active():
    peft = pytest.importorskip("peft", reason="adapters need peft")
    model = copy.deepcopy(tiny_models.text_pair("llama")[0])
    base = fingerprint(model)

    def lora():
        return peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)

    adapted = peft.get_peft_model(model, lora())
    adapted.add_adapter("two", lora())
    inner = adapted.base_model.model
    seen = {}
    for name in ("default", "two"):
        adapted.set_adapter(name)
        seen[name] = fingerprint(inner)
        assert active_adapters(inner)
    assert len({base, *seen.values()}) == 3
    with adapted.disable_adapter():
        assert fingerprint(inner) == base
        assert active_adapters(inner) == []
    adapted.set_adapter("default")
    assert fingerprint(inner) == seen["default"]
    adapted.merge_adapter()
    assert fingerprint(inner) not in {base, *seen.values()}


def test_swapped_rows_show_if_looked_for(model):
    before = fingerprint(model, thorough=True)
    rows = model.embeddings.word_embeddings.weight.data
    rows[[5, 7]] = rows[[7, 5]].clone()
    assert fingerprint(model, thorough=True) != before


def test_buffers_that_are_not_saved_count_if_asked_for():
    model = copy.deepcopy(tiny_models.text_pair("llama")[0])
    saved, all_of_it = fingerprint(model), fingerprint(model, buffers=True)
    with torch.no_grad():
        model.rotary_emb.inv_freq.mul_(0.5)
    assert fingerprint(model) == saved
    assert fingerprint(model, buffers=True) != all_of_it
