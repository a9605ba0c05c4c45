"""The numbers: the same place in every model, whatever else is in the batch."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from skact.embedding import TransformerEmbedder
from skact.embedding._hooks import capture, check_hooks, find_blocks
from tests import tiny_models

NORMS = {"gpt2": "ln_f", "llama": "norm", "gemma2": "norm", "qwen3": "norm"}


def slow_states(model, inputs):
    """The model's own states after each block, shape (n_blocks, n_positions, n_features)."""
    with torch.no_grad():
        return torch.stack(model(**inputs, output_hidden_states=True).hidden_states[1:])[:, 0]


def slow_text(kind, text, model=None):
    own, tokenizer = tiny_models.text_pair(kind)
    encoded = tokenizer(text, return_special_tokens_mask=True)
    states = slow_states(model or own, {"input_ids": torch.tensor([encoded["input_ids"]])})
    return states[:, [not special for special in encoded["special_tokens_mask"]]]


def all_layers(pair, samples, **params):
    return TransformerEmbedder(pair, layer=list(range(4)), **params).transform(samples)


@pytest.mark.parametrize("kind", tiny_models.TEXT)
def test_text_activations_equal_the_models_own_states(kind, texts):
    pair = tiny_models.text_pair(kind)
    found = all_layers(pair, texts, batch_size=3)
    for i, text in enumerate(texts):
        own = slow_text(kind, text)
        for block in range(3):
            np.testing.assert_allclose(found.layer(block)[i], own[block], atol=1e-5, rtol=1e-4)
        last = torch.from_numpy(found.layer(3)[i])
        if kind in NORMS:
            assert (last - own[3]).abs().max() > 1e-2  # ours is before the norm, theirs after it
            last = getattr(pair[0], NORMS[kind])(last).detach()
        np.testing.assert_allclose(last, own[3], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", tiny_models.IMAGE)
def test_image_activations_equal_the_models_own_states(kind, images):
    pair = model, processor = tiny_models.image_pair(kind)
    found = all_layers(pair, images, batch_size=2)
    for i, image in enumerate(images):
        own = slow_states(model, processor(images=[image], return_tensors="pt"))[:, 1:]
        np.testing.assert_allclose(
            np.stack([found.layer(b)[i] for b in range(4)]), own, atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("kind", tiny_models.TEXT)
def test_batch_of_one_equals_a_padded_batch(kind, texts):
    pair = tiny_models.text_pair(kind)
    together = all_layers(pair, texts, batch_size=len(texts))
    alone = all_layers(pair, texts, batch_size=1)
    assert len(set(together.lengths.tolist())) > 1
    for block in range(4):
        np.testing.assert_allclose(
            together.layer(block).flat(), alone.layer(block).flat(), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_padding_side_of_the_tokenizer_has_no_influence(kind, texts):
    model, _ = tiny_models.text_pair(kind)
    make = (
        tiny_models.wordpiece_tokenizer
        if kind == "bert"
        else lambda **options: tiny_models.bytes_tokenizer("<s>", **options)
    )
    left, right = (
        TransformerEmbedder((model, make(padding_side=side))).transform(texts)
        for side in ("left", "right")
    )
    np.testing.assert_array_equal(left.values, right.values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_low_precision(kind, dtype, texts):
    model, tokenizer = tiny_models.text_pair(kind)
    low = copy.deepcopy(model).to(dtype)
    found = TransformerEmbedder((low, tokenizer)).transform(texts)
    exact = TransformerEmbedder((model, tokenizer)).transform(texts)
    assert found.dtype == (np.float16 if dtype is torch.float16 else np.float32)
    error = np.abs(found.values.astype(float) - exact.values).mean()
    assert 0 < error < 0.05 * np.abs(exact.values).mean()
    pooled = TransformerEmbedder((low, tokenizer), pooling="mean").transform(texts)
    assert pooled.dtype == np.float32


class Counter:
    """Counts the forward passes of a model and of its blocks."""

    def __init__(self, model):
        self.passes, self.runs = 0, [0] * 4
        modules = [model, *find_blocks(model, 4)]
        self.handles = [
            module.register_forward_pre_hook(self._count(i - 1)) for i, module in enumerate(modules)
        ]

    def _count(self, block):
        def count(*_):
            if block < 0:
                self.passes += 1
            else:
                self.runs[block] += 1

        return count

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("kind", ["bert", "gemma2", "gpt2"])
def test_deeper_blocks_do_not_run(kind, texts):
    pair = tiny_models.text_pair(kind)
    everything = all_layers(pair, texts)
    with Counter(pair[0]) as counter:
        found = TransformerEmbedder(pair, layer=[0, 1], batch_size=2).transform(texts)
    assert counter.runs == [3, 3, 0, 0]
    assert counter.passes == 3
    for block in (0, 1):
        np.testing.assert_allclose(
            found.layer(block).values, everything.layer(block).values, atol=1e-5, rtol=1e-4
        )


def test_all_layers_come_from_one_pass(images):
    pair = tiny_models.image_pair("vit")
    TransformerEmbedder(pair).transform(images)
    with Counter(pair[0]) as counter:
        all_layers(pair, images, batch_size=len(images))
    assert (counter.passes, counter.runs) == (1, [1, 1, 1, 1])


def n_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_and_modes_are_restored_also_after_an_error(texts):
    model, tokenizer = tiny_models.text_pair("bert")
    model = copy.deepcopy(model)
    blocks = find_blocks(model, 4)
    model.train()
    model.pooler.eval()
    modes = [module.training for module in model.modules()]
    before = n_hooks(model)
    assert n_hooks(model) == before
    TransformerEmbedder((model, tokenizer)).transform(texts)
    assert n_hooks(model) == before
    with capture(model, blocks, [0, 2]) as run:
        assert n_hooks(model) == before + 2
        assert not any(module.training for module in model.modules())
        with pytest.raises(ValueError, match="input_ids"):
            run({"no_such_argument": 1})
    assert n_hooks(model) == before
    with pytest.raises(ZeroDivisionError), capture(model, blocks, [0, 2]):
        raise ZeroDivisionError
    with pytest.raises(IndexError), capture(model, blocks, [0, 9]):
        pass
    assert n_hooks(model) == before
    assert [module.training for module in model.modules()] == modes


def test_a_model_in_training_mode_gives_the_numbers_of_evaluation(texts):
    model, tokenizer = tiny_models.text_pair("bert")
    trained = copy.deepcopy(model).train()
    assert any(isinstance(m, nn.Dropout) and m.p > 0 for m in trained.modules())
    np.testing.assert_array_equal(
        TransformerEmbedder((trained, tokenizer)).transform(texts).values,
        TransformerEmbedder((model, tokenizer)).transform(texts).values,
    )


def test_blocks_that_are_not_the_hidden_states_are_refused():
    model, _ = tiny_models.text_pair("bert")
    blocks = find_blocks(model, 4)
    inputs = {"input_ids": torch.arange(4)[None]}
    state = check_hooks(model, blocks, inputs)
    assert state.shape == (1, 4, tiny_models.WIDTH)
    inner = nn.ModuleList([block.attention.output.dense for block in blocks])
    with pytest.raises(RuntimeError, match="BertModel"):
        check_hooks(model, inner, inputs)
    with pytest.raises(RuntimeError, match="BertModel"):
        check_hooks(model, blocks[:3], inputs)


@pytest.mark.parametrize("kind", ["bert", "llama", "vit"])
def test_a_last_block_read_at_the_wrong_place_is_refused(kind):
    text = kind in tiny_models.TEXT
    model, _ = tiny_models.text_pair(kind) if text else tiny_models.image_pair(kind)
    inputs = (
        {"input_ids": torch.arange(4)[None]} if text else {"pixel_values": torch.ones(1, 3, 28, 28)}
    )
    blocks = find_blocks(model, 4)
    check_hooks(model, blocks, inputs)
    part_of_last = next(m for m in blocks[3].modules() if isinstance(m, nn.Linear))
    with pytest.raises(RuntimeError, match=type(model).__name__):
        check_hooks(model, nn.ModuleList([*blocks[:3], part_of_last]), inputs)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ValueError, match="no list of 5 blocks"):
        find_blocks(tiny_models.text_pair("bert")[0], 5)


class Failing(nn.Module):
    """Lets a model run out of memory for batches above a size."""

    def __init__(self, model, limit, error):
        super().__init__()
        self.limit, self.error, self.sizes = limit, error, []
        self.handle = model.register_forward_pre_hook(self._check, with_kwargs=True)

    def _check(self, module, args, kwargs):
        self.sizes.append(len(kwargs["input_ids"]))
        if self.sizes[-1] > self.limit:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch(error, texts):
    model, tokenizer = tiny_models.text_pair("bert")
    expected = TransformerEmbedder((model, tokenizer)).transform(texts)
    failing = Failing(model, 1, error)
    try:
        found = TransformerEmbedder((model, tokenizer), batch_size=4).transform(texts)
    finally:
        failing.handle.remove()
    assert failing.sizes == [4, 2, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)


@pytest.mark.parametrize(
    ("limit", "error"), [(0, RuntimeError("out of memory")), (1, RuntimeError("another fault"))]
)
def test_other_errors_and_a_sample_too_large_are_raised(limit, error, texts):
    model, tokenizer = tiny_models.text_pair("bert")
    TransformerEmbedder((model, tokenizer)).transform(texts)
    failing = Failing(model, limit, error)
    try:
        with pytest.raises(RuntimeError, match=str(error)):
            TransformerEmbedder((model, tokenizer)).transform(texts)
    finally:
        failing.handle.remove()


@pytest.mark.parametrize("special_tokens", [False, True])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("kind", ["bert", "dinov2", "llama"])
def test_pooling_equals_a_slow_replica(kind, pooling, special_tokens, texts, images):
    text = kind in tiny_models.TEXT
    pair = tiny_models.text_pair(kind) if text else tiny_models.image_pair(kind)
    samples = texts if text else images
    params = {"special_tokens": special_tokens, "batch_size": 3}
    if kind == "llama" and pooling == "cls":
        with pytest.raises(ValueError, match=r"CLS position.*LlamaModel"):
            TransformerEmbedder(pair, pooling=pooling, **params).transform(samples)
        return
    tokens = all_layers(pair, samples, **params)
    with_cls = all_layers(pair, samples, special_tokens=True)
    stack = all_layers(pair, samples, pooling=pooling, **params)
    for block in range(4):
        found = TransformerEmbedder(pair, layer=block, pooling=pooling, **params)
        pooled = found.transform(samples)
        expected = {
            "cls": lambda b: [sample[0] for sample in with_cls.layer(b)],
            "mean": lambda b: [sample.astype(float).mean(0) for sample in tokens.layer(b)],
            "last": lambda b: [sample[-1] for sample in tokens.layer(b)],
        }[pooling](block)
        assert pooled.dtype == np.float32
        np.testing.assert_allclose(pooled, expected, atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(stack.layer(block).flat(), pooled, atol=1e-5, rtol=1e-4)
        assert stack.lengths.tolist() == [1] * len(samples)
        assert {"cls": "CLS", "mean": "mean", "last": "last"}[pooling] in (
            stack.layer(block).source.convention
        )


def test_special_tokens_are_kept_only_when_asked_for(texts, images):
    pair = tiny_models.text_pair("bert")
    without, kept = (
        all_layers(pair, texts, special_tokens=flag).layer(3) for flag in (False, True)
    )
    assert (kept.lengths - without.lengths).tolist() == [2] * len(texts)
    assert "special tokens kept" in kept.source.convention
    assert kept.source.conflict(without.source) == "convention"
    for one, more in zip(without, kept, strict=True):
        np.testing.assert_array_equal(one, more[1:-1])
    pair = tiny_models.image_pair("vit")
    without, kept = (
        all_layers(pair, images, special_tokens=flag).layer(3) for flag in (False, True)
    )
    assert (without.lengths.tolist(), kept.lengths.tolist()) == ([16] * 5, [17] * 5)
    for one, more in zip(without, kept, strict=True):
        np.testing.assert_array_equal(one, more[1:])


def test_heads_and_towers_are_left_out(texts, images):
    _, tokenizer = tiny_models.text_pair("llama")
    model, _ = tiny_models.text_pair("llama", head=True)
    assert type(model).__name__ == "LlamaForCausalLM"
    found = TransformerEmbedder((model, tokenizer)).transform(texts)
    direct = TransformerEmbedder((model.model, tokenizer)).transform(texts)
    np.testing.assert_array_equal(found.values, direct.values)
    assert found.source.revision == direct.source.revision
    model, processor = tiny_models.image_pair("vit", head=True)
    found = TransformerEmbedder((model, processor)).transform(images)
    assert found.source.model == "ViTForImageClassification"
    np.testing.assert_array_equal(
        found.values, TransformerEmbedder((model.vit, processor)).transform(images).values
    )


def test_both_towers_of_clip(images):
    model = tiny_models.clip_model()
    tokenizer, processor = tiny_models.wordpiece_tokenizer(), tiny_models.image_pair("clip")[1]
    seen = TransformerEmbedder((model, processor)).transform(images)
    np.testing.assert_array_equal(
        seen.values, TransformerEmbedder((model.vision_model, processor)).transform(images).values
    )
    read = TransformerEmbedder((model, tokenizer), modality="text").transform(["the cat sat"])
    ids = torch.tensor([tokenizer("the cat sat")["input_ids"]])
    own = slow_states(model.text_model, {"input_ids": ids})
    np.testing.assert_allclose(read[0], own[3, 1:-1], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="modality='image'"):
        TransformerEmbedder((model, tokenizer), modality="image").transform(images)
