"""What a run keeps, by key, whatever a crash has left of its file."""

import json

import pytest

from skact.journal import append_record, open_journal, read_journal

SETTINGS = {"batch_size": 2, "random_state": 0, "edges": (1, 2.5)}
MADE = {"0": ["ä", "b\nc"], "1": ["d"], "add/0.5": {"loss": [0.25, None]}}


def opened(path, of="tests", settings=SETTINGS):
    return open_journal(path, of, settings)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "made.jsonl"
    assert opened(path) == {}
    for key, record in MADE.items():
        append_record(path, key, record)
    return path


def test_what_is_kept_comes_back(path):
    assert opened(path) == MADE
    append_record(path, "1", ["again"])
    assert opened(path) == {**MADE, "1": ["again"]}
    settings = {**SETTINGS, "edges": list(SETTINGS["edges"])}
    assert read_journal(path, "tests") == (settings, opened(path))
    assert all(json.loads(line) for line in path.read_text("utf-8").splitlines())


def test_every_cut_of_a_file_can_be_gone_on_with(path):
    whole = path.read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        records = opened(path)
        n_whole = max(sum(end <= cut for end in ends) - 1, 0)
        assert records == dict(list(MADE.items())[:n_whole])
        append_record(path, "more", cut)
        assert opened(path) == {**records, "more": cut}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({**SETTINGS, "batch_size": 3}, r"another batch_size \(2, now 3\)\."),
        ({**SETTINGS, "batch_size": 3, "more": "x" * 99}, "now 3\\), another more\\."),
        ({k: v for k, v in SETTINGS.items() if k != "edges"}, r"edges \(\[1, 2.5\], now null\)"),
        ({**SETTINGS, "edges": (1, 3)}, r"another edges\[1\] \(2.5, now 3\)\."),
        ({**SETTINGS, "edges": {"low": 1}}, "another edges "),
    ],
)
def test_the_journal_of_another_run_is_refused_and_left_alone(path, settings, words):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        opened(path, settings=settings)
    with pytest.raises(ValueError, match="is a journal of 'tests', not of 'reports'"):
        opened(path, of="reports")
    assert path.read_bytes() == before


OTHER = ["hello\n", '{"a": 1}\n', "[1]\n", "\n\nx", "7", '{"key": "0", "record": 1}\n', "\xff\n"]
HEADS = ["5", "null", "[1]", '"a"']


@pytest.mark.parametrize(
    "text", [*OTHER, *(f'{{"journal of": "tests", "settings": {head}}}\n' for head in HEADS)]
)
def test_other_files_are_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="it is no journal"):
        opened(path)
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "line", ["hello", '{"drafts": []}', "[]", '{"key": "0", "more": 1}', "null"]
)
def test_a_line_that_is_no_record_is_named(path, line):
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="line 5 is no record"):
        opened(path)
    assert path.read_bytes() == before


def test_places_where_no_file_can_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        opened(tmp_path / "none" / "made.jsonl")
    with pytest.raises(IsADirectoryError, match="must name a file"):
        opened(tmp_path)
