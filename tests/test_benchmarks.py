"""Benchmarks that take no minutes run, on problems so small that their figures mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from skact import make_paragraphs
from tests.tiny_models import save_pair, text_pair

FOLDER = Path(__file__).parents[1] / "benchmarks"

# Name, sizes that replace those of the module, arguments.
RUNS = [
    ("embedding", "", "--data {texts} --model {model} --limit 40 --rounds 2"),
    ("streaming", "BLOCK, PARTS = 2**13, 2", "--folder {new} --gib 0.001"),
    ("thresholds", "N_SAMPLES, REPEATS = 100, 1", ""),
    ("matching", "N_SAMPLES, N_UNITS = 90, 60", ""),
    ("separators", "N_TOKENS, N_FEATURES, N_CONCEPTS, EPOCHS = 1200, 8, 3, 2", "--concepts 1"),
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
