"""Files of annotations, damaged anyhow: labels that fit the data, or one sentence with the file.

A fixed seed draws the damage; ``SKACT_FUZZ=14000`` tries more.
"""

import copy
import json
import os
import random
from collections import Counter

import pytest
from PIL import Image

from skact import datasets

N_FILES = int(os.environ.get("SKACT_FUZZ", "400"))
JUNK = [
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1.5, float("nan"), float("inf"), "", "x"),
    *("a\0b", "../x", "/etc/passwd", "\ud800", [], {}, [[]], [None], "1", [1, 2], {"a": 1}),
    *("9" * 5000, [-1] * 6, [1e308] * 6, [float("nan")] * 6, "0" * 30, [1e5, 1, -1e5, 1, 0, 9]),
]
BYTES = [b"\0", b"\xff", b"\r", b"\n", b"\t", b'"', b"\xe2\x80\xa8", b"9" * 5000, b"-1", b"NaN"]
BYTES += [b"\x85", b"\x1c", b"\xed\xa0\x80", b";", b",", b"<!DOCTYPE a [", b"&a;", b"<a>" * 500]

# Three by two pixels, as LabelMe writes them.
MASK = "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAAAAAC4HznGAAAAEElEQVR4nGNk+M/A9J+BAQAJDwICrSaZ0gAAAABJ"
MASK += "RU5ErkJggg=="

COCO = {
    "images": [{"id": i, "file_name": f"{i}.png", "height": 10, "width": 12} for i in (1, 2)],
    "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]},
        {"id": 2, "image_id": 2, "category_id": 2, "segmentation": {"counts": [10, 20, 90]}},
        {
            "id": 3,
            "image_id": 2,
            "category_id": 1,
            "iscrowd": 1,
            "segmentation": {"size": [10, 12], "counts": "0h3"},
        },
        {"id": 4, "image_id": 1, "category_id": 2, "segmentation": [], "bbox": [1, 2, 3, 4.5]},
    ],
}
LABELME = {
    "imagePath": "1.png",
    "imageHeight": 10,
    "imageWidth": 12,
    "shapes": [
        {"label": "cat", "points": [[1, 1], [5, 1], [5, 5]], "shape_type": "polygon"},
        {"label": "dog", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"},
        {"label": "eye", "points": [[6, 6], [7, 7]], "shape_type": "circle"},
        {"label": "ear", "points": [[1, 2], [3, 3]], "shape_type": "mask", "mask": MASK},
    ],
}
CLEVR = {
    "scenes": [
        {
            "image_filename": "1.png",
            "objects": [{"color": "red", "material": "metal", "shape": "cube", "size": "large"}],
        }
    ]
}
ANN = {"start": 0, "end": 3, "text": "Ann", "labels": ["P"]}
STUDIO = [
    {
        "data": {"text": "Ann 😀 left."},
        "annotations": [
            {
                "result": [
                    {
                        "type": "labels",
                        "value": {"start": 0, "end": 3, "text": "Ann", "labels": ["P"]},
                    },
                    {"type": "labels", "value": {"start": 7, "end": 11, "labels": ["Q"]}},
                    {"type": "choices", "value": {"choices": ["neg"]}},
                ]
            }
        ],
    }
]
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
VOC = (
    "<annotation><size><width>12</width><height>10</height></size>"
    f"<object><name>cat</name>{BOX}</object></annotation>"
)
SPANS = '{"id": "1", "text": "So. I cheer!", "spans": [[4, 12, "joy"]], "split": "train"}\n'
ENTITIES = '{"text": "So. I cheer!", "spans": [{"start": 4, "end": 12, "label": "joy"}]}\n'
CSV = 'id,text,labels,split\n1,"Thanks, all!","joy,thanks",train\n2,No.,,test\n'
CONLL = "-DOCSTART- O\n\nAnn B-PER\nLee I-PER\nleft O\n\nRain\tO\nBob\tS-PER\n"
BRAT = "T1\tP 0 3\tAnn\nT2\tQ 4 8;14 17\tleft Bob\nR1\tR Arg1:T1 Arg2:T2\n"


def readers(folder):
    """File that is damaged, what it holds, and what reads it."""
    for name in ("coco/1.png", "coco/2.png", "labelme/1.png", "JPEGImages/a.jpg", "1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (12, 10), 1).save(folder / name)
    for name in ("Annotations", "brat", "masks"):
        (folder / name).mkdir()
    (folder / "brat" / "a.txt").write_text("Ann left with Bob.")
    Image.new("L", (12, 10), 1).save(folder / "masks" / "1.png")
    load = datasets
    yield "coco.json", COCO, lambda f: load.load_coco(f, folder / "coco", level="both")
    yield "labelme/1.json", LABELME, lambda _: load.load_labelme(folder / "labelme")
    yield "clevr.json", CLEVR, lambda f: load.load_clevr(f, folder, folder / "masks")
    yield "studio.json", STUDIO, load.load_label_studio
    yield "Annotations/a.xml", VOC, lambda _: load.load_voc(folder, regions="boxes")
    yield "samples.jsonl", SPANS, lambda _: load.load_spans(folder)
    yield "table.csv", CSV, load.load_table
    yield "table.jsonl", ENTITIES, lambda f: load.load_table(f, spans="spans")
    yield "words.conll", CONLL, load.load_conll
    yield "brat/a.ann", BRAT, lambda _: load.load_brat(folder / "brat")


def places(value, path=()):
    """All places in what JSON holds."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(one, (*path, key))


def damaged_json(value, rng):
    value = copy.deepcopy(value)
    *way, last = rng.choice(list(places(value)))
    holder = value
    for key in way:
        holder = holder[key]
    match rng.randrange(8):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        case _:
            holder[last] = rng.choice(JUNK)
    return json.dumps(value).encode()


def damaged_bytes(content, rng):
    content, at = bytearray(content), rng.randrange(len(content))
    until = rng.randrange(at, len(content))
    match rng.randrange(5):
        case 0:
            del content[at:]
        case 1:
            content[at] ^= 1 << rng.randrange(8)
        case 2:
            del content[at:until]
        case 3:
            content[at:at] = content[at:until]
        case 4:
            content[at:at] = rng.choice(BYTES)
    return bytes(content)


def check_labels(data, size=None):
    """Labels lie within what they speak of, and those of places are those of samples.

    Where a file says how large an image is, that is believed until the image is read.
    """
    if "spans" in data:
        for text, spans in zip(data.data, data.spans, strict=True):
            assert all(0 <= span.start < span.end <= len(text) for span in spans)
        return
    for mask, target in zip(data.masks, data.target, strict=True):
        assert mask.dtype == bool
        assert mask.shape == (*(size or mask.shape[:2]), len(target))
        assert not (mask.any(axis=(0, 1)) & (target == 0)).any()


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused_by_name_or_hold_labels_that_fit(tmp_path, capsys):
    rng, counts, wrong = random.Random(15), Counter(), []
    cases = list(readers(tmp_path))
    for name, content, read in cases:  # the control: as they are, all are read
        whole = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(whole, encoding="utf-8")
        check_labels(read(tmp_path / name), (10, 12))
    for _ in range(N_FILES):
        name, content, read = rng.choice(cases)
        path = tmp_path / name
        whole = path.read_bytes()
        keeps_json = not isinstance(content, str) and rng.random() < 0.8
        damage = damaged_json(content, rng) if keeps_json else damaged_bytes(whole, rng)
        path.write_bytes(damage)
        try:
            check_labels(read(path))
            counts["read"] += 1
        except (ValueError, FileNotFoundError) as error:
            counts["refused"] += 1
            if str(tmp_path) not in str(error) or len(str(error)) > 600 + len(str(tmp_path)):
                wrong.append((name, damage[:200], str(error)[:200]))
        path.write_bytes(whole)
    with capsys.disabled():
        print(f"\n{N_FILES} damaged files of annotations: {dict(counts)}")
    assert wrong == []
    assert min(counts["read"], counts["refused"]) > N_FILES / 10
