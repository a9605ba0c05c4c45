import numpy as np
import pytest

from skact.datasets._regions import Region, paint, read_corners, read_runs, read_size


def polygons(n):
    rng = np.random.default_rng(0)
    for i in range(n):
        size = tuple(int(s) for s in rng.integers(1, 40, 2))
        corners = rng.normal(0.5, 0.6, (rng.integers(3, 9), 2)) * size[::-1]
        yield size, corners.round() if i % 3 == 0 else corners


# Of pycocotools itself, under numpy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
def test_polygons_are_those_of_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    n_pixels = 0
    for size, corners in polygons(300):
        both = [corners.ravel().tolist(), (corners[::-1] + 3).ravel().tolist()]
        expected = coco.decode(coco.merge(coco.frPyObjects(both, *size))).astype(bool)
        region = Region(("x",), tuple(read_corners(points, size, "") for points in both))
        np.testing.assert_array_equal(paint(region, size), expected)
        n_pixels += expected.sum()
    assert n_pixels > 1000


@pytest.mark.parametrize("size", [False, None, 5, [10], {"a": 1}])
def test_run_lengths_of_another_size_are_refused(size):
    assert read_runs({"counts": [120], "size": [10, 12]}, (10, 12), "AT").tolist() == [120]
    with pytest.raises(ValueError, match="AT: run lengths must be of the image's size"):
        read_runs({"counts": [120], "size": size}, (10, 12), "AT")


def test_run_lengths_are_those_of_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for i in range(100):
        mask = rng.random(rng.integers(1, 60, 2)) < i / 99
        packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        rle = {"size": packed["size"], "counts": packed["counts"].decode()}
        runs = read_runs(rle, mask.shape, "")
        np.testing.assert_array_equal(paint(Region((), runs=runs), mask.shape), mask)
        unpacked = {"size": packed["size"], "counts": runs.tolist()}
        np.testing.assert_array_equal(read_runs(unpacked, mask.shape, ""), runs)


def test_a_rectangle_and_a_column():
    square = Region((), (np.array([[1.0, 0], [3, 0], [3, 2], [1, 2]]),))
    assert paint(square, (3, 4)).astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0] * 4]
    runs = read_runs({"counts": [1, 2, 3]}, (3, 2), "")  # down the columns
    assert paint(Region((), runs=runs), (3, 2)).astype(int).tolist() == [[0, 0], [1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"counts": [1, 2]}, "AT: run lengths add up to 3, not to 2x2"),
        ({"counts": [5, -1]}, "'counts' must be run lengths"),
        ({"counts": "~"}, "'~' cannot stand in"),
        ({"counts": "Q"}, "end in the middle of a number"),
        ({"counts": "o" * 99}, "cannot stand in"),
        ({"counts": [4], "size": [1, 4]}, "of the image's size"),
        ([4], "of the image's size"),
    ],
)
def test_damaged_run_lengths_are_named(rle, message):
    with pytest.raises(ValueError, match=message):
        read_runs(rle, (2, 2), "AT")


@pytest.mark.parametrize(
    "points",
    [
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5, 6, 7],
        [[1, 2], [3]],
        "abcdef",
        [10**400] * 6,
        ["1"] * 6,
        [True] * 6,
    ],
)
def test_damaged_polygons_are_named(points):
    with pytest.raises(ValueError, match="AT: a polygon must be 3 corners"):
        read_corners(points, (10, 12), "AT")


@pytest.mark.parametrize("far", [1e9, -121, 133, np.nan, np.inf, 1e308])
def test_corners_far_outside_are_refused(far):
    near = [-120, 132, 5, 5, 1, 1]
    assert read_corners(near, (10, 12), "AT").tolist() == [[-120, 132], [5, 5], [1, 1]]
    with pytest.raises(ValueError, match=r"AT: the corner .* of a polygon is far outside"):
        read_corners([*near[:5], far], (10, 12), "AT")


@pytest.mark.parametrize("size", [(0, 1), (1, None), (2**20, 2**20), (True, 1), (1.0, 1)])
def test_damaged_sizes_are_named(size):
    with pytest.raises(ValueError, match="AT"):
        read_size(*size, "AT")
