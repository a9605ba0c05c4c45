"""The command: thin calls of the library, and one sentence for every error."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils import Bunch

import skact
from skact.cli import _labels, _read, main
from tests.fresh import printed_by

MODEL = skact.shapes_model_path()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder of images, and a saved detector."""
    folder = tmp_path_factory.mktemp("shapes")
    made = skact.make_shapes(36, random_state=0)
    (folder / "images").mkdir()
    for i, image in enumerate(made.data[:5]):
        image.save(folder / "images" / f"{i}.png")
    detector = skact.ConceptDetector(MODEL, layer=-1, cv=2, random_state=0)
    detector.fit(made.data, masks=made.masks).save(folder / "detector")
    return folder


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def test_embed_embeds_only_what_the_store_lacks(shapes, tmp_path, capsys):
    ask = ("embed", shapes / "images", "--model", MODEL, "--store", tmp_path, "--layer", "0", "1.0")
    assert "5 embedded now, 0 there before" in run(capsys, *ask)
    assert "0 embedded now, 5 there before" in run(capsys, *ask)
    assert [layer["layer"] for layer in skact.ActivationStore(tmp_path).info()["layers"]] == [0, 5]


@pytest.mark.parametrize("to_file", [False, True])
def test_detect_says_what_the_detector_says(to_file, shapes, tmp_path, capsys):
    more = ("--out", tmp_path / "found.csv") if to_file else ()
    said = run(capsys, "detect", shapes / "detector", shapes / "images", *more)
    text = (tmp_path / "found.csv").read_text(encoding="utf-8") if to_file else said
    rows = list(csv.DictReader(io.StringIO(text)))
    detector = skact.load(shapes / "detector")
    images = sorted(str(path) for path in (shapes / "images").iterdir())
    present = np.reshape([int(row["present"]) for row in rows], (5, -1))
    assert present.tolist() == detector.predict(images).tolist()
    assert 0 < present.mean() < 1
    scores = np.reshape([float(row["score"]) for row in rows], (5, -1))
    np.testing.assert_allclose(scores, detector.decision_function(images), rtol=1e-5)
    assert [row["sample"] for row in rows[:: len(detector.concept_names_)]] == [
        Path(image).name for image in images
    ]


def test_names_of_files_need_not_be_text(shapes, tmp_path, capsys):
    named = tmp_path / "images"
    named.mkdir()
    with suppress(OSError):  # some systems allow no such name
        shutil.copy(shapes / "images" / "0.png", os.fsencode(named) + b"/a\xff.png")
        run(capsys, "detect", shapes / "detector", named, "--out", tmp_path / "found.csv")
        ask = [sys.executable, "-m", "skact", "detect", shapes / "detector", named]
        said = subprocess.run(ask, capture_output=True, text=True).stdout
        assert "a\\udcff.png" in said
        assert said == (tmp_path / "found.csv").read_text(encoding="utf-8")


def test_report_writes_a_page(shapes, tmp_path, capsys):
    page = tmp_path / "page.html"
    run(
        capsys, "report", shapes / "detector", shapes / "images", "--out", page, "--title", "Solids"
    )
    assert "Solids" in page.read_text(encoding="utf-8")


def test_describe_prints_the_card(shapes, capsys):
    card = skact.describe(shapes / "detector").to_markdown()
    assert run(capsys, "describe", shapes / "detector") == card


def test_models_says_what_a_model_is(capsys):
    assert "reads images, 6 blocks, 64 wide, weights:" in run(capsys, "models")


def test_models_that_cannot_be_read_do_not_hide_others(tmp_path, capsys):
    path = skact.shapes_model_path()
    assert main(["models", str(tmp_path / "nowhere"), path]) == 2
    out, error = capsys.readouterr()
    first, second = out.splitlines()
    assert first.startswith(f"{tmp_path}/nowhere: cannot be read: model names the folder")
    assert second.startswith(f"{path}: reads images")
    assert error == "skact models: 1 of 2 models cannot be read.\n"


def test_a_report_of_nothing_says_so(capsys):
    assert main(["report", "nowhere"]) == 2
    assert "'nowhere', and there is no such file or folder" in capsys.readouterr().err


def test_help_waits_for_no_library():
    code = "import sys, skact.cli; print([m for m in ('numpy', 'sklearn') if m in sys.modules])"
    assert printed_by(code) == "[]"
    assert printed_by(code.replace("skact.cli", "skact.cli, skact.tail")) != "[]"


def test_texts_are_the_lines_of_a_file(tmp_path, bert_folder, capsys):
    (tmp_path / "texts.txt").write_text("hello\n\nworld\n", encoding="utf-8")
    ask = ("embed", tmp_path / "texts.txt", "--model", bert_folder, "--store", tmp_path / "store")
    assert "2 samples" in run(capsys, *ask)


def test_fit_saves_what_is_fitted_on_all_but_test(bert_folder, tmp_path, capsys):
    words = ["hello", "world"]
    lines = [
        {
            "id": str(i),
            "text": f"{words[i % 2]} " * (1 + i % 3),
            "spans": [[0, 5, "greeting"]] * (i % 2 == 0),
            "split": ("train", "cal", "test")[i % 5 % 3],
        }
        for i in range(40)
    ]
    (tmp_path / "data").mkdir()
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "data" / "samples.jsonl").write_text(text, encoding="utf-8")
    ask = ("--model", bert_folder, "--layer", "0", "--cv", "2")
    said = run(capsys, "fit", tmp_path / "data", *ask, "--out", tmp_path / "detector")
    fitted = skact.load(tmp_path / "detector")
    (row,) = csv.DictReader(io.StringIO(said))
    assert row["concept"] == "greeting"
    assert row == {name: str(values[0]) for name, values in fitted.results_.items()}
    data = skact.load_spans(tmp_path / "data")
    kept = [i for i, line in enumerate(lines) if line["split"] != "test"]
    texts, spans = ([whole[i] for i in kept] for whole in (data.data, data.spans))
    own = skact.ConceptDetector(str(bert_folder), layer=[0], cv=2, random_state=0)
    own.fit(texts, spans=spans)
    assert {n: v.tolist() for n, v in own.results_.items()} == {
        n: v.tolist() for n, v in fitted.results_.items()
    }
    np.testing.assert_array_equal(own.predict(data.data), fitted.predict(data.data))


def test_labels_are_found_by_name(shapes):
    detector = skact.load(shapes / "detector")
    names = list(detector.concept_names_)
    target = np.arange(2 * len(names)).reshape(2, -1)
    data = {"target": target[:, ::-1], "target_names": names[::-1]}
    assert _labels(Bunch(**data), detector).tolist() == target.tolist()
    data["target_names"] = ["another", *names[1:]]
    assert _labels(Bunch(**data), detector) is None


BAD = {
    "no such input": (("embed", "{new}", "--model", MODEL, "--store", "{new}/s"), "no such file"),
    "an empty folder": (("embed", "{empty}", "--model", MODEL, "--store", "{new}"), "without imag"),
    "no text": (("embed", "{blank}", "--model", MODEL, "--store", "{new}"), "holds no text"),
    "no such model": (
        ("embed", "{images}", "--model", "{new}/model", "--store", "{new}/s"),
        "does not exist",
    ),
    "no such block": (
        ("embed", "{images}", "--model", MODEL, "--store", "{new}", "--layer", "99"),
        "99",
    ),
    "no labels": (
        ("fit", "{images}", "--model", MODEL, "--out", "{new}"),
        "has no labels; give a folder with samples.jsonl",
    ),
    "no folder for the detector": (
        ("fit", "{images}", "--model", MODEL, "--out", "{new}/detector"),
        "no such folder",
    ),
    "no detector": (("detect", "{blank}", "{images}"), "{blank}"),
    "no such file": (("describe", "{new}"), "{new}"),
    "no folder for the page": (
        ("report", "{detector}", "{images}", "--out", "{new}/page.html"),
        "no such folder",
    ),
    "a table": (("detect", "{detector}", "{table}"), "'{table}' is a table"),
    "a link out of the folder": (
        ("embed", "{linked}", "--model", MODEL, "--store", "{new}"),
        "leads out of the folder {linked}, to ",
    ),
    "no UTF-8": (("detect", "{detector}", "{latin}"), "'{latin}' is no text in UTF-8"),
    "another estimator": (("detect", "{other}", "{images}"), "ConceptDetector"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_error_is_one_sentence(name, shapes, tmp_path, capsys):
    arguments, said = BAD[name]
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank").write_text("\n", encoding="utf-8")
    (tmp_path / "latin").write_bytes("naïve".encode("latin-1"))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "0.png").symlink_to(shapes / "images" / "0.png")
    (tmp_path / "table.csv").write_text("text\nhello\n", encoding="utf-8")
    X = np.random.default_rng(0).random((10, 3))
    skact.save(skact.SuperActivator().fit(X, np.arange(10) % 2), tmp_path / "other")
    places = {p: str(tmp_path / p) for p in ("new", "empty", "blank", "other", "linked", "latin")}
    places |= {p: str(shapes / p) for p in ("images", "detector")}
    places["table"] = str(tmp_path / "table.csv")
    assert main([a.format(**places) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said.format(**places) in err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["describe"], ["embed", "x", "--layer", "a"]])
def test_a_command_that_is_none_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_package_is_the_command():
    ask = [sys.executable, "-m", "skact", "describe", "nothing"]
    done = subprocess.run(ask, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "nothing" in done.stderr


def test_the_command_is_installed_under_its_name():
    with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["scripts"] == {"skact": "skact.cli:main"}


def test_images_that_are_links_out_of_their_folder_are_refused(shapes, tmp_path):
    image = tmp_path / "images" / "a.png"
    image.parent.mkdir()
    image.symlink_to(shapes / "images" / "0.png")
    with pytest.raises(ValueError, match=r"a\.png leads out of the folder .*images"):
        _read(str(image.parent))
    image.unlink()
    shutil.copy(shapes / "images" / "0.png", tmp_path / "images" / "kept")
    image.symlink_to("kept")
    assert _read(str(image.parent)).ids == ["a.png"]


def test_names_that_are_no_texts_are_written(tmp_path):
    code = "import sys; from skact import cli; cli._models = lambda asked: print('a\\udcff'); "
    code += "sys.exit(cli.main(['models']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, b"a\\udcff")
