"""Copies of a sample with parts taken away."""

import numpy as np
import PIL.Image
import pytest
import torch
import transformers

from skact import TransformerEmbedder
from skact.localization._copies import perturbation
from skact.localization._inputs import ModelInputs
from skact.localization._unit import Unit
from skact.models import BlockInputs
from tests import tiny_models

TEXT = "the happy cat sat\n not  angry"


def one(embedder, sample, *, baseline="auto", unit="token", **sizes):
    unit = Unit(unit, **sizes)
    return perturbation(ModelInputs(embedder, [sample]), 0, baseline=baseline, unit=unit)


def mean_state(state, left):
    """Sum and number of the tokens that are left."""
    total = torch.where(left[:, :, None], state, 0).sum(1)
    return torch.cat([total, left.sum(1, keepdim=True)], dim=1)


def test_deleting_words_is_reading_the_shorter_text():
    embedder = TransformerEmbedder(tiny_models.text_pair("bert"), layer=1, batch_size=2)
    text = " ".join(["the", "cat", "sat", "not", "happy"])
    perturbed = one(embedder, text, baseline="delete", unit="word")
    masks = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [1, 0, 0, 0, 0]], bool)
    found = perturbed.run(masks, mean_state)
    for mask, values in zip(masks, found, strict=True):
        words = [w for w, kept in zip(text.split(), mask, strict=True) if kept]
        shorter = embedder.transform([" ".join(words)])[0]
        assert values[-1] == len(shorter)
        np.testing.assert_allclose(values[:-1], shorter.sum(axis=0), atol=1e-4)


def test_words_are_runs_without_white_space():
    embedder = TransformerEmbedder(tiny_models.text_pair("gpt2"), layer=0)
    perturbed = one(embedder, TEXT, unit="word")
    tokens = embedder.tokens_of([TEXT])[0]
    words = [""] * perturbed.n_players
    for token, player in zip(tokens, perturbed.players, strict=True):
        words[player] += token.text
    assert [word.strip() for word in words] == TEXT.split()


def test_padding_hides_tokens_and_keeps_the_places_of_the_others():
    embedder = TransformerEmbedder(tiny_models.text_pair("bert"), layer=0)
    perturbed = one(embedder, "the cat sat", baseline="pad")
    mask = np.array([[True, False, True]])
    inputs, kept = perturbed.copies.batch(mask)
    assert inputs["attention_mask"].tolist() == [[1, 1, 0, 1, 1]]
    assert kept.tolist() == [[False, True, False, True, False]]
    # Whatever stands behind the padding is not seen.
    before = perturbed.run(mask, mean_state)
    perturbed.copies.ids[2] = 5
    np.testing.assert_array_equal(perturbed.run(mask, mean_state), before)
    deleted = one(embedder, "the cat sat", baseline="delete").run(mask, mean_state)
    assert np.abs(deleted - before).max() > 1e-3


def test_mask_token():
    model, _ = tiny_models.text_pair("bert")
    tokenizer = tiny_models.wordpiece_tokenizer(mask_token="[UNK]")
    embedder = TransformerEmbedder((model, tokenizer), layer=0)
    for baseline in ("auto", "mask"):
        copies = one(embedder, "the cat sat", baseline=baseline).copies
        inputs, kept = copies.batch(np.array([[False, True, False]]))
        unknown = tokenizer.unk_token_id
        assert (inputs["input_ids"][0] == unknown).tolist() == [False, True, False, True, False]
        assert inputs["attention_mask"].all()
        assert kept.tolist() == [[False, True, True, True, False]]


@pytest.mark.parametrize("baseline", ["pad", "delete"])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_nothing_left(kind, baseline):
    embedder = TransformerEmbedder(tiny_models.text_pair(kind), layer=1)
    perturbed = one(embedder, "the cat", baseline=baseline)
    masks = np.zeros((2, perturbed.n_players), bool)
    masks[0] = True
    found = perturbed.run(masks, mean_state)
    assert (found[1] == 0).all()
    assert (found[0] != 0).all()


@pytest.mark.parametrize(
    ("kind", "baseline", "match"),
    [
        ("bert", "mask", 'has no mask token; use "pad" or "delete"'),
        ("bert", "blur", "baseline='blur' is not for texts; use one of"),
        ("vit", "delete", "baseline='delete' is not for images; use one of"),
    ],
)
def test_baselines_that_a_model_cannot_do(kind, baseline, match):
    image = kind == "vit"
    pair = tiny_models.image_pair(kind) if image else tiny_models.text_pair(kind)
    sample = np.zeros((28, 28, 3), np.uint8) if image else "the cat"
    with pytest.raises(ValueError, match=match):
        one(TransformerEmbedder(pair), sample, baseline=baseline)


@pytest.mark.parametrize("baseline", ["mean", "black", "blur"])
def test_patches_are_painted_over(baseline, rng):
    embedder = TransformerEmbedder(tiny_models.image_pair("vit"), layer=1)
    image = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
    perturbed = one(embedder, image, baseline=baseline)
    mask = rng.random((1, 16)) < 0.5
    inputs, kept = perturbed.copies.batch(mask)
    whole, _ = perturbed.copies.batch(np.ones((1, 16), bool))
    seen = np.kron(mask.reshape(4, 4), np.ones((7, 7))).astype(bool)
    before, after = whole["pixel_values"][0].numpy(), inputs["pixel_values"][0].numpy()
    np.testing.assert_array_equal(after[:, seen], before[:, seen])
    painted = after[:, ~seen]
    if baseline == "mean":
        expected = np.repeat(before.mean(axis=(1, 2))[:, None], painted.shape[1], axis=1)
        np.testing.assert_allclose(painted, expected, atol=1e-5)
    elif baseline == "black":
        assert (painted == -1).all()
    else:
        assert painted.std() < 0.2 * before.std()
    assert kept.sum() == 16
    # The untouched copy is what the embedder sees.
    found = perturbed.run(np.ones((1, 16), bool), mean_state)[0]
    np.testing.assert_allclose(found[:-1], embedder.transform([image])[0].sum(axis=0), atol=1e-4)


def test_a_grid_that_does_not_fill_the_image():
    pair = tiny_models.image_pair("dinov2")
    image = PIL.Image.new("RGB", (60, 32), "red")
    perturbed = one(TransformerEmbedder(pair, layer=0, crop="processor"), image)
    inputs, kept = perturbed.copies.batch(np.zeros((2, perturbed.n_players), bool))
    assert inputs["pixel_values"].shape[0] == len(kept) == 2
    assert kept.sum(axis=1).tolist() == [perturbed.n_players] * 2


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), RuntimeError("something else")])
def test_batches_shrink_when_memory_does_not_suffice(error):
    embedder = TransformerEmbedder(tiny_models.text_pair("bert"), layer=0, batch_size=8)
    perturbed = one(embedder, "the cat sat")
    masks = np.random.default_rng(0).random((8, 3)) < 0.7
    sizes = []

    def reduce(state, left):
        sizes.append(len(state))
        if len(state) > 2:
            raise error
        return mean_state(state, left)

    if "else" in str(error):
        with pytest.raises(RuntimeError, match="something else"):
            perturbed.run(masks, reduce)
        return
    found = perturbed.run(masks, reduce)
    assert sizes == [8, 4, 2, 2, 2, 2]
    np.testing.assert_allclose(found, perturbed.run(masks, mean_state), atol=1e-5)
    with pytest.raises(torch.OutOfMemoryError):
        perturbed.run(masks[:1], lambda state, left: (_ for _ in ()).throw(error))


@pytest.mark.parametrize("kind", tiny_models.IMAGE)
def test_the_untouched_copy_of_a_whole_image_is_what_the_embedder_sees(kind, rng):
    embedder = TransformerEmbedder(tiny_models.image_pair(kind), layer=2, crop="whole")
    image = rng.integers(0, 256, (30, 90, 3), dtype=np.uint8)
    perturbed = one(embedder, image)
    tokens = embedder.transform([image])
    assert perturbed.n_players == tokens.n_tokens
    found = perturbed.run(np.ones((1, perturbed.n_players), bool), mean_state)[0]
    np.testing.assert_allclose(found[:-1], tokens.sum()[0], atol=1e-4, rtol=1e-4)


def test_patches_of_padding_are_no_players(rng):
    model, _ = tiny_models.image_pair("vit")
    processor = transformers.BitImageProcessorPil(
        size={"max_height": 28, "max_width": 28},
        do_center_crop=False,
        do_pad=True,
        pad_size={"height": 28, "width": 28},
    )
    embedder = TransformerEmbedder((model, processor), layer=2)
    wide = rng.integers(0, 256, (14, 28, 3), dtype=np.uint8)  # two of four rows of patches
    perturbed = one(embedder, wide)
    assert perturbed.n_players == 8
    whole = perturbed.run(np.ones((1, 8), bool), mean_state)[0]
    np.testing.assert_allclose(whole[:-1], embedder.transform([wide])[0].sum(axis=0), atol=1e-4)
    mask = np.arange(8)[None] != 5  # second row, second column
    before = perturbed.copies.pixels[0]
    after = perturbed.copies.batch(mask)[0]["pixel_values"][0]
    changed = np.argwhere((before != after).any(dim=0).numpy())
    assert changed.min(axis=0).tolist() == [7, 7]
    assert changed.max(axis=0).tolist() == [13, 13]


@pytest.mark.parametrize(
    "kind", ["bert", "gpt2", "llama", "gemma2", "qwen3", "vit", "dinov2", "clip"]
)
def test_block_inputs_give_the_state_and_its_gradient(kind, rng):
    image = kind in tiny_models.IMAGE
    pair = tiny_models.image_pair(kind) if image else tiny_models.text_pair(kind)
    sample = rng.integers(0, 256, (20, 36, 3), dtype=np.uint8) if image else "the cat sat"
    embedder = TransformerEmbedder(pair, layer=2, crop="whole")
    expected = embedder.transform([sample])[0]
    model_inputs = ModelInputs(embedder, [sample])
    read, kept = model_inputs.whole(0)
    inputs = BlockInputs(model_inputs.loaded, model_inputs.block, read, np.flatnonzero(kept))
    with inputs.differentiable() as state, inputs.biases() as biases:
        x = inputs.values[None].double().float().requires_grad_()
        found = state(x)
        np.testing.assert_allclose(found[0].detach(), expected, atol=1e-4)
        (gradient,) = torch.autograd.grad(found.square().sum(), x)
        # A small step changes the function as the gradient says.
        step = 1e-3 * torch.from_numpy(rng.normal(size=x.shape)).float()
        with torch.no_grad():
            change = (state(x + step).square() - state(x - step).square()).sum() / 2
        np.testing.assert_allclose(change, (gradient * step).sum(), rtol=0.05, atol=1e-3)
        assert bool(biases) == (kind in ("bert", "gpt2", "vit", "dinov2", "clip"))
