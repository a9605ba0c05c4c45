"""Benchmarks that take no minutes run, on problems so small that their figures mean nothing."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from skact import TokenArray, make_paragraphs, tpr_at_fpr_score, weighted_f1_score
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
    ("concept_search", "", "--data {texts} --model {model} --samples 150"),
    (
        "dilution",
        "LENGTHS, N_RESAMPLES, FEWEST = (1, 4), 3, 2\n"
        "RULES['Guaranteed cut'][1].set_params(level=0.2, confidence=None)\n"
        "indicative = lambda data: dict.fromkeys(data.target_names, ['printer', 'reports'])",
        "--data {texts} --model {model} --block 1",
    ),
    ("detection_table", "", "--data {texts} --model {model} --layers 1 --methods MeanPrototype"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    made = make_paragraphs(300, random_state=0)
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        for i, (text, spans) in enumerate(zip(made.data, made.spans, strict=True)):
            split = ("train", "cal", "test")[i % 3]
            sample = {"id": str(i), "text": text, "spans": [list(s) for s in spans], "split": split}
            file.write(json.dumps(sample) + "\n")
    return {"texts": folder, "model": save_pair(text_pair("bert"), folder / "model")}


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


def test_ranking_is_weighted_and_leaves_out_what_no_sample_holds(module, rng):
    y = (rng.random((80, 3)) < [0.2, 0.6, 0.0]).astype(int)
    scores = y + rng.normal(size=y.shape)
    held = y[:, :2], scores[:, :2]
    assert module("detection_table").ranking(y, scores) == pytest.approx(
        {
            "auroc": roc_auc_score(*held, average="weighted"),
            "average_precision": average_precision_score(*held, average="weighted"),
            "tpr_at_1_fpr": tpr_at_fpr_score(*held),
        },
        abs=1e-4,
    )


def test_a_diluted_sample_is_a_text_at_its_place_among_others(module):
    tokens = TokenArray.from_list([np.full((n, 1), n) for n in (1, 2, 3, 4)])
    made = module("dilution").joined(
        tokens, np.array([0, 3]), np.array([[1, 2], [2, 0]]), np.array([0.5, 0.99])
    )
    assert [x.ravel().tolist() for x in made] == [[2, 2, 1, 3, 3, 3], [3, 3, 3, 1, 4, 4, 4, 4]]


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
