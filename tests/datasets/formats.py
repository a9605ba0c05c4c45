"""Small files in the formats of others, as their tools write them."""

import json

import numpy as np
from PIL import Image


def write(path, text):
    """Write a text and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def write_json(path, value):
    return write(path, json.dumps(value))


def write_goemotions(folder):
    write(folder / "emotions.txt", "joy\nanger\nneutral\n")
    write(folder / "train.tsv", 'So glad!\t0\te1\n"He said ""no"" twice"\t1,2\te2\n')
    write(folder / "dev.tsv", 'Oh "well"\t2\te3\r\n')
    return folder


ISARCASM = """\
,tweet,sarcastic,rephrase,sarcasm,irony,satire,understatement,overstatement,rhetorical_question
0,"Great, rain
again.",1,I dislike rain.,1.0,0.0,0.0,0.0,0.0,1.0
1,I like tea.,0,,,,,,,
"""
CONLL = """\
-DOCSTART-\t-X-\tO

EU\tNNP\tB-ORG
rejects\tVBZ\tO
German\tJJ\tB-MISC
call\tNN\tI-MISC
call\tNN\tB-MISC

-DOCSTART-\t-X-\tO

# id = 7
Peter\tNNP\tI-PER
Blackburn\tNNP\tI-PER
#\tSYM\tO
"""


def write_brat(folder):
    write(folder / "a.txt", "Ann met\r\nBo Lee.")
    lines = "T1\tPerson 0 3\tAnn\nT2\tPerson 9 11;12 15\tBo Lee\nR1\tMet Arg1:T1 Arg2:T2\n"
    write(folder / "a.ann", lines)
    write(folder / "b.txt", "Nobody.")
    write(folder / "b.ann", "")
    return folder


def label_studio():
    text = "\N{GRINNING FACE} I cheer"
    region = {"start": 5, "end": 10, "text": "cheer", "labels": ["joy"]}
    result = [
        {"type": "labels", "value": region},
        {"type": "choices", "value": {"choices": ["loud"]}},
        {"type": "relation", "from_id": "a"},
    ]
    done = {"result": result, "was_cancelled": False}
    return [
        {"data": {"text": text}, "annotations": [{"was_cancelled": True}, done]},
        {"data": {"text": "Rain."}, "annotations": [{"result": []}]},
    ]


def right_calls(folder):
    """Arguments of each reader, beside files that it reads."""
    return {
        "load_coco": {
            "files": write_json(folder / "coco/a.json", coco(folder / "coco")),
            "images": folder / "coco/images",
        },
        "load_table": {"files": write(folder / "a.csv", "text,labels\na,x\n"), "split": None},
        "load_conll": {"files": write(folder / "a.conll", CONLL), "word": 0, "tag": -1},
        "load_voc": {"folder": write_voc(folder / "voc")},
        "load_labelme": {"folder": write_labelme(folder / "labelme")},
        "load_mask_folder": {
            "images": write_mask_folder(folder / "plain") / "images",
            "masks": folder / "plain/values",
            "classes": {1: "cat", 2: "dog"},
        },
        "load_broden": {"folder": write_broden(folder / "broden")},
        "load_clevr": {
            "files": write_clevr(folder / "clevr") / "scenes.json",
            "images": folder / "clevr/images",
            "masks": folder / "clevr/masks",
        },
        "load_brat": {"folder": write_brat(folder / "brat")},
        "load_label_studio": {"files": write_json(folder / "a.json", label_studio())},
        "load_tagged": {"files": write(folder / "a.txt", "<x>a</x>")},
        "load_isarcasm": {"files": write(folder / "b.csv", "text,sarcastic\na,1\n")},
        "load_goemotions": {"folder": write_goemotions(folder / "goemotions")},
    }


def picture(path, size=(4, 6), values=None, palette=False):
    """Write an image of (height, width), of one channel if there are values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        image = Image.new("RGB", size[::-1])
    else:
        image = Image.fromarray(np.asarray(values, np.uint8))
        if palette:
            image = image.convert("P")
            image.putdata(np.ravel(values).tolist())
            image.putpalette([0, 0, 0] * 256)
    image.save(path)
    return path


def coco(folder):
    """Write images, and return what COCO says of them."""
    for name in "ab":
        picture(folder / f"images/{name}.png")
    square = [1, 0, 3, 0, 3, 2, 1, 2]
    return {
        "images": [
            {"id": i, "file_name": f"{n}.png", "height": 4, "width": 6}
            for i, n in [(7, "a"), (9, "b")]
        ],
        "categories": [
            {"id": 1, "name": "person", "supercategory": "person"},
            {"id": 18, "name": "dog", "supercategory": "animal"},
            {"id": 17, "name": "cat", "supercategory": "animal"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "segmentation": [square], "iscrowd": 0},
            {
                "id": 2,
                "image_id": 7,
                "category_id": 1,
                "segmentation": {"size": [4, 6], "counts": [0, 4, 20]},
                "iscrowd": 1,
            },
        ],
    }


def write_voc(folder):
    for name in "ab":
        picture(folder / f"JPEGImages/{name}.jpg")
    mask = [[0, 1, 1, 255, 12, 12]] * 4
    picture(folder / "SegmentationClass/a.png", values=mask, palette=True)
    picture(folder / "SegmentationClass/b.png", values=[[0] * 6] * 4, palette=True)
    size = "<size><width>6</width><height>4</height><depth>3</depth></size>"
    box = "<bndbox><xmin>2</xmin><ymin>1</ymin><xmax>3</xmax><ymax>2</ymax></bndbox>"
    thing = f"<object><name>dog</name><difficult>0</difficult>{box}</object>"
    write(folder / "Annotations/a.xml", f"<annotation>{size}{thing}</annotation>")
    write(folder / "Annotations/b.xml", f"<annotation>{size}</annotation>")
    for place in ("Segmentation", "Main"):
        write(folder / f"ImageSets/{place}/train.txt", "a\n")
        write(folder / f"ImageSets/{place}/val.txt", "b\n")
    return folder


def labelme():
    shapes = [
        {"label": "cat", "points": [[1, 0], [3, 0], [3, 2], [1, 2]], "shape_type": "polygon"},
        {"label": "dog", "points": [[5, 4], [4, 3]], "shape_type": "rectangle"},
        {"label": "sun", "points": [[3, 2], [3, 3.5]], "shape_type": "circle"},
    ]
    return {"imagePath": "a.png", "imageHeight": 4, "imageWidth": 6, "shapes": shapes}


def write_labelme(folder, content=None):
    picture(folder / "sub/a.png")
    write_json(folder / "sub/a.json", content or labelme())
    return folder


def write_mask_folder(folder):
    """Write images, with masks by value in ``values`` and by concept in ``concepts``."""
    for i, name in enumerate("ab"):
        picture(folder / f"images/{name}.jpg")
        picture(folder / f"values/{name}.png", values=[[i, i, 2, 255, 0, 0]] * 4, palette=i == 1)
    picture(folder / "concepts/cat/b.png", values=[[9, 9, 0, 0, 0, 0]] * 4)
    for name in "ab":
        picture(folder / f"concepts/dog/{name}.png", values=[[0, 0, 255, 0, 0, 0]] * 4)
    return folder


def clevr():
    red = {"color": "red", "material": "metal", "shape": "cube", "size": "large"}
    blue = red | {"color": "blue", "shape": "sphere"}
    return {
        "scenes": [
            {"image_filename": "a.png", "objects": [red, blue]},
            {"image_filename": "b.png", "objects": [blue]},
        ]
    }


def write_clevr(folder):
    write_json(folder / "scenes.json", clevr())
    for name in "ab":
        picture(folder / f"images/{name}.png")
    picture(folder / "masks/a.png", values=[[0, 1, 1, 2, 2, 0]] * 4)
    picture(folder / "masks/b.png", values=[[0, 0, 1, 0, 0, 0]] * 4, palette=True)
    return folder


BRODEN = """\
image,split,ih,iw,sh,sw,color,object,part,material,scene,texture
pascal/a.jpg,train,4,6,2,3,pascal/a_color.png,pascal/a_object.png,pascal/a_1.png;pascal/a_2.png,,,
opensurfaces/b.jpg,val,4,6,2,3,,,,opensurfaces/b_material.png,,
"""


def write_broden(folder):
    """Write labels 1 sky, 300 wood, 7 red."""
    write(folder / "index.csv", BRODEN)
    write(folder / "label.csv", "number,name,category\n1,sky,object\n300,wood,x\n7,red,color\n")

    def labels(name, numbers):
        values = np.array(numbers)
        colours = np.stack([values % 256, values // 256, np.zeros_like(values)], axis=2)
        picture(folder / f"images/{name}.png", values=colours)

    for name in ("pascal/a", "opensurfaces/b"):
        picture(folder / f"images/{name}.jpg")
    labels("pascal/a_color", [[7, 7, 7], [7, 7, 7]])
    labels("pascal/a_object", [[1, 0, 0], [0, 0, 300]])
    labels("pascal/a_1", [[0, 1, 0], [0, 0, 0]])
    labels("pascal/a_2", [[0, 0, 0], [0, 1, 0]])
    labels("opensurfaces/b_material", [[300, 0, 0], [0, 0, 0]])
    return folder
