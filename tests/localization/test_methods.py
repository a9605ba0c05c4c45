"""Methods are objects: what they say that they need is what they use."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import skact
from skact.localization import (
    CALM,
    LIME,
    METHODS,
    MFABA,
    RISE,
    SHAPIQ,
    DirectAlignment,
    KernelSHAP,
)
from skact.localization._methods import resolve_method

OBJECTS = [resolve_method(name) for name in METHODS]
PERTURBING = {"lime", "kernel_shap", "rise", "shapiq"}
GRADIENTS = {"integrated_gradients", "full_grad", "mfaba"}


def test_names_stand_for_objects_with_defaults():
    assert [method.name for method in OBJECTS] == list(METHODS)
    for method in OBJECTS:
        assert getattr(skact, type(method).__name__) is type(method)
        assert method.get_params() == type(method)().get_params()
        assert resolve_method(method) is method
    assert {m.name for m in OBJECTS if m.needs_copies} == PERTURBING
    assert {m.name for m in OBJECTS if m.needs_gradients} == GRADIENTS
    assert {m.name for m in OBJECTS if m.needs_fit} == {"calm"}
    assert {m.name: m.library for m in OBJECTS if m.library} == {
        "lime": "captum.attr",
        "kernel_shap": "captum.attr",
        "integrated_gradients": "captum.attr",
        "shapiq": "shapiq",
    }


@pytest.mark.parametrize("method", OBJECTS, ids=lambda m: m.name)
def test_settings_are_those_that_a_method_has(method):
    expected = set()
    if method.needs_copies:
        expected = {"n_masks", "baseline", "unit", "cell_size", "n_segments"}
    if method.name in ("integrated_gradients", "mfaba"):
        expected = {"n_steps"}
    assert set(method.get_params()) == set(method._parameter_constraints) == expected
    for name in expected:
        changed = clone(method).set_params(**{name: "wrong"})
        with pytest.raises(ValueError, match=f"The '{name}' parameter of {type(method).__name__}"):
            resolve_method(changed)


@pytest.mark.parametrize("name", METHODS)
def test_a_name_and_its_object_give_the_same_maps(name, texts):
    fitted = texts.fitted(name, n_masks=1000, n_steps=50)
    by_object = fitted.transform(texts.samples[:1])
    by_name = fitted.set_params(method=name).transform(texts.samples[:1])
    np.testing.assert_array_equal(by_object.flat(), by_name.flat())


def test_settings_change_maps(texts):
    few = texts.samples[:2]
    for one, other in [
        (RISE(n_masks=60), RISE(n_masks=80)),
        (LIME(n_masks=60), LIME(n_masks=60, baseline="pad")),
        (KernelSHAP(n_masks=60), KernelSHAP(n_masks=60, unit="word")),
        (MFABA(n_steps=2), MFABA(n_steps=5)),
    ]:
        fitted = texts.fitted()
        maps = [fitted.set_params(method=m).transform(few).flat() for m in (one, other)]
        assert not np.allclose(*maps, atol=1e-6)


def test_calm_keeps_what_it_learnt_and_the_parameter_stays_as_it_was(texts):
    method = CALM()
    localizer = texts.localizer().set_params(method=method)
    localizer.fit(texts.samples, texts.y, token_labels=texts.labels)
    assert vars(method) == {}
    assert localizer.method_.position_.shape == (33,)
    assert localizer.method_.evidence_.shape == (2, 2)
    maps = localizer.transform(texts.samples)
    # Another method in between changes nothing of it.
    localizer.set_params(method="direct").transform(texts.samples)
    again = localizer.set_params(method="calm").transform(texts.samples)
    np.testing.assert_array_equal(again.flat(), maps.flat())
    for use in (texts.fitted(), localizer.set_params(method="direct").fit(texts.samples, texts.y)):
        with pytest.raises(NotFittedError, match='need a localizer fitted with method="calm"'):
            use.set_params(method="calm").transform(texts.samples)


@pytest.mark.parametrize("method", ["direct", "calm"])
def test_a_weight_counts_as_repeating_a_sample_does(method, texts):
    weight = np.array([1, 3, 0, 2, 1, 0])
    rows = np.repeat(np.arange(6), weight)
    localizer = texts.localizer(method)
    weighed = clone(localizer).fit(
        texts.samples, texts.y, token_labels=texts.labels, sample_weight=weight
    )
    repeated = clone(localizer).fit(
        [texts.samples[i] for i in rows], texts.y[rows], token_labels=texts.labels[rows]
    )
    plain = clone(localizer).fit(texts.samples, texts.y, token_labels=texts.labels)
    np.testing.assert_allclose(weighed.thresholds_, repeated.thresholds_, rtol=1e-4)
    assert np.abs(weighed.thresholds_ - plain.thresholds_).max() > 1e-3
    if method == "calm":
        for name in ("position_", "evidence_"):
            ours, theirs = getattr(weighed.method_, name), getattr(repeated.method_, name)
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
            assert np.abs(ours - getattr(plain.method_, name)).max() > 1e-2
    weighed.thresholds_ -= 1e-4  # what lies on a threshold would be a matter of rounding
    score = weighed.score(texts.samples, texts.y, texts.labels, sample_weight=weight)
    assert score == pytest.approx(
        weighed.score([texts.samples[i] for i in rows], texts.y[rows], texts.labels[rows])
    )


def test_weights_are_refused_by_a_method_that_learns_without_them(texts):
    class Learns(CALM):
        def fit(self, samples, present):
            return super().fit(samples, present)

    localizer = texts.localizer().set_params(method=Learns())
    with pytest.raises(TypeError, match="sample_weight: Learns learns from samples and its fit"):
        localizer.fit(texts.samples, texts.y, sample_weight=np.ones(6))
    with pytest.raises(ValueError, match="sample_weight must have one entry per sample"):
        texts.localizer().fit(texts.samples, texts.y, sample_weight=np.ones(5))


def test_weights_reach_a_localizer_by_metadata_routing(texts):
    weight = np.array([1, 3, 0, 2, 1, 0])
    with sklearn.config_context(enable_metadata_routing=True):
        localizer = texts.localizer().set_fit_request(sample_weight=True)
        pipe = make_pipeline(localizer).fit(
            texts.samples, texts.y, token_labels=texts.labels, sample_weight=weight
        )
    alone = texts.localizer().fit(
        texts.samples, texts.y, token_labels=texts.labels, sample_weight=weight
    )
    np.testing.assert_array_equal(pipe[-1].thresholds_, alone.thresholds_)


def test_games_take_the_players_of_the_method_or_other_ones(texts):
    n_words = [len(text.split()) for text in texts.samples]
    n_tokens = texts.labels.lengths.tolist()
    assert n_words != n_tokens

    def n_players(method, **options):
        localizer = texts.localizer().set_params(method=method)
        return [game.n_players for game in localizer.games(texts.samples, **options)]

    assert n_players("direct") == n_players(RISE()) == n_tokens
    assert n_players(RISE(unit="word")) == n_players("direct", unit="word") == n_words
    assert n_players(RISE(unit="word"), unit="token") == n_tokens
    with pytest.raises(ValueError, match="unit must be"):
        n_players("direct", unit="letter")
    with pytest.raises(ValueError, match="baseline='blur' is not for texts"):
        n_players("direct", baseline="blur")
    kept = np.zeros((1, n_tokens[0]), bool)
    kept[0, 0] = True
    values = [
        next(iter(texts.localizer().games(texts.samples[:1], baseline=b)))(kept)
        for b in ("pad", "delete")
    ]
    assert not np.allclose(*values, atol=1e-6)


@pytest.mark.parametrize("method", ["direct", "rise", DirectAlignment()])
def test_interactions_are_those_of_shapiq(method, texts):
    localizer = texts.fitted().set_params(method=method)
    with pytest.raises(ValueError, match=r'interactions are those of SHAP-IQ: set method="shapiq"'):
        next(localizer.interactions(texts.samples))
    localizer.set_params(method=SHAPIQ(n_masks=40, unit="word"))
    shapes = [pairs.shape for pairs in localizer.interactions(texts.samples)]
    assert shapes == [(2, n, n) for n in (len(text.split()) for text in texts.samples)]
