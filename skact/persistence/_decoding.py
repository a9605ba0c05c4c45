"""Estimators from data: nodes one after the other, each of values and of nodes before it.

Nothing of a file is called or imported. A class comes from the fixed list, its object from
``__new__``, and only parameters of that class, fitted state and fields are set as attributes.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.ma import MaskedArray
from sklearn.base import BaseEstimator

from skact import models
from skact.persistence._classes import DEFAULTS, LEFT_OUT, PRIVATE, class_of
from skact.persistence._container import DTYPES
from skact.persistence._encoding import DEEPEST, check_texts
from skact.persistence._fitted import check_estimator
from skact.rows import Array
from skact.tokens import Source

__all__ = ["decode"]

_FLOATS = {name: float(name) for name in ("nan", "inf", "-inf")}
_SCALARS = (type(None), bool, int, float, str)
# Parts, shared ones as often as they are named, that one is shown with.
_MOST = 10**6
# Numbers that a range stands for; whoever reads one makes a list of it.
_LONGEST_RANGE = 10**6
_METHODS = ("fit", "partial_fit", "predict", "score", "transform")


def decode(nodes: Any, tensors: dict[str, Array], model: Any = None) -> Any:
    """Make the object that nodes describe.

    Parameters
    ----------
    nodes : list of dict
        As an :class:`Encoder` makes them, or anything.
    tensors : dict of str to ndarray
        What they name.
    model : tuple or None
        A loaded model for what was saved with one.

    Returns
    -------
    thing : estimator
        The object of the last node.

    Raises
    ------
    ValueError
        If a node is none, or names what is not before it, or a class or attribute that is not on
        the list.
    """
    if not isinstance(nodes, list) or not nodes:
        raise ValueError("it holds no estimator")
    decoder = _Decoder(tensors, model)
    for number, node in enumerate(nodes):
        try:
            decoder.add(node)
        except (TypeError, KeyError, AttributeError, OverflowError, IndexError) as error:
            raise ValueError(f"its node {number} cannot be read ({error!r:.80})") from error
    thing = decoder.made[-1]
    if not isinstance(thing, BaseEstimator):
        raise ValueError(f"it holds a {type(thing).__name__}, and no estimator")
    if model is not None:
        decoder.attach()
    return thing


class _Decoder:
    """Nodes that are made, and what they are made of."""

    def __init__(self, tensors: dict[str, Array], model: Any) -> None:
        self.made: list[Any] = []
        self.tensors = tensors
        self.model = model
        self.is_used = False
        self.kinds = self._kinds()
        self._sizes: list[tuple[int, int]] = []  # of each: parts to show, and how deep they are
        self._named: list[int] = []  # by the node that is being made

    def value(self, said: Any) -> Any:
        """Read a value."""
        if type(said) in _SCALARS:
            return said
        if not isinstance(said, dict) or len(said) != 1:
            raise ValueError(f"it has {said!r:.60} where a value is expected")
        ((kind, content),) = said.items()
        if kind == "float":
            return _FLOATS[content]
        if kind != "node" or type(content) is not int or not 0 <= content < len(self.made):
            raise ValueError(f"it has {said!r:.60}, which is no node before this one")
        self._named.append(content)
        return self.made[content]

    def add(self, said: Any) -> None:
        """Make a node, unless to show it would not end: a few nodes can name each other often."""
        self._named.clear()
        made = self.node(said)
        named = list(self._named)
        if isinstance(made, BaseEstimator):  # of which the parameters are shown
            shown = [one for key, one in said["state"].items() if key.strip("_") == key]
            named = [one["node"] for one in shown if isinstance(one, dict) and "node" in one]
        size = 1 + sum(self._sizes[i][0] for i in named)
        depth = 1 + max((self._sizes[i][1] for i in self._named), default=0)
        if size > _MOST or depth > DEEPEST:
            raise ValueError(f"it holds more than {_MOST} parts, or some more than {DEEPEST} deep")
        self._sizes.append((size, depth))
        self.made.append(made)

    def node(self, said: Any) -> Any:
        """Make a node."""
        if not isinstance(said, dict) or not said:
            raise ValueError(f"it has {said!r:.60} where a node is expected")
        kind, content = next(iter(said.items()))
        if kind not in self.kinds:
            raise ValueError(f"it has a node {kind!r:.60}, which is of no known kind")
        shape = said.get("shape")
        if kind in ("numbers", "texts", "objects") and not (
            isinstance(shape, list)
            and all(type(n) is int and n >= 0 for n in shape)
            and math.prod(shape) == len(content)
        ):
            raise ValueError(f"it has an array of {len(content)} and of shape {shape!r:.60}")
        return self.kinds[kind](content, said)

    def _kinds(self) -> dict[str, Callable[[Any, dict[str, Any]], Any]]:
        return {
            "list": lambda content, _: self._values(content),
            "tuple": lambda content, _: tuple(self._values(content)),
            "dict": lambda content, _: self._dict(content),
            "tensor": lambda content, _: self.tensors[content],
            "numbers": self._numbers,
            "texts": lambda content, said: _texts(content).reshape(said["shape"]),
            "objects": self._objects,
            "fortran": lambda content, _: _instance(self.value(content), np.ndarray).T,
            "masked": lambda content, _: self._masked(*self._values(content)),
            "scalar": lambda content, _: _instance(self.value(content), np.ndarray)[()],
            "range": lambda content, _: _range(content),
            "path": lambda content, _: Path(_instance(content, str)),
            "dtype": lambda content, _: np.dtype(_known_dtype(content)),
            "random": lambda content, _: _random(self.value(content)),
            "class": lambda content, said: self._object(content, said["state"]),
        }

    def _values(self, content: Any) -> list[Any]:
        return [self.value(one) for one in _instance(content, list)]

    def _dict(self, content: Any) -> dict[Any, Any]:
        pairs = [self._values(pair) for pair in _instance(content, list)]
        if not all(type(key) in _SCALARS for key, _ in pairs):
            raise ValueError("a key of a dict must be a text or number")
        return dict(pairs)

    def _numbers(self, content: Any, said: dict[str, Any]) -> Array:
        numbers = self._values(content)
        kinds = {"b": (bool,), "i": (int,), "u": (int,), "f": (float,)}
        dtype = np.dtype(_known_dtype(said["dtype"]))
        if not all(type(n) in kinds[dtype.kind] for n in numbers):
            raise ValueError(f"it has an array of {dtype} with something else in it")
        return np.array(numbers, dtype).reshape(said["shape"])

    def _objects(self, content: Any, said: dict[str, Any]) -> Array:
        array = np.empty(len(content), dtype=object)
        for i, one in enumerate(self._values(content)):
            array[i] = one
        return array.reshape(said["shape"])

    @staticmethod
    def _masked(data: Any, mask: Any) -> Any:
        data, mask = _instance(data, np.ndarray), _instance(mask, np.ndarray)
        if data.shape != mask.shape or mask.dtype != bool:
            raise ValueError(f"it has a mask of shape {mask.shape} for an array of {data.shape}")
        return MaskedArray(data, mask=mask)

    def _object(self, name: Any, said: Any) -> Any:
        cls = class_of(_instance(name, str))
        state = {key: self.value(one) for key, one in _instance(said, dict).items()}
        if issubclass(cls, tuple):
            _check_fields(name, state, cls._fields)
            return tuple.__new__(cls, [state[field] for field in cls._fields])
        if dataclasses.is_dataclass(cls):
            _check_fields(name, state, [field.name for field in dataclasses.fields(cls)])
        elif issubclass(cls, BaseEstimator):
            _complete(name, cls, state)
        elif odd := [key for key in state if not key.isidentifier() or hasattr(cls, key)]:
            raise ValueError(f"{name} has no attribute {odd[0]!r:.60}")
        made = object.__new__(cls)
        requests = state.pop("_metadata_request", None)
        vars(made).update(state)
        if requests is not None:
            vars(made)["_metadata_request"] = _request(made, requests)
        if isinstance(made, BaseEstimator):
            check_estimator(made)
        elif isinstance(made, Source):
            made.__post_init__()  # which checks, and does nothing else
        return self._reattached(made)

    def _reattached(self, made: Any) -> Any:
        """Put a model that is given in the place of one that was loaded."""
        if self.model is None or type(made).__name__ not in ("DetachedPair", "DetachedModel"):
            return made
        if isinstance(made, models.DetachedPair):
            now = models.detach(self.model, made.modality)
            if (now.content, now.reads) != (made.content, made.reads):
                same = now.content == made.content
                what = "another tokenizer or processor" if same else "other weights or settings"
                raise ValueError(f"the model given has {what} than the one it was saved with")
        self.is_used = True
        return self.model

    def attach(self) -> None:
        """Let what names a model read the one that is given, if it is the same."""
        named = [one for one in self.made if isinstance(getattr(one, "model", None), str | Path)]
        named = [one for one in named if isinstance(one, BaseEstimator)]
        if not named and not self.is_used:
            raise ValueError("nothing in it reads a model, so none can be given")
        sources = {s for s in self.made if isinstance(s, Source) and s.revision}
        for one in named:
            names = {str(one.model), os.path.abspath(one.model)}
            known = {s for s in sources if s.model in names} or sources
            given, commit = _identity(self.model, getattr(one, "modality", "auto"))
            revisions = {s.revision for s in known}
            if given.revision in revisions or (not known and given.model in names):
                one.model, self.is_used = self.model, True
            elif given.model in names and commit in revisions:
                self.is_used = True  # the name stays, by which the commit is known
        if not self.is_used:
            saved = sorted({f"{s.model} ({s.revision})" for s in known}) or [str(one.model)]
            raise ValueError(
                f"the model given, {given.model} ({given.revision}), is another one than it was "
                f"saved with, {', '.join(saved)}"
            )


def _identity(pair: Any, modality: str) -> tuple[Source, Any]:
    """Say which model a loaded pair is, and of which commit it says to be."""
    try:
        loaded = models.load(pair, modality=modality)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return Source(loaded.name, loaded.revision), getattr(loaded.config, "_commit_hash", None)


def _instance(thing: Any, kind: type) -> Any:
    if type(thing) is not kind:
        raise ValueError(f"it has a {type(thing).__name__} where a {kind.__name__} is expected")
    return thing


def _known_dtype(name: Any) -> str:
    if name not in DTYPES.values():
        raise ValueError(f"it has an array of {name!r:.60}, which is no known number format")
    return str(name)


def _texts(content: Any) -> Array:
    if not all(type(text) is str for text in content):
        raise ValueError("it has an array of texts with something else in it")
    check_texts(content)
    return np.array(content, dtype=str)


def _range(content: Any) -> range:
    numbers = range(*(_instance(n, int) for n in content))
    if numbers[_LONGEST_RANGE:]:
        raise ValueError(f"it has a {numbers!r:.60} of more than {_LONGEST_RANGE} numbers")
    return numbers


def _random(state: Any) -> np.random.RandomState:
    random = np.random.RandomState(0)
    if len(state) != 5 or state[0] != "MT19937":
        raise ValueError("it has a random state of an unknown kind")
    random.set_state(tuple(state))
    return random


def _check_fields(name: str, state: dict[str, Any], fields: Any) -> None:
    if set(state) != set(fields):
        odd = sorted(set(state) ^ set(fields))[0]
        raise ValueError(
            f"{name} of this version and of the file do not have the same fields ({odd!r:.60})"
        )


def _complete(name: str, cls: Any, state: dict[str, Any]) -> None:
    """Refuse attributes that are none of the class, and add parameters that do not travel."""
    params = inspect.signature(cls.__init__).parameters
    names = cls._get_param_names()
    for key in state:
        fitted = re.fullmatch("[A-Za-z][A-Za-z0-9_]*_", key) and not hasattr(cls, key)
        known = (key in names and key not in DEFAULTS) or key in PRIVATE or key in LEFT_OUT
        if not (fitted or known or key == "_metadata_request"):
            raise ValueError(f"{name} has no parameter or fitted attribute {key!r:.60} in a file")
    for key in LEFT_OUT & state.keys():
        if state[key] is not None:
            raise ValueError(f"{name} has {key!r} in the file, which never is in one")
    for key in names:
        if key not in state and params[key].default is inspect.Parameter.empty:
            raise ValueError(f"{name} lacks its parameter {key!r}")
        state.setdefault(key, params[key].default)


def _request(estimator: Any, said: Any) -> Any:
    """Ask for metadata as by ``set_fit_request`` and its like."""
    request = estimator._get_metadata_request()
    for method, names in _instance(said, dict).items():
        if method not in _METHODS or not all(
            isinstance(key, str) and isinstance(alias, bool | str | None)
            for key, alias in _instance(names, dict).items()
        ):
            raise ValueError(f"it asks for metadata that {method!r:.60} cannot have")
        getattr(request, method)._requests = dict(names)
    return request
