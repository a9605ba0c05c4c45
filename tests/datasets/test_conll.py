import pytest

from skact.datasets import Span, load_conll
from tests.datasets.formats import CONLL, write


def test_sentences_spans_and_documents(tmp_path):
    data = load_conll(write(tmp_path / "a.conll", CONLL))
    assert data.data == ["EU rejects German call call", "Peter Blackburn #"]
    pieces = [
        [(text[span.start : span.end], span.label) for span in spans]
        for text, spans in zip(data.data, data.spans, strict=True)
    ]
    assert pieces[0] == [("EU", "ORG"), ("German call", "MISC"), ("call", "MISC")]
    assert pieces[1] == [("Peter Blackburn", "PER")]
    assert data.target_names == ["MISC", "ORG", "PER"]
    assert len(set(data.groups)) == 2


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-x I-x O", [(0, 3)]),
        ("I-x I-x I-x", [(0, 5)]),
        ("B-x B-x I-x", [(0, 1), (2, 5)]),
        ("B-x E-x I-x", [(0, 3), (4, 5)]),
        ("S-x U-x L-x", [(0, 1), (2, 3), (4, 5)]),
        ("O E-x O", [(2, 3)]),
    ],
)
def test_schemes(tmp_path, tags, spans):
    path = write(tmp_path / "a", "".join(f"w {tag}\n" for tag in tags.split()))
    assert load_conll(path).spans == [[Span(*span, "x") for span in spans]]


def test_columns_and_splits(tmp_path):
    files = {"train": write(tmp_path / "a", "B-x w 1\n"), "cal": write(tmp_path / "b", "O v 1\n")}
    data = load_conll(files, word=1, tag=0)
    assert data.data == ["w", "v"]
    assert data.split.tolist() == ["train", "cal"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a O\nb\n", {}, "line 2: expected a word and a tag, got 'b'"),
        ("a O\nb x-y\n", {}, "line 2: expected a word and a tag such as O or B-x, got 'x-y'"),
        ("a O\n\nb O\n", {"tag": 2}, "line 1: expected columns 0 and 2, got 2 columns"),
        ("a\tB-\n", {}, "line 1: .*got 'B-'"),
        ("\n", {}, "holds no samples"),
    ],
)
def test_damaged_lines_are_named(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        load_conll(write(tmp_path / "a", text), **options)


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"a O\n\xff O\n")
    with pytest.raises(ValueError, match="line 2 is not UTF-8"):
        load_conll(tmp_path / "a")
