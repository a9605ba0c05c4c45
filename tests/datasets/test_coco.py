import numpy as np
import pytest

from skact.datasets import _stream, load_coco
from tests.datasets.formats import coco, picture, write_json


def load(folder, content, **options):
    return load_coco(write_json(folder / "a.json", content), folder / "images", **options)


def test_instances_are_read_and_drawn_when_asked_for(tmp_path):
    data = load(tmp_path, coco(tmp_path))
    assert data.target_names == ["person", "dog", "cat"]
    assert data.target.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert data.data == [str(tmp_path / f"images/{name}.png") for name in "ab"]
    assert data.ids == ["a.png", "b.png"]
    mask = data.masks[0]
    assert mask[:, :, 0].astype(int).tolist() == [[1, 0, 0, 0, 0, 0]] * 4
    assert mask[:, :, 1].astype(int).tolist() == [[0, 1, 1, 0, 0, 0]] * 2 + [[0] * 6] * 2
    assert not data.masks[1].any()
    assert data.masks[::-1][1].sum() == mask.sum()


def test_supercategories_are_concepts(tmp_path):
    content = coco(tmp_path)
    assert load(tmp_path, content, level="supercategory").target_names == ["person", "animal"]
    data = load(tmp_path, content, level="both", concepts=["animal", "dog", "person"])
    assert data.target.tolist() == [[1, 1, 1], [0, 0, 0]]
    np.testing.assert_array_equal(data.masks[0][:, :, 0], data.masks[0][:, :, 1])


def test_crowds_can_be_left_out(tmp_path):
    data = load(tmp_path, coco(tmp_path), crowd=False)
    assert data.target.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert not data.masks[0][:, :, 0].any()


@pytest.mark.parametrize("outline", [[], None, {}])
def test_boxes_without_an_outline_are_regions(tmp_path, outline):
    content = coco(tmp_path)
    whole = load(tmp_path, content).masks[0]
    content["annotations"][0].update(segmentation=outline, bbox=[2.0, 1, 3, 2])
    with pytest.warns(UserWarning, match=r"1 annotations of .*a\.json have no outline"):
        mask = load(tmp_path, content).masks[0]
    assert mask[:, :, 1].astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(mask[:, :, [0, 2]], whole[:, :, [0, 2]])


def test_splits_by_file(tmp_path):
    path = write_json(tmp_path / "a.json", coco(tmp_path))
    picture(tmp_path / "other/a.png")
    picture(tmp_path / "other/b.png")
    folders = {"train": tmp_path / "images", "cal": tmp_path / "other"}
    data = load_coco(dict.fromkeys(folders, path), folders)
    assert data.split.tolist() == ["train", "train", "cal", "cal"]
    assert data.data[2] == str(tmp_path / "other/a.png")
    with pytest.raises(ValueError, match="images must be one folder, or have 'cal' like files"):
        load_coco(dict.fromkeys(folders, path), {"train": tmp_path / "images"})


def test_a_large_file_is_streamed(tmp_path, monkeypatch):
    pytest.importorskip("ijson")
    content = coco(tmp_path)
    content["annotations"][0]["segmentation"][0][0] = 1.25
    whole = load(tmp_path, content)
    monkeypatch.setattr(_stream, "LARGE", 10)
    monkeypatch.setattr(_stream, "read_json", None)
    streamed = load(tmp_path, content)
    np.testing.assert_array_equal(streamed.masks[0], whole.masks[0])


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("images", {"file_name": "../a.json"}, "image 7: 'file_name' must be a path inside"),
        ("images", {"file_name": "/etc/passwd"}, "image 7: 'file_name' must be a path inside"),
        ("images", {"height": 0}, "image 7: height and width"),
        ("images", {"id": 9}, "image 9: the id comes twice"),
        ("categories", {"name": ""}, "category 1: 'name' must be a text"),
        ("categories", {"id": 17}, "category 17: the id comes twice"),
        ("annotations", {"image_id": 8}, "annotation 1: there is no such image_id, 8"),
        ("annotations", {"category_id": 8}, "annotation 1: there is no such category_id, 8"),
        ("annotations", {"category_id": "x"}, "annotation 1: 'category_id' must be an int"),
        ("annotations", {"segmentation": [], "bbox": None}, "annotation 1: 'segmentation' must be"),
        ("annotations", {"segmentation": [], "bbox": [1, 1, 0, 2]}, "annotation 1: 'bbox' must be"),
        ("annotations", {"segmentation": [], "bbox": [1, 1, 2]}, "annotation 1: 'bbox' must be"),
        ("annotations", {"segmentation": [], "bbox": ["1", 1, 2, 2]}, "annotation 1: 'bbox' must"),
        ("annotations", {"segmentation": [[1, 2]]}, "annotation 1: a polygon must be"),
        ("annotations", {"segmentation": {"counts": [3]}}, "annotation 1: run lengths add up to 3"),
    ],
)
def test_damaged_entries_are_named(tmp_path, part, change, message):
    content = coco(tmp_path)
    content[part][0].update(change)
    with pytest.raises(ValueError, match=r"a\.json, " + message):
        load(tmp_path, content)


@pytest.mark.parametrize("part", ["images", "categories", "annotations"])
def test_a_document_of_another_kind_is_refused(tmp_path, part):
    content = coco(tmp_path)
    with pytest.raises(ValueError, match=f"must hold a list under '{part}'"):
        load(tmp_path, content | {part: None})
    with pytest.raises(ValueError, match="must be"):
        load(tmp_path, content | {part: [3]})


def test_missing_images_are_named(tmp_path):
    content = coco(tmp_path)
    (tmp_path / "images/b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image 9: 'file_name': there is no file"):
        load(tmp_path, content)
