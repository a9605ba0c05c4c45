"""The list of classes: all of it is there, and each class is called as it is entered."""

import inspect

import pytest
from sklearn.base import BaseEstimator
from sklearn.model_selection import BaseCrossValidator

from skact.persistence import _classes
from skact.persistence._classes import DEFAULTS, LEFT_OUT, PRIVATE, class_of, name_of


@pytest.mark.parametrize("name", sorted(_classes._ROOMS))
def test_names_and_classes_go_both_ways(name):
    assert "._" not in name
    assert name_of(class_of(name)) == name


@pytest.mark.parametrize("name", sorted(_classes._ROOMS))
def test_no_class_on_the_list_runs_what_it_is_given(name):
    cls = class_of(name)
    written = {key for base in cls.__mro__ for key in vars(base)}
    assert not {"__call__", "__del__", "__get__"} & written
    for key in LEFT_OUT | PRIVATE:
        assert not callable(getattr(cls, key, None)), key


@pytest.mark.parametrize("cls", [int, dict, type, BaseEstimator, BaseCrossValidator, eval, len])
def test_others_have_no_name(cls):
    assert name_of(type(cls) if not isinstance(cls, type) else cls) is None


def test_a_class_that_calls_itself_one_of_ours_is_not():
    class TokenScaler:
        pass

    TokenScaler.__module__ = "skact.preprocessing"
    assert name_of(TokenScaler) is None


def test_what_is_left_out_has_a_default_everywhere():
    for name in _classes._ROOMS:
        if issubclass(class_of(name), BaseEstimator):
            params = inspect.signature(class_of(name).__init__).parameters
            for key in DEFAULTS.keys() & params.keys():
                assert params[key].default == DEFAULTS[key], (name, key)
