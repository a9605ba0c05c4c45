"""Directions carried to the last layer are those of finite differences and of whole Jacobians."""

import copy

import numpy as np
import pytest
import torch

from skact import TransformerEmbedder
from skact.models import jacobian_lens, logit_lens
from tests import tiny_models
from tests.tiny_models import N_BLOCKS, WIDTH
from tests.watching import watch

TEXTS = ["the happy cat", "not happy at all", "x", "the angry thing sat on the angry cat"]
KINDS = ["gpt2", "llama", "gemma2", "qwen3"]


def exact(kind):
    """A copy in double precision."""
    model, tokenizer = tiny_models.text_pair(kind, head=True)
    return copy.deepcopy(model).double(), tokenizer


def blocks_of(model):
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def last_states(model, ids, block, step):
    """The last state of each token with a step at every token after a block."""
    seen = []

    def push(module, args, output):
        return (output[0] + step, *output[1:]) if isinstance(output, tuple) else output + step

    def look(module, args, output):
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [watch(blocks_of(model)[block], push, after=True)]
    handles.append(watch(blocks_of(model)[-1], look, after=True))
    try:
        with torch.no_grad():
            model(ids)
    finally:
        for handle in handles:
            handle.remove()
    return seen[0][0]


def ids_of(pair, text):
    return torch.tensor([pair[1](text)["input_ids"]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [0, 2, N_BLOCKS - 1])
def test_it_is_the_finite_difference(kind, block, rng):
    pair, vectors = exact(kind), rng.normal(size=(2, WIDTH))
    begins = kind in ("llama", "gemma2")  # with a token that is no word
    # The norms of the others compute in single precision, which small steps get lost in.
    h, tolerance = (1e-5, 1e-6) if kind == "gpt2" else (2e-3, 5e-3)
    # Padded texts are not finite in double precision where softmax is computed in single.
    found = jacobian_lens(pair, vectors, TEXTS, layer=block, sink=None, batch_size=1)
    for vector, carried in zip(vectors, found.vectors, strict=True):
        changes = []
        for text in TEXTS:
            ids = ids_of(pair, text)
            step = torch.zeros(ids.shape[1], WIDTH, dtype=torch.float64)
            step[begins:] = h * torch.tensor(vector)
            ends = (last_states(pair[0], ids, block, sign * step)[begins:] for sign in (1, -1))
            changes.append((next(ends) - next(ends)) / (2 * h))
        changes = torch.cat(changes).numpy()
        np.testing.assert_allclose(carried, changes.mean(axis=0), atol=tolerance)
        assert found.n_tokens == len(changes)
        assert np.abs(carried).max() > 0.3
    assert found.n_samples == len(TEXTS)
    # The control: as if later blocks did nothing.
    assert np.allclose(found.vectors, vectors) == (block == N_BLOCKS - 1)


def test_it_is_the_mean_over_pairs_of_tokens(rng):
    pair, vector = exact("gpt2"), rng.normal(size=WIDTH)
    ids = ids_of(pair, TEXTS[0])
    n = ids.shape[1]
    whole = torch.autograd.functional.jacobian(
        lambda step: _last_with(pair[0], ids, step), torch.zeros(n, WIDTH, dtype=torch.float64)
    )
    seen = [whole[after, :, before].numpy() for after in range(n) for before in range(after + 1)]
    found = jacobian_lens(pair, vector[None], TEXTS[:1], layer=1, sink=None)
    np.testing.assert_allclose(found.vectors[0], sum(seen) @ vector / n, rtol=1e-9)
    assert not whole[0, :, 1].any()
    by_pairs = np.mean(seen, axis=0) @ vector
    lens = logit_lens(pair, by_pairs[None], top=5)[0]
    assert [w.word for w in lens] == [w.word for w in found.words[0][:5]]


def _last_with(model, ids, step):
    seen = []
    handles = [
        watch(blocks_of(model)[1], lambda m, a, out: _plus(out, step), after=True),
        watch(blocks_of(model)[-1], lambda m, a, out: seen.append(out), after=True),
    ]
    try:
        model(ids)
    finally:
        for handle in handles:
            handle.remove()
    return (seen[0][0] if isinstance(seen[0], tuple) else seen[0]).reshape(ids.shape[1], WIDTH)


def _plus(output, step):
    return (output[0] + step, *output[1:]) if isinstance(output, tuple) else output + step


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_last_block_it_is_the_logit_lens(kind, rng):
    pair, vectors = tiny_models.text_pair(kind, head=True), rng.normal(size=(3, WIDTH))
    words = logit_lens(pair, vectors, top=4)
    for layer in (-1, N_BLOCKS - 1, 1.0):
        found = jacobian_lens(pair, vectors, TEXTS, layer=layer, top=4)
        assert [[w.token for w in some] for some in found.words] == [
            [w.token for w in some] for some in words
        ]
        np.testing.assert_allclose(found.words[0][0].logit, words[0][0].logit, rtol=1e-4)
    early = jacobian_lens(pair, vectors, TEXTS, layer=0, top=4)  # the control
    assert [[w.token for w in some] for some in early.words] != [
        [w.token for w in some] for some in words
    ]


def test_it_is_linear_and_batches_do_not_matter(rng):
    pair, vectors = tiny_models.text_pair("llama", head=True), rng.normal(size=(2, WIDTH))
    both = np.vstack([vectors, 3 * vectors[0] - vectors[1], -2 * vectors[0]])
    found = jacobian_lens(pair, both, TEXTS, layer=1).vectors
    np.testing.assert_allclose(found[2], 3 * found[0] - found[1], atol=1e-4)
    np.testing.assert_allclose(found[3], -2 * found[0], atol=1e-4)
    alone = jacobian_lens(pair, both, TEXTS, layer=1, batch_size=1).vectors
    np.testing.assert_allclose(found, alone, atol=1e-4)


def test_a_token_that_takes_the_sink_is_neither_moved_nor_counted(rng):
    pair, vector = exact("gpt2"), rng.normal(size=WIDTH)
    found = jacobian_lens(pair, vector[None], TEXTS[:1], layer=0, sink=7)
    ids = torch.cat([torch.tensor([[7]]), ids_of(pair, TEXTS[0])], dim=1)
    step = 1e-5 * torch.tensor(vector) * (torch.arange(ids.shape[1]) > 0)[:, None]
    change = last_states(pair[0], ids, 0, step) - last_states(pair[0], ids, 0, -step)
    np.testing.assert_allclose(found.vectors[0], change[1:].mean(dim=0) / 2e-5, rtol=1e-5)
    assert found.n_tokens == ids.shape[1] - 1
    plain = jacobian_lens(pair, vector[None], TEXTS[:1], layer=0, sink=None)
    assert not np.allclose(plain.vectors, found.vectors, rtol=1e-3)


def test_the_model_is_as_it_was(rng):
    pair = tiny_models.text_pair("llama", head=True)
    embedder = TransformerEmbedder(pair, layer=-1)
    before = embedder.transform(TEXTS).flat()
    jacobian_lens(pair, rng.normal(size=(1, WIDTH)), TEXTS, layer=1)
    np.testing.assert_array_equal(embedder.transform(TEXTS).flat(), before)
    assert all(p.requires_grad for p in pair[0].parameters())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": lambda: tiny_models.text_pair("gpt2")}, "no unembedding"),
        ({"vectors": np.ones((1, 3))}, "vectors must have"),
        ({"vectors": np.full((1, WIDTH), np.nan)}, "vectors must"),
        ({"samples": []}, "sample"),
        ({"samples": "the cat"}, "list"),
        ({"samples": ["the cat", 3]}, "sample 1"),
        ({"layer": 9}, "layer 9 does not exist"),
        ({"layer": [0, 1]}, "'layer' parameter"),
        ({"layer": 1.5}, "'layer' parameter"),
        ({"top": 0}, "'top' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"sink": "nonsense"}, "sink='nonsense'"),
    ],
)
def test_bad_input(changed, message):
    given = {
        "model": lambda: tiny_models.text_pair("gpt2", head=True),
        "vectors": np.ones((1, WIDTH)),
        "samples": TEXTS,
        "layer": 0,
    } | changed
    with pytest.raises((ValueError, TypeError), match=message):
        jacobian_lens(**{**given, "model": given["model"]()})


def test_a_step_that_is_held_back_is_refused():
    model, tokenizer = tiny_models.text_pair("llama", head=True)
    model = copy.deepcopy(model)
    handle = watch(model.model.layers[2], lambda m, a, out: _detached(out), after=True)
    try:
        with pytest.raises(ValueError, match="does not let a step at block 1 through"):
            jacobian_lens((model, tokenizer), np.ones((1, WIDTH)), TEXTS, layer=1)
    finally:
        handle.remove()


def test_what_is_not_finite_is_refused():
    pair, given = exact("llama"), {"samples": TEXTS, "layer": 0}
    jacobian_lens(pair, np.ones((1, WIDTH)), **given)  # tried out as it is
    handle = watch(pair[0].model.layers[2], lambda m, a, out: _plus(out, np.nan), after=True)
    try:
        with pytest.raises(ValueError, match="Jacobian at block 0 that is not finite"):
            jacobian_lens(pair, np.ones((1, WIDTH)), **given)
    finally:
        handle.remove()


def _detached(output):
    if isinstance(output, tuple):
        return (torch.from_numpy(output[0].numpy().copy()), *output[1:])
    return torch.from_numpy(output.detach().numpy().copy())


@pytest.mark.nightly
def test_smollm2_is_read_through_its_later_blocks(real_model):
    folder = real_model("smollm2")
    texts = ["The capital of France is", "He went home because he was tired."]
    tokens = TransformerEmbedder(folder, layer=15).transform(texts)
    direction = tokens[0][-1:] - tokens.flat().mean(axis=0)
    found = jacobian_lens(folder, direction, texts, layer=15, top=20)
    assert (found.n_samples, found.n_tokens) == (2, tokens.n_tokens)
    assert np.isfinite(found.vectors).all()
