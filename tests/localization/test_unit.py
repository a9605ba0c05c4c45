"""Players that are groups of tokens: squares of patches, and superpixels."""

import numpy as np
import pytest
import transformers
from sklearn.base import clone

from skact import TransformerEmbedder
from skact.localization import RISE, DirectAlignment
from skact.localization._copies import perturbation
from skact.localization._inputs import ModelInputs
from skact.localization._methods import resolve_method
from skact.localization._unit import UNITS, Unit, cells, superpixels
from tests import tiny_models

GROUPED = [{"unit": "grid", "cell_size": 3}, {"unit": "segments", "n_segments": 9}]
ON_GAMES = ["lime", "kernel_shap", "rise", "shapiq"]


def quarters(height=32, width=48):
    """Four colours, one in each quarter."""
    pixels = np.zeros((height, width, 3))
    pixels[: height // 2, : width // 2] = [1, 0, 0]
    pixels[: height // 2, width // 2 :] = [0, 1, 0]
    pixels[height // 2 :, : width // 2] = [0, 0, 1]
    pixels[height // 2 :, width // 2 :] = [1, 1, 0]
    return pixels


@pytest.mark.parametrize(("rows", "columns", "size"), [(4, 6, 2), (5, 7, 3), (3, 3, 3), (2, 5, 1)])
def test_squares_are_counted_row_by_row(rows, columns, size):
    found = cells(rows, columns, size).reshape(rows, columns)
    wide = -(-columns // size)
    for row in range(rows):
        for column in range(columns):
            assert found[row, column] == (row // size) * wide + column // size
    assert np.array_equal(np.unique(found), np.arange(found.max() + 1))


@pytest.mark.parametrize("scale", [(0, 1), (-2.1, 4.7)])
def test_superpixels_follow_the_colours_on_any_scale(scale):
    pixels = scale[0] + scale[1] * quarters()
    found = superpixels(pixels, 8, 12, 4)
    expected = np.kron([[0, 1], [2, 3]], np.ones((4, 6), int))
    assert np.array_equal(found, expected.ravel())
    assert superpixels(np.full((8, 8, 3), scale[0]), 2, 2, 50).max() <= 3


def test_a_patch_goes_to_the_superpixel_of_most_of_its_pixels():
    pixels = np.zeros((8, 16, 3))
    pixels[:, 9:] = 1  # one of the eight columns of the second patch is black
    assert superpixels(pixels, 1, 2, 2).tolist() == [0, 1]
    pixels[:, 9:15] = 0
    assert len(set(superpixels(pixels, 1, 2, 2))) < 3


@pytest.mark.parametrize("sizes", GROUPED)
def test_a_group_is_taken_away_as_a_whole(sizes, rng):
    embedder = TransformerEmbedder(tiny_models.image_pair("dinov2"), layer=1, crop="whole")
    inputs = ModelInputs(embedder, [(255 * quarters(56, 84)).astype(np.uint8)])
    unit = Unit(sizes["unit"], **{k: v for k, v in sizes.items() if k != "unit"})
    grouped = perturbation(inputs, 0, baseline="mean", unit=unit)
    single = perturbation(inputs, 0, baseline="mean", unit=Unit())
    assert 1 < grouped.n_players < single.n_players == len(grouped.players)
    masks = rng.random((5, grouped.n_players)) < 0.5
    for one, other in zip(
        grouped.copies.batch(masks), single.copies.batch(masks[:, grouped.players]), strict=True
    ):
        if isinstance(one, dict):
            one, other = one["pixel_values"].numpy(), other["pixel_values"].numpy()
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def padding():
    """Pads images to four rows and columns of patches."""
    model, _ = tiny_models.image_pair("vit")
    processor = transformers.BitImageProcessorPil(
        size={"max_height": 28, "max_width": 28},
        do_center_crop=False,
        do_pad=True,
        pad_size={"height": 28, "width": 28},
    )
    return TransformerEmbedder((model, processor), layer=2)


def test_padding_belongs_to_no_player(padding):
    wide = (255 * quarters(28, 28)[:14]).astype(np.uint8)  # two of four rows of patches
    for sizes in ({"name": "grid", "cell_size": 2}, {"name": "segments", "n_segments": 2}):
        inputs = ModelInputs(padding, [wide])
        players = perturbation(inputs, 0, baseline="mean", unit=Unit(**sizes)).players
        assert players.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_the_image_whose_grid_is_too_small_is_named(padding):
    inputs = ModelInputs(
        padding, [np.zeros((28, 28, 3), np.uint8), np.zeros((14, 28, 3), np.uint8)]
    )
    assert inputs.players(0, Unit("grid", 3)).max() == 3
    message = "^sample 1: cell_size=3 is larger than the grid of 2 x 4 patches; use 2 or less"
    with pytest.raises(ValueError, match=message):
        inputs.players(1, Unit("grid", 3))


@pytest.mark.parametrize("sizes", GROUPED)
@pytest.mark.parametrize("method", ON_GAMES)
def test_a_method_gives_each_patch_the_score_of_its_player(method, sizes, shapes, ranks):
    fitted = shapes.fitted(method, n_masks=64, **sizes)
    maps = fitted.transform(shapes.samples)
    for game, values in zip(fitted.games(shapes.samples), maps, strict=True):
        assert 1 < game.n_players < 64 == len(game.players)
        for player in range(game.n_players):
            assert len(np.unique(values[game.players == player], axis=0)) == 1
        assert len(np.unique(values, axis=0)) == game.n_players
    found = ranks(maps, shapes.labels)
    assert found.mean() > 0.5 + 2 * found.std() / np.sqrt(len(found))


def test_squares_of_one_patch_are_patches(shapes):
    few = shapes.samples[:2]
    fitted = shapes.fitted("rise", n_masks=70)
    expected = fitted.transform(few).flat()
    fitted.set_params(method__unit="grid", method__cell_size=1)
    np.testing.assert_array_equal(fitted.transform(few).flat(), expected)
    fitted.set_params(method__cell_size=2)
    assert np.abs(fitted.transform(few).flat() - expected).max() > 1e-3


def test_games_take_sizes_of_the_method_or_others(shapes):
    def n_players(method, **options):
        localizer = clone(shapes.localizer()).set_params(method=method)
        return next(localizer.games(shapes.samples[:1], **options)).n_players

    assert n_players(DirectAlignment(), unit="grid") == n_players(RISE(unit="grid")) == 16
    assert n_players(RISE(unit="grid", cell_size=4)) == 4
    assert n_players(RISE(unit="grid", cell_size=4), cell_size=8) == 1
    assert n_players(RISE(), unit="segments", n_segments=4) <= 8


@pytest.mark.parametrize(
    ("case", "settings", "message"),
    [
        ("shapes", {"unit": "word"}, r"unit='word' is not for images; use one of \('token', 'grid"),
        ("texts", {"unit": "grid"}, r"unit='grid' is not for texts; use one of \('token', 'word'"),
        ("texts", {"unit": "segments"}, "unit='segments' is not for texts"),
        ("shapes", {"unit": "grid", "cell_size": 9}, "sample 0: cell_size=9 .* 8 x 8 patches; use"),
        ("shapes", {"unit": "grid", "n_masks": 16}, "n_masks=16 is too small: sample 0 has 16 pl"),
    ],
)
def test_units_that_do_not_fit_the_samples(case, settings, message, request):
    case = request.getfixturevalue(case)
    with pytest.raises(ValueError, match=message):
        case.localizer("rise", **settings).fit(case.samples, case.y)


@pytest.mark.parametrize("name", ["cell_size", "n_segments"])
@pytest.mark.parametrize("value", [0, -2, 1.5, True, "4"])
def test_sizes_that_are_none(name, value, shapes):
    with pytest.raises(ValueError, match=f"'{name}' parameter of RISE must be"):
        resolve_method(RISE(**{name: value}))
    with pytest.raises(ValueError, match=f"'{name}' parameter of ConceptLocalizer.games must be"):
        next(shapes.localizer().games(shapes.samples, **{name: value}))


def test_every_unit_is_of_a_modality():
    assert set(UNITS) == {"text", "image"}
    with pytest.raises(ValueError, match=r"unit must be one of \('token', 'grid', 'segments', 'wo"):
        Unit("letter")
