"""A file of answers that survives whatever ends the run that writes it."""

import json

import numpy as np
import pytest

from skact.prompting import PromptDetector
from skact.prompting._answer_log import AnswerLog
from tests.prompting.word_search import TEXTS, Model, Y, detector


@pytest.mark.parametrize("cut", [1, 5, 40, 90, -2, -1])
def test_a_torn_line_is_asked_again(tmp_path, cut):
    log = tmp_path / "a.jsonl"
    params = {"log": log, "revision": "m"}
    detector(**params).predict(TEXTS)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
    whole = cut == -1  # only the end of the line is missing
    for n_asked in (0 if whole else 1, 0):
        model = Model()
        assert np.array_equal(detector(model, **params).predict(TEXTS), Y)
        assert len(model.asked) == n_asked
    assert len(AnswerLog(log).read()) == 8
    # And a new answer starts on its own line.
    detector(**params).predict(["joy!"])
    assert len(AnswerLog(log).read()) == 10


@pytest.mark.parametrize("text", ["my diary\n", "my diary", '{"a": 1}\n', "[1]\n", "3\n"])
def test_a_file_that_is_no_log_is_left_alone(tmp_path, text):
    log = tmp_path / "diary.txt"
    log.write_text(text)
    model = Model()
    with pytest.raises(ValueError, match="no log of answers: line 1"):
        detector(model, log=log, revision="m").predict(TEXTS)
    assert log.read_text() == text
    assert not model.batches


def test_the_log_is_plain_lines(tmp_path):
    log = tmp_path / "a.jsonl"
    found = PromptDetector(
        Model(yes="Yes\u2028—"), concepts=["Freude é"], log=log, revision="m"
    ).fit(["a", "b"], [0, 1])
    found.predict(["Freude é\ud800"])
    record = json.loads(log.read_text("ascii"))
    assert set(record) == {"key", "concept", "answer"}
    assert len(record["key"]) == 64
    assert (record["concept"], record["answer"]) == ("Freude é", "Yes\u2028—")


@pytest.mark.parametrize("edited", ['"key": 5, "answer": "Yes"', '"key": "k", "answer": null'])
def test_an_answer_that_is_no_text_is_asked_again(tmp_path, edited):
    log = AnswerLog(tmp_path / "a.jsonl")
    log.append({"k": "Yes"}, {"k": "cat"})
    assert log.read() == {"k": "Yes"}
    log.path.write_text('{"key": "a", "answer": "No"}\n{' + edited + "}\n", encoding="ascii")
    if "5" in edited:  # which is not how a line of it begins
        with pytest.raises(ValueError, match="is no log of answers: line 2"):
            log.read()
    else:
        assert log.read() == {"a": "No"}
