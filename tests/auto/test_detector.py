"""The one estimator: from raw samples to decisions, as its public parts give them."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn import clone, config_context
from sklearn.exceptions import NotFittedError
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from skact import (
    ConceptDetector,
    PatchHeatMapDisplay,
    TokenHeatMapDisplay,
    TransformerEmbedder,
    all_positive_f1_score,
    make_shapes,
    shapes_model_path,
    weighted_f1_score,
)
from skact.auto import _choice
from skact.auto._choice import DETECTORS, METHODS
from skact.embedding._reader import Reader

WORDS = ["cat", "happy", "angry", "the", "sat", "not"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer candidates, for speed."""
    monkeypatch.setattr(_choice, "METHODS", METHODS[:2])
    monkeypatch.setattr(_choice, "DETECTORS", DETECTORS[:1] + DETECTORS[-1:])


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(60)]


@pytest.fixture(scope="module")
def y(texts):
    return pd.DataFrame({word: [int(word in text) for text in texts] for word in ("cat", "happy")})


def detector_of(bert_folder, **options):
    return ConceptDetector(bert_folder, layer=[0, -1], cv=3, random_state=0, **options)


@pytest.fixture
def fitted(bert_folder, texts, y):
    return detector_of(bert_folder).fit(texts, y)


def test_it_finds_words(fitted, texts, y):
    assert fitted.concept_names_.tolist() == ["cat", "happy"]
    assert fitted.score(texts, y) > all_positive_f1_score(y) + 0.15
    assert fitted.score(texts, y) == pytest.approx(
        f1_score(y, fitted.predict(texts), average="weighted")
    )
    assert (fitted.results_["f1"] > fitted.results_["floor"] + 0.1).all()


def test_it_is_made_of_its_parts(fitted, texts):
    decision, chances = fitted.decision_function(texts), fitted.predict_proba(texts)
    assert decision.shape == chances.shape == (60, 2)
    for c, name in enumerate(fitted.concept_names_):
        pipeline = fitted.pipelines_[name]
        np.testing.assert_allclose(pipeline.decision_function(texts)[:, c], decision[:, c])
        np.testing.assert_allclose(pipeline.predict_proba(texts)[:, c], chances[:, c])
        head = fitted.search_.best_params_[name]["head__layer"]
        assert fitted.heads_[head][0].layer_ == fitted.results_["layer"][c]
        assert fitted.searches_[name] is fitted.search_


def test_each_sample_goes_through_the_model_once(bert_folder, texts, y, monkeypatch):
    calls = []
    embed = Reader.embed
    monkeypatch.setattr(
        Reader, "embed", lambda reader, X, *a: (calls.append(len(X)), embed(reader, X, *a))[1]
    )
    detector = detector_of(bert_folder).fit(texts, y)
    assert calls == [60]
    detector.predict(texts[:5])
    assert calls == [60, 5]


def test_vectors_of_classes_come_back_as_classes(bert_folder, texts):
    two = np.where(["cat" in text for text in texts], "yes", "no")
    detector = detector_of(bert_folder).fit(texts, two)
    assert detector.classes_.tolist() == ["no", "yes"]
    assert (detector.predict(texts) == two).mean() > 0.85
    assert detector.decision_function(texts).shape == (60,)
    chances = detector.predict_proba(texts)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert chances[two == "yes", 1].mean() > chances[two == "no", 1].mean() + 0.5
    three = np.array(["a", "b", "c"])[[("cat" in t) + ("happy" in t) for t in texts]]
    many = detector_of(bert_folder).fit(texts, pd.Series(three, dtype="category"))
    assert many.concept_names_.tolist() == ["a", "b", "c"]
    assert set(many.predict(texts)) <= {"a", "b", "c"}
    chances = many.predict_proba(texts)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert many.decision_function(texts).shape == chances.shape == (60, 3)
    best = many.classes_[chances.argmax(axis=1)]
    np.testing.assert_array_equal(many.predict(texts), best)
    assert many.score(texts, three) == pytest.approx(
        f1_score(three, many.predict(texts), average="weighted")
    )


def test_what_is_unknown_is_passed_over(bert_folder, texts, y, fitted):
    gaps = y.astype(float)
    gaps.loc[:19, "happy"] = np.nan
    detector = detector_of(bert_folder).fit(texts, gaps)
    assert detector.results_["n_known"].tolist() == [60, 40]
    alone = detector_of(bert_folder).fit(texts[20:], y[["happy"]][20:])
    np.testing.assert_allclose(
        detector.decision_function(texts)[:, 1], alone.decision_function(texts)[:, 0]
    )
    with pytest.raises(AttributeError, match="2 searches; see searches_"):
        detector.search_  # noqa: B018
    found = detector.predict(texts)
    known = gaps.notna().to_numpy()
    assert detector.score(texts, gaps) == pytest.approx(
        weighted_f1_score(y.to_numpy() * known, found * known)
    )


def test_a_weight_counts_as_repeating_a_sample_in_its_fold_does(bert_folder, texts, y):
    rng = np.random.default_rng(1)
    weight, fold = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    rows = np.repeat(np.arange(60), weight)

    def folds(of):
        return [(np.flatnonzero(of != k), np.flatnonzero(of == k)) for k in range(3)]

    detector, twin, plain = (
        ConceptDetector(bert_folder, layer=[0, -1], cv=folds(of), random_state=0)
        for of in (fold, fold[rows], fold)
    )
    detector.fit(texts, y, sample_weight=weight)
    twin.fit([texts[i] for i in rows], y.iloc[rows])
    plain.fit(texts, y)
    for ours, theirs, other in zip(
        *(
            [e.results_[k] for k in ("f1", "floor", "gain", "auroc", "average_precision")]
            for e in (detector, twin, plain)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3)
        assert np.abs(ours - other).max() > 2e-3
    for key in ("layer", "method", "pool", "cut"):
        assert detector.results_[key].tolist() == twin.results_[key].tolist()
    assert detector.results_["n_known"].tolist() == [np.count_nonzero(weight)] * 2
    chances = detector.predict_proba(texts)
    np.testing.assert_allclose(chances, twin.predict_proba(texts), atol=2e-3)
    assert np.abs(chances - plain.predict_proba(texts)).max() > 0.02
    assert detector.score(texts, y, sample_weight=weight) == pytest.approx(
        detector.score([texts[i] for i in rows], y.iloc[rows])
    )
    with pytest.raises(ValueError, match="sample_weight must have one entry per sample"):
        detector.fit(texts, y, sample_weight=weight[1:])


def test_weights_are_routed_to_whoever_asks(bert_folder, texts, y):
    weight = np.arange(60) % 3
    with config_context(enable_metadata_routing=True):
        asks = detector_of(bert_folder).set_fit_request(sample_weight=True)
        pipe = make_pipeline(asks).fit(texts, y, sample_weight=weight)
    alone = detector_of(bert_folder).fit(texts, y, sample_weight=weight)
    np.testing.assert_array_equal(pipe.predict_proba(texts), alone.predict_proba(texts))


def test_listed_splits_speak_of_all_samples_where_some_are_unknown(bert_folder, texts, y):
    gaps = y.astype(float)
    gaps.loc[:19, "happy"] = np.nan
    folds = [(np.arange(60)[np.arange(60) % 3 != k], np.arange(k, 60, 3)) for k in range(3)]
    detector = ConceptDetector(bert_folder, layer=0, cv=iter(folds), random_state=0)
    detector.fit(texts, gaps)
    later = [(train[train >= 20] - 20, test[test >= 20] - 20) for train, test in folds]
    alone = ConceptDetector(bert_folder, layer=0, cv=later, random_state=0)
    alone.fit(texts[20:], y[["happy"]][20:])
    np.testing.assert_allclose(
        detector.predict_proba(texts)[:, 1], alone.predict_proba(texts)[:, 0]
    )


def test_explain_lists_tokens_with_scores(fitted, texts):
    table = fitted.explain(texts[:3])
    n_tokens = sum(len(text.split()) for text in texts[:3])
    assert len(table) == 2 * n_tokens
    assert table.columns.tolist()[:5] == ["sample", "token", "text", "start", "end"]
    cats = table[table.concept == "cat"]
    places = zip(cats["sample"], cats.start, cats.end, strict=True)
    assert [texts[sample][start:end] for sample, start, end in places] == list(cats.text)
    everything = fitted.explain(texts)
    cats = everything[everything.concept == "cat"]
    assert cats[cats.text == "cat"].score.mean() > cats[cats.text != "cat"].score.mean()
    assert cats.mark.any()
    threshold = fitted.pipelines_["cat"][-1].thresholds_[0]
    np.testing.assert_array_equal(cats.mark, cats.score >= threshold)


def test_plot_draws_a_sample(fitted, texts):
    plt = pytest.importorskip("matplotlib.pyplot")
    display = fitted.plot(texts[0], "happy")
    assert isinstance(display, TokenHeatMapDisplay)
    assert display.concept == "happy"
    plt.close("all")
    with pytest.raises(ValueError, match="concept must be one of"):
        fitted.plot(texts[0], "sad")


def test_folds_that_are_equal_say_nothing_of_what_is_to_come(bert_folder, texts, y):
    twice, folds = texts * 2, np.arange(120) // 60
    cv = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in (0, 1)]
    detector = ConceptDetector(bert_folder, layer=0, cv=cv).fit(twice, pd.concat([y, y]))
    found = detector.pipelines_["cat"].predict(texts[:3])
    np.testing.assert_array_equal(found[:, 0], detector.predict(texts[:3])[:, 0])


def test_masks_say_where_in_images(tmp_path):
    shapes = make_shapes(40, random_state=0)
    detector = ConceptDetector(shapes_model_path(), cv=2, random_state=0)
    detector.fit(shapes.data, masks=shapes.masks)
    assert detector.score(shapes.data, shapes.target) > 0.8
    table = detector.explain(shapes.data[:1])
    assert {"left", "top", "right", "bottom"} <= set(table.columns)
    display = detector.plot(shapes.data[0], 1)
    assert isinstance(display, PatchHeatMapDisplay)


def test_spans_and_groups_go_along_in_cross_validation(bert_folder, texts, routing):
    spans = [[(t.index(w), t.index(w) + len(w), w) for w in ("cat",) if w in t] for t in texts]
    y = [int("cat" in t) for t in texts]
    groups = np.arange(60) // 2
    fitted = detector_of(bert_folder).fit(texts, spans=spans, groups=groups)
    assert fitted.concept_names_.tolist() == ["cat"]
    found = cross_val_score(
        detector_of(bert_folder), texts, y, params={"spans": spans, "groups": groups}, cv=2
    )
    assert found.mean() > 0.75 > all_positive_f1_score(y) + 0.05


def test_clones_and_copies(fitted, texts):
    twin = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(twin.predict(texts), fitted.predict(texts))
    assert clone(fitted).get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        clone(fitted).predict(texts)


def test_an_embedder_brings_its_settings(bert_folder, texts, y, tmp_path):
    embedder = TransformerEmbedder(bert_folder, max_length=4)
    detector = ConceptDetector(embedder, layer=0, cv=3, store=tmp_path / "s", random_state=0)
    with pytest.warns(UserWarning, match="was too long|were too long"):
        detector.fit(texts, y)
    assert detector.embedder_.max_length == 4
    assert embedder.layer == -1
    assert (tmp_path / "s").is_dir()
    assert detector.results_["layer"].tolist() == [0, 0]


def test_what_is_not_told_from_the_floor_warns(bert_folder, texts, rng):
    y = (rng.random(60) < 0.5).astype(int)
    with pytest.warns(
        UserWarning, match=r"1 of 1 concepts are not told from .* floor 0\.\d+, gain"
    ):
        detector_of(bert_folder).fit(texts, y)


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"layer": "top"}, {}, "layer"),
        ({"layer": [0, 9]}, {}, "layer"),
        ({"cv": 1}, {}, "n_splits|cv"),
        ({"cv": "many"}, {}, "'cv' parameter"),
        ({"n_jobs": "all"}, {}, "'n_jobs' parameter"),
        (
            {},
            {"groups": [0, 1]},
            "groups must have one entry per sample: got 2 for 60",
        ),
        ({}, {"groups": np.zeros(60)}, "groups|fold"),
        ({}, {"y": np.r_[1, np.zeros(59)]}, "at least 2 samples with concept '1.0', got 1 of 60"),
        ({}, {"masks": [np.ones((2, 2, 2))] * 60}, "image|text"),
    ],
)
def test_bad_input_ends_before_the_model_runs(
    bert_folder, texts, y, options, given, message, monkeypatch
):
    monkeypatch.setattr(Reader, "embed", lambda *_: pytest.fail("the model ran"))
    detector = ConceptDetector(bert_folder, cv=3).set_params(**options)
    with pytest.raises((ValueError, TypeError), match=message):
        detector.fit(texts, **({"y": y} | given))


def test_labels_of_other_samples_are_refused(fitted, texts, y):
    with pytest.raises(ValueError, match="y has 60 samples, raw has 3"):
        fitted.score(texts[:3], y)


def test_an_embedder_that_pools_is_refused(bert_folder, texts, y):
    with pytest.raises(ValueError, match="pooling='mean', which leaves no tokens"):
        ConceptDetector(TransformerEmbedder(bert_folder, pooling="mean")).fit(texts, y)


def test_labels_mean_what_they_meant_in_fit(fitted, y):
    some = y[:4].astype(float)
    some.iloc[1, 0] = np.nan
    np.testing.assert_array_equal(fitted.encode(some), some.to_numpy())
    with pytest.raises(ValueError, match=r"y holds 7\.0, fit had only"):
        fitted.encode(some.replace(0.0, 7.0))
    with pytest.raises(ValueError, match=r"y names its columns \['cat'\], in fit they were"):
        fitted.encode(some[["cat"]])


def test_columns_of_y_are_found_by_their_names(fitted, texts, y):
    turned = y[y.columns[::-1]]
    assert fitted.score(texts, turned) == fitted.score(texts, y) == fitted.score(texts, y.values)
    assert fitted.score(texts, turned.values) < fitted.score(texts, y)
    with pytest.raises(ValueError, match="y names its columns"):
        fitted.score(texts, y.rename(columns={"cat": "cow"}))


def test_plot_draws_a_list_of_samples_on_one_scale(fitted, texts):
    display = fitted.plot(texts[:3], "happy", cmap="viridis")
    assert display.axes_.shape == (3, 1)
    table = fitted.explain(texts[:3])
    for i, one in enumerate(display.displays):
        rows = table[(table["sample"] == i) & (table["concept"] == "happy")]
        np.testing.assert_allclose(one.scores, rows["score"], rtol=1e-5)
        np.testing.assert_array_equal(one.superactivators, rows["mark"])
