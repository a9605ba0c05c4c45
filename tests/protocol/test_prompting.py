"""Asking a model as a step: of the detector that asks, on samples that are drawn once."""

import json

import numpy as np
import pytest
from sklearn.utils import Bunch

from skact import PromptDetector, weighted_f1_score
from skact.cli import main
from skact.protocol import Prompting, ask_about, asked_rows, prompt_gain, read_configuration
from tests.prompting.word_search import Model

SPLIT = np.resize(["train", "cal", "test"], 60)
RNG = np.random.default_rng(0)
TARGET = RNG.integers(0, 2, (60, 2))
NAMES = ["joy", "food"]


def texts(wrong):
    """Texts that name what they hold, but for some that name the other."""
    flipped = np.where((np.arange(60) < wrong)[:, None], 1 - TARGET, TARGET)
    return [" ".join(n for n, y in zip(NAMES, row, strict=True) if y) or "none" for row in flipped]


def data(wrong=0):
    return Bunch(data=texts(wrong), target=TARGET, target_names=NAMES, split=SPLIT)


def test_rows_are_drawn_from_cal_and_test():
    cal, test = asked_rows(SPLIT, 7, 0)
    assert len(set(cal)) == len(set(test)) == 7
    assert set(SPLIT[cal]) == {"cal"}
    assert set(SPLIT[test]) == {"test"}
    everything = [sorted(rows) for rows in asked_rows(SPLIT, 1000, 0)]
    assert everything == [np.flatnonzero(s == SPLIT).tolist() for s in ("cal", "test")]


def test_answers_are_those_of_the_detector():
    some, settings = data(wrong=20), Prompting(texts=15)
    made = ask_about(some, Model(), "answer", settings, 0, 10)
    _, test = asked_rows(SPLIT, 15, 0)
    detector = PromptDetector(Model(), concepts=NAMES).fit(some.data, TARGET)
    said = detector.predict([some.data[i] for i in test])
    assert made["predicted"] == said.tolist()
    assert made["f1"][0] == pytest.approx(weighted_f1_score(TARGET[test], said), abs=1e-4)
    ones = np.ones_like(said)
    assert made["floor"] == pytest.approx(weighted_f1_score(TARGET[test], ones), abs=1e-4)
    assert made["f1"][0] < 1
    assert ask_about(data(), Model(), "answer", settings, 0, 10)["f1"][0] == 1
    gain = prompt_gain(some, made["predicted"], ones, settings, 0, 10)
    assert gain[0] == pytest.approx(made["f1"][0] - made["floor"], abs=2e-4)


def test_answers_that_are_neither_are_counted():
    made = ask_about(data(), Model(yes="Perhaps"), "answer", Prompting(texts=15), 0, 10)
    assert made["neither"] > 0
    assert made["yes"] == 0


CONFIG = """
resamples = 5
[[setup]]
name = "texts"
data = "{data}"
model = "{model}"
layers = [-1]
methods = ["MeanPrototype"]
detectors = ["SuperActivator"]
[setup.prompting]
scores = ["answer"]
texts = 10
"""


def test_a_run_asks_and_goes_on(bert_folder, tmp_path, monkeypatch, capsys):
    from skact.protocol import _steps

    lines = [
        {"id": str(i), "text": f"hello {text}", "spans": [], "split": str(SPLIT[i])}
        for i, text in enumerate(texts(5))
    ]
    for line in lines:
        words = [w for w in NAMES if w in line["text"]]
        line["spans"] = [[line["text"].index(w), line["text"].index(w) + len(w), w] for w in words]
    (tmp_path / "data").mkdir()
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "data" / "samples.jsonl").write_text(whole, encoding="utf-8")
    (tmp_path / "config.toml").write_text(CONFIG, encoding="utf-8")
    asked = []

    def ask(data, model, scores, settings, seed, resamples, log):
        asked.append((model, log.name))
        if len(asked) == 1:
            raise KeyboardInterrupt
        return ask_about(data, Model(), scores, settings, seed, resamples)

    monkeypatch.setattr(_steps, "ask_about", ask)
    checked = []
    monkeypatch.setattr("skact.protocol._data.check_chat_model", checked.append)
    words = ["paper", str(tmp_path / "config.toml"), "--out", str(tmp_path / "out")]
    words += ["--data", str(tmp_path / "data"), "--model", str(bert_folder)]
    assert main(words) == 130
    assert main([*words, "--resume"]) == 0, capsys.readouterr()
    assert main([*words, "--resume"]) == 0
    assert checked == [str(bert_folder)] * 3
    assert asked == [(str(bert_folder), "texts.answers.jsonl")] * 2
    made = json.loads((tmp_path / "out" / "texts.prompting.json").read_text(encoding="utf-8"))
    table = json.loads((tmp_path / "out" / "texts.json").read_text(encoding="utf-8"))["table"]
    found = made["answer"]
    # All of test was asked about, so that both are about the same samples.
    assert found["samples"]["test"] == 10
    line = (tmp_path / "out" / "texts.prompting.md").read_text(encoding="utf-8").splitlines()[2]
    assert line.startswith(f"| answer | {found['f1'][0]:.3f} [")
    assert found["method"] == "MeanPrototype"
    assert len(table) == 2


@pytest.mark.parametrize("own", ["{model}", "{model}-chat"])
def test_the_model_that_is_asked_may_be_that_of_the_command(tmp_path, own):
    text = CONFIG.replace('model = "{model}"', 'model = "small"', 1)
    path = tmp_path / "config.toml"
    path.write_text(text + f'model = "{own}"\n', encoding="utf-8")
    (setup,) = read_configuration(path, data="d", model="models/smollm2").setup
    assert setup.model == "small"
    assert setup.prompting.model == own.replace("{model}", "models/smollm2")
    with pytest.raises(ValueError, match="needs --model"):
        read_configuration(path, data="d")


@pytest.mark.parametrize(
    ("own", "said"), [("./nowhere", "not exist"), ("{model}", "chat template")]
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_model_that_cannot_be_asked_is_named_before_long_work(
    own, said, more, bert_folder, tmp_path, capsys
):
    lines = [
        {"id": str(i), "text": f"the {w}", "spans": [[4, 4 + len(w), w]], "split": str(SPLIT[i])}
        for i, w in enumerate(NAMES[i // 3 % 2] for i in range(60))
    ]
    (tmp_path / "data").mkdir()
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "data" / "samples.jsonl").write_text(whole, encoding="utf-8")
    (tmp_path / "config.toml").write_text(CONFIG + f'model = "{own}"\n', encoding="utf-8")
    words = ["paper", str(tmp_path / "config.toml"), "--out", str(tmp_path / "out"), *more]
    words += ["--data", str(tmp_path / "data"), "--model", str(bert_folder)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
