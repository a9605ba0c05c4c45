"""Samples of a run from any reader, by a table."""

import json

import numpy as np
import pytest
from PIL import Image

from skact.datasets import load_coco, load_mask_folder, load_table, make_shapes
from skact.metrics import all_positive_f1_score
from skact.protocol import read_configuration, run
from skact.protocol._data import read_data, token_embedder
from skact.protocol._source import READERS, name_of, read_source
from tests.datasets.formats import coco, write_json

HEAD = """
resamples = 10
[[setup]]
name = "own"
model = "shapes"
layers = [3]
methods = ["MeanPrototype"]
detectors = ["SuperActivator"]
"""


@pytest.fixture
def texts(tmp_path):
    """Sixty texts with a frequent label, a rare one, and one that is not in all splits."""
    lines = [
        {
            "text": f"text {i}",
            "labels": ["often"] * (i % 2) + ["seldom"] * (i % 10 == 0) + ["once"] * (i == 3),
            "group": i // 2,
        }
        for i in range(60)
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {"reader": "load_table", "files": str(path)}


@pytest.fixture
def photos(tmp_path):
    """Shapes as a plain folder of images and one of masks for each concept."""
    shapes = make_shapes(40, random_state=0)
    for i, (image, masks) in enumerate(zip(shapes.data, shapes.masks, strict=True)):
        path = tmp_path / f"my photos/{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.asarray(image)).save(path)
        for c, name in enumerate(shapes.target_names):
            if masks[:, :, c].any():
                path = tmp_path / f"masks/{name}/{i:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(255 * masks[:, :, c].astype(np.uint8)).save(path)
    return tmp_path


def same(left, right):
    assert left.keys() == right.keys()
    for key in ("data", "spans", "target_names", "ids"):
        assert left.get(key) == right.get(key)
    for key in ("target", "split", "groups"):
        np.testing.assert_array_equal(left[key], right[key])


def test_a_table_is_a_call_of_its_reader(texts, tmp_path):
    same(read_source(texts, 0), load_table(texts["files"]))
    chosen = {"concepts": ["seldom", "often"], "min_samples": 6}
    same(read_source(texts | chosen, 0), load_table(texts["files"], **chosen))
    file = write_json(tmp_path / "a.json", coco(tmp_path))
    table = {"reader": "load_coco", "files": {"cal": str(file)}, "images": str(tmp_path / "images")}
    read = read_source(table | {"crowd": False}, 0)
    same(read, load_coco({"cal": file}, tmp_path / "images", crowd=False) | {"masks": read.masks})


def test_samples_and_splits_are_drawn_with_the_seed(texts):
    whole = read_source(texts, 0)
    few = read_source(texts | {"n_samples": 20}, 1)
    rows = [whole.ids.index(name) for name in few.ids]
    assert len(rows) == 20
    assert rows == sorted(set(rows))
    np.testing.assert_array_equal(few.target, whole.target[rows])
    assert few.spans == [whole.spans[row] for row in rows]
    assert few.ids == read_source(texts | {"n_samples": 20}, 1).ids
    assert few.ids != read_source(texts | {"n_samples": 20}, 2).ids
    assert len(read_source(texts | {"n_samples": 99}, 1).data) == 60

    halves = read_source(texts | {"draw_splits": [0.5, 0.25, 0.25]}, 1)
    assert (halves.split == "train").sum() == 30
    for group in set(halves.groups):
        assert len(set(halves.split[halves.groups == group])) == 1
    assert halves.split.tolist() != whole.split.tolist()
    with pytest.raises(ValueError, match="shares must add up to 1"):
        read_source(texts | {"draw_splits": [0.5, 0.5, 0.5]}, 1)


def test_rare_concepts_are_left_out_where_it_is_asked_for(texts):
    assert read_source(texts, 0).target_names == ["often", "once", "seldom"]
    read = read_source(texts | {"fewest": 5}, 0)
    assert read.target_names == ["often"]
    assert {span.label for own in read.spans for span in own} == {"often"}
    assert len(read.data) == 60
    with pytest.raises(
        ValueError, match=r"load_table: .*texts\.jsonl has no concept with fewest=50"
    ):
        read_source(texts | {"fewest": 50}, 0)


def test_numbers_of_classes_may_be_texts(photos):
    for i in range(40):
        path = photos / f"grey/{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((64, 64), i % 3, np.uint8)).resize(
            Image.open(photos / f"my photos/{i:02}.png").size
        ).save(path)
    table = {"reader": "load_mask_folder", "images": str(photos / "my photos")}
    table |= {"masks": str(photos / "grey"), "classes": {"1": "one", "2": "two"}}
    assert read_source(table, 0).target_names == ["one", "two"]
    with pytest.raises(ValueError, match="pixel values 0 to 255, got 'one'"):
        read_source(table | {"classes": {"one": "1"}}, 0)


def test_a_folder_of_nothing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has neither samples\.jsonl, .*load_masks does"):
        read_source(str(tmp_path), 0)
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        read_source(str(tmp_path / "nowhere"), 0)


def test_a_run_reads_a_copy_as_its_tool_left_it(photos):
    config = photos / "config.toml"
    table = '[setup.data]\nreader = "load_mask_folder"\nimages = "{data}/my photos"\n'
    config.write_text(HEAD + table + 'masks = "{data}/masks"\nfewest = 2\n', encoding="utf-8")
    configuration = read_configuration(config, data=str(photos))
    (setup,) = configuration.setup
    data = read_data(setup, 0)
    expected = load_mask_folder(photos / "my photos", photos / "masks")
    assert data.data == expected.data
    assert set(data.target_names) <= set(expected.target_names)
    assert token_embedder(setup).modality == "image"
    run(configuration, photos / "out")
    made = json.loads((photos / "out/own.json").read_text(encoding="utf-8"))
    assert made["data"] == f"load_mask_folder: {photos.name}/my photos"
    assert made["table"][0]["concepts"].keys() == set(data.target_names)
    assert made["samples"] == {s: int((data.split == s).sum()) for s in ("train", "cal", "test")}
    on_test = data.target[data.split == "test"]
    assert made["floor"] == pytest.approx(all_positive_f1_score(on_test), abs=1e-4)
    with pytest.raises(ValueError, match=r"config\.toml needs --data"):
        read_configuration(config)


def test_concepts_of_a_table_stand_in_the_table(tmp_path):
    config = tmp_path / "config.toml"
    table = '[setup.data]\nreader = "load_spans"\nfolder = "x"\n'
    config.write_text(f'[[setup]]\nname = "a"\nmodel = "shapes"\n{table}', encoding="utf-8")
    assert read_configuration(config).setup[0].concepts == []
    more = config.read_text("utf-8").replace('"shapes"', '"shapes"\nconcepts = ["joy"]')
    config.write_text(more, encoding="utf-8")
    with pytest.raises(ValueError, match=r"belong into that table, \[setup.data\]"):
        read_configuration(config)


def test_data_have_a_short_name():
    assert name_of("a/b/c") == "b/c"
    table = {"reader": "load_conll", "files": {"train": "a/b/train.conll", "cal": "a/b/x"}}
    assert name_of(table) == "load_conll: b/train.conll"


def test_all_readers_may_be_named():
    import skact.datasets

    assert set(READERS) == {name for name in skact.datasets.__all__ if name.startswith("load_")}
