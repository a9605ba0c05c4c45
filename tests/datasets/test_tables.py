import json

import pytest

from skact.datasets import Span, load_goemotions, load_isarcasm, load_spans, load_table
from tests.datasets.formats import ISARCASM, write, write_goemotions

ROWS = [
    {"text": 'Say "hi",\nall', "labels": ["joy", "thanks"], "split": "train", "group": 1},
    {"text": "No.", "labels": [], "split": "cal", "group": 2},
    {"text": "Ho", "labels": ["joy"], "split": "test", "group": 2},
]
CSV = (
    'text,labels,split,group\n"Say ""hi"",\nall","joy, thanks",train,1\nNo.,,cal,2\nHo,joy,test,2\n'
)


def as_jsonl(path):
    return write(path / "a.jsonl", "\n".join(map(json.dumps, ROWS)))


def as_parquet(path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path / "a.parquet", row_group_size=1)
    return path / "a.parquet"


WRITERS = {
    "csv": lambda path: write(path / "a.csv", "\ufeff" + CSV),
    "jsonl": as_jsonl,
    "parquet": as_parquet,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_all_kinds_of_tables_say_the_same(tmp_path, kind):
    data = load_table(WRITERS[kind](tmp_path))
    assert data.data == [row["text"] for row in ROWS]
    assert data.target.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert data.target_names == ["joy", "thanks"]
    assert data.spans == [[Span(0, 13, "joy"), Span(0, 13, "thanks")], [], [Span(0, 2, "joy")]]
    assert data.split.tolist() == ["train", "cal", "test"]
    assert data.groups.tolist() == ["1", "2", "2"]
    assert load_table(WRITERS[kind](tmp_path), split="test", concepts=["joy"]).target == [[1]]


def test_samples_are_called_by_file_and_line(tmp_path):
    files = {"train": write(tmp_path / "a.csv", 'text,x\n"a\nb",1\n\nc,0\n')}
    files["test"] = write(tmp_path / "b/a.csv", "text,x\nd,1.0\n")
    data = load_table(files, labels=["x"])
    assert data.ids == ["train/a.csv:3", "train/a.csv:5", "test/a.csv:2"]
    assert data.split.tolist() == ["train", "train", "test"]
    assert data.target.tolist() == [[1], [0], [1]]


def test_spans_are_read_from_a_column(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\twhere\nI cheer\t"[[2, 7, ""joy""]]"\nNo\t[]\n')
    data = load_table(path, labels=None, spans="where")
    assert data.spans == [[Span(2, 7, "joy")], []]
    data = load_table(path, labels=["other"], spans="where")
    assert data.target_names == ["joy"]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_rows_of_validation_are_those_that_thresholds_come_from(tmp_path, name):
    path = write(tmp_path / "a.csv", f"text,labels,split\na,x,train\nb,y,{name}\nc,x,test\n")
    assert load_table(path).split.tolist() == ["train", "cal", "test"]
    assert load_table(path, split="cal").data == ["b"]


def test_numbers_of_classes_are_names(tmp_path):
    path = write(
        tmp_path / "a.jsonl", '{"text": "a", "labels": 10}\n{"text": "b", "labels": [2]}\n'
    )
    data = load_table(path)
    assert data.target_names == ["10", "2"]
    assert data.target.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    "span",
    [
        {"start": 2, "end": 7, "label": "joy"},
        {"id": 1, "start_offset": 2, "end_offset": 7, "label": "joy"},
    ],
)
def test_spans_of_tools_are_objects(tmp_path, span):
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "I cheer", "entities": [span]}))
    assert load_table(path, spans="entities").spans == [[Span(2, 7, "joy")]]


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        (
            "a.csv",
            "text,labels\na,b\n\nc\n",
            {},
            "line 4: expected 2 fields like the header, got 1",
        ),
        ("a.csv", 'text,labels\n"a\n",b\n"c" d,e\n', {}, "line 4: .* expected after"),
        ("a.csv", 'text,labels\na,b\n"c,d\n', {}, "line 3: unexpected end of data"),
        ("a.csv", "text,labels\n ,b\n", {}, "line 2: 'text' must be a text that is not empty"),
        ("a.csv", "body,labels\na,b\n", {}, "line 2: there is no column 'text'; there are body"),
        ("a.csv", "text,x\na,2\n", {"labels": ["x"]}, "line 2: 'x' must be 0 or 1, got '2'"),
        ("a.csv", "text,text\na,b\n", {}, "line 1: a column comes twice"),
        ("a.csv", "text,labels,split\na,b,de\n", {}, "line 2: 'split' must be one of .* 'de'"),
        ("a.csv", "text,labels,split\na,b,cal\nc,d,\n", {}, "'a.csv:3' has no split"),
        ("a.csv", "text,labels,id\na,b,1\nc,d,1\n", {}, "line 3: id '1' is that of .*line 2"),
        ("a.csv", "text,s\na,[[0\n", {"spans": "s"}, "line 2: 's': not JSON"),
        ("a.csv", 'text,s\na,"[[0,2,""x""]]"\n', {"spans": "s"}, "line 2: span .* <= 1"),
        ("a.csv", "text,labels\n", {}, "holds no samples"),
        ("a.csv", "", {}, "holds no samples"),
        ("a.txt", "a", {}, r"must end in one of \.csv"),
        (
            "a.jsonl",
            '{"text": "a", "labels": 3.5}',
            {},
            "line 1: 'labels' must be a label or .* 3.5",
        ),
        ("a.jsonl", '{"text": "a", "labels": [true]}', {}, "must be a label or a list of them"),
        ("a.jsonl", '{"text": "a", "s": [{"start": 0}]}', {"spans": "s"}, "must be .start, end"),
        ("a.parquet", "PAR", {}, "cannot be read as parquet"),
    ],
)
def test_damaged_tables_are_named(tmp_path, name, text, options, message):
    write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message) as caught:
        load_table(tmp_path / name, **options)
    assert name in str(caught.value)


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,labels\na,\xff\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_table(tmp_path / "a.csv")


# Two data sets


def test_isarcasm_is_read_as_published(tmp_path):
    path = write(tmp_path / "train.En.csv", ISARCASM)
    data = load_isarcasm(path)
    assert data.data == ["Great, rain\nagain.", "I like tea."]
    assert data.target_names[:2] == ["sarcastic", "sarcasm"]
    assert data.target.tolist() == [[1, 1, 0, 0, 0, 0, 1], [0] * 7]
    assert data.rephrase == ["I dislike rain.", None]
    test = write(tmp_path / "test.csv", "text,sarcastic\nSure.,1\n")
    both = load_isarcasm({"train": path, "test": test})
    assert both.target_names == ["sarcastic"]
    assert both.split.tolist() == ["train", "train", "test"]
    assert load_isarcasm({"train": path, "test": test}, split="test").rephrase == [None]


def test_a_tweet_without_text_is_left_out_and_told(tmp_path):
    path = write(tmp_path / "a.csv", ISARCASM + "2,,0,,,,,,,\n")
    with pytest.warns(UserWarning, match=r"1 rows have no text .*a\.csv, line 5"):
        assert len(load_isarcasm(path).data) == 2
    with pytest.raises(ValueError, match="line 2: there is no column 'tweet' or 'text'"):
        load_isarcasm(write(tmp_path / "a.csv", "x\n1\n"))


def test_goemotions_is_read_as_published(tmp_path):
    data = load_goemotions(write_goemotions(tmp_path))
    assert data.data == ["So glad!", 'He said "no" twice', 'Oh "well"']
    assert data.target.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert data.target_names == ["joy", "anger", "neutral"]
    assert data.ids == ["e1", "e2", "e3"]
    assert data.split.tolist() == ["train", "train", "cal"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a\t0\n", "line 1: expected text, emotions and id, got 2"),
        (f"a\t{'9' * 5000}\te9\n", "line 1: '9{79} is none of the 3 emotions"),
        ("a\t3\te9\n", "line 1: '3' is none of the 3 emotions"),
        ("a\t-1\te9\n", "line 1: '-1' is none"),
        (" \t0\te9\n", "line 1: the text is empty"),
        ("a\t0\te1\n", "line 1: id 'e1' is that of .*train.tsv, line 1"),
    ],
)
def test_damaged_comments_are_named(tmp_path, line, message):
    write(write_goemotions(tmp_path) / "test.tsv", line)
    with pytest.raises(ValueError, match=r"test\.tsv, " + message):
        load_goemotions(tmp_path)


def test_a_folder_without_comments_is_refused(tmp_path):
    write(tmp_path / "emotions.txt", "joy")
    with pytest.raises(FileNotFoundError, match=r"no lines in train\.tsv"):
        load_goemotions(tmp_path)


def test_a_real_file_is_read_alike_by_two_readers(data_folder):
    path = data_folder("snips") / "samples.jsonl"
    table, spans = load_table(path, labels=None, spans="spans"), load_spans(path.parent)
    assert table.spans == spans.spans
    assert (table.target == spans.target).all()
    assert (table.groups == spans.groups).all()
    assert (table.split == spans.split).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "a"], "labels must differ from each other, but 'a' comes twice"),
        (["a", ""], r"labels\[1\] must be a name, got ''"),
    ],
)
def test_names_of_concepts_are_names_and_differ(tmp_path, labels, message):
    path = write(tmp_path / "a.csv", "text,a,\nx,1,1\n")
    with pytest.raises(ValueError, match=message):
        load_table(path, labels=labels)
    assert load_table(path, labels=["a"]).target_names == ["a"]


def test_a_blank_label_is_no_name(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a", "labels": [" "]}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl has a concept called ' ', which is no name"):
        load_table(path)


def test_a_flipped_bit_in_a_parquet_file_with_checksums_is_no_other_value(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, told_apart = tmp_path / "a.parquet", {}
    table = pyarrow.table({"text": ["a needle here", "hay"], "labels": [["x"], []]})
    for has_checksums in (True, False):
        parquet.write_table(
            *(table, path),
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=has_checksums,
        )
        content = path.read_bytes()
        assert content.count(b"needle") == 1
        path.write_bytes(content.replace(b"needle", b"noodle"))
        try:
            told_apart[has_checksums] = load_table(path).data[0]
        except ValueError as error:
            told_apart[has_checksums] = str(error)
    assert told_apart[True].startswith(f"{path} cannot be read as parquet: ")
    assert "checksum" in told_apart[True]
    assert told_apart[False] == "a noodle here"  # the control, of which nobody can know
