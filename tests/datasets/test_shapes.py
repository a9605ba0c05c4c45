import colorsys
import os
import socket

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from skact.datasets import make_shapes, shapes_model_path

NAMES = ["red", "green", "blue", "cube", "cylinder", "sphere"]
HUES = {"red": 0.0, "green": 1 / 3, "blue": 2 / 3}


@pytest.fixture(scope="module")
def clean():
    """Return images without noise, so that every pixel can be reasoned about."""
    return make_shapes(45, image_size=72, noise=0, random_state=0)


def pixels(image):
    return np.asarray(image, dtype=float) / 255


def objects(shapes):
    return [mask.any(axis=2) for mask in shapes.masks]


def names(row):
    colour, solid = np.flatnonzero(row)
    return NAMES[colour], NAMES[solid]


# The scenes


def test_one_colour_and_one_shape_each(clean):
    assert clean.target_names == NAMES
    assert clean.target.dtype == np.int64
    np.testing.assert_array_equal(clean.target[:, :3].sum(axis=1), 1)
    np.testing.assert_array_equal(clean.target[:, 3:].sum(axis=1), 1)
    rounds = clean.target.reshape(5, 9, 6)
    assert all(len({tuple(row) for row in own}) == 9 for own in rounds)
    # Dealt, not listed: the rounds differ in their order.
    assert len({own.tobytes() for own in rounds}) == 5


def test_masks_belong_to_the_two_concepts(clean):
    for mask, row, area in zip(clean.masks, clean.target, objects(clean), strict=True):
        assert mask.dtype == bool
        assert mask.shape == (72, 72, 6)
        for concept in range(6):
            np.testing.assert_array_equal(mask[:, :, concept], area & bool(row[concept]))


def test_masks_cover_what_is_not_background(clean):
    """The background is grey and rises linearly, so it is known under the object as well."""
    rows, columns = np.mgrid[:72, :72]
    plane = np.stack([np.ones(72 * 72), rows.ravel(), columns.ravel()], axis=1)
    for image, area in zip(clean.data, objects(clean), strict=True):
        picture = pixels(image)
        outside, inside = ~binary_dilation(area, np.ones((3, 3))), binary_erosion(area)
        assert inside.sum() > 50
        weights = np.linalg.lstsq(plane[outside.ravel()], picture[outside], rcond=None)[0]
        distance = np.abs(picture - (plane @ weights).reshape(72, 72, 3)).max(axis=2)
        assert distance[outside].max() < 1 / 255
        assert distance[inside].min() > 0.1


def test_masked_pixels_have_the_colour_of_the_label(clean):
    for image, area, row in zip(clean.data, objects(clean), clean.target, strict=True):
        own, _ = names(row)
        for pixel in pixels(image)[binary_erosion(area)]:
            hue, saturation, _ = colorsys.rgb_to_hsv(*pixel)
            nearest = min(HUES, key=lambda name: abs((hue - HUES[name] + 0.5) % 1 - 0.5))
            assert nearest == own
            assert saturation > 0.3


def test_outlines_are_those_of_the_solids(clean):
    for area, row in zip(objects(clean), clean.target, strict=True):
        _, solid = names(row)
        rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        share = area.sum() / (height * width)
        if solid == "sphere":
            assert abs(height - width) <= 1
            assert share == pytest.approx(np.pi / 4, abs=0.05)
        elif solid == "cylinder":
            assert height > 1.2 * width
            # Straight sides: away from the round ends all rows are as wide as the widest.
            middle = area[rows[0] + height // 3 : rows[-1] - height // 3].sum(axis=1)
            assert np.ptp(middle) <= 1
        else:
            assert 0.65 < share < 0.85


def test_a_cube_shows_three_even_faces_and_a_sphere_a_gradient(clean):
    for image, area, row in zip(clean.data, objects(clean), clean.target, strict=True):
        colour, solid = names(row)
        inside = binary_erosion(area)
        values = np.asarray(image)[inside][:, NAMES.index(colour)]
        _, counts = np.unique(values, return_counts=True)
        in_three_values = np.sort(counts)[-3:].sum() / counts.sum()
        if solid == "cube":
            assert in_three_values > 0.7
        elif solid == "sphere":
            assert in_three_values < 0.4


@pytest.mark.parametrize("image_size", [16, 33, 64, 100])
def test_any_image_size(image_size):
    shapes = make_shapes(9, image_size=image_size, min_size=0.4, max_size=0.5, random_state=1)
    for image, area in zip(shapes.data, objects(shapes), strict=True):
        assert image.mode == "RGB"
        assert image.size == (image_size, image_size)
        extent = max(np.ptp(np.flatnonzero(area.any(axis=axis))) + 1 for axis in (0, 1))
        assert 0.2 * image_size < extent <= 0.5 * image_size + 1


def test_size_limits_are_reached():
    small = make_shapes(9, image_size=80, min_size=0.1, max_size=0.1, random_state=0)
    large = make_shapes(9, image_size=80, min_size=1, max_size=1, random_state=0)
    assert max(area.sum() for area in objects(small)) <= 64
    spheres = [a for a, row in zip(objects(large), large.target, strict=True) if row[5]]
    for area in spheres:
        assert area.sum() == pytest.approx(np.pi / 4 * 80**2, rel=0.01)


def test_noise_has_the_stated_spread():
    quiet, noisy = (make_shapes(1, noise=noise, random_state=0) for noise in (0, 0.05))
    difference = pixels(noisy.data[0]) - pixels(quiet.data[0])
    assert difference.std() == pytest.approx(0.05, rel=0.05)
    assert abs(difference.mean()) < 0.005
    np.testing.assert_array_equal(quiet.masks[0], noisy.masks[0])


def test_the_seed_decides():
    first, same, other = (make_shapes(10, random_state=seed) for seed in (5, 5, 6))
    for i in range(10):
        assert first.data[i].tobytes() == same.data[i].tobytes()
        assert first.data[i].tobytes() != other.data[i].tobytes()
        np.testing.assert_array_equal(first.masks[i], same.masks[i])
    np.testing.assert_array_equal(first.target, same.target)
    by_state = make_shapes(10, random_state=np.random.RandomState(5))
    assert by_state.data[3].tobytes() == first.data[3].tobytes()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, "'n_samples' .* Got 0"),
        ({"n_samples": 1.0}, TypeError, "'n_samples' .* an int .* Got 1.0"),
        ({"image_size": 15}, ValueError, r"\'image_size\' .*\[16, inf\). Got 15"),
        ({"image_size": True}, TypeError, "'image_size' .* Got True"),
        ({"min_size": 0}, ValueError, r"'min_size' .*\(0.0, 1.0\]"),
        ({"min_size": 0.5, "max_size": 0.4}, ValueError, "min_size=0.5 .*larger than max_size=0.4"),
        ({"max_size": 1.1}, ValueError, "'max_size' .* Got 1.1"),
        ({"max_size": float("nan")}, ValueError, "'max_size' .* Got nan"),
        ({"min_size": "0.3"}, TypeError, "'min_size' .* a float"),
        ({"image_size": 16, "min_size": 0.2}, ValueError, "3.2 pixels; an object needs"),
        ({"noise": -0.1}, ValueError, "'noise' .* Got -0.1"),
        ({"noise": float("inf")}, ValueError, "'noise' .* Got inf"),
        ({"random_state": "x"}, ValueError, "'random_state'"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        make_shapes(**arguments)


# The shipped model


@pytest.fixture(scope="module")
def offline():
    """Refuse every connection while the model is loaded."""
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*arguments, **keywords):
            raise AssertionError("the shipped model must load without a connection")

        patch.setattr(socket.socket, "connect", refuse)
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def transformers(offline):
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def shipped(transformers):
    model, report = transformers.AutoModel.from_pretrained(
        shapes_model_path(), output_loading_info=True
    )
    assert isinstance(model, transformers.ViTModel)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.fixture(scope="module")
def probe_data(transformers):
    """Return pixels, patch labels and targets of images to fit probes on and of fresh images."""
    processor = transformers.ViTImageProcessorPil.from_pretrained(shapes_model_path())
    parts = []
    for seed in (101, 102):
        shapes = make_shapes(90, random_state=seed)
        cover = np.stack(shapes.masks).reshape(90, 8, 8, 8, 8, 6).mean(axis=(2, 4))
        inputs = processor(shapes.data, return_tensors="pt")
        assert inputs["pixel_values"].shape == (90, 3, 64, 64)
        parts.append((inputs, cover.reshape(90 * 64, 6), shapes.target))
    return parts


def hidden(model, inputs):
    import torch

    with torch.no_grad():
        return model(**inputs).last_hidden_state.numpy()


def patch_areas(model, probe_data, concepts, seed=None):
    """Return for each concept the AUC of a linear probe that tells object patches apart."""
    tokens, labels = [], []
    for inputs, cover, _ in probe_data:
        on_object = cover.max(axis=1) >= 0.5
        tokens.append(hidden(model, inputs)[:, 1:].reshape(len(cover), -1)[on_object])
        labels.append(cover[on_object] > 0)
    if seed is not None:
        labels[0] = np.random.RandomState(seed).permutation(labels[0])
    return [
        roc_auc_score(
            labels[1][:, c],
            LogisticRegression(max_iter=1000)
            .fit(tokens[0], labels[0][:, c])
            .decision_function(tokens[1]),
        )
        for c in concepts
    ]


def test_the_shipped_model_is_small_and_complete():
    folder = shapes_model_path()
    assert os.path.isabs(folder)
    files = sorted(os.listdir(folder))
    assert files == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sum(os.path.getsize(os.path.join(folder, name)) for name in files) <= 2_000_000


def test_a_missing_model_is_named(monkeypatch, tmp_path):
    from skact.datasets import _shapes

    monkeypatch.setattr(_shapes, "__file__", str(tmp_path / "_shapes.py"))
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        shapes_model_path()


def test_object_patches_carry_colour_and_shape(shipped, probe_data):
    assert min(patch_areas(shipped, probe_data, range(6))) > 0.95
    # Control: probes fitted on permuted labels find nothing.
    permuted = patch_areas(shipped, probe_data, range(6), seed=0)
    assert np.mean(permuted) == pytest.approx(0.5, abs=0.2)
    assert max(permuted) < 0.85


def test_object_patches_of_random_weights_do_not_know_the_shape(shipped, probe_data, transformers):
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        control = transformers.ViTModel(shipped.config).eval()
    assert max(patch_areas(control, probe_data, [3, 4, 5])) < 0.75


def test_the_cls_token_says_colour_and_shape(shipped, probe_data):
    (inputs, _, target), (fresh_inputs, _, fresh_target) = probe_data
    tokens, fresh_tokens = hidden(shipped, inputs)[:, 0], hidden(shipped, fresh_inputs)[:, 0]
    for part in (slice(0, 3), slice(3, 6)):
        probe = LogisticRegression(max_iter=1000).fit(tokens, target[:, part].argmax(axis=1))
        assert probe.score(fresh_tokens, fresh_target[:, part].argmax(axis=1)) > 0.93
