import io
from collections import UserDict, UserList, deque

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skact import TokenArray
from skact.samples import as_list, image_size, open_image


class Reads:
    """A column of a library of tables that lists its items by one method."""

    def __init__(self, name, ndim=None):
        setattr(self, name, lambda: ["a", "b"])
        if ndim is not None:
            self.ndim = ndim

    def __len__(self):
        return 2


class Items:
    """A column that has items and a length, as one read from a file part by part."""

    def __init__(self, ends=True):
        self.ends = ends

    def __len__(self):
        return 2

    def __getitem__(self, i):
        if i > 1 and self.ends:
            raise IndexError
        return ("a", "b")[i % 2]


class Table:
    """A table whose columns are taken by name."""

    def __init__(self, attribute, names):
        setattr(self, attribute, names)
        self.shape = 2, len(names)
        self.names = names

    def __len__(self):
        return 2

    def __getitem__(self, name):
        assert name in self.names
        return Reads("to_list", ndim=1)


class Endless:
    """Has columns, and no length before it is computed."""

    columns = ["t"]

    def __getitem__(self, name):
        raise AssertionError


@pytest.mark.parametrize(
    "X",
    [
        Reads("to_pylist"),
        Reads("to_list"),
        Reads("tolist"),
        Reads("tolist", ndim=1),
        Items(),
        Items(ends=False),
        Table("columns", ["t"]),
        Table("column_names", ["t"]),
        pd.DataFrame({"t": ["a", "b"]}),
        pd.DataFrame({7: ["a", "b"]}, index=[1, 1]),
        pd.Series(["a", "b"], dtype="category"),
        pd.Series(["a", "b"], dtype="string"),
        pd.Index(["a", "b"]),
        pd.array(["a", "b"], dtype="string"),
        np.array([["a"], ["b"]]),
        np.array([["a"], ["b"]], dtype=object),
        np.array(["a", "b"], dtype=np.dtypes.StringDType()),
        deque(["a", "b"]),
        UserList(["a", "b"]),
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        pd.Series(["a", "b"]),
        pd.Series(["a", "b"], dtype=object, index=[7, 3]),
    ],
)
def test_every_container_gives_the_same_samples(X):
    assert as_list(X) == ["a", "b"]


def test_missing_texts_keep_their_place():
    given = pd.Series(["a", None, "b"], dtype="string")
    for X in (given, given.to_frame(), given.array):
        listed = as_list(X)
        assert (listed[0], listed[2]) == ("a", "b")
        assert not isinstance(listed[1], str)


def test_a_4d_array_is_a_list_of_images():
    X = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    for given, listed in zip(X, as_list(X), strict=True):
        np.testing.assert_array_equal(given, listed)


def test_an_image_is_the_same_in_every_form(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    forms = [
        pixels,
        pixels / 255,
        Image.fromarray(pixels),
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
    ]
    for form in forms:
        np.testing.assert_array_equal(np.asarray(open_image(form, 0)), pixels)
        assert image_size(form, 0) == (5, 7)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_every_form_of_a_photograph_is_turned_upright(orientation, suffix, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    stored = np.asarray(Image.open(path)) if suffix == "jpg" else pixels  # which loses something
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(stored),
    }[orientation]
    opened, loaded = Image.open(path), Image.open(path)
    loaded.load()
    forms = [path, str(path), opened, loaded, io.BytesIO(path.read_bytes()), opened.convert("RGB")]
    for form in forms:
        for _ in range(2):  # reading changes nothing
            assert image_size(form, 0) == upright.shape[:2]
            np.testing.assert_array_equal(np.asarray(open_image(form, 0)), upright)
    # What is upright stays so.
    again = open_image(open_image(opened, 0), 0)
    np.testing.assert_array_equal(np.asarray(again), upright)


def test_an_open_file_is_read_from_its_beginning_and_left_open(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    with open(tmp_path / "image.png", "rb") as file:
        file.seek(20)
        assert image_size(file, 0) == (5, 7)
        for _ in range(2):
            np.testing.assert_array_equal(np.asarray(open_image(file, 0)), pixels)


def _closed(folder):
    """An image whose file was closed before it was read."""
    Image.new("RGB", (3, 3)).save(folder / "closed.png")
    with Image.open(folder / "closed.png") as image:
        return image


def _closed_bytes(folder):
    file = io.BytesIO((folder / "big.png").read_bytes())
    file.close()
    return file


def _in_text_mode(folder):
    return open(folder / "big.png")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f / "big.png", "sample 4: .*big.png' has more pixels.*MAX_IMAGE_PIXELS"),
        (lambda f: io.BytesIO((f / "big.png").read_bytes()), "sample 4: .*BytesIO has more pixels"),
        (lambda f: io.BytesIO(b"no image"), "sample 4: .*BytesIO cannot be read.*binary mode"),
        (_closed, "sample 4: .*PngImageFile cannot be read.*paths always can be"),
        (_closed_bytes, "sample 4: .*BytesIO cannot be read.*closed file"),
        (_in_text_mode, "sample 4: .*TextIOWrapper cannot be read.*binary mode"),
        (lambda f: b"bytes", "sample 4 must be an image: a path, a file open in binary mode"),
        (lambda f: Image.new("La", (3, 3)), "sample 4 has the mode 'La', which PIL cannot convert"),
        (lambda f: Image.new("RGB", (0, 5)), "sample 4 is an image of height 5 and width 0"),
        (lambda f: np.zeros((5, 0, 3), np.uint8), r"sample 4 must be an image.*\(5, 0, 3\)"),
    ],
)
@pytest.mark.parametrize("read", [open_image, image_size])
def test_images_that_cannot_be_used(read, make, message, tmp_path, monkeypatch):
    Image.new("RGB", (30, 30)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    image = make(tmp_path)
    with pytest.raises(ValueError, match=message):
        read(image, 4)
    if hasattr(image, "close"):
        image.close()


def test_alpha_is_laid_over_white():
    clear = np.zeros((2, 2, 4), np.uint8)
    assert np.asarray(open_image(clear, 0)).min() == 255
    clear[..., 3] = 255
    assert np.asarray(open_image(clear, 0)).max() == 0


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("one text", "got a single str: 'one text'"),
        (b"bytes", "got a single bytes"),
        ([], "X has no samples"),
        (7, "got int"),
        (np.zeros((2, 3)), r"of shape \(2, 3\)"),
        (np.zeros((2, 1)), r"of shape \(2, 1\)"),
        (np.array([["a", "b"]]), r"of shape \(1, 2\)"),
        (np.array("a"), r"of shape \(\)"),
        (Reads("to_list", ndim=2), "got Reads"),
        (TokenArray(np.ones((2, 3), np.float32), [0, 2]), r"TokenArray of shape \(1, 3\)"),
        (pd.DataFrame({"a": ["b"], "c": ["d"]}), r"table of 2 columns, \['a', 'c'\]; pass the one"),
        (Table("column_names", ["a", "b"]), r"table of 2 columns, \['a', 'b'\]"),
        (pd.DataFrame({"a": []}), "X has no samples"),
        (pd.DataFrame(index=[1, 2]), "table of 0 columns"),
        ({"a": 1}, "got dict"),
        (UserDict(a=1), "got UserDict"),
        ({"a"}, "got set"),
        (frozenset("a"), "got frozenset"),
        ({"a": 1}.keys(), "got dict_keys"),
        ((text for text in "ab"), r"got a generator, which is read once; pass list\(X\)"),
        (iter(["a"]), "read once"),
        (map(str, "ab"), "got a map, which is read once"),
        (None, "got NoneType"),
        (Endless(), "got Endless"),
    ],
)
def test_bad_containers(X, message):
    with pytest.raises(ValueError, match=message):
        as_list(X)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nowhere.png", "sample 4: the image 'nowhere.png' cannot be read.*modality=\"text\""),
        (np.zeros((2, 2, 5), np.uint8), "sample 4 must be an image"),
        (np.full((2, 2), 3.0), r"sample 4 .* must lie in \[0, 1\]"),
        (np.zeros((2, 2), np.int32), "sample 4 must be of dtype uint8"),
        (Image.new("F", (2, 2)), "sample 4 has the mode 'F'"),
    ],
)
@pytest.mark.parametrize("read", [open_image, image_size])
def test_bad_images(read, image, message):
    with pytest.raises(ValueError, match=message):
        read(image, 4)


def test_a_claimed_size_is_judged_before_it_takes_memory(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (6000, 4000), "red").save(path)
    assert open_image(path, 0).size == (6000, 4000)
    header = path.read_bytes()[:100]
    path.write_bytes(header)
    with pytest.raises(ValueError, match=r"sample 3: .*a\.png.*100 bytes claim a size of 24000000"):
        image_size(path, 3)
