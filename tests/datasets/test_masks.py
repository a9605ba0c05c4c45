import json
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split

from skact.datasets import MaskFiles, load_masks

CLASSES = {"ignore": 255, "background": 0, "classes": {"10": "sky", "2": "cat", "3": "dog"}}
VALUES = {"cat": 2, "dog": 3, "sky": 10}
SPLITS = ["train", "train", "cal", "test"]


@pytest.fixture
def folder(tmp_path):
    """Write four images of different sizes whose masks hold random classes."""
    rng = np.random.RandomState(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    lines = []
    for i, split in enumerate(SPLITS):
        size = (5 + i, 7)
        pixels = rng.choice([0, 255, *rng.choice([2, 3, 10], size=2)], size=size).astype(np.uint8)
        Image.new("RGB", size[::-1]).save(tmp_path / f"images/{i}.png")
        mask = Image.fromarray(pixels)
        if i % 2:
            mask = Image.fromarray(pixels).convert("P")
            mask.putdata(pixels.ravel().tolist())
            mask.putpalette([0, 0, 0] * 256)
        mask.save(tmp_path / f"masks/{i}.png")
        labels = [name for name, value in VALUES.items() if (pixels == value).any()]
        lines.append(
            {
                "id": f"p{i}",
                "image": f"images/{i}.png",
                "mask": f"masks/{i}.png",
                "width": 7,
                "height": 5 + i,
                "labels": labels,
                "split": split,
            }
        )
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES), encoding="utf-8")
    write_index(tmp_path, lines)
    return tmp_path


def write_index(folder, lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "index.jsonl").write_text(text + "\n", encoding="utf-8")


def read_index(folder):
    return [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]


def stored(folder, i):
    with Image.open(folder / f"masks/{i}.png") as image:
        return np.array(image)


def test_masks_are_the_stored_classes(folder):
    photos = load_masks(folder)
    assert photos.target_names == [
        "cat",
        "dog",
        "sky",
    ]  # by value, not by name or place in the file
    assert photos.data == [str(folder / f"images/{i}.png") for i in range(4)]
    assert photos.split.tolist() == SPLITS
    assert photos.ids == ["p0", "p1", "p2", "p3"]
    assert {Image.open(path).mode for path in photos.masks.paths} == {"L", "P"}
    for i, mask in enumerate(photos.masks):
        pixels = stored(folder, i)
        assert mask.dtype == bool
        assert mask.shape == (5 + i, 7, 3)
        for channel, value in enumerate([2, 3, 10]):
            np.testing.assert_array_equal(mask[:, :, channel], pixels == value)
        # Unlabelled and background pixels belong to no concept, all others to exactly one.
        assert (mask.sum(axis=2) == ~np.isin(pixels, [0, 255])).all()
        np.testing.assert_array_equal(photos.target[i], mask.any(axis=(0, 1)))
    assert photos.target.dtype == np.int64


def test_named_background_and_unlabelled_pixels_are_no_concepts(folder):
    named = CLASSES | {"classes": CLASSES["classes"] | {"0": "background", "255": "void"}}
    (folder / "classes.json").write_text(json.dumps(named))
    lines = read_index(folder)
    lines[0]["labels"].append("background")
    write_index(folder, lines)
    photos = load_masks(folder)
    assert photos.target_names == ["cat", "dog", "sky"]
    assert photos.masks[0].shape == (5, 7, 3)


def test_a_split_and_concepts_select_rows_and_channels(folder):
    everything, photos = (
        load_masks(folder),
        load_masks(folder, split="test", concepts=["sky", "cat"]),
    )
    assert photos.target_names == ["sky", "cat"]
    assert photos.data == everything.data[3:]
    np.testing.assert_array_equal(photos.masks[0], everything.masks[3][:, :, [2, 0]])
    np.testing.assert_array_equal(photos.target, everything.target[3:, [2, 0]])


def test_a_relative_folder_gives_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    photos = load_masks(folder.name)
    assert all(os.path.isabs(path) for path in [*photos.data, *photos.masks.paths])


def test_nothing_is_decoded_before_it_is_asked_for(folder):
    for i in range(3):
        (folder / f"masks/{i}.png").write_bytes(b"no image")
    masks = load_masks(folder).masks
    chosen = masks[1:][[True, False, True]][np.array([1, 0])]
    assert chosen[0].shape == (8, 7, 3)
    with pytest.raises(ValueError, match=r"masks.1\.png cannot be read as an image"):
        chosen[1]


def test_indexing_agrees_with_a_list(folder):
    masks = load_masks(folder).masks
    arrays = list(masks)
    assert len(masks) == len(arrays) == 4
    keys = [slice(None), slice(3, 0, -2), slice(9, 9)]
    for key in keys:
        assert_same(masks[key], arrays[key])
    for rows in ([2, 0, 2], np.array([-1, 1]), [], np.array([], dtype=int)):
        assert_same(masks[rows], [arrays[row] for row in rows])
    assert_same(masks[np.array([True, False, False, True])], [arrays[0], arrays[3]])
    np.testing.assert_array_equal(masks[-1], arrays[3])
    np.testing.assert_array_equal(masks[np.int64(2)], arrays[2])


def assert_same(masks, arrays):
    assert isinstance(masks, MaskFiles)
    assert len(masks) == len(arrays)
    for mask, array in zip(masks, arrays, strict=True):
        np.testing.assert_array_equal(mask, array)


@pytest.mark.parametrize("key", [4, -5, [0, 4], [True], np.zeros((2, 2), dtype=int), "a", 1.0])
def test_indices_that_do_not_exist_are_refused(folder, key):
    with pytest.raises(IndexError):
        load_masks(folder).masks[key]


def test_scikit_learn_splits_masks_without_decoding(folder):
    photos = load_masks(folder)
    for path in photos.masks.paths:
        Path(path).unlink()
    train, test, y_train, _ = train_test_split(photos.masks, photos.ids, random_state=0)
    assert isinstance(train, MaskFiles)
    assert [Path(path).stem for path in train.paths] == [name[1:] for name in y_train]
    with pytest.raises(FileNotFoundError, match="no mask"):
        test[0]


def test_sizes_must_match_paths():
    with pytest.raises(ValueError, match="2 paths and 1 sizes"):
        MaskFiles(["a", "b"], [1], sizes=[(1, 1)])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (7, 5), 77), r"holds the value 77, which is no class"),
        (Image.new("RGB", (7, 5)), "got mode 'RGB'"),
        (Image.new("L", (5, 7)), r"\(7, 5\), expected \(5, 7\)"),
    ],
)
def test_bad_masks_are_named_when_read(folder, image, message):
    image.save(folder / "masks/0.png")
    masks = load_masks(folder).masks
    with pytest.raises(ValueError, match=rf"0\.png .*{message}"):
        masks[0]


def claims(path, width, height):
    """A PNG whose header says another size than its pixels have."""
    Image.new("L", (7, 5)).save(path)
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (None, r"0\.png cannot be read as an image: \d+ bytes claim a size of 144000000"),
        ([(5, 7)], r"0\.png cannot be read as an image: \d+ bytes claim a size"),
    ],
)
def test_claimed_sizes_are_judged_before_they_take_memory(tmp_path, sizes, message):
    claims(tmp_path / "0.png", 12000, 12000)
    masks = MaskFiles([tmp_path / "0.png"], [1], sizes=sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(ValueError, match=message):
            masks[0]
    claims(tmp_path / "0.png", 50000, 50000)
    with pytest.raises(ValueError, match=r"cannot be read as an image: Image size .* exceeds"):
        masks[0]
    # The control: a large image of one colour is read.
    Image.new("L", (5000, 4000), 1).save(tmp_path / "0.png")
    assert MaskFiles([tmp_path / "0.png"], [1])[0].all()


def test_links_do_not_lead_out_of_the_folder(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("L", (7, 6), 2).save(outside)
    (folder / "masks/1.png").unlink()
    (folder / "masks/1.png").symlink_to("3.png")
    assert len(load_masks(folder).data) == 4
    (folder / "masks/1.png").unlink()
    (folder / "masks/1.png").symlink_to(outside)
    with pytest.raises(ValueError, match=r"line 2: 'mask' must be a path inside .*secret\.png"):
        load_masks(folder)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("{", ValueError, "not JSON"),
        ({"labels": ["cow"]}, ValueError, "label 'cow' is no class"),
        ({"labels": [["cat"]]}, ValueError, "is no class"),
        ({"labels": "cat"}, ValueError, "'labels' must be a list"),
        ({"split": "dev"}, ValueError, "'split' must be one of"),
        ({"id": "p0"}, ValueError, "id 'p0' is that of .*line 1"),
        ({"width": "7"}, ValueError, "must be integers"),
        ({"image": "../1.png"}, ValueError, "must be a path inside the folder"),
        ({"mask": "masks/../../1.png"}, ValueError, "must be a path inside the folder"),
        ({"mask": "/etc/hosts"}, ValueError, "must be a path inside the folder"),
        ({"mask": ""}, ValueError, "must be a path inside the folder"),
        ({"image": "images/none.png"}, FileNotFoundError, r"no file .*none\.png"),
        ({"mask": 3}, ValueError, "'mask' must be a string"),
    ],
)
def test_bad_lines_are_named(folder, change, error, message):
    (folder.parent / "1.png").touch()
    lines = read_index(folder)
    lines[1] = change if isinstance(change, str) else lines[1] | change
    write_index(folder, lines)
    with pytest.raises(error, match=rf"index\.jsonl, line 2: .*{message}"):
        load_masks(folder, split="test")


def test_an_absolute_path_is_refused_even_inside_the_folder(folder):
    lines = read_index(folder)
    lines[3]["image"] = str(folder / lines[3]["image"])
    write_index(folder, lines)
    with pytest.raises(ValueError, match=r"line 4: 'image' must be a path inside the folder"):
        load_masks(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 10**5, "nested more than 100 deep, at column 101"),
        ("[]", "'classes' must be an object"),
        ('{"classes": {}}', "'classes' must be an object"),
        ('{"classes": {"256": "cat"}}', "'256' is no pixel value"),
        ('{"classes": {"x": "cat"}}', "'x' is no pixel value"),
        ('{"classes": {"1": "cat", "2": "cat"}}', "a name of its own, got 'cat'"),
        ('{"classes": {"1": 5}}', "a name of its own, got 5"),
        ('{"classes": {"1": "cat"}, "ignore": "x"}', "must be pixel values"),
    ],
)
def test_bad_classes_are_refused(folder, text, message):
    (folder / "classes.json").write_text(text)
    with pytest.raises(ValueError, match=rf"classes\.json: .*{message}"):
        load_masks(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "'split' parameter of load_masks"),
        ({"concepts": ["cow"]}, "no concept 'cow'"),
    ],
)
def test_bad_arguments_are_refused(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_masks(folder, **arguments)


@pytest.mark.parametrize("name", ["classes.json", "index.jsonl", "masks/2.png"])
def test_missing_files_are_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_masks(folder)


def test_real_photographs(data_folder):
    photos = load_masks(data_folder("msrcv2"))
    assert photos.target.shape == (587, 22)
    assert photos.target_names[:3] == ["building", "grass", "tree"]
    assert [(photos.split == split).sum() for split in ("train", "cal", "test")] == [347, 116, 124]
    for i in range(0, 587, 40):
        mask = photos.masks[i]
        with Image.open(photos.data[i]) as image:
            assert image.size == mask.shape[1::-1]
        np.testing.assert_array_equal(mask.any(axis=(0, 1)), photos.target[i])
        assert mask.sum(axis=2).max() == 1
