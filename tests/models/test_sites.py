"""Branches of blocks are read where they add up to what the blocks put out, heads likewise."""

import copy

import numpy as np
import pytest
import torch
import transformers

from skact.embedding import TransformerEmbedder
from skact.models import at_site, find_sites, load, output_projections
from skact.models._sites import _norm_first, _norm_last
from tests import tiny_models
from tests.watching import watch

FIRST = ("llama", "gemma2", "gpt2", "vit", "dinov2")
FAMILIES = (*FIRST, "bert")


def pair_of(kind):
    """Model and processor; factors of DINOv2 and norms are not one, so that both can be seen."""
    is_image = kind in tiny_models.IMAGE
    model, processor = (tiny_models.image_pair if is_image else tiny_models.text_pair)(kind)
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lambda1" in name or ("norm" in name.lower() and name.endswith("weight")):
                weight.copy_(0.5 + torch.rand(weight.shape, generator=generator))
    return model, processor


def read(pair, samples, site, layers):
    embedder = TransformerEmbedder(
        pair, layer=list(layers), site=site, special_tokens=True, sink=None
    )
    return embedder.transform(samples)


def recorded(pair, samples, modules):
    """What enters and leaves modules of a model in a pass over one sample, by hand."""
    model, _ = pair
    seen = {}

    def hook(name):
        def look(module, args, kwargs, output):
            entered = args[0] if args else kwargs["hidden_states"]
            out = output[0] if isinstance(output, tuple) else output
            seen[name] = entered[0].detach().clone(), out[0].detach().clone()

        return look

    handles = [watch(m, hook(n), after=True, with_kwargs=True) for n, m in modules.items()]
    embedder = TransformerEmbedder(pair, layer=3, special_tokens=True, sink=None)
    inputs = embedder.prepare(samples).batch(np.array([0]))[0]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return seen


@pytest.fixture(params=FAMILIES)
def kind(request):
    return request.param


@pytest.fixture
def samples(kind, texts, images):
    return images[:2] if kind in tiny_models.IMAGE else texts[2:4]


def test_branches_add_up_to_what_a_block_puts_out(kind, samples):
    pair = model, _ = pair_of(kind)
    stream, attention, mlp = (
        read(pair, samples, site, range(4)) for site in ("residual", "attention", "mlp")
    )
    assert find_sites(load(pair)).norm_first == (kind != "bert")
    for block in (1, 2, 3):
        for i in range(len(samples)):
            x, y = stream.layer(block - 1)[i], stream.layer(block)[i]
            a, m = attention.layer(block)[i], mlp.layer(block)[i]
            if kind == "bert":
                layer = model.encoder.layer[block]
                with torch.no_grad():
                    inner = layer.attention.output.LayerNorm(torch.from_numpy(x + a))
                    got = layer.output.LayerNorm(inner + torch.from_numpy(m)).numpy()
                np.testing.assert_allclose(got, y, atol=1e-4)
            else:
                np.testing.assert_allclose(x + a + m, y, atol=1e-4 * np.abs(y).max())
            # Neither is a small change that the other one hides.
            assert np.linalg.norm(a) > 1e-2 * np.linalg.norm(y - x)
            assert np.abs(x + m - y).max() > 1e-2


def test_heads_are_what_enters_the_output_projection(kind, samples):
    pair = pair_of(kind)
    projections = output_projections(load(pair))
    heads = read(pair, samples, "heads", range(4))
    seen = recorded(pair, samples, {p.block: p.module for p in projections})
    for block, one in enumerate(projections):
        assert (one.block, one.n_heads, one.head_dim) == (block, 4, 8)
        entered, out = seen[block]
        np.testing.assert_allclose(heads.layer(block)[0], entered, atol=1e-4)
        parts = [
            entered[:, one.columns(h)] @ one.weight[:, one.columns(h)].T for h in range(one.n_heads)
        ]
        total = sum(parts) + (0 if one.bias is None else one.bias)
        torch.testing.assert_close(total.detach(), out, atol=1e-4, rtol=1e-4)
        assert min(part.norm() for part in parts) > 0


@pytest.mark.parametrize("kind", ["gemma2", "dinov2"])
def test_what_comes_behind_the_projection_belongs_to_the_branch(kind, samples):
    pair = pair_of(kind)
    (last,) = output_projections(load(pair))[3:]
    attention = read(pair, samples, "attention", [3]).layer(3)[0]
    out = recorded(pair, samples, {"out": last.module})["out"][1].numpy()
    assert np.abs(attention - out).max() > 1e-2
    factor = attention / out
    if kind == "dinov2":  # a factor for each feature
        assert (factor.std(axis=0) < 1e-3 * np.abs(factor.mean(axis=0))).all()


def test_slices_of_grouped_query_heads_belong_to_heads():
    pair = model, _ = pair_of("llama")
    before = read(pair, ["the happy cat"], "heads", [2]).layer(2)[0]
    with torch.no_grad():
        model.layers[2].self_attn.v_proj.weight[:8] = 0  # the first of two key-value heads
    after = read(pair, ["the happy cat"], "heads", [2]).layer(2)[0]
    changed = np.abs(after - before).reshape(len(after), 4, 8).max(axis=(0, 2))
    np.testing.assert_array_equal(after[:, :16], 0)
    np.testing.assert_array_equal(changed > 1e-3, [True, True, False, False])


def test_a_live_model_needs_no_tokenizer():
    for pair in (tiny_models.text_pair("gpt2", head=True), tiny_models.image_pair("vit", True)):
        alone, with_it = output_projections(pair[0]), output_projections(load(pair))
        assert [p.module for p in alone] == [p.module for p in with_it]
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in pair[0].modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_where_single_precision_is(dtype):
    model, tokenizer = pair_of("llama")
    single = find_sites(load((model, tokenizer)))
    half = find_sites(load((copy.deepcopy(model).to(dtype), tokenizer)))
    names = [[type(place.module).__name__ for place in s.attention + s.mlp] for s in (single, half)]
    assert names[0] == names[1]
    assert [p.name for p in single.projections] == [p.name for p in half.projections]


@pytest.mark.parametrize("kind", ["rwkv", "mamba", "deberta-v2-xlarge"])
@pytest.mark.parametrize("site", ["attention", "mlp", "heads"])
def test_a_model_whose_parts_do_not_add_up_is_refused(kind, site):
    loaded = load(tiny_models.family_pair(kind))
    with pytest.raises(ValueError, match=rf"^site='{site}' cannot be read: block 0 .*add up"):
        at_site(loaded, site)
    assert at_site(loaded, "residual") is loaded


class Scaled(transformers.models.llama.modeling_llama.LlamaDecoderLayer):
    """A block of which a little more comes out than its branches add."""

    factor = 1.0

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs) * self.factor


@pytest.mark.parametrize(("factor", "fits"), [(1.0, True), (1.01, False)])
def test_a_block_that_does_more_is_refused(factor, fits):
    model, tokenizer = pair_of("llama")
    model.layers[1].__class__, model.layers[1].factor = Scaled, factor
    loaded = load((model, tokenizer))
    if fits:
        assert len(find_sites(loaded).projections) == 4
    else:
        with pytest.raises(ValueError, match="block 1 of LlamaModel does not add up"):
            find_sites(loaded)


def test_adapters_are_refused_for_heads_only():
    peft = pytest.importorskip("peft")
    model, tokenizer = pair_of("llama")
    config = peft.LoraConfig(target_modules=["o_proj"], init_lora_weights=False, r=2)
    adapted = peft.get_peft_model(model, config)
    loaded = load((adapted, tokenizer))
    assert at_site(loaded, "attention").width == 32
    with pytest.raises(ValueError, match=r"^site='heads' cannot .* adapters have to be merged"):
        at_site(loaded, "heads")
    merged = adapted.merge_and_unload()
    assert at_site(load((merged, tokenizer)), "heads").width == 32


def test_a_part_that_is_replaced_is_found():
    pair = model, _ = pair_of("gpt2")
    before = find_sites(load(pair))
    assert find_sites(load(pair)) is before
    model.h[2].attn.c_proj = copy.deepcopy(model.h[2].attn.c_proj)
    after = find_sites(load(pair))
    assert after.projections[2].module is model.h[2].attn.c_proj
    assert after.projections[2].module is not before.projections[2].module


def test_a_large_stream_hides_no_wrong_part():
    pair = pair_of("llama")
    loaded = load(pair)
    # What enters is a thousand times what is added, as at an attention sink.
    with torch.no_grad():
        loaded.base.embed_tokens.weight.mul_(1000)
    sites = find_sites(loaded)
    assert [type(p.module).__name__ for p in sites.attention] == ["Linear"] * 4
    assert [p.module for p in sites.mlp] == [b.mlp.down_proj for b in loaded.base.layers]


def test_nothing_fits_a_sum_that_is_none():
    x, y = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    assert list(_norm_first(x, y, [], 1e-7)) == list(_norm_last(x, y, [], 1e-7)) == []
