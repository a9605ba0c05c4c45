"""The residual stream is read where the model itself says that it is, or not at all."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from skact.embedding import TransformerEmbedder
from skact.models import load
from skact.models._inputs import BlockInputs
from skact.models._places import find_blocks, find_places
from tests import tiny_models

INPUTS = {"input_ids": torch.arange(5, 9)[None], "attention_mask": torch.ones(1, 4).long()}
PIXELS = {"pixel_values": torch.linspace(-1, 1, 3 * 28 * 28).reshape(1, 3, 28, 28)}
# Models that list the states after the blocks from the start, and the last one normed once more.
FROM_THE_START = {"mamba": "norm_f", "mamba2": "norm_f", "rwkv": "ln_out"}


def assert_near(found, expected, tolerance=1e-4):
    """Compare vectors by their lengths: rounding grows with the largest number in one."""
    found, expected = np.asarray(found), np.asarray(expected)
    error = np.linalg.norm(found - expected, axis=-1)
    assert (error <= tolerance * np.linalg.norm(expected, axis=-1)).all()


@pytest.mark.parametrize("kind", tiny_models.FAMILIES)
def test_every_family_is_read_as_it_reports_itself(kind, texts):
    pair = model, tokenizer = tiny_models.family_pair(kind)
    found = TransformerEmbedder(pair, layer=[0, 1, 2, 3], special_tokens=True).transform(texts)
    for i, text in enumerate(texts):
        with torch.no_grad():
            ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            own = model(**ids, output_hidden_states=True).hidden_states
        first = 0 if kind in FROM_THE_START else 1
        for block in range(4 if first == 0 else 3):
            assert_near(found.layer(block)[i], own[block + first][0])
        last = torch.from_numpy(found.layer(3)[i])
        with torch.no_grad():
            if kind in FROM_THE_START:
                last = getattr(model, FROM_THE_START[kind])(last)
            elif kind == "opt-350m":
                last = model.decoder.project_out(last)
        assert_near(last, own[-1][0])


@pytest.mark.parametrize("kind", tiny_models.FAMILIES)
def test_padding_changes_no_family(kind, texts):
    pair = tiny_models.family_pair(kind)
    together = TransformerEmbedder(pair, batch_size=len(texts)).transform(texts)
    for i, text in enumerate(texts):
        alone = TransformerEmbedder(pair).transform([text])
        assert_near(together[i], alone[0])


# Where something besides its input goes into the first two blocks, or it never runs as a module.
NO_ENTRY = {"deberta-v2-xlarge", "xlm", "flaubert", "squeezebert"}


@pytest.mark.parametrize("kind", tiny_models.FAMILIES)
def test_what_enters_the_first_block_leads_to_the_states(kind):
    pair = model, _ = tiny_models.family_pair(kind)
    loaded = load(pair)
    inputs = {**INPUTS, **loaded.extra}
    if kind in NO_ENTRY:
        with pytest.raises(ValueError, match="gradients cannot be taken"):
            BlockInputs(loaded, 2, inputs, np.arange(4))
        return
    block_inputs = BlockInputs(loaded, 2, inputs, np.arange(4))
    values = block_inputs.values[None].clone().requires_grad_()
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    with block_inputs.differentiable() as state:
        stream = state(values)
        twice = state(torch.cat([values, values + weights]))
        (gradient,) = torch.autograd.grad((stream * weights[:, :4]).sum(), values)
    own = find_places(model, inputs).states[2]
    torch.testing.assert_close(stream.detach(), own, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(twice[:1], stream, atol=1e-5, rtol=1e-4)
    assert (twice[1] - stream[0]).abs().max() > 1e-2
    assert gradient.abs().sum() > 0


def test_blocks_that_share_weights_are_told_apart_by_their_calls():
    model, _ = tiny_models.family_pair("albert")
    found = find_places(model, INPUTS)
    assert len({id(place.module) for place in found.read}) == 1
    assert [place.call for place in found.read] == [0, 1, 2, 3]
    assert len(found.blocks) == 4
    assert all(
        (a - b).abs().max() > 1e-2 for a, b in zip(found.states, found.states[1:], strict=False)
    )


class Reporting(nn.Module):
    """BERT that reports its hidden states in a way of its own."""

    def __init__(self, change):
        super().__init__()
        self.model, _ = tiny_models.text_pair("bert")
        self.config, self.change = self.model.config, change

    def forward(self, input_ids, attention_mask):
        output = self.model(input_ids, attention_mask, output_hidden_states=True)
        states = self.change(output.hidden_states)
        return SimpleNamespace(hidden_states=states, last_hidden_state=output.last_hidden_state)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h,
        lambda h: h[:-1],
        lambda h: h[1:],
        lambda h: (*h[1:], 2 * h[-1]),
        lambda h: None,
        lambda h: (),
        lambda h: (None, *h[1:]),
        lambda h: tuple(state.transpose(0, 1) for state in h),
        lambda h: tuple(state[None] for state in h),
        lambda h: h[:2],
    ],
    ids=[
        "all",
        "no last",
        "no first",
        "normed",
        "none",
        "empty",
        "gap",
        "turned",
        "more axes",
        "2",
    ],
)
def test_hidden_states_may_be_listed_in_many_ways(change):
    model = Reporting(change)
    found = find_places(model, INPUTS)
    with torch.no_grad():
        own = model.model(**INPUTS, output_hidden_states=True).hidden_states
    assert [place.module for place in found.read] == list(model.model.encoder.layer)
    for state, reported in zip(found.states, own[1:], strict=True):
        torch.testing.assert_close(state, reported, atol=1e-5, rtol=1e-5)
    assert found.entry is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda h: tuple(state + 1 for state in h),
        lambda h: (h[0], h[2], h[1], *h[3:]),
        lambda h: (*h[:2], 1.001 * h[2], *h[3:]),
        lambda h: h[::-1],
    ],
    ids=["shifted", "exchanged", "one off", "backwards"],
)
def test_other_hidden_states_are_refused(change):
    with pytest.raises(RuntimeError, match="are not the hidden states"):
        find_places(Reporting(change), INPUTS)


def test_blocks_that_are_not_the_hidden_states_are_refused():
    model, _ = tiny_models.text_pair("bert")
    (blocks,) = find_blocks(model)
    assert {state.shape for state in find_places(model, INPUTS).states} == {(1, 4, 32)}
    inner = nn.ModuleList([block.attention.output.dense for block in blocks])
    with pytest.raises(RuntimeError, match="BertModel"):
        find_places(model, INPUTS, [inner])
    with pytest.raises(RuntimeError, match="BertModel"):
        find_places(model, INPUTS, [blocks[:3]])


@pytest.mark.parametrize("kind", ["bert", "llama", "vit"])
def test_a_part_of_a_block_is_not_read_for_it(kind):
    text = kind in tiny_models.TEXT
    model, _ = tiny_models.text_pair(kind) if text else tiny_models.image_pair(kind)
    inputs = INPUTS if text else PIXELS
    (blocks,) = find_blocks(model)
    right = find_places(model, inputs)
    part_of_last = next(m for m in blocks[3].modules() if isinstance(m, nn.Linear))
    found = find_places(model, inputs, [nn.ModuleList([*blocks[:3], part_of_last])])
    assert found.read[3].module is not part_of_last  # read where it enters what is behind
    torch.testing.assert_close(found.states[3], right.states[3])


def test_a_model_without_blocks_is_refused():
    model, _ = tiny_models.text_pair("bert")
    model.config.num_hidden_layers = 5
    try:
        with pytest.raises(ValueError, match="no list of 5 blocks"):
            find_places(model, INPUTS)
    finally:
        model.config.num_hidden_layers = 4


class Stacked(nn.Module):
    """Blocks that put out what they are told to."""

    def __init__(self, outputs):
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=len(outputs))
        self.config.get_text_config = lambda: self.config
        self.layers = nn.ModuleList(nn.Identity() for _ in outputs)
        self.outputs, self.scale = outputs, nn.Parameter(torch.ones(()))

    def forward(self, input_ids, attention_mask):
        states = [layer(one * self.scale) for layer, one in zip(self.layers, self.outputs)]  # noqa: B905
        return SimpleNamespace(hidden_states=[states[0], *states], last_hidden_state=states[-1])


ONES = torch.ones(1, 4, 8)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([ONES, ONES * torch.nan], "NaN or infinite numbers after block 1 in torch.float32"),
        ([ONES * torch.inf, ONES], "NaN or infinite numbers after block 0"),
        ([ONES, torch.ones(1, 4, 16)], r"different shapes, \[\(1, 4, 8\), \(1, 4, 16\)\]"),
        ([ONES[None], ONES[None]], r"one vector per position, but tensors of shape \(1, 1, 4, 8\)"),
    ],
)
def test_states_must_be_finite_vectors_of_one_shape(outputs, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        find_places(Stacked(outputs), INPUTS)
    assert len(find_places(Stacked([ONES, 2 * ONES]), INPUTS).read) == 2
