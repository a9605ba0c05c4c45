"""The protocol from one file: refused before it starts, stopped anywhere, the same in the end."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import skact
from skact.cli import _parser, main
from skact.models import resolve_layers
from skact.protocol import (
    METHODS,
    Configuration,
    Problem,
    Setup,
    held_out_scores,
    make_method,
    read_configuration,
    run,
)
from skact.protocol._data import load_problem, read_data
from skact.protocol._journal import Journal

CONFIG = """
resamples = 20
[[setup]]
name = "solids"
data = "shapes"
model = "shapes"
n_samples = 60
layers = [3, 5]
methods = ["MeanPrototype", "DifferenceInMeans"]
detectors = ["MaxToken", "SuperActivator"]

[setup.localization]
layer = 5
methods = ["direct", "grad_cam"]
per_concept = 1
points = 2

[setup.analyses]
names = ["separability", "superactivator_counts"]
fewest = 2
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    run(read_configuration(folder / "config.toml"), folder / "out")
    return folder / "out"


TABLES = [f"solids.{kind}" for kind in ("json", "csv", "md")]
TABLES += [f"solids.{k}.{e}" for k in ("localization", "analyses") for e in ("json", "md")]
TABLES += ["report.html"]
# Embedding, six cells, two methods of localization and what they are judged on, two analyses.
N_STEPS = 12


def rows_of(path):
    """Lines of a table in Markdown; what stands below it leads to the page."""
    *lines, empty, link = path.read_text(encoding="utf-8").splitlines()
    assert (empty, link) == ("", "[All tables and figures on one page](report.html)")
    assert all(line.startswith("| ") for line in lines)
    return lines


def tables(folder):
    return [(folder / name).read_bytes() for name in TABLES]


def test_maps_and_analyses_have_tables(whole):
    made = json.loads((whole / "solids.localization.json").read_text(encoding="utf-8"))
    lines = rows_of(whole / "solids.localization.md")
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        [f"| {method}", target]
        for method in ("direct", "grad_cam")
        for target in ("global", "local")
    ]
    assert made["direct"]["table"][1]["f1"][0] == pytest.approx(
        float(lines[3].split(" | ")[2].split()[0]), abs=1e-3
    )
    assert made["about"]["pairs"] > 0
    claims = (whole / "solids.analyses.md").read_text(encoding="utf-8")
    assert claims.startswith("| claim | figure | estimate | p |")
    assert "| separability | middle - first |" in claims


def test_the_cells_are_those_of_the_estimators(whole):
    made = json.loads((whole / "solids.json").read_text(encoding="utf-8"))
    setup = read_configuration(whole.parent / "config.toml").setup[0]
    problem = load_problem(setup, read_data(setup, 0), whole / "store")
    train, cal, test = (problem.rows(split) for split in ("train", "cal", "test"))
    candidates = []
    for layer in setup.layers:
        tokens = problem.tokens.layer(layer)
        scaler = skact.TokenScaler().fit(tokens[train])
        method = skact.MeanPrototype().fit(
            scaler.transform(tokens[train]), problem.y[train], token_labels=problem.labels[train]
        )
        scores = method.transform(scaler.transform(tokens))
        for delta in skact.DELTA_GRID:
            detector = skact.SuperActivator(delta).fit(
                scores[cal], problem.y[cal], token_labels=problem.labels[cal]
            )
            on_cal, on_test = (detector.predict(scores[rows]) for rows in (cal, test))
            f1 = skact.concept_f1(problem.y[cal].astype(bool), on_cal.astype(bool))
            candidates.append((f1, delta, layer, on_test))
    decided = np.empty((len(test), len(problem.names)), int)
    for c in range(len(problem.names)):
        best = min(candidates, key=lambda one: (-one[0][c], one[1], one[2]))
        decided[:, c] = best[3][:, c]
    (entry,) = [
        e
        for e in made["table"]
        if (e["method"], e["detector"]) == ("MeanPrototype", "SuperActivator")
    ]
    expected = skact.weighted_f1_score(problem.y[test], decided)
    assert entry["weighted_test_f1"] == pytest.approx(expected, abs=1e-4)
    floor = skact.weighted_f1_score(problem.y[test], np.ones_like(decided))
    assert made["floor"] == pytest.approx(floor, abs=1e-4)
    assert made["revision"].startswith("weights:")


def test_tables_say_the_same(whole):
    made = json.loads((whole / "solids.json").read_text(encoding="utf-8"))["table"]
    with (whole / "solids.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = rows_of(whole / "solids.md")
    assert len(made) == len(rows) == len(lines) - 2 == 6
    for entry, row, line in zip(made, rows, lines[2:], strict=True):
        assert float(row["F1"]) == entry["weighted_test_f1"]
        assert line.strip("| ").split(" | ") == list(row.values())


def stop(config, out, *more):
    """Start a run in a process and kill it when some cells are done; how many."""
    ask = [sys.executable, "-m", "skact", "paper", str(config), "--out", str(out), *more]
    process = subprocess.Popen(ask, stderr=subprocess.PIPE)
    journal, deadline = Journal(out), time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if journal.path.exists() and len(journal.done()) >= 3:
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return len(journal.done())


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(config, whole, tmp_path, capsys):
    out = tmp_path / "out"
    assert 3 <= stop(config, out) < N_STEPS
    kept = {p: p.stat().st_mtime_ns for p in (out / "steps").rglob("*.json")}
    # The worst moment: a line of which half is written.
    with (out / "journal.jsonl").open("a") as file:
        file.write('{"key": "solids/Diff')
    assert main(["paper", str(config), "--out", str(out), "--resume"]) == 0, capsys.readouterr()
    assert tables(out) == tables(whole)
    done = Journal(out).done()
    assert len(done) == N_STEPS
    again = {p: p.stat().st_mtime_ns for p in kept if f"solids/{p.parent.name}/{p.stem}" in done}
    assert again
    assert {p: kept[p] for p in again} == again


def test_what_is_done_is_not_done_again(config, whole, monkeypatch):
    from skact.protocol import _steps

    def refuse(*_):
        raise AssertionError("a cell was computed again")

    monkeypatch.setattr(_steps, "_FILL", dict.fromkeys(_steps._FILL, refuse))
    run(read_configuration(config), whole, resume=True)


def asked(line):
    return f"[setup.prompting]\n{line}\n[setup.analyses]"


def parameters(name, line):
    return f"[methods.{name}]\n{line}\n"


BAD = {
    "a key": ("resamples", "resample", "the nearest is 'resamples'"),
    "a key of a setup": ("n_samples", "n_sample", "the nearest is 'n_samples'"),
    "a method": ("MeanPrototype", "MeanPrototypes", "the nearest is 'MeanPrototype'"),
    "a detector": ('"MaxToken"', '"MaxTokens"', "the nearest is 'MaxToken'"),
    "a kind": ("n_samples = 60", 'n_samples = "60"', "n_samples must be an int"),
    "samples of what is read": ('data = "shapes"', 'data = "photos"', "'photos' are read"),
    "no reader": ('data = "shapes"', 'data = {folder = "a"}', "needs 'reader'"),
    "a reader": (
        'data = "shapes"\n',
        'data = {reader = "load_cocoa"}\n',
        "the nearest is 'load_coco'",
    ),
    "a key of a reader": (
        'data = "shapes"\n',
        'data = {reader = "load_coco", file = "a"}\n',
        "the nearest is 'files'",
    ),
    "a split of a reader": (
        'data = "shapes"\n',
        'data = {reader = "load_voc", folder = "a", split = "cal"}\n',
        "there is no key 'split'",
    ),
    "what a reader needs": (
        'data = "shapes"\n',
        'data = {reader = "load_coco", files = "a"}\n',
        "load_coco needs 'images'",
    ),
    "how many samples": (
        'data = "shapes"\n',
        'data = {reader = "load_voc", folder = "a", fewest = true}\n',
        "fewest must be an int above 0, got True",
    ),
    "a long name": ('"solids"', f'"{"a" * 101}"', "must be letters, digits, - and _, at most 100"),
    "a layer that there is not": ("layer = 5", "layer = 6", "layer 6 does not exist"),
    "a number": ("n_samples = 60", "n_samples = 6", "at least 20"),
    "a missing key": ('model = "shapes"', "", "model"),
    "no TOML": ("[[setup]]", "[[setup", "no TOML"),
    "no samples": ("n_samples = 60", "at_most = 0", "at_most must be at least 1, got 0"),
    "half a sample": ("n_samples = 60", "at_most = 2.5", "at_most must be an int, got 2.5"),
    "too few of a concept": ("n_samples = 60", "at_most = 1", "has no sample in train"),
    "a concept": ("n_samples = 60", "concepts = [3]", "concepts must be names, got 3"),
    "concepts": ("n_samples = 60", 'concepts = "red"', "concepts must be a list, got 'red'"),
    "a concept twice": ("n_samples = 60", 'concepts = ["a", "a"]', "concepts: 'a' comes twice"),
    "concepts of made data": (
        "n_samples = 60",
        'concepts = ["red"]',
        "data = 'shapes' is made with all of its own",
    ),
    "no data": ('data = "shapes"', 'data = "nowhere"', "nowhere"),
    "no model": ('model = "shapes"', 'model = "./nowhere"', "does not exist"),
    "a placeholder": ('model = "shapes"', 'model = "{model}"', "needs --model"),
    "twice": ('"DifferenceInMeans"]', '"MeanPrototype"]', "comes twice"),
    "no SuperActivator": (', "SuperActivator"', "", "must hold SuperActivator"),
    "a name": ('"solids"', '"../solids"', "letters"),
    "two depths": ("layers = [3, 5]", "layers = [3]\ndepths = [50]", "give one"),
    "a depth": ("layers = [3, 5]", "depths = [0]", "percents in (0, 100], got 0"),
    "no depth": ("layers = [3, 5]", 'depths = ["half"]', "must be numbers, got 'half'"),
    "a parameter": (
        "resamples = 20",
        parameters("DifferenceInMeans", "shrinkages = 0.2"),
        "the nearest is 'shrinkage'",
    ),
    "its value": (
        "resamples = 20",
        parameters("DifferenceInMeans", "shrinkage = 2"),
        "'shrinkage'",
    ),
    "no parameter": ("resamples = 20", parameters("MeanPrototype", "k = 2"), "no parameter 'k'"),
    "another method": (
        "resamples = 20",
        parameters("PCA", "k = 2"),
        "the nearest is 'PCAConcepts'",
    ),
    "a method of no setup": (
        "resamples = 20",
        parameters("PCAConcepts", "n_concepts = 2"),
        "no setup has the method",
    ),
    "more units than features": (
        '"DifferenceInMeans"]',
        '"PCAConcepts"]',
        "PCAConcepts has n_concepts=100, and the model is 64 wide",
    ),
    "more units than samples": (
        '"DifferenceInMeans"]',
        '"KMeansConcepts"]',
        "KMeansConcepts finds 50 units in vectors of samples, and train has 36 samples",
    ),
    "a localizer": ('"grad_cam"', '"gradcam"', "the nearest is 'grad_cam'"),
    "no localizer": ('["direct", "grad_cam"]', "[]", "must hold a name"),
    "a key of localization": ("points", "point", "the nearest is 'points'"),
    "a unit of localization": ("points = ", 'unit = "grit"\npoints = ', "the nearest is 'grid'"),
    "a unit of texts": (
        "points = ",
        'unit = "word"\npoints = ',
        "setup solids: localization: unit='word' is not for images; use one of ('token', 'grid'",
    ),
    "too few masks": (
        "points = ",
        "masks = 20\npoints = ",
        "setup solids: localization leaves out all samples of cal: each has more players than half "
        "of masks=20, 64 at least",
    ),
    "a number of points": ("points = 2", "points = 0", "points must be at least 1"),
    "a layer": ("layer = 5", 'layer = "5"', "layer must be a number"),
    "an analysis": ('"separability"', '"separable"', "the nearest is 'separability'"),
    "a score": ("[setup.analyses]", asked('scores = ["odds"]'), "the nearest is"),
    "a prompt": ("[setup.analyses]", asked('prompt = "Is it?"'), "must hold {concept}"),
    "not a table": ("n_samples = 60", "n_samples = 60\nprompting = 3", "must be a table"),
    "too few": ("fewest = 2", "fewest = 50", "no concept has analyses.fewest=50 samples"),
    "deep": ("resamples = 20", "resamples = " + "[" * 10**4, "can be read: nested too deep"),
    "digits": ("resamples = 20", "resamples = " + "9" * 5000, "no TOML that can be read: "),
    "many parts": ("resamples = 20", ".".join("a" * 10**4) + " = 1", "and 100 dots in a line"),
    "long": ("resamples = 20", "# " + "x" * 2**18, "has at most 262144 characters"),
    "long key": ("resamples = 20", "x" * 5000 + " = 1", "there is no key 'xxx"),
    "no table": ("resamples = 20", "[methods]\nMeanPrototype = 2", "must be a table, got 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations_are_one_sentence_before_work(name, tmp_path, capsys):
    old, new, said = BAD[name]
    assert old in CONFIG
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.replace(old, new), encoding="utf-8")
    assert main(["paper", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert len(error) < 600
    assert not (tmp_path / "out").exists()


def test_another_run_is_refused(config, whole, capsys):
    assert main(["paper", str(config), "--out", str(whole)]) == 2
    assert "--resume" in capsys.readouterr().err
    before = tables(whole)
    config.write_text(CONFIG.replace("resamples = 20", "resamples = 30"), encoding="utf-8")
    assert main(["paper", str(config), "--out", str(whole), "--resume"]) == 2
    assert "a run with another resamples (20, now 30)" in capsys.readouterr().err
    config.write_text(CONFIG.replace("fewest = 2", "fewest = 3"), encoding="utf-8")
    assert main(["paper", str(config), "--out", str(whole), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "another setup[0].analyses.fewest (2, now 3)." in error
    assert tables(whole) == before


def test_a_strange_journal_is_refused(config, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/journal.jsonl").write_text('{"x": 1}\n', encoding="utf-8")
    assert main(["paper", str(config), "--out", str(tmp_path / "out"), "--resume"]) == 2
    assert "it is no journal" in capsys.readouterr().err


def test_two_runs_in_one_folder_are_refused(config, whole, capsys):
    with Journal(whole).alone():
        assert main(["paper", str(config), "--out", str(whole), "--resume"]) == 2
    assert f"Another run is at work in {whole}" in capsys.readouterr().err
    assert main(["paper", str(config), "--out", str(whole), "--resume"]) == 0


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    from filelock import FileLock

    def refuse(*_, **__):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with Journal(tmp_path).alone(), Journal(tmp_path).alone():
        pass
    monkeypatch.undo()
    again = pytest.raises(ValueError, match="Another run")
    with Journal(tmp_path).alone(), again, Journal(tmp_path).alone():
        pass


@pytest.mark.parametrize("inside", ["", "out"])
def test_a_file_is_no_folder(config, inside, capsys):
    assert main(["paper", str(config), "--out", str(config / inside)]) == 2
    assert f"must name a folder, and {config} is a file" in capsys.readouterr().err


def test_other_data_in_the_same_folder_are_refused(whole, config, monkeypatch, capsys):
    from skact.protocol import _run

    read = _run.read_data

    def relabelled(setup, seed):
        data = read(setup, seed)
        data.target = data.target[:, ::-1]
        return data

    monkeypatch.setattr(_run, "read_data", relabelled)
    assert main(["paper", str(config), "--out", str(whole), "--resume"]) == 2
    assert "data_digest differ" in capsys.readouterr().err


def test_a_concept_without_samples_is_named(tmp_path):
    sample = {"id": "1", "text": "So. I cheer!", "spans": [[4, 12, "joy"]], "split": "train"}
    lines = [{**sample, "id": str(i), "split": s} for i, s in enumerate(("train", "train", "cal"))]
    lines += [{**sample, "id": "9", "split": "test", "spans": []}]
    setup = Setup("texts", str(tmp_path), "shapes")

    def refused(lines, message):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "samples.jsonl").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            run(Configuration([setup]), tmp_path / "out")

    refused(lines, "'joy' has no sample in test")
    refused([*lines[:3], {**lines[3], "spans": sample["spans"]}], "'joy' is in all samples of tr")
    refused([{**line, "spans": []} for line in lines], "the data have no concept")


def test_a_setup_takes_the_first_samples_of_each_split_and_some_concepts(tmp_path):
    made = skact.make_paragraphs(180, random_state=0)
    split = [("train", "cal", "test")[i % 3] for i in range(180)]
    with (tmp_path / "samples.jsonl").open("w", encoding="utf-8") as file:
        for i, (text, spans) in enumerate(zip(made.data, made.spans, strict=True)):
            one = {"id": f"n{i}", "text": text, "spans": [list(s) for s in spans]}
            file.write(json.dumps({**one, "split": split[i]}) + "\n")
    names = list(made.target_names)[2:0:-1]
    config = tmp_path / "config.toml"
    config.write_text(
        '[[setup]]\nname = "some"\ndata = "{data}"\nmodel = "minilm"\nat_most = 30\n'
        f"concepts = {json.dumps(names)}\n",
        encoding="utf-8",
    )
    (setup,) = read_configuration(config, data=str(tmp_path)).setup
    data = read_data(setup, 0)
    assert list(data.target_names) == names
    assert data.ids == [f"n{i}" for i in range(90)]
    assert list(data.split) == split[:90]
    assert data.data == made.data[:90]
    columns = [list(made.target_names).index(name) for name in names]
    np.testing.assert_array_equal(data.target, made.target[:90][:, columns], strict=True)
    assert {span.label for own in data.spans for span in own} == set(names)
    assert len(data.spans) == len(data.groups) == 90
    with pytest.raises(ValueError, match="has no concept 'anger management'"):
        read_data(replace(setup, concepts=["anger management"]), 0)
    assert len(read_data(replace(setup, at_most=None), 0).data) == 180


def test_without_a_superactivator_no_cell_is_filled(config, tmp_path, monkeypatch, capsys):
    from skact.protocol import _localization, _steps

    def silent(data):
        concepts, detector, marks = fit_parts(data)
        return concepts, detector, marks.map(np.zeros_like)

    fit_parts = _localization.fit_parts
    monkeypatch.setattr(_localization, "fit_parts", silent)
    out = tmp_path / "out"
    assert main(["paper", str(config), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "setup solids: localization has nothing to judge" in error
    assert "none has a SuperActivator" in error
    assert error.count("\n") == 1
    assert Journal(out).done() == {"solids/embed"}
    # What was embedded serves a run that asks for other things.
    monkeypatch.setattr(_localization, "fit_parts", fit_parts)
    _steps.own_judge.cache_clear()
    assert main(["paper", str(config), "--out", str(out), "--resume"]) == 0
    assert len(Journal(out).done()) == N_STEPS


def test_seconds_of_maps_are_in_the_steps_and_not_in_tables(whole):
    step = json.loads((whole / "steps/solids/localization/direct.json").read_text("utf-8"))
    made = json.loads((whole / "solids.localization.json").read_text("utf-8"))["direct"]
    assert all(line.pop("seconds_per_sample") >= 0 for line in step["table"])
    assert step == made


def test_methods_have_the_parameters_of_the_file(config):
    text = CONFIG.replace('"MeanPrototype"', '"SparseAutoencoder"')
    text += parameters("SparseAutoencoder", "n_concepts = 64")
    text += parameters("SparseAutoencoder.training", "max_epochs = 2")
    config.write_text(text, encoding="utf-8")
    given = read_configuration(config).methods["SparseAutoencoder"]
    made = make_method("SparseAutoencoder", given)
    after, before = made.get_params(), METHODS["SparseAutoencoder"].get_params()
    assert {name for name in after if after[name] != before[name]} == {
        "n_concepts",
        "training",
        "training__max_epochs",
    }
    assert (made.n_concepts, made.training.max_epochs) == (64, 2)
    assert METHODS["SparseAutoencoder"].n_concepts == 128


def test_parameters_reach_cells_and_tables(config, whole, tmp_path):
    text = CONFIG.partition("[setup.localization]")[0].replace('"MeanPrototype", ', "")
    config.write_text(text + parameters("DifferenceInMeans", "whiten = true"), encoding="utf-8")
    run(read_configuration(config), tmp_path / "out")
    made, plain = (json.loads((f / "solids.json").read_text()) for f in (tmp_path / "out", whole))
    assert made["methods"] == {"DifferenceInMeans": "DifferenceInMeans(whiten=True)"}
    assert plain["methods"]["DifferenceInMeans"] == "DifferenceInMeans()"
    other = [e for e in plain["table"] if e["method"] == "DifferenceInMeans"]
    assert made["table"] != other
    assert [e["detector"] for e in made["table"]] == [e["detector"] for e in other]


def test_depths_of_the_paper_are_its_blocks():
    paper = {s.name: s for s in read_configuration("paper", data="mine").setup}
    assert len(paper) == 17
    assert paper["coco-clip"].data == "mine/coco"
    for name, n_blocks in (("coco-llama", 40), ("coco-clip", 24), ("goemotions-gemma", 42)):
        setup = paper[name]
        blocks, _ = resolve_layers(setup.chosen_layers(n_blocks), n_blocks)
        slowly = [max(p * n_blocks // 100 - 1, 0) for p in setup.depths]
        assert blocks == slowly
        assert blocks[-1] == n_blocks - 1
    assert blocks[0] == 0


def test_commands_of_the_guide_are_commands():
    page = Path(__file__).parents[2] / "docs" / "user_guide" / "paper.md"
    lines = re.findall(r"^skact (paper .*?)(?:  +#.*)?$", page.read_text("utf-8"), re.M)
    assert len(lines) >= 4
    for line in lines:
        asked = _parser().parse_args(line.split())
        read_configuration(asked.config, data=asked.data, model=asked.model)


def test_the_file_of_the_guide_can_be_read(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "user_guide" / "paper.md"
    text, own = re.findall(r"^```toml\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    made = read_configuration(tmp_path / "config.toml")
    (setup,) = made.setup
    assert setup.localization.methods == ["direct", "lime"]
    assert made.methods["SparseAutoencoder"]["training"] == {"max_epochs": 10}
    (tmp_path / "config.toml").write_text(own, encoding="utf-8")
    (setup,) = read_configuration(tmp_path / "config.toml", data="copy").setup
    assert setup.data["images"] == "copy/images"
    assert setup.data["fewest"] == 10


def test_shipped_configurations_can_be_read():
    assert [setup.name for setup in read_configuration("small").setup] == ["shapes", "paragraphs"]
    (setup,) = read_configuration("folder", data="photos", model="dinov2").setup
    assert (setup.data, setup.model, setup.methods) == ("photos", "dinov2", list(METHODS))
    with pytest.raises(ValueError, match="has no place for --data"):
        read_configuration("small", data="photos")


@pytest.mark.parametrize("n_layers", [1, 4])
def test_units_are_found_at_all_layers_of_the_setup(n_layers):
    values = np.random.default_rng(0).normal(size=(12, 4)).astype("f4")
    tokens = skact.TokenArray(values, np.arange(13))
    stack = skact.LayerStack(dict.fromkeys(range(n_layers), tokens))
    y, split = (np.arange(12) % 2)[:, None], np.resize(["train", "cal", "test"], 12)
    problem = Problem(stack, stack, tokens.with_values(y.astype(bool)), y, split, ["a"])
    found = held_out_scores(skact.PCAConcepts(2), stack, problem, None)
    assert found.layers == list(range(n_layers))
