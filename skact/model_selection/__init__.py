"""Fitting concepts and thresholds without looking at the same rows twice."""

from skact.model_selection._cross_fit import CrossFitTransformer

__all__ = ["CrossFitTransformer"]
