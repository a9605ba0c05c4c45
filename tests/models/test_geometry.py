"""Where the pixels of an image go, and which patches a mask labels."""

import numpy as np
import pytest
import transformers
from PIL import Image

from skact.embedding import TransformerEmbedder
from skact.models._geometry import (
    Patch,
    check_geometry,
    image_geometry,
    mask_to_patches,
    patch_boxes,
)
from skact.models._mllama import FirstTileProcessor
from tests import tiny_models


def squash(size):
    return transformers.ViTImageProcessorPil(size={"height": size, "width": size})


def crop(short, size):
    return transformers.CLIPImageProcessorPil(
        size={"shortest_edge": short}, crop_size={"height": size, "width": size}
    )


PROCESSORS = {
    "squash": squash(56),
    "shortest edge and crop": crop(56, 56),
    "crop of a larger image": crop(80, 49),
    "crop that pads": crop(40, 64),
    "shortest edge": transformers.BitImageProcessorPil(
        size={"shortest_edge": 63}, do_center_crop=False
    ),
    "shortest and longest edge": transformers.BitImageProcessorPil(
        size={"shortest_edge": 64, "longest_edge": 90}, do_center_crop=False
    ),
    "crop without resize": transformers.BitImageProcessorPil(
        do_resize=False, crop_size={"height": 70, "width": 70}
    ),
    "nothing": transformers.BitImageProcessorPil(do_resize=False, do_center_crop=False),
    "padding": transformers.BitImageProcessorPil(
        size={"shortest_edge": 40},
        do_center_crop=False,
        do_pad=True,
        pad_size={"height": 126, "width": 126},
    ),
    "one tile": FirstTileProcessor(tiny_models.llama_processor(63)),
}


@pytest.mark.parametrize("size", [(90, 150), (150, 90), (60, 60), (101, 97)])
@pytest.mark.parametrize("name", PROCESSORS)
def test_geometry_says_where_ramps_end_up(name, size):
    processor = PROCESSORS[name]
    height, width = size
    geometry = image_geometry(processor, height, width)
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([x, y, np.full(size, 200)], axis=2).astype(np.uint8)
    pixels = processor(
        images=[Image.fromarray(ramps)], do_rescale=False, do_normalize=False, return_tensors="np"
    )["pixel_values"][0].astype(float)
    assert pixels.shape[1:] == geometry.size
    inside = pixels[2] > 190
    for channel, axis, extent in ((0, geometry.columns, width), (1, geometry.rows, height)):
        centre = axis.to_original(np.arange(axis.size) + 0.5) - 0.5
        expected = np.broadcast_to(centre if channel == 0 else centre[:, None], pixels.shape[1:])
        scale = max(1, axis.original / axis.resized)
        inner = inside & (expected > 2 * scale) & (expected < extent - 1 - 2 * scale)
        assert inner.sum() > 100
        assert np.abs(pixels[channel] - expected)[inner].max() <= 1
        # Where the geometry sees no image there is none.
        outside = (expected < -1) | (expected > extent)
        assert not inside[outside].any()


def test_every_processor_here_passes_its_own_check():
    for processor in PROCESSORS.values():
        check_geometry(processor)


class Flipping(transformers.ViTImageProcessorPil):
    def resize(self, image, size, resample=None, **kwargs):
        return super().resize(image, size, resample, **kwargs)[:, :, ::-1]


class Zooming(transformers.ViTImageProcessorPil):
    def resize(self, image, size, resample=None, **kwargs):
        height, width = image.shape[1:]
        inner = image[:, height // 8 : -height // 8, width // 8 : -width // 8]
        return super().resize(inner, size, resample, **kwargs)


class Enlarging(transformers.ViTImageProcessorPil):
    def resize(self, image, size, resample=None, **kwargs):
        return np.repeat(super().resize(image, size, resample, **kwargs), 2, axis=2)


@pytest.mark.parametrize("kind", [Flipping, Zooming, Enlarging])
def test_a_processor_that_moves_pixels_elsewhere_is_refused(kind):
    processor = kind(size={"height": 28, "width": 28})
    model, _ = tiny_models.image_pair("vit")
    with pytest.raises(ValueError, match=f"{kind.__name__} is not understood"):
        TransformerEmbedder((model, processor)).transform([np.zeros((40, 40), np.uint8)])


def test_patches_tile_what_the_model_sees():
    squashed = patch_boxes(image_geometry(squash(28), 40, 60), (14, 14))
    assert squashed == [
        Patch(0, 0, (0.0, 0.0, 30.0, 20.0)),
        Patch(0, 1, (30.0, 0.0, 60.0, 20.0)),
        Patch(1, 0, (0.0, 20.0, 30.0, 40.0)),
        Patch(1, 1, (30.0, 20.0, 60.0, 40.0)),
    ]
    cropped = patch_boxes(image_geometry(crop(28, 28), 40, 60), (14, 14))
    assert (cropped[0].box, cropped[3].box) == ((10, 0, 30, 20), (30, 20, 50, 40))
    padded = patch_boxes(image_geometry(crop(20, 40), 40, 40), (20, 20))
    assert padded[0].box == (-20, -20, 20, 20)


def test_patches_of_nothing_but_padding_are_no_tokens():
    processor = transformers.BitImageProcessorPil(
        size={"shortest_edge": 20},
        do_center_crop=False,
        do_pad=True,
        pad_size={"height": 50, "width": 50},
    )
    geometry = image_geometry(processor, 40, 62)  # 20 x 31 pixels of 50 x 50
    # The fourth column holds one column of pixels.
    places = [(p.row, p.column) for p in patch_boxes(geometry, (10, 10))]
    assert places == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert geometry.tokens((10, 10)).sum() == 8
    labels = mask_to_patches(np.ones((40, 62, 1), bool), geometry, (10, 10))
    assert labels.shape == (8, 1)
    assert labels.all()


def slow_mask_to_patches(mask, geometry, patch):
    """Square by square, in fractions."""
    from fractions import Fraction

    n_rows, n_columns = geometry.grid(patch)
    labels = np.zeros((n_rows, n_columns, mask.shape[2]), bool)

    def edges(axis, pixel):
        return [Fraction((pixel + k) * axis.resized, axis.original) - axis.start for k in (0, 1)]

    for y, x, concept in np.argwhere(mask):
        (top, bottom), (left, right) = edges(geometry.rows, y), edges(geometry.columns, x)
        for r in range(n_rows):
            for c in range(n_columns):
                if (
                    top < (r + 1) * patch[0]
                    and bottom > r * patch[0]
                    and left < (c + 1) * patch[1]
                    and right > c * patch[1]
                ):
                    labels[r, c, concept] = True
    tops, lefts = [], []
    for axis, out in ((geometry.rows, tops), (geometry.columns, lefts)):
        for pixel in range(axis.original):
            out.append(edges(axis, pixel))
    real = [
        any(top < (r + 1) * patch[0] and bottom > r * patch[0] for top, bottom in tops)
        and any(left < (c + 1) * patch[1] and right > c * patch[1] for left, right in lefts)
        for r in range(n_rows)
        for c in range(n_columns)
    ]
    return labels.reshape(-1, mask.shape[2])[real]


@pytest.mark.parametrize("name", PROCESSORS)
def test_mask_to_patches_equals_a_slow_replica(name):
    rng = np.random.default_rng(0)
    for height, width in ((30, 47), (90, 33)):
        processor = PROCESSORS[name]
        mask = rng.random((height, width, 2)) < [0.004, 0.02]
        geometry = image_geometry(processor, height, width)
        for patch in ((7, 7), (16, 10)):
            found = mask_to_patches(mask, geometry, patch)
            expected = slow_mask_to_patches(mask, geometry, patch)
            np.testing.assert_array_equal(found, expected)
            assert 0 < found.sum() < found.size


@pytest.mark.parametrize("size", [224, 560])
def test_masks_equal_the_reference(reference, size):
    ref = reference("ref_patch_labels")
    processor = squash(224) if size == 224 else tiny_models.llama_processor(560)
    found, first = [], 0
    for i in range(4):
        mask = ref[f"in_mask{i}"]
        geometry = image_geometry(processor, *mask.shape)
        tokens = geometry.tokens((14, 14))
        labels = mask_to_patches(mask[:, :, None], geometry, (14, 14))[:, 0]
        found.append(np.flatnonzero(tokens)[labels] + first)
        first += len(tokens)  # the reference counts padding too
    np.testing.assert_array_equal(np.concatenate(found), ref[f"out_patches_{size}"])
