import pytest

from skact.datasets import Span, _stream, load_brat, load_label_studio, load_tagged
from tests.datasets.formats import label_studio, write, write_brat, write_json


def test_brat_counts_what_stands_in_the_file(tmp_path):
    data = load_brat(write_brat(tmp_path))
    assert data.data == ["Ann met\r\nBo Lee.", "Nobody."]
    assert data.spans[0] == [Span(0, 3, "Person"), Span(9, 11, "Person"), Span(12, 15, "Person")]
    assert data.spans[1] == []
    assert data.ids == ["a", "b"]
    assert data.target.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T1 Person 0 3 Ann\n", "line 1: expected 'T1, tab"),
        ("T1\tPerson 0 3\tBob\n", "line 1: the text says 'Ann' there, and not 'Bob'"),
        ("#1\tnote\n\nT1\tPerson 0 99\tAnn\n", "line 3: 0 99 must lie in a text of 16"),
        (f"T1\tPerson 0 {'9' * 5000}\tAnn\n", "line 1: expected 'T1, tab"),
        ("T1\tPerson 3 3\t\n", "line 1: 3 3 must lie"),
    ],
)
def test_damaged_annotations_are_named(tmp_path, line, message):
    write(write_brat(tmp_path) / "a.ann", line)
    with pytest.raises(ValueError, match=r"a\.ann, " + message):
        load_brat(tmp_path)


def test_texts_of_brat_need_annotations(tmp_path):
    (write_brat(tmp_path) / "b.ann").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.ann for b\.txt"):
        load_brat(tmp_path)
    write(tmp_path / "b.ann", "")
    write(tmp_path / "b.txt", " ")
    with pytest.raises(ValueError, match=r"b\.txt is empty"):
        load_brat(tmp_path)


def test_label_studio_counts_code_points_or_utf_16(tmp_path):
    tasks = label_studio()
    data = load_label_studio(write_json(tmp_path / "a.json", tasks))
    # The region says 5 to 10, as JavaScript counts; in code points it is 4 to 9.
    assert data.spans == [[Span(0, 9, "loud"), Span(4, 9, "joy")], []]
    tasks[0]["annotations"][1]["result"][0]["value"].update(start=4, end=9)
    assert load_label_studio(write_json(tmp_path / "a.json", tasks)).spans == data.spans


def region(start, end, said, kind="labels"):
    return {"type": kind, "value": {"start": start, "end": end, "text": said, kind: ["joy"]}}


def test_ends_of_lines_may_be_written_in_other_ways(tmp_path):
    def spans(said):
        task = {"data": {"text": "So.\r\nI\ncheer"}, "annotations": [{"result": [said]}]}
        return load_label_studio(write_json(tmp_path / "a.json", [task])).spans[0]

    assert spans(region(5, 12, "I\\ncheer")) == [Span(5, 12, "joy")]  # as it writes them
    assert spans(region(0, 12, "So.\nI\ncheer")) == [Span(0, 12, "joy")]
    with pytest.raises(ValueError, match=r"task 1: 5 12 is 'I.*cheer' in the text, not 'Icheer'"):
        spans(region(5, 12, "Icheer"))


def test_labels_that_are_not_read_are_told(tmp_path):
    result = [region(0, 1, "I"), region("/p[1]", "/p[1]", "I", "hypertextlabels")]
    result.append({"type": "relation", "from_id": "a", "to_id": "b", "labels": ["in"]})
    task = {"data": {"text": "I cheer"}, "annotations": [{"result": result}]}
    with pytest.warns(UserWarning, match="1 regions of kind 'hypertextlabels' were left") as told:
        data = load_label_studio(write_json(tmp_path / "a.json", [task]))
    assert len(told) == 1
    assert data.spans == [[Span(0, 1, "joy")]]


def test_the_other_export_is_named(tmp_path):
    path = write_json(tmp_path / "a.json", [{"id": 1, "text": "I", "label": []}])
    with pytest.raises(ValueError, match=r"task 1 has no 'data'\. Export as 'JSON', not "):
        load_label_studio(path)


def test_texts_without_any_tag_are_told(tmp_path):
    path = write(tmp_path / "a.txt", "a <größe>b</größe>\n")
    with pytest.warns(UserWarning, match="No text has a tag"):
        assert load_tagged(path).target_names == []


def test_tasks_that_nobody_annotated_are_no_negatives(tmp_path):
    tasks = label_studio()
    tasks[1]["annotations"] = []
    tasks[0]["annotations"].append({"result": []})
    path = write_json(tmp_path / "a.json", tasks)
    with pytest.warns(UserWarning, match="tasks have") as told:
        assert len(load_label_studio(path).data) == 1
    assert "1 tasks have no annotation" in str(told[0].message)
    assert "1 tasks have several annotations" in str(told[1].message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"body": "a"}}, r"task 2: data\['text'\] must be a text; it has body"),
        ({"annotations": None}, "task 2: 'annotations' must be a list of objects"),
        ({"annotations": [{"result": 3}]}, "task 2: 'result' must be a list"),
        (("labels", {"labels": [3]}), "task 2: a region must have labels"),
        (("labels", {"labels": ["x"], "start": 3, "end": 2}), "task 2: a region .*'start' < 'end'"),
        (("labels", {"labels": ["x"], "start": 0, "end": 9}), "task 2: 0 9 is 'Rain.' in the text"),
        (
            ("labels", {"labels": ["x"], "start": 0, "end": 2, "text": "ai"}),
            "task 2: 0 2 is 'Ra' in the text, not 'ai'",
        ),
    ],
)
def test_damaged_tasks_are_named(tmp_path, change, message):
    tasks = label_studio()
    if isinstance(change, tuple):
        region = {"type": change[0], "value": change[1]}
        change = {"annotations": [{"result": [region]}]}
    tasks[1].update(change)
    with pytest.raises(ValueError, match=message):
        load_label_studio(write_json(tmp_path / "a.json", tasks))
    with pytest.raises(ValueError, match=r"a\.json must hold a list"):
        load_label_studio(write_json(tmp_path / "a.json", {}))


def test_a_large_export_is_streamed(tmp_path, monkeypatch):
    pytest.importorskip("ijson")
    path = write_json(tmp_path / "a.json", label_studio())
    whole = load_label_studio(path)
    monkeypatch.setattr(_stream, "LARGE", 10)
    monkeypatch.setattr(_stream, "read_json", None)
    assert load_label_studio(path).spans == whole.spans
    write(path, path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"not JSON .* after item 1 of the list"):
        load_label_studio(path)
    with pytest.raises(ValueError, match="must hold a list"):
        load_label_studio(write_json(path, {"a": "long enough"}))


def test_tagged_lines(tmp_path):
    path = write(tmp_path / "a.txt", "So. <JOY>I cheer!</JOY>\n\nRain.\r\n")
    data = load_tagged(path)
    assert data.data == ["So. I cheer!", "Rain."]
    assert data.spans == [[Span(4, 12, "joy")], []]
    assert data.ids == ["a.txt:1", "a.txt:3"]
    with pytest.raises(ValueError, match=r"a\.txt, line 2: Tag <a> at position 1 is never closed"):
        load_tagged(write(path, "x\ny<a>z\n"))
