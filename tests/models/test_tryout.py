"""What a model does is tried out: batches, passes, patches; what cannot be trusted is refused."""

import copy

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from skact.embedding import TransformerEmbedder
from skact.models import load, prepare
from tests import tiny_models
from tests.tiny_models import IMAGE_SIZE, N_BLOCKS, PATCH, WIDTH


def own_bert():
    model, tokenizer = tiny_models.text_pair("bert")
    return copy.deepcopy(model), tokenizer


def own_vit(kind="vit"):
    model, processor = tiny_models.image_pair(kind)
    return copy.deepcopy(model), processor


def changed_output(module, change):
    module.register_forward_hook(lambda m, args, output: change(output))


def blind_to_padding():
    """BERT that attends to padding."""
    model, tokenizer = own_bert()

    def drop(module, args, kwargs):
        return args, {**kwargs, "attention_mask": None}

    model.register_forward_pre_hook(drop, with_kwargs=True)
    return model, tokenizer


def mixing():
    """BERT whose embeddings are relative to the batch."""
    model, tokenizer = own_bert()
    changed_output(model.embeddings, lambda x: x - 0.5 * x.mean(dim=0, keepdim=True))
    return model, tokenizer


def fixed_batch():
    """BERT that runs single samples only."""
    model, tokenizer = own_bert()

    def one(x):
        assert len(x) == 1
        return x

    changed_output(model.embeddings, one)
    return model, tokenizer


SHARING = {"any": own_bert, "equal": blind_to_padding, "none": mixing, "none ": fixed_batch}


@pytest.mark.parametrize("kind", SHARING)
def test_only_texts_that_may_share_a_batch_do(kind, texts):
    pair = SHARING[kind]()
    loaded = load(pair)
    assert loaded.sharing == kind.strip()
    texts = [*texts, "y", "The dog sat."]
    inputs = prepare(loaded, texts)
    groups = {"any": [0] * 7, "equal": inputs.lengths.tolist(), "none": list(range(7))}
    assert inputs.groups.tolist() == groups[kind.strip()]
    together = TransformerEmbedder(pair, batch_size=7).transform(texts)
    for i, text in enumerate(texts):
        alone = TransformerEmbedder(pair).transform([text])
        np.testing.assert_allclose(together[i], alone[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", SHARING)
@pytest.mark.parametrize("baseline", ["pad", "delete"])
def test_copies_share_a_batch_no_sooner(baseline, kind):
    from skact.localization._copies import perturbation
    from skact.localization._inputs import ModelInputs
    from skact.localization._unit import Unit

    pair = SHARING[kind]()
    sizes = {}
    for batch_size in (1, 8):
        embedder = TransformerEmbedder(pair, layer=2, batch_size=batch_size)
        copies = perturbation(
            ModelInputs(embedder, ["The cat sat"]), 0, baseline=baseline, unit=Unit()
        )
        masks = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 1]], bool)
        sizes[batch_size] = copies.run(masks, lambda x, left: (x * left[:, :, None]).sum(1))
    np.testing.assert_allclose(sizes[1], sizes[8], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", [*tiny_models.TEXT, *tiny_models.FAMILIES])
def test_known_families_may_be_padded(kind):
    pair = (tiny_models.text_pair if kind in tiny_models.TEXT else tiny_models.family_pair)(kind)
    assert load(pair).sharing == "any"


def test_images_that_change_with_their_batch_are_run_one_by_one(images):
    pair = model, _ = own_vit()
    changed_output(model.embeddings, lambda x: x - 0.5 * x.mean(dim=0, keepdim=True))
    together = TransformerEmbedder(pair).transform(images)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(together[i], TransformerEmbedder(pair).transform([image])[0])
    assert load(pair).sharing == "none"
    assert load(own_vit()).sharing == "any"


@pytest.mark.parametrize("make", [own_bert, own_vit])
def test_a_model_that_is_random_in_evaluation_is_refused(make):
    model, processor = make()
    changed_output(model.embeddings, lambda x: x + 0.1 * torch.randn_like(x))
    with pytest.raises(ValueError, match="other numbers in a second pass over the same input"):
        load((model, processor))


def test_a_model_that_changes_with_the_question_is_refused():
    model, tokenizer = own_bert()

    def shift(module, args, kwargs):
        module.embeddings.asked = kwargs.get("output_hidden_states", False)

    model.register_forward_pre_hook(shift, with_kwargs=True)
    changed_output(model.embeddings, lambda x: x + float(model.embeddings.asked))
    model.embeddings.asked = False
    with pytest.raises(ValueError, match="when it is asked for its hidden states"):
        load((model, tokenizer))


N_PATCHES = (IMAGE_SIZE // PATCH) ** 2
ORDERS = {
    "cls first": (list(range(17)), 1, 0),
    "cls last": ([*range(1, 17), 0], 0, 1),
    "two before": ([0, 0, *range(1, 17)], 2, 0),
    "one before, two behind": ([0, *range(1, 17), 0, 0], 1, 2),
    "patches alone": (list(range(1, 17)), 0, 0),
}


@pytest.mark.parametrize("order", ORDERS)
def test_positions_around_the_patches_are_found(order, images):
    positions, prefix, suffix = ORDERS[order]
    plain = TransformerEmbedder(own_vit(), layer=0, special_tokens=True)
    pair = model, _ = own_vit()
    changed_output(model.embeddings, lambda x: x[:, positions])
    loaded = load(pair)
    assert (loaded.prefix, loaded.suffix) == (prefix, suffix)
    found = TransformerEmbedder(pair, layer=0)
    X, whole = found.transform(images), found.__class__(pair, layer=0, special_tokens=True)
    assert X.lengths.tolist() == [N_PATCHES] * 5
    kept = whole.transform(images)
    assert kept.lengths.tolist() == [len(positions)] * 5
    names = whole.tokens_of(images)[0]
    assert [p.row for p in names].count(-1) == prefix + suffix
    assert names[prefix : prefix + N_PATCHES] == found.tokens_of(images)[0]
    for i in range(5):
        np.testing.assert_array_equal(X[i], kept[i][prefix : prefix + N_PATCHES])
    if order == "cls last":
        # Nothing else is different: attention does not care for the order.
        for one, other in zip(kept, plain.transform(images), strict=True):
            np.testing.assert_allclose(one, other[positions], atol=1e-4, rtol=1e-4)
    masks = [np.ones((*image.shape[:2], 2), bool) for image in images]
    labels = whole.align_masks(images, masks)
    expected = [0 <= k - prefix < N_PATCHES for k in range(len(positions))]
    assert labels.flat()[:, 1].tolist() == expected * 5
    assert found.align_masks(images, masks).flat().all()


SHUFFLED = {
    "columns first": [0, *(1 + np.arange(16).reshape(4, 4).T.ravel())],
    "backwards": [0, *range(16, 0, -1)],
    "shuffled": [0, *(1 + np.random.default_rng(0).permutation(16))],
    "cls inside": [*range(1, 9), 0, *range(9, 17)],
    "one missing": list(range(16)),
    "one twice": [0, 1, 1, *range(3, 17)],
}


@pytest.mark.parametrize("order", SHUFFLED)
def test_patches_out_of_order_are_refused(order):
    pair = model, _ = own_vit()
    positions = [int(k) for k in SHUFFLED[order]]
    changed_output(model.embeddings, lambda x: x[:, positions])
    with pytest.raises(ValueError, match="no position for each patch in order of rows"):
        load(pair)


def test_patches_that_change_nothing_are_refused():
    pair = model, _ = own_vit()
    changed_output(model.embeddings, lambda x: x * 0 + torch.arange(17.0)[:, None])
    with pytest.raises(ValueError, match="no position for each patch"):
        load(pair)


def test_a_patch_behind_others_is_painted_over(images):
    """Positions behind the patches move no patch: a map is the one of the plain model."""
    from skact.localization._copies import perturbation
    from skact.localization._inputs import ModelInputs
    from skact.localization._unit import Unit

    states = []
    for positions in (list(range(17)), ORDERS["cls last"][0]):
        pair = model, _ = own_vit()
        changed_output(model.embeddings, lambda x, positions=positions: x[:, positions])
        inputs = ModelInputs(TransformerEmbedder(pair, layer=1), images)
        copies = perturbation(inputs, 2, baseline="black", unit=Unit())
        masks = np.random.default_rng(1).random((3, copies.n_players)) < 0.5
        states.append(copies.run(masks, lambda x, left: x[left].reshape(len(x), -1)))
    np.testing.assert_allclose(states[0], states[1], atol=1e-3, rtol=1e-3)


class NeedsMore(nn.Module):
    def __init__(self):
        super().__init__()
        self.config, self.weight = own_vit()[0].config, nn.Parameter(torch.ones(2))

    def forward(self, pixel_values, image_grid_thw, input_ids):
        raise AssertionError


def broken(make, change):
    def build():
        model, processor = make()
        change(model)
        return model, processor

    return build


def no_float(model):
    for name, parameter in list(model.named_parameters()):
        owner, _, last = name.rpartition(".")
        delattr(model.get_submodule(owner), last)
        model.get_submodule(owner).register_buffer(last, parameter.detach().to(torch.int8))


def integers(model):
    linear = model.encoder.layer[0].output.dense
    values = linear.weight.detach().mul(100).to(torch.int8)
    del linear.weight
    linear.register_buffer("qweight", values)


def packed(model):
    class Linear(nn.Module):
        __module__ = "torch.ao.nn.quantized.dynamic.modules.linear"

    model.encoder.layer[1].output.dense = Linear()


def one_channel():
    config = transformers.ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=N_BLOCKS, num_attention_heads=4, intermediate_size=48,
        image_size=28, patch_size=7, num_channels=1,
    )  # fmt: skip
    return transformers.ViTModel(config).eval(), own_vit()[1]


def vilt():
    config = transformers.ViltConfig(
        hidden_size=WIDTH, num_hidden_layers=N_BLOCKS, num_attention_heads=4, intermediate_size=48,
        image_size=28, patch_size=7,
    )  # fmt: skip
    return transformers.ViltModel(config).eval(), own_vit()[1]


def fill(name, value):
    def change(model):
        with torch.no_grad():
            model.get_submodule(name).weight.fill_(value)

    return change


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (broken(own_bert, no_float), "no weights in floating point"),
        (broken(own_bert, integers), r"is quantised \(.*qweight is torch.int8\).*without quant"),
        (broken(own_bert, packed), r"is quantised \(.*dense is a Linear\)"),
        (broken(own_bert, fill("encoder.layer.2.output.dense", torch.nan)), "after block 2 in"),
        (broken(own_bert, fill("encoder.layer.1.output.LayerNorm", torch.inf)), "after block 1 in"),
        (broken(own_vit, fill("layers.0.layernorm_before", torch.nan)), "NaN or infinite .* 0"),
        (one_channel, r"reads images of 1 channel\(s\)"),
        (lambda: (NeedsMore(), own_vit()[1]), "alone: it needs image_grid_thw and input_ids as"),
        (vilt, "ViltModel cannot be run on images alone: "),
    ],
)
def test_what_cannot_be_trusted_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        load(make())


def test_a_token_without_embedding_is_named(texts):
    model, _ = own_bert()
    tokenizer = tiny_models.wordpiece_tokenizer()
    tokenizer.add_tokens(["zebra"])
    embedder = TransformerEmbedder((model, tokenizer))
    assert embedder.transform(texts).lengths.min() > 0
    message = rf"sample 1 has the token 'zebra', number {len(tokenizer) - 1}, but the model"
    with pytest.raises(ValueError, match=message):
        embedder.transform(["the cat", "a zebra sat"])


def test_a_pad_token_without_embedding_pads_nothing_wrong(texts):
    model, plain = own_bert()
    tokenizer = tiny_models.wordpiece_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[NEW]"})
    assert load((model, tokenizer)).pad_id == 0
    found = TransformerEmbedder((model, tokenizer)).transform(texts)
    expected = TransformerEmbedder((model, plain)).transform(texts)
    np.testing.assert_array_equal(found.values, expected.values)


def test_memory_that_does_not_suffice_is_not_taken_for_a_fault():
    model, tokenizer = own_bert()

    def fail(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    changed_output(model.embeddings, fail)
    with pytest.raises(torch.OutOfMemoryError):
        load((model, tokenizer))


def test_a_large_model_is_tried_on_a_small_image():
    model, processor = own_vit("dinov2")
    seen = []
    model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs["pixel_values"].shape[2:]), with_kwargs=True
    )
    load((model, processor))
    assert set(seen) == {(3 * PATCH, 4 * PATCH)}
    model, processor = own_vit()
    model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs["pixel_values"].shape[2:]), with_kwargs=True
    )
    load((model, processor))  # reads images of its own size alone
    assert (IMAGE_SIZE, IMAGE_SIZE) in seen
