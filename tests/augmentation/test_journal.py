"""Drafts on disk: whole batches, of one run."""

import pytest

from skact.augmentation._journal import Journal

SETTINGS = {"batch_size": 2, "random_state": 0}


def test_batches_come_back_and_a_torn_one_does_not(tmp_path):
    path = tmp_path / "drafts.jsonl"
    journal = Journal(path, SETTINGS)
    journal.append(["ä", "b\nc"])
    journal.append(["d"])
    assert Journal(path, SETTINGS).drafts == [["ä", "b\nc"], ["d"]]
    whole = path.read_bytes()
    for cut in range(len(whole) - 3, len(whole)):
        path.write_bytes(whole[:cut])
        torn = Journal(path, SETTINGS)
        assert torn.drafts[:1] == [["ä", "b\nc"]]
        torn.append(["again"])
        assert Journal(path, SETTINGS).drafts[-1] == ["again"]


def test_every_cut_of_a_file_can_be_gone_on_with(tmp_path):
    path = tmp_path / "drafts.jsonl"
    Journal(path, SETTINGS).append(["a", "b"])
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        found = Journal(path, SETTINGS).drafts
        assert found == ([["a", "b"]] if cut >= len(whole) - 1 else [])
        assert Journal(path, SETTINGS).drafts == found


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({**SETTINGS, "batch_size": 3}, "another batch_size"),
        ({"batch_size": 2}, "another random_state"),
        ({**SETTINGS, "more": 1}, "another more"),
    ],
)
def test_a_journal_of_another_run_is_refused_and_left_alone(tmp_path, settings, words):
    path = tmp_path / "drafts.jsonl"
    Journal(path, SETTINGS).append(["a"])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        Journal(path, settings)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["hello\n", '{"a": 1}\n', "[1]\n", "\n\nx", '{"drafts": []}\n'])
def test_other_files_are_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="no journal"):
        Journal(path, SETTINGS)
    assert path.read_text(encoding="utf-8") == text


def test_a_changed_batch_is_refused(tmp_path):
    journal = Journal(tmp_path / "drafts.jsonl", SETTINGS)
    journal.append(["a"])
    assert journal.batch(0, 1) == ["a"]
    with pytest.raises(ValueError, match="batch 0 does not hold 2"):
        journal.batch(0, 2)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Journal(tmp_path / "none" / "drafts.jsonl", SETTINGS)
