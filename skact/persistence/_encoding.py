"""Estimators as data: a flat list of nodes, each made of plain values and of earlier nodes.

A value is null, true, false, an integer, a float, a text, ``{"float": "nan"}`` or ``{"node": 3}``.
A node holds values, so that shared parts stay shared, nothing is deep, and there is no circle:

=============================== =============================================================
node                            stands for
=============================== =============================================================
``{"list": [...]}``             a list; ``tuple`` likewise; ``dict`` has pairs of values
``{"tensor": "7"}``             an array that is a tensor of the file
``{"numbers": [...]}``          a short array, with ``dtype`` and ``shape``
``{"texts": [...]}``            an array of text, with ``shape``; ``objects`` one of values
``{"fortran": array}``          an array that lies column by column, transposed
``{"masked": [data, mask]}``    a masked array
``{"scalar": array}``           a NumPy scalar
``{"range": [0, 9, 3]}``        a range; ``path``, ``dtype`` and ``random`` for these types
``{"class": name, "state": …}`` an object of a class on the list, with attributes by name
=============================== =============================================================
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.ma import MaskedArray
from sklearn.base import BaseEstimator

from skact import models
from skact.files import check_size
from skact.persistence._classes import DEFAULTS, LEFT_OUT, PRIVATE, class_of, name_of
from skact.persistence._container import DTYPES
from skact.rows import Array

__all__ = ["DEEPEST", "Encoder", "check_texts"]

#: How deep parts may lie in parts.
DEEPEST = 100

# Arrays of so many numbers are read by people too.
_SHORT = 256
# How many times the bytes of its texts an array may take, in which all are as long as the longest.
_PADDING = 100
_SCALARS = (type(None), bool, int, str)


class Encoder:
    """Turns one object into nodes and tensors.

    Attributes
    ----------
    nodes : list of dict
        For JSON; the last one is the object.
    tensors : dict of str to ndarray
        Arrays that the nodes name.
    left_out : list of str
        What does not travel, in words.
    """

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.tensors: dict[str, Array] = {}
        self.left_out: list[str] = []
        self._numbers: dict[int, int | None] = {}
        self._depth = 0
        self._pairs: dict[tuple[int, str], models.DetachedPair] = {}
        self._alive: list[Any] = []  # so that no other object gets the id of one that was seen

    def value(self, thing: Any, where: str) -> Any:
        """Encode anything, as a part of what ``where`` names.

        Raises
        ------
        TypeError
            If there is something in it that no file keeps, naming where.
        ValueError
            If it holds itself, or is nested too deep.
        """
        if type(thing) in _SCALARS:
            return thing
        if type(thing) is float:
            return thing if math.isfinite(thing) else {"float": str(thing)}
        if id(thing) not in self._numbers:
            self._numbers[id(thing)] = None
            self._alive.append(thing)
            if self._depth == DEEPEST:
                raise ValueError(f"{where[:200]} is nested too deep to be saved.")
            self._depth += 1
            self.nodes.append(self._node(thing, where))
            self._depth -= 1
            self._numbers[id(thing)] = len(self.nodes) - 1
        number = self._numbers[id(thing)]
        if number is None:
            raise ValueError(f"{where} holds itself, which cannot be saved.")
        return {"node": number}

    def _node(self, thing: Any, where: str) -> dict[str, Any]:
        if type(thing) in (list, tuple):
            kind = type(thing).__name__
            return {kind: [self.value(one, f"{where}[{i}]") for i, one in enumerate(thing)]}
        if type(thing) is dict:
            return {"dict": [self._pair(key, one, where) for key, one in thing.items()]}
        if type(thing) is MaskedArray:
            parts = np.asarray(thing.data), np.ma.getmaskarray(thing)
            return {"masked": [self.value(part, where) for part in parts]}
        if isinstance(thing, np.generic):
            return {"scalar": self.value(np.asarray(thing), where)}
        if type(thing) in (np.ndarray, np.memmap):
            return self._array(np.asarray(thing), where)
        if type(thing) is range:
            return {"range": [thing.start, thing.stop, thing.step]}
        if isinstance(thing, Path):
            return {"path": str(thing)}
        if isinstance(thing, np.dtype) and thing.name in DTYPES.values():
            return {"dtype": thing.name}
        if type(thing) is np.random.RandomState:
            return {"random": self.value(list(thing.get_state()), where)}
        if (name := name_of(type(thing))) is not None:
            return {"class": name, "state": self._state(thing, where)}
        raise TypeError(_refusal(thing, where))

    def _pair(self, key: Any, one: Any, where: str) -> list[Any]:
        if type(key) not in (*_SCALARS, float):
            raise TypeError(f"{where} has the key {key!r:.60}; only texts and numbers are saved.")
        return [self.value(key, where), self.value(one, f"{where}[{key!r}]")]

    def _array(self, array: Array, where: str) -> dict[str, Any]:
        if array.flags.f_contiguous and not array.flags.c_contiguous:
            return {"fortran": self.value(array.T, where)}
        kind, shape = array.dtype.kind, list(array.shape)
        flat = array.ravel()
        if kind == "O":
            return {"objects": [self.value(one, where) for one in flat], "shape": shape}
        if kind == "U":
            texts = flat.tolist()
            check_texts(texts)
            return {"texts": texts, "shape": shape}
        if array.dtype.name not in DTYPES.values():
            raise TypeError(f"{where} is an array of {array.dtype}, which cannot be saved.")
        if array.size <= _SHORT:
            numbers = [self.value(one, where) for one in flat.tolist()]
            return {"numbers": numbers, "dtype": array.dtype.name, "shape": shape}
        name = str(len(self.tensors))
        native = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        self.tensors[name] = native
        return {"tensor": name}

    def _state(self, thing: Any, where: str) -> dict[str, Any]:
        state: Mapping[str, Any]
        if isinstance(thing, tuple):
            state = thing._asdict()  # type: ignore[attr-defined]
        elif dataclasses.is_dataclass(thing):
            state = vars(thing)
            if isinstance(thing, models.DetachedPair):
                state = {**state, "processor": None}
        elif isinstance(thing, BaseEstimator):
            state = self._estimator(thing, where)
        else:
            state = vars(thing)
        return {key: self.value(one, f"{where}.{key}") for key, one in state.items()}

    def _estimator(self, estimator: Any, where: str) -> dict[str, Any]:
        params, state = estimator.get_params(deep=False), {}
        for key, one in vars(estimator).items():
            if (key in LEFT_OUT and one is not None) or (
                key in params and key in DEFAULTS and one != DEFAULTS[key]
            ):
                self._leave_out(f"{type(estimator).__name__}.{key}")
            elif key in params and key in DEFAULTS:
                continue
            elif key == "model" and key in params:
                state[key] = self._model(estimator, one)
            elif key in params or key in LEFT_OUT | PRIVATE or _is_fitted(estimator, key):
                state[key] = one
            elif key == "_metadata_request":
                state[key] = _requests(one)
            else:
                raise TypeError(f"{where}.{key} is no parameter or fitted attribute of skact.")
        return state

    def _leave_out(self, what: str) -> None:
        if what not in self.left_out:
            self.left_out.append(what)

    def _model(self, estimator: Any, model: Any) -> Any:
        """Put what finds a model again in the place of a loaded one."""
        asks = name_of(type(estimator)) == "skact.prompting.PromptDetector"
        if not isinstance(model, tuple) and not (asks and callable(model)):
            return model
        said = "a loaded one" if isinstance(model, tuple) else "a function"
        self._leave_out(f"{type(estimator).__name__}.model, {said}")
        if asks:
            return class_of("skact.prompting.DetachedModel")()
        key = id(model), getattr(estimator, "modality", "auto")
        if key not in self._pairs:
            self._pairs[key] = models.detach(model, key[1])
        return self._pairs[key]


def check_texts(texts: list[str]) -> None:
    """Refuse an array of texts that takes far more memory than they do."""
    lengths = list(map(len, texts))
    check_size(4 * len(texts) * max(lengths, default=0), sum(lengths), _PADDING)


def _is_fitted(estimator: Any, key: str) -> bool:
    return key.endswith("_") and not key.startswith("_") and not hasattr(type(estimator), key)


def _requests(request: Any) -> dict[str, dict[str, Any]]:
    """Metadata that methods ask for by ``set_fit_request`` and its like."""
    methods = ("fit", "partial_fit", "predict", "score", "transform")
    asked = {m: dict(getattr(request, m).requests) for m in methods if hasattr(request, m)}
    return {method: names for method, names in asked.items() if names}


def _refusal(thing: Any, where: str) -> str:
    kind = type(thing)
    said = f"{where} is {kind.__module__}.{kind.__qualname__}, which cannot be saved"
    if callable(thing):
        return f"{said}; functions never are. Set another value by set_params(...) before."
    if isinstance(thing, BaseEstimator):
        return (
            f"{said}: files hold estimators of skact, and Pipeline, FeatureUnion and "
            "FrozenEstimator of scikit-learn. Save what was fitted inside, such as "
            "best_estimator_, or use skops."
        )
    return f"{said}; files hold estimators, arrays, texts, numbers and collections of them."
