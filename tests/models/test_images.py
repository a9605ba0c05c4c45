"""Images: how they are opened, and what masks say about their tokens."""

import io
import weakref

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from skact.embedding import TransformerEmbedder, embed_to_store
from skact.models._geometry import (
    Patch,
)
from skact.samples import open_image
from tests import tiny_models


def embedder(kind="vit", **params):
    """An embedder that leaves the geometry to the processor."""
    return TransformerEmbedder(tiny_models.image_pair(kind), crop="processor", **params)


def test_padding_is_out_of_an_embedder(images):
    model, _ = tiny_models.image_pair("vit")
    processor = transformers.BitImageProcessorPil(
        size={"max_height": 28, "max_width": 28},
        do_center_crop=False,
        do_pad=True,
        pad_size={"height": 28, "width": 28},
    )
    found = TransformerEmbedder((model, processor))
    X = found.transform(images)
    # 40 x 60, 28 x 28, 70 x 35, 40 x 60 and 31 x 90 pixels
    assert X.lengths.tolist() == [4 * 3, 4 * 4, 4 * 2, 4 * 3, 4 * 2]
    assert [len(row) for row in found.tokens_of(images)] == X.lengths.tolist()
    masks = [np.ones(image.shape[:2], bool) for image in images]
    labels = found.align_masks(images, masks)
    assert labels.lengths.tolist() == X.lengths.tolist()
    assert labels.flat().all()
    with torch.no_grad():
        pixels = processor(images, return_tensors="pt")
        states = model(**pixels, output_hidden_states=True).hidden_states[4][:, 1:]
    for tokens, row, state in zip(X, found.tokens_of(images), states, strict=True):
        own = state[[4 * p.row + p.column for p in row]]
        np.testing.assert_allclose(tokens, own, atol=1e-5, rtol=1e-4)
    assert X.shapes.tolist() == [[3, 4], [4, 4], [4, 2], [3, 4], [2, 4]]
    pooled = TransformerEmbedder((model, processor), pooling="mean").transform(images)
    np.testing.assert_allclose(pooled, X.mean(), atol=1e-5, rtol=1e-4)


def test_patches_of_an_embedder(images):
    for kind in tiny_models.IMAGE:
        found = embedder(kind)
        patches = found.tokens_of(images)
        assert [len(row) for row in patches] == found.transform(images).lengths.tolist()
    kept = embedder("dinov2", special_tokens=True).tokens_of(images)[2]
    assert kept[0] == Patch(-1, -1, (0, 0, 0, 0))
    assert len(kept) == 1 + 8 * 4
    assert [p[:2] for p in kept[1:6]] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]


@pytest.mark.parametrize("kind", tiny_models.IMAGE)
def test_single_pixels_are_never_lost_unless_cropped(kind):
    rng = np.random.default_rng(1)
    image = np.zeros((300, 417, 3), np.uint8)
    pixels = rng.integers(0, (300, 417), (50, 2))
    masks = np.zeros((300, 417, 50), bool)
    masks[pixels[:, 0], pixels[:, 1], np.arange(50)] = True
    labels = embedder(kind).align_masks([image], [masks])[0]
    patches = embedder(kind).tokens_of([image])[0]
    for concept, (y, x) in enumerate(pixels):
        hit = [p.box for p, label in zip(patches, labels[:, concept], strict=True) if label]
        for left, top, right, bottom in hit:
            assert left < x + 1
            assert x < right
            assert top < y + 1
            assert y < bottom
        if 60 <= x < 355:
            assert hit


@pytest.mark.parametrize("kind", tiny_models.IMAGE)
def test_a_planted_square_is_where_the_model_sees_it(kind):
    image = np.zeros((80, 120, 3), np.uint8)
    mask = np.zeros((80, 120), bool)
    mask[22:38, 62:78] = True
    image[mask] = 255
    found = embedder(kind)
    labels = found.align_masks([image], [mask], ["square"])
    assert labels.feature_names == ("square",)
    processor = found.model[1]
    pixels = processor(images=[image], do_normalize=False, return_tensors="np")["pixel_values"][
        0, 0
    ]
    rows, columns = (n // tiny_models.PATCH for n in pixels.shape)
    light = pixels[: rows * 7, : columns * 7].reshape(rows, 7, columns, 7).max((1, 3)).ravel()
    assert (light[~labels.flat()[:, 0]] < 0.3).all()
    assert (light[labels.flat()[:, 0]] > 0.3).all()
    assert 0 < labels.flat().sum() < labels.n_tokens / 3


def test_masks_go_through_the_crop_of_their_image():
    mask = np.zeros((40, 120), bool)
    mask[:, :30] = True  # cropped away by CLIP, kept by a squash
    image = np.zeros((40, 120, 3), np.uint8)
    assert not embedder("clip").align_masks([image], [mask]).flat().any()
    assert (
        embedder("vit").align_masks([image], [mask]).flat().reshape(4, 4).tolist()
        == [[True, False, False, False]] * 4
    )


def test_positions_before_the_patches_get_no_label(images):
    masks = [np.ones(image.shape[:2], bool) for image in images]
    plain = embedder().align_masks(images, masks)
    kept = embedder(special_tokens=True).align_masks(images, masks)
    assert plain.flat().all()
    assert plain.feature_names is None
    for row in kept:
        assert row[:, 0].tolist() == [False] + [True] * 16


class Lazy:
    """Masks that are read one by one."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        mask = np.zeros((*self.images[i].shape[:2], 3), np.uint8)
        mask[0, 0, 1] = 1
        return mask


def test_lazy_masks_of_several_concepts(images):
    labels = embedder().align_masks(images, Lazy(images), concepts=["a", "b", "c"])
    assert labels.shape == (5, 3)
    for row in labels:
        assert np.argwhere(row).tolist() == [[0, 1]]
    masks = [Image.fromarray(np.ones(image.shape[:2], np.uint8)) for image in images]
    assert embedder().align_masks(images, masks).flat().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks[:4], "one entry per image: got 4 for 5"),
        (
            lambda masks: [*masks[:2], masks[2].swapaxes(0, 1), *masks[3:]],
            r"masks\[2\] must be of shape \(70, 35\).*\(35, 70, 2\)",
        ),
        (lambda masks: [7 * masks[0].astype(int), *masks[1:]], r"masks\[0\] must .* the value 7"),
        (lambda masks: [masks[0] * np.nan, *masks[1:]], r"masks\[0\] must hold .* the value nan"),
        (lambda masks: [*masks[:4], masks[4].astype("U5")], r"masks\[4\] must hold bools.*<U5"),
        (lambda masks: [*masks[:3], masks[3][..., :1], masks[4]], r"masks\[3\] has 1 concepts"),
        (lambda masks: [masks[0][0], *masks[1:]], r"masks\[0\] must be of shape"),
    ],
)
def test_bad_masks_are_named(change, message, images):
    masks = [np.ones((*image.shape[:2], 2), bool) for image in images]
    with pytest.raises(ValueError, match=message):
        embedder().align_masks(images, change(masks))


def test_the_number_of_concepts_must_be_that_of_the_masks(images):
    with pytest.raises(ValueError, match=r"masks\[0\] has 1 concepts, expected 2"):
        embedder().align_masks(images, [np.ones(i.shape[:2], bool) for i in images], ["a", "b"])


def test_masks_need_an_image_model():
    pair = tiny_models.text_pair("bert")
    with pytest.raises(ValueError, match="masks belong to images"):
        TransformerEmbedder(pair).align_masks(["abc"], [np.ones((1, 1), bool)])


def test_all_forms_of_an_image_give_the_same(tmp_path, images):
    image = images[0]
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    opaque = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    forms = [image, image / 255, opaque, Image.fromarray(image), path, str(path)]
    forms.append(Image.fromarray(opaque))
    for form in forms:
        np.testing.assert_array_equal(np.asarray(open_image(form, 0)), image)
    found = embedder().transform(forms)
    for one in [*found, *embedder().transform(np.stack([image] * 2))]:
        np.testing.assert_allclose(one, found[0], atol=1e-4)


def test_grey_becomes_rgb(images):
    grey = images[0][..., 0]
    rgb = np.dstack([grey] * 3)
    for form in (grey, grey[..., None], Image.fromarray(grey)):
        np.testing.assert_array_equal(np.asarray(open_image(form, 0)), rgb)
        found, expected = (embedder().transform([one]) for one in (form, rgb))
        np.testing.assert_array_equal(found.values, expected.values)


def test_alpha_is_laid_over_white():
    clear = np.zeros((5, 5, 4), np.uint8)
    clear[:2] = (10, 20, 30, 255)
    opened = np.asarray(open_image(clear, 0))
    assert (opened[:2] == (10, 20, 30)).all()
    assert (opened[2:] == 255).all()
    palette = Image.new("P", (3, 3))
    palette.info["transparency"] = 0
    assert (np.asarray(open_image(palette, 0)) == 255).all()


def test_files_are_turned_upright(tmp_path):
    image = Image.fromarray(np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    opened = open_image(tmp_path / "turned.png", 0)
    np.testing.assert_array_equal(np.asarray(opened), np.rot90(np.asarray(image), -1))
    patches = embedder().tokens_of([tmp_path / "turned.png"])[0]
    assert patches[-1].box[2:] == (6, 8)  # 6 wide and 8 high now


@pytest.mark.parametrize("kind", tiny_models.IMAGE)
def test_an_opened_photograph_is_what_its_file_is(kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 66, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 8
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path, exif=exif)
    forms = [path, Image.open(path), io.BytesIO(path.read_bytes()), np.rot90(pixels)]
    masks = [np.triu(np.ones((66, 40), bool))] * 4
    found = embedder(kind)
    X, labels, patches = found.transform(forms), found.align_masks(forms, masks), None
    for one, label, boxes in zip(X, labels, found.tokens_of(forms), strict=True):
        np.testing.assert_allclose(one, X[0], atol=1e-5, rtol=1e-4)
        np.testing.assert_array_equal(label, labels[0])
        patches = patches or boxes
        assert boxes == patches
    # Seen on its side it is another image.
    sideways = found.transform([pixels])
    assert sideways.lengths[0] != X.lengths[0] or np.abs(sideways[0] - X[0]).max() > 0.1


def test_no_two_images_are_held_in_full_size(monkeypatch, images):
    held = []

    def opened(image, i):
        assert not any(one() for one in held)
        image = open_image(image, i)
        held.append(weakref.ref(image))
        return image

    monkeypatch.setattr("skact.models._prepare.open_image", opened)
    embedder("vit", batch_size=8).transform(images)
    assert len(held) == len(images)


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((5, 90), {"do_resize": False}, r"sample 1 is .* height 5 and width 90.* \(7, 7\) pixels"),
        (
            (1, 90),
            {"size": {"max_height": 28, "max_width": 28}},
            "sample 1: .*max_height.*height 1 and width 90",
        ),
    ],
)
def test_what_fills_no_patch_is_named(size, options, message, images):
    model, _ = tiny_models.image_pair("dinov2")
    processor = transformers.BitImageProcessorPil(do_center_crop=False, **options)
    found = TransformerEmbedder((model, processor), crop="processor")
    with pytest.raises(ValueError, match=message):
        found.transform([images[0], np.zeros(size, np.uint8)])


def test_tokens_of_images_have_rows_and_columns(images, tmp_path):
    masks = [np.ones(image.shape[:2], bool) for image in images]
    for kind in tiny_models.IMAGE:
        found = embedder(kind, layer=[0, 2])
        last = [patches[-1] for patches in found.tokens_of(images)]
        expected = [(one.row + 1, one.column + 1) for one in last]
        stack, labels = found.transform(images), found.align_masks(images, masks)
        for tokens in (stack, stack.layer(2), labels):
            assert list(map(tuple, tokens.shapes)) == expected
        assert list(map(tuple, stack[[2, 0]].shapes)) == [expected[2], expected[0]]
        kept = embedder(kind, special_tokens=True)
        assert kept.transform(images).shapes is None
        assert kept.align_masks(images, masks).shapes is None
        pooled = embedder(kind, layer=[0], pooling="mean").transform(images)
        assert pooled.shapes is None
        store = tmp_path / kind
        embed_to_store(images[:2], found, store)
        stored = found.set_params(store=store).transform(images)
        assert list(map(tuple, stored.shapes)) == expected
        pooled = embedder(kind, layer=[0], pooling="mean", store=store).transform(images)
        assert pooled.shapes is None
    text = TransformerEmbedder(tiny_models.text_pair("bert"))
    assert text.transform(["the cat", "sat"]).shapes is None


BAD_IMAGES = [
    (np.zeros((4, 4, 2), np.uint8), r"sample 1 must be an image.*\(4, 4, 2\)"),
    (np.zeros(4, np.uint8), r"sample 1 must be an image.*\(4,\)"),
    (np.zeros((0, 4), np.uint8), r"sample 1 must be an image.*\(0, 4\)"),
    (None, "sample 1 must be an image.*NoneType"),
    (np.full((4, 4), 2.0), r"sample 1 .*\[0, 1\].*2.0"),
    (np.full((4, 4), -0.1), r"sample 1 .*\[0, 1\].*-0.1"),
    (np.full((4, 4), np.nan), r"sample 1 .*\[0, 1\]"),
    (np.zeros((4, 4), np.int64), "sample 1 must be of dtype uint8 or float, got int64"),
    ("no_such_file.png", "sample 1: the image 'no_such_file.png' cannot be read"),
    (__file__, "sample 1: the image .*test_images.py' cannot be read"),
    (Image.new("F", (3, 3)), "sample 1 has the mode 'F'"),
    (Image.new("I;16", (3, 3)), "sample 1 has the mode 'I;16'"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_IMAGES)
def test_bad_images_are_named_before_anything_is_embedded(bad, message, images):
    found = embedder()
    found.transform(images[:1])
    handle = found.model[0].register_forward_pre_hook(lambda *_: pytest.fail("a model ran"))
    try:
        with pytest.raises(ValueError, match=message):
            found.transform([images[0], bad])
    finally:
        handle.remove()


def test_a_file_cut_short_is_named(tmp_path, images):
    Image.fromarray(images[0]).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"sample 0: the image .*cut.png' cannot be read"):
        embedder().transform([tmp_path / "cut.png"])
