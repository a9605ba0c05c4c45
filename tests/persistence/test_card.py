"""What a file says to a person."""

import json
import time

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    ConceptSearchCV,
    LayerStack,
    MaxToken,
    MeanPrototype,
    SelectLayer,
    Source,
    TokenScaler,
    TopWindows,
    TransformerEmbedder,
)
from skact.auto import _choice
from skact.persistence._container import write_file
from tests.hostile import right_calls
from tests.persistence import kept

LINES = {name: estimator for name, estimator, _ in kept.lines()}


def card_of(estimator, folder):
    skact.save(estimator, folder / "kept.safetensors")
    return skact.describe(folder / "kept.safetensors")


def test_a_search_is_described(tmp_path):
    search = LINES["search"]
    card = card_of(search, tmp_path)
    assert (card.estimator, card.version) == ("ConceptSearchCV", skact.__version__)
    assert card.n_bytes == (tmp_path / "kept.safetensors").stat().st_size
    assert card.steps[0].startswith("ConceptSearchCV(scoring='f1'")
    assert [s for s in card.steps if "MeanPrototype" in s]
    assert {row["block, from 0"] for row in card.sources} <= {3, 5}
    assert card.sources[0]["model"] == "a model"
    assert card.sources[0]["hidden_states"] == f"[{card.sources[0]['block, from 0'] + 1}]"
    for c, row in enumerate(card.decisions):
        winner = search.best_estimators_[row["concept"]][-1]
        assert row["threshold"] == winner.thresholds_[c]
        assert row["f1"] == search.best_score_[c]
        assert (row["positive samples"], row["samples"]) == (20, 40)
    assert [row["concept"] for row in card.decisions] == search.concept_names_.tolist()


@pytest.mark.parametrize(
    ("detector", "promise"),
    [
        (MaxToken(0.25), "none: tail of the scores at delta 0.25"),
        (TopWindows(None, cut="expected_f1"), "none: the cut of the best expected_f1"),
        (TopWindows(None, cut="recall", level=0.9), "recall of at least 0.9, on average over c"),
        (
            TopWindows(None, cut="false_alarms", level=0.2, confidence=0.9),
            "false alarms of at most 0.2, in 0.9 of calibrations",
        ),
        (
            TopWindows(None, cut=("recall", "false_alarms"), level=(0.9, 0.1)),
            "recall of at least 0.9 and false alarms of at most 0.1, on average",
        ),
    ],
)
def test_a_promise_is_told(detector, promise, tmp_path):
    scores = np.random.default_rng(0).normal(size=(60, 1)) + np.arange(60)[:, None] % 2
    card = card_of(detector.fit(scores, np.arange(60) % 2), tmp_path)
    (row,) = card.decisions
    assert row["promise"].startswith(promise)
    assert (row["positive samples"], row["samples"]) == (30, 60)
    if hasattr(detector, "unsure_thresholds_"):
        assert row["unsure above"] == detector.unsure_thresholds_[0, 0]


@pytest.mark.filterwarnings("ignore:.*not told from saying yes")
def test_the_detector_is_described(bert_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(_choice, "METHODS", _choice.METHODS[:1])
    monkeypatch.setattr(_choice, "DETECTORS", _choice.DETECTORS[:1])
    y = np.tile(right_calls.words(), (2, 1))
    made = skact.ConceptDetector(bert_folder, layer=[0, 1], cv=2, random_state=0)
    made.fit(right_calls.TEXTS * 2, y)
    card = card_of(made, tmp_path)
    assert [row["concept"] for row in card.decisions] == ["concept0", "concept1"]
    for key in ("f1", "floor", "gain", "auroc"):
        assert [row[key] for row in card.decisions] == made.results_[key].tolist()
    # Both blocks were compared, and only those of the winners are read, scaled.
    assert len({head[0].layer for head in made.heads_}) == 2
    read = {made.pipelines_[name][0].layer for name in made.concept_names_}
    assert {row["block, from 0"] for row in card.sources} == read
    assert all(row["scaling"] for row in card.sources)
    assert len({str(row) for row in card.sources}) == len(card.sources)
    text = str(card)
    assert str(bert_folder).replace("_", r"\_") in text
    assert "sink='auto', chat\\_tokens='all'" in text
    assert "residual stream after the block" in text
    assert (
        card.sources[0]["revision"]
        == made.embedder_.transform(["a"]).layer(made.embedder_.layer[0]).source.revision
    )


EVIL = "<script>alert(1)</script> | **x** [a](javascript:b) `c` $x$\n# d\u202e\x07"


def test_texts_of_a_file_are_only_shown(tmp_path):
    source = Source(EVIL, EVIL, 1, EVIL)
    y = ["no", EVIL] * 20
    scores = kept.X.columns([0]).with_source(source)
    text = card_of(MaxToken().fit(scores, y), tmp_path).to_markdown()
    assert "<" not in text
    assert "\u202e" not in text
    assert "\n# d" not in text
    assert r"\*\*x\*\* \[a\](javascript:b) \`c\` \$x\$" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in rows[:3]}) == 1
    assert "<" not in card_of(TransformerEmbedder(EVIL), tmp_path)._repr_markdown_()


def test_what_is_read_is_listed_once(tmp_path):
    X = LayerStack({b: kept.X.with_source(Source("m", "r", b)) for b in (1, 2, 3)})
    line = make_pipeline(SelectLayer(), TokenScaler(), MeanPrototype(), MaxToken())
    search = ConceptSearchCV(line, {"selectlayer__layer": [1, 2, 3]}, cv=2)
    card = card_of(search.fit(X, np.arange(40) % 2), tmp_path)
    (row,) = card.sources
    winner = search.best_estimators_[search.concept_names_[0]]
    assert row["block, from 0"] == winner[0].layer
    assert row["scaling"] == winner[-1].source_.scaling is not None


def test_it_is_a_record(tmp_path):
    card = card_of(TokenScaler(), tmp_path)
    assert card == card_of(TokenScaler(), tmp_path)
    assert str(card) == card._repr_markdown_() == card.to_markdown()
    assert str(card).startswith("# TokenScaler\n\nSaved by skact 0.1.0; ")
    assert card.steps == ["TokenScaler(with_mean=True, with_scale=True)"]
    assert (card.sources, card.decisions, card.left_out) == ([], [], [])


def test_nothing_is_made_to_describe(tmp_path, monkeypatch):
    skact.save(LINES["search"], tmp_path / "a")
    monkeypatch.setattr("skact.persistence._saving.decode", None)
    monkeypatch.setattr("skact.persistence._classes.class_of", None)
    assert skact.describe(tmp_path / "a").decisions
    with pytest.raises(ValueError, match="'NoneType' object is not callable"):
        skact.load(tmp_path / "a")


def many_times(n):
    """A dict of dicts, 8 ** n in all."""
    nodes = [{"list": []}]
    nodes += [{"dict": [[str(k), {"node": i}] for k in range(8)]} for i in range(n)]
    return nodes


def lines_of_lines(n, **state):
    """Pipelines of pipelines, 8 ** n in all."""
    nodes = [{"class": "x.A", "state": state}]
    for i in range(n):
        nodes.append({"dict": [[str(k), {"node": 2 * i}] for k in range(8)]})
        nodes.append({"class": "x.Pipeline", "state": {"steps": {"node": 2 * i + 1}, "b": state}})
    return nodes


@pytest.mark.parametrize(
    "nodes",
    [
        lines_of_lines(40),
        lines_of_lines(40, thresholds_={"node": 0}),
        [*many_times(300), {"class": "x.Pipeline", "state": {"a": {"node": 300}}}],
        [{"class": "x.Pipeline", "state": {"steps": {"node": 0}, "estimator_": {"node": 0}}}],
        [{"dict": [["a", {"node": 1}]]}, {"class": "x.S", "state": {"pipelines_": {"node": 0}}}],
        [{"class": "x", "state": {}}, {"class": "x.S", "state": {"thresholds_": 5}}],
        [{"class": "x" * 10**5, "state": {"a" * 10**5: "b" * 10**5}}],
    ],
)
def test_hostile_files_are_described_in_little_time_and_space(nodes, tmp_path):
    about = {"version": "0", "estimator": "x", "left_out": [], "nodes": nodes}
    write_file(tmp_path / "a", about, {})
    start = time.process_time()
    assert len(str(skact.describe(tmp_path / "a"))) < 10**4
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"version": "0", "estimator": "x", "left_out": [], "nodes": []},
        {"version": "0", "estimator": "x", "left_out": [], "nodes": {}},
        {"version": "0", "estimator": "x", "left_out": 5, "nodes": [{}]},
        {
            "version": "0",
            "estimator": "x",
            "left_out": [],
            "nodes": [{"dict": [1]}, {"class": "x", "state": {"steps": {"node": 0}}}],
        },
    ],
    ids=lambda about: json.dumps(about)[:40],
)
def test_what_cannot_be_described_ends_in_one_sentence(about, tmp_path):
    write_file(tmp_path / "a", about, {})
    with pytest.raises(ValueError, match="cannot be read: it"):
        skact.describe(tmp_path / "a")
