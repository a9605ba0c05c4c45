"""JoinLayers is TokenScaler layer by layer, side by side, and knows which layers it joined."""

import re

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline

from skact import (
    ConceptSearchCV,
    JoinLayers,
    LayerStack,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    Source,
    TokenArray,
    TokenScaler,
    TransformerEmbedder,
)
from tests.tiny_models import text_pair

OFFSETS = [0, 2, 3, 7]


def layer(rng, block, size, **source):
    values = rng.normal(loc=block, scale=size, size=(7, 3)).astype(np.float32)
    return TokenArray(values, OFFSETS, source=Source(model="m", block=block, **source))


@pytest.fixture
def stack(rng):
    return LayerStack({b: layer(rng, b, s) for b, s in ((2, 1.0), (5, 40.0), (11, 0.1))})


@pytest.mark.parametrize(
    ("layers", "blocks"), [(None, [2, 5, 11]), ([11, 2], [11, 2]), ([-1, 5], [11, 5]), ([5], [5])]
)
def test_it_scales_each_layer_and_puts_them_side_by_side(stack, layers, blocks):
    step = JoinLayers(layers).fit(stack)
    joined = step.transform(stack)
    parts = [TokenScaler().fit_transform(stack.layer(b)).flat() for b in blocks]
    np.testing.assert_allclose(joined.flat(), np.hstack(parts), rtol=1e-6, atol=1e-6)
    assert step.layers_.tolist() == blocks
    assert step.n_features_in_ == 3
    assert joined.lengths.tolist() == [2, 1, 4]
    assert joined.dtype == np.float32
    assert len(step.get_feature_names_out()) == joined.n_features
    np.testing.assert_array_equal(step.transform(stack[[2, 0]])[1], joined[0])
    with sklearn.config_context(working_memory=0):
        pieces = clone(step).fit(stack).transform(stack)
    np.testing.assert_allclose(pieces.flat(), joined.flat(), atol=1e-6)
    plain = JoinLayers(layers, scale=False).fit_transform(stack).flat()
    np.testing.assert_array_equal(plain, np.hstack([stack.layer(b).flat() for b in blocks]))


def test_the_source_names_the_layers(stack):
    step = JoinLayers([2, 5]).fit(stack)
    source = step.transform(stack).source
    assert (source.model, source.block) == ("m", None)
    assert re.fullmatch(r"JoinLayers 2\+5 [0-9a-f]{12}", source.scaling)
    y = [1, 0, 1]
    method = MeanPrototype().fit(step.transform(stack), y)
    method.transform(step.transform(stack))
    for other in (JoinLayers([2, 11]), JoinLayers([5, 2]), JoinLayers([2, 5], scale=False)):
        with pytest.raises(ValueError, match="another scaling than MeanPrototype"):
            method.transform(other.fit_transform(stack))
    # A stack with more or fewer layers.
    with pytest.raises(ValueError, match=r"layer must be one of \[2, 11\].*got 5"):
        step.transform(LayerStack({b: stack.layer(b) for b in (2, 11)}))


def test_layers_of_other_models_or_scales_are_told_apart(rng, stack):
    step = JoinLayers().fit(stack)
    other = LayerStack({b: stack.layer(b).with_source(Source(model="n")) for b in stack.layers})
    with pytest.raises(ValueError, match="another model than JoinLayers was fitted on"):
        step.transform(other)
    mixed = {2: stack.layer(2), 5: other.layer(5)}
    with pytest.raises(ValueError, match="another model than JoinLayers"):
        JoinLayers().fit(LayerStack(mixed))
    scaled = LayerStack({b: layer(rng, b, 1.0, scaling=f"by hand {b}") for b in (2, 5)})
    joined = JoinLayers(scale=False).fit_transform(scaled)
    assert joined.source.scaling.startswith("JoinLayers 2+5")
    nan = stack.layer(5).map(lambda v: np.where(v == v[3, 1], np.nan, v))
    with pytest.raises(ValueError, match="NaN, first at sample 2, token 0, feature 1"):
        step.transform(LayerStack({2: stack.layer(2), 5: nan, 11: stack.layer(11)}))


def test_one_layer_counts_as_a_stack_of_one(stack):
    single = stack.layer(5)
    for layers in (None, [-1], [5]):
        step = JoinLayers(layers).fit(single)
        expected = TokenScaler().fit_transform(single).flat()
        np.testing.assert_allclose(step.transform(single).flat(), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(step.transform(stack).flat(), step.transform(single).flat())
    with pytest.raises(ValueError, match="another block"):
        step.transform(stack.layer(2))
    with pytest.raises(ValueError, match=r"layers \[2, 5, 11\], but X is no LayerStack"):
        JoinLayers().fit(stack).transform(single)
    unknown = single.with_source(None)
    step = JoinLayers().fit(unknown)
    assert len(step.layers_) == 0
    with pytest.raises(ValueError, match="did not say their block"):
        step.transform(stack)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "'layers' parameter of JoinLayers must be a list of block numbers"),
        (5, "'layers' parameter"),
        ("all", "'layers' parameter"),
        ([True], "'layers' parameter"),
        ([0.5], "'layers' parameter"),
        ([2, 3], r"one of \[2, 5, 11\].*got 3"),
        ([11, -1], r"layers=\[11, -1\] names block 11 twice"),
        ([-4], r"one of \[2, 5, 11\].*got -4"),
    ],
)
def test_bad_layers(stack, layers, message):
    with pytest.raises(ValueError, match=message):
        JoinLayers(layers).fit(stack)


def test_one_layer_is_not_another(stack):
    with pytest.raises(ValueError, match=r"layers=\[2\] asked for, but X is one layer and holds"):
        JoinLayers([2]).fit(stack.layer(5))
    with pytest.raises(ValueError, match=r"layers=\[2, 5\].*does not say its block"):
        JoinLayers([2, 5]).fit(np.ones((3, 2)))
    with pytest.raises(NotFittedError):
        JoinLayers().transform(stack)


@pytest.mark.parametrize("search", [GridSearchCV, ConceptSearchCV])
def test_which_layers_are_joined_is_searched(rng, search):
    """What tells is spread over two layers, each of which knows half of it."""
    y = np.arange(80) % 2
    values = rng.normal(size=(3, 320, 4))
    told = rng.random(80) < 0.5
    for number in (0, 1):
        here = told if number else ~told
        values[number, ::4, 0] += 6.0 * (y & here)
    offsets = np.arange(0, 321, 4)
    stack = LayerStack({b: TokenArray(v, offsets) for b, v in zip((1, 4, 7), values, strict=True)})
    pipe = Pipeline(
        [
            ("join", JoinLayers()),
            ("concepts", LinearSeparator(weight_decay=0.01)),
            ("d", MaxToken()),
        ]
    )
    grid = {"join__layers": [[1], [4], [7], [1, 4]], "d__delta": [0.8]}
    options = {"error_score": "raise"} if search is GridSearchCV else {}
    found = search(pipe, grid, cv=3, **options).fit(stack, y)
    best = found.best_params_
    best = next(iter(best.values())) if search is ConceptSearchCV else best
    assert best["join__layers"] == [1, 4]
    assert len(found.predict(stack)) == 80


def test_an_embedder_of_several_layers_goes_before_it(texts):
    y = np.array([1, 0, 1, 0, 1])
    pipe = make_pipeline(
        TransformerEmbedder(text_pair("bert"), layer=[0, 1], progress=False),
        JoinLayers(),
        MeanPrototype(),
        MaxToken(),
    )
    grid = {"maxtoken__delta": [0.2, 0.8]}
    found = ConceptSearchCV(pipe, grid, cv=[(np.arange(5), np.arange(5))]).fit(texts, y)
    delta = next(iter(found.best_params_.values()))["maxtoken__delta"]
    alone = clone(pipe).set_params(maxtoken__delta=delta).fit(texts, y)
    np.testing.assert_array_equal(found.predict(texts), alone.predict(texts))
