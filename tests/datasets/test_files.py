import json
import shutil

import pytest

from skact import datasets
from tests.datasets import formats


def written(folder, name):
    """Arguments of a reader of folders, beside files that it reads."""
    if name == "load_spans":
        sample = {"id": "1", "text": "Ann left", "spans": [[0, 3, "who"]], "split": "train"}
        formats.write(folder / "spans/samples.jsonl", json.dumps(sample))
        return {"folder": formats.write(folder / "spans/README.md", "About.").parent}
    if name == "load_masks":
        root = folder / "masks"
        formats.write_json(root / "classes.json", {"classes": {"1": "cat"}})
        sample = {"id": "1", "image": "a.jpg", "mask": "a.png", "labels": ["cat"], "split": "train"}
        formats.write(root / "index.jsonl", json.dumps(sample))
        formats.picture(root / "a.jpg")
        formats.picture(root / "a.png", values=[[1] * 6] * 4)
        return {"folder": formats.write(root / "README.md", "About.").parent}
    if name == "by concept":
        root = formats.write_mask_folder(folder / "plain")
        return {"images": root / "images", "masks": root / "concepts"}
    if name == "boxes":
        return {"folder": formats.write_voc(folder / "voc"), "regions": "boxes"}
    if name == "no lists":
        root = formats.write_voc(folder / "voc")
        shutil.rmtree(root / "ImageSets")
        return {"folder": root}
    calls = formats.right_calls(folder)
    for readme in ("voc", "labelme", "plain/images", "broden", "brat", "goemotions"):
        formats.write(folder / readme / "README.md", "About.")
    return calls[name]


READERS = {"by concept": "load_mask_folder", "boxes": "load_voc", "no lists": "load_voc"} | {
    name: name
    for name in (
        "load_spans",
        "load_masks",
        "load_coco",
        "load_voc",
        "load_labelme",
        "load_mask_folder",
        "load_broden",
        "load_clevr",
        "load_brat",
        "load_goemotions",
    )
}
#: Of `load_voc`, what the other kind of regions reads; or a folder of others.
UNREAD = ("Annotations", "SegmentationClass", "Main", "Segmentation")


def read(name, arguments):
    """Read everything that there is, masks too."""
    data = getattr(datasets, READERS[name])(**arguments)
    return [
        data.data,
        data.target.tolist(),
        data.DESCR,
        [m.tolist() for m in data.get("masks", [])],
    ]


@pytest.mark.parametrize("name", READERS)
def test_links_out_of_a_folder_are_refused(tmp_path, name):
    arguments = written(tmp_path / "given", name)
    roots = [arguments[key] for key in ("folder", "images", "masks") if key in arguments]
    there = read(name, arguments)
    n_refused = 0
    for root in roots:
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            outside = path.rename(tmp_path / f"outside{path.suffix}")
            inside = path.parent / "kept"
            shutil.copy(outside, inside)
            path.symlink_to(inside)
            assert read(name, arguments) == there
            inside.unlink()
            path.unlink()
            path.symlink_to(outside)
            if any(part in UNREAD for part in path.parts) and _is_unread(name, arguments):
                outside.rename(path)
                continue
            with pytest.raises(ValueError, match=rf"{path.name}.*(leads to|leads out)|leads out"):
                read(name, arguments)
            n_refused += 1
            outside.rename(path)
    assert n_refused > 1


def _is_unread(name, arguments):
    """Whether the file that is a link now is none that the reader looks at."""
    try:
        read(name, arguments)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("folder", ["images", "cat"])
def test_folders_that_are_links_out_are_refused(tmp_path, folder):
    name = "load_broden" if folder == "images" else "by concept"
    arguments = written(tmp_path / "given", name)
    path = next((tmp_path / "given").glob(f"*/{folder}" if folder == "images" else "*/*/cat"))
    if folder == "images":
        path = arguments["folder"] / "images"
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match=f"{folder} leads out of the folder"):
        read(name, arguments)
