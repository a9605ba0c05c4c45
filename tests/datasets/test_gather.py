import numpy as np
import pytest

from skact.datasets import draw_splits, load_spans
from skact.datasets._gather import Asked, Sample, by_split, gather_texts, spanned
from skact.datasets._span import Span
from tests.datasets.formats import write_json

TEXTS = [
    spanned("1", "ab", [Span(0, 1, "x")], "train"),
    spanned("2", "cd", [Span(0, 1, "x"), Span(1, 2, "y")], "cal", "g"),
    spanned("3", "ef", [], "test", "g"),
]


def bunch(samples=TEXTS, split=None, concepts=None, min_samples=0, **more):
    return gather_texts(samples, Asked(split, concepts, min_samples), "FILE", **more)


def test_a_bunch_holds_what_all_readers_promise():
    data = bunch(description="About.")
    assert data.data == ["ab", "cd", "ef"]
    assert data.target.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert data.target_names == ["x", "y"]
    assert data.spans[1] == [Span(0, 1, "x"), Span(1, 2, "y")]
    assert data.split.tolist() == ["train", "cal", "test"]
    assert data.groups.tolist() == ["1", "g", "g"]
    assert data.ids == ["1", "2", "3"]
    assert data.DESCR == "About."


def test_rare_concepts_are_left_out_or_refused_by_the_counts_of_all_splits():
    assert bunch(min_samples=2).target_names == ["x"]
    assert bunch(min_samples=2, split="test").target_names == ["x"]
    assert bunch(min_samples=2, split="test").spans == [[]]
    assert bunch(names=["x", "z"]).target_names == ["x", "z"]
    with pytest.raises(ValueError, match="FILE: concept 'y' has 1 samples, fewer than min_samples"):
        bunch(concepts=["x", "y"], min_samples=2)
    with pytest.raises(ValueError, match="no concept with 3 samples; 'x' has the most, 2"):
        bunch(min_samples=3)


def test_splits_are_drawn_where_the_source_has_none():
    samples = [Sample(str(i), "a", (), [], None, str(i // 3)) for i in range(300)]
    data = bunch(samples)
    assert data.split.tolist() == draw_splits(data.groups).tolist()
    assert bunch(samples, split="cal").data == ["a"] * 60


def test_a_draw_keeps_groups_and_shares_whatever_the_order():
    groups = np.repeat(np.arange(100), np.random.default_rng(0).integers(1, 5, 100))
    split = draw_splits(groups)
    assert all(len(set(split[groups == group])) == 1 for group in range(100))
    share = [(split == name).mean() for name in ("train", "cal", "test")]
    np.testing.assert_allclose(share, [0.6, 0.2, 0.2], atol=0.02)
    order = np.random.default_rng(1).permutation(len(groups))
    assert (draw_splits(groups[order]) == split[order]).all()
    assert (draw_splits(groups, seed=1) != split).any()
    assert set(draw_splits(groups, (0.5, 0, 0.5))) == {"train", "test"}


@pytest.mark.parametrize(
    ("groups", "shares", "message"),
    [
        ([], (0.6, 0.2, 0.2), "at least one sample"),
        ("abc", (0.6, 0.2, 0.2), "'groups' parameter"),
        (["a"], (0.6, 0.4), "'shares' parameter"),
        (["a"], (0.6, 0.6, -0.2), "between 0 and 1, got -0.2"),
        (["a"], (0.6, 0.2, 0.1), "add up to 1"),
        (["a"], ("a", "b", "c"), "between 0 and 1, got 'a'"),
    ],
)
def test_nonsense_is_not_drawn(groups, shares, message):
    with pytest.raises(ValueError, match=message):
        draw_splits(groups, shares)


def test_files_by_split_are_named_in_errors(tmp_path):
    (tmp_path / "a").write_text("")
    assert by_split({"cal": tmp_path / "a"}) == [("cal", tmp_path / "a")]
    with pytest.raises(ValueError, match="by train, cal, test, got 'dev'"):
        by_split({"dev": tmp_path / "a"})
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere"):
        by_split(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="'train' must be a path, got 3"):
        by_split({"train": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "a\ud800"}, r"the text of sample 'a' holds '.ud800' at character 1"),
        ({"spans": [[0, 1, "b\udfff"]]}, r"the concept 'b.udfff' holds '.udfff' at character 1"),
    ],
)
def test_half_of_a_surrogate_pair_is_in_no_text_and_no_concept(change, message, tmp_path):
    record = {"id": "a", "text": "a\U0001f600", "spans": [[0, 2, "\U0001f600"]], "split": "cal"}
    assert load_spans(write_json(tmp_path / "samples.jsonl", record).parent).target.all()
    write_json(tmp_path / "samples.jsonl", record | change)
    with pytest.raises(ValueError, match=rf"samples\.jsonl: {message}"):
        load_spans(tmp_path)


def test_groups_need_not_be_text():  # names of files are not
    assert draw_splits(["a\udcff", "b"]).shape == (2,)
