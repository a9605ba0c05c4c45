"""Heads that write more, less or the opposite: in a pass, in the weights, and not afterwards."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch
import transformers

from skact import TransformerEmbedder, bake_heads, random_heads, scale_heads
from tests import tiny_models

HEADS = [(0, 1), (2, 0), (2, 3)]


def made(kind):
    """A model that may be changed, and ids."""
    config, tokenizer = tiny_models._text_parts(kind)
    config.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    build = transformers.AutoModel if kind == "bert" else transformers.AutoModelForCausalLM
    return build.from_config(config).float().eval(), torch.tensor([[5, 9, 3, 7], [4, 4, 8, 6]])


@torch.no_grad()
def answer(model, ids):
    found = model(ids)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


KINDS = ["gpt2", "llama", "gemma2", "bert"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [-1.0, 0.0, 5.0])
def test_in_a_pass_and_in_the_weights_are_one(kind, factor):
    model, ids = made(kind)
    before = answer(model, ids)
    with scale_heads(model, HEADS, factor):
        scaled = answer(model, ids)
    assert torch.equal(answer(model, ids), before), "as it was"
    assert (scaled - before).abs().max() > 1e-3
    bake_heads(model, HEADS, factor)
    assert torch.allclose(answer(model, ids), scaled, atol=1e-5)
    if factor:
        bake_heads(model, HEADS, 1 / factor)
        assert torch.allclose(answer(model, ids), before, atol=1e-5)


@pytest.mark.parametrize("factor", [-1.0, 0.0, 4.0, 0.5])
def test_in_bfloat16_powers_of_two_lose_nothing(factor):
    model, ids = made("llama")
    model.to(torch.bfloat16)
    with scale_heads(model, HEADS, factor):
        scaled = answer(model, ids)
    before = answer(model, ids)
    bake_heads(model, HEADS, factor)
    assert torch.equal(answer(model, ids), scaled)
    if factor:
        bake_heads(model, HEADS, 1 / factor)
        assert torch.equal(answer(model, ids), before)


def test_it_is_the_write_that_is_scaled():
    model, ids = made("gpt2")
    block = model.transformer.h[0].attn
    write = {}
    handle = block.c_proj.register_forward_hook(lambda m, a, o: write.update(one=(a[0], o)))
    answer(model, ids)
    entered, out = write["one"]
    head = entered[..., 8:16] @ block.c_proj.weight[8:16].detach()
    with scale_heads(model, [(0, 1)], 3.0):
        answer(model, ids)
    assert torch.allclose(write["one"][1], out + 2 * head, atol=1e-5)
    handle.remove()


def test_all_heads_at_zero_leave_the_bias():
    model, ids = made("gpt2")
    written = []
    proj = model.transformer.h[1].attn.c_proj
    handle = proj.register_forward_hook(lambda m, a, o: written.append(o))
    with scale_heads(model, [(1, h) for h in range(4)], 0):
        answer(model, ids)
    assert torch.equal(written[-1], proj.bias.expand_as(written[-1]))
    handle.remove()


def test_it_is_restored_after_an_error_and_after_the_innermost_of_two():
    model, ids = made("llama")
    before = answer(model, ids)
    with pytest.raises(RuntimeError, match="mine"), scale_heads(model, HEADS, 2):
        raise RuntimeError("mine")
    assert torch.equal(answer(model, ids), before)
    with scale_heads(model, [(1, 1)], 2):
        once = answer(model, ids)
        with scale_heads(model, [(1, 1)], 3):
            six = answer(model, ids)
        assert torch.equal(answer(model, ids), once)
    with scale_heads(model, [(1, 1)], 6):
        assert torch.allclose(answer(model, ids), six, atol=1e-5)
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_generation_with_a_cache_is_scaled_throughout(kind):
    model, ids = made(kind)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": -1}
    with scale_heads(model, HEADS, -4), torch.inference_mode():
        cached = model.generate(ids, **options)
        plain = model.generate(ids, **options, use_cache=False)
    assert torch.equal(cached, plain)


def test_a_context_may_be_entered_again():
    model, ids = made("gpt2")
    before, scaling, found = answer(model, ids), scale_heads(model, HEADS, -1), []
    for _ in range(2):
        with scaling:
            found.append(answer(model, ids))
        assert torch.equal(answer(model, ids), before)
    assert torch.equal(*found)
    assert not torch.equal(found[0], before)


def test_gradients_go_through():
    model, ids = made("gpt2")
    value = model.transformer.h[0].attn.c_attn.weight
    grads = []
    for factor in (1.0, 0.0):
        model.zero_grad()
        with scale_heads(model, [(0, h) for h in range(4)], factor):
            model(ids).logits.sum().backward()
        grads.append(value.grad.abs().max().item())
    assert grads[0] > 0
    assert grads[1] == 0


def test_other_threads_wait():
    model, ids = made("gpt2")
    before, found = answer(model, ids), []
    reader = TransformerEmbedder((model, tiny_models.text_pair("gpt2")[1]), layer=3, sink=None)
    plain = reader.transform(["the cat"]).flat()
    thread = threading.Thread(target=lambda: found.append(reader.transform(["the cat"]).flat()))
    with scale_heads(model, HEADS, 9):
        thread.start()
        thread.join(0.3)
        assert not found
    thread.join()
    np.testing.assert_array_equal(found[0], plain)
    assert torch.equal(answer(model, ids), before)


def test_an_embedder_says_so_and_a_store_refuses(tmp_path):
    model, _ = made("gpt2")
    reader = TransformerEmbedder((model, tiny_models.text_pair("gpt2")[1]), layer=3, sink=None)
    plain = reader.transform(["the cat"])
    stored = TransformerEmbedder(reader.model, 3, sink=None, store=tmp_path / "store")
    with scale_heads(reader, HEADS, 5):
        scaled = reader.transform(["the cat"])
        with pytest.raises(
            ValueError, match=r"does not work alone: heads 1 of block 0 scaled by 5\.0; heads 0"
        ):
            stored.transform(["the cat"])
    assert plain.source.conflict(scaled.source) == "convention"
    assert "with heads 0, 3 of block 2 scaled by 5.0" in scaled.source.convention
    sources = {plain.source, scaled.source}
    for heads, factor in ((HEADS, -1), (HEADS[:2], 5), (HEADS[::-1], 5)):
        with scale_heads(reader, heads, factor):
            sources.add(reader.transform(["the cat"]).source)
    assert len(sources) == 4
    assert np.abs(plain.flat() - scaled.flat()).max() > 1e-3
    stored.transform(["the cat"])


MODEL = made("llama")[0]
BAD = [
    ((MODEL, [(4, 0)], 1), r"heads\[0\]: there is no head 0 of block 4; the blocks are 0 to 3"),
    ((MODEL, [(0, 1), (0, 4)], 1), r"heads\[1\]: there is no head 4 of block 0; .* heads 0 to 3"),
    ((MODEL, [(-1, 0)], 1), r"there is no head 0 of block -1"),
    ((MODEL, [(0, 1), (0, 1)], 1), "head 1 of block 0 comes twice"),
    ((MODEL, [3], 1), r"heads\[0\] must be \(block, head\), two ints, got 3"),
    ((MODEL, [(0, 1, 2)], 1), r"heads\[0\] must be \(block, head\)"),
    ((MODEL, [(0.0, 1)], 1), r"heads\[0\] must be \(block, head\)"),
    ((MODEL, [(True, 1)], 1), r"heads\[0\] must be \(block, head\)"),
    ((MODEL, ["ab"], 1), r"heads\[0\] must be \(block, head\)"),
    ((MODEL, [], 1), "heads must hold one or more heads"),
    ((MODEL, "ab", 1), r"'heads' .* a list of \(block, head\)"),
    ((MODEL, [(0, 1)], np.nan), "'factor'"),
    ((MODEL, [(0, 1)], "a"), "'factor'"),
    ((3, [(0, 1)], 1), "'model' .* a live model of transformers"),
    ((torch.nn.Linear(2, 2), [(0, 1)], 1), "'model' .* a live model of transformers"),
    ((tiny_models.family_pair("albert"), [(0, 1)], 1), "4 blocks share the weights"),
    ((tiny_models.family_pair("mamba"), [(0, 1)], 1), "add up|heads"),
]


@pytest.mark.parametrize("function", [scale_heads, bake_heads])
@pytest.mark.parametrize(("args", "message"), BAD)
def test_bad_input_is_refused(function, args, message):
    with pytest.raises(ValueError, match=message):
        function(*args)


def test_a_model_of_a_name_is_not_changed_for_good():
    with pytest.raises(ValueError, match="'model'"):
        bake_heads(TransformerEmbedder("models/smollm2"), [(0, 1)], 2)


EVERY = [(b, h) for b in range(6) for h in range(5)]


def test_random_heads_are_of_the_same_blocks():
    like = [(0, 1), (0, 2), (3, 3), (5, 0), (5, 4)]
    draws = [random_heads(EVERY, like, seed) for seed in range(20)]
    for heads in draws:
        assert Counter(heads[:, 0].tolist()) == Counter(b for b, _ in like)
        assert not {tuple(h) for h in heads.tolist()} & set(like)
        assert len({tuple(h) for h in heads.tolist()}) == 5
    assert len({heads.tobytes() for heads in draws}) > 15
    np.testing.assert_array_equal(random_heads(EVERY[::-1], like, 3), draws[3])


def test_where_a_block_has_no_others_its_neighbours_stand_in():
    like = [(2, 0), (2, 1), (2, 2)]
    with pytest.warns(UserWarning, match="1 of 3 random heads are of a block next to"):
        heads = random_heads(EVERY, like, 0)
    blocks = heads[:, 0].tolist()
    assert blocks.count(2) == 2
    assert set(blocks) <= {1, 2, 3}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((EVERY, [(9, 0)]), r"like\[0\] is \(9, 0\), which is not in ranking"),
        ((EVERY, EVERY[:20]), "like has 20 of 30 heads, which leaves 10 to draw from"),
        ((EVERY, [(0, 0), (0, 0)]), "like must hold each head once"),
        ((EVERY + EVERY[:1], [(0, 0)]), "ranking must hold each head once"),
        ((EVERY, [0, 1]), "like must hold one or more heads"),
        ((EVERY, []), "like must hold one or more heads"),
        ((EVERY, [(0.5, 1)]), "like must hold one or more heads"),
        (("a", [(0, 0)]), "'ranking'"),
        ((EVERY, [(0, 0)], "a"), "'random_state'"),
    ],
)
def test_bad_heads_to_draw_from_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        random_heads(*args)
