import pytest

from skact.datasets import PAPER_CONCEPTS, load_broden, load_clevr
from tests.datasets.formats import clevr, picture, write, write_broden, write_clevr, write_json


def rows(mask):
    return mask.astype(int).tolist()


def load(folder, **options):
    return load_clevr(folder / "scenes.json", folder / "images", folder / "masks", **options)


def test_clevr_objects_give_all_that_they_are(tmp_path):
    data = load(write_clevr(tmp_path), concepts=["color::red", "shape::sphere", "size::large"])
    assert data.target.tolist() == [[1, 1, 1], [0, 1, 1]]
    mask = data.masks[0]
    assert rows(mask[0]) == [[0, 0, 0], [1, 0, 1], [1, 0, 1], [0, 1, 1], [0, 1, 1], [0, 0, 0]]
    names = load(tmp_path).target_names
    assert names[:3] == ["color::blue", "color::red", "material::metal"]


def test_hidden_objects_are_not_there(tmp_path):
    picture(write_clevr(tmp_path) / "masks/a.png", values=[[0, 0, 0, 2, 2, 0]] * 4)
    assert load(tmp_path, concepts=["color::red"]).target.tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_filename": "../scenes.json"}, "'image_filename' must be a path inside"),
        ({"objects": None}, "a list of 'objects' are expected"),
        ({"objects": [{"color": "red"}]}, "scene 1, object 1: 'material' must be a text"),
        ({"objects": [3]}, "scene 1, object 1: 'color' must be a text"),
        ({"objects": [{}] * 256}, "256 objects have no pixel value each"),
        ({"image_filename": "b.png"}, "image 'b.png' is that of .*scene 1"),
    ],
)
def test_damaged_scenes_are_named(tmp_path, change, message):
    content = clevr()
    content["scenes"][0].update(change)
    if change.get("image_filename") == "b.png":
        content["scenes"][0]["objects"] = content["scenes"][1]["objects"]
    write_json(write_clevr(tmp_path) / "scenes.json", content)
    with pytest.raises(ValueError, match=r"scenes\.json, .*" + message):
        load(tmp_path)


def test_broden_is_enlarged_to_the_image(tmp_path):
    data = load_broden(write_broden(tmp_path))
    names = ["color::red", "material::wood", "object::sky", "object::wood", "part::sky"]
    assert data.target_names == names
    assert data.target.tolist() == [[1, 0, 1, 1, 1], [0, 1, 0, 0, 0]]
    assert data.split.tolist() == ["train", "cal"]
    mask = data.masks[0]
    assert mask[:, :, 0].all()
    assert rows(mask[:, :, 2]) == [[1, 1, 0, 0, 0, 0]] * 2 + [[0] * 6] * 2
    assert rows(mask[:, :, 3]) == [[0] * 6] * 2 + [[0, 0, 0, 0, 1, 1]] * 2
    assert rows(mask[:, :, 4]) == [[0, 0, 1, 1, 0, 0]] * 4


def test_parts_and_kinds_of_broden(tmp_path):
    write_broden(tmp_path)
    assert load_broden(tmp_path, part="opensurfaces").target_names == ["material::wood"]
    assert load_broden(tmp_path, part="pascal", kinds=["part"]).target_names == ["part::sky"]
    with pytest.raises(ValueError, match="no image of part 'ade20k'"):
        load_broden(tmp_path, part="ade20k")
    with pytest.raises(ValueError, match=r"kinds must be among object, .* got 'scene'"):
        load_broden(tmp_path, kinds=["scene"])


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("index.csv", "pascal/a.jpg", "../label.csv", "line 2: 'image' must be a path inside"),
        ("index.csv", "pascal/a_1", "../../x", "line 2: 'part' must be a path inside"),
        ("index.csv", ",train,", ",dev,", "line 2: 'split' must be train, val or test: 'dev'"),
        ("index.csv", "4,6,2,3", "4,6,2,x", "line 2: ih, iw, sh and sw must be sizes"),
        ("label.csv", "300,wood", "301,wood", "line 2: .* holds 300, which label.csv"),
        ("label.csv", "300,wood", f"{'3' * 5000},wood", "line 3: 'number' and 'name' are"),
        ("label.csv", "300,wood", "x,wood", "line 3: 'number' and 'name' are expected"),
        ("label.csv", "300,wood", "1,wood", "line 3: number 1 is that of 'sky'"),
    ],
)
def test_damaged_rows_are_named(tmp_path, name, old, new, message):
    path = write_broden(tmp_path / "x") / name
    write(path, path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        load_broden(tmp_path / "x")


def test_the_lists_of_the_paper_are_not_doubled():
    sizes = {name: len(concepts) for name, concepts in PAPER_CONCEPTS.items()}
    assert sizes["clevr"] == 6
    assert sizes["goemotions"] == 14
    for concepts in PAPER_CONCEPTS.values():
        assert len(set(concepts)) == len(concepts)
