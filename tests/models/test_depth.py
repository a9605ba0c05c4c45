import numpy as np
import pytest

from skact.models._depth import depth_to_block, resolve_layers


def test_depth_to_block_equals_the_reference(reference):
    ref = reference("ref_percent_to_layer")
    found = [
        depth_to_block(p / 100, n) for p, n in zip(ref["in_percent"], ref["in_total"], strict=True)
    ]
    np.testing.assert_array_equal(found, ref["out_layer"])
    grid = [[depth_to_block(p / 100, n) for p in range(101)] for n in ref["in_totals_grid"]]
    np.testing.assert_array_equal(grid, ref["out_layer_grid_0_100"])


def test_depth_of_the_published_models():
    assert [depth_to_block(p / 100, 24) for p in (4, 25, 46, 67, 88, 100)] == [0, 5, 10, 15, 20, 23]
    assert [depth_to_block(f, 1) for f in (0, 0.5, 1)] == [0, 0, 0]


@pytest.mark.parametrize("fraction", [-0.01, 1.01, float("nan")])
def test_depth_outside_the_model_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction"):
        depth_to_block(fraction, 4)


def test_depth_needs_a_block():
    with pytest.raises(ValueError, match="n_blocks"):
        depth_to_block(0.5, 0)


@pytest.mark.parametrize(
    ("layer", "blocks", "many"),
    [
        (0, [0], False),
        (3, [3], False),
        (-1, [3], False),
        (-4, [0], False),
        (np.int64(2), [2], False),
        (1.0, [3], False),
        (0.5, [1], False),
        (np.float32(0.75), [2], False),
        ([2], [2], True),
        ((-1, 0), [0, 3], True),
        (np.array([0.25, 0.5]), [0, 1], True),
        ([0.01, 0.02, 1.0, -1, 3], [0, 3], True),
        (range(4), [0, 1, 2, 3], True),
    ],
)
def test_layers_resolve_to_distinct_ascending_blocks(layer, blocks, many):
    assert resolve_layers(layer, 4) == (blocks, many)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (4, "layer 4 .* 4 blocks"),
        (-5, "layer -5 .* 4 blocks"),
        (0.0, r"layer 0.0 .*\(0, 1\].* 4 blocks"),
        (1.5, r"layer 1.5 .*\(0, 1\]"),
        (float("nan"), r"layer nan .*\(0, 1\]"),
        (True, "bool"),
        (np.True_, "bool"),
        ([0, 9], "layer 9 .* 4 blocks"),
        ([[0]], r"Got \[0\]"),
        ([], "empty"),
        ("all", "4 blocks. Got 'all'"),
        (None, "Got None"),
    ],
)
def test_unknown_layers_are_named(layer, message):
    with pytest.raises(ValueError, match=message):
        resolve_layers(layer, 4)
