"""Figures and page of a run: of its tables alone, made again without computing anything."""

import json
import re

import pytest

from skact.cli import main
from skact.protocol import Configuration, Setup, write_report
from skact.protocol._journal import Journal
from tests.inspection.analysis_case import case

F1 = {"f1": [0.5, 0.25, 0.75], "floor": 0.3, "yes": 0.4, "predicted": [[1]]}
FIGURES = ("iou", "average_precision", "pointing_game", "insertion", "deletion", "gap")


def entry(method, detector, f1):
    return {
        "method": method,
        "detector": detector,
        "weighted_test_f1": f1,
        "interval": [f1 - 0.1, f1 + 0.1],
        "gain_of_superactivator": 0.1,
        "gain_interval": [0.0, 0.2],
        "auroc": 0.9,
        "average_precision": 0.8,
        "tpr_at_1_fpr": 0.7,
        "cal_f1_by_layer": {"layers": [2, 5], "mean": [0.4, f1]},
    }


DETECTION = {
    "data": "a</td><script>",
    "model": "m",
    "revision": "weights:1",
    "python": "3",
    "samples": {"train": 3, "cal": 1, "test": 1},
    "floor": 0.3,
    "versions": {"numpy": "2"},
    "table": [entry("A", "MaxToken", 0.5), entry("A", "CLS", 0.4), entry("B", "CLS", 0.6)],
}
LINE = {"method": "direct", "target": "local", "f1": F1["f1"]} | dict.fromkeys(FIGURES, F1["f1"])
MORE = {
    "prompting": {"answer": {**F1, "method": "A", "gain_of_superactivator": [0.1, 0.0, 0.2]}},
    "localization": {"about": {"pairs": 3}, "direct": {"table": [LINE]}},
}


def analyses():
    """What two of the analyses give, as a step writes it."""
    from skact.inspection import coverage, score_distributions
    from skact.protocol._analyses import _plain, _thinned

    stack, _, labels = case(40)
    quick = {"n_resamples": 3, "random_state": 0}
    spread = _plain(_thinned(score_distributions(stack, None, labels, **quick)))
    made = {"score_distributions": {"result": spread, "claims": {"skew": {"first": [1, 0, 2]}}}}
    cover = _plain(coverage(stack, None, labels, **quick))
    return made | {"coverage": {"result": cover, "claims": {}}}


@pytest.fixture
def folder(tmp_path):
    """A run of two setups, of which one has all tables."""
    setups = [Setup("all", "x", "y"), Setup("one", "x", "y")]
    Journal(tmp_path).start(Configuration(setups, title="A & b").plain(), resume=False)
    tables = {"all": DETECTION, "one": DETECTION}
    tables |= {f"all.{k}": one for k, one in (MORE | {"analyses": analyses()}).items()}
    for name, made in tables.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(made), encoding="utf-8")
    return tmp_path


def test_every_table_has_its_figures(folder, capsys):
    pytest.importorskip("matplotlib")
    assert main(["report", str(folder)]) == 0, capsys.readouterr()
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    names = ["detection", "depth.A", "depth.B"]
    expected = [f"one.{name}" for name in names]
    more = ["prompting", "localization-f1", "localization-gap", "score_distributions", "coverage"]
    expected += [f"all.{name}" for name in names + more]
    drawn = {path.stem: path.read_bytes() for path in (folder / "figures").glob("*.png")}
    assert set(drawn) == set(expected)
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == len(drawn)
    assert "A &amp; b" in html
    assert "a&lt;/td&gt;&lt;script&gt;" in html
    assert html.count("<table>") == 5
    assert "0.500 [0.400, 0.600]" in html
    # Again, the same.
    write_report(folder)
    assert html == (folder / "report.html").read_text(encoding="utf-8")
    assert drawn == {path.stem: path.read_bytes() for path in (folder / "figures").glob("*.png")}


def test_each_concept_has_its_line(folder):
    def concepts(f1, layer):
        return {"b<": {"test_f1": f1, "layer": layer}, "a": {"test_f1": 0.1, "layer": 2}}

    table = [entry("A", "MaxToken", 0.5) | {"concepts": concepts(0.7, 5)}]
    table += [entry("A", "SuperActivator", 0.5) | {"concepts": concepts(0.25, 2)}]
    table += [entry("B", "SuperActivator", 0.5) | {"concepts": concepts(0.5, 5)}]
    made = json.dumps(DETECTION | {"table": table})
    (folder / "one.json").write_text(made, encoding="utf-8")
    html = write_report(folder).read_text(encoding="utf-8")
    assert "one: F1 on test of each concept by SuperActivator" in html
    assert "all: F1 on test of each concept" not in html  # which has none
    (line,) = [row for row in re.findall(r"<tr>.*?</tr>", html, re.S) if "b&lt;" in row]
    words = " ".join(re.sub("<.*?>", " ", line).split())
    assert words == "b&lt; 0.250, block 2 0.500, block 5"
    assert "0.700, block 5" not in html


def test_without_matplotlib_the_page_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.warns(UserWarning, match=r"no figures: .* pip install 'skact\[plot\]'"):
        html = write_report(folder).read_text(encoding="utf-8")
    assert "skact[plot]" in html
    assert html.count("<table>") == 5
    assert not re.search("<img", html)
    assert not (folder / "figures").exists()


def test_a_run_that_is_none_or_not_finished_or_changed_is_named(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (folder / "all.json").write_text('{"table": 3}', encoding="utf-8")
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert "holds no run of skact paper" in capsys.readouterr().err
    assert main(["report", str(folder)]) == 2
    assert "a table of setup all" in capsys.readouterr().err
    (folder / "all.json").unlink()
    assert main(["report", str(folder)]) == 2
    assert "has no table of setup all: finish the run" in capsys.readouterr().err
    assert main(["report", str(folder), "--out", "page.html"]) == 2
    assert "nothing but the folder" in capsys.readouterr().err
    assert main(["report", str(folder / "one.json")]) == 2
    assert "a detector needs an input" in capsys.readouterr().err


def edit_journal(folder, setup):
    path = folder / "journal.jsonl"
    first, *rest = path.read_text(encoding="utf-8").split("\n")
    content = json.loads(first)
    content["settings"]["setup"] = setup
    path.write_text("\n".join([json.dumps(content), *rest]), encoding="utf-8")


@pytest.mark.parametrize(
    "setup",
    [
        *([], None, 5, [None], [{}], [{"name": None}], [{"name": "a b"}], [{"name": "x" * 5000}]),
        *([{"name": "../outside"}], [{"name": "/etc/passwd"}], [{"name": "one\0"}]),
    ],
    ids=lambda setup: str(setup)[:30],
)
def test_setups_of_a_journal_are_names(folder, setup):
    inside = folder / "run"
    inside.mkdir()
    for path in folder.glob("*.json*"):
        path.rename(inside / path.name)
    (folder / "outside.json").write_text(json.dumps(DETECTION), encoding="utf-8")
    edit_journal(inside, setup)
    with pytest.raises(
        ValueError, match=r"journal\.jsonl: (name of a setup must|its config)"
    ) as one:
        write_report(inside)
    assert len(str(one.value)) < 600
    assert [path.name for path in folder.iterdir() if path.suffix == ".png"] == []


@pytest.mark.parametrize("name", ["one.json", "all.prompting.json", "journal.jsonl", "figures"])
def test_links_out_of_a_run_are_not_followed(folder, name, tmp_path_factory):
    pytest.importorskip("matplotlib")
    outside = tmp_path_factory.mktemp("outside")
    if name != "figures":
        (folder / name).rename(outside / name)
    (folder / name).symlink_to(outside / name if name != "figures" else outside)
    with pytest.raises(ValueError, match=f"{re.escape(name)} leads out of the folder"):
        write_report(folder)
    assert list(outside.iterdir()) == ([outside / name] if name != "figures" else [])


TABLE = [
    (("floor",), None),
    (("floor",), 10**400),
    (("table", 0, "weighted_test_f1"), 10**400),
    (("table", 0, "interval"), [0.1]),
    (("table", 0, "cal_f1_by_layer", "mean", 0), "x" * 5000),
    (("table", 0, "auroc"), None),
    (("samples",), []),
    (("versions",), "<b>"),
]


@pytest.mark.parametrize(("place", "value"), TABLE, ids=lambda v: str(v)[:40])
def test_edited_tables_are_named(folder, place, value):
    edited = json.loads((folder / "all.json").read_text(encoding="utf-8"))
    holder = edited
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    (folder / "all.json").write_text(json.dumps(edited), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"a table of setup all in .* is not as a run writes it"
    ) as e:
        write_report(folder)
    assert len(str(e.value)) < 400 + len(str(folder))
