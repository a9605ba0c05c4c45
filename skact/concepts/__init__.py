"""Concept methods: from tokens to scores of concepts."""

from skact.concepts._base import BaseConcepts, BaseUnits
from skact.concepts._linear import LinearSeparator
from skact.concepts._prototype import MeanPrototype

__all__ = ["BaseConcepts", "BaseUnits", "LinearSeparator", "MeanPrototype"]
