"""A journal that was cut or edited goes on, or is refused with file and line."""

import json
import re

import pytest

from skact.protocol import Configuration, Setup
from skact.protocol._journal import Journal

CONFIGURATION = Configuration([Setup("one", "x", "y")]).plain()


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path)
    made.start(CONFIGURATION, resume=False)
    made.record("one/embed", {"a": 1})
    made.record("one/cell", [2])
    return made


def test_it_goes_on_wherever_it_was_cut(journal):
    whole = journal.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for end in range(0, len(whole) + 1, 7):
        journal.path.write_bytes(whole[:end])
        journal.start(CONFIGURATION, resume=True)
        expected = ["one/embed", "one/cell"][: max(sum(e <= end for e in ends) - 1, 0)]
        assert journal.done() == set(expected)
        assert journal.configuration() == CONFIGURATION
    assert journal.result("one/embed") == {"a": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"5", "line 4 is no record: '5'"),
        (b"[]", "line 4 is no record"),
        (b"null", "line 4 is no record"),
        (b'{"key": "a"}', "line 4 is no record"),
        (b'{"key": ["a"], "record": null}', "line 4 is no record"),
        (b"{ ", "line 4 is no record"),
        (b"[" * 1000, "line 4 is no record"),
        (b"\xff", "line 4 is no record"),
    ],
)
def test_an_edited_line_is_named(journal, line, said):
    assert journal.done() == {"one/embed", "one/cell"}
    with journal.path.open("ab") as file:
        file.write(line + b"\n")
    for ask in (journal.done, lambda: journal.start(CONFIGURATION, resume=True)):
        with pytest.raises(ValueError, match=rf"journal\.jsonl.*{re.escape(said)}"):
            ask()


OTHER = [b"{}\n", b'{"configuration": 5}\n', b'{"key": "a", "record": 1}\n']


@pytest.mark.parametrize("first", OTHER)
def test_a_first_line_without_configuration_is_named(journal, first):
    journal.path.write_bytes(first)
    with pytest.raises(ValueError, match=r"journal\.jsonl.*it is no journal"):
        journal.configuration()
    journal.path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"journal\.jsonl does not say what run it is of"):
        journal.configuration()


def test_another_configuration_is_said_shortly(journal):
    other = json.loads(json.dumps(CONFIGURATION)) | {"title": "x" * 5000}
    with pytest.raises(ValueError, match="a run with another title") as error:
        journal.start(other, resume=True)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["journal.jsonl", "steps"])
def test_links_out_of_the_folder_are_not_followed(journal, name, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / name
    (journal.folder / name).rename(outside)
    (journal.folder / name).symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else sorted(outside.rglob("*"))
    with pytest.raises(ValueError, match="leads out of the folder"):
        journal.record("one/other", 3)
    assert before == (outside.read_bytes() if outside.is_file() else sorted(outside.rglob("*")))
