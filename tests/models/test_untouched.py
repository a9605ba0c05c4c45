"""A model that was tried out is as it was."""

import copy

import pytest
import torch
import transformers
from torch import nn

from skact.models import load
from skact.models._untouched import untouched
from tests import tiny_models


def picture(model):
    """Everything that a model holds, in comparable form."""
    out = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, dict):
                value = [(k, id(v)) for k, v in value.items()]
            elif isinstance(value, list | set):
                value = copy.copy(value)
            elif not isinstance(value, int | float | str | None | tuple):
                value = id(value)
            out[name, key] = value
        for key in ("config", "generation_config"):
            if hasattr(module, key):
                setting = getattr(module, key)
                out[name, key, "content"] = copy.deepcopy(setting.to_dict())
                out[name, key, "attention"] = getattr(setting, "_attn_implementation", None)
    out["weights"] = {k: v.nan_to_num(9) for k, v in model.state_dict().items()}
    out["trained"] = [p.requires_grad for p in model.parameters()]
    out["random"] = torch.get_rng_state()
    return out


def changed(one, other):
    """Keys of two pictures that are not in both, or hold something else."""

    def same(key):
        if key == "weights":
            return all(torch.equal(v, other[key][k]) for k, v in one[key].items())
        return torch.equal(one[key], other[key]) if key == "random" else one[key] == other[key]

    return [key for key in [*one, *other] if not (key in one and key in other and same(key))]


class Choosy(transformers.BertModel):
    """Chooses its attention by what it is asked for, counts, and draws random numbers."""

    def forward(self, *args, output_hidden_states=False, **kwargs):
        if output_hidden_states:
            self.config._attn_implementation = "eager"
            self.config.chosen = ["for good"]
            self.encoder.layer[0] = copy.copy(self.encoder.layer[0])
        self.passes = getattr(self, "passes", 0) + 1
        self.encoder.notes.append(self.passes)
        self.train(self.training)
        torch.rand(3)
        return super().forward(*args, output_hidden_states=output_hidden_states, **kwargs)


def choosy():
    tokenizer = tiny_models.wordpiece_tokenizer()
    config = copy.deepcopy(tiny_models.text_pair("bert")[0].config)
    config._attn_implementation = "sdpa"
    model = Choosy(config)
    model.encoder.notes = []
    model.generation_config = transformers.GenerationConfig(top_k=3)
    model.encoder.layer[1].attention.output.dense.weight.requires_grad_(False)
    model.encoder.layer[0].register_forward_hook(lambda *_: None)
    model.train()
    model.pooler.eval()
    return model, tokenizer


@pytest.mark.parametrize("fails", [False, True])
def test_trying_out_leaves_all_as_it_was(fails):
    model, tokenizer = pair = choosy()
    if fails:
        with torch.no_grad():
            model.encoder.layer[2].output.dense.weight.fill_(torch.nan)
    before, text = picture(model), tokenizer.backend_tokenizer.to_str()
    if fails:
        with pytest.raises(ValueError, match="NaN"):
            load(pair)
    else:
        load(pair)
    assert not changed(picture(model), before)
    assert tokenizer.backend_tokenizer.to_str() == text
    # The control: a pass by itself changes it.
    with torch.no_grad():
        model(torch.arange(4)[None], output_hidden_states=True)
    assert changed(picture(model), before)


def test_image_models_and_processors_are_left_as_they_were():
    model, processor = tiny_models.image_pair("vit")
    model = copy.deepcopy(model).train()
    before, settings = picture(model), processor.to_dict()
    load((model, processor))
    assert not changed(picture(model), before)
    assert processor.to_dict() == settings


def test_a_model_that_rescales_its_weights_keeps_its_notes_on_them():
    model, tokenizer = tiny_models.family_pair("rwkv")
    model = copy.deepcopy(model).train()
    ids = {"input_ids": torch.arange(5, 9)[None]}
    model(**ids)  # not rescaled in training
    first = model.blocks[2].attention.output.weight.clone()
    load((model, tokenizer))
    assert model.training
    second = model.blocks[2].attention.output.weight
    assert model.layers_are_rescaled == torch.equal(second, first / 2)
    assert model.layers_are_rescaled != torch.equal(second, first)


def test_what_is_new_goes_and_what_went_comes_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model.config = transformers.BertConfig()
    model.known, model.gone = {"a": 1}, 1
    before = picture(model)

    @untouched(model)
    def change():
        model.new = 2
        del model.gone
        model.known["b"] = 2
        model.config.hidden_size = 5
        model[0].register_forward_hook(print)
        model[0].weight.requires_grad_(False)
        model[1] = nn.ReLU()
        model.eval()
        torch.rand(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()
    assert not changed(picture(model), before)
