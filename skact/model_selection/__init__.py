"""Fitting concepts and thresholds without looking at the same rows twice, and searching them."""

from skact.model_selection._concept_search import ConceptSearchCV
from skact.model_selection._cross_fit import CrossFitTransformer
from skact.model_selection._folds import make_folds

__all__ = ["ConceptSearchCV", "CrossFitTransformer", "make_folds"]
