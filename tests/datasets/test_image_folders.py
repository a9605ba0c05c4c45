import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from skact.datasets import load_labelme, load_mask_folder, load_voc
from tests.datasets.formats import (
    labelme,
    picture,
    write,
    write_labelme,
    write_mask_folder,
    write_voc,
)


def rows(mask):
    return mask.astype(int).tolist()


# Pascal VOC


def test_voc_classes(tmp_path):
    data = load_voc(write_voc(tmp_path))
    assert data.split.tolist() == ["train", "cal"]
    assert len(data.target_names) == 20
    assert data.target.sum(axis=1).tolist() == [2, 0]
    only = load_voc(tmp_path, concepts=["dog", "aeroplane"])
    assert rows(only.masks[0][:, :, 0]) == [[0, 0, 0, 0, 1, 1]] * 4
    assert rows(only.masks[0][:, :, 1]) == [[0, 1, 1, 0, 0, 0]] * 4


def test_voc_boxes_count_pixels_from_one(tmp_path):
    data = load_voc(write_voc(tmp_path), regions="boxes")
    assert data.target_names == ["dog"]
    assert data.target.tolist() == [[1], [0]]
    assert rows(data.masks[0][:, :, 0]) == [[0, 1, 1, 0, 0, 0]] * 2 + [[0] * 6] * 2
    for path in (tmp_path / "ImageSets/Main").iterdir():
        path.unlink()
    assert load_voc(tmp_path, regions="boxes").ids == ["a", "b"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>dog</name>", "", "object 1: it has no name"),
        ("<xmax>3", "<xmax>7", "object 1: the box .* leaves an image"),
        ("<ymin>1", "<ymin>x", "object 1: bndbox/ymin must be a number of pixels, got 'x'"),
        ("<height>4", "<height>0", "leaves an image|height and width"),
        ("</annotation>", "", "not XML .*line 1"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "<!DOCTYPE are not read"),
    ],
)
def test_damaged_boxes_are_named(tmp_path, old, new, message):
    path = write_voc(tmp_path) / "Annotations/a.xml"
    write(path, path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=r"a\.xml.*" + message):
        load_voc(tmp_path, regions="boxes")


def test_photos_may_be_png(tmp_path):
    root = write_voc(tmp_path)
    (root / "JPEGImages/a.jpg").rename(root / "JPEGImages/a.png")
    data = load_voc(root, regions="boxes")
    assert data.data[0].endswith("JPEGImages/a.png")
    assert data.data[1].endswith("JPEGImages/b.jpg")
    (root / "JPEGImages/a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.jpg"):
        load_voc(root, regions="boxes")


def test_a_folder_of_the_other_kind_is_named(tmp_path):
    boxes = write_voc(tmp_path / "voc")
    shutil.rmtree(boxes / "SegmentationClass")
    shutil.rmtree(boxes / "ImageSets")
    with pytest.raises(ValueError, match=r"It has Annotations/\*\.xml: regions='boxes' reads them"):
        load_voc(boxes)
    picture(tmp_path / "photos/a.png")
    with pytest.raises(ValueError, match=r"photos has no Annotations/\*\.xml\.$"):
        load_voc(tmp_path / "photos", regions="boxes")


def test_lists_name_what_is_inside_and_only_once(tmp_path):
    path = write_voc(tmp_path / "voc") / "ImageSets/Segmentation/val.txt"
    write(path, "\na\n")
    with pytest.raises(ValueError, match=r"val\.txt, line 2: a is in .*train\.txt, line 1"):
        load_voc(tmp_path / "voc")
    picture(tmp_path / "c.jpg")
    write(path, "../../c\n")
    with pytest.raises(ValueError, match=r"val\.txt, line 1 must be a path inside the folder"):
        load_voc(tmp_path / "voc")
    picture(tmp_path / "voc/SegmentationClass/a.png", values=[[21] * 6] * 4)
    with pytest.raises(ValueError, match=r"a\.png holds the value 21, which is no class"):
        load_voc(tmp_path / "voc")


# LabelMe


def test_labelme_shapes(tmp_path):
    data = load_labelme(write_labelme(tmp_path))
    assert data.target_names == ["cat", "dog", "sun"]
    assert data.ids == ["sub/a"]
    mask = data.masks[0]
    assert rows(mask[:, :, 0]) == [[0, 1, 1, 0, 0, 0]] * 2 + [[0] * 6] * 2
    assert rows(mask[:, :, 1]) == [[0] * 6] * 3 + [[0, 0, 0, 0, 1, 0]]
    y, x = np.mgrid[:4, :6] + 0.5
    np.testing.assert_array_equal(mask[:, :, 2], np.hypot(x - 3, y - 2) < 1.5)


def mask_shape(left=1, top=2):
    """A mask of 2 x 3 pixels, as LabelMe writes it, with a corner free."""
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 255, 255], [255, 255, 255]], np.uint8)).save(file, "PNG")
    mask = base64.b64encode(file.getvalue()).decode()
    points = [[left, top], [left + 2, top + 1]]
    return {"label": "a", "shape_type": "mask", "points": points, "mask": mask}


def test_masks_of_labelme_lie_in_their_box(tmp_path):
    content = labelme() | {"shapes": [mask_shape(), mask_shape(0, 0) | {"label": "b"}]}
    mask = load_labelme(write_labelme(tmp_path, content)).masks[0]
    assert rows(mask[:, :, 0]) == [[0] * 6] * 2 + [[0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0]]
    assert rows(mask[:, :, 1]) == [[0, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]] + [[0] * 6] * 2


def test_lines_are_left_out_and_told(tmp_path):
    content = labelme()
    content["shapes"][1]["shape_type"] = "line"
    with pytest.warns(UserWarning, match="1 shapes of .* are lines or points"):
        assert load_labelme(write_labelme(tmp_path, content)).target_names == ["cat", "sun"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imagePath": "../../x.png"}, "'imagePath' must be a path inside the folder"),
        ({"imagePath": None}, "is not of LabelMe"),
        ({"imageWidth": "6"}, "height and width"),
        ({"shapes": [3]}, "shape 1: 'label' must be a text"),
        ({"shapes": [{"label": "a", "points": [[1, 2]]}]}, "shape 1: a polygon must be 3 corners"),
        ({"shapes": [{"label": "a", "shape_type": "mask"}]}, "shape 1: the mask must be a PNG"),
        ({"shapes": [mask_shape() | {"mask": "@"}]}, "shape 1: the mask must be a PNG"),
        ({"shapes": [mask_shape() | {"mask": "AAAA"}]}, "shape 1: the mask must be a PNG"),
        ({"shapes": [mask_shape() | {"points": []}]}, "shape 1: the mask must be a PNG"),
        ({"shapes": [mask_shape(left=float("inf"))]}, "shape 1: the mask must be a PNG"),
        ({"shapes": [mask_shape(left=4)]}, "shape 1: a mask 2x3 at .* leaves the image"),
        ({"shapes": [mask_shape(left=-1)]}, "shape 1: a mask 2x3 at .* leaves the image"),
        ({"shapes": [{"label": "a", "shape_type": "cube"}]}, "shape 1: shapes of type 'cube'"),
        ({"shapes": [{"label": "a", "shape_type": "circle"}]}, "shape 1: a circle must have 2"),
    ],
)
def test_damaged_shapes_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=r"a\.json.*" + message):
        load_labelme(write_labelme(tmp_path, labelme() | change))


# Plain folders


def test_masks_by_value_and_by_concept_say_the_same(tmp_path):
    write_mask_folder(tmp_path)
    classes = {1: "cat", 2: "dog"}
    by_value = load_mask_folder(tmp_path / "images", tmp_path / "values", classes=classes)
    by_concept = load_mask_folder(tmp_path / "images", tmp_path / "concepts")
    for data in (by_value, by_concept):
        assert data.target_names == ["cat", "dog"]
        assert data.target.tolist() == [[0, 1], [1, 1]]
        assert rows(data.masks[1][0]) == [[1, 0], [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]]
    for one, other in zip(by_value.masks, by_concept.masks, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_masks_are_named(tmp_path):
    images, masks = write_mask_folder(tmp_path) / "images", tmp_path / "values"
    with pytest.raises(ValueError, match=r"a\.png holds the value 2, which is no class"):
        load_mask_folder(images, masks, classes={1: "cat"})
    with pytest.raises(ValueError, match="must hold pixel values 0 to 255, got 256"):
        load_mask_folder(images, masks, classes={256: "cat"})
    with pytest.raises(ValueError, match="no folder of a concept"):
        load_mask_folder(images, masks)
    picture(masks / "a.png", values=[[0]])
    with pytest.raises(ValueError, match=r"a\.png has \(height, width\) \(1, 1\), expected"):
        load_mask_folder(images, masks, classes={1: "cat", 2: "dog"})
    (masks / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"The file in masks of a\.jpg"):
        load_mask_folder(images, masks, classes={1: "cat", 2: "dog"})


def test_a_real_folder_is_read_alike_by_two_readers(data_folder):
    from skact.datasets import load_masks

    folder = data_folder("msrcv2")
    photos = load_masks(folder, split="cal")
    classes = dict(zip(photos.masks.values, photos.target_names, strict=True))
    plain = load_mask_folder(folder / "images", folder / "masks", classes=classes)
    at = [plain.data.index(path) for path in photos.data]
    np.testing.assert_array_equal(plain.target[at], photos.target)
    np.testing.assert_array_equal(plain.masks[at][3], photos.masks[3])
