"""Reports on steering: each figure from its definition, controls of equal size, and resuming."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    Ablation,
    Addition,
    AffineEdit,
    MinimalNormEdit,
    TransformerEmbedder,
    steer,
    steering_report,
)
from skact.steering._report import NEUTRAL, Along, _along
from tests import tiny_models

TEXTS = ["the cat sat", "happy cat", "the angry thing", "not happy at all", "the sun", "cats sing"]
Y = np.array([0, 1, 0, 1, 0, 0])
PROMPTS = ["the cat", "not angry", "a thing"]
FAST = {"n_random": 2, "max_new_tokens": 5, "n_resamples": 50, "neutral": NEUTRAL[:2]}


def length(texts):
    return [len(text) / 50 for text in texts]


def says(texts):
    """Whether there is something to be judged."""
    return np.array([any(map(str.isalnum, text)) for text in texts])


@pytest.fixture(scope="module")
def pair():
    return tiny_models.text_pair("llama", head=True)


@pytest.fixture(scope="module")
def tokens(pair):
    return TransformerEmbedder(pair, layer=1).transform(TEXTS)


@pytest.fixture(scope="module")
def edits(tokens):
    return {"add": Addition().fit(tokens, Y), "set": AffineEdit().fit(tokens, Y)}


@pytest.fixture(scope="module")
def result(pair, edits):
    asking = {"prompting": "be happy "}
    options = {"strengths": {"add": [0.5, -0.5], "set": [2]}, "prompting": asking, **FAST}
    return steering_report(pair, edits, PROMPTS, length, **options)


def row_of(frame, **wanted):
    for name, value in wanted.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_there_is_a_cell_for_each_way(result):
    kinds = result.frame["kind"].value_counts().to_dict()
    assert kinds == {"none": 1, "prompting": 1, "edit": 3, "random": 6}
    assert len(result.generations) == len(result.frame) * len(PROMPTS)
    assert set(result.generations["seed"]) == set(result.generations["seed"][:3])


def test_figures_are_those_of_the_definition(result):
    said = result.generations
    plain = row_of(result.frame, kind="none")
    assert plain["relative_perplexity"] == 1
    assert plain["kl"] == 0
    for _, row in result.frame.iterrows():
        same = (said["kind"] == row["kind"]) & (said["name"] == row["name"])
        strength = np.nan_to_num(row["strength"], nan=9)
        same &= (said["draw"] == row["draw"]) & (said["strength"].fillna(9) == strength)
        mine, before = said[same], said[said["kind"] == "none"]
        concept = np.mean(length(mine["text"]) * says(mine["text"]))
        ratio = np.exp(mine["loss"].mean() - before["loss"].mean())
        fluency = min(1, 1 / ratio)
        assert row["concept"] == pytest.approx(concept)
        assert row["relative_perplexity"] == pytest.approx(ratio)
        assert row["harmonic_mean"] == pytest.approx(2 / (1 / concept + 1 / fluency))
        assert row["distinct_2"] == pytest.approx(mine["distinct_2"].mean())
        for name in ("concept", "relative_perplexity", "harmonic_mean", "distinct_2", "kl"):
            assert row[f"{name}_low"] <= row[f"{name}_high"]
    assert (result.frame["kl"][1:] > 0).all()


def test_less_is_one_minus_the_concept(pair, edits, result):
    less = steering_report(
        pair, edits["add"], PROMPTS, length, goal="less", strengths=[0.5], **FAST
    )
    row = row_of(less.frame, kind="edit")
    fluency = min(1, 1 / row["relative_perplexity"])
    assert row["harmonic_mean"] == pytest.approx(2 / (1 / (1 - row["concept"]) + 1 / fluency))
    assert row["concept"] == row_of(result.frame, kind="edit", name="add", strength=0.5)["concept"]


def test_a_generation_is_what_the_steered_model_writes(pair, edits):
    found = steering_report(
        pair, edits["add"], PROMPTS[:1], length, strengths=[0.5], temperature=0, **FAST
    )
    text = found.generations[found.generations["kind"] == "edit"]["text"].iloc[0]
    ids = pair[1](PROMPTS[0], return_tensors="pt")
    with steer(pair, edits["add"], strength=0.5):
        new = pair[0].generate(
            **ids, max_new_tokens=5, min_new_tokens=5, do_sample=False, pad_token_id=0
        )
    assert text == pair[1].decode(new[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize(
    "edit", [Addition(), AffineEdit(strength=3), Ablation(), MinimalNormEdit()]
)
def test_controls_move_each_token_as_far(tokens, edit):
    made = edit.fit(tokens, Y).edit_map()
    along = _along(made, np.arange(1.0, 33))
    values = tokens.flat().astype(np.float64)
    by_edit, by_control = made(values) - values, along(values) - values
    sizes = np.linalg.norm(by_edit, axis=1)
    np.testing.assert_allclose(np.linalg.norm(by_control, axis=1), sizes, rtol=1e-6, atol=1e-9)
    moved = by_control[sizes > 1e-6]
    cosines = moved @ along.along / np.linalg.norm(moved, axis=1)
    np.testing.assert_allclose(cosines, 1)
    assert isinstance(along, Along)
    assert not np.allclose(by_edit, by_control)


def test_a_report_that_was_cut_off_goes_on(pair, edits, tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    options = {"strengths": [0.5], "journal": path, **FAST}
    whole = steering_report(pair, edits["add"], PROMPTS, length, **options)
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + len(whole.frame)
    path.write_text("\n".join([*lines[:2], lines[2][:40]]))  # torn by a crash
    again = steering_report(pair, edits["add"], PROMPTS, length, **options)
    assert again.frame.equals(whole.frame)
    more = {**options, "strengths": [0.5, 1.0]}
    before = path.stat().st_size
    longer = steering_report(pair, {"add": edits["add"]}, PROMPTS, length, **more)
    assert len(longer.frame) == len(whole.frame) + 3
    assert path.stat().st_size > before
    # What was written is judged anew, and not written again.
    other = steering_report(pair, edits["add"], PROMPTS, lambda t: [0.5] * len(t), **options)
    said = other.generations
    assert says(said["text"]).any()
    np.testing.assert_array_equal(said["judge_judge"], 0.5 * says(said["text"]))
    kept = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    assert kept[1]["record"]["texts"] == whole.generations["text"][:3].tolist()


def test_a_journal_of_another_configuration_is_refused(pair, edits, tmp_path):
    path = tmp_path / "journal.jsonl"
    options = {"strengths": [0.5], "journal": path, **FAST}
    steering_report(pair, edits["add"], PROMPTS, length, **options)
    before = path.read_bytes()
    for changed in ({"temperature": 0.5}, {"random_state": 1}, {"positions": "last"}):
        with pytest.raises(ValueError, match="a run with another"):
            steering_report(pair, edits["add"], PROMPTS, length, **options, **changed)
    assert path.read_bytes() == before
    path.write_text("hello\n")
    with pytest.raises(ValueError, match="no journal"):
        steering_report(pair, edits["add"], PROMPTS, length, **options)
    assert path.read_text() == "hello\n"


def test_judges_are_asked_for_their_concept(pair, edits):
    other = TransformerEmbedder(tiny_models.text_pair("bert"), layer=1, pooling="mean")
    judge = make_pipeline(other, LogisticRegression()).fit(TEXTS, ["no", "yes"] * 3)
    options = {"strengths": [0.5], **FAST}
    judges = {"a": judge, "b": length}
    found = steering_report(pair, edits["add"], PROMPTS, judges, concept="yes", **options)
    texts = found.generations["text"].to_numpy()
    asked = says(texts)
    expected = judge.predict_proba(texts[asked].tolist())[:, 1]
    np.testing.assert_allclose(found.generations["judge_a"][asked], expected, rtol=1e-5)
    assert (found.generations["judge_a"][~asked] == 0).all()
    row = found.frame.iloc[1]
    assert row["concept"] == pytest.approx((row["judge_a"] + row["judge_b"]) / 2)
    turned = steering_report(pair, edits["add"], PROMPTS, judge, concept="no", **options)
    np.testing.assert_allclose(turned.generations["judge_judge"][asked], 1 - expected, rtol=1e-5)
    with pytest.raises(ValueError, match="none of those"):
        steering_report(pair, edits["add"], PROMPTS, judge, concept="maybe", **options)


BAD = [
    ({"model": "no pair"}, TypeError, "pair"),
    ({"edits": {}}, ValueError, "at least one"),
    ({"edits": {"a": np.ones(32)}}, TypeError, "fitted edits"),
    ({"edits": {3: np.ones(32)}}, TypeError, "edits must be named by texts, got 3"),
    (
        {"edits": {"a\ud800": np.ones(32)}},
        ValueError,
        "edits: the name .* holds .* half of a surrogate",
    ),
    ({"edits": Addition(np.ones(32))}, ValueError, "layer must be given"),
    ({"strengths": []}, ValueError, "strengths"),
    ({"strengths": [np.nan]}, ValueError, "strengths"),
    ({"strengths": {"b": [1]}}, ValueError, "no entry"),
    ({"judges": {}}, ValueError, "at least one"),
    ({"judges": 3}, TypeError, "predict_proba"),
    ({"judges": lambda texts: [2.0] * len(texts)}, ValueError, "from 0 to 1"),
    ({"judges": lambda texts: [0.5]}, ValueError, "from 0 to 1"),
    ({"prompts": []}, ValueError, "prompts"),
    ({"prompts": [""]}, ValueError, "empty text"),
    ({"prompting": " "}, ValueError, "in words"),
    ({"positions": "first"}, ValueError, "positions"),
    ({"max_new_tokens": 127}, ValueError, "positions of the model"),
]


@pytest.mark.parametrize(("changed", "error", "said"), BAD)
def test_bad_input_is_refused_in_a_sentence(pair, edits, changed, error, said):
    given = {"model": pair, "edits": edits["add"], "prompts": PROMPTS, "judges": length}
    given |= {"strengths": [0.5], **FAST, **changed}
    with pytest.raises(error, match=said):
        steering_report(**given)


def test_a_judge_on_the_steered_model_is_refused(pair, edits):
    line = make_pipeline(
        TransformerEmbedder(pair, layer=1), skact.MeanPrototype(), skact.MaxToken()
    ).fit(TEXTS, Y)
    with pytest.raises(ValueError, match="reads the model that is steered"):
        steering_report(pair, edits["add"], PROMPTS, line, **FAST)
