"""The strongest tokens are those of a slow sort, in pieces too, and names come from them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

import skact
from skact import name_units, top_activations
from skact.reporting import _units
from tests import tiny_models

TEXTS = ["the happy cat", "not happy at all", "the angry thing sat", "angry cat", "x", "so sat"]


@pytest.fixture(scope="module", params=["kmeans", "autoencoder"])
def units(request):
    """Texts in, scores of units out; those of the autoencoder are zero nearly everywhere."""
    embedder = skact.TransformerEmbedder(tiny_models.text_pair("bert"), layer=1)
    training = skact.AutoencoderTraining(max_epochs=1)
    method = {
        "kmeans": skact.KMeansConcepts(3, random_state=0),
        "autoencoder": skact.SparseAutoencoder(
            12, activation="topk", k=1, training=training, random_state=0
        ),
    }[request.param]
    return make_pipeline(embedder, skact.TokenScaler(), method).fit(TEXTS)


def slow(pipe, unit, n_top, per_sample):
    """All tokens, sorted."""
    scores, tokens = pipe.transform(TEXTS), pipe[0].tokens_of(TEXTS)
    rows = [
        (-float(scores[i][j, unit]), i, j, tokens[i][j].text)
        for i in range(len(TEXTS))
        for j in range(len(tokens[i]))
    ]
    rows = sorted(row for row in rows if row[0] != 0)
    if per_sample:
        seen = set()
        rows = [row for row in rows if not (row[1] in seen or seen.add(row[1]))]
    return rows[:n_top]


@pytest.mark.parametrize("piece", [1, 60, 2**24])
@pytest.mark.parametrize("per_sample", [False, True])
def test_the_strongest_tokens(units, monkeypatch, piece, per_sample):
    monkeypatch.setattr(_units, "_PIECE", piece)
    chosen = [2, 0]
    table = top_activations(units, TEXTS, chosen, n_top=4, per_sample=per_sample)
    assert table.columns.tolist() == ["unit", "rank", "sample", "token", "text", "score"]
    truth = [
        (unit, rank + 1, i, j, text, -score)
        for unit in chosen
        for rank, (score, i, j, text) in enumerate(slow(units, unit, 4, per_sample))
    ]
    assert table.iloc[:, :5].values.tolist() == [list(row[:5]) for row in truth]
    np.testing.assert_allclose(table["score"], [row[5] for row in truth], rtol=1e-5)
    assert (table["score"] != 0).all()


def test_all_units_and_a_detector_behind_them(units):
    everything = top_activations(units, TEXTS, n_top=2)
    n_units = len(units[-1].concept_names_)
    assert set(everything["unit"]) <= set(range(n_units))
    whole = make_pipeline(*(step for _, step in units.steps), skact.SuperActivator())
    y = np.array(["happy" in text for text in TEXTS], int)
    whole[-1].fit(units.transform(TEXTS), y)
    pd.testing.assert_frame_equal(top_activations(whole, TEXTS, n_top=2), everything)


def test_patches_have_boxes(shapes):
    embedder = skact.TransformerEmbedder(skact.shapes_model_path(), layer=0.5)
    pipe = make_pipeline(embedder, skact.KMeansConcepts(2, random_state=0)).fit(shapes.data[:5])
    table = top_activations(pipe, shapes.data[:5], n_top=3)
    boxes = table[["left", "top", "right", "bottom"]].to_numpy()
    tokens = embedder.tokens_of(shapes.data[:5])
    for box, i, j in zip(boxes, table["sample"], table["token"], strict=True):
        assert tuple(box) == tokens[i][j].box
    with pytest.raises(ValueError, match="needs the column text"):
        name_units(table)
    assert name_units(table, lambda rows: f"from {rows['left'].min():g}").keys() == {0, 1}


def test_names():
    table = pd.DataFrame(
        {
            "unit": [1, 1, 1, 1, 4, 9],
            "text": [" Cat", "cat", "dog", "  ", "cat", "  "],
            "score": [1.0, 1.0, 1.5, 9.0, 1.0, 1.0],
        }
    )
    assert name_units(table) == {1: "cat / dog", 4: "cat", 9: "blank"}
    assert name_units(table, n_words=1) == {1: "cat (1)", 4: "cat (4)", 9: "blank"}
    seen = []
    assert name_units(table, lambda rows: seen.append(rows) or f"n{len(rows)}") == {
        1: "n4",
        4: "n1 (4)",
        9: "n1 (9)",
    }
    assert seen[0]["score"].tolist() == [1.0, 1.0, 1.5, 9.0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"units": [3]}, ValueError, "units holds 3, and there are 3"),
        ({"units": [-1]}, ValueError, "units holds -1"),
        ({"units": [0, 0]}, ValueError, "differ"),
        ({"units": []}, ValueError, "one or more ints"),
        ({"units": [0.5]}, ValueError, "one or more ints"),
        ({"n_top": 0}, ValueError, "n_top"),
        ({"estimator": skact.KMeansConcepts()}, TypeError, "starts with KMeansConcepts"),
        ({"estimator": make_pipeline(None)}, TypeError, "starts with"),
    ],
)
def test_bad_input(change, error, message):
    embedder = skact.TransformerEmbedder(tiny_models.text_pair("bert"), layer=1)
    pipe = make_pipeline(embedder, skact.KMeansConcepts(3, random_state=0)).fit(TEXTS)
    with pytest.raises(error, match=message):
        top_activations(**{"estimator": pipe, "samples": TEXTS, **change})


def test_names_must_be_names():
    table = pd.DataFrame({"unit": [0], "text": ["a"], "score": [1.0]})
    with pytest.raises(TypeError, match="by must return a name, got None for unit 0"):
        name_units(table, lambda rows: None)
    with pytest.raises(ValueError, match="table"):
        name_units(table[["unit"]])
