"""The numbers: the same place in every model, whatever else is in the batch."""

import copy
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skact.embedding import TransformerEmbedder
from skact.models._forward import Batches, ForwardPass
from skact.models._loaded import load
from skact.models._places import find_blocks
from skact.models._prepare import prepare
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


def run_forward(pair, texts, blocks, *, pooling=None, batch_size=3, progress=False, sink=None):
    job = ForwardPass(prepare(load(pair), texts), pooling=pooling, batch_size=batch_size)
    return job.embed(np.arange(len(texts)), blocks, sink, progress)


class Kept:
    """A sink that gives new memory for each batch and keeps it."""

    def __init__(self, blocks, lengths, width, dtype):
        self.dtype = np.dtype(dtype)
        self.blocks, self.lengths, self.width = blocks, lengths, width
        self.batches = []

    def room(self, samples):
        ends = np.cumsum(self.lengths[samples])
        places = {b: np.full((ends[-1], self.width), 7, self.dtype) for b in self.blocks}
        self.given = samples, places
        return places, ends - self.lengths[samples]

    def keep(self, samples):
        np.testing.assert_array_equal(samples, self.given[0])
        self.batches.append(self.given)

    def rows(self, block):
        """Rows of all samples, in their order."""
        own = {}
        for samples, places in self.batches:
            ends = np.cumsum(self.lengths[samples])
            own.update(zip(samples.tolist(), np.split(places[block], ends[:-1]), strict=True))
        return np.concatenate([own[i] for i in range(len(self.lengths))])


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
    found = all_layers(pair, images, batch_size=2, crop="processor")
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
        modules = [model, *find_blocks(model)[0]]
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
    assert counter.passes > 1
    assert counter.runs == [counter.passes, counter.passes, 0, 0]
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


def test_a_model_in_training_mode_gives_the_numbers_of_evaluation(texts):
    model, tokenizer = tiny_models.text_pair("bert")
    trained = copy.deepcopy(model).train()
    assert any(isinstance(m, nn.Dropout) and m.p > 0 for m in trained.modules())
    np.testing.assert_array_equal(
        TransformerEmbedder((trained, tokenizer)).transform(texts).values,
        TransformerEmbedder((model, tokenizer)).transform(texts).values,
    )


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


@pytest.mark.parametrize("kept_in", ["memory", "sink"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch(error, kept_in):
    pair = tiny_models.text_pair("bert")
    texts = ["the cat", "cat sat", "sat the", "not the", "the not"]
    expected = TransformerEmbedder(pair).transform(texts)
    sink = None if kept_in == "memory" else Kept([3], expected.lengths, 32, "float32")
    failing = Failing(pair[0], 1, error)
    try:
        found = run_forward(pair, texts, [3], batch_size=4, sink=sink)
    finally:
        failing.handle.remove()
    assert failing.sizes == [4, 2, 1, 1, 1, 1, 1]
    values = found[3] if sink is None else sink.rows(3)
    np.testing.assert_allclose(values, expected.values, atol=1e-5)


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
    seen, alone = (
        TransformerEmbedder((part, processor), crop="processor").transform(images)
        for part in (model, model.vision_model)
    )
    np.testing.assert_array_equal(seen.values, alone.values)
    read = TransformerEmbedder((model, tokenizer), modality="text").transform(["the cat sat"])
    ids = torch.tensor([tokenizer("the cat sat")["input_ids"]])
    own = slow_states(model.text_model, {"input_ids": ids})
    np.testing.assert_allclose(read[0], own[3, 1:-1], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="modality='image'"):
        TransformerEmbedder((model, tokenizer), modality="image").transform(images)


def cuts(lengths, groups, budget):
    """The batches of samples with some lengths, sorted as the real ones are."""
    batches = Batches(SimpleNamespace(lengths=lengths, groups=groups), np.arange(len(lengths)))
    out = [batches.cut(0, budget)]
    while len(rest := batches.cut(sum(map(len, out)), budget)):
        out.append(rest)
    return np.lexsort((groups, -lengths)), out


def padding(lengths, batches):
    return sum(int((lengths[b].max() - lengths[b]).sum()) for b in batches)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=80), st.integers(1, 2000))
def test_batches_keep_to_the_budget_and_padding_to_its_bound(lengths, budget):
    lengths = np.array(lengths)
    order, batches = cuts(lengths, np.zeros(len(lengths), int), budget)
    np.testing.assert_array_equal(np.concatenate(batches), order)
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        filled = len(batch) * lengths[batch].max()
        assert filled <= budget or len(batch) == 1
        # No batch is smaller than it need be.
        assert following is None or filled + lengths[batch].max() > budget
    bound = budget * np.log(lengths.max() / lengths.min())
    assert padding(lengths, batches) <= bound + 1e-6


def test_padding_of_unsorted_batches_leaves_the_bound(rng):
    lengths = rng.integers(5, 200, 3000)
    budget = 32 * int(lengths.mean())
    bound = budget * np.log(lengths.max() / lengths.min())
    assert padding(lengths, cuts(lengths, np.zeros(3000, int), budget)[1]) <= bound
    assert padding(lengths, np.array_split(np.arange(3000), 3000 // 32)) > 10 * bound


def test_a_batch_holds_one_group():
    lengths, groups = np.array([4, 6, 4, 4, 6, 4]), np.array([0, 1, 2, 0, 3, 0])
    _, batches = cuts(lengths, groups, 12)
    assert [batch.tolist() for batch in batches] == [[1], [4], [0, 3, 5], [2]]


def test_batch_size_counts_samples_of_mean_length():
    pair = tiny_models.text_pair("gpt2")
    short, long = ["x"] * 40, ["y" * 40] * 4
    embedder = TransformerEmbedder(pair, layer=0, batch_size=16)
    embedder.transform(short[:1])  # tries the model once
    failing = Failing(pair[0], 99, None)
    try:
        embedder.transform(short)
        embedder.transform(short + long)
        job = ForwardPass(prepare(load(pair), short + long), pooling=None, batch_size=16)
        job.embed(np.arange(40), [0])
    finally:
        failing.handle.remove()
    # 200 positions in 44 samples: 16 of mean length have 72, also where only some are embedded.
    assert failing.sizes == [16, 16, 8, 1, 1, 1, 1, 40, 40]


@pytest.mark.parametrize("pooling", [None, "mean"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_go_straight_into_a_sink(dtype, pooling, texts):
    pair = tiny_models.text_pair("llama")
    exact = run_forward(pair, texts, [1, 3], pooling=pooling)
    raw = np.dtype("uint16" if dtype == "bfloat16" else dtype)
    lengths = ForwardPass(prepare(load(pair), texts), pooling=pooling, batch_size=1).n_rows
    sink = Kept([1, 3], lengths, exact[1].shape[1], raw)
    assert run_forward(pair, texts, [1, 3], pooling=pooling, sink=sink) == {}
    assert len(sink.batches) > 1
    for block, values in exact.items():
        rounded = torch.from_numpy(values).to(getattr(torch, dtype))
        assert torch.equal(torch.from_numpy(sink.rows(block)).view(rounded.dtype), rounded)
    assert np.abs(exact[1] - exact[3]).max() > 0.1


def test_the_next_batch_is_prepared_in_another_thread(texts):
    inputs = prepare(load(tiny_models.text_pair("bert")), texts)
    threads, batch = [], inputs.batch
    vars(inputs)["batch"] = lambda samples: threads.append(threading.get_ident()) or batch(samples)
    ForwardPass(inputs, pooling=None, batch_size=1).embed(np.arange(len(texts)), [0])
    assert len(threads) > 1
    assert set(threads).isdisjoint({threading.get_ident()})


def test_progress_counts_tokens_and_is_quiet_by_default(texts, capsys):
    pair = tiny_models.text_pair("bert")
    bar = SimpleNamespace(n=[])
    bar.update = bar.n.append
    values = run_forward(pair, texts, [0], batch_size=2, progress=bar)
    assert len(bar.n) > 1
    assert sum(bar.n) == len(values[0])
    run_forward(pair, texts, [0])
    assert capsys.readouterr().err == ""
    run_forward(pair, texts, [0], progress=True)
    shown = capsys.readouterr().err
    assert f"{len(values[0])}/{len(values[0])}" in shown.replace(".0", "")
    assert "token/s" in shown


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_gives_the_numbers_of_the_cpu(dtype, texts):
    model, tokenizer = tiny_models.text_pair("qwen3")
    own = copy.deepcopy(model).to("cuda", getattr(torch, dtype))
    expected = run_forward((model, tokenizer), texts, [0, 3])
    found = run_forward((own, tokenizer), texts, [0, 3])
    for block, values in expected.items():
        tolerance = (1e-4 if dtype == "float32" else 3e-2) * np.abs(values).max()
        np.testing.assert_allclose(found[block], values, atol=tolerance)
