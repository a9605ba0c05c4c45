"""One dictionary of several layers is that of all tokens, and profiles say where units act."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    AutoencoderTraining,
    LayerStack,
    MultiLayerAutoencoder,
    SelectLayer,
    Source,
    SparseAutoencoder,
    SuperActivator,
    TokenArray,
)

QUICK = AutoencoderTraining(max_epochs=4)


def coder(n=12, **options):
    return SparseAutoencoder(n, **{"training": QUICK, "random_state": 0, **options})


@pytest.fixture
def stack(rng):
    """Two layers of which the second is larger, and far from 0."""
    offsets = np.arange(0, 121, 6)
    low, high = rng.normal(size=(120, 5)), 40 * rng.normal(size=(120, 5)) + 300
    source = Source("a", convention="residual")
    parts = {2: low, 5: high}
    return LayerStack({b: TokenArray(v, offsets, source=_at(source, b)) for b, v in parts.items()})


def _at(source, block):
    return Source(source.model, block=block, convention=source.convention)


def scaled(values):
    """Centred, with distances from the mean of which half are above 1."""
    apart = values - values.mean(axis=0)
    return apart / np.median(np.sqrt((apart**2).sum(axis=1)))


def test_it_is_the_autoencoder_of_all_scaled_tokens(stack):
    method = MultiLayerAutoencoder(coder()).fit(stack)
    parts = [scaled(stack.layer(b).flat()) for b in (2, 5)]
    plain = coder().fit(np.concatenate(parts).reshape(40, 6, 5))
    np.testing.assert_allclose(method.concept_vectors_, plain.concept_vectors_, atol=1e-4)
    scores = method.transform(stack)
    slow = [np.asarray(plain.transform(part)) for part in parts]
    for block, expected in zip((2, 5), slow, strict=True):
        np.testing.assert_allclose(scores.layer(block).flat(), expected, atol=1e-4)
    totals = np.array([one.sum(axis=0) for one in slow])
    fires = totals.sum(axis=0) > 0
    expected = (totals / totals.sum(axis=0)).T[fires]
    np.testing.assert_allclose(method.layer_profiles_[fires], expected, atol=1e-4)
    np.testing.assert_allclose(method.layer_profiles_[fires].sum(axis=1), 1)
    # The control: without a scale the large layer has it all.
    raw = coder().fit(np.concatenate([stack.layer(b).flat() for b in (2, 5)]))
    spread = [np.asarray(raw.transform(stack.layer(b).flat())).std(axis=0).max() for b in (2, 5)]
    assert spread[1] > 10 * spread[0]
    assert 0.4 < np.nanmean(method.layer_profiles_[:, 1]) < 0.6


def test_layers_count_alike_whatever_their_size(stack):
    method = MultiLayerAutoencoder(coder()).fit(stack)
    larger = {b: stack.layer(b).map(lambda v, b=b: v * 10.0**b) for b in (2, 5)}
    again = MultiLayerAutoencoder(coder()).fit(LayerStack(larger))
    np.testing.assert_allclose(again.layer_profiles_, method.layer_profiles_, atol=1e-3)
    np.testing.assert_allclose(again.scale_, method.scale_ * [1e2, 1e5])


def test_planted_units_act_where_they_were_planted(rng):
    atoms, n = np.linalg.qr(rng.normal(size=(24, 24)))[0][:9], 1500
    here = {0: [0, 1, 2, 6, 7, 8], 1: [3, 4, 5, 6, 7, 8]}  # the last three at both layers
    layers = {}
    for block, planted in here.items():
        active = rng.random((n, 6)) < 0.15
        values = (active * rng.uniform(1, 2, (n, 6))) @ atoms[planted]
        layers[block] = TokenArray(values + 0.01 * rng.normal(size=(n, 24)), np.arange(0, n + 1, 5))
    training = AutoencoderTraining(max_epochs=60, learning_rate=0.01)
    method = MultiLayerAutoencoder(coder(18, training=training)).fit(LayerStack(layers))
    cosines = method.concept_vectors_ @ atoms.T
    units = cosines.argmax(axis=0)
    assert (cosines.max(axis=0) > 0.85).all()
    profiles = method.layer_profiles_[units]
    assert (profiles[:3, 0] > 0.9).all()
    assert (profiles[3:6, 1] > 0.9).all()
    assert (abs(profiles[6:, 0] - 0.5) < 0.15).all()
    # Layers that change places change places in the profiles.
    swapped = LayerStack({0: layers[1], 1: layers[0]})
    other = MultiLayerAutoencoder(coder(18, training=training)).fit(swapped)
    units = (other.concept_vectors_ @ atoms.T).argmax(axis=0)
    assert (other.layer_profiles_[units][:3, 1] > 0.9).all()


def test_a_layer_of_which_most_tokens_are_its_mean_keeps_its_size():
    values = np.zeros((40, 3))
    values[0], values[1] = [8, 0, 0], [-8, 0, 0]
    method = MultiLayerAutoencoder(coder(4)).fit(TokenArray(values, np.arange(0, 41, 4)))
    np.testing.assert_array_equal(method.scale_, [1])


def test_units_that_never_act_have_no_profile():
    from skact.concepts._multi_layer import layer_profiles

    found = layer_profiles(np.array([[3.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_array_equal(found, [[0.75, 0.25], [np.nan, np.nan]])


def test_profiles_of_other_tokens(stack):
    method = MultiLayerAutoencoder(coder()).fit(stack)
    np.testing.assert_array_equal(method.profiles(stack), method.layer_profiles_)
    some = method.profiles(stack[:3])
    assert some.shape == (12, 2)
    assert not np.array_equal(some, method.layer_profiles_)
    with pytest.raises(ValueError, match=r"X must hold all layers .*\[2, 5\]; got 1 of 2"):
        method.profiles(stack.layer(2))


def test_one_layer_of_several_and_a_pipeline(stack):
    method = MultiLayerAutoencoder(coder()).fit(stack)
    whole = method.transform(stack)
    np.testing.assert_array_equal(method.transform(stack.layer(5)).flat(), whole.layer(5).flat())
    np.testing.assert_array_equal(
        method.transform(LayerStack({5: stack.layer(5)})).layer(5).flat(), whole.layer(5).flat()
    )
    assert whole.layer(5).source.block == 5
    assert whole.layer(5).source.columns == "units"
    y = np.arange(20) % 2
    pipe = make_pipeline(MultiLayerAutoencoder(coder()), SelectLayer(5), SuperActivator(0.5))
    assert pipe.fit(stack, y).predict(stack).shape == (20,)


def test_a_single_layer_is_a_stack_of_one(stack):
    tokens = stack.layer(5)
    method = MultiLayerAutoencoder(coder()).fit(tokens)
    assert method.layers_.tolist() == [5]
    alike = MultiLayerAutoencoder(coder()).fit(LayerStack({5: tokens}))
    np.testing.assert_array_equal(method.transform(tokens).flat(), alike.transform(tokens).flat())
    acts = method.layer_profiles_[np.isfinite(method.layer_profiles_)]
    np.testing.assert_array_equal(acts, 1)


def test_kept_it_says_the_same(stack, tmp_path):
    method = MultiLayerAutoencoder(coder()).fit(stack)
    skact.save(method, tmp_path / "kept")
    again = skact.load(tmp_path / "kept")
    np.testing.assert_array_equal(again.layer_profiles_, method.layer_profiles_)
    for block in (2, 5):
        np.testing.assert_array_equal(
            again.transform(stack).layer(block).flat(), method.transform(stack).layer(block).flat()
        )


def test_other_layers_and_tokens_are_refused(stack):
    method = MultiLayerAutoencoder(coder()).fit(stack)
    with pytest.raises(ValueError, match=r"X holds layer 3, but .* fitted on \[2, 5\]"):
        method.transform(LayerStack({3: stack.layer(2)}))
    with pytest.raises(ValueError, match="X does not say its block"):
        method.transform(stack.layer(2).with_source(None))
    with pytest.raises(ValueError, match="X is of block 9"):
        method.transform(stack.layer(2).with_source(Source("a", block=9)))
    with pytest.raises(ValueError, match="another model"):
        method.transform(stack.layer(2).with_source(Source("b", block=2)))
    low, high = stack.layer(2), stack.layer(5)
    mixed = LayerStack({2: low, 5: high.with_source(Source("b", block=5))})
    with pytest.raises(ValueError, match="another model"):
        MultiLayerAutoencoder(coder()).fit(mixed)
    broken = LayerStack({2: low, 5: high.map(lambda v: v * np.nan)})
    with pytest.raises(ValueError, match="NaN"):
        MultiLayerAutoencoder(coder()).fit(broken)
    with pytest.raises(ValueError, match="'autoencoder' parameter"):
        MultiLayerAutoencoder(skact.PCAConcepts()).fit(stack)


def test_each_layer_may_have_been_scaled_by_a_step_of_its_own(stack):
    """As outliers are bounded, at each layer by its own median."""
    clips = {b: skact.NormClip(ratio=1.5).fit(stack.layer(b)) for b in stack.layers}
    clipped = LayerStack({b: clips[b].transform(stack.layer(b)) for b in stack.layers})
    method = MultiLayerAutoencoder(coder()).fit(clipped)
    assert method.scalings_.tolist() == [clipped.layer(b).source.scaling for b in (2, 5)]
    assert len(set(method.scalings_)) == 2
    bare = LayerStack({b: clipped.layer(b).with_source(None) for b in clipped.layers})
    same = MultiLayerAutoencoder(coder()).fit(bare)
    np.testing.assert_array_equal(
        method.transform(clipped).layer(5).flat(), same.transform(bare).layer(5).flat()
    )
    otherwise = skact.NormClip(ratio=1.2).fit_transform(stack.layer(2))
    with pytest.raises(ValueError, match=r"another scaling .* block 2 was scaled by NormClip"):
        method.transform(LayerStack({2: otherwise}))
