"""What is baked is what is steered; what cannot be is refused and leaves the model as it was."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.pipeline import make_pipeline

from skact import (
    Ablation,
    Addition,
    AffineEdit,
    LinearErasure,
    LinearSeparator,
    MaxToken,
    MinimalNormEdit,
    Source,
    TokenScaler,
    bake_edit,
    export_vectors,
    steer,
)
from skact.steering import EditMap
from tests import tiny_models

RNG = np.random.default_rng(0)
Y = np.arange(40) % 2
X = RNG.normal(size=(40, 32)) + Y[:, None] * RNG.normal(size=32)
IDS = torch.tensor([[5, 9, 100, 42, 7, 61]])


def model_of(kind, head=True):
    return copy.deepcopy(tiny_models.text_pair(kind, head=head)[0])


def logits(model, **options):
    with torch.inference_mode():
        out = model(IDS, **options)
    return (out.logits if hasattr(out, "logits") else out.last_hidden_state).numpy()


def again(model, folder):
    """The model after it was saved and loaded."""
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder).eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("strength", [0.8, -2.0])
def test_a_constant_becomes_a_bias(kind, strength, tmp_path):
    model, edit = model_of(kind), Addition().fit(X, Y)
    plain = logits(model)
    with steer(model, edit, 2, strength=strength):
        expected = logits(model)
    bake_edit(model, edit, 2, strength=strength)
    np.testing.assert_allclose(logits(model), expected, atol=1e-4)
    np.testing.assert_allclose(logits(again(model, tmp_path)), expected, atol=1e-4)
    assert np.abs(plain - expected).max() > 1e-2
    assert getattr(model.config, "mlp_bias", True)


def writes(model, kind):
    """What writes into the stream of a tiny model, and its embeddings."""
    if kind == "gpt2":
        blocks = [(b.attn.c_proj, b.mlp.c_proj) for b in model.transformer.h]
        return [model.transformer.wte, model.transformer.wpe], blocks
    blocks = [(b.self_attn.o_proj, b.mlp.down_proj) for b in model.model.layers]
    return [model.model.embed_tokens], blocks


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_an_ablation_at_all_layers_becomes_weights(kind, tmp_path):
    model, edit = model_of(kind), Ablation(RNG.normal(size=(2, 32))).fit(X)
    basis = torch.tensor(edit.basis_, dtype=torch.float32)
    plain = logits(model)
    embeddings, blocks = writes(model, kind)

    def hook(module, args, output):
        return output - output @ basis.T @ basis

    modules = [*embeddings, *(m for pair in blocks for m in pair)]
    handles = [module.register_forward_hook(hook) for module in modules]
    expected = logits(model)
    for handle in handles:
        handle.remove()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight.clone()
    bake_edit(model, edit, "all")
    np.testing.assert_allclose(logits(model), expected, atol=1e-4)
    with torch.inference_mode():
        states = model(IDS, output_hidden_states=True).hidden_states[:-1]
    assert max(float((state @ basis.T).abs().max()) for state in states) < 1e-4
    assert torch.equal(model.get_output_embeddings().weight, head)
    if tied:
        assert model.config.tie_word_embeddings is False
        assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    np.testing.assert_allclose(logits(again(model, tmp_path)), expected, atol=1e-4)
    assert np.abs(plain - expected).max() > 1e-2


def test_an_untied_head_of_a_tied_model(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    edit = Ablation(RNG.normal(size=32)).fit(X)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    bake_edit(model, edit, "all")
    with torch.inference_mode():
        baked, loaded = (m(IDS % 64).logits for m in (model, again(model, tmp_path)))
    np.testing.assert_allclose(baked.numpy(), loaded.numpy(), atol=1e-5)
    assert not model.config.tie_word_embeddings


GATED = Addition(gate=make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(X, Y)).fit(X, Y)


@pytest.mark.parametrize(
    ("kind", "edit", "layer", "message"),
    [
        ("qwen3", Addition().fit(X, Y), 1, "config no option for one"),
        ("gemma2", Addition().fit(X, Y), 1, "does not add what its attention and MLP put out"),
        ("bert", Addition().fit(X, Y), 1, "does not add what its attention and MLP put out"),
        (
            "bert",
            Ablation(np.arange(32)).fit(X),
            "all",
            "does not add what its attention and MLP put out",
        ),
        (
            "gemma2",
            Ablation(np.arange(32)).fit(X),
            "all",
            "does not add what its attention and MLP put out",
        ),
        ("gpt2", Ablation(np.arange(32)).fit(X), 1, "which weights can do at all layers only"),
        (
            "gpt2",
            Ablation(np.arange(32), strength=0.5).fit(X),
            "all",
            "an ablation with a strength of 1",
        ),
        ("gpt2", AffineEdit().fit(X, Y), "all", "changes a token by what it is"),
        ("gpt2", MinimalNormEdit().fit(X, Y), 1, "acts where a gate fires"),
        ("gpt2", LinearErasure().fit(X, Y), "all", "changes a token by what it is"),
        ("gpt2", GATED, 1, "acts where a gate fires"),
        ("gpt2", EditMap(np.ones((2, 32))), 1, "a vector per sample"),
        ("gpt2", Addition().fit(X, Y), None, "layer must be given"),
        ("gpt2", [Addition().fit(X, Y)] * 2, 1, "edit must be one edit, got 2 in a list"),
        ("gpt2", None, 1, "edit must be a fitted edit, .* got None"),
        ("gpt2", Addition([1, 2]).fit(np.ones((3, 2))), 1, "edit changes tokens of 2 features"),
    ],
)
def test_what_cannot_be_baked_is_refused(kind, edit, layer, message):
    model = model_of(kind, head=kind != "bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config, tied = copy.deepcopy(model.config.to_dict()), model.get_output_embeddings()
    with pytest.raises((ValueError, TypeError), match=message):
        bake_edit(model, edit, layer)
    after = model.state_dict()
    assert list(before) == list(after)
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert model.config.to_dict() == config
    if tied is not None and config["tie_word_embeddings"]:
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_images_and_compiled_models_are_refused():
    with pytest.raises(ValueError, match="must be a language model"):
        bake_edit(tiny_models.image_pair("vit"), Addition().fit(X, Y), 1)
    compiled = torch.compile(model_of("gpt2"), backend="eager")
    with pytest.raises(ValueError, match="model is compiled"):
        bake_edit(compiled, Addition().fit(X, Y), 1)


def test_vectors_are_written_with_what_they_are_for(tmp_path):
    from skact import TokenArray

    source = Source("a model", "a commit", 3, "residual stream after the block")
    tokens = TokenArray(X, np.arange(41), source=source)
    edit = Addition(strength=0.5).fit(tokens, Y)
    out = make_pipeline(TokenScaler(with_mean=False), Ablation()).fit(tokens, Y)
    export_vectors({"joy": edit, "fear": out}, tmp_path / "vectors.safetensors")
    with safe_open(tmp_path / "vectors.safetensors", "np") as file:
        vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = {name: json.loads(text) for name, text in file.metadata().items()}
    np.testing.assert_allclose(vectors["joy"], edit.edit_map(1).shift, rtol=1e-6)
    np.testing.assert_allclose(vectors["fear"], out[-1].basis_, rtol=1e-6)
    assert about["joy"] == {
        "model": "a model",
        "revision": "a commit",
        "block": 3,
        "hidden_states": 4,
        "convention": "residual stream after the block",
        "scaling": None,
        "site": None,
        "kind": "addition",
        "strength": 0.5,
        "unit": "median token norm",
        "median_norm": edit.median_norm_,
    }
    assert (about["fear"]["kind"], about["fear"]["unit"]) == ("ablation", "share")


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"a": AffineEdit().fit(X, Y)}, r"edits\['a'\] is more than vectors: AffineEdit"),
        ({"a": GATED}, "Addition has a gate"),
        (make_pipeline(TokenScaler(), Ablation()).fit(X, Y), "about the mean of a scaler"),
        ({}, "edits must be"),
        ({1: GATED}, "edits must be"),
        ({"a": 3}, r"edits\['a'\] must be a fitted edit, got 3"),
        (None, r"edits\['edit'\] must be a fitted edit, got None"),
    ],
)
def test_what_is_more_than_vectors_is_refused(edits, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_vectors(edits, tmp_path / "x")
    assert not list(tmp_path.iterdir())
