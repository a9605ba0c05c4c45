"""What of an image a model is shown: the grid of a whole image, its pixels, when it is chosen."""

import itertools
import warnings

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skact import ActivationStore, MeanPrototype, embed_to_store
from skact.embedding import TransformerEmbedder
from skact.models._framing import ProcessorFraming, WholeFraming, whole_grid
from skact.models._loaded import load
from tests import tiny_models


def embedder(kind="dinov2", **params):
    return TransformerEmbedder(tiny_models.image_pair(kind), **params)


def small_crop(patches, patch=tiny_models.PATCH):
    """A processor as that of DINOv2: the shorter side resized, the centre cut out."""
    side = patches * patch
    return transformers.BitImageProcessorPil(
        size={"shortest_edge": side + 4}, crop_size={"height": side, "width": side}
    )


def cropping(patches, **params):
    model, _ = tiny_models.image_pair("dinov2")
    return TransformerEmbedder((model, small_crop(patches)), **params)


def slow_grid(ratio, n_patches, most):
    every = [
        (rows, columns)
        for rows, columns in itertools.product(range(1, most + 1), repeat=2)
        if 9 * n_patches <= 10 * rows * columns <= 11 * n_patches and rows * columns <= most
    ]
    bent = [round(abs(np.log(rows / (columns * ratio))), 9) for rows, columns in every]
    least = [grid for grid, by in zip(every, bent, strict=True) if by == min(bent)]
    return least, min(abs(rows * columns - n_patches) for rows, columns in least)


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    n_patches=st.integers(1, 60),
    room=st.integers(0, 10),
)
def test_the_grid_is_the_best_of_all_grids(height, width, n_patches, room):
    ratio, most = height / width, n_patches + room
    rows, columns = whole_grid(ratio, n_patches, most)
    least, off = slow_grid(ratio, n_patches, most)
    assert (rows, columns) in least
    assert abs(rows * columns - n_patches) == off


def test_proportions_are_kept_where_there_are_many_patches():
    for height, width in [(213, 320), (320, 213), (100, 100), (480, 640), (300, 900)]:
        rows, columns = whole_grid(height / width, 256, 1024)
        assert 0.96 < rows / columns / (height / width) < 1.04
        assert 231 <= rows * columns <= 281


@pytest.mark.parametrize(
    ("size", "max_patches", "grid"),
    [
        ((60, 60), 1024, (4, 4)),
        ((60, 240), 1024, (2, 8)),
        ((1, 2000), 1024, (1, 17)),
        ((2000, 1), 1024, (17, 1)),
        ((1, 1), 1024, (4, 4)),
        ((60, 60), 4, (2, 2)),
        ((1, 2000), 5, (1, 5)),
        ((60, 60), 1, (1, 1)),
    ],
)
def test_whole_images_of_any_proportions(size, max_patches, grid):
    found = cropping(4, max_patches=max_patches, layer=1)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    X = found.transform([image])
    assert X.shapes.tolist() == [list(grid)]
    patches = found.tokens_of([image])[0]
    assert patches[0].box[:2] == (0, 0)
    assert patches[-1].box[2:] == size[::-1]
    labels = found.align_masks([image], [np.ones(size, bool)])
    assert labels.flat().all()
    assert labels.shapes.tolist() == [list(grid)]


def test_the_processor_says_into_how_many_patches():
    # It crops nothing, and the longer side has as many patches as it will.
    image = np.zeros((28, 4 * 28, 3), np.uint8)
    assert embedder().transform([image]).shapes.tolist() == [[4, 16]]
    assert embedder(max_patches=16).transform([image]).shapes.tolist() == [[2, 8]]


@pytest.mark.parametrize("resample", [0, 2, 3])
def test_pixels_are_what_a_processor_makes_that_resizes_to_this_size(resample, images):
    model, _ = tiny_models.image_pair("dinov2")
    processor = small_crop(5)
    processor.resample = resample
    inputs = TransformerEmbedder((model, processor)).prepare(images)
    for i, image in enumerate(images):
        height, width = inputs.geometries[i].size
        exact = transformers.BitImageProcessorPil(
            size={"height": height, "width": width}, do_center_crop=False, resample=resample
        )
        expected = exact(images=[image], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(inputs.batch(np.array([i]))[0]["pixel_values"], expected)


def own_states(model, image, processor, **extra):
    pixels = processor(images=[image], do_resize=False, do_center_crop=False, return_tensors="pt")[
        "pixel_values"
    ]
    with torch.no_grad():
        return model(pixel_values=pixels, output_hidden_states=True, **extra).hidden_states


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("dinov2", {}),
        ("vit", {"interpolate_pos_encoding": True}),
        ("clip", {"interpolate_pos_encoding": True}),
    ],
)
@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (8, 2), (1, 16)])
def test_an_image_of_whole_patches_is_shown_as_it_is(kind, extra, grid):
    model, _ = tiny_models.image_pair(kind)
    processor = small_crop(4)
    size = [7 * n for n in grid]
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = TransformerEmbedder((model, processor), layer=[0, 2], crop="whole").transform([image])
    expected = own_states(model, image, processor, **extra)
    for block in (0, 2):
        own = expected[block + 1][0, 1:].numpy()
        np.testing.assert_allclose(found.layer(block)[0], own, atol=1e-5, rtol=1e-4)
    assert found.shapes.tolist() == [list(grid)]


def test_a_painted_square_is_found_in_its_patch():
    rng = np.random.default_rng(0)
    found = cropping(6, layer=0)
    sizes = [(1, 2000), (2000, 1), *rng.integers(20, 400, (50, 2)).tolist()]
    for height, width in sizes:
        image = np.full((height, width, 3), 128, np.uint8)
        patches = found.tokens_of([image])[0]
        place = rng.integers(len(patches))
        left, top, right, bottom = patches[place].box
        columns = slice(int(np.ceil(left)), max(int(right), int(np.ceil(left)) + 1))
        rows = slice(int(np.ceil(top)), max(int(bottom), int(np.ceil(top)) + 1))
        painted, mask = image.copy(), np.zeros((height, width), bool)
        painted[rows, columns], mask[rows, columns] = 255, True
        inputs = found.prepare([image, painted])
        pixels = inputs.batch(np.array([0, 1]))[0]["pixel_values"]
        n_rows, n_columns = inputs.shapes[0]
        change = (pixels[1] - pixels[0])[0].reshape(n_rows, 7, n_columns, 7).sum((1, 3)).ravel()
        assert change.argmax() == place, (height, width, place)
        label = found.align_masks([image], [mask])[0][:, 0]
        # A pixel larger than a patch lies in several of them.
        assert label[place]
        if min(height / n_rows, width / n_columns) >= 2:
            assert label.sum() <= 4
        before, after = found.transform([image, painted])
        assert np.abs(after - before).sum(axis=1).argmax() == place, (height, width, place)


def test_auto_shows_whole_images_to_models_that_take_them_by_themselves():
    pairs = {kind: tiny_models.image_pair(kind) for kind in tiny_models.IMAGE}
    pairs["llama"] = tiny_models.paper_pair("llama-3.2-vision image")
    framings = {kind: load(pair).framing for kind, pair in pairs.items()}
    whole = {kind for kind, framing in framings.items() if isinstance(framing, WholeFraming)}
    assert whole == {"dinov2"}
    for pair in pairs.values():
        assert isinstance(load(pair, crop="processor").framing, ProcessorFraming)
    assert load(tiny_models.text_pair("bert"), crop="whole").framing is None
    shown = load(pairs["clip"], crop="whole")
    assert shown.extra == {"interpolate_pos_encoding": True}
    assert load(pairs["dinov2"], crop="whole").extra == load(pairs["clip"]).extra == {}


def test_rotary_positions_take_any_size():
    torch.manual_seed(0)
    config = transformers.DINOv3ViTConfig(
        image_size=28,
        patch_size=7,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=48,
        num_register_tokens=2,
    )
    model = transformers.DINOv3ViTModel(config).eval()
    loaded = load((model, small_crop(4)))
    assert (loaded.prefix, loaded.extra) == (3, {})
    assert isinstance(loaded.shown, WholeFraming)


def test_whole_images_are_refused_where_a_model_takes_one_size():
    pair = tiny_models.paper_pair("llama-3.2-vision image")
    with pytest.raises(ValueError, match=r'crop="whole".* takes one size only.*crop="processor"'):
        TransformerEmbedder(pair, crop="whole").transform([np.zeros((30, 30, 3), np.uint8)])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"crop": "center"}, "'crop' parameter .* 'center'"),
        ({"max_patches": 0}, "'max_patches' parameter .* Got 0"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        embedder(**params).fit([np.zeros((30, 30, 3), np.uint8)])


HIDDEN = "CLIPImageProcessorPil crops 2 of 3 images by more than a tenth: .* 62% .* 75% at most"


def test_hidden_pixels_are_told_of_once_with_figures(tmp_path):
    images = [np.full(size, 9, np.uint8) for size in [(28, 28), (28, 56), (112, 28)]]
    store = ActivationStore(tmp_path / "a", chunk_size=1)
    uses = [
        lambda crop: embedder("clip", crop=crop).transform(images),
        lambda crop: embedder("clip", crop=crop, store=store).transform(images),
        lambda crop: embed_to_store(images, embedder("clip", crop=crop), tmp_path / crop),
    ]
    for use in uses:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for crop in ("processor", "whole"):
                use(crop)
        assert not seen
    store.prune(max_bytes=0)
    for use in uses:
        with pytest.warns(UserWarning, match=HIDDEN) as seen:
            use("auto")
        assert len(seen) == 1
        assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedder("clip").transform([np.zeros((28, 30), np.uint8)])  # a fifteenth
        embedder("clip", store=store).transform(images)  # is there already
        embedder("vit").transform(images)  # squeezed and not cropped


def test_geometry_says_how_much_is_hidden(images):
    for found in (embedder("clip"), cropping(3, crop="processor"), embedder("vit"), cropping(3)):
        inputs = found.prepare(images)
        for image, share, patches in zip(images, inputs.hidden, inputs.tokens(), strict=True):
            height, width = image.shape[:2]
            seen = np.array([patch.box for patch in patches])
            left, top = seen[:, :2].min(axis=0)
            right, bottom = seen[:, 2:].max(axis=0)
            assert share == pytest.approx(1 - (right - left) * (bottom - top) / (height * width))


def test_the_framing_is_part_of_source_and_key(images, tmp_path):
    y = [0, 1, 0, 1, 1]
    cropped, whole = embedder(crop="processor", layer=1), embedder(layer=1)
    concepts = MeanPrototype().fit(cropped.transform(images), y)
    with pytest.raises(ValueError, match=r"another convention.*whole images in at most 1024"):
        concepts.transform(whole.transform(images))
    assert concepts.transform(cropped.transform(images[:1])).shape == (1, 1)
    store = ActivationStore(tmp_path)
    cropped.set_params(store=store).transform(images)
    assert not cropped.missing(images).any()
    for other in (whole, embedder(layer=1, max_patches=9)):
        assert other.set_params(store=store).missing(images).all()
        other.transform(images)
        assert not other.missing(images).any()
    assert not embedder(crop="whole", layer=1, store=store).missing(images).any()


def test_photographs_are_shown_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 30)).save(tmp_path / "photo.png", exif=exif)
    X = cropping(4).transform([tmp_path / "photo.png", Image.open(tmp_path / "photo.png")])
    assert X.shapes[0].tolist() == X.shapes[1].tolist()
    assert X.shapes[0, 0] > 2 * X.shapes[0, 1]


def test_a_real_model_sees_whole_photographs(real_model):
    found = TransformerEmbedder(real_model("dinov2-small"), layer=0)
    rng = np.random.default_rng(0)
    for size in [(213, 320), (320, 213), (40, 900)]:
        image = rng.integers(100, 156, (*size, 3), dtype=np.uint8)
        patches = found.tokens_of([image])[0]
        place = rng.integers(len(patches))
        left, top, right, bottom = np.round(patches[place].box).astype(int)
        painted = image.copy()
        painted[top:bottom, left:right] = 255
        X = found.transform([image, painted])
        assert 231 <= X.lengths[0] <= 281
        assert np.linalg.norm(X[1] - X[0], axis=1).argmax() == place
