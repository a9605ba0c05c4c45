"""A live model is edited as its tokens would be, with and without a cache, and left as it was."""

import copy
import warnings

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    Ablation,
    Addition,
    AffineEdit,
    AutoencoderTraining,
    LinearSeparator,
    MaxToken,
    MinimalNormEdit,
    Monitor,
    NormClip,
    Source,
    SparseAutoencoder,
    TokenArray,
    TokenScaler,
    TransformerEmbedder,
    UnitEdit,
    steer,
)
from tests import tiny_models

TEXTS = ["the cat sat", "happy cat", "the angry thing", "not happy at all", "the sun", "cats sing"]
Y = np.array([0, 1, 0, 1, 0, 0])
PROMPTS = ["the cat", "happy, not angry"]


@pytest.fixture(scope="module")
def pair():
    return tiny_models.text_pair("llama", head=True)


@pytest.fixture(scope="module")
def embedder(pair):
    return TransformerEmbedder(pair, layer=[0, 1, 2, 3], sink=None)


@pytest.fixture(scope="module")
def layers(embedder):
    return embedder.transform(TEXTS)


@pytest.fixture(scope="module")
def addition(layers):
    return Addition(strength=0.7).fit(layers.layer(1), Y)


def padded(tokenizer, prompts, side="left"):
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    width = max(map(len, ids))
    fill = [[0] * (width - len(i)) for i in ids]
    rows = [f + i if side == "left" else i + f for f, i in zip(fill, ids, strict=True)]
    mask = [[0] * len(f) + [1] * len(i) for f, i in zip(fill, ids, strict=True)]
    mask = mask if side == "left" else [m[::-1] for m in mask]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}


def generate(pair, prompts, **options):
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": 10**6}
    settings |= {"output_logits": True, "return_dict_in_generate": True}
    return pair[0].generate(**padded(pair[1], prompts), **(settings | options))


def logits_of(generated):
    return torch.stack(generated.logits, 1).numpy()


def n_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("kind", tiny_models.TEXT)
def test_the_stream_after_a_block_is_what_transform_makes_of_it(kind):
    pair = tiny_models.text_pair(kind)
    embedder = TransformerEmbedder(pair, layer=[0, 1, 2], sink=None)
    plain = embedder.transform(TEXTS)
    for edit in (Addition(), Ablation(), MinimalNormEdit(), AffineEdit(strength=2)):
        fitted = edit.fit(plain.layer(1), Y)
        with steer(pair, fitted):
            live = embedder.transform(TEXTS)
        expected = fitted.transform(plain.layer(1)).flat()
        np.testing.assert_allclose(live.layer(1).flat(), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(live.layer(0).flat(), plain.layer(0).flat())
        assert np.abs(live.layer(2).flat() - plain.layer(2).flat()).max() > 1e-3
    again = embedder.transform(TEXTS)
    np.testing.assert_array_equal(again.layer(2).flat(), plain.layer(2).flat())


def test_images_are_edited_by_their_pair():
    pair = tiny_models.image_pair("vit")
    images = np.random.default_rng(0).integers(0, 255, (6, 28, 28, 3)).astype(np.uint8)
    embedder = TransformerEmbedder(pair, layer=1, crop="processor")
    plain = embedder.transform(images)
    edit = Addition().fit(plain, Y)
    with steer(embedder, edit):
        live = embedder.transform(images)
    np.testing.assert_allclose(live.flat(), edit.transform(plain).flat(), atol=1e-4)
    with pytest.raises(ValueError, match="reads images; pass the pair"):
        steer(pair[0], edit)


def test_the_pipeline_of_a_scaler_acts_rightly_on_raw_tokens(pair, layers, embedder):
    line = make_pipeline(TokenScaler(), MinimalNormEdit()).fit(layers.layer(2), Y)
    with steer(pair[0], line):
        live = embedder.transform(TEXTS).layer(2)
    expected = line[0].inverse_transform(line.transform(layers.layer(2)))
    np.testing.assert_allclose(live.flat(), expected.flat(), rtol=1e-4, atol=1e-4)


def position_kinds(pair):
    width = padded(pair[1], PROMPTS)["input_ids"].shape[1]
    mask = np.zeros((2, width), bool)
    mask[0, -2:] = mask[1, :4] = True
    return ["all", "last", "generated", mask]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "qwen3"])
def test_a_cache_changes_nothing(kind, which):
    pair = tiny_models.text_pair(kind, head=True)
    tokens = TransformerEmbedder(pair, layer=1, sink=None).transform(TEXTS)
    edits = [AffineEdit(strength=2).fit(tokens, Y), Addition().fit(tokens, Y)]
    positions = position_kinds(pair)[which]
    plain = logits_of(generate(pair, PROMPTS))
    with steer(pair[0], edits, [1, 1], positions=positions):
        cached, whole = (generate(pair, PROMPTS, use_cache=use) for use in (True, False))
    assert torch.equal(cached.sequences, whole.sequences)
    np.testing.assert_allclose(logits_of(cached), logits_of(whole), atol=1e-4)
    first = np.abs(logits_of(cached)[:, 0] - plain[:, 0]).max()
    assert (first < 1e-6) == (which == 2)  # the first new token comes from the prompt alone
    assert np.abs(logits_of(cached)[:, 1:] - plain[:, 1:]).max() > 1e-3


@pytest.mark.parametrize("which", range(4))
def test_padding_shifts_no_position(pair, addition, which):
    positions = position_kinds(pair)[which]
    with steer(pair[0], addition, positions=positions):
        together = generate(pair, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        n = len(pair[1](prompt)["input_ids"])
        own = positions if isinstance(positions, str) else positions[row : row + 1, -n:]
        with steer(pair[0], addition, positions=own):
            alone = generate(pair, [prompt])
        np.testing.assert_allclose(logits_of(together)[row], logits_of(alone)[0], atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_position_of_each_row_is_the_last_that_is_no_padding(pair, addition, side):
    model, tokenizer = pair
    inputs = padded(tokenizer, PROMPTS, side)
    seen = {}
    handle = model.model.layers[2].register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))
    try:
        with torch.inference_mode():
            model(**inputs)
            plain = seen["x"]
            with steer(model, addition, positions="last"):
                model(**inputs)
    finally:
        handle.remove()
    moved = (seen["x"] - plain).abs().amax(dim=-1) > 1e-6
    real = inputs["attention_mask"].bool()
    last = [int(torch.nonzero(row)[-1]) for row in real]
    assert moved.nonzero().tolist() == [[0, last[0]], [1, last[1]]]
    shift = addition.edit_map().shift
    np.testing.assert_allclose((seen["x"] - plain)[0, last[0]].numpy(), shift, atol=1e-4)


def test_a_prefix_and_the_rest_are_the_whole(pair, addition):
    ids = torch.tensor([pair[1]("the cat sat, not happy")["input_ids"]])
    with torch.inference_mode(), steer(pair[0], addition):
        whole = pair[0](ids).logits
        first = pair[0](ids[:, :6], use_cache=True)
        rest = pair[0](ids[:, 6:], past_key_values=first.past_key_values).logits
    parts = torch.cat([first.logits, rest], 1)
    np.testing.assert_allclose(parts.numpy(), whole.numpy(), atol=1e-4)
    with torch.inference_mode(), steer(pair[0], addition, positions="generated"):
        first = pair[0](ids[:, :6], use_cache=True)
        rest = pair[0](ids[:, 6:], past_key_values=first.past_key_values).logits
    with torch.inference_mode():
        plain = pair[0](ids).logits
    np.testing.assert_allclose(first.logits.numpy(), plain[:, :6].numpy(), atol=1e-5)
    assert np.abs((rest - plain[:, 6:]).numpy()).max() > 1e-3


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 3}])
def test_each_prompt_has_a_vector_of_its_own_also_with_several_sequences(pair, addition, options):
    with steer(pair[0], addition, strength=[0.0, 0.9]):
        together = generate(pair, PROMPTS, **options).sequences
    n = options.get("num_return_sequences", 1)
    for row, strength in enumerate([0.0, 0.9]):
        with steer(pair[0], addition, strength=strength):
            alone = generate(pair, [PROMPTS[row]], **options).sequences
        assert torch.equal(together[n * row : n * row + n, -5:], alone[:, -5:])
    vectors = np.outer([0.0, 0.9], addition.edit_map(1.0).shift)
    with steer(pair[0], vectors, 1, unit="raw"):
        by_vectors = generate(pair, PROMPTS, **options).sequences
    assert torch.equal(by_vectors, together)


def test_edits_act_in_the_order_of_their_list(pair, layers, embedder):
    add, out = Addition().fit(layers.layer(1), Y), Ablation().fit(layers.layer(1), Y)
    for first, then in ((add, out), (out, add)):
        with steer(pair[0], [first, then]):
            live = embedder.transform(TEXTS).layer(1)
        expected = then.transform(first.transform(layers.layer(1)))
        np.testing.assert_allclose(live.flat(), expected.flat(), atol=1e-4)
        with steer(pair[0], first), steer(pair[0], then):
            nested = generate(pair, PROMPTS, output_logits=True)
        with steer(pair[0], [first, then]):
            listed = generate(pair, PROMPTS)
        np.testing.assert_allclose(logits_of(nested), logits_of(listed), atol=1e-5)


def test_edits_at_several_layers(pair, layers, embedder):
    first, then = (Addition().fit(layers.layer(block), Y) for block in (1, 2))
    with steer(pair[0], first):
        between = embedder.transform(TEXTS).layer(2)
    with steer(pair[0], [then, first]):
        both = embedder.transform(TEXTS)
    expected = then.transform(between.flat())
    np.testing.assert_allclose(both.layer(2).flat(), expected, atol=1e-4)
    out = Ablation(np.eye(32)[3]).fit(layers.layer(1))
    with steer(pair[0], out, "all"):
        everywhere = embedder.transform(TEXTS)
    for block in range(4):
        assert np.abs(everywhere.layer(block).flat()[:, 3]).max() < 1e-5
        assert np.abs(layers.layer(block).flat()[:, 3]).max() > 1e-2


def test_a_gate_lets_only_tokens_through_that_a_detector_marks(pair, layers, embedder):
    tokens = layers.layer(1)
    line = make_pipeline(TokenScaler(), LinearSeparator(), MaxToken(0.5)).fit(tokens, Y)
    edit = Addition(gate=FrozenEstimator(line)).fit(tokens, Y)
    with steer(pair[0], edit):
        live = embedder.transform(TEXTS).layer(1).flat()
    moved = np.abs(live - tokens.flat()).max(axis=1) > 1e-6
    marked = line[:2].transform(tokens).flat()[:, 0] >= line[-1].thresholds_[0]
    assert 0 < moved.sum() < len(moved)
    np.testing.assert_array_equal(moved, marked)


@pytest.mark.filterwarnings("ignore:the autoencoder did not converge")
def test_a_sample_in_which_a_unit_fires_is_edited_as_a_whole(pair, layers, embedder):
    tokens = layers.layer(1)
    training = AutoencoderTraining(max_epochs=3)
    autoencoder = SparseAutoencoder(8, training=training, random_state=0).fit(tokens)
    most = autoencoder.transform(tokens).max()[:, 2]
    autoencoder.encoder_bias_[2] -= np.median(most)
    fires = autoencoder.transform(tokens).flat()[:, 2] > 0
    assert 3 <= fires.sum() < len(fires) / 2
    edit = UnitEdit(FrozenEstimator(autoencoder), column=2, where="samples").fit(tokens)
    with steer(pair[0], edit):
        live = embedder.transform(TEXTS).layer(1)
        with pytest.raises(ValueError, match="lets rows change places; use num_beams=1"):
            generate(pair, PROMPTS, num_beams=2)
        # What has fired in the prompt goes on in the steps.
        generate(pair, PROMPTS)
    np.testing.assert_allclose(live.flat(), edit.transform(tokens).flat(), atol=1e-4)
    moved = TokenArray(np.abs(live.flat() - tokens.flat()), tokens.offsets).max().max(axis=1) > 0
    np.testing.assert_array_equal(moved, most > np.median(most))


def test_the_model_is_as_it_was_also_after_errors(pair, addition):
    model = pair[0]
    before, plain = n_hooks(model), generate(pair, PROMPTS)

    def fail():
        assert n_hooks(model) > before
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), steer(model, addition):
        fail()
    wrong = steer(model, addition, positions=np.ones((2, 3), bool))
    with steer(model, addition), pytest.raises(ValueError, match="mask of 3 positions"), wrong:
        generate(pair, PROMPTS)
    assert n_hooks(model) == before
    assert "generate" not in vars(model)
    assert torch.equal(generate(pair, PROMPTS).sequences, plain.sequences)


def test_a_watched_generation_may_be_steered(pair, layers):
    embedder = TransformerEmbedder(pair, layer=1, sink=None)
    line = make_pipeline(embedder, LinearSeparator(), MaxToken()).fit(TEXTS, Y)
    edit = AffineEdit(strength=9).fit(layers.layer(1), Y)
    with Monitor(line).watch(pair[0]) as plain:
        generate(pair, PROMPTS)
    with steer(pair[0], edit):
        with Monitor(line).watch(pair[0]) as steered:
            generate(pair, PROMPTS)
        changed = logits_of(generate(pair, PROMPTS))
    assert (steered[0].state.decision > plain[0].state.decision).all()
    assert np.abs(changed - logits_of(generate(pair, PROMPTS))).max() > 1e-3


def test_a_store_refuses_a_steered_model_and_a_source_says_it(pair, addition, tmp_path):
    stored = TransformerEmbedder(pair, layer=2, sink=None, store=tmp_path / "store")
    with steer(pair[0], addition):
        with pytest.raises(
            ValueError, match="does not work alone: steering by Addition at block 1 "
        ):
            stored.transform(TEXTS)
        tokens = TransformerEmbedder(pair, layer=2, sink=None).transform(TEXTS)
    assert "with steering by Addition at block 1 (" in tokens.source.convention
    assert stored.transform(TEXTS).source.convention == "residual stream after the block"


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_sites_are_found_on_a_steered_model_as_on_another(kind):
    head = kind != "bert"
    shared, tokenizer = tiny_models.text_pair(kind, head=head)
    expected = skact.head_alignment((shared, tokenizer), np.eye(32)[:2], random_state=0)
    v = 3 * np.linspace(-1, 1, 32)

    def heads(model):
        embedder = TransformerEmbedder((model, tokenizer), layer=2, site="heads", sink=None)
        return embedder.transform(TEXTS).flat()

    with steer((shared, tokenizer), v, 1, unit="raw"):
        steered = heads(shared)  # its sites are known
    assert np.abs(steered - heads(shared)).max() > 1e-3

    def fresh():
        return copy.deepcopy(shared), tokenizer

    pair = fresh()
    with steer(pair, v, 1, unit="raw"):
        np.testing.assert_array_equal(heads(pair[0]), steered)
    pair = fresh()
    trials_only = pytest.warns(UserWarning, match="no pass of the model was seen")
    with trials_only, steer(pair, v, 1, unit="raw"):
        found = skact.head_alignment(pair, np.eye(32)[:2], random_state=0)
    np.testing.assert_array_equal(found.alpha, expected.alpha)
    np.testing.assert_array_equal(found.beta, expected.beta)
    pair = fresh()
    with steer(pair, v, 1, unit="raw"), skact.scale_heads(pair, [(0, 1)], 5):
        both = heads(pair[0])
        with steer(pair, v, 1, unit="raw", site="attention"):
            assert np.abs(heads(pair[0]) - both).max() > 1e-3
    assert np.abs(both - steered).max() > 1e-3
    pair = fresh()
    with skact.scale_heads(pair, [(0, 1)], 5), steer(pair, v, 1, unit="raw"):
        np.testing.assert_array_equal(heads(pair[0]), both)
    np.testing.assert_array_equal(heads(pair[0]), heads(shared))


def test_a_context_may_be_entered_again(pair, addition):
    embedder = TransformerEmbedder(pair, layer=2, sink=None)
    plain = embedder.transform(TEXTS).flat()
    context, found = steer(pair[0], addition), []
    for _ in range(2):
        with context:
            found.append(embedder.transform(TEXTS).flat())
            with context:
                twice = embedder.transform(TEXTS).flat()
        np.testing.assert_array_equal(embedder.transform(TEXTS).flat(), plain)
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0] - plain).max() > 1e-3
    assert np.abs(found[0] - twice).max() > 1e-3
    with pytest.raises(RuntimeError, match="mine"), context:
        raise RuntimeError("mine")
    assert n_hooks(pair[0]) == 0


def test_sources_tell_edits_apart(pair, addition, layers):
    embedder = TransformerEmbedder(pair, layer=2, sink=None)
    one, other = np.eye(32)[:2]
    mask = np.ones((1, 1 + len(embedder.transform(TEXTS[:1]).flat())), bool)

    def source(edit, *at, **options):
        with steer(pair[0], edit, *at, **options):
            return embedder.transform(TEXTS[:1]).source

    twice, half = ({"unit": "raw", "strength": strength} for strength in (2.0, 0.5))
    different = [
        source(one, 1, unit="raw"),
        source(other, 1, unit="raw"),
        source(one, 1, **twice),
        source(one, 0, unit="raw"),
        source(one, "all", unit="raw"),
        source(one, 1, unit="raw", positions="last"),
        source(one, 1, unit="raw", positions=mask),
        source(one, 1, unit="raw", site="mlp"),
        source(addition),
        source(addition, strength=2),
        source([addition, Ablation().fit(layers.layer(1), Y)]),
        source([Ablation().fit(layers.layer(1), Y), addition]),
    ]
    assert len(set(different)) == len(different)
    assert different[0] == source(one, 1, unit="raw") == source(2 * one, 1, **half)
    assert different[8] == source(copy.deepcopy(addition))
    assert different[0].conflict(different[1]) == "convention"


def compiled_pair():
    model, tokenizer = tiny_models.text_pair("gpt2", head=True)
    return copy.deepcopy(model), tokenizer


def compile_outside(model):
    return torch.compile(model, backend="eager")


def compile_inside(model):
    model.compile(backend="eager")
    return model


def compile_forward(model):
    model.transformer.forward = torch.compile(model.transformer.forward, backend="eager")
    return model


def compile_block(model):
    model.transformer.h[1].compile(backend="eager")
    return model


@pytest.mark.parametrize(
    "compiling", [compile_outside, compile_inside, compile_forward, compile_block]
)
def test_a_compiled_model_is_steered_or_refused_never_silent(compiling, monkeypatch):
    torch._dynamo.reset()  # what was compiled too often by then would run eagerly, with its hooks
    model, tokenizer = compiled_pair()
    ids = torch.tensor([tokenizer("the cat")["input_ids"]])
    edit = np.random.default_rng(0).normal(size=32)
    with torch.inference_mode():
        plain = model(ids).logits
        with steer(model, edit, 1, unit="raw"):
            expected = model(ids).logits
        compiled = compiling(model)
        compiled(ids)  # what is compiled now knows of no hook
        context = steer(compiled, edit, 1, unit="raw")
        with monkeypatch.context() as patch:
            patch.delattr(torch.compiler, "set_stance", raising=False)  # as before torch 2.6
            with pytest.raises(RuntimeError, match="was compiled"), context:
                compiled(ids)
        if not hasattr(torch.compiler, "set_stance"):
            return
        with steer(compiled, edit, 1, unit="raw"):
            live = compiled(ids).logits
        after = compiled(ids).logits
    torch._dynamo.reset()
    np.testing.assert_allclose(live.numpy(), expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(after.numpy(), plain.numpy(), atol=1e-4)
    assert np.abs((expected - plain).numpy()).max() > 1e-3


def test_a_pass_past_the_hooks_is_noticed_at_once():
    model, tokenizer = compiled_pair()
    ids = torch.tensor([tokenizer("the cat")["input_ids"]])
    with steer(model, np.ones(32), 1, unit="raw"):
        block = model.transformer.h[1]
        own = type(block).forward.__get__(block)
        model.transformer.h[1].__dict__["_call_impl"] = own  # what a compiler may make of a call
        with pytest.raises(RuntimeError, match="block 1 was run past its hooks"):
            model(ids)
        del model.transformer.h[1].__dict__["_call_impl"]
        model.transformer.__dict__["_call_impl"] = type(model.transformer).forward.__get__(
            model.transformer
        )
        with pytest.raises(RuntimeError, match="the model was run past its hooks"):
            model(ids)


def test_where_nothing_was_edited_it_is_said(pair, addition):
    with (
        pytest.warns(UserWarning, match="no pass of the model was seen"),
        steer(pair[0], addition),
    ):
        pass
    ids = torch.tensor([[5, 6, 7]])
    with (
        pytest.warns(UserWarning, match="edited no token in 1 passes: .*'generated'"),
        steer(pair[0], addition, positions="generated"),
    ):
        pair[0](ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with steer(pair[0], addition):
            pair[0](ids)


OTHER = Source("another model", "another commit", 1)


@pytest.mark.parametrize(
    ("edit", "layer", "options", "message"),
    [
        (np.ones(31), 1, {"unit": "raw"}, r"edit must have 32 features.* shape \(31,\)"),
        (np.ones(32), 1, {}, 'say unit="raw"'),
        (np.full(32, np.nan), 1, {"unit": "raw"}, "edit must be finite"),
        (np.ones(32), None, {"unit": "raw"}, "layer must be given"),
        (np.ones(32), 4, {"unit": "raw"}, "4 blocks"),
        (np.ones(32), [1, 2], {"unit": "raw"}, 'layer must be one block, or "all"'),
        (np.ones(32), [3], {"unit": "raw"}, r"for each edit, got \[3\] for one; a list of layers"),
        ([], 1, {"unit": "raw"}, r"edit must be a fitted edit, .*, or a direction, got \[\]"),
        (None, None, {}, "edit must be a fitted edit, .*, or a direction, got None"),
        (np.zeros(32), 1, {"unit": "raw"}, "edit is a direction of 0, which leads nowhere"),
        ("nested", 1, {}, "edit must be one edit, got 2 in a list"),
        ("addition", 2, {}, "edit was fitted on another block"),
        ("addition", None, {"strength": np.nan}, "strength"),
        ("addition", None, {"strength": [0.5, np.inf]}, "strength must be a finite number"),
        ("addition", None, {"strength": "much"}, "'strength' parameter of steer"),
        ("addition", None, {"unit": "norms"}, "'unit' parameter of steer"),
        ("addition", None, {"positions": "first"}, "positions must be one of"),
        ("addition", None, {"positions": np.ones(3)}, "positions must be one of"),
        ("addition", None, {"positions": np.full((2, 3), 0.5)}, "positions must be one of"),
        ("addition", None, {"positions": np.zeros((2, 3), bool)}, "without a single True"),
        ("ablation", None, {"unit": "raw"}, "is a share of its change"),
        ("ablation", None, {"strength": [1, 2]}, "which Ablation does not take"),
        ("two", [1], {}, "layer must have one entry per edit: got 1 for 2"),
        ("two", None, {"strength": [1, 2, 3]}, "strength must have one entry per edit: got 3"),
        ("other", None, {}, "edit was fitted on another model"),
        ("scaled", None, {}, "edit was fitted on scaled tokens"),
        ("clipped", None, {}, "edit has the step NormClip before it"),
        ("gated", 1, {}, "gate was fitted on another model"),
        ("map", 1, {"strength": 2}, "an EditMap has its own"),
        ("narrow", 1, {}, "edit changes tokens of 2 features, and the model has 32"),
        ("unfitted", 1, {}, "not fitted yet"),
        ("method", 1, {}, "edit must be a fitted edit"),
        ("word", 1, {"unit": "raw"}, "edit must be a fitted edit"),
    ],
)
def test_bad_inputs(pair, layers, addition, edit, layer, options, message):
    tokens = layers.layer(1)
    ablation = Ablation().fit(tokens, Y)

    def marking(source):
        return make_pipeline(LinearSeparator(), MaxToken()).fit(tokens.with_source(source), Y)

    made = {
        "addition": lambda: addition,
        "ablation": lambda: ablation,
        "two": lambda: [addition, ablation],
        "nested": lambda: [addition, [addition, ablation]],
        "other": lambda: Addition().fit(tokens.with_source(OTHER), Y),
        "scaled": lambda: Addition().fit(TokenScaler().fit_transform(tokens), Y),
        "clipped": lambda: make_pipeline(NormClip(), Addition()).fit(tokens, Y),
        "gated": lambda: Addition(gate=marking(OTHER)).fit(tokens.with_source(None), Y),
        "map": lambda: addition.edit_map(),
        "narrow": lambda: Addition([1, 2]).fit(np.ones((2, 2))),
        "unfitted": lambda: Addition(),
        "method": lambda: LinearSeparator().fit(tokens, Y),
        "word": lambda: "up",
    }
    given = made[edit]() if isinstance(edit, str) else edit
    before = n_hooks(pair[0])
    with pytest.raises((ValueError, TypeError), match=message):
        steer(pair[0], given, layer, **options)
    assert n_hooks(pair[0]) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": np.ones((2, 5), bool)}, "mask of 5 positions, and the prompts have"),
        (
            {"strength": [1, 2, 3]},
            "with an entry per sample, has 3 rows, and the pass has 2 prompts",
        ),
    ],
)
def test_what_shows_in_the_first_pass_only(pair, addition, options, message):
    n_before = n_hooks(pair[0])
    with pytest.raises(ValueError, match=message), steer(pair[0], addition, **options):
        generate(pair, PROMPTS)
    assert n_hooks(pair[0]) == n_before


def test_a_mask_of_another_shape_is_refused_in_a_pass_too(pair, addition):
    ids = torch.tensor([pair[1]("the cat sat")["input_ids"]])
    n_positions = ids.shape[1]
    mask = np.ones((1, n_positions + 1), bool)
    message = f"mask of {n_positions + 1} positions, and the pass has {n_positions}, padding"
    with pytest.raises(ValueError, match=message), steer(pair[0], addition, positions=mask):
        pair[0](ids)


@pytest.mark.parametrize("model", [None, 3, "name", torch.nn.Linear(2, 2), (1, 2, 3)])
def test_what_is_no_model(model, addition):
    with pytest.raises((TypeError, ValueError), match="model must be"):
        steer(model, addition)


def test_half_precision_changes_only_what_is_edited(addition, pair):
    model = copy.deepcopy(pair[0]).to(torch.bfloat16)
    ids = torch.tensor([pair[1]("the cat sat")["input_ids"]])
    with torch.inference_mode():
        plain = model(ids).logits
        mask = np.zeros(ids.shape, bool)
        mask[0, -1] = True
        with steer(model, addition.edit_map(), 1, positions=mask):
            live = model(ids).logits
    assert live.dtype == torch.bfloat16
    assert torch.equal(live[:, :-1], plain[:, :-1])
    assert not torch.equal(live[:, -1], plain[:, -1])


def test_steer_is_public():
    assert skact.steer is steer


@pytest.mark.parametrize("site", ["attention", "mlp", "heads"])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "gemma2", "qwen3"])
def test_other_sites_are_edited_where_the_embedder_reads_them(kind, site):
    pair = tiny_models.text_pair(kind, head=kind != "bert")
    n_before = n_hooks(pair[0])  # transformers leaves some where hidden states were asked for
    reader = TransformerEmbedder(pair, layer=[1, 2], sink=None, site=site)
    stream = TransformerEmbedder(pair, layer=[0, 1], sink=None)
    plain, before = reader.transform(TEXTS), stream.transform(TEXTS)
    for edit in (Addition(), Ablation(), AffineEdit(strength=3)):
        fitted = edit.fit(plain.layer(1), Y)
        for model in (pair, pair[0], reader):
            with steer(model, fitted):
                live, after = reader.transform(TEXTS), stream.transform(TEXTS)
            expected = fitted.transform(plain.layer(1)).flat()
            np.testing.assert_allclose(live.layer(1).flat(), expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(after.layer(0).flat(), before.layer(0).flat())
            assert np.abs(after.layer(1).flat() - before.layer(1).flat()).max() > 1e-3
            assert np.abs(live.layer(2).flat() - plain.layer(2).flat()).max() > 1e-4
    assert n_hooks(pair[0]) == n_before


def test_an_edit_of_one_site_is_no_edit_of_another(pair, layers, addition):
    heads = TransformerEmbedder(pair, layer=1, sink=None, site="heads").transform(TEXTS)
    with pytest.raises(ValueError, match="edit was fitted on another site"):
        steer(pair[0], Addition().fit(heads, Y), site="mlp")
    with pytest.raises(ValueError, match="edit was fitted on another site"):
        skact.bake_edit(pair[0], Addition().fit(heads, Y))
    with pytest.raises(ValueError, match="'site' parameter of steer"):
        steer(pair[0], addition, site="stream")
    # What attention adds moves the stream after the block by as much.
    with steer(pair[0], np.ones(32), 3, unit="raw", site="mlp"):
        moved = TransformerEmbedder(pair, layer=3, sink=None).transform(TEXTS).flat()
    np.testing.assert_allclose(moved, layers.layer(3).flat() + 1, atol=1e-5)


@pytest.mark.parametrize("site", ["attention", "mlp", "heads"])
def test_a_cache_changes_nothing_at_other_sites(pair, site):
    tokens = TransformerEmbedder(pair, layer=1, sink=None, site=site).transform(TEXTS)
    edit = AffineEdit(strength=3).fit(tokens, Y)
    plain = logits_of(generate(pair, PROMPTS))
    with steer(pair[0], edit, positions="last"):
        cached, whole = (generate(pair, PROMPTS, use_cache=use) for use in (True, False))
    np.testing.assert_allclose(logits_of(cached), logits_of(whole), atol=1e-4)
    assert np.abs(logits_of(cached) - plain).max() > 1e-4


def test_a_prompt_without_the_token_that_takes_the_sink_is_warned_of_once():
    pair = tiny_models.text_pair("gpt2", head=True)
    sink = pair[1].convert_ids_to_tokens(5)
    behind = TransformerEmbedder(pair, layer=1, sink=sink)
    edit = Addition().fit(behind.transform(TEXTS), Y)
    ids = torch.tensor([[5, 60, 70], [60, 70, 80]])
    with warnings.catch_warnings(record=True) as heard, steer(pair, edit):
        warnings.simplefilter("always")
        pair[0](ids)
        pair[0](ids)
    (one,) = heard
    assert "row 1 " in str(one.message)
    assert "attention sink" in str(one.message)
    fitted_without = Addition().fit(
        TransformerEmbedder(pair, layer=1, sink=None).transform(TEXTS), Y
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with steer(pair, edit):
            pair[0](ids[:1])
            padded = torch.tensor([[9, 5, 60], [5, 60, 70]])
            pair[0](padded, attention_mask=(padded != 9).long())
            behind.transform(TEXTS)
            generated = pair[0].generate(
                ids[:1], max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=10**6
            )
        with steer(pair, fitted_without):
            pair[0](ids)
    assert generated.shape[1] == 6  # passes behind a cache begin with other tokens
