"""Methods are objects: what they say that they need is what they use."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

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
    by_object = fitted.transform(texts.samples[:2])
    by_name = fitted.set_params(method=name).transform(texts.samples[:2])
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
