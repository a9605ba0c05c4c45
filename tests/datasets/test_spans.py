import json
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skact.datasets import Span, load_spans, parse_tags

SAMPLES = [
    {"id": "a", "text": "Ho! I cheer.", "spans": [[4, 12, "joy"]], "split": "train"},
    {"id": "b", "text": "😀 so: grr, yum", "spans": [[6, 9, "rage"], [11, 14, "food"]]},
    {"id": "c", "text": "Nothing\u2028here.", "spans": [], "labels": [], "split": "test"},
    {"id": "d", "text": "both", "spans": [[0, 4, "rage"], [0, 4, "joy"]], "split": "test"},
]
SAMPLES[1]["split"] = "cal"


def write(folder, samples):
    lines = [s if isinstance(s, str) else json.dumps(s, ensure_ascii=False) for s in samples]
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


# parse_tags


@pytest.mark.parametrize(
    ("text", "clean", "pieces"),
    [
        ("I said <X> hello </X> there.", "I said hello there.", {"x": "hello"}),
        ("<X> hello </X>", "hello", {"x": "hello"}),
        ("say<X> hello</X>", "say hello", {"x": "hello"}),
        ("<X>hello </X>you", "hello you", {"x": "hello"}),
        ("un<X>believ</X>able", "unbelievable", {"x": "believ"}),
        ("a <A> <B> b </B> c</A>d", "a b cd", {"a": "b c", "b": "b"}),
        ("<A>x</A><B>\ty</B>", "x\ty", {"a": "x", "b": "y"}),
        ("<A>x</A>\n\n<B> y</B>", "x\n\ny", {"a": "x", "b": "y"}),
        ("  <x-1>a</X-1>  ", "  a  ", {"x-1": "a"}),
        ("a < b <J>c > d</J> <3", "a < b c > d <3", {"j": "c > d"}),
        ("5 <<A>6</A>", "5 <6", {"a": "6"}),
    ],
)
def test_tags_leave_exact_spans(text, clean, pieces):
    found, spans = parse_tags(text)
    assert found == clean
    assert {span.label: found[span.start : span.end] for span in spans} == pieces


def test_repeated_tags_come_in_the_order_of_their_opening():
    clean, spans = parse_tags("<A>b <B>b</B></A> <A>b</A>")
    assert clean == "b b b"
    assert spans == [Span(0, 3, "a"), Span(2, 3, "b"), Span(4, 5, "a")]


@pytest.mark.parametrize(
    "text", ["", "  no tags\n here ", "a < b", "<", "<3 <é> < A> </ A> <A", "<>"]
)
def test_text_without_tags_is_unchanged(text):
    assert parse_tags(text) == (text, [])


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("ab <A>x", 3, "never closed"),
        ("ab </A>x", 3, "never opened"),
        ("<A>x<B>y</A>z</B>", 8, "crosses <b>"),
        ("<A>x</B>", 4, "never opened"),
        ("<A>x<A>y</A></A>", 4, "inside another <a>"),
        ("x <A> </A> y", 2, "holds no text"),
        ("x <A><B></B></A> y", 5, "holds no text"),
        ("<A>x</A></A>", 8, "never opened"),
    ],
)
def test_tags_that_do_not_match_are_refused(text, position, message):
    with pytest.raises(ValueError, match=rf"at position {position}\b.*{re.escape(message)}"):
        parse_tags(text)


def test_tags_need_a_string():
    with pytest.raises(TypeError, match=r"'text' parameter .* Got b"):
        parse_tags(b"<A>x</A>")


words = st.text(st.sampled_from("aB3<>/é😀.-"), min_size=1, max_size=4).filter(
    lambda word: not re.search("</?[A-Za-z][A-Za-z0-9_-]*>", word)
)
blanks = st.sampled_from(["", " ", "\n ", "\u00a0"])
trees = st.recursive(
    words,
    lambda inner: st.tuples(
        st.sampled_from(["X", "yy", "Z_1"]), blanks, st.lists(inner, min_size=1, max_size=3), blanks
    ),
    max_leaves=8,
)


def render(nodes, depth=0):
    """Write nodes with tags; nested tags get different names by their depth."""
    parts = []
    for node in nodes:
        if isinstance(node, tuple):
            name, before, children, after = node
            inner = render(children, depth + 1)
            node = f"<{name}-{depth}>{before}{inner}{after}</{name}-{depth}>"
        parts.append(node)
    return " ".join(parts)


def place(nodes, start=0, depth=0):
    """Say independently of any parsing what the clean text and its spans are."""
    parts, spans = [], []
    for node in nodes:
        if isinstance(node, tuple):
            text, inner = place(node[2], start, depth + 1)
            spans += [Span(start, start + len(text), f"{node[0].lower()}-{depth}"), *inner]
            node = text
        parts.append(node)
        start += len(node) + 1
    return " ".join(parts), spans


@given(st.lists(trees, max_size=5))
@example([("X", " ", ["a"], " "), ("X", " ", [("X", "", ["b"], " "), "c"], "")])
def test_inserted_tags_are_taken_out_again(nodes):
    assert parse_tags(render(nodes)) == place(nodes)


def test_many_blanks_take_linear_time():
    clean, spans = parse_tags("a" + " " * 200_000 + "<A>b</A>" + " " * 200_000 + "c")
    assert len(clean) == 400_003
    assert spans == [Span(200_001, 200_002, "a")]


# load_spans


def test_spans_are_read_as_written(tmp_path):
    (tmp_path / "README.md").write_text("About.", encoding="utf-8")
    texts = load_spans(write(tmp_path, SAMPLES))
    assert texts.data == [sample["text"] for sample in SAMPLES]
    assert texts.ids == ["a", "b", "c", "d"]
    assert texts.target_names == ["food", "joy", "rage"]
    assert texts.target.dtype == np.int64
    np.testing.assert_array_equal(texts.target, [[0, 1, 0], [1, 0, 1], [0, 0, 0], [0, 1, 1]])
    assert texts.split.tolist() == ["train", "cal", "test", "test"]
    assert texts.DESCR == "About."
    # Offsets are code points: the face counts as one.
    assert [texts.data[1][span.start : span.end] for span in texts.spans[1]] == ["grr", "yum"]
    assert isinstance(texts.spans[1][0], Span)


def test_a_split_keeps_its_rows_and_all_columns(tmp_path):
    write(tmp_path, SAMPLES)
    texts = load_spans(tmp_path, split="train")
    assert texts.ids == ["a"]
    assert texts.target_names == ["food", "joy", "rage"]
    assert texts.DESCR == ""


def test_concepts_select_and_order_the_columns(tmp_path):
    write(tmp_path, SAMPLES)
    texts = load_spans(tmp_path, split="test", concepts=["rage", "food"])
    assert texts.target_names == ["rage", "food"]
    np.testing.assert_array_equal(texts.target, [[0, 0], [1, 0]])
    assert texts.spans == [[], [Span(0, 4, "rage")]]


GOOD = {"id": "1", "text": "abc", "spans": [[0, 1, "x"]], "split": "train"}


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        ("{not json", "not JSON .* at column 2"),
        ('{"x": ' + "[" * 10**5, "nested more than 100 deep, at column 106"),
        ('{"spans": [[0, ' + "1" * 5000, "a number of 5000 digits, at column 16"),
        ("[1, 2]", "expected a JSON object, got list"),
        (GOOD | {"id": "1"}, "id '1' is that of .*line 1"),
        (GOOD | {"id": 7}, "'id' must be a string, got 7"),
        (GOOD | {"text": None}, "'text' must be a string"),
        (GOOD | {"text": ""}, "'text' is empty"),
        (GOOD | {"spans": None}, "'spans' must be a list"),
        (GOOD | {"spans": [[0, 1]]}, "a span must be"),
        (GOOD | {"spans": [[0, 4, "x"]]}, "0 <= start < end <= 3"),
        (GOOD | {"spans": [[-1, 2, "x"]]}, "0 <= start < end <= 3"),
        (GOOD | {"spans": [[2, 2, "x"]]}, "0 <= start < end <= 3"),
        (GOOD | {"spans": [[0.0, 2, "x"]]}, "must be integers"),
        (GOOD | {"spans": [[False, 2, "x"]]}, "must be integers"),
        (GOOD | {"spans": [[0, 2, 3]]}, "must be a non-empty string"),
        (GOOD | {"labels": ["y"]}, "not those that occur .*load_table"),
        (GOOD | {"split": "dev"}, "'split' must be one of train, cal, test, got 'dev'"),
        ({"id": "2", "text": "abc", "spans": []}, "'split' must be a string"),
    ],
)
def test_bad_lines_are_named(tmp_path, second_line, message):
    write(tmp_path, [GOOD, "", second_line])
    with pytest.raises(ValueError, match=rf"samples\.jsonl, line 3: .*{message}"):
        load_spans(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "'split' parameter of load_spans"),
        ({"split": "cal"}, "no sample with split 'cal'"),
        ({"concepts": ["y"]}, "no concept 'y'; it has x"),
        ({"concepts": "x"}, "must be a list of names"),
        ({"concepts": []}, "at least one name"),
        ({"concepts": ["x", "x"]}, "'x' comes twice"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, message):
    write(tmp_path, [GOOD])
    with pytest.raises(ValueError, match=message):
        load_spans(tmp_path, **arguments)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load_spans(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no file .*samples\.jsonl"):
        load_spans(tmp_path)
    (tmp_path / "samples.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no samples"):
        load_spans(tmp_path)
    (tmp_path / "samples.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_spans(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "n_positive"),
    [("goemotions", (5400, 14), 3600), ("isarcasm", (1734, 1), 867)],
)
def test_real_texts(data_folder, name, shape, n_positive):
    folder = data_folder(name)
    texts = load_spans(folder)
    assert texts.target.shape == shape
    assert texts.target.any(axis=1).sum() == n_positive
    sizes = [len(load_spans(folder, split=split).data) for split in ("train", "cal", "test")]
    assert sizes == [(texts.split == split).sum() for split in ("train", "cal", "test")]
    assert sum(sizes) == shape[0]
    # A span is a whole comment: it never starts or ends within white space.
    for text, spans in zip(texts.data, texts.spans, strict=True):
        for span in spans:
            piece = text[span.start : span.end]
            assert piece == piece.strip()


def test_groups_are_read_where_there_are_any(tmp_path):
    write(tmp_path, [GOOD | {"group": 7}, GOOD | {"id": "2", "group": "g"}, GOOD | {"id": "3"}])
    assert load_spans(tmp_path).groups.tolist() == ["7", "g", "3"]
    write(tmp_path, [GOOD | {"group": 0.5}])
    with pytest.raises(ValueError, match=r"'group' must be a string or an integer, got 0\.5"):
        load_spans(tmp_path)
